"""Looks for an input from elsewhere that is not answered well, for as long as one likes.

    python -m tests.hostile.hunt --seconds 3600

Each input must be taken or refused: by an error of the user's input with short printable lines,
within LIMIT_S, and without a file changed outside. What is found becomes a case of `tests/system`.
Limits: in one process, so its memory is looked at only where a process of its own has a limit.
"""

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from r1recipes import recipe
from r1recipes.cli.runs import list_runs
from r1recipes.data import sources
from r1recipes.data.tokenizer import rendering
from r1recipes.errors import R1RecipesError, RunError
from r1recipes.recipe import fetch
from r1recipes.report import run as report_run
from r1recipes.runs import Run
from tests.hostile import strategies
from tests.system.test_hostile import WITH_FILES

LIMIT_S = 30.0
"""Seconds for an answer. An idle machine takes at most 10; others may be at work on this one."""
EXAMPLES = 25
"""Inputs of each kind in a round."""
ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
FILES = ("record.json", "lock.json", "resolved.json")
LINES = ("metrics.jsonl", "completions.jsonl", "evaluation-before.jsonl", "evaluation-after.jsonl")


@contextmanager
def answered() -> Iterator[None]:
    """Within it an input is taken, or refused as it must be."""
    began = time.monotonic()
    try:
        yield
    except R1RecipesError as error:
        assert error.exit_code == 2 and not isinstance(error, RunError), error
        assert 1 <= len(error.problems) <= 130
        for problem in error.problems:
            assert len(problem.message) <= 700 and problem.message.isprintable(), problem
    spent = time.monotonic() - began
    assert spent < LIMIT_S, f"{spent:.1f} s"


def hunts(place: Path) -> dict[str, Callable[[], None]]:
    """Kind -> a search over a few inputs of it. Files are made in `place`."""
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
            with answered():
                list_runs()
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
    return {name: options(given(source)(test)) for name, (test, source) in searches.items()}


def unpacked(place: Path) -> None:
    """The runs of version 0.1.0 in `place`."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(place)  # no `filter`: Python 3.11.3 and older do not know it


def main(seconds: float) -> dict[str, int]:
    """Search for at least so long, each kind at least once. Returns the inputs of each kind.

    Raises: whatever an input raised that is not answered well, with the input as a note.
    """
    place = Path(tempfile.mkdtemp())
    counts: dict[str, int] = {}
    try:
        unpacked(place)
        end = time.monotonic() + seconds
        while not counts or time.monotonic() < end:
            for name, hunt in hunts(place).items():
                hunt()
                counts[name] = counts.get(name, 0) + EXAMPLES
    finally:
        rendering.close()
        shutil.rmtree(place)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    for kind, count in main(parser.parse_args().seconds).items():
        print(f"{kind:12} {count:>8,} inputs answered well", file=sys.stderr)
