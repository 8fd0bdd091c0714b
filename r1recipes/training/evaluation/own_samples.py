"""Examples from the model itself: each training problem is sampled before training, and scored.

The samples are written into the run folder block by block, and an algorithm chooses its examples
from that file each time, so that a resume trains on the same ones, and a kill while sampling loses
one block. Limits: samples are those of the model that training begins with, and are not made anew
while it learns; cut ones are left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1recipes.algorithms.examples import Scored
from r1recipes.data.examples import Row, fitting, learned
from r1recipes.errors import RunError
from r1recipes.machine import files
from r1recipes.planning.plan import Plan
from r1recipes.rewards import is_right
from r1recipes.training.backends.base import Hooks, Sample
from r1recipes.training.evaluation.pass_rates import shifted, shuffled
from r1recipes.training.evaluation.scoring import reward_arguments
from r1recipes.training.prepared import Prepared
from r1recipes.training.warm import evaluation_key

Note = Callable[[str], None]


def are_needed(plan: Plan) -> bool:
    """Whether a plan learns from samples of the model itself that are made before training."""
    return plan.algorithm.learned is not None and plan.recipe.examples is None


def sample(
    path: Path, prepared: Prepared, hooks: Hooks, note: Note, *, adapter: bool = False
) -> None:
    """Sample blocks of problems into a file until there are examples for all steps, or no more
    problems; from the base alone, or with the `adapter` that is loaded.

    Goes on after the last whole block of an earlier attempt. Raises: OSError.
    """
    plan, rows = prepared.plan, prepared.splits.train
    size, needed = prepared.backend.block_size(), _num_needed(plan)
    order = shuffled(len(rows), plan.recipe.seed)
    sampled = files.read_lines(path)
    whole = len(sampled) if len(sampled) == len(order) else len(sampled) // size * size
    if whole < len(sampled):
        files.write_lines(path, sampled[:whole])
    sampled = sampled[:whole]
    count = plan.preset.num_generations
    form = learned(plan.recipe)
    note(
        f"each problem is sampled {count} times, until there are {form.example(needed)} or all "
        f"{len(order):,} problems are sampled"
    )
    have = len(_examples(sampled, plan))
    while len(sampled) < len(order) and have < needed:
        places = order[len(sampled) : len(sampled) + size]
        total = min(len(order), _expected(len(sampled), have, needed, len(order)))
        progress = shifted(hooks.on_progress, len(sampled), max(total, size))
        within = replace(hooks, on_progress=progress)
        block = [dict(rows[place]) for place in places]
        prompts = [row["prompt"] for row in block]
        groups = prepared.backend.generate(prompts, count, False, adapter, within)
        lines = _scored(places, block, groups, prepared)
        files.append_line(path, *lines)
        sampled += lines
        have += len(_examples(lines, plan))


def _num_needed(plan: Plan) -> int:
    return plan.recipe.train.max_steps * plan.preset.prompts_per_step


def _expected(num_sampled: int, num_examples: int, needed: int, num_problems: int) -> int:
    """Problems that will be sampled in the end, by those that gave examples so far."""
    return -(-num_sampled * needed // num_examples) if num_examples else num_problems


def _scored(
    places: Sequence[int], rows: Sequence[Row], groups: list[list[Sample]], prepared: Prepared
) -> list[Row]:
    """A line for each problem: its place in the data, and its samples with what they are paid."""
    arguments = reward_arguments(rows, [[sample.text for sample in group] for group in groups])
    right = [is_right(value) for value in prepared.decisive(**arguments)]
    totals = [0.0] * len(right)
    weights = prepared.plan.recipe.rewards if learned(prepared.plan.recipe).by_rewards else {}
    for name, weight in weights.items():
        paid = prepared.rewards[name](**arguments)
        totals = [t + weight * (value or 0.0) for t, value in zip(totals, paid, strict=True)]
    scores = iter(zip(totals, right, strict=True))
    lines: list[Row] = []
    for place, row, group in zip(places, rows, groups, strict=True):
        samples = []
        for one in group:
            total, is_one_right = next(scores)
            samples.append(
                {"text": one.text, "cut": one.cut, "total": total, "right": is_one_right}
            )
        lines.append({"row": place, "question": row["question"], "samples": samples})
    return lines


def _examples(sampled: Sequence[Row], plan: Plan) -> list[Row]:
    """The examples that the algorithm chooses from the lines of the file, in their order."""
    form = learned(plan.recipe)
    return [
        {"question": line["question"]} | example
        for line in sampled
        for example in form.choose(
            [Scored(s["text"], s["total"], s["right"]) for s in line["samples"] if not s["cut"]]
        )
    ]


def apply(path: Path, prepared: Prepared, note: Note, write_down: Callable[..., None]) -> Prepared:
    """The same with the examples of the sampled file, those of the steps of the run at most;
    `write_down` takes the `own_samples` of the record.

    Raises: RunError (reward) when they do not fill one step; RecipeError, see `fitting`.
    """
    plan, sampled = prepared.plan, files.read_lines(path)
    examples = _examples(sampled, plan)
    form, needed = learned(plan.recipe), plan.preset.prompts_per_step
    samples = [sample for line in sampled for sample in line["samples"]]
    summary = {
        "num_problems": len(sampled),
        "num_samples": plan.preset.num_generations,
        "num_examples": len(examples),
        "num_cut": sum(sample["cut"] for sample in samples),
        "share_right": sum(sample["right"] for sample in samples) / max(1, len(samples)),
    }
    write_down(own_samples=summary)
    if len(examples) < needed:
        raise RunError(
            f"{form.example(len(examples))} from {len(sampled):,} problems do not fill a step of "
            f"{needed} (`prompts_per_step`): {plan.algorithm.title} learns from {form.teaches}",
            kind="reward",
            hint="raise `num_generations`, take easier problems or a stronger model, or name "
            "examples of your own in [examples]",
        )
    note(sentence(summary, form.noun))
    chosen, notes = fitting(
        examples[: _num_needed(plan)], plan.recipe, prepared.backend.tokenizer(), plan.preset
    )
    for line in notes:
        note(line)
    return replace(prepared, examples=chosen)


def sentence(summary: dict[str, Any], noun: str) -> str:
    """What the record says of own samples, in words."""
    cut = f", {summary['num_cut']:,} were cut" if summary["num_cut"] else ""
    return (
        f"{summary['num_examples']:,} {noun}s from {summary['num_problems']:,} problems x "
        f"{summary['num_samples']} samples, of which {summary['share_right']:.0%} are right{cut}"
    )


def key(plan: Plan) -> str:
    """Everything that the samples depend on, apart from what is read."""
    recipe = plan.recipe
    parts: list[Any] = [evaluation_key(plan), recipe.rewards, recipe.data.keep, recipe.algorithm]
    parts += [plan.preset.num_generations, _num_needed(plan)]
    return json.dumps(parts, sort_keys=True)
