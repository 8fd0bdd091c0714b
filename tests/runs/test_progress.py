"""How far a run is, in words: also one that was killed in a stage before its last training."""

from pathlib import Path

from r1recipes.runs import Run
from r1recipes.runs.reading import Reading


def test_a_run_that_was_killed_in_a_stage_shows_the_step_of_that_stage(tmp_path: Path) -> None:
    run = Run(tmp_path)
    stage = run.stage("1-sft")
    stage.folder.mkdir(parents=True)
    reading = Reading(run, "", "killed", {})
    plan = {"recipe": {"algorithm": "sft", "train": {"max_steps": 8}}}
    last = {"recipe": {"algorithm": "grpo", "train": {"max_steps": 20}}, "earlier": [plan]}
    reading.__dict__["resolved"] = last
    assert reading.progress == "0/20"
    stage.metrics.write_text('{"step": 1}\n{"step": 2}\n')
    reading = Reading(run, "", "killed", {})
    reading.__dict__["resolved"] = last
    assert reading.progress == "1-sft 2/8"
    run.metrics.write_text('{"step": 1}\n')
    reading = Reading(run, "", "killed", {})
    reading.__dict__["resolved"] = last
    assert reading.progress == "1/20"


def test_the_standing_of_a_run_names_the_stage(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"status": "failed"}')
    run = Run(tmp_path)
    assert run.standing() == "failed at step 0"
    run.stage("1-sft").folder.mkdir(parents=True)
    run.stage("1-sft").metrics.write_text('{"step": 3}\n')
    assert run.standing() == "failed at step 3 of stage 1-sft"
    run.metrics.write_text('{"step": 7}\n')
    assert run.standing() == "failed at step 7"
