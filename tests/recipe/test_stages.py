"""[[stage]]: what it may say, the recipe that trains it alone, and the files that it names."""

from pathlib import Path

import pytest
import tomli

from r1recipes import recipe
from r1recipes.config import render
from r1recipes.config.section import without_later_defaults
from r1recipes.errors import RecipeError
from r1recipes.recipe import loading, references
from r1recipes.recipe.schema import Recipe, of_stage
from r1recipes.study import loading as studies
from tests.conftest import SMALL

STAGES = """
[[stage]]
algorithm = "sft"

[stage.train]
packing = true

[[stage]]
algorithm = "grpo"
num_generations = 2

[stage.rewards]
integer = 1.0
"""


def load(stages: str, *overrides: str, base: str = SMALL) -> Recipe:
    return loading.load_text(base + stages, Path("staged.toml"), list(overrides)).recipe


def refused(stages: str, base: str = SMALL) -> str:
    with pytest.raises(RecipeError) as raised:
        load(stages, base=base)
    return "\n".join(
        f"{problem.where}: {problem.message} ({problem.hint})" for problem in raised.value.problems
    )


def test_the_last_training_is_that_of_the_recipe():
    staged = load(STAGES)
    assert staged.algorithm == "grpo" and staged.stage_names == ["1-sft", "2-grpo"]
    assert staged.algorithms == ["sft", "grpo", "grpo"]
    assert staged.stage[0].train.model_dump()["packing"] is True
    assert load(STAGES, "stage=[]") == load("")


def test_a_stage_is_trained_as_a_recipe_of_its_own():
    staged = load(
        STAGES, "data.keep=[0.1, 0.9]", "eval.every=2", base=SMALL.replace("= 4\n", "= 8\n")
    )
    sft, grpo = (of_stage(staged, stage, staged.preset) for stage in staged.stage)
    assert (sft.algorithm, grpo.algorithm) == ("sft", "grpo")
    assert sft.rewards == staged.rewards and grpo.rewards == {"integer": 1.0}
    assert sft.preset["cpu"].num_generations == 8 and grpo.preset["cpu"].num_generations == 2
    for alone in (sft, grpo):
        assert alone.data.keep is None and alone.eval.every is None and not alone.stage
        assert alone.model == staged.model and alone.lora == staged.lora
        assert alone.cold_start == staged.cold_start


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[[stage]]\n", 'is missing (add `algorithm = "sft"` below `[[stage]]`)'),
        ('[[stage]]\nalgorithm = "sfd"\n', 'unknown algorithm "sfd" (did you mean "sft"?)'),
        ('[[stage]]\nalgorithm = "dapo"\n', "is a loss of GRPO"),
        ('[stage]\nalgorithm = "sft"\n', "write `[[stage]]`, in double brackets"),
        ('[[stage]]\nalgorithm = "sft"\nmax_steps = 3\n', "`max_steps` belongs in [stage.train]"),
        ('[[stage]]\nalgorithm = "sft"\n[stage.train]\nbeta = 0.1\n', "`beta` belongs in [train]"),
        ('[[stage]]\nalgorithm = "sft"\n[stage.trian]\n', "did you mean `[stage.train]`?"),
        (
            '[[stage]]\nalgorithm = "sft"\n[stage.train]\nmax_stepz = 3\n',
            "did you mean `stage[0].train.max_steps`?",
        ),
        (
            '[[stage]]\nalgorithm = "sft"\n\n[[stage]]\nalgorithm = "dpo"\nprompts_per_step = 0\n',
            "staged.toml:52:20: `stage[1].prompts_per_step` must be at least 1",
        ),
        (
            '[[stage]]\nalgorithm = "sft"\nprompts_per_step = 3\nper_device_train_batch_size = 2\n',
            "staged.toml:50:31: 3 demonstrations a step do not divide into batches of 2",
        ),
        ('[[stage]]\nalgorithm = "online_dpo"\n', "takes 2 completions of a prompt, not 4"),
        (
            '[[stage]]\nalgorithm = "grpo"\n[stage.examples]\nname = "x.jsonl"\n',
            "staged.toml:49:2: [examples] is not for GRPO",
        ),
        ('[[stage]]\nalgorithm = "grpo"\n[stage.rewards]\n', "must have an entry"),
        ('[[stage]]\nalgorithm = "grpo"\n[stage.rewards]\njudge = 1.0\n', "a section [judge]"),
        ('[[stage]]\nalgorithm = "grpo"\n[stage.rewards]\ngym = 1.0\n', "(`gym:NAME`)"),
    ],
)
def test_a_mistake_is_found_at_its_place(stages, message):
    assert message in refused(stages)


