"""Databases of studies that are damaged or hostile, and URLs of databases: each one clear line.

Every case is the study of version 0.1.0 with one thing changed. Optuna reads none of them.
"""

import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from r1recipes.errors import RecipeError
from r1recipes.report.serve.studies import FollowedStudy
from r1recipes.rewards.judge.cache import FILE, Cache
from tests.helpers import answered_in_time, in_process
from tests.system.test_hostile_runs import ARCHIVE, FOLDER

Change = Callable[[Path], object]
SECRET = "zq-secret-zq"


def sql(*statements: str, value: str | None = None) -> Change:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as database:
            for statement in statements:
                database.execute(statement, (value,) if value is not None else ())

    return change


def content(change: Callable[[bytes], bytes]) -> Change:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def instead(make: Callable[[Path], object]) -> Change:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


def beside(suffix: str, make: Callable[[Path], object]) -> Change:
    return lambda path: make(path.with_name(path.name + suffix))


def patched(old: bytes) -> bytes:
    new = bytearray(old)
    for place in range(5000, len(new), 97):
        new[place] = (new[place] + 77) % 256
    return bytes(new)


USER, SYSTEM = "trial_user_attributes", "trial_system_attributes"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x"
MANY = "WITH RECURSIVE c(x) AS (SELECT 100 UNION ALL SELECT x + 1 FROM c WHERE x < {}) "
STUDIES: dict[str, Change] = {
    "a text": content(lambda old: b"not a database" * 1000),
    "nothing": content(lambda old: b""),
    "half of it": content(lambda old: old[: len(old) // 2]),
    "changed bytes": content(patched),
    "a page size of 65535": content(lambda old: old[:16] + b"\xff\xff" + old[18:]),
    "a pipe": instead(os.mkfifo),
    "a folder": instead(Path.mkdir),
    "a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link": instead(lambda path: path.symlink_to("../../secret")),
    "a link that leads nowhere": instead(lambda path: path.symlink_to("../../made")),
    **{
        f"a {noun} that ends in {suffix}": beside(suffix, make)
        for suffix in ("-wal", "-shm", "-journal")
        for noun, make in (
            ("link", lambda path: path.symlink_to("../../secret")),
            ("link that leads nowhere", lambda path: path.symlink_to("../../made")),
            ("pipe", os.mkfifo),
            ("folder", Path.mkdir),
        )
    },
    "other tables": instead(sql("CREATE TABLE x (y)")),
    "a table more": sql("CREATE TABLE evil (x)"),
    "a table less": sql("DROP TABLE trial_values"),
    "a column less": sql("ALTER TABLE trials DROP COLUMN state"),
    "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON trials BEGIN SELECT 1; END"),
    "an endless view": sql(
        "DROP TABLE trial_values",
        f"CREATE VIEW trial_values AS {ENDLESS} AS trial_id, 0 AS objective, 1.0 AS value, "
        "'FINITE' AS value_type FROM c",
    ),
    "a computed column": sql(
        "DROP TABLE trial_heartbeats",
        "CREATE TABLE trial_heartbeats (trial_id, heartbeat AS (1 + trial_id))",
    ),
    "a million trials": sql(
        f"{MANY.format(1_000_100)} INSERT INTO trials (number, study_id, state) "
        "SELECT x, 1, 'WAITING' FROM c"
    ),
    "complete trials without values": sql("DELETE FROM trial_values"),
    "an attribute of 30 MB": sql(
        f"UPDATE {USER} SET value_json = ?", value=f'"{"x" * 30_000_000}"'
    ),
    "an attribute that is no JSON": sql(f"UPDATE {USER} SET value_json = '{{'"),
    "an attribute that is deep": sql(
        "UPDATE study_user_attributes SET value_json = ?", value="[" * 900 + "]" * 900
    ),
    "a cell that is no JSON": sql("UPDATE study_user_attributes SET value_json = '[[['"),
    "a cell that is a list": sql("UPDATE study_user_attributes SET value_json = '[]'"),
    "a cell that is null": sql("UPDATE study_user_attributes SET value_json = 'null'"),
    "a folder that is a number": sql(f"UPDATE {USER} SET value_json = '5' WHERE key = 'run'"),
    "a worker without a host": sql(f"UPDATE {USER} SET value_json = '{{}}' WHERE key = 'worker'"),
    "steps below zero": sql(f"UPDATE {USER} SET value_json = '-1' WHERE key = 'max_steps'"),
    "an error that is a list": sql(
        f"UPDATE {USER} SET key = 'error', value_json = '[]' WHERE key = 'run'"
    ),
    "memory that is a text": sql(
        f"UPDATE {USER} SET key = 'predicted', value_json = '\"x\"' WHERE key = 'run'"
    ),
    "fixed values that are a list": sql(f"UPDATE {SYSTEM} SET value_json = '[1]'"),
    "a key of 10^6 characters": sql(
        f"UPDATE {USER} SET key = ? WHERE key = 'run'", value="x" * 10**6
    ),
    "a value that is a text": sql("UPDATE trial_values SET value = 'abc'"),
    "a value that is null": sql("UPDATE trial_values SET value = NULL"),
    "a value of an unknown kind": sql("UPDATE trial_values SET value_type = 'EVIL'"),
    "an intermediate value that is a text": sql(
        "INSERT INTO trial_intermediate_values VALUES (NULL, 1, 99, 'x', 'FINITE')"
    ),
    "a step that is a text": sql(
        "INSERT INTO trial_intermediate_values VALUES (NULL, 1, 'x', 1.0, 'FINITE')"
    ),
    "an unknown state": sql("UPDATE trials SET state = 'EVIL\x1b[2J'"),
    "a date in words": sql("UPDATE trials SET datetime_start = 'yesterday'"),
    "a complete trial that did not end": sql("UPDATE trials SET datetime_complete = NULL"),
    "a heartbeat in words": sql("UPDATE trial_heartbeats SET heartbeat = 'now'"),
    "one number twice": sql("UPDATE trials SET number = 0"),
    "a number that is a text": sql("UPDATE trials SET number = 'x' || trial_id"),
    "a trial of no study": sql("UPDATE trials SET study_id = 99"),
    "an unknown direction": sql("UPDATE study_directions SET direction = 'UP'"),
    "an unknown distribution": sql(
        "UPDATE trial_params SET distribution_json = ?",
        value='{"name": "os.system", "attributes": {}}',
    ),
    "a distribution that is a text": sql("UPDATE trial_params SET distribution_json = '\"x\"'"),
    "a parameter that is a text": sql("UPDATE trial_params SET param_value = 'x'"),
    "a parameter beyond its choices": sql(
        "UPDATE trial_params SET param_value = 99 WHERE param_name = 'preset.lora_rank'"
    ),
    "a study's name that is a number": sql("UPDATE studies SET study_name = x'00ff'"),
    "another study's name": sql("UPDATE studies SET study_name = 'x' || char(27) || '[2J'"),
    "another version of Alembic": sql("UPDATE alembic_version SET version_num = 'evil'"),
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
    return folder


@pytest.fixture
def database(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The database of the study of version 0.1.0."""
    shutil.copytree(unpacked, tmp_path, symlinks=True, dirs_exist_ok=True)
    (tmp_path / "secret").write_text(SECRET)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "study" / "study.db"
    sql(*(f"UPDATE {t} SET value_json = replace(value_json, '{FOLDER}', '{tmp_path}')"
          for t in (USER, "study_user_attributes")))(path)  # fmt: skip
    return path


def assert_refused(*command: object) -> str:
    with answered_in_time():
        code, out, err = in_process(*command)
    lines = [text for text in err.splitlines() if not text.startswith("  hint:")]
    assert code == 2 and not out, (command, code, out, err)
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert len(lines[0]) < 700 and lines[0].isprintable() and SECRET not in err
    return lines[0]


@pytest.mark.parametrize("name", STUDIES)
def test_a_hostile_database_is_refused(database, name):
    STUDIES[name](database)
    assert_refused("study", "study")
    assert_refused("study", "study", "--export", "trials.csv")
    assert (database.parents[2] / "secret").read_text() == SECRET
    assert not (database.parents[2] / "made").exists() and not Path("trials.csv").exists()
    followed = FollowedStudy("study", database)
    assert followed.look() and followed.summary.problem and SECRET not in followed.summary.problem
    code, out, _ = in_process("list", "runs")
    assert code == 0 and "old/complete" in out


def test_a_parameter_of_another_name_is_refused_before_a_table_is_printed(database):
    """`--export` writes it as it is."""
    old = "preset.lora_rank"
    sql(f"UPDATE trial_params SET param_name = 'preset.evil' WHERE param_name = '{old}'")(database)
    before = list(database.parent.rglob("*"))
    assert "evil" in assert_refused("study", "study")
    assert list(database.parent.rglob("*")) == before


URLS = {
    "another scheme": "http://u:zq-secret-zq@h",
    "another database": "mysql://u:zq-secret-zq@h/x",
    "no driver": "postgresql+psycopg2://u:zq-secret-zq@h/x",
    "no such driver": "postgresql+evil://u:zq-secret-zq@h/x",
    "nobody listens": "postgresql://u:zq-secret-zq@127.0.0.1:1/x",
    "no such host": "postgresql://u:zq-secret-zq@no-such-host.invalid/x",
    "an unknown option": "postgresql://u:zq-secret-zq@127.0.0.1:1/x?evil=1&password=zq-secret-zq",
    "a port in words": "postgresql://u:zq-secret-zq@127.0.0.1:abc/x",
    "no URL": "x" * 5000,
    "no file": "sqlite://",
    "a file in memory": "sqlite:///file:x?mode=memory&uri=true",
    "an option": "sqlite:///x.db?evil=1",
    "a device": "sqlite:////dev/zero",
    "a folder": "sqlite:////etc",
    "another file": "sqlite:///secret",
    "a long name": "sqlite:///" + "x" * 300,
    "a long path": "sqlite:///" + "x/" * 3000 + "y",
}


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("command", ["study", "sweep"])
def test_a_url_of_no_database_is_refused(database, command, name):
    words = ("study", "study") if command == "study" else ("sweep", "tiny", "--workers", "0")
    assert_refused(*words, "--storage", URLS[name])
    assert (database.parents[2] / "secret").read_text() == SECRET


JUDGES: dict[str, Change] = {
    "a text": lambda path: path.write_text("hello" * 1000),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to("../secret"),
    "a link beside it": beside("-journal", lambda path: path.symlink_to("../secret")),
    "other columns": sql("CREATE TABLE answers (a)"),
    "other types": sql(
        "CREATE TABLE answers (key, value, reason)", "INSERT INTO answers VALUES ('k', 'x', 5)"
    ),
    "a view": sql("CREATE VIEW answers AS SELECT 'k' AS key, 1.0 AS value, '' AS reason"),
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_hostile_cache_of_a_judge_is_refused(tmp_path, name):
    (tmp_path / "cache").mkdir()
    JUDGES[name](tmp_path / "cache" / FILE)
    with pytest.raises(RecipeError) as raised:
        Cache(tmp_path / "cache").get("k")
    assert FILE in str(raised.value.problems[0].where)


def test_an_untouched_study_is_fine_also_with_the_journal_of_a_dead_writer(database):
    assert in_process("study", "study")[0] == 0
    shutil.copy(database, "copy.db")
    journal = Path(f"{database}-journal")
    journal.write_bytes(os.urandom(5000))
    assert in_process("study", "study")[0] == 0
