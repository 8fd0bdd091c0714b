"""Evaluate a trained run once more, base against base + adapter: more samples, or other data.

Both answer the same prompts with the same seed. The result is a folder `evaluations/<UTC time>` in
the run, which appears when it is complete: base.jsonl and trained.jsonl with every answer to every
problem, and summary.json. The record of the run stays as it is.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1recipes import data, runs
from r1recipes.data.splits import question_key
from r1recipes.errors import RecipeError
from r1recipes.machine import files, gpu, packages
from r1recipes.machine.settings import Settings
from r1recipes.machine.terminal import Capture
from r1recipes.planning.plan import Plan
from r1recipes.recipe.loading import Loaded
from r1recipes.rewards import answers
from r1recipes.runs import statistics
from r1recipes.runs.trained import Finished, on_this_machine
from r1recipes.training import evaluation
from r1recipes.training.backends.base import Hooks
from r1recipes.training.run import prepare
from r1recipes.training.stages import Options, Prepared
from r1recipes.training.view import View


@dataclass(frozen=True)
class Wanted:
    """What differs from the evaluation that the run had; None leaves it as it was."""

    samples: int | None = None
    size: int | None = None
    other: Loaded | None = None
    """A recipe whose held-out problems are taken, with the reward that decides there."""


def execute(
    finished: Finished, wanted: Wanted, view: View, settings: Settings, options: Options
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder that was written, and its summary.

    Raises: RecipeError, PlanError before a weight is loaded.
    """
    plan = _plan(on_this_machine(finished.plan, gpu.current()), finished, wanted)
    with ExitStack() as stack:
        stack.enter_context(Capture())
        prepared = prepare(plan, view, settings, options, stack)
        if wanted.other:
            prepared = _without_training_rows(prepared, finished, settings, view)
        view.phase("Loading the model")
        revision = prepared.backend.load(finished.base, finished.run.adapter)
        stack.callback(prepared.backend.close)
        base = _answers(prepared, plan, view, "base", adapter=False)
        trained = _answers(prepared, plan, view, "trained", adapter=True)
    summary = _about(finished, plan, wanted, revision, prepared) | compare(base, trained)
    return _write(finished.run, base, trained, summary), summary


def _plan(plan: Plan, finished: Finished, wanted: Wanted) -> Plan:
    """The run's plan with the data, the size and the number of samples that are wanted."""
    recipe, base_dir = plan.recipe, plan.base_dir
    update: dict[str, Any] = {}
    if wanted.other:
        other, folder = wanted.other.recipe, plan.base_dir / recipe.model.name
        base_dir = wanted.other.path.parent.absolute()
        update = {"data": other.data, "rewards": {other.eval.reward: 1.0}}
        update["eval"] = recipe.eval.model_copy(update={"reward": other.eval.reward})
        if folder.is_dir():  # or it would be meant from the other recipe's folder
            name = str(folder.absolute())
            update["model"] = recipe.model.model_copy(update={"name": name})
    model = update.get("model", recipe.model)
    update["model"] = model.model_copy(update={"chat_template": finished.chat_template()})
    if wanted.size:
        update["data"] = update.get("data", recipe.data).model_copy(
            update={"eval_size": wanted.size}
        )
    if wanted.samples:
        update["eval"] = update.get("eval", recipe.eval).model_copy(
            update={"samples": wanted.samples}
        )
    # Few training rows are no fault of data that is only evaluated on.
    preset = plan.preset.model_copy(update={"prompts_per_step": 1})
    changed = recipe.model_copy(update=update)
    return plan.model_copy(update={"recipe": changed, "base_dir": base_dir, "preset": preset})


def _without_training_rows(
    prepared: Prepared, finished: Finished, settings: Settings, view: View
) -> Prepared:
    """Leave out problems that the run was trained on. Raises: RecipeError when none is left."""
    plan = finished.plan
    seen = data.load(plan.recipe, plan.base_dir, offline=settings.offline).train["question"]
    keys = {question_key(question) for question in seen}
    rows = prepared.splits.held_out
    kept = [i for i, text in enumerate(rows["question"]) if question_key(text) not in keys]
    if len(kept) == len(rows):
        return prepared
    if not kept:
        raise RecipeError("the run was trained on every one of these problems")
    view.note(f"{len(rows) - len(kept)} problems left out: the run was trained on them")
    splits = replace(prepared.splits, held_out=rows.select(kept, keep_in_memory=True))
    return replace(prepared, splits=splits)


def _answers(
    prepared: Prepared, plan: Plan, view: View, who: str, *, adapter: bool
) -> list[dict[str, Any]]:
    view.phase(f"Evaluation of {'base and adapter' if adapter else 'the base'}")
    rows = list(prepared.splits.held_out)

    def generate(prompts: list, n: int, greedy: bool) -> list:
        before = len(prompts) * greedy
        hooks = Hooks(
            on_progress=lambda done, total: view.progress(before + done, 2 * total),
            on_step=lambda row, samples: None,
            on_checkpoint=lambda path: None,
            should_stop=lambda: False,
        )
        return prepared.backend.generate(prompts, n, greedy, adapter, hooks)

    items = evaluation.evaluate(rows, plan.recipe.eval.samples, generate, prepared.decisive)
    view.evaluated(who, statistics.summary(items))
    return items


def compare(base: list[dict[str, Any]], trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that is said about two sets of answers to the same problems."""
    found: dict[str, Any] = {}
    for who, items in {"base": base, "trained": trained}.items():
        found[who] = statistics.summary(items) | {
            "pass_at": statistics.pass_at_k(items),
            "majority": statistics.majority(items, _label),
        }
    found["difference"] = statistics.difference(base, trained)
    found["mcnemar"] = statistics.mcnemar(base, trained)
    return found


def _label(completion: str) -> str | None:
    """The final answer, written in one way: 1,000 and 1000 are one vote."""
    answer = answers.extract_answer(completion)
    if not answer:
        return None
    number = answers.parse_number(answer)
    return str(number) if number is not None else " ".join(answer.casefold().split())


def _about(
    finished: Finished, plan: Plan, wanted: Wanted, revision: str | None, prepared: Prepared
) -> dict[str, Any]:
    recipe = plan.recipe
    return {
        "format": 1,
        "run": finished.run.folder.name,
        "recipe": wanted.other.name if wanted.other else finished.run.read()["recipe"],
        "data": recipe.data.name,
        "data_revision": prepared.splits.revision,
        "model_revision": revision,
        "reward": recipe.eval.reward,
        "seed": recipe.seed,
        "temperature": recipe.train.temperature,
        "versions": packages.versions(),
        "finished": files.now(),
    }


def _write(run: runs.Run, base: list, trained: list, summary: dict[str, Any]) -> Path:
    parent = run.folder / "evaluations"
    files.clear_drafts(parent, ".draft-*")
    folder = files.free_name(parent, files.stamp())
    with files.draft(folder) as draft:
        draft.mkdir()
        for who, items in {"base": base, "trained": trained}.items():
            lines = [json.dumps(item, ensure_ascii=False) + "\n" for item in items]
            files.write_text(draft / f"{who}.jsonl", "".join(lines))
        files.write_json(draft / "summary.json", summary)
    return folder
