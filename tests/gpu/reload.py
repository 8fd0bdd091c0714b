"""In a fresh process: answers with base and saved adapter of a run, and compares wrong plans.

python -m tests.gpu.reload RUN RESULT.json
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
    "4-bit": {"load_in_4bit": True},
    "KV cache tokens": {"max_seq_length": 10**9},
}
"""Name of a difference -> changes of the preset that cause it."""
PLANS: dict[str, dict[str, Any]] = {
    "dtype": {"dtype": "float16"},
    "sequences at once": {"max_num_seqs": 7},
}
"""Name of a difference -> changes of the plan that cause it."""


def main(run: runs.Run, result: Path) -> None:
    plan = run.plan()
    prepare_environment(plan, settings.load().cache_dir)
    backend = create(plan, offline=True)
    from r1recipes.training.backends.unsloth.backend import UnslothBackend

    assert isinstance(backend, UnslothBackend)
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
    """Names of the differences of the engine from its plan ("right") and from wrong plans."""
    from r1recipes.training.backends.unsloth.differences import engine_differences

    wrong = {name: plan.model_copy(update=changes) for name, changes in PLANS.items()}
    for name, changes in PRESETS.items():
        preset = plan.preset.model_copy(update=changes)
        wrong[name] = plan.model_copy(update={"preset": preset})
    rows = {name: engine_differences(model, asked) for name, asked in wrong.items()}
    rows["right"], rows["engine"] = engine_differences(model, plan), engine_differences(0, plan)
    return {case: [name for name, *_ in differences] for case, differences in rows.items()}


def published() -> dict[str, str | None]:
    """The 4-bit repositories of the shipped recipes' models, and of two models without one."""
    from r1recipes.training.backends.unsloth.backend import published_in_4bit

    recipes = [recipe.load(path).recipe for path in recipe.shipped()]
    names = [r.model.name for r in recipes if any(p.load_in_4bit for p in r.preset.values())]
    return {
        name: published_in_4bit(name)
        for name in [*names, "nobody/nothing", "allenai/Llama-3.1-Tulu-3-8B"]
    }


def arguments(plan: Plan, folder: Path) -> list[str]:
    """Names of the wrong arguments that Unsloth's GRPOConfig changed or dropped."""
    from trl import GRPOConfig

    from r1recipes.training.backends import trainer
    from r1recipes.training.backends.unsloth.differences import argument_differences

    asked = trainer.arguments(plan, folder)
    del asked["steps_per_generation"]  # given, TRL refuses; without it Unsloth raises the batch
    asked |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 1}
    asked["learnign_rate"] = 1.0
    return [name for name, *_ in argument_differences(asked, GRPOConfig(**asked))]


if __name__ == "__main__":
    main(runs.Run(Path(sys.argv[1])), Path(sys.argv[2]))
