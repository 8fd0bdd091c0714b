"""Opens SQLite files that a stranger may have written: plain tables of expected columns, within
limits of bytes, rows, text and time.

SQLite is a program that a file can drive: a view may compute without end, a trigger runs on each
write. Nothing is read from a file before its schema is known to have tables and their indices
alone. Limits: what other programs change in the file afterwards is not looked at again.
"""

import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from r1recipes.errors import RecipeError, first_line, listed
from r1recipes.machine.files import foreign

MAX_BYTES = 256 * 2**20
"""Bytes of a database. Assumed: 10,000 trials have about 10 MB."""
BESIDE = ("-wal", "-shm", "-journal")
"""What the names of the files end in that SQLite keeps beside a database."""
MAX_ROWS = 500_000
"""Rows of all its tables; assumed, 10,000 trials with 20 intermediate values each have half."""
UNFINISHED_ROWS = 1
"""Rows of a database whose tables are still being made, or were when that process was killed:
Optuna writes its version before the last table (storages/_rdb/storage.py)."""
MAX_VALUE_BYTES = 4 * 2**20
"""Bytes of one value; assumed, as of a line of JSON."""
MAX_S = 4.0
"""Seconds of CPU time for all statements within `checked`; assumed."""
BUSY_S = 60.0
"""Seconds to wait for another process that writes; assumed."""
_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock, about 0.1 ms."""
Tables = Mapping[str, Collection[str]]
"""Name of a table -> names of its columns."""
HINT = "put back a copy, or name another place"


def refuse_special(path: Path) -> None:
    """Raises: RecipeError for a database that is there and is a link, no plain file or too large,
    and for such a file of those that SQLite opens beside it."""
    for file in (path, *(path.with_name(path.name + suffix) for suffix in BESIDE)):
        if file.is_symlink():
            message = "is a link, and a database is not opened through one"
            raise RecipeError.at(str(file), message, HINT)
        if os.path.lexists(file):
            try:
                foreign.refuse_beyond(foreign.plain_size(file), MAX_BYTES, "bytes", file)
            except OSError as error:
                raise RecipeError.at(str(file), "is not a plain file", HINT) from error


@contextmanager
def checked(path: Path, tables: Tables) -> Iterator[sqlite3.Connection]:
    """A connection to a database that reads alone, after its schema, its pages and its size were
    checked; each statement within shares MAX_S.

    Raises: RecipeError that names the file, also for an error of SQLite within the context.
    """
    refuse_special(path)
    began, limit_s = time.thread_time(), MAX_S * foreign.factor()
    connection = None
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=rw"  # a journal of a dead writer is undone
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S)
        connection.set_progress_handler(lambda: time.thread_time() - began > limit_s, _STEPS)
        connection.text_factory = lambda content: content.decode("utf-8", "replace")
        limit = round(MAX_VALUE_BYTES * foreign.factor())
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        _check(connection, path, tables)
        yield connection
    except (sqlite3.Error, UnicodeDecodeError, foreign.Damaged) as error:
        raise RecipeError.at(str(path), _reason(error, limit_s), HINT) from error
    finally:
        if connection is not None:
            connection.close()


def is_finished(connection: sqlite3.Connection, tables: Tables) -> bool:
    """Whether all tables are there; a checked database without some of them has no content."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return tables.keys() <= {name for (name,) in names}


def _reason(error: Exception, limit_s: float) -> str:
    if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
        return f"takes more than {limit_s:g} s to be read, which no study does"
    if getattr(error, "sqlite_errorname", "") == "SQLITE_TOOBIG":
        return f"is damaged: it has a value of more than {MAX_VALUE_BYTES:,} bytes"
    if isinstance(error, foreign.Damaged):
        return f"is damaged: {error}"
    if isinstance(error, UnicodeDecodeError):  # the driver decodes SQLite's messages
        return "is damaged: a name in its schema is not UTF-8"
    return f"cannot be read as a database: {first_line(error)}"


def _check(connection: sqlite3.Connection, path: Path, tables: Tables) -> None:
    """Raises: Damaged; RecipeError for too many rows; sqlite3.Error."""
    query = "SELECT type, name, rootpage FROM sqlite_master LIMIT 1000"
    schema = connection.execute(query).fetchall()
    for kind, name, page in schema:
        if kind not in ("table", "index") or not page:
            raise foreign.Damaged(f"it has a {kind} `{name}` that computes what it shows")
    names = {name for kind, name, _ in schema if kind == "table" and not name.startswith("sqlite_")}
    if unknown := sorted(names - tables.keys()):
        raise foreign.Damaged(f"it has tables of another program: {listed(unknown)}")
    for name in sorted(names):
        columns = connection.execute(f"PRAGMA table_xinfo({name})").fetchall()
        missing = set(tables[name]) - {column[1] for column in columns}
        if missing or any(column[-1] for column in columns):  # computed ones are hidden
            raise foreign.Damaged(f"table `{name}` lacks the columns of this version")
    counts = [connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names]
    lacking = sorted(tables.keys() - names)
    if lacking and sum(counts) > UNFINISHED_ROWS:
        raise foreign.Damaged(f"it lacks the tables {listed(lacking)}")
    (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if result != "ok":
        raise foreign.Damaged(first_line(foreign.Damaged(str(result))))
    foreign.refuse_beyond(sum(counts), MAX_ROWS, "rows", path)
