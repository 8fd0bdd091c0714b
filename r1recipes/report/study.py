"""The page of a study: history, importance, each key against the result, and every trial.

Reads trials only. Importance is Optuna's PED-ANOVA: how much a key decides over reaching the best
trials, which needs some ten trials to say anything.
"""

import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from r1recipes.machine import files
from r1recipes.machine.units import aligned, gib
from r1recipes.report import facts, page
from r1recipes.report.charts import Axis, Bar, Bars, Chart, Line, Parallel, Plot, Series
from r1recipes.report.page import Cell, Headline, Link, Pill, Table
from r1recipes.runs.record import Run
from r1recipes.study import leaderboard, results
from r1recipes.study.leaderboard import cells_of, short, show_param, show_value
from r1recipes.study.schema import Range
from r1recipes.study.trials import Trials, is_finished

MIN_TRIALS, FEW_TRIALS = 4, 10
"""Complete trials below which importance is not computed, and is called a guess; assumed, after
what the module says."""
MAX_LINES = 300
"""Trials in the parallel coordinates, the best ones; more are no longer told apart."""


@dataclass(frozen=True)
class Search:
    """What the page shows of one searched cell."""

    title: str
    charts: Sequence[Chart]
    slices: Sequence[Chart]
    parallel: Parallel


def html(
    cells: list[Trials], folder: Path | None = None, render: Callable[..., str] = page.render
) -> str:
    """The page of all cells of a study. `folder`: where the page will be, with the runs of the
    trials in it or near it, whose reports it leads to. `render` makes it of a template and names.
    """
    best = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    return render(
        "study.html",
        title=cells[0].cell.study,
        kicker="r1recipes study",
        verdict=_verdict(cells, best),
        matrix=_matrix(cells) if cells[0].cell.axes else None,
        searches=[_search(trials) for trials, _ in best if trials.cell.search],
        trials=_trials(cells, folder),
        now=facts.utc(files.now()),
    )


def _verdict(cells: list[Trials], best: list[tuple[Trials, FrozenTrial]]) -> Headline:
    if not best:
        failures = _sentences(leaderboard.failures(cells))
        return Headline("No trial is complete", failures, is_sentence=True)
    trials, trial = results.best_of(best)
    metric = trials.cell.settings.metrics[0]
    num_complete = sum(t.state == TrialState.COMPLETE for one in cells for t in one.all())
    label = f"Best {metric} of {num_complete} complete trial{'s' * (num_complete != 1)}"
    summary = _sentences(leaderboard.summary(cells, trials, trial))
    return Headline(show_value(trial.values[0], metric), summary, label=label)


def _sentences(lines: Sequence[str]) -> list[str]:
    """Lines for a terminal as sentences: each begins with a capital letter."""
    return [line[:1].upper() + line[1:] for line in lines]


def _matrix(cells: list[Trials]) -> Table:
    metric = cells[0].cell.settings.metrics[0]
    settings = results.matrix_rows(cells)
    keys = list(settings[0].axes)
    rows: list[list[Cell]] = []
    for row in settings:
        interval = " to ".join(show_value(v, metric) for v in row.interval) if row.interval else ""
        mean = "" if row.mean is None else show_value(row.mean, metric)
        remark = Pill("best", "good") if row.is_best else row.remark
        axes = [str(row.axes[key]) for key in keys]
        rows.append([*axes, mean, interval, len(row.values), remark])
    return Table([*short(keys).values(), metric, "95 % over seeds", "seeds", "remark"], rows)


def _search(trials: Trials) -> Search:
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    return Search(
        trials.cell.name or "Search",
        [
            *_front(trials, complete),
            *_history(trials, complete),
            *_importance(trials, complete),
            *_memory(trials, complete),
        ],
        [_slice(trials, complete, key) for key in trials.cell.search],
        parallel(trials, complete),
    )


