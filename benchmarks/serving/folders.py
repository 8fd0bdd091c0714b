"""Make a folder of many runs from one real run: copies with other names, steps and results.

    python -m benchmarks.serving.folders runs/tiny/... many --runs 100 --steps 300

Each copy has the files of the run, with its metrics and samples repeated up to the number of steps
and the numbers changed at random. Most are complete; some failed, were stopped or killed, and have
fewer steps. Limits: the values are those of no training; weights are not copied.
"""

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from r1recipes.machine import files

COPIED = ("recipe.toml", "lock.json", "evaluation-before.jsonl", "evaluation-after.jsonl")
STATES = ("complete",) * 7 + ("failed", "stopped", "running")
"""The status in the record of every tenth copy in turn; `running` reads as killed, since no process
runs it."""
MODELS = ("Qwen/Qwen2.5-0.5B-Instruct", "meta-llama/Llama-3.2-1B-Instruct", "HuggingFaceTB/SmolLM2")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a complete run")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    make(args.run, args.out, args.runs, args.steps)


def make(run: Path, out: Path, num_runs: int, num_steps: int) -> list[Path]:
    """Make the copies in `out/RECIPE/NAME` and return their folders. Each differs by its number."""
    folders = []
    for number in range(num_runs):
        began = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(hours=number)
        name = f"{began:%Y%m%dT%H%M%SZ}-{number:08x}"
        folder = out / f"recipe{number % 5}" / name
        folder.mkdir(parents=True)
        copy(run, folder, STATES[number % len(STATES)], num_steps, number)
        folders.append(folder)
    return folders


def copy(run: Path, folder: Path, status: str, num_steps: int, number: int) -> None:
    """Make one copy in an empty folder."""
    chance = random.Random(number)
    for name in COPIED:
        if status == "complete" or name != "evaluation-after.jsonl":
            shutil.copy(run / name, folder / name)
    last = num_steps if status == "complete" else chance.randint(1, num_steps)
    plan = json.loads((run / "resolved.json").read_text())
    plan["recipe"]["train"]["max_steps"] = num_steps
    plan["recipe"]["model"]["name"] = MODELS[number % len(MODELS)]
    plan["recipe"]["train"]["learning_rate"] = chance.choice([1e-5, 5e-5, 1e-4])
    files.write_json(folder / "resolved.json", plan)
    for name in ("metrics.jsonl", "completions.jsonl"):
        rows = varied(files.read_lines(run / name), last, chance)
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = (run / "train.log").read_text(errors="replace").splitlines()[:2000]
    (folder / "train.log").write_text("\n".join(lines) + "\n")
    record = json.loads((run / "record.json").read_text())
    record |= {"status": status, "recipe": folder.parent.name, "started": _time(folder.name)}
    if status != "complete":
        record["evaluation"] = {"before": record["evaluation"]["before"]}
    if status == "failed":
        record["error"] = {"kind": "oom", "message": "The card has too little memory."}
    files.write_json(folder / "record.json", record)
    (folder / ".owner").touch()


def _time(name: str) -> str:
    return f"{datetime.strptime(name[:16], '%Y%m%dT%H%M%SZ'):%Y-%m-%dT%H:%M:%SZ}"


def varied(rows: list[Row], num_steps: int, chance: random.Random) -> Iterator[Row]:
    """The rows of a run, stretched to `num_steps`, with numbers that are up to 5 % others."""
    most = rows[-1]["step"]
    by_step: dict[int, list[Row]] = {}
    for row in rows:
        by_step.setdefault(row["step"], []).append(row)
    for step in range(1, num_steps + 1):
        source = max(1, round(step / num_steps * most))
        for row in by_step.get(source, []):
            noisy = {k: v * chance.uniform(0.95, 1.05) for k, v in row.items() if type(v) is float}
            yield row | noisy | {"step": step}


if __name__ == "__main__":
    main()
