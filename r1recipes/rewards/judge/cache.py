"""The answers of judges on the disk, shared by all runs and trials of this machine.

An SQLite file, so that several processes may read and write at once and a kill leaves it whole. The
key is everything that an answer depends on, apart from the delimiter that is drawn at random.
Limits: answers that could not be read are not kept; nothing is ever removed.
"""

import hashlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from r1recipes.errors import RunError
from r1recipes.machine.files import foreign, sqlite
from r1recipes.rewards.judge import prompts
from r1recipes.rewards.judge.prompts import Question, Verdict
from r1recipes.rewards.judge.section import Judge

FILE = "judge.sqlite"
TABLES = {"answers": ("key", "value", "reason")}
_WRONG = """
    SELECT rowid FROM answers WHERE typeof(key) != 'text' OR typeof(value) NOT IN ('real',
    'integer') OR typeof(reason) != 'text' LIMIT 1
"""
BUSY_S = 60.0
"""Seconds to wait for another process that writes; assumed."""


class Cache:
    """Verdicts by their keys. Usable from any thread. Raises: RunError (disk); RecipeError for a
    file that is something else."""

    def __init__(self, folder: Path):
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def get(self, key: str) -> Verdict | None:
        """The verdict under a key; None where there is none."""
        rows = self._do("SELECT value, reason FROM answers WHERE key = ?", (key,))
        return Verdict(*rows[0]) if rows else None

    def put(self, key: str, verdict: Verdict) -> None:
        self._do("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, *verdict))

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _do(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        try:
            with self._lock:
                database = self._database or self._opened()
                with database:  # commits
                    return database.execute(statement, values).fetchall()
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"the cache of the judge, `{self.path}`, cannot be used: {error}",
                kind="disk",
                hint="remove it, or set R1RECIPES_CACHE_DIR to a folder that can be written",
            ) from error

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        sqlite.refuse_special(self.path)
        if self.path.exists() and self.path.stat().st_size:
            with sqlite.checked(self.path, TABLES) as stored:
                if row := stored.execute(_WRONG).fetchone():
                    raise foreign.Damaged(f"`answers` has what no judge answers, in row {row[0]}")
        database = sqlite3.connect(self.path, timeout=BUSY_S, check_same_thread=False)
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS answers"
            " (key TEXT PRIMARY KEY, value REAL NOT NULL, reason TEXT NOT NULL)"
        )
        self._database = database
        return database


def key(judge: Judge, weights: str | None, question: Question) -> str:
    """sha256 (hex) of everything that an answer depends on.

    `weights` is the hash of a local folder; of a model at an endpoint only its name is known.
    """
    asked = {
        "version": prompts.VERSION,
        "judge": judge.model_dump(
            include={"url", "model", "temperature", "max_tokens", "response_format"}
        ),
        "weights": weights,
        "message": prompts.compose_with(judge, question, "fence"),
        "texts": question.texts,
        "repeat": question.repeat,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
