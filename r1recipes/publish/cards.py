"""The README.md of what is published: of an exported form of a run, and of a shared recipe.

Both are made from the run's record and lock and from what was checked, and hold nothing else.
Limits: Markdown is not escaped, so the Hub shows what a recipe says as it shows any Markdown.
"""

from dataclasses import dataclass
from typing import Any

from r1recipes.algorithms import ALGORITHMS
from r1recipes.machine.units import duration
from r1recipes.recipe.bundle import Files
from r1recipes.recipe.schema import Recipe
from r1recipes.runs import lock as run_lock
from r1recipes.runs.reading import wall_s
from r1recipes.runs.trained import TrainedRun

MARK = "<!-- made by `r1recipes share` -->"
"""Ends the card of a shared recipe; a README.md without it was written by somebody else."""
_MERGED = """\
```python
from transformers import AutoModelForCausalLM, {tokenizer}

model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")
tokenizer = {tokenizer}.from_pretrained("THIS_FOLDER")
```
"""


@dataclass(frozen=True)
class Use:
    """How a form is loaded, and what the Hub calls it."""

    text: str
    """Markdown with {tokenizer}, {base}, {name} and {file}."""
    hub_library: str = "transformers"
    relation: str = "quantized"
    """To the base: one of the Hub's adapter, finetune, quantized."""


ADAPTER = Use(
    """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, {tokenizer}

base = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "THIS_FOLDER")
tokenizer = {tokenizer}.from_pretrained("THIS_FOLDER")
```
""",
    "peft",
    "adapter",
)
MERGED = Use(_MERGED, relation="finetune")
QUANTIZED = Use(_MERGED)
GGUF = Use("```\nllama-cli -m {file}\n```\n", "gguf")
OLLAMA = Use("```\nollama create {name} -f Modelfile\nollama run {name}\n```\n", "gguf")


def of_export(finished: TrainedRun, manifest: dict[str, Any], use: Use) -> str:
    """The card of one form of a run; `manifest` is the content of its export.json."""
    plan, record, lock = finished.plan, finished.run.read(), finished.run.read_lock()
    recipe, gpu = plan.recipe, lock.get("machine", {}).get("gpu")
    versions = ", ".join(f"{name} {version}" for name, version in lock["versions"].items())
    is_foreign = bool(lock.get("source"))
    flags = run_lock.permissions(recipe.model_dump(), is_foreign=is_foreign)
    command = run_lock.command("recipe.toml", plan.preset_name, lock.get("overrides", []), flags)
    paragraphs = [
        _front_matter_of_export(manifest, plan.algorithm.name, use),
        f"# {record['recipe']}, {manifest['form']}\n",
        f"{recipe.description or 'A reasoning model'}: {plan.algorithm.title} on "
        f"`{finished.model_name}`"
        f"{f', {finished.progress}' if finished.is_cut_short else ''}.\n",
        "## Accuracy\n",
        _accuracy(finished.evaluation(), recipe),
        "## What this is\n",
        _contents(manifest),
        "## Use\n",
        _use(record["recipe"], manifest, use),
        _prompt(recipe.prompt.system),
        "## Reproduce\n",
        f"Fingerprint of the resolved recipe `{record['fingerprint']}`, preset "
        f"`{plan.preset_name}`, seed {recipe.seed}{f', on {gpu}' if gpu else ''}. "
        f"Versions: {versions}.\n",
        f"```\npython -m {command}\n```\n",
        "<details><summary>recipe.toml</summary>\n",
        f"```toml\n{finished.run.recipe.read_text(encoding='utf-8').rstrip()}\n```\n",
        "</details>\n",
    ]
    return "\n".join(paragraphs)


def _front_matter_of_export(manifest: dict[str, Any], algorithm: str, use: Use) -> str:
    """The licence is that of the base, so it is left to whoever publishes the form."""
    is_on_hub = manifest["base_on_hub"]
    return _front_matter(
        tags=["r1recipes", algorithm, "reasoning"],
        pipeline_tag="text-generation",
        base_model=manifest["base"] if is_on_hub else None,
        base_model_relation=use.relation if is_on_hub else None,
        library_name=use.hub_library,
    )


def _accuracy(evaluation: dict[str, Any], recipe: Recipe) -> str:
    lines = ["| | sampled pass@1 | 95 % | greedy |", "| --- | --- | --- | --- |"]
    for when in ("before", "after"):
        if row := evaluation.get(when):
            low, high = row["interval"]
            sampled, greedy = f"{row['accuracy']:.1%}", f"{row['greedy']:.1%}"
            lines.append(f"| {when} | {sampled} | {low:.1%} to {high:.1%} | {greedy} |")
    before = evaluation["before"]
    problems = (
        f"{before['num_problems']} held-out problems of `{recipe.data.name}`, "
        f"{before['num_samples']} samples each at temperature {recipe.train.temperature:g}"
    )
    if difference := evaluation.get("difference"):
        low, high = difference["interval"]
        sentence = (
            f"{problems}; paired difference {difference['mean']:+.1%} (95 % {low:+.1%} to "
            f"{high:+.1%}). Measured on base + adapter as trained, not on this export.\n"
        )
    else:
        sentence = f"{problems}. This adapter was not evaluated: its run has not ended.\n"
    return "\n".join([*lines, "", sentence])


