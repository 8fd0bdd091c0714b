"""What was chosen for "auto" is in the lock, and a run with --locked takes it from there."""

import json
import shlex
from dataclasses import replace

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import PlanError, RecipeError
from r1recipes.machine import gpu as machine_gpu
from r1recipes.machine import host
from r1recipes.machine.gpu import Gpu
from r1recipes.planning import auto, plan
from r1recipes.runs import lock, record
from tests.helpers import in_process

GIB = 2**30
CARD = Gpu(0, "NVIDIA L4", round(22.16 * GIB), round(22.16 * GIB), 8.9, "580")
BUSY = replace(CARD, free_bytes=12 * GIB)
"""The same card while others use it."""
ROOMY = replace(CARD, total_bytes=26 * GIB, free_bytes=26 * GIB)
OPENED = [f'preset.{key}="auto"' for key in auto.OPEN]


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(plan, "has_unsloth", lambda: True)
    monkeypatch.setattr(machine_gpu, "current", lambda: CARD)
    return recipe.load("llama3.1-8b", OPENED)


def make(loaded, card, **options):
    here = planning.Target.here(card, 1)
    return planning.make(loaded.recipe, here, base_dir=loaded.path.parent, **options)


def test_the_lock_has_every_value_that_was_chosen(loaded):
    first = make(loaded, CARD)
    locked = lock.Lock.model_validate_json(json.dumps(lock.make(loaded, first)))
    assert locked.chosen.keys() == set(auto.OPEN)
    assert first.preset.model_copy(update=locked.chosen) == first.preset
    closed = recipe.load("llama3.1-8b")
    assert lock.make(closed, make(closed, CARD))["chosen"] == {}


def test_the_command_repeats_the_overrides_with_or_without_their_flag():
    line = lock.command("x.toml", "cpu", ["--set seed=2", "prompt.system='a b'"])
    words = ["r1recipes", "run", "x.toml", "--preset", "cpu", "--set", "seed=2"]
    assert shlex.split(line) == [*words, "--set", "prompt.system='a b'"]
    assert lock.command("x.toml", None, []) == "r1recipes run x.toml"
    line = lock.command("my recipes/x.toml", None, [], ["--allow-code"])
    assert shlex.split(line) == ["r1recipes", "run", "my recipes/x.toml", "--allow-code"]


@pytest.mark.parametrize(
    ("data", "is_foreign", "flags"),
    [
        ({"rewards": {"correctness": 1.0}}, False, []),
        ({"rewards": {"a/mine.py:f": 1.0}}, False, ["--allow-code"]),
        ({"rewards": {}, "stage": [{"rewards": {"mine.py:f": 1.0}}]}, False, ["--allow-code"]),
        ({"rewards": {}, "eval": {"reward": "mine.py:f"}}, False, ["--allow-code"]),
        ({"judge": {"url": "https://judge.example/v1"}}, False, ["--allow-judge"]),
        ({"judge": {"url": "http://127.0.0.1:8080/v1"}}, False, []),
        ({"judge": {"url": "http://127.0.0.1:8080/v1"}}, True, ["--allow-judge"]),
        ({"judge": None, "stage": None, "eval": None}, False, []),
    ],
)
def test_a_command_has_the_permissions_that_its_recipe_needs(data, is_foreign, flags):
    assert lock.permissions(data, is_foreign=is_foreign) == flags


def test_a_card_with_less_room_repeats_what_was_chosen(loaded):
    first = make(loaded, CARD)
    chosen = lock.make(loaded, first)["chosen"]
    assert make(loaded, BUSY).preset != first.preset
    assert make(loaded, ROOMY).preset != first.preset
    again = make(loaded, ROOMY, chosen=chosen)
    assert again.preset == first.preset and again.recipe == first.recipe
    with pytest.raises(PlanError, match="does not fit"):
        make(loaded, BUSY, chosen=chosen)


