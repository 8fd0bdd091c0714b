"""What a model does with each system prompt before it is trained: tags, right answers, length.

    python -m benchmarks.learning.prompts MODEL OUT.json PROBLEMS.jsonl...

MODEL is a local folder; each PROBLEMS file has lines of question and answer. The model is loaded
once, and every prompt of `PROMPTS` is tried on every file. It counts what the probe of a run
counts, so a row shows what training would start from. Limits: one GPU with the extra `gpu`; answers
that `correctness` can judge.
"""

import argparse
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes import data, planning, recipe, rewards
from r1recipes.machine import gpu, host, settings
from r1recipes.rewards.answers import AnswerColumn, Verifier
from r1recipes.runs import statistics
from r1recipes.training.backends import create, prepare_environment
from r1recipes.training.backends.base import Backend, Hooks
from r1recipes.training.evaluation import evaluate
from r1recipes.training.evaluation.probe import probe

XML = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>
"""
EXAMPLE = """
For example, for "Tom has 3 boxes of 4 pens and buys 5 more. How many pens has he?":
<reasoning>
3 boxes of 4 pens are 3 * 4 = 12 pens. With 5 more they are 12 + 5 = 17.
</reasoning>
<answer>
17
</answer>
"""
PROMPTS = {
    "none": "",
    "xml": XML,
    "xml, with an example": XML + EXAMPLE,
    "steps, then tags": (
        "Solve the problem step by step. Then give the final answer alone between <answer> and "
        "</answer>."
    ),
    "steps, then tags, with an example": (
        "Solve the problem step by step. Then give the final answer alone between <answer> and "
        "</answer>.\n\nFor example: Tom has 3 boxes of 4 pens and buys 5 more. How many pens has "
        "he?\n3 boxes of 4 pens are 3 * 4 = 12 pens. With 5 more they are 12 + 5 = 17.\n"
        "<answer>17</answer>"
    ),
    "reasoning first": (
        "First think about the problem step by step between <reasoning> and </reasoning>, as long "
        "as you need. Then write only the final answer between <answer> and </answer>."
    ),
}
RECIPE = """\
format = 1

[model]
name = "{model}"

[data]
name = "{data}"
eval_size = {num}

[prompt]
system = ""

[rewards]
correctness = 1.0
soft_format = 0.1

[preset.80GB]
max_seq_length = 1024
max_completion_length = 512
lora_rank = 16
num_generations = 8
prompts_per_step = 16
gpu_memory_utilization = {share}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("model")
    options.add_argument("out", type=Path)
    options.add_argument("problems", nargs="+", type=Path)
    options.add_argument("--num", type=int, default=200)
    options.add_argument("--samples", type=int, default=4)
    options.add_argument("--share", type=float, default=0.3, help="gpu_memory_utilization")
    args = options.parse_args()
    rows = []
    with ExitStack() as stack:
        backend = None
        for path in args.problems:
            plan, splits = _plan(args, path)
            if backend is None:
                prepare_environment(plan, settings.load().cache_dir)
                backend = create(plan, offline=True)
                stack.callback(backend.close)
                backend.tokenizer()
                backend.load(None, None)
            for name, system in PROMPTS.items():
                began = time.monotonic()
                row = _try(backend, splits, system, args.samples)
                row |= {"problems": path.stem, "prompt": name}
                rows.append(row | {"seconds": round(time.monotonic() - began, 1)})
                print(row, flush=True)
                result = {"model": Path(args.model).name, "systems": PROMPTS, "rows": rows}
                about.write(args.out, result)


def _plan(args: argparse.Namespace, problems: Path) -> tuple[planning.Plan, data.Splits]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "prompts.toml")
        file.write_text(
            RECIPE.format(
                model=Path(args.model).absolute(),
                data=problems.absolute(),
                num=args.num,
                share=args.share,
            )
        )
        loaded = recipe.load(file)
        plan = planning.make(
            loaded.recipe,
            planning.Target.here(gpu.take(), host.cores()),
            base_dir=Path(folder),
        )
        return plan, data.load(loaded.recipe, Path(folder))


def _try(backend: Backend, splits: data.Splits, system: str, samples: int) -> dict[str, Any]:
    """The held-out problems under one system prompt, as a run's probe sees them."""
    start = [{"role": "system", "content": system}] if system else []
    rows = [row | {"prompt": start + row["prompt"]} for row in splits.held_out]
    hooks = Hooks(
        on_progress=lambda done, total: None,
        on_step=lambda row, texts: None,
        on_checkpoint=lambda path: None,
        should_stop=lambda: False,
    )
    column = AnswerColumn.from_references(row["answer"] for row in rows)
    with Verifier(column=column) as verifier, ExitStack() as stack:
        paid = rewards.load(
            ["correctness", "soft_format"],
            base_dir=Path(),
            allow_code=False,
            verifier=verifier,
            time_limit_s=10.0,
        )
        for reward in paid:
            stack.callback(reward.close)
        items = evaluate(
            rows,
            samples,
            lambda prompts, n, greedy: backend.generate(prompts, n, greedy, False, hooks),
            paid[0],
        )
        weighted = {"correctness": (paid[0], 1.0), "soft_format": (paid[1], 0.1)}
        result = probe(items, rows, weighted, verifier.verify)
    summary = statistics.summary(items)
    return vars(result) | {
        "greedy": summary["greedy"],
        "mean_length": summary["mean_length"],
        "example": items[0]["samples"][0]["text"][:600],
    }


if __name__ == "__main__":
    main()
