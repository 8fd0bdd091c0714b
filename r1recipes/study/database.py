"""The database of studies: several processes share it, and wait for it when it is away.

SQLite for one machine, PostgreSQL for several. What stands in it is `trials`'s affair.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from r1recipes.errors import RecipeError, RunError

HEARTBEAT_S = 20
GRACE_S = 300
"""Without a heartbeat for so long a worker on another machine is taken for dead; on this one its
process is looked at. Assumed: longer than loading an engine keeps Python from running a thread."""
FORMS = "a URL such as sqlite:///study.db or postgresql://user:password@host/name"
DATABASE_LIMIT_S = 600
"""How long a database may be away before a worker gives up."""

# Heartbeats are written by our own thread, since trials are asked for one at a time.
warnings.filterwarnings("ignore", message=".*[Hh]eartbeat.*")
warnings.filterwarnings("ignore", message=".*fail_stale_trials.*")
optuna.logging.set_verbosity(optuna.logging.ERROR)
T = TypeVar("T")


def parsed(url: str) -> sqlalchemy.URL:
    """A database's URL with the driver that is installed here. Raises: RecipeError.

    What is wrong is said without the URL: it may have a password in it.
    """
    try:
        found = sqlalchemy.make_url(url.replace("postgres://", "postgresql://", 1))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise RecipeError("this is no URL of a database", hint=FORMS) from None
    if found.drivername == "postgresql":
        found = found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() not in ("sqlite", "postgresql"):
        kind = found.get_backend_name()
        raise RecipeError(f"a study cannot be kept in a `{kind}` database", hint=FORMS)
    if found.get_backend_name() == "sqlite" and found.database in (None, "", ":memory:"):
        raise RecipeError("the URL names no database", hint=FORMS)
    return found


def missing_file(url: str) -> str | None:
    """The SQLite file that a URL names and that is not there, which opening would make."""
    found = parsed(url)
    is_file = found.get_backend_name() == "sqlite" and not found.database.startswith("file:")
    return found.database if is_file and not Path(found.database).exists() else None


def open_storage(url: str, *, grace_s: int = GRACE_S) -> optuna.storages.RDBStorage:
    """The database at an SQLAlchemy URL. Raises: RecipeError when it cannot be opened."""
    given = parsed(url)
    url = given.render_as_string(hide_password=False)
    is_sqlite = given.get_backend_name() == "sqlite"
    # SQLite has one writer at a time: wait for it. A server may restart: look before use.
    options = {"connect_args": {"timeout": 60}} if is_sqlite else {"pool_pre_ping": True}
    for patience in (1.0, 1.0, 0.0):  # another process may be making the same tables right now
        try:
            storage = optuna.storages.RDBStorage(
                url, engine_kwargs=options, heartbeat_interval=HEARTBEAT_S, grace_period=grace_s
            )
            break
        except ImportError as error:
            hint = "`pip install 'r1recipes[cluster]'` brings psycopg"
            raise RecipeError("the database's driver is not installed", hint=hint) from error
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            if not patience or "unable to open" in str(error):
                reason = str(error).strip().splitlines()[0]
                message = f"the database cannot be opened: {reason}"
                raise RecipeError(message, hint=FORMS) from error
            time.sleep(patience)
    if is_sqlite:
        _one_at_a_time(storage.engine)
    return storage


def _one_at_a_time(engine: sqlalchemy.Engine) -> None:
    """Let each transaction hold SQLite's write lock from its first read on.

    Python's driver begins one at the first write only, so two workers could both read that a trial
    waits, and both take it (docs.sqlalchemy.org, dialects/sqlite, "Serializable isolation").
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened before


def patiently(operation: Callable[[], T], limit_s: float = DATABASE_LIMIT_S) -> T:
    """Do something with the database, and again while it is away. Raises: RunError after that."""
    began, pause = time.monotonic(), 0.2
    while True:
        try:
            return operation()
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            if time.monotonic() - began > limit_s:
                reason = str(error).strip().splitlines()[0]
                raise RunError(f"the database is away: {reason}", kind="database") from error
            time.sleep(pause)
            pause = min(2 * pause, 10.0)
