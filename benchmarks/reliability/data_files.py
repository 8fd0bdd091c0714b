"""Measure what the largest data files that are accepted cost: CPU time and memory.

    python -m benchmarks.reliability.data_files

Makes files of several forms, each as large as a limit of r1recipes/data/sources/limits.py allows:
of bytes, of rows or of values, as .jsonl, .csv and .parquet; and one that is larger, which is to be
refused. Each is loaded as `run` does it, up to the kinds of its answers, in a process of its own.
Memory is what `r1recipes check tiny` takes alone, plus by how much this process and its children
grew at most together. Writes benchmarks/reliability/results/data_files.json. Limits:
Linux; tokenising the prompts is not measured, which takes a time in proportion to their length.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from benchmarks import about
from benchmarks.reliability.hostile import (
    MAX_BYTES,
    MAX_S,
    Watch,
    command_bytes,
    command_of,
    descendants,
    resident_bytes,
)
from r1recipes import data, recipe
from r1recipes.data import preflight
from r1recipes.data.sources import limits
from r1recipes.errors import RecipeError
from r1recipes.training.backends import builtin

RESULT = Path(__file__).parent / "results" / "data_files.json"
RECIPE = Path(__file__).parents[1] / "small.toml"
SIZE = 0.97 * limits.MAX_BYTES
"""Bytes of text in a file that is limited by its bytes; names and marks take the rest."""
NUM_ROWS = 299_000
Row = dict[str, Any]


def texts(length: int, *, answer: str = "", question: str = "") -> Iterator[Row]:
    """Rows that together have SIZE, in `length` characters each, which repeat one of the two."""
    words = answer or question
    for number in range(min(NUM_ROWS, int(SIZE / length))):
        text = (words * (length // len(words) + 1))[: length - 46]
        yield {
            "question": f"q{number} {text if question else ''}",
            "answer": f"{number} {text if answer else ''}",
        }


def columns(num_columns: int, make: Callable[[int], Any], num_rows: int) -> Iterator[Row]:
    for number in range(num_rows):
        row: Row = {"question": f"q{number}", "answer": str(number)}
        yield row | {f"k{column}": make(number * 1000 + column) for column in range(num_columns)}


SHORT = int(SIZE / NUM_ROWS) - 10
FORMS: dict[str, Callable[[], Iterator[Row]]] = {
    "short questions": lambda: texts(SHORT, question="a b "),
    "short answers": lambda: texts(SHORT, answer="9 + x "),
    "answers of numbers": lambda: columns(2, lambda n: n / 7, NUM_ROWS),
    "questions of 1,000 characters": lambda: texts(1000, question="many words in a row "),
    "answers of 1,000 characters": lambda: texts(1000, answer="many words "),
    "answers of 90,000 characters with an emoji": lambda: texts(
        90_000, answer="\U0001f600" + "many words " * 8182
    ),
    "lines of 1 MB": lambda: texts(1_000_000, question="many words in a row "),
    "lines of 1 MB with an emoji": lambda: texts(
        1_000_000, question="\U0001f600" + "many words " * 91_000
    ),
    "short questions with an emoji": lambda: texts(
        SHORT - 30, question="\U0001f600" + "many words in a row " * 20
    ),
    "190 columns of numbers": lambda: columns(190, lambda n: n, 9_900),
    "190 columns of texts": lambda: columns(190, lambda n: f"{n} " + "y" * 16, 9_900),
    "twice too large": lambda: (row for _ in range(2) for row in texts(2000, question="a b ")),
}
NESTED: dict[str, Callable[[], Iterator[Row]]] = {
    "lists of objects": lambda: columns(1, lambda n: [{"a": 1}] * 30_000, 40),
    "lists of lists": lambda: columns(1, lambda n: [[]] * 45_000, 40),
    "lists of numbers": lambda: columns(1, lambda n: [10**6 + n] * 90_000, 40),
    "mixed values": lambda: columns(1, lambda n: "x" if n % 2000 else [n], NUM_ROWS),
    "a list of answers": lambda: ({"question": f"q{n}", "answer": [str(n), "x" * 99]}
                                  for n in range(NUM_ROWS)),
}  # fmt: skip
"""What a .csv file cannot have."""


def write(path: Path, rows: Iterator[Row]) -> None:
    """The rows as a file of the kind that its name ends in."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif path.suffix == ".csv":
        first = next(rows)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(first))
            writer.writeheader()
            writer.writerow(first)
            writer.writerows(rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, compression="zstd")