def test_values_are_only_taken_for_what_is_open(loaded):
    closed = recipe.load("llama3.1-8b")
    assert make(closed, CARD, chosen={"standby": True}).preset == make(closed, CARD).preset
    with pytest.raises(PlanError, match="are not a valid preset"):
        make(loaded, CARD, chosen={"per_device_train_batch_size": 7, "prompts_per_step": 8})


def test_a_lock_that_lacks_or_differs_in_a_choice_is_no_repetition(loaded):
    today = lock.make(loaded, make(loaded, CARD))
    locked = lock.Lock.model_validate_json(json.dumps(today))
    assert lock.differences(locked, today) == []
    old = locked.model_copy(update={"chosen": {}})
    assert len(lock.differences(old, today)) == len(auto.OPEN)
    other = locked.model_copy(update={"chosen": locked.chosen | {"prompts_per_step": 3}})
    (line,) = lock.differences(other, today)
    assert line.startswith("the value chosen for `prompts_per_step`: 3 in the lock, ")


def test_packages_for_a_gpu_count_only_on_one(loaded):
    today = lock.make(loaded, make(loaded, CARD))
    versions = {"torch": "2.13.0"}
    for gpu, lines in (("NVIDIA L4", ["bitsandbytes: absent in the lock, 0.50 here"]), (None, [])):
        then = today | {"machine": {"gpu": gpu}, "versions": versions}
        now = then | {"versions": versions | {"bitsandbytes": "0.50"}}
        assert lock.differences(lock.Lock.model_validate(then), now) == lines


@pytest.mark.parametrize(
    "chosen", [{"standby": "yes"}, {"standby": None}, [1], {f"k{n}": 1 for n in range(9)}]
)
def test_a_lock_of_other_values_is_refused(loaded, chosen):
    today = lock.make(loaded, make(loaded, CARD)) | {"chosen": chosen}
    with pytest.raises(RecipeError, match="is not a valid lock: `chosen"):
        lock.read(json.dumps(today).encode(), "x")


def test_run_locked_takes_the_choices_of_the_run(loaded, tmp_path, monkeypatch):
    """Versions differ, so the run is refused before it loads anything; the choices do not."""
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    run = record.create(loaded, make(loaded, CARD), tmp_path / "first", tmp_path)
    run.update_lock(versions=run.read_lock()["versions"] | {"torch": "1.0"})
    monkeypatch.setattr(machine_gpu, "current", lambda: ROOMY)
    again = ["run", run.folder, "--locked", *(a for key in OPENED for a in ("--set", key))]
    code, _, err = in_process(*again)
    assert code == 2 and "torch: 1.0 in the lock" in err and "chosen" not in err, err
    run.update_lock(chosen={})
    code, _, err = in_process(*again)
    assert code == 2 and "the value chosen for `standby`: absent in the lock" in err


@pytest.mark.parametrize(
    ("then", "now", "lines"),
    [
        ("AMD EPYC, avx512", "AMD EPYC, avx512", []),
        ("AMD EPYC, avx512", "x, avx2", ["the CPU: AMD EPYC, avx512 in the lock, x, avx2 here"]),
        (None, "x, avx2", []),  # the lock of an older version
    ],
)
def test_the_cpu_is_compared_where_it_did_the_arithmetic(loaded, then, now, lines):
    today = lock.make(loaded, make(loaded, CARD)) | {"machine": {"cpu": now, "num_threads": 1}}
    locked = lock.Lock.model_validate(today | {"machine": {"cpu": then, "num_threads": 1}})
    assert lock.differences(locked, today) == lines
    on_gpu = today | {"machine": {"gpu": "NVIDIA L4", "cpu": now}}
    then_on_gpu = on_gpu | {"machine": {"gpu": "NVIDIA L4", "cpu": then}}
    assert lock.differences(lock.Lock.model_validate(then_on_gpu), on_gpu) == []


def test_a_lock_has_the_cpu_and_its_threads(loaded, monkeypatch):
    monkeypatch.setattr(host, "cpu", lambda: "AMD EPYC, avx512")
    machine = lock.make(loaded, make(loaded, CARD))["machine"]
    assert machine["cpu"] == "AMD EPYC, avx512" and machine["num_threads"] == 1
