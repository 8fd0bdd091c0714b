"""Trials in real databases: who gets which, which count, what becomes of the dead."""

import io
import subprocess
import sys
import threading

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console

from r1recipes.errors import RecipeError
from r1recipes.study import database, driver, leaderboard, loading, search, trials
from tests.study.claims import WORKER, claim, make
from tests.study.test_loading import SEARCH, write


def test_the_first_trial_has_the_recipes_own_values(url, cell):
    made = make(url, cell)
    trial = claim(made)
    assert trial.params == cell.own_values()
    made.complete(trial, [0.5])
    assert claim(made).params != cell.own_values()


def test_a_sequence_of_proposals_does_not_depend_on_when_it_was_interrupted(url, cell, tmp_path):
    def propose(made, count):
        found = []
        for _ in range(count):
            trial = claim(made)
            found.append(trial.params)
            made.complete(trial, [0.1 * trial.number])
        return found

    whole = propose(make(url, cell), 5)
    other = f"sqlite:///{tmp_path}/other.db"
    assert propose(make(other, cell), 2) + propose(make(other, cell), 3) == whole


def test_there_are_never_more_trials_than_were_asked_for(url, cell):
    """Eight threads with connections of their own claim at the same time, as workers do."""
    made = make(url, cell)
    for rate in (1e-3, 2e-3, 3e-3):
        made.study.enqueue_trial({"train.learning_rate": rate})
    claimed = []

    def work():
        mine = trials.Trials(database.open_storage(url), "study")
        while mine.num_startable():
            if trial := mine.claim(WORKER):
                threading.Event().wait(0.05)
                claimed.append(trial.number)
                mine.complete(trial, [0.0])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = trials.Trials(database.open_storage(url), "study")
    assert made.is_done() and len(claimed) == cell.num_trials == len(set(claimed))
    assert sum(map(trials.is_counted, made.all())) == cell.num_trials
    assert not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in made.all())


def test_a_dead_workers_trial_is_queued_once_with_its_values_and_its_run(url, cell, tmp_path):
    made = make(url, cell)
    first = claim(made)
    made.note_run(first, tmp_path, max_steps=6)
    assert made.requeue_dead(lambda trial: True) == [0]
    again = claim(made)
    assert again.params == first.params and again.user_attrs["run"] == str(tmp_path)
    assert made.requeue_dead(lambda trial: True) == [again.number]
    third = claim(made)
    assert third.params != first.params
    with pytest.raises(trials.Lost):
        made.complete(first, [1.0])
    assert not any(trials.is_finished(trial) for trial in made.all())


def test_a_dead_workers_cell_goes_on_in_its_run_too(url, cell, tmp_path):
    """A cell of a matrix alone has no values, but a run folder with checkpoints."""
    made = make(url, cell.model_copy(update={"search": {}, "num_trials": 1}))
    made.note_run(claim(made), tmp_path, max_steps=6)
    made.requeue_dead(lambda trial: True)
    again = claim(made)
    assert again.user_attrs["run"] == str(tmp_path) and again.user_attrs["retry_of"] == 0


def test_a_process_that_is_gone_is_dead_and_this_one_is_not(url, cell):
    made = make(url, cell)
    claim(made, trials.this_worker())
    assert not trials.has_dead_local_worker(made.all()[0])
    code = (
        "from r1recipes.study import trials; import json; print(json.dumps(trials.this_worker()))"
    )
    import json

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    claim(made, json.loads(output.stdout))
    assert trials.has_dead_local_worker(made.all()[1])


def test_a_worker_that_beats_no_more_is_found_by_the_database(url, cell):
    storage = database.open_storage(url, grace_s=1)
    made = trials.create_cell(storage, cell)
    claim(made)
    assert made.requeue_dead() == []
    threading.Event().wait(2.2)
    assert made.requeue_dead() == [0]


def test_a_clock_that_jumps_buries_no_process_of_this_machine(url, cell):
    made = make(url, cell)
    claim(made, trials.this_worker())
    claim(made)
    long_ago(made)
    assert made.requeue_dead(trials.has_dead_local_worker) == [1]


def test_a_trial_of_an_earlier_day_is_not_buried_while_it_is_claimed(url, cell):
    """Between Optuna's hand-out and the worker's first heartbeat a driver may look."""
    made = make(url, cell)
    made.hand_back(claim(made))
    long_ago(made)
    made.study.ask()
    assert made.requeue_dead(driver.DeathCheck(set())) == []


def long_ago(made):
    with made.storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")


def test_values_that_are_not_all_the_recipes_own_are_not_called_so(url, cell, small):
    whole = make(url, cell)
    text = SEARCH.replace("high = 6", "high = 5")  # the recipe has 6
    other = loading.load(write(small.parent, text), study_name="other").cells[0]
    for made, is_own in ((whole, True), (make(url, other), False)):
        trial = claim(made)
        made.complete(trial, [0.5])
        best, *others = leaderboard.summary([made], made, made.all()[0])
        assert ("the recipe's own values, trial 0: 50.0%" in best) == is_own
        unbeaten = ["nothing beat the recipe's own values (no other trial is complete)"]
        assert others == (unbeaten if is_own else [])


