"""Looks for an input from elsewhere that is not answered well, for as long as one likes.

    python -m tests.hostile.hunt --seconds 3600
    python -m tests.hostile.hunt --seconds 30 --seed 1

Each input must be taken or refused: by an error of the user's input with short printable lines,
within LIMIT_S of CPU time, and without a file changed outside. What is found becomes a case of
`tests/system`. With a seed the inputs are the same each time, as many as fit in the seconds.
Limits: in one process, so its memory is looked at only where a process of its own has a limit.
"""

import argparse
import io
import itertools
import json
import os
import sys
import tarfile
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pyarrow
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pyarrow import parquet

from r1recipes import recipe
from r1recipes.cli.recipes.listing import list_runs
from r1recipes.data import sources
from r1recipes.data.sources import limits
from r1recipes.data.tokenizer import rendering
from r1recipes.errors import R1RecipesError, RunError
from r1recipes.recipe import fetch
from r1recipes.report import run as report_run
from r1recipes.runs import Run
from tests.hostile import strategies
from tests.system.test_hostile import WITH_FILES

LIMIT_S = 10.0
"""Seconds of CPU time for an answer, of this process: wall time depends on what else runs here."""
NO_PLAIN = ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")
"""Categories of Unicode that reach no terminal."""
EXAMPLES = 25
"""Inputs of each kind in a round."""
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
FILES = ("record.json", "lock.json", "resolved.json")
LINES = ("metrics.jsonl", "completions.jsonl", "evaluation-before.jsonl", "evaluation-after.jsonl")


def is_plain(line: str) -> bool:
    """Whether a line has no line break and no control, format or unassigned character."""
    return all(unicodedata.category(char) not in NO_PLAIN for char in line)


@contextmanager
def answered() -> Iterator[None]:
    """Within it an input is taken, or refused as it must be."""
    began = time.process_time()
    try:
        yield
    except R1RecipesError as error:
        assert error.exit_code == 2 and not isinstance(error, RunError), error
        assert 1 <= len(error.problems) <= 130
        for problem in error.problems:
            assert len(problem.message) <= 700 and is_plain(problem.message), problem
    spent = time.process_time() - began
    assert spent < LIMIT_S, f"{spent:.1f} s"


def hunts(place: Path, number: int | None) -> dict[str, Callable[[], None]]:
    """Kind -> a search over a few inputs of it, drawn from the seed `number`, or by chance.

    Files are made in `place`.
    """
    whole = place / "runs" / "old" / "complete"
    toml = WITH_FILES.encode()
    parquet.write_table(
        pyarrow.table({"question": ["1+1"] * 99, "answer": ["2"] * 99}), place / "a"
    )
    good = (place / "a").read_bytes()

    def bundles(content: bytes) -> None:
        with answered():
            fetch.from_archive(content, "evil.r1.zip")

    def recipes(content: bytes) -> None:
        (place / "evil.toml").write_bytes(content)
        with answered():
            recipe.load(place / "evil.toml")

    def runs(choice: st.DataObject) -> None:
        name = choice.draw(st.sampled_from([*FILES, *LINES]))
        path = whole / name
        before = path.read_text()
        first, _, rest = (before, "", "") if name in FILES else before.partition("\n")
        data = choice.draw(strategies.changed(json.loads(first)))
        path.write_text(json.dumps(data) + "\n" + rest)
        try:
            with answered():
                report_run.html([Run(whole)])
            with answered(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as said:
                list_runs()
            assert all(is_plain(line) and len(line) < 900 for line in said.getvalue().split("\n"))
        finally:
            path.write_text(before)

    def templates(template: str) -> None:
        with answered():
            rendering.attempt(template, [[{"role": "user", "content": "What is 1+1?"}]], {})

    def data(suffix: str) -> Callable[[bytes], None]:
        def read(content: bytes) -> None:
            (place / f"rows.{suffix}").write_bytes(content or b"\n")
            with answered():
                list(sources.read_file(place / f"rows.{suffix}", "data.name"))

        return read

    searches: dict[str, tuple[Callable[..., None], st.SearchStrategy[object]]] = {
        "bundle": (bundles, strategies.bundles()),
        "recipe": (recipes, strategies.flipped(toml)),
        "run folder": (runs, st.data()),
        "template": (templates, strategies.TEMPLATES),
        "JSON lines": (data("jsonl"), strategies.ROWS),
        "CSV": (data("csv"), strategies.CSV),
        "parquet": (data("parquet"), strategies.flipped(good)),
    }
    options = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    drawn = (lambda test: test) if number is None else seed(number)
    return {n: drawn(options(given(source)(test))) for n, (test, source) in searches.items()}


def unpacked(place: Path) -> None:
    """The runs of version 0.1.0 in `place`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place)  # no `filter`: Python 3.11.3 and older do not know it


@contextmanager
def a_place() -> Iterator[Path]:
    """A folder for files, in which the runs of version 0.1.0 are those of the command line."""
    before = os.environ.get("R1RECIPES_RUNS_DIR")
    with tempfile.TemporaryDirectory() as name:
        os.environ["R1RECIPES_RUNS_DIR"] = f"{name}/runs"
        try:
            unpacked(Path(name))
            yield Path(name)
        finally:
            os.environ.pop("R1RECIPES_RUNS_DIR")
            if before is not None:
                os.environ["R1RECIPES_RUNS_DIR"] = before


def main(seconds: float, number: int | None = None) -> dict[str, int]:
    """Search for that long, and each kind at least once. Returns the inputs of each kind.

    Raises: whatever an input raised that is not answered well, with the input as a note.
    """
    counts: dict[str, int] = {}
    end = time.monotonic() + seconds
    with a_place() as place:
        try:
            for turn in itertools.count():
                for name, hunt in hunts(place, None if number is None else number + turn).items():
                    if turn and time.monotonic() >= end:
                        return counts
                    hunt()
                    counts[name] = counts.get(name, 0) + EXAMPLES
        finally:
            rendering.close()
            limits.close()
    raise AssertionError("unreachable")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="the same inputs each time; default: by chance")
    args = parser.parse_args()
    for kind, count in main(args.seconds, args.seed).items():
        print(f"{kind:12} {count:>8,} inputs answered well", file=sys.stderr)
