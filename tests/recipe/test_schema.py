"""The schema: what is valid, what is not, and the JSON Schema that editors read."""

import json
from typing import Annotated, get_args

import pytest
import tomli
from pydantic import ValidationError

from r1recipes import recipe, rewards
from r1recipes.algorithms import step
from r1recipes.algorithms.base import preset_bytes
from r1recipes.algorithms.sft import ColdStart
from r1recipes.config import section
from r1recipes.recipe import loading, rules, schema
from r1recipes.recipe.sections.data import AnswerKind, Data
from r1recipes.rewards import answers
from tests.conftest import SMALL


def valid(**sections) -> recipe.Recipe:
    """The small recipe with some keys of some sections replaced."""
    data = tomli.loads(SMALL)
    for name, changes in sections.items():
        data[name] = data.get(name, {}) | changes if isinstance(changes, dict) else changes
    return recipe.Recipe.model_validate(data)


def refused(**sections) -> str:
    with pytest.raises(ValidationError) as caught:
        valid(**sections)
    return str(caught.value.errors())


def test_a_whole_number_is_a_number_and_the_same_recipe():
    whole, real = valid(rewards={"correctness": 2}), valid(rewards={"correctness": 2.0})
    assert recipe.fingerprint(whole) == recipe.fingerprint(real)
    assert isinstance(whole.rewards["correctness"], float)


@pytest.mark.parametrize("value", [True, 1.0, "1", 2, 0, None, 10**4000])
def test_the_format_is_exactly_the_number_1(value):
    assert refused(format=value)


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), "0.1", 10**400, -1, 0])
def test_a_learning_rate_is_a_positive_finite_number(value):
    assert refused(train={"learning_rate": value})


def test_sections_are_frozen_and_unknown_keys_refused():
    with pytest.raises(ValidationError):
        setattr(valid().train, "beta", 0.5)  # noqa: B010
    assert "extra_forbidden" in refused(train={"betta": 0.5})


def test_user_code_is_a_reward_and_other_unknown_names_are_not():
    assert valid(rewards={"my_rewards.py:legal": 1.0}).rewards["my_rewards.py:legal"] == 1.0
    assert "unknown reward" in refused(rewards={"my_rewards:legal": 1.0})
    assert "unknown reward" in refused(eval={"reward": "corectness"})


def test_at_least_one_reward_has_a_weight():
    assert "weight 0" in refused(rewards=dict.fromkeys(tomli.loads(SMALL)["rewards"], 0))


def test_a_preset_for_a_card_needs_its_share_and_one_for_the_cpu_none():
    cpu = tomli.loads(SMALL)["preset"]["cpu"]
    threads = cpu.pop("num_threads")
    assert "gpu_memory_utilization` is missing" in refused(preset={"8GB": cpu})
    assert valid(preset={"8GB": cpu | {"gpu_memory_utilization": 0.5}})
    assert "needs a GPU" in refused(preset={"cpu": cpu | {"load_in_4bit": True}})
    card = cpu | {"gpu_memory_utilization": 0.5, "num_threads": threads}
    assert "`num_threads` is for the preset `cpu`" in refused(preset={"8GB": card})


