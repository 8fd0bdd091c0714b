"""The charts of one run, or of several on the same axes, from metrics.jsonl and the record.

The metrics have TRL's names; `accuracy` and `time/..._s` are added in `training.backends`, and
`eval/...` by `training.evaluation`. A chart whose metric no run has is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1recipes.report import phases
from r1recipes.report.charts import GREY, Bar, Bars, Chart, Plot, Series, has_data
from r1recipes.report.charts.scales import Ends
from r1recipes.runs import health
from r1recipes.runs.reading import STAGES, Reading, algorithms

UNWEIGHTED = "Mean of what was paid, before the weight."


@dataclass(frozen=True)
class Curve:
    """One metric over the steps."""

    key: str
    metric: str
    title: str
    note: str
    unit: str = ""
    y_range: Ends = (None, None)
    smooth: bool = True
    if_any: bool = False
    """Draw it only where a step has another value than 0."""


LEARNING = (
    Curve("reward", "reward", "Reward", "Weighted sum of all rewards, mean over the step."),
    Curve(
        "accuracy-in-training",
        "accuracy",
        "Right in training",
        "Share of the step's completions that are right.",
        unit="%",
        y_range=(0, 1),
    ),
)
COMPLETIONS = (
    Curve(
        "spread",
        "reward_std",
        "Spread of the reward",
        "Standard deviation. Only differences are learned from.",
        y_range=(0, None),
    ),
    Curve(
        "groups-without-spread",
        "frac_reward_zero_std",
        "Groups without spread",
        "Prompts whose completions all earned the same teach nothing.",
        unit="%",
        y_range=(0, 1),
    ),
    Curve(
        "length",
        "completions/mean_length",
        "Length of completions",
        "Tokens, mean over the step.",
        y_range=(0, None),
    ),
    Curve(
        "cut",
        "completions/clipped_ratio",
        "Completions that were cut",
        "Share that reached the length limit before its end.",
        unit="%",
        y_range=(0, None),
    ),
)
OPTIMISER = (
    Curve("kl", "kl", "KL divergence", "Distance from the base model.", if_any=True),
    Curve(
        "entropy", "entropy", "Entropy", "How open the model is, nats a token that is trained on."
    ),
    Curve("grad-norm", "grad_norm", "Gradient norm", "Before clipping.", y_range=(0, None)),
    Curve("learning-rate", "learning_rate", "Learning rate", "", smooth=False, y_range=(0, None)),
    Curve(
        "clip-ratio",
        "clip_ratio/region_mean",
        "Clipped ratios",
        "Share of tokens whose probability ratio was clipped.",
        unit="%",
        y_range=(0, None),
        if_any=True,
    ),
    Curve("loss", "loss", "Loss", ""),
)
"""The note on the loss is that of the algorithm."""


def learning(readings: Sequence[Reading]) -> list[Chart]:
    """Charts that show whether a run learns."""
    reward, right = LEARNING
    by_function = [_rewards(readings[0])] if len(readings) == 1 else _reward_of_each(readings)
    plots = [_plot(reward, readings), *by_function, _accuracy(right, readings)]
    return _drawable([*_fitted(readings), *plots])


def _fitted(readings: Sequence[Reading]) -> list[Plot]:
    """How well runs fit their examples, by the metrics that their algorithms name."""
    forms = [row.learned for row in algorithms(readings) if row.learned]
    facts = dict.fromkeys(fact for form in forms for fact in form.facts)
    note = "Mean over the examples of the step."
    curves = [Curve(n.replace(" ", "-"), key, n.capitalize(), note, unit) for key, n, unit in facts]
    return [_plot(curve, readings) for curve in curves]


def completions(readings: Sequence[Reading]) -> list[Chart]:
    """Charts of the completions: how far their rewards differ, and how long they are."""
    plots = [_plot(curve, readings) for curve in COMPLETIONS]
    if len(readings) == 1:
        plots = [_length(readings[0]) if plot.key == "length" else plot for plot in plots]
    return _drawable(plots)


def optimiser(readings: Sequence[Reading]) -> list[Chart]:
    """Charts of the optimiser, for experts."""
    present = [curve for curve in OPTIMISER if not curve.if_any or _any(curve.metric, readings)]
    notes = {"loss": _loss_note(readings)}
    noted = [replace(curve, note=notes.get(curve.key, curve.note)) for curve in present]
    return _drawable([_plot(curve, readings) for curve in noted])


def _loss_note(readings: Sequence[Reading]) -> str:
    """What the algorithms of the runs say of their loss; empty where the runs have no plan."""
    text = ", ".join(row.note_on_loss for row in algorithms(readings) if row.note_on_loss)
    return f"{text[0].upper()}{text[1:]}; not a sign of progress." if text else ""


def cost(readings: Sequence[Reading]) -> list[Chart]:
    """Charts of time and memory."""
    time = _phases(readings[0]) if len(readings) == 1 else _step_time(readings)
    return _drawable([time, _stages(readings), _memory(readings)])


def results(readings: Sequence[Reading]) -> list[Chart]:
    """Charts of the accuracy before and after, with 95 % intervals."""
    sampled, greedy = [], []
    for number, reading in enumerate(readings):
        for when in ("before", "after"):
            evaluation = reading.evaluated(when)
            if not evaluation:
                continue
            label = f"{reading.label} {when}".strip()
            tone = number if when == "after" else GREY
            low, high = evaluation["interval"]
            sampled.append(Bar(label, evaluation["accuracy"], low, high, tone))
            low, high = evaluation["greedy_interval"]
            greedy.append(Bar(label, evaluation["greedy"], low, high, tone))
    return _drawable(
        [
            Bars(
                "accuracy",
                "Accuracy, sampled",
                sampled,
                "Share of right samples at the training temperature, with 95 % interval.",
                "%",
                (0, 1),
            ),
            Bars(
                "accuracy-greedy",
                "Accuracy, greedy",
                greedy,
                "One answer for each problem, the likeliest token at each place.",
                "%",
                (0, 1),
            ),
        ]
    )


def problems(reading: Reading) -> list[Chart]:
    """The chart of the pass rates by which `data.keep` has chosen problems; empty without them."""
    recorded = reading.record.get("pass_rates") or {}
    num_samples = recorded.get("num_samples", 0)
    bars = []
    for count, number in enumerate(recorded.get("histogram", [])):
        is_kept = recorded["low"] <= count / num_samples <= recorded["high"]
        bars.append(Bar(f"{count} of {num_samples}", number, tone=0 if is_kept else GREY))
    note = "Problems by the number of right samples before training; grey ones are left out."
    return _drawable([Bars("pass-rates", "Pass rates", bars, note)])


def every(readings: Sequence[Reading]) -> list[Chart]:
    """All charts of a page, in its order."""
    return [
        *results(readings),
        *(problems(readings[0]) if len(readings) == 1 else []),
        *learning(readings),
        *completions(readings),
        *optimiser(readings),
        *cost(readings),
    ]


def _drawable(charts: Sequence[Chart]) -> list[Chart]:
    return [chart for chart in charts if has_data(chart)]


def _any(metric: str, readings: Sequence[Reading]) -> bool:
    return any(row.get(metric) for reading in readings for row in reading.metrics)


def _series(
    reading: Reading, metric: str, name: str, *, smooth: bool = False, tone: int | None = None
) -> Series:
    rows = [row for row in reading.metrics if metric in row]
    steps, values = [row["step"] for row in rows], [row[metric] for row in rows]
    return Series(name, steps, values, smooth=smooth, tone=tone)


def _plot(curve: Curve, readings: Sequence[Reading]) -> Plot:
    series = [
        _series(r, curve.metric, r.label or curve.title.lower(), smooth=curve.smooth, tone=i)
        for i, r in enumerate(readings)
    ]
    return Plot(curve.key, curve.title, series, curve.note, unit=curve.unit, y_range=curve.y_range)


def _accuracy(curve: Curve, readings: Sequence[Reading]) -> Plot:
    """The accuracy of the completions in training, of one run with its interval, and with the
    evaluations of `eval.every` as points, which have one."""
    plot, points = _plot(curve, readings), [_held_out(i, r) for i, r in enumerate(readings)]
    series, held_out = list(plot.series), [one for one in points if one.x]
    rows = [row for row in readings[0].metrics if curve.metric in row]
    if len(readings) == 1 and any("accuracy_low" in row for row in rows):  # not in old runs
        low, high = ([row.get(f"accuracy_{end}") for row in rows] for end in ("low", "high"))
        series[0] = replace(series[0], low=low, high=high)
    note = curve.note
    if held_out:
        note += " Points: held-out problems, with 95 % interval."
    return replace(plot, series=[*series, *held_out], note=note)


def _held_out(number: int, reading: Reading) -> Series:
    """The evaluations of `eval.every`, between those before and after training where it has any."""
    rows = [row for row in reading.metrics if row.get(health.ACCURACY) is not None]
    points = [
        (row["step"], row[health.ACCURACY], row.get(health.LOW), row.get(health.HIGH))
        for row in rows
    ]
    for step, when in ((0, "before"), (reading.steps, "after")) if rows else ():
        if evaluation := reading.evaluated(when):
            points.append((step, evaluation["accuracy"], *evaluation["interval"]))
    columns = list(zip(*sorted(points, key=lambda point: point[0]), strict=True)) or [()] * 4
    name = f"{reading.label} held out".strip()
    tone = number if reading.label else None
    return Series(name, columns[0], columns[1], columns[2], columns[3], points=True, tone=tone)


def _rewards(reading: Reading) -> Plot:
    series = [_series(reading, f"rewards/{name}/mean", name) for name in _names([reading])]
    note = UNWEIGHTED + (" Stripes: lines that lie on each other." if len(series) > 1 else "")
    return Plot("rewards", "Rewards by function", series, note, y_range=(0, None))


def _reward_of_each(readings: Sequence[Reading]) -> list[Plot]:
    return [
        _plot(
            Curve(
                "reward-" + re.sub(r"[^\w.-]", "_", name),
                f"rewards/{name}/mean",
                f"Reward {name}",
                UNWEIGHTED,
            ),
            readings,
        )
        for name in _names(readings)
    ]


def _names(readings: Sequence[Reading]) -> list[str]:
    """Names of all reward functions of the runs, in the order of the metrics."""
    keys = [key for r in readings for key in (r.metrics[-1] if r.metrics else {})]
    matches = [re.fullmatch("rewards/(.+)/mean", key) for key in keys]
    return list(dict.fromkeys(match[1] for match in matches if match))


def _length(reading: Reading) -> Plot:
    rows = [row for row in reading.metrics if "completions/mean_length" in row]
    low, high = ([row.get(f"completions/{e}_length") for row in rows] for e in ("min", "max"))
    mean = [row["completions/mean_length"] for row in rows]
    series = Series("length", [row["step"] for row in rows], mean, low, high)
    limit = reading.resolved.get("preset", {}).get("max_completion_length")
    note = "Tokens: mean, and from the shortest to the longest"
    note += f"; the limit is {limit}." if limit else "."
    return Plot("length", "Length of completions", [series], note, y_range=(0, None))


def _phases(reading: Reading) -> Plot:
    parts = [_series(reading, key, name) for key, name in phases.STEP_PARTS.items()]
    parts = [series for series in parts if series.x]
    note = "Seconds of each step by what they were spent on." if parts else "Seconds."
    step = _step(reading, "whole step" if parts else "step")
    return Plot("time", "Time of a step", [step, *parts], note, unit="s", y_range=(0, None))


def _step_time(readings: Sequence[Reading]) -> Plot:
    series = [_step(reading, reading.label) for reading in readings]
    return Plot("time", "Time of a step", series, "Seconds.", unit="s", y_range=(0, None))


def _step(reading: Reading, name: str) -> Series:
    metric = "time/step_s" if _any("time/step_s", [reading]) else "step_time"
    return _series(reading, metric, name)


def _stages(readings: Sequence[Reading]) -> Bars:
    if len(readings) > 1:
        bars = [Bar(r.label, r.duration_s, tone=i) for i, r in enumerate(readings)]
        return Bars("duration", "Time of the whole run", bars, unit="s")
    if parts := phases.of(readings[0]):
        bars = [Bar(name, seconds) for name, seconds in parts.items()]
        note = "Together the time of the whole run, up to this page."
        return Bars("stages", "Where the time went", bars, note, unit="s")
    spent = readings[0].record.get("duration_s", {})
    bars = [Bar(STAGES.get(stage, stage), seconds) for stage, seconds in spent.items()]
    return Bars("stages", "Time of each stage", bars, unit="s")


def _memory(readings: Sequence[Reading]) -> Chart:
    bars = []
    for number, reading in enumerate(readings):
        vram = reading.record.get("vram") or {}
        for key, tone in (("predicted", GREY), ("measured", number)):
            if vram.get(f"{key}_bytes"):
                label = f"{reading.label} {key}".strip()
                bars.append(Bar(label, vram[f"{key}_bytes"], tone=tone))
    return Bars("memory", "Peak memory of the card", bars, unit="bytes")
