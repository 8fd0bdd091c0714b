"""The model card of an export, README.md, made from the run's record alone: nothing that was not
measured or recorded stands in it."""

import shlex
from typing import Any

from r1recipes.runs.trained import TrainedRun

USE = {
    "lora": """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, {tokenizer}

base = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "THIS_FOLDER")
tokenizer = {tokenizer}.from_pretrained("THIS_FOLDER")
```
""",
    "merged": """\
```python
from transformers import AutoModelForCausalLM, {tokenizer}

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = {tokenizer}.from_pretrained("THIS_FOLDER")
```
""",
    "gguf": "```\nllama-cli -m {file}\n```\n",
    "ollama": "```\nollama create {name} -f Modelfile\nollama run {name}\n```\n",
}


def text(finished: TrainedRun, made: dict[str, Any]) -> str:
    """The card. `made` is what `export.json` says."""
    plan, record, lock = finished.plan, finished.run.read(), finished.run.read_lock()
    recipe = plan.recipe
    parts = [
        _front(made),
        f"# {record['recipe']}, {made['form']}\n",
        f"{recipe.description or 'A reasoning model'}: GRPO on `{recipe.model.name}`.\n",
        "## Accuracy\n",
        _accuracy(record, recipe),
        "## What this is\n",
        _made(made),
        "## Use\n",
        _use(finished, made),
        _prompt(recipe),
        "## Reproduce\n",
        f"Fingerprint of the resolved recipe `{record['fingerprint']}`, preset "
        f"`{plan.preset_name}`, seed {recipe.seed}"
        + (f", on {lock['machine']['gpu']}" if lock.get("machine", {}).get("gpu") else "")
        + f". Versions: {_versions(lock['versions'])}.\n",
        f"```\n{_command(plan, lock)}\n```\n",
        "<details><summary>recipe.toml</summary>\n",
        f"```toml\n{finished.run.recipe.read_text(encoding='utf-8').rstrip()}\n```\n",
        "</details>\n",
    ]
    return "\n".join(parts)


def _front(made: dict[str, Any]) -> str:
    """What the Hub reads. The licence is the base's and so is left to whoever publishes this."""
    relation = {"lora": "adapter", "merged_16bit": "finetune"}.get(made["form"], "quantized")
    lines = ["---", "tags: [r1recipes, grpo, reasoning]", "pipeline_tag: text-generation"]
    if made["base_on_hub"]:
        lines += [f"base_model: {made['base']}", f"base_model_relation: {relation}"]
    library = {"lora": "peft", "gguf": "gguf", "ollama": "gguf"}.get(made["form"], "transformers")
    return "\n".join([*lines, f"library_name: {library}", "---\n"])


def _accuracy(record: dict[str, Any], recipe: Any) -> str:
    evaluation = record["evaluation"]
    rows = ["| | sampled pass@1 | 95 % | greedy |", "| --- | --- | --- | --- |"]
    for when in ("before", "after"):
        found = evaluation[when]
        low, high = found["interval"]
        share, greedy = f"{found['accuracy']:.1%}", f"{found['greedy']:.1%}"
        rows.append(f"| {when} | {share} | {low:.1%} to {high:.1%} | {greedy} |")
    found, change = evaluation["after"], evaluation["difference"]
    low, high = change["interval"]
    return "\n".join(
        [
            *rows,
            "",
            f"{found['num_problems']} held-out problems of `{recipe.data.name}`, "
            f"{found['num_samples']} samples each at temperature {recipe.train.temperature:g}; "
            f"paired difference {change['mean']:+.1%} (95 % {low:+.1%} to {high:+.1%}). Measured "
            "on base + adapter as trained" + ", not on this export.\n",
        ]
    )


def _made(made: dict[str, Any]) -> str:
    base = f"`{made['base']}`" + (f" at `{made['base_revision']}`" if made["base_revision"] else "")
    start = ", after a cold start on all weights" if made["cold_start"] else ""
    how = "made from weights" if made["files"] else "weights"
    lines = [f"- form `{made['form']}`, {how} in {made['dtype']}", f"- base: {base}{start}"]
    if made["trained_in_4bit"]:
        lines.append(
            "- trained with the base in 4 bits; the base in 16 bits is what the adapter is merged "
            "with here, so answers differ a little from those in training"
        )
    for name, types in made["files"].items():
        tensors = ", ".join(f"{count} x {kind}" for kind, count in types["tensors"].items())
        lines.append(f"- `{name}`: {types['bytes'] / 1e6:.1f} MB; {tensors}")
    lines += [f"- checked: {line}" for line in made["checks"]]
    return "\n".join(lines) + "\n"


def _use(finished: TrainedRun, made: dict[str, Any]) -> str:
    form = made["form"]
    how = USE.get(form, USE["merged"])
    name = finished.run.read()["recipe"]
    # AutoTokenizer gives each Qwen2 model that model's splitting into words, whatever is saved.
    tokenizer = "PreTrainedTokenizerFast" if made["own_tokenizer"] else "AutoTokenizer"
    base = "THIS_FOLDER/base" if made["cold_start"] or made["own_tokenizer"] else made["base"]
    file = next(iter(made["files"]), "")
    return how.format(base=base, name=name, file=file, tokenizer=tokenizer)


def _prompt(recipe: Any) -> str:
    if not recipe.prompt.system:
        return "It was trained without a system message: the question alone.\n"
    return (
        f"It was trained with this system message:\n\n```\n{recipe.prompt.system.rstrip()}\n```\n"
    )


def _command(plan: Any, lock: dict[str, Any]) -> str:
    # The lock has them as the user typed them, with the flag.
    given = [text.removeprefix("--set ") for text in lock.get("overrides", [])]
    sets = [f"--set {shlex.quote(text)}" for text in given]
    command = ["python -m r1recipes run recipe.toml", f"--preset {plan.preset_name}", *sets]
    return " ".join(command)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