class Both(Watch):
    """Notes the highest sum of this process and its children at one time: those that decode a
    .parquet file have ended when its table is read."""

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            started = [pid for pid in descendants() if command_of(pid) != command_of("self")]
            resident = sum(resident_bytes(pid, "VmRSS") for pid in ["self", *started])
            self.children_bytes = max(self.children_bytes, resident - self.before)

    def total(self) -> int:
        self.is_over.set()
        self.join()
        return max(self.children_bytes, resident_bytes("self") - self.before)


def recipe_of(file: str) -> str:
    """A recipe with a data file in place of built-in problems, without the keys of those."""
    text = RECIPE.read_text().replace('"builtin:arithmetic"', f'"{file}"')
    text = text.replace("[data.problems]\ndigits = 2\n", "")
    return text.replace("wrong = 0.3", 'data = "shown.jsonl"')


def load(path: str, target: str) -> None:
    """Load one file and write what it took to `target`."""
    builtin.build_model(1, "builtin:tiny")  # what `run` always loads is loaded before
    folder, alone = Path(path).parent, command_bytes()
    (folder / "shown.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    (folder / "mine.toml").write_text(recipe_of(Path(path).name))
    loaded = recipe.load(folder / "mine.toml").recipe
    every_row = loaded.data.model_copy(update={"size": None})
    watch, began = Both(), sum(os.times()[:4])
    try:
        splits = data.load(loaded.model_copy(update={"data": every_row}), folder)
        outcome = preflight.answer_column(splits).summary
    except RecipeError as error:
        outcome = f"refused: {error.problems[0].message}"
    limits.close()  # its time counts when it has ended
    seconds = round(sum(os.times()[:4]) - began, 2)
    row = {"file_bytes": os.path.getsize(path), "cpu_seconds": seconds,
           "bytes": alone + watch.total(), "outcome": outcome[:200]}  # fmt: skip
    Path(target).write_text(json.dumps(row))


def measure(form: str, suffix: str, rows: Iterator[Row]) -> Row:
    """What one file takes."""
    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder, f"rows.{suffix}"), Path(folder, "row.json")
        write(path, rows)
        # No script of its own, which each child process would import anew.
        script = (
            "import sys; from benchmarks.reliability.data_files import load; load(*sys.argv[1:])"
        )
        subprocess.run([sys.executable, "-c", script, str(path), str(target)], check=True)
        row: Row = {"form": form, "suffix": suffix} | json.loads(target.read_text())
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="files of this suffix alone, nothing written")
    args = parser.parse_args()
    forms = [(name, suffix, FORMS[name]) for name in FORMS for suffix in ("jsonl", "csv")]
    forms += [(name, "jsonl", NESTED[name]) for name in NESTED]
    forms += [(name, "parquet", make) for name, make in (FORMS | NESTED).items()
              if name != "mixed values"]  # fmt: skip
    chosen = [form for form in forms if args.only in ("", form[1])]
    rows = [measure(name, suffix, make()) for name, suffix, make in chosen]
    most = {key: max(row[key] for row in rows) for key in ("cpu_seconds", "bytes")}
    if not args.only:
        about.write(RESULT, {"limits": {"cpu_seconds": MAX_S, "bytes": MAX_BYTES},
                         "most": most, "files": rows})  # fmt: skip
    sys.exit(not (most["cpu_seconds"] <= MAX_S and most["bytes"] <= MAX_BYTES))


if __name__ == "__main__":
    main()
