"""What the file of a study's database must hold, looked at before Optuna reads it.

Optuna trusts its tables: it takes a row for what it says, and raises whatever comes of that. Here
the values of each column are checked by one statement of SQL, and the JSON in them by the type of
its key. Limits: SQLite files alone; a server's database is not a file from elsewhere.
"""

import json
import sqlite3
from pathlib import Path
from typing import Annotated, Any

from optuna.distributions import json_to_distribution
from pydantic import Field, TypeAdapter, ValidationError

from r1recipes.errors import first_line
from r1recipes.machine.files import foreign, sqlite
from r1recipes.runs.record.schema import Count, Long, Name, Part

_ATTRIBUTES = ("key", "value_json")
TABLES: sqlite.Tables = {
    "alembic_version": ("version_num",),
    "studies": ("study_id", "study_name"),
    "study_directions": ("study_id", "direction", "objective"),
    "study_system_attributes": ("study_id", *_ATTRIBUTES),
    "study_user_attributes": ("study_id", *_ATTRIBUTES),
    "trial_heartbeats": ("trial_id", "heartbeat"),
    "trial_intermediate_values": (
        "trial_id", "step", "intermediate_value", "intermediate_value_type",
    ),
    "trial_params": ("trial_id", "param_name", "param_value", "distribution_json"),
    "trial_system_attributes": ("trial_id", *_ATTRIBUTES),
    "trial_user_attributes": ("trial_id", *_ATTRIBUTES),
    "trial_values": ("trial_id", "objective", "value", "value_type"),
    "trials": ("trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"),
    "version_info": ("schema_version", "library_version"),
}  # fmt: skip
"""The tables of Optuna 5.0 (storages/_rdb/models.py), which are those of Optuna 3.2 and later."""
_TIME = "____-__-__ __:__:__%"
_FALSE_TYPE = "typeof({0}) NOT IN ({1})"
_JSON = "typeof(value_json) != 'text' OR NOT json_valid(value_json)"
_ODD_TEXT = "typeof({0}) != 'text' OR length({0}) NOT BETWEEN 1 AND 512"


def _no_time(column: str) -> str:
    return f"{column} IS NOT NULL AND (datetime({column}) IS NULL OR {column} NOT LIKE '{_TIME}')"


def _no_number(column: str) -> str:
    """Text where a number belongs; a number that is not finite is stored as its kind alone."""
    number = f"typeof({column}) IN ('real', 'integer')"
    kind = f"{column}_type"
    return (
        f"{kind} NOT IN ('FINITE', 'INF_POS', 'INF_NEG', 'NAN') OR ({kind} = 'FINITE') != "
        f"({number}) OR ({kind} != 'FINITE' AND {column} IS NOT NULL)"
    )


_WRONG = (
    ("studies", "study_name", _ODD_TEXT.format("study_name")),
    ("studies", "study_name", "study_name IN (SELECT study_name FROM studies GROUP BY 1 HAVING "
     "count(*) > 1)"),
    ("study_directions", "direction", "direction NOT IN ('MINIMIZE', 'MAXIMIZE')"),
    ("study_directions", "objective", "typeof(objective) != 'integer' OR objective NOT BETWEEN 0 "
     "AND 9"),
    ("study_user_attributes", "value_json", _JSON),
    ("study_system_attributes", "value_json", _JSON),
    ("trial_user_attributes", "value_json", _JSON),
    ("trial_system_attributes", "value_json", _JSON),
    ("study_user_attributes", "key", _ODD_TEXT.format("key")),
    ("study_system_attributes", "key", _ODD_TEXT.format("key")),
    ("trial_user_attributes", "key", _ODD_TEXT.format("key")),
    ("trial_system_attributes", "key", _ODD_TEXT.format("key")),
    ("trials", "state", "state NOT IN ('RUNNING', 'COMPLETE', 'PRUNED', 'FAIL', 'WAITING')"),
    ("trials", "number", "typeof(number) != 'integer' OR number NOT BETWEEN 0 AND 1000000000"),
    ("trials", "number", "study_id IN (SELECT study_id FROM trials GROUP BY 1 HAVING "
     "count(DISTINCT number) != count(*))"),
    ("trials", "study_id", "study_id NOT IN (SELECT study_id FROM studies)"),
    ("trials", "datetime_start", _no_time("datetime_start")),
    ("trials", "datetime_complete", _no_time("datetime_complete")),
    ("trials", "datetime_complete", "(state IN ('COMPLETE', 'PRUNED', 'FAIL')) != "
     "(datetime_complete IS NOT NULL)"),
    ("trial_heartbeats", "heartbeat", f"heartbeat IS NULL OR {_no_time('heartbeat')}"),
    ("trial_values", "value", _no_number("value")),
    ("trial_values", "value", "value_type = 'NAN'"),
    ("trial_intermediate_values", "intermediate_value", _no_number("intermediate_value")),
    ("trial_intermediate_values", "step", "typeof(step) != 'integer' OR step NOT BETWEEN 0 AND "
     "1000000000000000"),
    ("trial_params", "param_name", _ODD_TEXT.format("param_name")),
    ("trial_params", "param_value", _FALSE_TYPE.format("param_value", "'real', 'integer'")),
    ("trial_params", "distribution_json", _FALSE_TYPE.format("distribution_json", "'text'")),
)  # fmt: skip
"""(table, column, what is true of a row that no study has)."""
_VALUES_OF_COMPLETE = """
    SELECT trials.number FROM trials WHERE state = 'COMPLETE' AND
    (SELECT count(*) FROM trial_values v WHERE v.trial_id = trials.trial_id) !=
    (SELECT count(*) FROM study_directions d WHERE d.study_id = trials.study_id) LIMIT 1
"""


