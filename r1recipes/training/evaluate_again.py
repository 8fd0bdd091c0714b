"""Evaluate a trained run once more, base against base + adapter: more samples, or other data.

Both models answer the same prompts with the same seed. The result is a folder
`evaluations/<UTC time>` in the run folder, which appears when it is complete: base.jsonl and
trained.jsonl with every answer to every problem, and summary.json. `sample` lets the base of a
recipe answer problems before there is a run. Limits: the record of the run is not changed.
"""

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from r1recipes import data
from r1recipes.data.examples import demonstrations
from r1recipes.data.splits import question_key
from r1recipes.errors import RecipeError
from r1recipes.machine import files, gpu, packages
from r1recipes.machine.settings import Settings
from r1recipes.machine.terminal import Capture
from r1recipes.planning.plan import Plan
from r1recipes.recipe.loading import Loaded
from r1recipes.rewards import answers
from r1recipes.rewards.grading import Completion
from r1recipes.runs import statistics
from r1recipes.runs.record import Run
from r1recipes.runs.trained import TrainedRun, on_this_machine
from r1recipes.training import evaluation
from r1recipes.training.backends.base import Hooks, Messages, Sample
from r1recipes.training.observers import Observer, Observers
from r1recipes.training.prepared import Options, Prepared, prepare


@dataclass(frozen=True)
class Changes:
    """What differs from the evaluation in the run itself; None leaves a value as it was."""

    samples: int | None = None
    """Completions for each problem."""
    size: int | None = None
    """Number of problems."""
    other: Loaded | None = None
    """A recipe that provides the held-out problems and the reward that decides."""


