"""`tiny` trained by SFT and DPO: writes recipes and examples, runs them, and collects the records.

python -m benchmarks.learning.offline FOLDER OUT.json [CASE...]

A case whose run in FOLDER is complete is only collected. Limits: one seed; on other machines the
last digits are others.
"""

import argparse
import json
import random
import re
import subprocess
import sys
from pathlib import Path

from r1recipes import recipe
from r1recipes.data import generators
from r1recipes.data.splits import builtin_problems
from r1recipes.runs import Run

COMMON = (
    'max_steps = 90\nwarmup_ratio = 0.05\nlr_scheduler_type = "linear"\nadam_beta2 = 0.999\n'
    "save_steps = 15\n"
)
CASES: dict[str, tuple[str, str | None, str]] = {
    "sft-own": ("sft", None, "learning_rate = 2e-3"),
    "sft-demonstrations": ("sft", "demonstrations.jsonl", "learning_rate = 2e-3"),
    **{
        f"dpo-own-{rate}-beta{beta}-rpo{rpo}": (
            "dpo",
            None,
            f"learning_rate = {rate}\nbeta = {beta}\nrpo_alpha = {rpo}",
        )
        for rate, beta, rpo in (
            ("1e-3", 0.1, 0.0),
            ("2e-4", 0.1, 0.0),
            ("2e-4", 0.5, 0.0),
            ("2e-4", 0.1, 1.0),
            ("2e-4", 0.5, 1.0),
        )
    },
    **{
        f"dpo-pairs-{rate}-beta{beta}-rpo{rpo}": (
            "dpo",
            "pairs.jsonl",
            f"learning_rate = {rate}\nbeta = {beta}\nrpo_alpha = {rpo}",
        )
        for rate, beta, rpo in (("1e-3", 0.1, 0.0), ("2e-4", 0.5, 1.0))
    },
}
"""Name -> algorithm, file of examples (None: own samples), and keys of [train]."""


def write(name: str, folder: Path) -> Path:
    """The recipe of a case: `tiny` with another [train]."""
    algorithm, examples, keys = CASES[name]
    text = recipe.find("tiny").read_text().replace("#:schema ./recipe.schema.json\n", "")
    text = text.replace('algorithm = "grpo"', f'algorithm = "{algorithm}"')
    section = f'[examples]\nname = "{examples}"\n\n' if examples else ""
    replaced = f"[train]\n{COMMON}{keys}\n\n{section}"
    path = folder / f"{name}.toml"
    path.write_text(re.sub(r"(?s)\[train\]\n.*?(?=\[eval\])", replaced, text))
    return path


def write_examples(folder: Path) -> None:
    """3,000 right demonstrations, and as many pairs of a right and a wrong one."""
    rows = builtin_problems(recipe.load("tiny").recipe.data, "train", 3000, 7)
    kind, rng = generators.KINDS["builtin:arithmetic"], random.Random(1)
    right = [{"question": r["question"], "completion": kind.demonstrate(r, rng)} for r in rows]
    pairs = [
        {
            "prompt": row["question"],
            "chosen": kind.demonstrate(row, rng),
            "rejected": kind.demonstrate(row, rng, 1.0),
        }
        for row in rows
    ]
    for name, examples in (("demonstrations", right), ("pairs", pairs)):
        text = "".join(json.dumps(example) + "\n" for example in examples)
        (folder / f"{name}.jsonl").write_text(text)


def run(path: Path, *words: str) -> Run:
    """The complete run of a recipe, in runs/ beside it; `words` are more of its command line."""
    of_case = Run(path.parent / "runs" / path.stem)
    if of_case.record.exists() and of_case.read()["status"] == "complete":
        return of_case
    command = [sys.executable, "-m", "r1recipes", "run", str(path), "--offline", *words]
    subprocess.run([*command, "--run-dir", str(of_case.folder)], check=True)
    return of_case


def collected(of_case: Run) -> dict[str, object]:
    """What the table in docs/algorithms.md says of a run."""
    record, plan = of_case.read(), of_case.plan()
    evaluation = record["evaluation"]
    parts = {
        when: {key: evaluation[when][key] for key in ("accuracy", "greedy", "share_cut")}
        for when in ("before", "after")
    }
    return {
        "algorithm": plan.recipe.algorithm,
        "examples": plan.recipe.examples and Path(plan.recipe.examples.name).name,
        "train": plan.recipe.train.model_dump(),
        "own_samples": record.get("own_samples"),
        "difference": evaluation["difference"],
        "duration_s": record["duration_s"],
        "versions": {
            name: version
            for name, version in of_case.read_lock()["versions"].items()
            if name in ("torch", "trl", "transformers", "peft")
        },
    } | parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for recipes, examples and runs")
    parser.add_argument("out", type=Path, help="the .json file to write")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    args = parser.parse_args()
    if unknown := set(args.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    args.folder.mkdir(parents=True, exist_ok=True)
    write_examples(args.folder)
    results = {name: collected(run(write(name, args.folder))) for name in args.cases or CASES}
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