def test_a_preset_is_reported_beside_a_broken_one():
    cpu = tomli.loads(SMALL)["preset"]["cpu"]
    del cpu["num_threads"]
    with pytest.raises(ValidationError) as caught:
        valid(preset={"8GB": cpu, "16GB": cpu | {"lora_rank": 0}})
    assert {error["type"] for error in caught.value.errors()} == {"refused", "greater_than_equal"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"name": "builtin:tiny"}, "cold_start": None}, "knows nothing"),
        ({"cold_start": {"steps": 1, "data": "x.jsonl", "wrong": 0.5}}, "built-in demonstrations"),
        ({"data": {"name": "openai/gsm8k", "problems": None}}, "needs demonstrations"),
        ({"data": {"eval_split": "test"}}, "does not apply"),
        ({"data": {"question": "q"}}, "the column of"),
        ({"train": {"epsilon_high": 0.1}}, "is below `epsilon`"),
        ({"train": {"loss_type": "cispo"}}, "is below 1, the weight of an unchanged token"),
        ({"train": {"loss_type": "dr_grpo"}}, "Unsloth turns it off"),
        ({"train": {"lr_scheduler_type": "constant"}}, "ignores `warmup_ratio`"),
        ({"model": {"name": "builtin:smal"}}, "unknown built-in model"),
        ({"model": {"name": " x"}}, "string_pattern_mismatch"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(sections, message):
    assert message in refused(**sections)


def test_an_empty_section_of_problems_sets_nothing_for_other_data():
    start = {"data": "shown.jsonl", "wrong": 0.0}
    own = valid(data={"name": "rows.jsonl", "problems": {}}, cold_start=start)
    assert own == valid(data={"name": "rows.jsonl", "problems": None}, cold_start=start)
    refusal = refused(data={"name": "rows.jsonl", "problems": {"digits": 3}}, cold_start=start)
    assert "for built-in and gym: data only" in refusal
    assert valid(data={"name": "builtin:arithmetic", "problems": {}}).data.problems is not None


def test_the_kinds_of_answers_are_those_that_are_judged():
    assert set(get_args(AnswerKind)) == set(answers.Kind)
    rows = {"name": "rows.jsonl", "answer_kind": "choice", "problems": None}
    start = {"data": "shown.jsonl", "wrong": 0.0}
    assert valid(data=rows, cold_start=start).data.answer_kind == "choice"
    assert "literal_error" in refused(data=rows | {"answer_kind": "chioce"}, cold_start=start)
    assert "does not apply to `builtin:arithmetic`" in refused(data={"answer_kind": "number"})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([0.9, 0.1], "write `keep = [0.1, 0.9]`"),
        ([0.5, 0.5], "must be below the second"),
        ([10, 90], "[10, 90] is not within 0 and 1"),
        ([-0.1, 0.9], "is not within 0 and 1"),
        ([0.1], "has 1 number, not a lowest and a highest pass rate"),
        ([], "has 0 numbers"),
        ([0.1, 0.5, 0.9], "has 3 numbers"),
        ([0.3, 0.4], "no share of 4 samples (`num_generations`) lies from 0.3 to 0.4"),
        ([0.1, "a"], "float_type"),
        ([True, 1], "float_type"),
        ([float("nan"), 1], "finite_number"),
        (0.5, "list_type"),
        ("0.1", "list_type"),
    ],
)
def test_a_range_of_pass_rates_is_two_rising_shares_that_samples_can_have(keep, message):
    assert message in refused(data={"keep": keep})


@pytest.mark.parametrize("keep", [[0, 1], [0.0, 0.9], [0.25, 0.4], [0.1, 1]])
def test_a_range_of_pass_rates_is_part_of_the_recipe(keep):
    changed = valid(data={"keep": keep})
    assert changed.data.keep == keep
    assert [type(bound) for bound in changed.data.keep or ()] == [float, float]
    assert recipe.fingerprint(changed) != recipe.fingerprint(valid())
    assert recipe.fingerprint(valid()) == recipe.fingerprint(valid(data={"keep": None}))


def test_an_editor_knows_that_a_range_is_two_shares():
    key = schema.for_editors()["properties"]["data"]["properties"]["keep"]
    assert (key["type"], key["minItems"], key["maxItems"]) == ("array", 2, 2)
    assert key["items"] == {"type": "number", "minimum": 0, "maximum": 1}


class Inner(section.Section):
    old: int = 1
    new: Annotated[int | None, section.ADDED_LATER] = None


class Outer(section.Section):
    inner: Inner = Inner()
    several: dict[str, Inner] = {}
    late: Annotated[Inner, section.ADDED_LATER] = Inner()


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({}, {"inner": {"old": 1}, "several": {}}),
        ({"inner": {"new": 2}}, {"inner": {"old": 1, "new": 2}, "several": {}}),
        (
            {"several": {"a": {}, "b": {"new": 3}}},
            {"inner": {"old": 1}, "several": {"a": {"old": 1}, "b": {"old": 1, "new": 3}}},
        ),
        ({"late": {"old": 4}}, {"inner": {"old": 1}, "several": {}, "late": {"old": 4}}),
    ],
)
def test_a_later_key_is_left_out_while_it_has_its_default(given, canonical):
    outer = Outer.model_validate(given)
    assert section.without_later_defaults(outer, outer.model_dump()) == canonical


def test_a_later_key_that_is_set_changes_the_fingerprint():
    rows = {"name": "rows.jsonl", "problems": None}
    start = {"data": "shown.jsonl", "wrong": 0.0}
    plain = recipe.fingerprint(valid(data=rows, cold_start=start))
    for kind, is_same in ((None, True), ("text", False)):
        changed = valid(data=rows | {"answer_kind": kind}, cold_start=start)
        assert (recipe.fingerprint(changed) == plain) is is_same


def test_a_hub_data_set_is_not_evaluated_on_what_it_is_trained_on():
    data = {"name": "openai/gsm8k", "problems": None, "eval_split": "train"}
    assert "is the split that is trained on" in refused(data=data)


