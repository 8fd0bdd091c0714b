"""Writes the data of the worked example in docs/own-data.md: `python make_data.py`.

    problems.csv           540 rows: task, solution ("9*60=540, 540+5=545 #### 545")
    demonstrations.jsonl   400 rows: question, completion; more than half end in a wrong number

Limits: whole hours from 1 to 9 and whole minutes; the same files every time.
"""

import csv
import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent
WRONG = 0.6
"""Share of demonstrations with a mistake, as in the recipe `tiny`: they teach the format alone."""
NUM_DEMONSTRATIONS = 400


def task(hours: int, minutes: int) -> str:
    return f"{hours} h {minutes} min = ? min"


def completion(hours: int, minutes: int, slip: int) -> str:
    """A worked answer whose sum is off by `slip`."""
    total = hours * 60 + minutes + slip
    reasoning = f"{hours}*60={hours * 60}\n{hours * 60}+{minutes}={total}"
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{total}\n</answer>"


def main() -> None:
    rng = random.Random(3407)
    pairs = [(hours, minutes) for hours in range(1, 10) for minutes in range(60)]
    rng.shuffle(pairs)
    with (FOLDER / "problems.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "solution"])
        for hours, minutes in pairs:
            work = f"{hours}*60={hours * 60}, {hours * 60}+{minutes}={hours * 60 + minutes}"
            writer.writerow([task(hours, minutes), f"{work} #### {hours * 60 + minutes}"])
    with (FOLDER / "demonstrations.jsonl").open("w", encoding="utf-8") as file:
        for hours, minutes in pairs[:NUM_DEMONSTRATIONS]:
            slip = rng.choice([-20, -10, 10, 20]) if rng.random() < WRONG else 0
            row = {
                "question": task(hours, minutes),
                "completion": completion(hours, minutes, slip),
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
