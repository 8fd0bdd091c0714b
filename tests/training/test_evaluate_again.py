import json
import shutil

import pytest

from r1recipes import data, recipe
from r1recipes.cli.evaluate import table
from r1recipes.machine.files import read_lines
from r1recipes.runs import trained
from r1recipes.runs.record import Run
from r1recipes.training import evaluate_again
from r1recipes.training.evaluate_again import compare
from tests.helpers import in_process


@pytest.fixture
def run(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    return Run(folder)


def summary_of(run):
    (folder,) = (run.folder / "evaluations").iterdir()
    return folder, json.loads((folder / "summary.json").read_text())


def test_without_a_change_the_answers_are_those_of_the_run(run, capfd):
    record = run.record.read_bytes()
    code, _, err = in_process("eval", run.folder)
    assert code == 0, err
    folder, summary = summary_of(run)
    assert read_lines(folder / "base.jsonl") == read_lines(run.evaluation("before"))
    assert read_lines(folder / "trained.jsonl") == read_lines(run.evaluation("after"))
    assert summary["base"]["accuracy"] == run.read()["evaluation"]["before"]["accuracy"]
    assert set(summary["trained"]["pass_at"]) == {"1", "2"}
    assert run.record.read_bytes() == record
    out = capfd.readouterr().out
    assert "6 problems x 2 samples of builtin:arithmetic" in out and str(folder) in out


def test_more_samples_of_the_problems_of_another_recipe(run, small):
    other = small.with_name("other.toml")
    other.write_text(small.read_text().replace("digits = 2", "digits = 1").replace("64", "40"))
    code, _, err = in_process("eval", run.folder, "--data", other, "--samples", "3", "--size", "5")
    assert code == 0, err
    folder, summary = summary_of(run)
    items = read_lines(folder / "trained.jsonl")
    assert len(items) == 5 and {len(item["samples"]) for item in items} == {3}
    assert all(len(item["question"].split()[0]) == 1 for item in items)
    assert summary["recipe"] == "other" and set(summary["base"]["pass_at"]) == {"1", "2", "3"}


def test_problems_that_the_run_was_trained_on_are_left_out(run, small, capfd):
    seen = data.load(run.plan().recipe, small.parent).train["question"][:4]
    fresh = [f"{n} + 1 = ?" for n in range(6)]
    rows = [{"question": question, "answer": "1"} for question in [*seen, *fresh]]
    small.with_name("mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = small.read_text().replace('"builtin:arithmetic"', '"mixed.jsonl"')
    lines = lines.replace("size = 64\neval_size = 6", "eval_size = 9")
    lines = lines.replace("[data.problems]\ndigits = 2\n", "")
    other = small.with_name("other.toml")
    other.write_text(lines[: lines.index("[cold_start]")] + lines[lines.index("[eval]") :])
    other.write_text(other.read_text().replace("builtin:tiny", "some/model"))
    code, _, err = in_process("eval", run.folder, "--data", other)
    assert code == 0, err
    asked = [row["question"] for row in read_lines(summary_of(run)[0] / "base.jsonl")]
    assert asked and not set(asked) & set(seen)
    assert (
        f"{9 - len(asked)} problems left out: the run was trained on them" in capfd.readouterr().out
    )


def test_demonstrations_stay_in_the_folder_of_the_runs_recipe(run, small, tmp_path):
    found = trained.find(tmp_path, str(run.folder))
    assert found.plan.recipe.cold_start
    start = found.plan.recipe.cold_start.model_copy(update={"data": "shown.jsonl"})
    changed = found.plan.recipe.model_copy(update={"cold_start": start})
    plan = found.plan.model_copy(update={"recipe": changed, "base_dir": tmp_path / "here"})
    changes = evaluate_again.Changes(other=recipe.load(small))
    planned = evaluate_again._plan(plan, found, changes)
    assert planned.base_dir == small.parent
    assert planned.recipe.cold_start
    assert planned.recipe.cold_start.data == str(tmp_path / "here" / "shown.jsonl")


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["--samples", "0"], ["--data", "nowhere.toml"], ["--size", "x"]]
)
def test_bad_input_is_refused(run, arguments):
    if arguments != ["nowhere"]:
        arguments = [run.folder, *arguments]
    code, _, err = in_process("eval", *arguments)
    assert code == 2 and err
    assert not (run.folder / "evaluations").exists()


def test_code_of_other_data_runs_only_when_allowed_and_is_shown_first(run, small, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "judge.py").write_text(
        "def judge(completions, answer):\n    return [0.0] * len(completions)\n"
    )
    text = small.read_text().replace("[eval]\n", '[eval]\nreward = "judge.py:judge"\n')
    (folder / "recipe.toml").write_text(text)
    code, _, err = in_process("eval", run.folder, "--data", folder)
    assert code == 2 and "--allow-code" in err and "lets this run" not in err
    code, _, err = in_process("eval", run.folder, "--data", folder, "--allow-code")
    assert "judge.py (2 lines" in err and "  | def judge" in err


def test_a_run_without_an_adapter_is_refused_with_the_way_on(run):
    shutil.rmtree(run.adapter)
    shutil.rmtree(run.checkpoints)
    for command in (["eval"], ["ask"], ["export", "--to", "lora"]):
        rest = ["1 + 1 = ?"] if command == ["ask"] else []
        code, _, err = in_process(command[0], run.folder, *rest, *command[1:])
        assert code == 2 and "no trained adapter" in err and f"--resume {run.folder}" in err


def test_the_table_has_a_row_for_each_measure(run):
    before, after = (read_lines(run.evaluation(when)) for when in ("before", "after"))
    lines = table(compare(before, after) | {"data": "d"})
    first = [line.split("  ")[0] for line in lines]
    assert first[2:-2] == ["pass@1", "pass@2", "majority of 2", "greedy", "tokens", "cut"]