def execute(
    trained: TrainedRun,
    changes: Changes,
    observers: Iterable[Observer],
    settings: Settings,
    options: Options,
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder that was written, and its summary.

    Raises: RecipeError, PlanError, RunError (disk) before a weight is loaded.
    """
    files.check_writable(trained.run.folder)  # now, and not when all has been answered
    watching = Observers(observers)
    plan = _plan(on_this_machine(trained.plan, gpu.current()), trained, changes)
    with ExitStack() as stack:
        stack.enter_context(Capture())
        prepared = prepare(plan, watching, settings, options, stack)
        if changes.other:
            prepared = _without_training_rows(prepared, trained, settings, watching)
        watching.phase("Loading the model")
        revision = prepared.backend.load(
            trained.base,
            trained.adapter,
            quantised=trained.run.quantised(plan.preset.weights),
        )
        items = {
            model: _answers(prepared, watching, model, adapter=model == "trained")
            for model in ("base", "trained")
        }
    summary = _about(trained, changes, revision, prepared) | compare(**items)
    return _write(trained.run, items, summary), summary


def sample(
    plan: Plan,
    num_problems: int,
    observers: Iterable[Observer],
    settings: Settings,
    options: Options,
) -> list[Completion]:
    """Completions of the model that training would begin with, for the first held-out problems,
    sampled as in the evaluation. A cold start is made in a folder that is removed afterwards.

    Raises: RecipeError, PlanError before a weight is loaded.
    """
    watching = Observers(observers)
    with ExitStack() as stack:
        stack.enter_context(Capture())
        prepared = prepare(plan, watching, settings, options, stack)
        hooks = Hooks(on_progress=watching.progress, on_loss=watching.loss)
        base = quantised = None
        if start := plan.recipe.cold_start:
            watching.phase("Cold start")
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            base, quantised = work / "base", work / plan.preset.weights
            count = start.steps * start.batch_size
            held_out, lengths = prepared.splits.held_out, prepared.demonstration_lengths()
            for note in demonstrations.check(plan.recipe, plan.base_dir, held_out, lengths):
                watching.note(note)
            shown = demonstrations.make(
                plan.recipe, plan.base_dir, count, held_out=held_out, lengths=lengths
            )
            prepared.backend.cold_start(shown, base, None, work / "checkpoints", None, hooks)
        watching.phase("Loading the model")
        prepared.backend.load(base, None, quantised=quantised)
        watching.phase("Answering")
        rows = [dict(row) for row in prepared.splits.held_out][:num_problems]
        prompts, samples = [row.pop("prompt") for row in rows], plan.recipe.eval.samples
        groups = prepared.backend.generate(prompts, samples, False, False, hooks)
    return [
        Completion(made.text, prompt, row, f"{place}:{number}", made.cut)
        for place, (row, prompt, group) in enumerate(zip(rows, prompts, groups, strict=True), 1)
        for number, made in enumerate(group, 1)
    ]


def _plan(plan: Plan, trained: TrainedRun, changes: Changes) -> Plan:
    """The run's plan with the data, the size and the number of samples that were asked for."""
    recipe, base_dir = plan.recipe, plan.base_dir
    update: dict[str, Any] = {"stage": []}  # nothing is trained
    if changes.other:
        other, folder = changes.other.recipe, plan.base_dir / recipe.model.name
        base_dir = changes.other.path.parent.absolute()
        update = {"data": other.data, "rewards": {other.eval.reward: 1.0}}
        update["eval"] = recipe.eval.model_copy(update={"reward": other.eval.reward})
        update["judge"] = other.judge if other.eval.reward == "judge" else None
        if folder.is_dir():  # a relative name would be looked up in the other recipe's folder
            name = str(folder.absolute())
            update["model"] = recipe.model.model_copy(update={"name": name})
        if recipe.cold_start and recipe.cold_start.data:  # its hash is an input of the run
            shown = str((plan.base_dir / recipe.cold_start.data).absolute())
            update["cold_start"] = recipe.cold_start.model_copy(update={"data": shown})
    model = update.get("model", recipe.model)
    update["model"] = model.model_copy(update={"chat_template": trained.chat_template()})
    if changes.size:
        update["data"] = update.get("data", recipe.data).model_copy(
            update={"eval_size": changes.size}
        )
    if changes.samples:
        update["eval"] = update.get("eval", recipe.eval).model_copy(
            update={"samples": changes.samples}
        )
    # Data that are only evaluated on may have few training rows.
    preset = plan.preset.model_copy(update={"prompts_per_step": 1})
    changed = recipe.model_copy(update=update)
    own = {"recipe": changed, "base_dir": base_dir, "preset": preset, "earlier": ()}
    return plan.model_copy(update=own)


def _without_training_rows(
    prepared: Prepared, trained: TrainedRun, settings: Settings, observer: Observer
) -> Prepared:
    """Leave out problems that the run was trained on. Raises: RecipeError when none remains."""
    plan = trained.plan
    seen = data.load(plan.recipe, plan.base_dir, offline=settings.offline).train["question"]
    keys = {question_key(question) for question in seen}
    rows = prepared.splits.held_out
    fresh = [i for i, text in enumerate(rows["question"]) if question_key(text) not in keys]
    if len(fresh) == len(rows):
        return prepared
    if not fresh:
        raise RecipeError("the run was trained on every one of these problems")
    observer.note(f"{len(rows) - len(fresh)} problems left out: the run was trained on them")
    splits = replace(prepared.splits, held_out=rows.select(fresh, keep_in_memory=True))
    return replace(prepared, splits=splits)


def _answers(
    prepared: Prepared, observer: Observer, model: str, *, adapter: bool
) -> list[dict[str, Any]]:
    observer.phase(f"Evaluation of {'base and adapter' if adapter else 'the base'}")
    rows = list(prepared.splits.held_out)

    def generate(prompts: list[Messages], n: int, greedy: bool) -> list[list[Sample]]:
        before = len(prompts) * greedy
        hooks = Hooks(on_progress=lambda done, total: observer.progress(before + done, 2 * total))
        return prepared.backend.generate(prompts, n, greedy, adapter, hooks)

    samples = prepared.plan.recipe.eval.samples
    items = evaluation.evaluate(rows, samples, generate, prepared.decisive)
    observer.evaluated(model, statistics.summary(items))
    return items


def compare(base: list[dict[str, Any]], trained: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of the answers of both models to the same problems, and of their difference."""
    comparison: dict[str, Any] = {
        model: statistics.summary(items)
        | {
            "pass_at": statistics.pass_at_k(items),
            "majority": statistics.majority(items, _label),
        }
        for model, items in {"base": base, "trained": trained}.items()
    }
    comparison["difference"] = statistics.difference(base, trained)
    comparison["mcnemar"] = statistics.mcnemar(base, trained)
    return comparison


def _label(completion: str) -> str | None:
    """The final answer in one spelling, so that 1,000 and 1000 are the same vote."""
    answer = answers.extract_answer(completion)
    if not answer:
        return None
    number = answers.parse_number(answer)
    return str(number) if number is not None else " ".join(answer.casefold().split())


def _about(
    trained: TrainedRun, changes: Changes, revision: str | None, prepared: Prepared
) -> dict[str, Any]:
    recipe = prepared.plan.recipe
    return {
        "format": 1,
        "run": trained.run.folder.name,
        "step": trained.step,
        "max_steps": trained.plan.recipe.train.max_steps,
        "recipe": changes.other.name if changes.other else trained.run.read()["recipe"],
        "data": recipe.data.name,
        "data_revision": prepared.splits.revision,
        "model_revision": revision,
        "reward": recipe.eval.reward,
        "seed": recipe.seed,
        "temperature": recipe.train.temperature,
        "versions": packages.versions(),
        "finished": files.now(),
    }


def _write(run: Run, items: dict[str, list[dict[str, Any]]], summary: dict[str, Any]) -> Path:
    parent = run.evaluations
    files.clear_drafts(parent, ".draft-*")
    folder = files.free_name(parent, files.stamp())
    with files.draft(folder) as draft:
        draft.mkdir()
        for model, rows in items.items():
            files.write_lines(draft / f"{model}.jsonl", rows)
        files.write_json(draft / "summary.json", summary)
    return folder
