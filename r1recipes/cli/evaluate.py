"""`eval` and `grade`: evaluate a trained run once more, and try rewards on given completions."""

from __future__ import annotations

import argparse
import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import (
    RUN_HELP,
    check_allowed,
    judged,
    named_run,
    offline_settings,
    overridable,
    printable,
    screen,
    whole_number,
)
from r1recipes.errors import RecipeError
from r1recipes.machine.units import aligned, cut, shortened

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.machine.settings import Settings
    from r1recipes.recipe import Loaded
    from r1recipes.rewards.grading import Completion, Summary
    from r1recipes.runs.grades import Grades
    from r1recipes.runs.trained import TrainedRun


CELL = 24
"""Most characters of an answer in the table of `grade`."""
REASON = 300
"""Most characters of what a judge says of a completion."""
MAX_REASONS = 5
"""Reasons why completions are not right that are printed."""


def add(commands: Commands) -> None:
    evaluate = commands.add_parser(
        "eval",
        help="evaluate a trained run again, with more samples or on other data",
    )
    evaluate.add_argument("run", metavar="RUN", help=RUN_HELP)
    evaluate.add_argument(
        "--samples", type=whole_number, metavar="N", help="completions for each problem"
    )
    evaluate.add_argument("--size", type=whole_number, metavar="N", help="number of problems")
    evaluate.add_argument(
        "--data", metavar="RECIPE", help="use the held-out problems of this recipe"
    )
    evaluate.add_argument("--offline", action="store_true", help="make no request to the Hub")
    evaluate.add_argument(
        "--allow-code", action="store_true", help="run a reward from the recipe's own .py files"
    )
    judged(evaluate)
    evaluate.set_defaults(command=eval_command)

    grade = commands.add_parser(
        "grade",
        help="show what the rewards of a recipe pay for given completions, and why",
    )
    grade.add_argument("recipe", help="as for `run`")
    grade.add_argument(
        "completions",
        nargs="?",
        metavar="COMPLETIONS",
        help="a .jsonl file with `completion` and columns of the data, one of a run, or a run",
    )
    grade.add_argument(
        "--sample",
        type=whole_number,
        metavar="N",
        help="let the model answer the first N held-out problems",
    )
    grade.add_argument("--preset", metavar="NAME", help="with --sample: as for `run`")
    grade.add_argument(
        "--rows", type=whole_number, default=20, metavar="N", help="rows to print (default: 20)"
    )
    grade.add_argument("--json", action="store_true", help="print everything as JSON")
    grade.add_argument("--offline", action="store_true", help="make no request to the Hub")
    grade.add_argument(
        "--allow-code", action="store_true", help="run rewards from the recipe's own .py files"
    )
    judged(grade)
    overridable(grade)
    grade.set_defaults(command=grade_command)