def test_it_is_said_whether_anything_beat_the_recipes_own_values(url, cell):
    made = make(url, cell)
    unbeaten = "nothing beat the recipe's own values"
    for accuracy, sentence in ((0.5, "no other trial is complete"), (0.5, "one other trial is")):
        made.complete(claim(made), [accuracy])
        best = leaderboard.best(made)
        assert best is not None
        lines = leaderboard.summary([made], made, best)
        assert any(line.startswith(unbeaten) and sentence in line for line in lines)
    made.complete(claim(made), [0.4])
    made.complete(claim(made), [0.6])
    best = leaderboard.best(made)
    assert best is not None and best.number == 3
    assert not any(unbeaten in line for line in leaderboard.summary([made], made, best))


def test_the_best_of_several_metrics_is_one_that_none_beats(url, small):
    text = SEARCH.replace("n_trials = 5", 'metric = ["eval/accuracy", "eval/mean_length"]')
    made = make(url, loading.load(write(small.parent, text)).cells[0])
    for values in ([0.5, 30.0], [0.5, 20.0], [0.4, 10.0]):
        made.complete(claim(made), values)
    best = leaderboard.best(made)
    assert leaderboard.front(made) == {1, 2} and best is not None and best.number == 1


def test_a_narrow_terminal_shows_whole_values_of_fewer_keys(url, cell):
    made = make(url, cell)
    made.complete(claim(made), [0.5])
    shown = {}
    for width in (120, 50, 40):
        console = Console(width=width, file=(out := io.StringIO()))
        console.print(leaderboard.board(made, 10, width))
        shown[width] = out.getvalue()
        assert "50.0%" in shown[width] and "0.001" in shown[width] and "…" not in shown[width]
        assert max(map(len, shown[width].splitlines())) <= width
    assert "learning_rate" in shown[120] and "wider" not in shown[120]
    assert "learning_\n" not in shown[50] and "rate" in shown[50]
    assert "more of the" in shown[40]


def test_a_trial_that_is_handed_back_is_taken_up_as_it_was(url, cell):
    made = make(url, cell)
    first = claim(made)
    made.hand_back(first)
    again = claim(made)
    assert (again.number, again.params) == (first.number, first.params)


def test_a_failure_counts_and_what_cannot_start_does_not(url, cell):
    made = make(url, cell)
    made.fail(claim(made), "oom", "out of memory")
    made.mark_infeasible(claim(made), "does not fit")
    failed, refused = made.all()
    assert trials.is_finished(failed) and failed.user_attrs["error"]["kind"] == "oom"
    assert refused.state == TrialState.PRUNED and not trials.is_counted(refused)
    assert leaderboard.state(refused) == "does not fit"
    assert made.num_startable() == cell.num_trials - 1


def test_another_search_under_the_same_name_is_refused(url, cell, small):
    make(url, cell)
    changed = loading.load(write(small.parent, SEARCH.replace("[4, 8]", "[4, 16]"))).cells[0]
    with pytest.raises(RecipeError, match="preset.lora_rank") as caught:
        make(url, changed)
    assert "--name" in str(caught.value.problems[0].hint)
    raised = cell.model_copy(update={"num_trials": 9})
    assert make(url, raised).num_startable() == 9


def with_values(values, state=TrialState.COMPLETE):
    study_of_one = optuna.create_study(direction="maximize")
    for curve in values:
        study_of_one.add_trial(
            create_trial(state=state, value=curve[-1], intermediate_values=dict(enumerate(curve)))
        )
    return study_of_one


def test_the_default_pruner_waits_until_chance_cannot_explain_it():
    pruner = search.NoisePruner(num_prompts=100, first_step=2)
    known = with_values([[0.5, 0.6, 0.7, 0.8]] * 4)

    def prunes(curve):
        trial = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(curve)))
        return pruner.prune(known, trial)

    assert not prunes([0.1, 0.1])  # too early
    assert not prunes([0.5, 0.6, 0.65])  # 0.05 behind, with a standard error of 0.05
    assert prunes([0.5, 0.5, 0.5])
    assert prunes([0.0, 0.0, 0.0])
    assert not pruner.prune(with_values([[0.9] * 4] * 2), known.trials[0])  # too few to compare


def test_held_out_accuracy_is_reported_where_a_trial_is_evaluated_while_it_trains():
    rows = [{"step": step, "accuracy": 0.9} for step in range(1, 101)]
    rows[49] |= {"eval/accuracy": 0.25}
    assert search.intermediate_value(rows[:10], 100, 32) is None
    assert search.intermediate_value(rows[:50], 100, 32) == 0.25
    assert search.intermediate_value(rows[:51], 100, 32) is None


def test_the_noise_of_a_held_out_evaluation_is_that_of_its_problems(small, tmp_path):
    (cell,) = loading.load(write(tmp_path, SEARCH)).cells
    in_training, held_out = search.pruner(cell, 100, 8), search.pruner(cell, 100, 8, 32)
    assert isinstance(in_training, search.NoisePruner) and in_training.num_prompts == 80
    assert isinstance(held_out, search.NoisePruner) and held_out.num_prompts == 32
    assert held_out.first_step == in_training.first_step == 25


def test_an_intermediate_value_is_the_mean_of_a_window_and_needs_all_of_it():
    rows = [{"step": step, "accuracy": step / 100} for step in range(1, 101)]
    assert search.intermediate_value(rows[:5], 100) is None
    assert search.intermediate_value(rows[:10], 100) == pytest.approx(0.055)
    assert search.intermediate_value(rows[:11], 100) is None  # one in twenty is reported
    assert search.intermediate_value(rows[:50], 100) == pytest.approx(0.455)
