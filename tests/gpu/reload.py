"""In a fresh process: load the base and the saved adapter of a run, and let both answer.

    python -m tests.gpu.reload RUN RESULT.json

Then plans and arguments that the engine does not follow are compared with it. Limits: one NVIDIA
GPU with the extra `gpu`; the result is for tests/gpu/test_gpu.py.
"""

import json
import sys
from pathlib import Path
from typing import Any

from r1recipes import recipe, runs
from r1recipes.machine import files, settings
from r1recipes.planning.plan import Plan
from r1recipes.training.backends import create, prepare_environment
from r1recipes.training.backends.base import Backend, Hooks

PRESETS: dict[str, dict[str, Any]] = {
    "max_seq_length": {"max_seq_length": 64, "max_completion_length": 32},
    "lora_rank": {"lora_rank": 512},
    "load_in": {"load_in_4bit": True},
    "KV cache tokens": {"max_seq_length": 10**9},
}
"""Name of a difference -> changes to the preset that cause it."""
PLANS: dict[str, dict[str, Any]] = {
    "dtype": {"dtype": "float16"},
    "sequences at once": {"max_num_seqs": 7},
}
"""Name of a difference -> changes to the plan that cause it."""


def main(run: runs.Run, result: Path) -> None:
    plan = run.plan()
    prepare_environment(plan, settings.load().cache_dir)
    backend = create(plan, offline=True)
    # Only now: Unsloth must be imported in the environment that was prepared for it.
    from r1recipes.training.backends.unsloth.backend import UnslothBackend

    assert isinstance(backend, UnslothBackend), f"the plan goes through {backend}"
    backend.load(run.base, run.adapter)
    results = {
        "base": greedy(backend, run, adapter=False),
        "adapter": greedy(backend, run, adapter=True),
        "facts": backend.facts(),
        "engine": engine(backend.model, plan),
        "arguments": arguments(plan, result.parent),
        "published": published(),
    }
    result.write_text(json.dumps(results))
    backend.close()


def greedy(backend: Backend, run: runs.Run, *, adapter: bool) -> list[str]:
    """The likeliest answer to each held-out problem."""
    items = files.read_lines(run.evaluation("before"))
    prompts = [[{"role": "user", "content": item["question"]}] for item in items]
    return [group[0].text for group in backend.generate(prompts, 1, True, adapter, Hooks())]


def engine(model: Any, plan: Plan) -> dict[str, list[str]]:
    """Names of the differences between the engine and its own plan, and plans that differ."""
    from r1recipes.training.backends.unsloth.differences import engine_differences

    plans = {name: plan.model_copy(update=changes) for name, changes in PLANS.items()}
    for name, changes in PRESETS.items():
        preset = plan.preset.model_copy(update=changes)
        plans[name] = plan.model_copy(update={"preset": preset})
    by_plan = {name: engine_differences(model, other) for name, other in plans.items()}
    by_plan["right"] = engine_differences(model, plan)
    by_plan["engine"] = engine_differences(0, plan)
    return {name: [what for what, *_ in differences] for name, differences in by_plan.items()}


def published() -> dict[str, str | None]:
    """Repository that is loaded in 4 bits, for shipped recipes and for two models without one."""
    from r1recipes.training.backends.unsloth.backend import published_in_4bit

    recipes = [recipe.load(path).recipe for path in recipe.shipped()]
    names = [
        each.model.name
        for each in recipes
        if any(preset.weights == "4bit" for preset in each.preset.values())
    ]
    return {
        name: published_in_4bit(name)
        for name in [*names, "nobody/nothing", "allenai/Llama-3.1-Tulu-3-8B"]
    }


def arguments(plan: Plan, folder: Path) -> list[str]:
    """Names of the wrong arguments that Unsloth's GRPOConfig changed or dropped."""
    from trl import GRPOConfig

    from r1recipes.training.backends import trainer
    from r1recipes.training.backends.unsloth.differences import argument_differences

    wrong = trainer.arguments(plan, folder)
    del wrong["steps_per_generation"]  # with it TRL refuses; without it Unsloth raises the batch
    wrong |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1}
    wrong["learnign_rate"] = 1.0
    return [name for name, *_ in argument_differences(wrong, GRPOConfig(**wrong))]


if __name__ == "__main__":
    main(runs.Run(Path(sys.argv[1])), Path(sys.argv[2]))
