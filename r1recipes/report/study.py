"""The report of a study: one HTML page with history, importance, slices and every trial.

Reads trials only. Importance is Optuna's PED-ANOVA: how much a key decides over reaching the best
trials, which needs some ten trials to say anything.
"""

import statistics
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from markupsafe import Markup
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from r1recipes.machine.units import gib
from r1recipes.report import page, scales
from r1recipes.report.charts import Bar, Bars, Chart, Plot, Series
from r1recipes.study import leaderboard, results
from r1recipes.study.leaderboard import cells_of, short, show_param, show_value
from r1recipes.study.schema import Range
from r1recipes.study.trials import Trials, is_finished

MIN_TRIALS = 4
"""Complete trials below which importance is not computed."""
MAX_LINES = 300
"""Trials in the parallel coordinates, the best ones; more are no longer told apart."""
WIDTH, HEIGHT, TOP, BOTTOM = 1000, 260, 34, 236
SIDE, MIN_GAP, MAX_NAME = 70, 120, 19
"""Room beside the outer axes and between two, in pixels; characters of a label that fit there."""


def html(cells: list[Trials]) -> str:
    """The page of all cells of a study."""
    found = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    blocks: list[Markup] = []
    if found:
        trials, trial = results.best_of(found)
        metric = trials.cell.settings.metrics[0]
        headline = show_value(trial.values[0], metric)
        blocks.append(page.verdict(headline, *leaderboard.summary(cells, trials, trial)))
    else:
        blocks.append(
            page.verdict("no trial is complete", *leaderboard.failures(cells), words=True)
        )
    if cells[0].cell.axes:
        blocks.append(_matrix(cells))
    blocks += [_cell(trials) for trials, _ in found if trials.cell.search]
    blocks.append(page.section("Trials", _table(cells)))
    return str(page.document(cells[0].cell.study, blocks, kicker="r1recipes study"))


def _matrix(cells: list[Trials]) -> Markup:
    metric = cells[0].cell.settings.metrics[0]
    rows = results.matrix_rows(cells)
    keys = list(rows[0].axes)
    body = []
    for row in rows:
        interval = " to ".join(show_value(v, metric) for v in row.interval) if row.interval else ""
        mean = "" if row.mean is None else show_value(row.mean, metric)
        mark = page.pill("best", "good") if row.is_best else row.remark
        axes = [str(row.axes[key]) for key in keys]
        body.append([*axes, mean, interval, len(row.values), mark])
    header = [*short(keys).values(), metric, "95 % over seeds", "seeds", ""]
    return page.section("Matrix", page.table(header, body))


def _cell(trials: Trials) -> Markup:
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    charts = [*_front(trials, complete), *_history(trials, complete)]
    charts += [*_importance(trials, complete), *_memory(trials, complete)]
    slices = [_slice(trials, complete, key) for key in trials.cell.search]
    lines = parallel(trials, complete)
    return page.section(
        trials.cell.name or "Search",
        page.figures(charts),
        page.heading("Each key against the result"),
        page.figures(slices),
        page.heading("Parallel coordinates") + lines if lines else Markup(""),
    )