class _Worker(Part):
    host: Name
    pid: Annotated[int, Field(ge=1, le=2**31)]
    started: Name | None
    name: Name | None


class _Error(Part):
    kind: Name
    message: Annotated[Long, Field(min_length=1)]


class _Predicted(Part):
    peak_bytes: Count
    available_bytes: Count


_USER: dict[str, TypeAdapter[Any]] = {
    "worker": TypeAdapter(_Worker | None),
    "error": TypeAdapter(_Error),
    "predicted": TypeAdapter(_Predicted),
    "run": TypeAdapter(Annotated[str, Field(max_length=4096)]),
    "max_steps": TypeAdapter(Count),
    "infeasible": TypeAdapter(Annotated[Long, Field(min_length=1)]),
    "excess": TypeAdapter(bool),
    "deaths": TypeAdapter(Count),
    "retry_of": TypeAdapter(Count),
}
"""Attribute of a trial that `study.trials` writes -> its type."""
_SYSTEM: dict[str, TypeAdapter[Any]] = {
    "fixed_params": TypeAdapter(dict[str, Any]),
    "constraints": TypeAdapter(list[float]),
}


def check(path: Path) -> None:
    """Refuse a file that is there and is not the database of studies; an empty one is new.

    Raises: RecipeError that names the file, the table and the column.
    """
    sqlite.refuse_special(path)
    if not path.exists() or not path.stat().st_size:
        return
    with sqlite.checked(path, TABLES) as connection:
        if not sqlite.is_finished(connection, TABLES):
            return
        for table, column, wrong in _WRONG:
            query = f"SELECT rowid, {column} FROM {table} WHERE {wrong} LIMIT 1"
            if row := connection.execute(query).fetchone():
                message = f"`{table}.{column}` has what no study has, in row {row[0]}"
                raise foreign.Damaged(f"{message}: `{row[1]}`")
        if row := connection.execute(_VALUES_OF_COMPLETE).fetchone():
            raise foreign.Damaged(f"`trial_values` lacks those of the complete trial {row[0]}")
        _check_attributes(connection, "trial_user_attributes", _USER)
        _check_attributes(connection, "trial_system_attributes", _SYSTEM)
        _check_attributes(
            connection, "study_user_attributes", {"cell": TypeAdapter(dict[str, Any])}
        )
        _check_attributes(connection, "study_system_attributes", {})
        _check_params(connection)


def _check_attributes(
    connection: sqlite3.Connection, table: str, types: dict[str, TypeAdapter[Any]]
) -> None:
    """Raises: Damaged for an attribute that is not of its type."""
    for number, key, text in connection.execute(f"SELECT rowid, key, value_json FROM {table}"):
        try:
            value = json.loads(text)
            if foreign.is_deep(value, text.encode()):
                raise foreign.Damaged(f"`{table}.value_json` is nested too deeply, in row {number}")
            if key in types:
                types[key].validate_python(value, strict=True)
        except (ValidationError, ValueError, RecursionError) as error:
            if isinstance(error, foreign.Damaged):
                raise
            reason = f"`{table}.value_json` has another type than `{key}` has, in row {number}"
            raise foreign.Damaged(reason) from error


def _check_params(connection: sqlite3.Connection) -> None:
    """Raises: Damaged for a value that its distribution does not have."""
    query = "SELECT rowid, param_value, distribution_json FROM trial_params"
    for number, value, text in connection.execute(query):
        try:
            distribution = json_to_distribution(text)
            is_within = distribution._contains(value)
            distribution.to_external_repr(value)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError,
                ArithmeticError) as error:  # fmt: skip
            message = f"`trial_params.distribution_json` cannot be read, in row {number}"
            raise foreign.Damaged(f"{message}: {first_line(error)}") from error
        if not is_within:
            message = "`trial_params.param_value` is not within its distribution"
            raise foreign.Damaged(f"{message}, in row {number}")
