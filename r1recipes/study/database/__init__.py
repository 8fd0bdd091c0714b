"""The database of studies, which several processes share; each call waits while it is away.

SQLite serves one machine, PostgreSQL several. What the trials in it mean is for `trials`. Optuna's
private names are used in this module and in no other (optuna 5.0: `_CachedStorage`, `_trial_id`,
`_study_id`, `_get_stale_trial_ids`).
"""

import functools
import os
import re
import sqlite3
import time
import urllib.parse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
import sqlalchemy
import sqlalchemy.event
import sqlalchemy.exc
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from r1recipes.errors import RecipeError, RunError, first_line
from r1recipes.machine import packages
from r1recipes.study.database import stored

HEARTBEAT_S = 20
GRACE_S = 300
"""A worker of another machine that sent no heartbeat for so long is taken for dead; on this machine
its process is looked at. Assumed: longer than loading an engine keeps Python from running a thread.
"""
FORMS = "a URL such as sqlite:///study.db or postgresql://user:password@host/name"
DATABASE_LIMIT_S = 600
"""How long a database may be away before a worker gives up."""
CONNECT_S = 3
"""Seconds that a server has to answer when a connection is opened; assumed."""
READ_LIMIT_S = 2
"""How long whoever only shows a study waits for its database; assumed."""
LONGEST_PAUSE_S = 10.0
"""Between two attempts to reach a database that is away; assumed."""

# Heartbeats are written by our own thread, since trials are asked for one at a time.
warnings.filterwarnings("ignore", message=".*[Hh]eartbeat.*")
optuna.logging.set_verbosity(optuna.logging.ERROR)
T = TypeVar("T")


class Storage(_CachedStorage):
    """Optuna's storage on a database, where each call is repeated while the database is away.

    Any call raises RunError (kind "database") once the database has been away for `limit_s`. A
    transaction is repeated as a whole. If the connection breaks while the database commits it, it
    may have been done already: a new trial then stands there twice, one without a worker, and
    ending a trial raises UpdateFinishedTrialError.
    """

    def __init__(self, database: RDBStorage, limit_s: float = DATABASE_LIMIT_S):
        super().__init__(cast(RDBStorage, _Patient(database, limit_s)))
        self.engine = database.engine

    def beat(self, trial: Trial | FrozenTrial) -> None:
        """Write down that the trial's worker lives."""
        self.record_heartbeat(trial_id(trial))

    def read(self, trial: Trial | FrozenTrial) -> FrozenTrial:
        """The trial as it is in the database now."""
        return self.get_trial(trial_id(trial))

    def set_state(self, trial: Trial | FrozenTrial, state: TrialState) -> None:
        """Raises: UpdateFinishedTrialError when the trial has ended."""
        self.set_trial_state_values(trial_id(trial), state)

    def stale_trials(self, study: optuna.Study) -> list[FrozenTrial]:
        """Running trials without a heartbeat within the grace period, by the database's clock."""
        return [self.get_trial(number) for number in self._get_stale_trial_ids(study._study_id)]


class _Patient:
    """A database whose methods are those of Optuna's storage, each repeated until it succeeds."""

    def __init__(self, database: RDBStorage, limit_s: float):
        self._database, self._limit_s = database, limit_s

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._database, name)
        if not callable(attribute):
            return attribute
        return functools.partial(_patiently, attribute, self._limit_s)


def _patiently(operation: Callable[..., T], limit_s: float, *args: Any, **options: Any) -> T:
    """Call `operation`, and again while the database is away. Raises: RunError after `limit_s`, and
    at once where its disk is full or may not be written, for which nobody can wait."""
    began, pause_s = time.monotonic(), 0.2
    while True:
        try:
            return operation(*args, **options)
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            if reason := _unwritable(error):
                raise RunError(
                    f"the database cannot be written: {reason}",
                    kind="disk",
                    hint="make room on its disk, and the same command goes on",
                ) from error
            if time.monotonic() - began > limit_s:
                reason = first_line(error)
                message = f"the database is away: {reason}"
                hint = "start it, or check the address; then the same command goes on"
                raise RunError(message, kind="database", hint=hint) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except (KeyError, DuplicatedStudyError):  # what Optuna raises for a study's name
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            message = f"the database has content that no study has ({reason})"
            raise RecipeError(message, hint="put back a copy of it") from error


