"""Reads a .jsonl file: one JSON object on each line, each within the limits for foreign files.

Limits: the file is read whole into memory; a line that is not valid is a problem of its own, of
which the first few are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.data.sources import limits
from r1recipes.errors import Problem, RecipeError
from r1recipes.machine.files import foreign

if TYPE_CHECKING:
    import pyarrow

MAX_PROBLEMS = 5
"""Lines of a .jsonl file that are not valid and are shown; the others are counted."""


def read(path: Path, texts: Sequence[str] = ()) -> pyarrow.Table:
    """All rows of a file; `texts` is for CSV alone. Raises: RecipeError; OSError."""
    import pyarrow

    from r1recipes.data.sources import json_column

    columns: dict[str, json_column.Growing] = {}
    num_rows, num_wrong, problems = 0, 0, list[Problem]()
    limits.refuse_lines(path)
    for rows, wrong in _batches(path, limits.ROWS_IN_PYTHON):
        num_wrong += len(wrong)
        problems += wrong[: MAX_PROBLEMS - len(problems)]
        for name in dict.fromkeys(name for row in rows for name in row):
            if name not in columns:
                columns[name] = json_column.Growing(num_rows)
        limits.refuse_columns(columns, path)
        num_rows += len(rows)
        limits.refuse_cells(num_rows, len(columns), path)
        for name, column in columns.items():
            column.add([row.get(name) for row in rows])
    refuse_problems(problems, path, num_wrong)
    # Arrow would give every row each of these keys, and `datasets` a feature each.
    as_json = json_column.has_many_keys(
        [column.objects() for column in columns.values()], limits.MAX_COLUMNS
    )
    return pyarrow.table({name: c.whole(as_json=as_json) for name, c in columns.items()})


def _batches(path: Path, max_rows: int) -> Iterator[tuple[list[dict[str, Any]], list[Problem]]]:
    """The rows of a file, some at a time, and what is wrong with the lines between them."""
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    num_bytes = 0
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            row = json_object(line, f"{path}:{number}", first=number == 1)
            if isinstance(row, Problem):
                problems.append(row)
            else:
                rows.append(row)
                num_bytes += len(line)
            if len(rows) + len(problems) >= max_rows or num_bytes > limits.MAX_LINE_BYTES:
                yield rows, problems
                rows, problems, num_bytes = [], [], 0
    yield rows, problems


def refuse_problems(problems: list[Problem], path: Path, num_problems: int) -> None:
    """Raises: RecipeError with the first problems with the lines of a file, and how many more."""
    more = num_problems - MAX_PROBLEMS
    if more > 0:
        hint = "correct the others first; the next check shows more"
        rest = Problem(f"{more} more lines are not valid", str(path), hint)
        raise RecipeError(problems=[*problems[:MAX_PROBLEMS], rest])
    if problems:
        raise RecipeError(problems=problems)


def json_object(line: bytes, where: str, first: bool) -> dict[str, Any] | Problem:
    """The object on a line of a .jsonl file, or what is wrong with it."""
    hint = "a .jsonl file has one JSON object on each line"
    try:
        row = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
    except json.JSONDecodeError as error:
        return Problem(f"not valid JSON: {error.msg}", f"{where}:{error.colno}", hint)
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8 (byte {error.start + 1})", where, "save the file as UTF-8")
    except (RecursionError, ValueError):  # deep nesting; integers of 4300 digits and more
        return Problem("not valid JSON: nested too deeply or too large a number", where, hint)
    if not isinstance(row, dict):
        return Problem(f"is a JSON {type(row).__name__}, not an object", where, hint)
    if foreign.is_deep(row, line):
        return Problem(f"is nested more than {foreign.MAX_DEPTH} levels deep", where, hint)
    if _has_half_a_character(row, line):
        hint = "write the character itself, in UTF-8"
        return Problem("has a text with half a character (a lone surrogate)", where, hint)
    return row


def _has_half_a_character(row: dict[str, Any], line: bytes) -> bool:
    """Whether a text or a key in a row is not Unicode; `line` is the row's JSON."""
    if b"\\u" not in line:  # the only way to write one in a line that is UTF-8
        return False
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