def test_a_stage_needs_rewards_where_the_recipe_has_none():
    base = SMALL.replace("seed = 1", 'seed = 1\nalgorithm = "sft"')
    start, end = base.index("[rewards]"), base.index("[train]")
    base = base[:start] + base[end:]
    assert "[stage.rewards]" in refused('[[stage]]\nalgorithm = "grpo"\n', base)
    own = '[[stage]]\nalgorithm = "grpo"\n[stage.rewards]\ncorrectness = 1.0\n'
    assert load(own, base=base).reward_names == ["correctness"]


def test_whatever_is_shown_loads_to_the_same():
    staged = load(STAGES)
    assert Recipe.model_validate(tomli.loads(render.render(staged))) == staged


def test_the_fingerprint_knows_stages_and_nothing_else_does():
    before = recipe.fingerprint(load(""))
    dumped = without_later_defaults(load(""), load("").model_dump(mode="json"))
    assert "stage" not in dumped
    assert recipe.fingerprint(load(STAGES)) != before
    other = STAGES.replace("packing = true", "packing = false")
    assert recipe.fingerprint(load(other)) != recipe.fingerprint(load(STAGES))


FILES = """
[[stage]]
algorithm = "sft"

[stage.examples]
name = "shown.jsonl"
revision = "../x"

[[stage]]
algorithm = "grpo"

[stage.rewards]
"pay.py:short" = 1.0
correctness = 1.0
"""


def test_a_recipe_from_elsewhere_is_refused_what_its_stages_name():
    data = tomli.loads(SMALL + FILES)
    assert references.file_names(data) == ["shown.jsonl", "pay.py"]
    refusals = references.refusals(data, [], [])
    assert [refusal.loc for refusal in refusals] == [
        ("stage", 0, "examples", "name"),
        ("stage", 1, "rewards", "pay.py:short"),
        ("stage", 0, "examples", "revision"),
    ]
    assert "`stage[0].examples.name` names `shown.jsonl`" in refusals[0].message
    came = references.refusals(data, ["shown.jsonl", "pay.py"], [])
    assert [refusal.loc for refusal in came] == [("stage", 0, "examples", "revision")]


def test_what_stages_name_can_be_given_other_names():
    data = tomli.loads(SMALL + FILES)
    renamed = references.with_names(data, lambda name: f"here/{name}")
    assert renamed["stage"][0]["examples"]["name"] == "here/shown.jsonl"
    assert list(renamed["stage"][1]["rewards"]) == ["here/pay.py:short", "correctness"]
    assert data == tomli.loads(SMALL + FILES)


@pytest.mark.parametrize("name", ["1", "01", "1-sft"])
def test_a_flag_sets_a_key_of_a_stage_by_its_number_or_its_name(name):
    staged = load(STAGES, f"stage.{name}.train.max_steps=7", "stage.2.num_generations=4")
    assert staged.stage[0].train.max_steps == 7
    assert staged.stage[0].train.model_dump()["packing"] is True
    assert staged.stage[1].num_generations == 4 and staged.stage[1].rewards == {"integer": 1.0}