def _unwritable(error: BaseException) -> str | None:
    """What SQLite says of a disk that it cannot write; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlite3.Error):
        cause = cause.__cause__ or getattr(cause, "orig", None)
    name = getattr(cause, "sqlite_errorname", "")
    return str(cause) if name.startswith(("SQLITE_FULL", "SQLITE_READONLY")) else None


def trial_id(trial: Trial | FrozenTrial) -> int:
    """The number of a trial among all of the database; `trial.number` counts within a study."""
    return trial._trial_id


def parse_url(url: str) -> sqlalchemy.URL:
    """A database's URL with the driver that is installed here. Raises: RecipeError.

    The message leaves the URL out: there may be a password in it.
    """
    try:
        parsed = sqlalchemy.make_url(url.replace("postgres://", "postgresql://", 1))
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise RecipeError("this is not the URL of a database", hint=FORMS) from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise RecipeError(f"a study cannot be kept in a `{backend}` database", hint=FORMS)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise RecipeError("the URL names no database", hint=FORMS)
    if backend == "sqlite" and (parsed.query or (parsed.database or "").startswith("file:")):
        hint = "such as sqlite:///study.db"
        raise RecipeError("the URL of an SQLite file has its path alone, no options", hint=hint)
    return parsed


def missing_file(url: str) -> str | None:
    """The SQLite file that a URL names, if it does not exist; opening it would make it."""
    parsed = parse_url(url)
    name = parsed.database or ""
    is_file = parsed.get_backend_name() == "sqlite"
    return name if is_file and not os.path.lexists(name) else None


def open_storage(url: str, *, grace_s: int = GRACE_S, limit_s: float = DATABASE_LIMIT_S) -> Storage:
    """The database at an SQLAlchemy URL. Raises: RecipeError when it cannot be opened, or is the
    file of something else."""
    parsed = parse_url(url)
    is_sqlite = parsed.get_backend_name() == "sqlite"
    if is_sqlite:
        stored.check(Path(parsed.database or ""))
    for patience_s in (1.0, 1.0, 0.0):  # another process may be making the same tables right now
        try:
            database = _open(parsed, is_sqlite, grace_s)
            break
        except ImportError as error:
            hint = f"`{packages.extra('cluster')}` brings psycopg"
            raise RecipeError("the database's driver is not installed", hint=hint) from error
        except Exception as error:  # of SQLAlchemy, Alembic, Optuna and drivers, without a root
            is_away = isinstance(error, sqlalchemy.exc.OperationalError)
            if not patience_s or is_away or not isinstance(error, _RACES):
                message = f"the database cannot be opened: {_without_password(error, parsed)}"
                raise RecipeError(message, hint=FORMS) from error
            time.sleep(patience_s)
    if is_sqlite:
        _one_at_a_time(database.engine)
    return Storage(database, limit_s)


_RACES = (sqlalchemy.exc.SQLAlchemyError, StorageInternalError)
"""What is raised where two processes make the same tables."""


def _open(url: sqlalchemy.URL, is_sqlite: bool, grace_s: int) -> RDBStorage:
    # SQLite has one writer at a time: wait for it. A server may restart: look before use.
    server = {"pool_pre_ping": True, "connect_args": {"connect_timeout": CONNECT_S}}
    return RDBStorage(
        url.render_as_string(hide_password=False),
        {"connect_args": {"timeout": 60}} if is_sqlite else server,
        heartbeat_interval=HEARTBEAT_S,
        grace_period=grace_s,
    )


def _without_password(error: Exception, url: sqlalchemy.URL) -> str:
    """The first line of an error, in which a library may have put the URL."""
    text = first_line(error)
    for secret in filter(None, (url.password, url.query.get("password"))):
        text = text.replace(str(secret), "***")
    return re.sub(r"(://[^:@/\s]*:)[^@\s]*@", r"\1***@", text)


def open_to_read(file: Path) -> Storage:
    """The database in an SQLite file, which cannot be written through it. It is not waited for
    longer than READ_LIMIT_S. Raises: RecipeError when it cannot be opened, or is something else."""
    stored.check(file)
    name = f"file:{urllib.parse.quote(str(file.absolute()))}"
    url = sqlalchemy.URL.create("sqlite", database=name, query={"mode": "ro", "uri": "true"})
    try:
        options = {"connect_args": {"timeout": READ_LIMIT_S}}
        database = RDBStorage(url.render_as_string(), options)
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        message = f"the database cannot be opened: {first_line(error)}"
        raise RecipeError(message, hint="`r1recipes sweep` makes one") from error
    return Storage(database, READ_LIMIT_S)


def _one_at_a_time(engine: sqlalchemy.Engine) -> None:
    """Let each transaction hold SQLite's write lock from its first read on.

    Python's driver begins one at the first write only, so two workers could both read that a trial
    waits, and both take it (docs.sqlalchemy.org, dialects/sqlite, "Serializable isolation").
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections that were opened before