@pytest.mark.parametrize(
    ("data", "weights", "evaluation", "keys"),
    [
        ("countdown", {"correctness": 2.0}, {}, ["/rewards.correctness", "reward"]),
        ("countdown", {"countdown": 2.0}, {}, ["reward"]),
        ("countdown", {"countdown": 2.0, "soft_format": 0.5}, {"reward": "countdown"}, []),
        ("countdown", {"notebook_correctness": 1.0}, {"reward": "countdown"}, ["/rewards.noteb"]),
        ("arithmetic", {"countdown": 2.0}, {}, ["/rewards.countdown"]),
        ("arithmetic", {"correctness": 2.0}, {"reward": "countdown"}, ["reward"]),
        ("arithmetic", {"correctness": 2.0}, {}, []),
    ],
)
def test_a_reward_judges_the_data_it_is_for(data, weights, evaluation, keys):
    given = schema.Eval.model_validate(evaluation)
    found = rules.of_rewards(given, weights, Data(name=f"builtin:{data}"))
    assert len(found) == len(keys)
    for (key, _, _), start in zip(found, keys, strict=True):
        assert str(key).startswith(start)


def test_a_default_that_does_not_fit_says_what_to_add():
    data = Data(name="builtin:countdown")
    ((_, message, hint),) = rules.of_rewards(schema.Eval(), {"countdown": 1.0}, data)
    assert '"correctness", the default,' in message and "bare target" in message
    assert hint == 'add `reward = "countdown"` in [eval]'
    assert rules.of_rewards(None, None, data) == []
    assert rules.of_rewards(schema.Eval(), {}, None) == []


def test_a_cold_start_trains_whole_weights():
    data, start = Data(name="builtin:arithmetic"), ColdStart(steps=1)
    model = schema.Model(name="unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit")
    ((key, message, _),) = rules.of_cold_start(start, model, data)
    assert key == "/model.name" and "trains all weights" in message
    assert rules.of_cold_start(None, model, data) == []


def test_a_recipe_is_refused_for_the_wrong_judge():
    data = {"name": "builtin:countdown", "problems": None}
    assert "/rewards.correctness" in refused(data=data)
    rewarded = tomli.loads(SMALL) | {"rewards": {"countdown": 1.0}}
    rewarded["data"] = rewarded["data"] | data
    with pytest.raises(ValidationError):
        recipe.Recipe.model_validate(rewarded)  # eval.reward is "correctness" by default
    recipe.Recipe.model_validate(rewarded | {"eval": {"reward": "countdown"}})


@pytest.mark.parametrize("number", [1, 2, 12, 97, 36, 65_536 * 1024])
def test_divisors(number):
    found = step.divisors(number)
    assert {1, number} <= set(found) and all(number % n == 0 for n in found)
    if number < 100:
        assert set(found) == {n for n in range(1, number + 1) if number % n == 0}


def test_a_batch_that_fits_is_proposed():
    preset = {"num_generations": 6, "prompts_per_step": 4, "per_device_train_batch_size": 5}
    message = refused(preset={"cpu": tomli.loads(SMALL)["preset"]["cpu"] | preset})
    assert "24 completions a step do not divide into batches of 5" in message
    assert "per_device_train_batch_size = 4` or 6" in message


def test_preset_bytes():
    assert preset_bytes("cpu") == 0
    assert preset_bytes("24GB") == 24 * 2**30


def test_the_committed_json_schema_is_up_to_date():
    """`r1recipes schema recipes/recipe.schema.json` writes it."""
    path = loading.shipped_folder() / "recipe.schema.json"
    assert path.read_text() == json.dumps(schema.for_editors(), indent=1) + "\n"


def test_the_json_schema_is_what_editors_understand():
    """Checked by hand with tombi 1.9.6 and taplo 0.9.0: no references, no null, no open tables."""
    text = json.dumps(schema.for_editors())
    for word in ("$ref", "$defs", "null", "anyOf", "propertyNames", "prefixItems"):
        assert f'"{word}"' not in text, word
    for path, node in tables(schema.for_editors()):
        assert node["additionalProperties"] is False, path
        assert node["description"] or path == ("preset",), path


def test_every_key_is_described_and_choices_are_listed():
    root = schema.for_editors()
    for path, node in tables(root):
        for key, value in node.get("properties", {}).items():
            assert value.get("description"), (*path, key)
    train = root["properties"]["train"]["properties"]
    assert train["loss_type"]["enum"][:5] == ["dapo", "dr_grpo", "grpo", "bnpo", "cispo"]
    assert "ipo" in train["loss_type"]["enum"]  # of dpo
    assert train["learning_rate"]["exclusiveMinimum"] == 0
    assert root["properties"]["lora"]["properties"]["lora_alpha"]["type"] == "integer"
    assert set(root["properties"]["rewards"]["properties"]) == set(rewards.REWARDS)
    assert root["required"] == ["format", "model", "data", "preset"]  # dpo may need no rewards


def tables(node, path=()):
    """Every object of the schema and its path."""
    if node.get("type") == "object":
        yield path, node
    for kind in ("properties", "patternProperties"):
        for key, inner in node.get(kind, {}).items():
            yield from tables(inner, (*path, key) if kind == "properties" else path)
