"""The database of a study while it is away: every call waits, for so long and no longer."""

import ast
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

import r1recipes
from benchmarks import postgres
from r1recipes.errors import RecipeError, RunError
from r1recipes.study import database, search
from r1recipes.study.cell import Cell
from r1recipes.study.trials import Trials, create_cell, is_finished, load_cells, this_worker

needs_postgres = pytest.mark.skipif(
    postgres.binaries() is None, reason="no PostgreSQL server is installed"
)


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.Server() as running:
        yield running


@pytest.mark.slow
@needs_postgres
def test_every_call_of_a_worker_survives_a_server_that_restarts(
    cell: Cell, server: postgres.Server
) -> None:
    """Five restarts while five trials are claimed, reported and ended, wherever they meet one."""
    made = create_cell(database.open_storage(server.url), cell)
    restarts: list[float] = []

    def restart() -> None:
        for _ in range(cell.num_trials):
            time.sleep(0.5)
            server.restart(away_s=0.3)
            restarts.append(time.monotonic())

    thread = threading.Thread(target=restart)
    thread.start()
    while not made.is_done():
        run_trial(made, lambda: len(restarts))
    thread.join()
    (trials,) = load_cells(database.open_storage(server.url), "study")
    assert len(restarts) == cell.num_trials == sum(map(is_finished, trials.all()))
    assert {trial.state for trial in trials.all() if is_finished(trial)} == {TrialState.COMPLETE}


def run_trial(made: Trials, num_restarts: Callable[[], int]) -> None:
    """One trial, which goes on until the server has restarted once more."""
    made.requeue_dead(lambda trial: trial.user_attrs.get("worker") is None)
    trial = made.claim(this_worker())
    assert trial is not None
    made.note_run(trial, Path("run"), max_steps=1000)
    step, before = 0, num_restarts()
    while num_restarts() == before and before < made.cell.num_trials:
        step += 1
        made.report(trial, step, 0.5, search.pruner(made.cell, 1000, 4))
        made.beat(trial)
        assert not made.is_taken(trial)
    made.complete(trial, [0.5])


@pytest.mark.slow
@needs_postgres
def test_a_database_that_stays_away_ends_the_call_with_its_reason(
    cell: Cell, server: postgres.Server
) -> None:
    made = create_cell(database.open_storage(server.url, limit_s=1.0), cell)
    trial = made.claim(this_worker())
    assert trial is not None
    server.stop()
    for call in (
        lambda: made.report(trial, 1, 0.5, search.pruner(cell, 10, 4)),
        lambda: made.beat(trial),
        lambda: made.complete(trial, [0.5]),
        made.requeue_dead,
        made.all,
    ):
        began = time.monotonic()
        with pytest.raises(RunError, match="the database is away: ") as caught:
            call()
        assert caught.value.kind == "database" and time.monotonic() - began < 10
    server.start()
    made.complete(trial, [0.5])
    assert [trial.state for trial in made.all()] == [TrialState.COMPLETE]


def test_an_end_that_was_committed_before_the_connection_broke_counts(
    cell: Cell, tmp_path: Path
) -> None:
    """The call is repeated, and finds the trial ended: by itself."""
    made = create_cell(database.open_storage(f"sqlite:///{tmp_path}/study.db"), cell)
    trial = made.claim(this_worker())
    assert trial is not None
    broken: list[bool] = []

    @sqlalchemy.event.listens_for(made.storage.engine, "commit")
    def lose_the_answer(connection: sqlalchemy.Connection) -> None:
        states = "SELECT state FROM trials WHERE state = 'COMPLETE'"
        if not broken and connection.exec_driver_sql(states).all():
            broken.append(True)
            connection.exec_driver_sql("COMMIT")
            raise sqlalchemy.exc.OperationalError("COMMIT", None, ConnectionError("lost"))

    made.complete(trial, [0.5])
    assert broken and [t.values for t in made.all()] == [[0.5]]


def test_optunas_private_names_are_used_in_one_module_only() -> None:
    private = {"_trial_id", "_study_id", "_storage", "_get_stale_trial_ids", "_cached_storage"}
    for path in Path(r1recipes.__file__).parent.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text()))
        names = {node.attr for node in tree if isinstance(node, ast.Attribute)}
        if "optuna" in path.read_text() and path.parent.name != "database":
            assert not names & private, path


def test_what_is_not_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be opened"):
        database.open_storage(f"sqlite:///{tmp_path}/no/such/folder.db")
    assert database.missing_file(f"sqlite:///{tmp_path}/none.db") == f"{tmp_path}/none.db"
    assert database.missing_file("postgresql://host/name") is None


@pytest.mark.parametrize("tables", [["alembic_version"], ["alembic_version", "trials", "studies"]])
def test_a_database_whose_tables_are_still_being_made_is_opened(tmp_path, tables):
    """As a worker does while its driver makes them, or a sweep whose driver was killed there."""
    url = f"sqlite:///{tmp_path}/study.db"
    database.open_storage(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        for table in tables:
            connection.execute(f"DROP TABLE {table}")
        connection.commit()
    assert database.open_storage(url).get_all_studies() == []


def test_a_database_with_content_and_without_a_table_is_damaged(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=database.open_storage(url), study_name="a")
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as connection:
        connection.execute("DROP TABLE alembic_version")
        connection.commit()
    with pytest.raises(RecipeError) as refused:
        database.open_storage(url)
    assert "it lacks the tables alembic_version" in refused.value.problems[0].message