def _history(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    cell, drawn = trials.cell, []
    for index, metric in enumerate(cell.settings.metrics):
        numbers = [float(t.number) for t in complete]
        values = [t.values[index] for t in complete]
        better = max if cell.settings.directions[index] == "maximize" else min
        best = [better(values[: place + 1]) for place in range(len(values))]
        series = [
            Series("trial", numbers, values, points=True, labels=[f"trial {n:g}" for n in numbers]),
            Series("best so far", numbers, best),
        ]
        drawn.append(
            Plot(
                f"history-{index}",
                f"History of {metric}",
                series,
                x_label="trial",
                unit=_unit(metric),
            )
        )
    return drawn


def _front(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    """Of several metrics the second against the first; the trials that none beats in all apart."""
    on_front = leaderboard.front(trials)
    if not on_front:
        return []
    first, second, *_ = trials.cell.settings.metrics
    chosen = [t for t in complete if t.number in on_front]
    others = [t for t in complete if t.number not in on_front]
    series = [
        _points("front", chosen, lambda t: t.values[0], lambda t: t.values[1]),
        _points("beaten", others, lambda t: t.values[0], lambda t: t.values[1]),
    ]
    units = {"unit": _unit(second), "x_unit": _unit(first)}
    return [Plot("front", f"{second} against {first}", series, x_label=first, **units)]


def _memory(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    """The result against the memory that was predicted; what did not fit has none."""
    known = [t for t in complete if "predicted" in t.user_attrs]
    if not known:
        return []
    metric = trials.cell.settings.metrics[0]
    room = gib(min(t.user_attrs["predicted"]["available_bytes"] for t in known))
    refused = sum("infeasible" in t.user_attrs for t in trials.all())
    points = _points(
        "trial",
        known,
        lambda t: t.user_attrs["predicted"]["peak_bytes"],
        lambda t: t.values[0],
    )
    note = f"there are {room} GiB; proposals that do not fit were not started: {refused}"
    units = {"unit": _unit(metric), "x_unit": "bytes"}
    return [Plot("memory", "Memory", [points], note=note, x_label="predicted peak", **units)]


def _points(name: str, found: Sequence[FrozenTrial], x: Any, y: Any) -> Series:
    labels = [f"trial {t.number}" for t in found]
    return Series(name, [x(t) for t in found], [y(t) for t in found], points=True, labels=labels)


def _unit(metric: str) -> str:
    return "" if metric.endswith("length") else "%"


def importance(trials: Trials) -> dict[str, float]:
    """Key -> its share in reaching the best trials; empty while too few are complete."""
    complete = [t for t in trials.all() if t.state == TrialState.COMPLETE]
    varied = [k for k in trials.cell.search if len({str(t.params.get(k)) for t in complete}) > 1]
    if len(complete) < MIN_TRIALS or not varied or len({tuple(t.values) for t in complete}) < 2:
        return {}
    target = None
    if len(trials.cell.settings.metrics) > 1:  # then Optuna takes low values for good ones
        sign = -1 if trials.study.directions[0] == StudyDirection.MAXIMIZE else 1
        target = lambda trial: sign * trial.values[0]  # noqa: E731
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*low `target` values.*")
        return optuna.importance.get_param_importances(trials.study, params=varied, target=target)


def _importance(trials: Trials, complete: Sequence[FrozenTrial]) -> list[Chart]:
    names = short(list(trials.cell.search))
    bars = [Bar(names[key], value) for key, value in importance(trials).items()]
    note = f"PED-ANOVA over {len(complete)} complete trials"
    return [Bars("importance", "Importance", bars, note=note, unit="%")] if bars else []


def _slice(trials: Trials, complete: Sequence[FrozenTrial], key: str) -> Chart:
    """The first metric against one key; choices as the mean, and the worst and the best."""
    given, metric = trials.cell.search[key], trials.cell.settings.metrics[0]
    title, name = short(list(trials.cell.search))[key], f"slice-{key}"
    known = [trial for trial in complete if key in trial.params]
    if given.choices is not None:
        bars = []
        for choice in given.choices:
            values = [t.values[0] for t in known if t.params[key] == choice]
            if values:
                spread = (min(values), max(values))
                bars.append(Bar(show_param(choice), statistics.fmean(values), *spread))
        note = "mean; the line goes from the worst to the best trial"
        return Bars(name, title, bars, note=note, unit=_unit(metric))
    x, y = [float(t.params[key]) for t in known], [t.values[0] for t in known]
    labels = [f"trial {t.number}" for t in known]
    series = [Series("trial", x, y, points=True, labels=labels)]
    return Plot(name, title, series, x_label=key, unit=_unit(metric), x_log=given.log)


def parallel(trials: Trials, complete: Sequence[FrozenTrial]) -> Markup:
    """Every complete trial as a line over the searched keys and the result; the best are bold."""
    keys, direction = list(trials.cell.search), trials.study.directions[0]
    drawn = leaderboard.ranked(complete, direction)[:MAX_LINES]
    if len(drawn) < 2:
        return Markup("")
    low, high = min(t.values[0] for t in drawn), max(t.values[0] for t in drawn)
    gap = max(MIN_GAP, (WIDTH - 2 * SIDE) / len(keys))
    width = 2 * SIDE + gap * len(keys)
    metric = trials.cell.settings.metrics[0]
    ends = [_ends(trials.cell.search[key]) for key in keys]
    ends.append((show_value(low, metric), show_value(high, metric)))
    parts = []
    for place, trial in reversed(list(enumerate(drawn))):
        heights = [_share(trial.params.get(k), trials.cell.search[k]) for k in keys]
        heights.append((trial.values[0] - low) / (high - low) if high > low else 0.5)
        points = " ".join(
            f"{SIDE + i * gap:.1f},{BOTTOM - h * (BOTTOM - TOP):.1f}" for i, h in enumerate(heights)
        )
        is_top = place < max(1, len(drawn) // 10)
        stroke = "var(--tone-0, #2a6fdb)" if is_top else "currentColor"
        parts.append(
            Markup(
                '<polyline points="{}" fill="none" stroke="{}" stroke-width="{}" '
                'stroke-opacity="{}"><title>trial {}</title></polyline>'
            ).format(points, stroke, 2 if is_top else 1, 0.9 if is_top else 0.2, trial.number)
        )
    names = [*short(keys).values(), metric.removeprefix("eval/")]
    for index, (name, (bottom, top)) in enumerate(zip(names, ends, strict=True)):
        parts.append(
            Markup(
                '<g transform="translate({:.1f})" font-size="11" fill="currentColor" '
                'text-anchor="middle"><line y1="{}" y2="{}" stroke="currentColor" '
                'stroke-opacity="0.5"/><text y="12">{}</text><text y="26">{}</text>'
                '<text y="252">{}</text></g>'
            ).format(SIDE + index * gap, TOP, BOTTOM, *map(_label, (name, top, bottom)))
        )
    return Markup(
        '<div class="card scroll"><svg xmlns="http://www.w3.org/2000/svg" width="{}" '
        'viewBox="0 0 {} {}" role="img" aria-label="Parallel coordinates">{}</svg></div>'
    ).format(width, width, HEIGHT, Markup("").join(parts))


def _label(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def _ends(given: Range) -> tuple[str, str]:
    if given.choices is not None:
        return show_param(given.choices[0]), show_param(given.choices[-1])
    return f"{given.low:g}", f"{given.high:g}"


def _share(value: Any, given: Range) -> float:
    """Where a value stands between the ends of its range, 0 to 1."""
    if given.choices is not None:
        return (
            given.choices.index(value) / (len(given.choices) - 1) if value in given.choices else 0
        )
    if value is None:
        return 0.0
    return scales.Scale(given.low, given.high, 0.0, 1.0, given.log)(float(value))


_unbroken = Markup('<span style="white-space: nowrap">{}</span>')


def _table(cells: list[Trials]) -> Markup:
    """All trials, the best of each cell first. Cells of one study search the same keys."""
    header = ["cell"] if cells[0].cell.name else []
    metrics = [metric.removeprefix("eval/") for metric in cells[0].cell.settings.metrics]
    header += ["trial", *metrics, *short(list(cells[0].cell.search)).values(), "state"]
    has_memory = leaderboard.has_memory(cells)
    header += ["memory", "run"] if has_memory else ["run"]
    rows = []
    for trials in cells:
        for trial in leaderboard.ranked(trials.all(), trials.study.directions[0]):
            run = _unbroken.format(trial.user_attrs.get("run", "").rpartition("/")[2])
            room = [leaderboard.memory(trial)] if has_memory else []
            row = [*cells_of(trials.cell, trial), *room, run]
            rows.append([trials.cell.name, *row] if trials.cell.name else row)
    return page.table(header, rows)


def comparison(left: list[Trials], right: list[Trials]) -> str:
    """Two studies side by side, as text: trials, steps, best value and its parameters."""
    rows = [("", left[0].cell.study, right[0].cell.study)]
    described = [_described(cells) for cells in (left, right)]
    for name in dict.fromkeys(key for found in described for key in found):
        rows.append((name, *(found.get(name, "") for found in described)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "".join(line.rstrip() + "\n" for line in lines)


def _described(cells: list[Trials]) -> dict[str, str]:
    all_trials = [t for trials in cells for t in trials.all() if is_finished(t)]
    _, left, total = leaderboard.saved_by_pruning(cells)
    found = {"trials": str(len(all_trials)), "steps run": str(total - left)}
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
        found[state.name.lower()] = str(sum(t.state == state for t in all_trials))
    best = [(trials, trial) for trials in cells if (trial := leaderboard.best(trials))]
    if best:
        trials, trial = results.best_of(best)
        metric = trials.cell.settings.metrics[0]
        found[f"best {metric}"] = show_value(trial.values[0], metric)
        found |= {key: show_param(value) for key, value in trial.params.items()}
    for key, value in (importance(cells[0]) if cells[0].cell.search else {}).items():
        found[f"importance of {key}"] = f"{value:.0%}"
    return found
