"""Metrics of real runs, and of one simulated run, that tests/fixtures/verdicts keeps."""

import csv
from pathlib import Path

from r1recipes.runs.health.verdicts import Row, Terms

FOLDER = Path(__file__).parents[2] / "fixtures" / "verdicts"


def rows(name: str) -> list[Row]:
    """The steps of a run, as metrics.jsonl had them, to five digits."""
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        return [
            {key: int(word) if key == "step" else float(word) for key, word in line.items()}
            for line in csv.DictReader(file)
        ]


def terms(weights: dict[str, float], **changes: object) -> Terms:
    """All runs had 32 groups of 8 completions."""
    usual = {
        "decisive": "correctness",
        "max_completion_length": 512,
        "completions_per_step": 256,
        "num_generations": 8,
        "max_steps": 100,
    }
    return Terms(weights, **(usual | changes))  # type: ignore[arg-type]
