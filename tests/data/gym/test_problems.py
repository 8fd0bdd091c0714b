"""Problems of reasoning-gym: every data set, its settings, its splits, and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1recipes import data, planning, recipe, rewards
from r1recipes.config import render
from r1recipes.config.section import OpenSection
from r1recipes.data import gym
from r1recipes.data.gym import child, problems
from r1recipes.data.splits import question_key
from r1recipes.errors import RecipeError
from r1recipes.recipe import loading, references
from tests.helpers import in_process
from tests.rows import PRESET

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
NO_REFERENCE = ["boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"]
Made = dict[str, Any]


def text(settings: str = "", name: str = "chain_sum", more: str = "") -> str:
    preset = "\n".join(f"{key} = {value}" for key, value in PRESET.items())
    return (
        f'format = 1\n[model]\nname = "some/model"\n[data]\nname = "gym:{name}"\nsize = 40\n'
        f"eval_size = 12\n{more}[data.problems]\n{settings}\n[rewards]\ngym = 1.0\n"
        f'[eval]\nreward = "gym"\n[preset.cpu]\n{preset}\n'
    )


def write(folder: Path, *args: str, **options: str) -> Path:
    path = folder / "gym.toml"
    path.write_text(text(*args, **options))
    return path


def load(folder: Path, *args: str, flags: tuple[str, ...] = (), **options: str) -> data.Splits:
    path = write(folder, *args, **options)
    return data.load(recipe.load(path, list(flags)).recipe, folder)


def refused(folder: Path, *args: str, flags: tuple[str, ...] = (), **options: str) -> list[str]:
    path = write(folder, *args, **options)
    with pytest.raises(RecipeError) as caught:
        gym.check(recipe.load(path, list(flags)))
    return [f"{p.where}: {p.message}; {p.hint}" for p in caught.value.problems]


# Every data set


@pytest.fixture(scope="module")
def made() -> Made:
    """Data set -> three rows, or the reason why there are none; the same from two processes."""
    command = [sys.executable, "-m", "tests.data.gym.made_by_gym"]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    children = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (json.loads(child.communicate()[0].splitlines()[-1]) for child in children)
    assert first == second
    return first


def test_the_data_sets_that_are_refused_are_these(made: Made):
    reasons = {name: rows for name, rows in made.items() if isinstance(rows, str)}
    assert sorted(reasons) == sorted(["codeio", "composite", *NO_REFERENCE])
    assert {reasons[name] for name in NO_REFERENCE} == {"its problems have no reference answer"}
    assert "runs programs" in reasons["codeio"] and "mixes other" in reasons["composite"]
    assert len(made) - len(reasons) >= 99


def test_every_other_pays_its_own_reference_in_full_and_junk_less(made: Made):
    (reward,) = rewards.load(["gym"], base_dir=Path("."))
    paid = {}
    try:
        for name, rows in made.items():
            if isinstance(rows, str):
                continue
            checked = rewards.check(reward, [{"prompt": row["question"], **row} for row in rows])
            assert checked == [], (name, checked)
            completions = [f"<answer>\n{row['answer']}\n</answer>" for row in rows]
            columns = {key: [row[key] for row in rows] for key in ("question", "answer", "gym")}
            paid[name] = reward(prompts=[""] * 3, completions=completions, **columns)
    finally:
        reward.close()
    assert {name for name, values in paid.items() if values != [1.0] * 3} == set()
    assert not reward.failures


# Rows


def test_splits_share_no_question_and_no_row_comes_twice(tmp_path: Path):
    # 200 different problems: nearly all of them are used.
    small = "max_terms = 2\nmax_digits = 1"
    splits = load(tmp_path, small, flags=("data.size=120", "data.eval_size=40"))
    train, held_out = (
        [question_key(question) for question in rows["question"]]
        for rows in (splits.train, splits.held_out)
    )
    assert (len(train), len(held_out)) == (120, 40)
    assert len({*train, *held_out}) == 160 and splits.num_leaked == 0
    assert splits.train.column_names == ["prompt", "answer", "question", "gym"]
    assert splits.train["prompt"][0][-1] == {"role": "user", "content": splits.train["question"][0]}


def test_the_seed_moves_the_training_rows_alone_and_more_rows_contain_fewer(tmp_path: Path):
    one = load(tmp_path)
    again = load(tmp_path)
    other = load(tmp_path, flags=("seed=7", "data.size=50"))
    more = load(tmp_path, flags=("data.size=60", "data.eval_size=14"))
    assert one.train[:] == again.train[:] and one.held_out[:] == again.held_out[:]
    assert other.held_out[:] == one.held_out[:]
    assert not set(other.train["question"]) & set(one.train["question"])
    assert set(one.held_out["question"]) < set(more.held_out["question"])
    assert set(one.train["question"]) < set(more.train["question"])


def test_settings_reach_the_generator(tmp_path: Path):
    rows = load(tmp_path, "min_terms = 5\nmax_terms = 5").train
    assert {question.count("+") + question.count("-") for question in rows["question"]} == {4}
    styles = load(tmp_path, 'styles = ["plain"]', name="fraction_simplification").train
    assert not any("\\frac" in question for question in styles["question"])


def test_too_many_problems_are_refused_with_the_number_that_there_is(tmp_path: Path):
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, "max_terms = 2\nmax_digits = 1", flags=("data.size=1000",))
    (problem,) = caught.value.problems
    assert "`gym:chain_sum` gave 200 different problems, 1,012 were asked for" in problem.message
    assert "lower `data.size`" in str(problem.hint)


def test_problems_that_take_too_long_are_given_up(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(problems, "MAKE_LIMIT_S", 10.0)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, name="knight_swap", flags=("data.size=4000",))
    assert "within 10 s" in caught.value.problems[0].message


# What is refused, with its place


def test_an_unknown_name_has_the_nearest_one(tmp_path: Path):
    (line,) = refused(tmp_path, name="chain_sm")
    assert line == (
        f'{tmp_path}/gym.toml:5:8: reasoning-gym has no data set "chain_sm"; '
        'did you mean "gym:chain_sum"?'
    )


@pytest.mark.parametrize("name", ["codeio", "composite", "rush_hour"])
def test_a_data_set_that_does_not_fit_is_refused_by_name(name: str):
    """Also where settings are wrong that it does not have."""
    ((key, message, _),) = child.examine(name, {"min_terms": 3})
    assert key == "name" and f"`gym:{name}` cannot be used: " in message


def test_settings_are_checked_by_name_and_type_all_at_once(tmp_path: Path):
    lines = refused(tmp_path, "min_term = 3\nmax_terms = 4.5\nallow_negation = 1\nseed = 3")
    assert lines == [
        f"{tmp_path}/gym.toml:9:1: `gym:chain_sum` has no setting `min_term`; "
        "did you mean `min_terms`?",
        f"{tmp_path}/gym.toml:10:1: `max_terms` of `gym:chain_sum`: input should be a valid "
        "integer, not 4.5; its type is int",
        f"{tmp_path}/gym.toml:11:1: `allow_negation` of `gym:chain_sum`: input should be a valid "
        "boolean, not 1; its type is bool",
        f"{tmp_path}/gym.toml:12:1: `seed` is not set in [data.problems]; remove this line, and "
        "set `seed`, at the top of the recipe",
    ]


def test_what_the_configuration_refuses_is_said():
    ((key, message, _),) = child.examine("chain_sum", {"min_terms": 9, "max_terms": 3})
    assert key == "problems"
    assert message == "`gym:chain_sum` refuses these settings: max_terms must be >= min_terms"


def test_a_file_of_this_machine_is_no_setting():
    ((key, message, _),) = child.examine("spell_backward", {"data_file": "/etc/passwd"})
    assert key == "problems.data_file" and "is the name of a file of reasoning-gym" in message
    assert child.examine("spell_backward", {"data_file": "words3to10.txt"}) == []


@pytest.mark.parametrize(
    ("name", "settings", "wrong"),
    [
        ("aiw", {"task_types": ["friends", "siblings", "colleagues"]}, {"task_types": ["foes"]}),
        ("time_intervals", {"max_date": "2021-01-01"}, {"max_date": "tomorrow"}),
        ("basic_arithmetic", {"operators": ["+"]}, {"operators": "+"}),
        ("basic_arithmetic", {"whitespace": "random"}, {"whitespace": "none"}),
        ("polynomial_multiplication", {"variables": ["x", "y"]}, {"variables": [1]}),
        ("calendar_arithmetic", {"year": 2024}, {"year": "2024"}),
        ("word_sorting", {"transformation": "uppercase"}, {"transformation": "loud"}),
        ("coin_flip", {"allow_exact": True}, {"allow_exact": 1}),
    ],
)
def test_settings_of_all_types_are_taken(name: str, settings: Made, wrong: Made):
    assert child.examine(name, settings) == []
    ((key, message, hint),) = child.examine(name, wrong)
    assert key == f"problems.{next(iter(wrong))}" and f"`{next(iter(wrong))}` of" in message
    assert hint.startswith("its type is ")


def test_without_the_extra_one_line_says_what_to_install(tmp_path: Path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "gym" in name else find_spec(name)
    )
    path = write(tmp_path)
    for refuse in (lambda: gym.check(recipe.load(path)), lambda: load(tmp_path)):
        with pytest.raises(RecipeError) as caught:
            refuse()
        (problem,) = caught.value.problems
        assert "[gym]'`" in str(problem.hint)


def test_the_command_check_finds_it_before_anything_is_loaded(tmp_path: Path):
    code, _, errors = in_process("check", write(tmp_path, "min_term = 3"))
    assert code == 2 and "did you mean `min_terms`" in errors
    assert in_process("check", write(tmp_path, "min_terms = 3"))[0] == 0


def test_a_study_over_settings_is_checked(tmp_path: Path):
    write(tmp_path, "min_terms = 3\nmax_terms = 6")
    study = tmp_path / "study.toml"
    study.write_text(
        'format = 1\nrecipe = "gym.toml"\n[matrix]\n"data.problems.min_terms" = [3, 9]\n'
    )
    code, _, errors = in_process("check", study)
    assert code == 2 and "max_terms must be >= min_terms" in errors


# The recipe


def test_settings_stay_what_they_are_in_every_form_of_the_recipe(tmp_path: Path):
    settings = 'min_terms = 3\noperators = ["+", "-"]\nscale = 2.0\nallow_negation = true'
    loaded = recipe.load(write(tmp_path, settings))
    values = {"min_terms": 3, "operators": ["+", "-"], "scale": 2.0, "allow_negation": True}
    section = loaded.recipe.data.problems
    assert isinstance(section, OpenSection) and section.values() == values
    again = tmp_path / "again.toml"
    again.write_text(render.render(loaded.recipe, loading.origin_of(loaded)))
    assert recipe.load(again).recipe == loaded.recipe
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)
    read = planning.Plan.model_validate_json(plan.model_dump_json())
    assert read.recipe.data.problems == loaded.recipe.data.problems
    assert recipe.fingerprint(read.recipe) == recipe.fingerprint(loaded.recipe)
    other = recipe.load(again, ["data.problems.min_terms=4"]).recipe
    assert recipe.fingerprint(other) != recipe.fingerprint(loaded.recipe)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("min_date = 2020-01-01", "cannot be a date or time; write it in quotes"),
        ("[data.problems.inner]\nx = 1", "`inner` cannot be a section"),
        ("scale = nan", "`scale` cannot be `nan`"),
    ],
)
def test_settings_are_plain_values(tmp_path: Path, settings: str, words: str):
    with pytest.raises(RecipeError, match=words):
        recipe.load(write(tmp_path, settings))


def test_keys_that_do_not_apply_and_rewards_that_cannot_judge(tmp_path: Path):
    def problems(*flags: str) -> str:
        with pytest.raises(RecipeError) as caught:
            recipe.load(write(tmp_path), list(flags))
        return "\n".join(f"{p.message}; {p.hint}" for p in caught.value.problems)

    assert "`config` does not apply to `gym:chain_sum`" in problems("data.config=main")
    assert "the column of `gym:chain_sum` is `question`" in problems("data.question=text")
    assert "lacks its columns" in problems("rewards.countdown=1.0")
    assert "needs demonstrations" in problems("cold_start.steps=3")
    own = "data.name=mine.jsonl"
    assert "built-in and gym: data only" in problems(own, "data.problems.terms=3")
    assert "built-in and gym: data only" not in problems(own)  # the section is empty
    (tmp_path / "gym.toml").write_text(text().replace("[data.problems]\n", ""))
    with pytest.raises(RecipeError, match="not for those of `mine.jsonl`"):
        recipe.load(tmp_path / "gym.toml", ["data.name=mine.jsonl"])
    without = text().replace('[eval]\nreward = "gym"\n', "")
    (tmp_path / "gym.toml").write_text(without)
    with pytest.raises(RecipeError) as caught:
        recipe.load(tmp_path / "gym.toml")
    assert 'add `reward = "gym"` in [eval]' in str(caught.value.problems[0].hint)
    assert recipe.load(tmp_path / "gym.toml", ["eval.reward=correctness"])


def test_a_recipe_from_elsewhere_may_use_reasoning_gym():
    given = {"model": {"name": "some/model"}, "data": {"name": "gym:chain_sum"}}
    assert references.refusals(given, [], []) == []
    assert references.file_names(given) == []
