import json

import pytest

from r1recipes.errors import RecipeError
from r1recipes.runs import reading
from r1recipes.runs.record import Run


def item(question: str, *right: bool) -> dict:
    samples = [{"text": "", "num_tokens": 1, "cut": False, "right": r} for r in right]
    return {"question": question, "answer": "1", "samples": samples, "greedy": samples[0]}


def a_run(folder, after=(), **resolved) -> reading.Reading:
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps({"status": "complete"}))
    (folder / "resolved.json").write_text(json.dumps(resolved))
    lines = "".join(json.dumps(row) + "\n" for row in after)
    (folder / "evaluation-after.jsonl").write_text(lines)
    return reading.read(Run(folder))


def test_only_the_record_has_to_be_there(tmp_path):
    (tmp_path / "record.json").write_text('{"status": "running"}')
    begun = reading.read(Run(tmp_path))
    assert (begun.metrics, begun.steps, begun.max_steps, begun.recipe_text) == ([], 0, None, "")
    assert begun.settings == {} and begun.evaluated("after") == {}


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "record.json").write_text('{"status": "running"}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(RecipeError) as caught:
        _ = reading.read(Run(tmp_path)).metrics
    assert caught.value.problems[0].where == str(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("content", ["[]", "[1]", "null", "1", '"text"', "true"])
@pytest.mark.parametrize("name", ["resolved", "lock", "metrics", "completions", "before", "after"])
def test_json_that_is_no_object_is_damage_and_not_an_empty_file(tmp_path, name, content):
    (tmp_path / "record.json").write_text('{"status": "running"}')
    files = {"resolved": "resolved.json", "lock": "lock.json"}
    files |= {"before": "evaluation-before.jsonl", "after": "evaluation-after.jsonl"}
    file = tmp_path / files.get(name, f"{name}.jsonl")
    file.write_text(f"{content}\n")
    with pytest.raises(RecipeError, match="not an object") as caught:
        getattr(reading.read(Run(tmp_path)), name)
    assert caught.value.problems[0].where == str(file)


def test_what_differs_is_found_at_any_depth_and_nothing_else(tmp_path):
    recipe = {"description": "x", "train": {"beta": 0.0, "lr": 1}, "track": {"tensorboard": True}}
    other = {"description": "y", "train": {"beta": 0.1, "lr": 1}, "rewards": {"a": 2.0}}
    a = a_run(tmp_path / "a", recipe=recipe, preset={"lora_rank": 8})
    b = a_run(tmp_path / "b", recipe=other, preset={"lora_rank": 16})
    assert reading.differing([a.settings, b.settings]) == {
        "train.beta": [0.0, 0.1],
        "preset.lora_rank": [8, 16],
        "rewards.a": [None, 2.0],
    }
    assert reading.differing([a.settings, a.settings]) == {}


def test_runs_are_compared_on_the_problems_that_both_answered(tmp_path):
    first = [item("1", True, False), item("2", False, False), item("only here", True, True)]
    second = [item("2", True, False), item("1", True, True)]
    comparison = reading.paired(a_run(tmp_path / "a", first), a_run(tmp_path / "b", second))
    assert comparison and (comparison.mean, comparison.num_problems) == (0.5, 2)


def test_a_problem_that_occurs_twice_is_paired_twice(tmp_path):
    twice = [item("1", True), item("1", False), item("2", False)]
    a, b = a_run(tmp_path / "a", twice), a_run(tmp_path / "b", twice)
    comparison = reading.paired(a, b)
    assert comparison and not comparison.is_clear
    assert (comparison.mean, comparison.num_problems) == (0, 3)


def test_runs_without_a_common_problem_are_not_compared(tmp_path):
    a, b = (a_run(tmp_path / n, [item(n, True), item(n + "2", True)]) for n in "ab")
    assert reading.paired(a, b) is None


def test_a_shared_folder_without_a_plan_differs_in_nothing_that_is_known(tmp_path):
    whole, shared = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b")
    (tmp_path / "b" / "resolved.json").unlink(missing_ok=True)
    assert whole.settings and not shared.settings
    assert reading.differing([whole.settings, shared.settings]) == {}


def test_samples_that_were_drawn_differently_are_told_and_greedy_answers_compared(tmp_path):
    def run(name, temperature, samples, *greedy):
        answers = [item(f"{k}", right, True, True) for k, right in enumerate(greedy)]
        recipe = {"train": {"temperature": temperature, "top_p": 1.0}, "eval": {"samples": samples}}
        return a_run(tmp_path / name, answers, recipe=recipe)

    a, b = run("a", 1.0, 3, False, False, True), run("b", 0.7, 3, True, False, True)
    c = run("c", 1.0, 16, True, True, True)
    assert reading.sampled_differently([a, a]) == ""
    assert reading.sampled_differently([a, b]) == "train.temperature 1.0, 0.7"
    assert reading.sampled_differently([a, c]) == "eval.samples 3, 16"
    assert reading.sampled_differently([a, c], with_number=False) == ""
    comparison = reading.paired(a, b, greedy=True)
    assert comparison and (comparison.mean, comparison.num_problems) == (1 / 3, 3)
    sampled = reading.paired(a, b)
    assert sampled and sampled.mean == pytest.approx(1 / 9)