def _history(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    cell = trials.cell
    charts: list[Chart] = []
    for index, metric in enumerate(cell.settings.metrics):
        numbers = [float(t.number) for t in complete]
        values = [t.values[index] for t in complete]
        better = max if cell.settings.directions[index] == "maximize" else min
        best = [better(values[: number + 1]) for number in range(len(values))]
        series = [
            Series("trial", numbers, values, points=True, labels=[f"trial {n:g}" for n in numbers]),
            Series("best so far", numbers, best),
        ]
        key, title = f"history-{index}", f"History of {metric}"
        charts.append(Plot(key, title, series, x_label="trial", unit=_unit(metric)))
    return charts


def _front(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    """With several metrics, the second against the first; the front has a colour of its own."""
    on_front = leaderboard.front(trials)
    if not on_front:
        return []
    first, second, *_ = trials.cell.settings.metrics
    front = [t for t in complete if t.number in on_front]
    beaten = [t for t in complete if t.number not in on_front]
    series = [
        _points("front", front, lambda t: t.values[0], lambda t: t.values[1]),
        _points("beaten", beaten, lambda t: t.values[0], lambda t: t.values[1]),
    ]
    title, unit, x_unit = f"{second} against {first}", _unit(second), _unit(first)
    return [Plot("front", title, series, x_label=first, unit=unit, x_unit=x_unit)]


def _memory(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    """The result against the predicted memory; a proposal that does not fit has no result."""
    predicted = [t for t in complete if "predicted" in t.user_attrs]
    if not predicted:
        return []
    room = gib(min(t.user_attrs["predicted"]["available_bytes"] for t in predicted))
    refused = sum("infeasible" in t.user_attrs for t in trials.all())
    points = _points(
        "trial",
        predicted,
        lambda t: t.user_attrs["predicted"]["peak_bytes"],
        lambda t: t.values[0],
    )
    return [
        Plot(
            "memory",
            "Memory",
            [points],
            f"There are {room} GiB; proposals that do not fit were not started: {refused}.",
            x_label="predicted peak",
            unit=_unit(trials.cell.settings.metrics[0]),
            x_unit="bytes",
        )
    ]


def _points(
    name: str,
    trials: Sequence[FrozenTrial],
    x: Callable[[FrozenTrial], float],
    y: Callable[[FrozenTrial], float],
) -> Series:
    labels = [f"trial {t.number}" for t in trials]
    return Series(name, [*map(x, trials)], [*map(y, trials)], points=True, labels=labels)


def _unit(metric: str) -> str:
    return "" if metric.endswith("length") else "%"


def importance(trials: Trials) -> dict[str, float]:
    """Key -> its share in reaching the best trials; empty while too few are complete."""
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    varied = [k for k in trials.cell.search if len({str(t.params.get(k)) for t in complete}) > 1]
    if len(complete) < MIN_TRIALS or not varied or len({tuple(t.values) for t in complete}) < 2:
        return {}
    target = None
    if len(trials.cell.settings.metrics) > 1:  # Optuna then takes low values for good ones
        sign = -1 if trials.study.directions[0] == StudyDirection.MAXIMIZE else 1
        target = lambda trial: sign * trial.values[0]  # noqa: E731
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*low `target` values.*")
        return optuna.importance.get_param_importances(trials.study, params=varied, target=target)


def _importance(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    names = short(list(trials.cell.search))
    bars = [Bar(names[key], value) for key, value in importance(trials).items()]
    note = f"PED-ANOVA over {len(complete)} complete trials."
    if len(complete) < FEW_TRIALS:
        note = f"Only {len(complete)} complete trials, so this is a guess: PED-ANOVA needs some "
        note += f"{FEW_TRIALS}."
    return [Bars("importance", "Importance", bars, note=note, unit="%")] if bars else []


def _slice(trials: Trials, complete: Sequence[FrozenTrial], key: str) -> Chart:
    """The first metric against one key; choices as the mean, and the worst and the best."""
    searched, metric = trials.cell.search[key], trials.cell.settings.metrics[0]
    title, name = short(list(trials.cell.search))[key], f"slice-{key}"
    with_key = [trial for trial in complete if key in trial.params]
    if searched.choices is not None:
        bars = []
        for choice in searched.choices:
            values = [t.values[0] for t in with_key if t.params[key] == choice]
            if values:
                low, high = min(values), max(values)
                bars.append(Bar(show_param(choice), statistics.fmean(values), low, high))
        note = "Mean; the line goes from the worst to the best trial."
        return Bars(name, title, bars, note=note, unit=_unit(metric))
    points = _points("trial", with_key, lambda t: float(t.params[key]), lambda t: t.values[0])
    return Plot(name, title, [points], x_label=key, unit=_unit(metric), x_log=searched.log)


def parallel(trials: Trials, complete: Sequence[FrozenTrial]) -> Parallel:
    """Every complete trial as a line over the searched keys and the result; the best are bold."""
    cell, metric = trials.cell, trials.cell.settings.metrics[0]
    ranked = leaderboard.ranked(complete, trials.study.directions[0])[:MAX_LINES]
    values = [trial.values[0] for trial in ranked]
    low, high = min(values), max(values)
    names = short(list(cell.search))
    axes = [_axis(names[key], searched) for key, searched in cell.search.items()]
    ends = (show_value(low, metric), show_value(high, metric))
    axes.append(Axis(metric.removeprefix("eval/"), ends, low, high))
    lines = [
        Line(
            f"trial {trial.number}",
            [*(trial.params.get(key) for key in cell.search), trial.values[0]],
            is_bold=rank < max(1, len(ranked) // 10),
        )
        for rank, trial in enumerate(ranked)
    ]
    return Parallel("parallel", "Parallel coordinates", axes, lines)


def _axis(name: str, searched: Range) -> Axis:
    if searched.choices is not None:
        labels = show_param(searched.choices[0]), show_param(searched.choices[-1])
        return Axis(name, labels, choices=searched.choices)
    low, high = searched.low, searched.high
    assert low is not None and high is not None, "the schema wants choices, or both ends"
    return Axis(name, (f"{low:g}", f"{high:g}"), low, high, searched.log)


def _trials(cells: list[Trials], folder: Path | None) -> Table:
    """All trials, the best of each cell first. Cells of one study search the same keys."""
    header = ["cell"] if cells[0].cell.name else []
    metrics = [metric.removeprefix("eval/") for metric in cells[0].cell.settings.metrics]
    header += ["trial", *metrics, *short(list(cells[0].cell.search)).values(), "state"]
    has_memory = leaderboard.has_memory(cells)
    header += ["memory", "run"] if has_memory else ["run"]
    rows = []
    for trials in cells:
        for trial in leaderboard.ranked(trials.all(), trials.study.directions[0]):
            memory = [leaderboard.memory(trial)] if has_memory else []
            row = [*cells_of(trials.cell, trial), *memory, _run_of(trial, folder)]
            rows.append([trials.cell.name, *row] if trials.cell.name else row)
    return Table(header, rows)


def _run_of(trial: FrozenTrial, folder: Path | None) -> Cell:
    """The name of a trial's run, which leads to its report where there is one beside the page."""
    path = str(trial.user_attrs.get("run", ""))
    name = path.rpartition("/")[2]
    if not (name and folder):
        return name
    report = Run(folder / name).report
    return Link(name, f"{name}/{report.name}") if report.is_file() else name


def comparison(first: list[Trials], second: list[Trials]) -> str:
    """Two studies side by side, as text: trials, steps, best value and its parameters."""
    rows = [("", first[0].cell.study, second[0].cell.study)]
    left, right = _described(first), _described(second)
    rows += [(name, left.get(name, ""), right.get(name, "")) for name in left | right]
    return "".join(line + "\n" for line in aligned(rows))


def _described(cells: list[Trials]) -> dict[str, str]:
    finished = [t for trials in cells for t in trials.all() if is_finished(t)]
    _, steps_saved, num_steps = leaderboard.saved_by_pruning(cells)
    rows = {"trials": str(len(finished)), "steps run": str(num_steps - steps_saved)}
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        rows[state.name.lower()] = str(sum(t.state == state for t in finished))
    best = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    if best:
        trials, trial = results.best_of(best)
        metric = trials.cell.settings.metrics[0]
        rows[f"best {metric}"] = show_value(trial.values[0], metric)
        rows |= {key: show_param(value) for key, value in trial.params.items()}
    for key, share in (importance(cells[0]) if cells[0].cell.search else {}).items():
        rows[f"importance of {key}"] = f"{share:.0%}"
    return rows