@pytest.mark.parametrize(
    ("flag", "message", "hint"),
    [
        ("stage.3.train.max_steps=7", "`stage.1` or `stage.2`", "stage.1.train.max_steps=30"),
        ("stage.0.train.max_steps=7", "`stage.1` or `stage.2`", "stage.1.train.max_steps=30"),
        ("stage.train.max_steps=7", "`stage.1` or `stage.2`", "stage.1.train.max_steps=30"),
        ("stage.1=7", "`stage.1` or `stage.2`", "stage.1.train.max_steps=30"),
        ("stage.1.steps=7", "unknown key `stage[0].steps`", "belongs in [cold_start]"),
        ("stage.1.train.max_steps=0", "at least 1", "`--set stage.1.train.max_steps="),
    ],
)
def test_a_flag_for_no_key_of_a_stage_is_refused(flag, message, hint):
    with pytest.raises(RecipeError) as error:
        load(STAGES, flag)
    (problem,) = error.value.problems
    assert message in problem.message and hint in (problem.hint or "")
    assert problem.where == f"--set {flag}"


def test_a_recipe_without_stages_has_no_key_of_one():
    with pytest.raises(RecipeError, match="the recipe has none"):
        load("", "stage.1.train.max_steps=7")


@pytest.mark.parametrize(
    ("key", "message", "right"),
    [
        ("stage.1-dpo.train.max_steps=7", "stage 1 is `1-sft`", "stage.1-sft.train.max_steps"),
        ("stage.01-Sft.train.max_steps=7", "stage 1 is `1-sft`", "stage.1-sft.train.max_steps"),
        ("stage.1-.train.max_steps=7", "stage 1 is `1-sft`", "stage.1-sft.train.max_steps"),
        ("stage.2-sft.rewards.integer=2.0", "stage 2 is `2-grpo`", "stage.2-grpo.rewards.integer"),
        ('stage."2-online dpo"={num_generations=4}', "not `2-online dpo`", "`stage.2-grpo`"),
        ("stage.1-dpo.train.beta=0.5", "stage 1 is `1-sft`", "stage.1-sft.train.beta"),
        ("stage.1-dpo={train={packing=true, max_steps=3}}", "not `1-dpo`", "`stage.1-sft`"),
    ],
)
def test_the_name_of_a_stage_in_a_flag_is_its_algorithm(key, message, right):
    with pytest.raises(RecipeError) as error:
        load(STAGES, "train.max_steps=5", key)
    (problem,) = error.value.problems
    assert message in problem.message and right in (problem.hint or "")
    assert problem.where == f"--set {key}"


def test_a_stage_is_called_by_the_algorithm_that_the_flags_give_it():
    beta, algorithm = "stage.1-dpo.train.beta=0.5", "stage.1.algorithm=dpo"
    none = "stage.1.train={}"
    base = 'stage=[{algorithm="sft"}]'
    for flags in ([base, algorithm, beta], [base, none, "stage.1-dpo.algorithm=dpo", beta]):
        assert load(STAGES, *flags).stage[0].algorithm == "dpo"
    assert load(STAGES, "stage.2-grpo.algorithm=rloo").stage_names == ["1-sft", "2-rloo"]
    with pytest.raises(RecipeError, match="stage 2 is `2-rloo`, not `2-grpo`"):
        load(STAGES, "stage.2.algorithm=rloo", "stage.2-grpo.num_generations=4")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("set", '"stage.1-dpo.train.max_steps" = 5'),
        ("search", '"stage.1-dpo.train.max_steps" = { low = 4, high = 6 }'),
        ("search", '"stage.1-dpo.train.max_steps" = { choices = [4, 6] }'),
        ("matrix", '"stage.1-dpo.train.max_steps" = [4, 6]'),
    ],
)
def test_the_name_of_a_stage_in_a_study_is_its_algorithm(tmp_path, section, line):
    (tmp_path / "staged.toml").write_text(SMALL + STAGES)
    study = tmp_path / "study.toml"
    text = f'format = 1\nrecipe = "staged.toml"\n\n[{section}]\n{line}\n'
    text += "" if section != "set" else "\n[matrix]\nseed = [1, 2]\n"
    study.write_text(text)
    with pytest.raises(RecipeError) as error:
        studies.load(study)
    (problem,) = error.value.problems
    assert problem.message == "stage 1 is `1-sft`, not `1-dpo`"
    assert "`stage.1-sft.train.max_steps`" in (problem.hint or "")
    assert problem.where == f"{study}:5:1"
    study.write_text(text.replace("1-dpo", "1-sft"))
    assert studies.load(study).cells