def _contents(manifest: dict[str, Any]) -> str:
    revision = manifest["base_revision"]
    base = f"`{manifest['base']}`" + (f" at `{revision}`" if revision else "")
    start = ", after a cold start on all weights" if manifest["cold_start"] else ""
    start = (f"; {manifest['starts_from']}" if manifest.get("starts_from") else "") + start
    weights = "made from weights" if manifest["files"] else "weights"
    lines = [
        f"- form `{manifest['form']}`, {weights} in {manifest['dtype']}",
        f"- base: {base}{start}",
    ]
    if manifest["step"] < manifest["max_steps"]:
        lines.append(f"- trained to step {manifest['step']} of {manifest['max_steps']}")
    if manifest["trained_in_4bit"] or manifest["trained_in_fp8"]:
        trained_in = "FP8" if manifest["trained_in_fp8"] else "4 bits"
        lines.append(
            f"- trained with the base in {trained_in}; the base in 16 bits is what the adapter is "
            "merged with here, so answers differ a little from those in training"
        )
    for name, file in manifest["files"].items():
        tensors = ", ".join(f"{count} x {kind}" for kind, count in file["tensors"].items())
        lines.append(f"- `{name}`: {file['bytes'] / 1e6:.1f} MB; {tensors}")
    lines += [f"- checked: {check}" for check in manifest["checks"]]
    return "\n".join(lines) + "\n"


def _use(name: str, manifest: dict[str, Any], use: Use) -> str:
    has_base = manifest["cold_start"] or manifest["own_tokenizer"] or manifest.get("starts_from")
    return use.text.format(
        base="THIS_FOLDER/base" if has_base else manifest["base"],
        name=name,
        file=next(iter(manifest["files"]), ""),
        # AutoTokenizer gives each Qwen2 model that model's splitting into words, whatever is saved.
        tokenizer="PreTrainedTokenizerFast" if manifest["own_tokenizer"] else "AutoTokenizer",
    )


def _prompt(system: str) -> str:
    if not system:
        return "It was trained without a system message: the question alone.\n"
    return f"It was trained with this system message:\n\n```\n{system.rstrip()}\n```\n"


def of_recipe(
    name: str,
    recipe: Recipe,
    lock: dict[str, Any],
    record: dict[str, Any] | None,
    files: Files,
) -> str:
    """The card of a shared recipe; `record` is None for a recipe that was not run."""
    title = ALGORITHMS[recipe.algorithm].title
    paragraphs = [
        _front_matter(
            base_model=_hub_id(recipe.model.name),
            datasets=_hub_id(recipe.data.name),
            library_name="r1recipes",
            tags=["r1recipes", recipe.algorithm],
        ),
        f"# {name}\n",
        *([f"{recipe.description}\n"] if recipe.description else []),
        f"A recipe for r1recipes: `{recipe.model.name}` on `{recipe.data.name}`, {title}, "
        f"{recipe.train.max_steps} steps, seed {recipe.seed}.\n",
        _proof(record, lock, recipe.train.max_steps)
        if record
        else "It was shared without a run.\n",
        "## Run it\n",
        "```\n"
        "python -m r1recipes run FOLDER_OR_FILE --locked   # refuses what differs from lock.json\n"
        "python -m r1recipes run FOLDER_OR_FILE            # takes what is here\n"
        "```\n",
        f"Fingerprint of the recipe: `{lock['fingerprint']}`\n",
        "## Files\n",
        "".join(f"- `{file}`\n" for file in sorted({*files, "README.md"})),
        f"{MARK}\n",
    ]
    return "\n".join(paragraphs)


def _hub_id(name: str) -> str | None:
    is_id = name.count("/") == 1 and not name.startswith(("builtin:", "/", ".", "~"))
    return name if is_id else None


def _proof(record: dict[str, Any], lock: dict[str, Any], max_steps: int) -> str:
    seconds = wall_s(record)
    machine = lock.get("machine", {}).get("gpu") or "a CPU"
    made = f"{duration(seconds)} on {machine}, preset {record['preset']}"
    step = record.get("stopped_at_step")
    if record["status"] != "complete":
        before, status = record["evaluation"]["before"], record["status"]
        ending = "failed" if status == "failed" else f"was {status}"
        return (
            f"The run {ending} at step {step} of {max_steps} and was not evaluated "
            f"after training: {made}. Accuracy before training: {before['accuracy']:.1%} sampled, "
            f"{before['greedy']:.1%} greedy.\n"
        )
    before, after, difference = (
        record["evaluation"][key] for key in ("before", "after", "difference")
    )
    low, high = (100 * bound for bound in difference["interval"])
    ended = f"Training ended at step {step} of {max_steps}. " if step else ""
    return (
        "| | before | after |\n"
        "| --- | --- | --- |\n"
        f"| accuracy, sampled | {before['accuracy']:.1%} | {after['accuracy']:.1%} |\n"
        f"| accuracy, greedy | {before['greedy']:.1%} | {after['greedy']:.1%} |\n\n"
        f"{ended}Difference {100 * difference['mean']:+.1f} points, 95 % {low:+.1f} to "
        f"{high:+.1f}; {made}, finished {record['finished'][:10]}.\n"
    )


def _front_matter(**fields: Any) -> str:
    """The part of a card that the Hub reads, from ModelCardData's fields; None leaves one out."""
    from huggingface_hub import ModelCardData

    return f"---\n{ModelCardData(**fields).to_yaml()}\n---\n"
