"""The cases that are to be rehearsed on a GPU: each is planned as `rehearse` plans it, and has the
peak that was predicted before anything was measured."""

from pathlib import Path
from typing import Any

import pytest
import tomli

from benchmarks.memory import rehearse
from r1recipes import planning, recipe
from r1recipes.cli import parser
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import models
from r1recipes.training.rehearsal import child

FILE = Path(__file__).parents[2] / "benchmarks" / "memory" / "families.toml"
CASES: list[dict[str, Any]] = tomli.loads(FILE.read_text())["case"]
H100_GIB = 78
"""What a process can have of an H100 80GB."""


def planned(case: dict[str, Any]) -> planning.Plan:
    """The plan of a case, from the command line that it is run with."""
    line = rehearse.command(case, Path("proofs"))
    args = parser().parse_args(line[line.index("rehearse") :])
    loaded, size = recipe.load(args.recipe, args.overrides), round(float(args.vram) * GIB)
    target = planning.Target.elsewhere(Gpu(0, "NVIDIA H100 80GB HBM3", size, size, 9.0, ""))
    return planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset=args.preset)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_case_is_planned_with_the_peak_that_was_predicted(case):
    plan = planned(case)
    assert plan.backend == "unsloth" and plan.predicted is not None
    assert plan.predicted.verdict != "does not fit"
    assert plan.predicted.peak_bytes / GIB == pytest.approx(case["predicted"], abs=0.02)
    assert case["vram"] <= H100_GIB and case["steps"] == 2
    shape = child.checkpoint_of(plan).shape
    assert models.weights_bytes(shape, plan.preset.weights) < case["vram"] * GIB


def test_the_first_four_are_done_in_nine_minutes_on_two_cards():
    """As the queue hands them out: each card takes the next case that would end in time."""
    free, waiting, done = [530.0, 530.0], list(CASES), []
    while waiting:
        card = free.index(max(free))
        case = next((c for c in waiting if c["seconds"] < free[card]), None)
        if case is None:
            break
        waiting.remove(case)
        free[card] -= case["seconds"]
        done.append(case["name"])
    assert done[:4] == [case["name"] for case in CASES[:4]] and len(done) == 4
    assert len({case["name"] for case in CASES}) == len(CASES)


def test_every_preset_that_nobody_has_measured_has_a_case():
    """Those for a class of cards that a process on an H100 can stand for."""
    cases = {(case["recipe"], case["preset"]) for case in CASES}
    for path in recipe.shipped():
        loaded = recipe.load(path)
        if loaded.recipe.data.name != "openai/gsm8k" or list(
            path.parent.glob(f"proofs/{path.stem}.*")
        ):
            continue
        for name in loaded.recipe.preset:
            assert (path.stem, name) in cases or name == "80GB", (path.stem, name)