def eval_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.runs import trained
    from r1recipes.training.view import View

    settings = offline_settings(args.offline)
    run = trained.of_run(named_run(settings.runs_dir, args.run))
    other = recipe.load(args.data) if args.data else None
    _check_code(run, other, args, settings)
    console = screen()
    with View(console) as view:
        if run.note:
            view.note(run.note)
        view.phase("Starting")
        from r1recipes.training import evaluate_again
        from r1recipes.training.prepared import Options

        changes = evaluate_again.Changes(samples=args.samples, size=args.size, other=other)
        options = Options(allow_code=args.allow_code, allow_judge=args.allow_judge)
        folder, summary = evaluate_again.execute(run, changes, [view], settings, options)
    for line in table(summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(printable(f"wrote {folder}"), markup=False, highlight=False, soft_wrap=True)
    return 0


def _check_code(
    run: TrainedRun, other: Loaded | None, args: argparse.Namespace, settings: Settings
) -> None:
    """Show which code and judge are allowed, or refuse them at once, as `run` does.

    Raises: RecipeError.
    """
    judging, base_dir = run.plan.recipe, run.plan.base_dir
    is_foreign = bool(run.run.read_lock().get("source"))
    if other:  # only the reward that decides is called
        judging, base_dir = other.recipe.model_copy(update={"rewards": {}}), other.path.parent
        is_foreign = other.source is not None
    check_allowed(judging, base_dir, args, settings, is_foreign=is_foreign)


def table(summary: dict[str, Any]) -> list[str]:
    """The lines of a table: base beside trained model, each share with its 95 % interval."""
    base, trained = summary["base"], summary["trained"]
    rows = [("", "base", "base + adapter")]
    for k, estimate in base["pass_at"].items():
        rows.append((f"pass@{k}", _share(estimate), _share(trained["pass_at"][k])))
    if base["num_samples"] > 1:
        name = f"majority of {base['num_samples']}"
        rows.append((name, _share(base["majority"]), _share(trained["majority"])))
    greedy = [{"mean": s["greedy"], "interval": s["greedy_interval"]} for s in (base, trained)]
    rows.append(("greedy", _share(greedy[0]), _share(greedy[1])))
    rows.append(("tokens", f"{base['mean_length']:.0f}", f"{trained['mean_length']:.0f}"))
    rows.append(("cut", f"{base['share_cut']:.1%}", f"{trained['share_cut']:.1%}"))
    change, pairs = summary["difference"], summary["mcnemar"]
    low, high = change["interval"]
    return [
        f"{base['num_problems']} problems x {base['num_samples']} samples of {summary['data']}",
        *aligned(rows),
        f"difference of pass@1 {change['mean']:+.1%} (95 % {low:+.1%} to {high:+.1%})",
        f"greedy: {pairs['gained']} problems gained, {pairs['lost']} lost, "
        f"McNemar p = {pairs['p']:.2g}",
    ]


def _share(estimate: dict[str, Any]) -> str:
    low, high = estimate["interval"]
    return f"{estimate['mean']:.1%} ({low:.1%} to {high:.1%})"


def grade_command(args: argparse.Namespace) -> int:
    from r1recipes import data, recipe
    from r1recipes.data import local
    from r1recipes.runs import completions, grades

    if (args.completions is None) == (args.sample is None):
        message = "`grade` needs completions, and none are named"
        if args.sample is not None:
            message = "with --sample the model writes the completions, and COMPLETIONS names others"
        raise RecipeError(message, hint="give a .jsonl file or a run, or else `--sample 8`")
    settings = offline_settings(args.offline)
    loaded = recipe.load(args.recipe, args.overrides)
    look = local.look(loaded)
    if look.problems:
        raise RecipeError(problems=look.problems)
    is_foreign = loaded.source is not None
    check_allowed(loaded.recipe, loaded.path.parent, args, settings, is_foreign=is_foreign)
    path = _completions(args.completions, settings) if args.completions else None
    rows = data.load(loaded.recipe, loaded.path.parent, offline=settings.offline)
    if path:
        answers = completions.read(path, loaded.recipe, rows)
    else:
        answers = _sample(args, loaded, settings)
    graded = grades.make(
        loaded,
        rows,
        answers,
        settings,
        allow_code=args.allow_code,
        allow_judge=args.allow_judge,
    )
    warnings = list(dict.fromkeys([*look.warnings, *graded.warnings]))
    if args.json:
        print(json.dumps(graded.as_json() | {"warnings": warnings}, indent=1))
        return 0
    width = shutil.get_terminal_size((120, 24)).columns
    for line in _table_of_rows(graded, args.rows, "line" if path else "problem"):
        print(cut(printable(line), width))
    reasons = _reasons_of_judge(graded, args.rows)
    for line in [*reasons, "", *_table_of_rewards(graded), "", *_results(graded), *graded.trial]:
        print(printable(line))
    for warning in warnings:
        print(printable(f"warning: {warning}"))
    return 0


def _completions(argument: str, settings: Settings) -> Path:
    """The file of completions that an argument names, or that of a run. Raises: RecipeError."""
    from r1recipes.runs import completions

    path = Path(argument)
    if not path.is_file() and path.suffix != ".jsonl":
        argument = str(named_run(settings.runs_dir, argument).folder)
    return completions.source(argument, settings.runs_dir)


def _sample(args: argparse.Namespace, loaded: Loaded, settings: Settings) -> list[Completion]:
    """Let the model answer, with a view of it unless JSON is asked for."""
    from r1recipes.cli.run import make_plan
    from r1recipes.training.view import View

    plan = make_plan(args, loaded, None, settings)
    with ExitStack() as stack:
        views = [] if args.json else [stack.enter_context(View(screen()))]
        for view in views:
            view.phase("Starting")
        from r1recipes.training import evaluate_again
        from r1recipes.training.prepared import Options

        options = Options(allow_code=args.allow_code, allow_judge=args.allow_judge)
        return evaluate_again.sample(plan, args.sample, views, settings, options)


def _table_of_rows(graded: Grades, num_rows: int, place: str) -> list[str]:
    """A line for each of the first completions; `place` is what they are numbered by."""
    names = [summary.name for summary in graded.summaries]
    rows = [(place, "right", "why", *map(_function, names), "answer", "reference")]
    pairs = list(zip(graded.completions, graded.grades, strict=True))
    for completion, grade in pairs[:num_rows]:
        paid = ["failed" if n in grade.failures else _number(grade.paid[n]) for n in names]
        right, why = "yes" if grade.right else "no", shortened(grade.why, 40)
        texts = [grade.answer or "", str(completion.columns["answer"])]
        rows.append((completion.where, right, why, *paid, *(shortened(t, CELL) for t in texts)))
    lines = aligned(rows, range(3, 3 + len(names)))
    if len(pairs) > num_rows:
        lines.append(f"... and {len(pairs) - num_rows:,} more; `--rows N` prints more of them")
    return lines


def _reasons_of_judge(graded: Grades, num_rows: int) -> list[str]:
    """Score and words of the judge for each of the first completions; empty without a judge."""
    pairs = list(zip(graded.completions, graded.grades, strict=True))[:num_rows]
    rows = [(completion.where, shortened(grade.judged, REASON)) for completion, grade in pairs]
    return ["", "what the judge says", *aligned(rows)] if graded.trial else []


def _table_of_rewards(graded: Grades) -> list[str]:
    """A line for each reward: what it pays on average, how often all of it, how often nothing, and
    the rank correlation with the length of the completion."""
    header = ("reward", "weight", "mean", "paid 1", "paid 0", "with length", "")
    return aligned([header, *map(_summary_row, graded.summaries)], range(1, 6))


def _results(graded: Grades) -> list[str]:
    """How many are right, and why the others are not."""
    from r1recipes.rewards import grading

    num, share = len(graded.grades), graded.num_right / len(graded.grades)
    reasons = grading.reasons(graded.grades)
    lines = [
        graded.references,
        f"{graded.num_right:,} of {num:,} completions are right ({share:.0%}), as `eval.reward` "
        f"{graded.decisive} decides{'; the others:' if reasons else ''}",
        *(f"{count:7,}  {why}" for why, count in reasons[:MAX_REASONS]),
    ]
    rest = sum(count for _, count in reasons[MAX_REASONS:])
    return [*lines, f"{rest:7,}  other reasons"] if rest else lines


def _function(name: str) -> str:
    """The name of a reward without that of its file."""
    return name.rpartition(":")[2]


def _summary_row(summary: Summary) -> tuple[str, ...]:
    length = summary.length_correlation
    failed = f"failed on {summary.num_failed}" if summary.num_failed else ""
    return (
        summary.name,
        "-" if summary.weight is None else f"{summary.weight:g}",
        _number(summary.mean),
        f"{summary.share_full:.0%}",
        f"{summary.share_nothing:.0%}",
        "-" if length is None else f"{length:+.2f}",
        failed or summary.verdict,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
