"""The algorithms on one model and one card: held-out accuracy against minutes of training.

    python -m benchmarks.learning.algorithms FOLDER OUT.json [--recipe NAME] [--set KEY=VALUE ...]
                                             [--seconds N] [--only CASE...] [--gpus INDEX...]

Writes FOLDER/<case>.toml and FOLDER/<case>.log and runs each case in FOLDER/runs/<case>, one at a
time on each GPU (`benchmarks.gpus`). Then OUT.json gets what is complete beside what it has of
other cases, OUT.md the table and OUT.svg the picture. Minutes are those of the steps, and of
sampling examples before them; neither loading nor evaluating is in them. Limits: the recipe has no
stages; of cases that share a card no memory is recorded, and each takes longer than alone.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks import about, gpus
from r1recipes import recipe
from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.base import Train
from r1recipes.algorithms.group import GroupTrain
from r1recipes.machine.units import GIB
from r1recipes.report.charts import Plot, Series, drawing
from r1recipes.report.page import TEMPLATES
from r1recipes.runs import Run, reading
from r1recipes.runs.health import ACCURACY, HIGH, LOW

SECONDS = {"sft": 330, "dpo": 360}
OTHERS_S = 270
"""Seconds of a case alone on an H100, for --seconds: loading, training and the evaluations; some
less than two runs took that shared a card (assumed)."""
SAMPLED = {"max_steps": 40}
OFFLINE = {"max_steps": 60}


@dataclass(frozen=True)
class Case:
    """What is trained: an algorithm, its keys of [train], other keys as for --set, and a seed."""

    algorithm: str
    train: dict[str, Any]
    others: tuple[str, ...] = ()
    seed: int = 3407


PASSES = "preset.per_device_train_batch_size=16"
"""Whose logits leave room for a second case on a card of 80 GB."""
PAIRS = ("preset.num_generations=2", "preset.prompts_per_step=128", PASSES)
EXAMPLES = ("preset.prompts_per_step=64", PASSES, "eval.every=200")
"""Without evaluations while training, which would take longer than the training."""
CASES = {
    "grpo": Case("grpo", SAMPLED),
    "rloo": Case("rloo", SAMPLED),
    "online_dpo": Case("online_dpo", SAMPLED, PAIRS),
    "sft": Case("sft", OFFLINE | {"learning_rate": 2e-4}, EXAMPLES),
    "dpo": Case("dpo", OFFLINE | {"learning_rate": 2e-5, "rpo_alpha": 1.0}, EXAMPLES),
    **{f"grpo-{seed}": Case("grpo", SAMPLED, seed=seed) for seed in (1, 2)},
    **{f"rloo-{seed}": Case("rloo", SAMPLED, seed=seed) for seed in (1, 2)},
}
"""All of them, in the order in which they are begun: 256 completions a step, 64 examples for `sft`
and `dpo`. The rate of `sft` is its default, that of `dpo` four times its default (assumed)."""


def write(name: str, folder: Path, base: str) -> Path:
    """The recipe of a case: `base` with another algorithm, and so another [train]."""
    case = CASES[name]
    own = ALGORITHMS[case.algorithm].train
    keys = own.model_fields.keys() if issubclass(own, GroupTrain) else Train.model_fields.keys()
    shared = recipe.load(base).recipe.train.model_dump(exclude_unset=True)
    train = {key: value for key, value in shared.items() if key in keys} | case.train
    text = recipe.find(base).read_text().replace("#:schema ./recipe.schema.json\n", "")
    text = text.replace('algorithm = "grpo"', f'algorithm = "{case.algorithm}"')
    section = tomli_w.dumps({"train": train})
    path = folder / f"{name}.toml"
    path.write_text(re.sub(r"(?s)\[train\]\n.*?(?=\n(\[|# ---))", lambda _: section, text))
    return path


def command(name: str, folder: Path, args: argparse.Namespace) -> list[str]:
    """The command line of a case."""
    case, path = CASES[name], write(name, folder, args.recipe)
    flags = [f"seed={case.seed}", *case.others, *args.set]
    line = [sys.executable, "-m", "r1recipes", "run", str(path), "--offline"]
    line += ["--run-dir", str(folder / "runs" / name)]
    line += ["--preset", args.preset] if args.preset else []
    return line + [word for flag in flags for word in ("--set", flag)]


def collected(name: str, run: Run, alone: bool) -> dict[str, Any]:
    """What the table and the picture say of a complete run, alone on its card or not."""
    of_run, case = reading.read(run), CASES[name]
    record = run.read()
    evaluation, sampling_s = record["evaluation"], record["duration_s"].get("own_samples", 0.0)
    before, after = (evaluation[when] for when in ("before", "after"))
    curve = [[sampling_s / 60, before["accuracy"], *before["interval"]]]
    seconds = sampling_s
    for row in of_run.metrics:
        seconds += row["time/step_s"]
        if row.get(ACCURACY) is not None:
            curve.append([seconds / 60, row[ACCURACY], row[LOW], row[HIGH]])
    curve.append([seconds / 60, after["accuracy"], *after["interval"]])
    return {
        "algorithm": case.algorithm,
        "seed": case.seed,
        "train": of_run.recipe["train"],
        "preset": of_run.resolved["preset"],
        "accuracy": [before["accuracy"], after["accuracy"]],
        "greedy": [before["greedy"], after["greedy"]],
        "difference": evaluation["difference"],
        "steps": of_run.steps,
        "training_minutes": seconds / 60,
        "sampling_s": sampling_s,
        "wall_s": of_run.duration_s,
        "date": record["finished"],
        "alone": alone,
        "vram": record.get("vram") if alone else None,
        "curve": curve,
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The rows of the table, in Markdown."""
    names = ["algorithm", "seed", "steps", "before", "after", "difference, points (95 %)"]
    names += ["greedy after", "minutes of training"]
    has_memory = any(row["alone"] for row in results.values())
    names += ["memory: predicted, measured (GiB)"] if has_memory else []
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    for row in results.values():
        before, after = (f"{100 * value:.1f} %" for value in row["accuracy"])
        difference = row["difference"]
        low, high = (100 * end for end in difference["interval"])
        vram = row["vram"] or {}
        memory = [vram.get(key) for key in ("predicted_bytes", "measured_bytes")]
        cells = [
            f"`{row['algorithm']}`",
            row["seed"],
            row["steps"],
            before,
            after,
            f"{100 * difference['mean']:+.1f} ({low:.1f} to {high:.1f})",
            f"{100 * row['greedy'][1]:.1f} %",
            f"{row['training_minutes']:.1f}",
        ]
        if has_memory:
            sizes = ", ".join(f"{size / GIB:.1f}" if size else "none" for size in memory)
            cells += [sizes if row["alone"] else "shared a card"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, dict[str, Any]]) -> str:
    """Held-out accuracy against minutes of training, a colour for each algorithm, as SVG."""
    tones = {name: tone for tone, name in enumerate(dict.fromkeys(ALGORITHMS))}
    series = [
        Series(name, minutes, accuracy, low, high, tone=tones[row["algorithm"]])
        for name, row in results.items()
        for minutes, accuracy, low, high in [zip(*row["curve"], strict=True)]
    ]
    plot = Plot("accuracy", "Held-out accuracy", series, x_label="minutes of training", unit="%")
    style = (TEMPLATES / "page.css").read_text() + "svg { font-family: sans-serif; }"
    head, end, rest = str(drawing.svg(plot)).partition(">")
    return f"{head}{end}<style>{style}</style>{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for recipes, logs and runs")
    parser.add_argument("out", type=Path, help="the .json file to write")
    parser.add_argument("--recipe", default="qwen2.5-coder-0.5b", help="whose [train] is replaced")
    parser.add_argument("--preset", help="without it the largest that the card can hold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in run")
    gpus.add_flags(parser)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cases = [
        gpus.Case(name, command(name, args.folder, args), SECONDS.get(case.algorithm, OTHERS_S))
        for name, case in CASES.items()
    ]
    gpus.run_all(cases, args.folder, args)
    runs = {name: Run(args.folder / "runs" / name) for name in CASES}
    alone = len(set(args.gpus or [])) == len(args.gpus or [])
    earlier = json.loads(args.out.read_text())["cases"] if args.out.exists() else {}
    complete = earlier | {
        name: collected(name, run, alone)
        for name, run in runs.items()
        if run.record.exists() and run.status() == "complete"
    }
    complete = {name: complete[name] for name in CASES if name in complete}
    about.write(args.out, {"cases": complete})
    args.out.with_suffix(".md").write_text(table(complete))
    if complete:
        args.out.with_suffix(".svg").write_text(picture(complete))


if __name__ == "__main__":
    main()
