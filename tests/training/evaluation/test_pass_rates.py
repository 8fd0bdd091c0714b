"""Pass rates are measured in blocks, kept in the cache, and keyed by all that they depend on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from r1recipes import planning
from r1recipes.recipe import loading
from r1recipes.training.backends.base import Sample
from r1recipes.training.evaluation.pass_rates import (
    Cache,
    Task,
    asked,
    measure,
    shuffled,
    weights_of,
)
from tests.conftest import SMALL
from tests.training.evaluation.test_evaluation import pay, rows

TASK = Task(keep=[0.1, 0.9], num_needed=6, num_samples=4, block_size=5, seed=1)


class Model:
    """Answers problem i with `i % 5` right samples of four; counts the blocks that it is asked."""

    def __init__(self) -> None:
        self.blocks: list[list[int]] = []
        self.progress: list[tuple[int, int]] = []
        self.announced: list[float] = []

    def generate(self, prompts, progress):
        numbers = [int(prompt[-1]["content"][1:]) for prompt in prompts]
        self.blocks.append(numbers)
        progress(len(prompts), len(prompts))
        return [
            [Sample(str(i) if j < i % 5 else "no", 3, False) for j in range(TASK.num_samples)]
            for i in numbers
        ]

    def measure(self, cache, task=TASK, count=20):
        return measure(
            rows(count),
            task,
            cache,
            self.generate,
            pay,
            lambda done, total: self.progress.append((done, total)),
            self.announced.append,
        )


def test_blocks_are_measured_until_enough_problems_are_kept(tmp_path):
    model = Model()
    measured = model.measure(Cache(tmp_path, {}, 4))
    order = shuffled(20, TASK.seed)
    assert measured.rows == order[: len(measured.rows)] == sum(model.blocks, [])
    assert measured.num_right == [row % 5 for row in measured.rows]
    kept = [row for row in measured.rows if 0 < row % 5 < 4]
    assert len(kept) >= 6 and len([row for row in kept if row in model.blocks[-1]]) > len(kept) - 6
    assert order != sorted(order) and shuffled(20, TASK.seed) == order != shuffled(20, 2)
    assert len(model.announced) == 1
    done = [done for done, _ in model.progress]
    assert done == [5 * n for n in range(1, len(done) + 1)]
    assert all(done <= total <= 20 for done, total in model.progress)


def test_all_problems_are_measured_where_too_few_are_kept(tmp_path):
    model = Model()
    measured = model.measure(Cache(tmp_path, {}, 4), replace(TASK, num_needed=99, block_size=8))
    assert sorted(measured.rows) == list(range(20))
    assert [len(block) for block in model.blocks] == [8, 8, 4]


def test_what_is_in_the_cache_is_not_measured_again(tmp_path):
    first, again, more = Model(), Model(), Model()
    measured = first.measure(Cache(tmp_path, {"seed": 1}, 4))
    repeated = again.measure(Cache(tmp_path, {"seed": 1}, 4))
    assert not again.blocks and not again.progress and not again.announced
    assert (repeated.rows, repeated.num_right) == (measured.rows, measured.num_right)
    assert (measured.num_cached, repeated.num_cached) == (0, len(measured.rows))
    wider = more.measure(Cache(tmp_path, {"seed": 1}, 4), replace(TASK, num_needed=99))
    assert wider.num_cached == len(measured.rows) and len(wider.rows) == 20
    assert sum(more.blocks, []) == wider.rows[len(measured.rows) :]
    assert more.progress[-1][0] == 20 - wider.num_cached
    other = Model()
    other.measure(Cache(tmp_path, {"seed": 2}, 4))
    assert other.blocks == first.blocks


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"num_right": 3}', '{"num_right": [9, 0, 0, 0, 0]}'],
)
def test_a_damaged_file_of_the_cache_is_measured_again(content, tmp_path):
    cache, again = Cache(tmp_path, {}, 4), Model()
    measured = Model().measure(cache)
    for path in cache.folder.glob("*.json"):
        if path.name != "about.json":
            path.write_text(content)
    assert again.measure(cache).num_right == measured.num_right
    assert sum(again.blocks, []) == measured.rows


def test_a_file_of_another_block_or_size_is_not_taken(tmp_path):
    cache = Cache(tmp_path, {}, 4)
    Model().measure(cache)
    block = rows(20)[:5]
    cache.write(block, [0, 1, 2, 3, 4])
    assert cache.read(block) == [0, 1, 2, 3, 4]
    assert cache.read(block[:4]) is None and cache.read(block[::-1]) is None
    assert cache.read([row | {"answer": "1"} for row in block]) is None
    assert json.loads((cache.folder / "about.json").read_text()) == {}


def plan_of(*overrides):
    loaded = loading.load_text(SMALL, Path("small.toml"), list(overrides))
    return planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=Path())


INPUTS = {"the data": "1", "the chat template": "2", "the code of reward `correctness`": "3"}


def key(*overrides, inputs=INPUTS, weights="commit a", answers=("1", "2"), block_size=64):
    return json.dumps(asked(plan_of(*overrides), inputs, weights, answers, block_size))


@pytest.mark.parametrize(
    "override",
    [
        "train.temperature=0.7",
        "train.top_p=0.9",
        "train.top_k=5",
        "train.min_p=0.1",
        "train.repetition_penalty=1.1",
        "preset.max_completion_length=32",
        "preset.max_seq_length=120",
        "preset.num_generations=8",
        "preset.num_threads=2",
        "eval.reward=integer",
        "seed=2",
    ],
)
def test_the_key_has_what_changes_a_pass_rate(override):
    assert key(override) != key()


@pytest.mark.parametrize("name", ["the chat template", "the code of reward `correctness`"])
def test_the_key_has_the_template_and_the_code_of_the_reward(name):
    assert key(inputs=INPUTS | {name: "other"}) != key()
    assert key(weights="commit b") != key() != key(answers=("1", "x"))
    assert key(block_size=8) != key()


@pytest.mark.parametrize(
    "override",
    [
        "train.learning_rate=1e-4",
        "train.max_steps=3",
        "preset.prompts_per_step=8",
        "preset.lora_rank=16",
        "data.keep=[0.2,0.8]",
        "eval.samples=4",
        "rewards.integer=1.0",
    ],
)
def test_the_key_has_nothing_else(override):
    assert key(override) == key()
    assert key(inputs=INPUTS | {"the data": "other"}) == key()


def test_weights_are_told_apart_by_content_or_commit(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"one")
    cold = plan_of()
    first = weights_of(cold, base, None)
    assert first is not None and first.startswith("sha256 ")
    copy = tmp_path / "copy"
    base.rename(copy)
    assert weights_of(cold, copy, "ignored") == first
    (copy / "model.safetensors").write_bytes(b"two")
    assert weights_of(cold, copy, None) != first
    changed = {"model": cold.recipe.model.model_copy(update={"name": "some/model"})}
    recipe = cold.recipe.model_copy(update=changed | {"cold_start": None})
    from_hub = cold.model_copy(update={"recipe": recipe, "base_dir": tmp_path})
    assert weights_of(from_hub, tmp_path / "none", "a" * 40) == f"commit {'a' * 40}"
    assert weights_of(from_hub, tmp_path / "none", None) is None
    (tmp_path / "some").mkdir()
    copy.rename(tmp_path / "some" / "model")
    local = weights_of(from_hub, tmp_path / "none", None)
    assert local is not None and local.startswith("sha256 ")
