"""Fit the constants of the memory prediction to measured runs, and print how far off it is.

    python -m benchmarks.memory.fit             errors with the constants as they are
    python -m benchmarks.memory.fit --fit       fit, and rewrite planning/memory/constants.py
    python -m benchmarks.memory.fit --svg FILE  a plot of predicted against measured peaks
    python -m benchmarks.memory.fit --json FILE the table of errors

measured.py reads the points and sets a third of them aside. Each constant has a range that its
physics allows. The fit is least squares of the relative errors (Levenberg-Marquardt), with a weak
pull to the value that the sources give, so that a constant which no point shows keeps it. Limits:
constants that the engine or torch report are fitted to those reports alone; the points are of
Hopper cards.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import plot
from benchmarks.memory.measured import (
    Point,
    errors,
    expected,
    load,
    predicted_parts,
    wrong_verdict,
)
from r1recipes.machine.units import GIB
from r1recipes.planning.memory import constants, predict

POINTS = Path(__file__).parent / "points"
RANGES = {
    "context": (0.3, 0.7, 1.5),
    "engine_outside": (0.0, 0.13, 0.5),
    "engine_hidden": (2.0, 4.0, 10.0),
    "weights_slack": (0.0, 0.008, 0.03),
    "graph": (0.02, 0.1, 2.0),
    "graph_unpacking": (0.0, 0.1, 2.0),
    "load_copy": (0.5, 1.0, 1.2),
    "hidden_copies": (2.0, 4.0, 16.0),
    "fragmentation": (0.0, 0.2, 0.5),
    "standby_kept": (0.0, 0.5, 2.0),
    "training_outside": (0.0, 0.15, 0.6),
}
"""Least value, value by the sources, and greatest value that the physics of a constant allows, in
the units of the table."""
ALONE = ("context", "engine_outside", "engine_hidden", "weights_slack")
"""Constants that are fitted first, to the parts that show them and nothing else, and then held."""
MARGIN = 0.01
"""Added to the worst error, since all points are of Hopper cards (assumed)."""
PULL = 0.02
"""Weight of the pull to the sources' value, a whole range away, beside a point's relative error
(assumed)."""
Residuals = Callable[[list[Point], dict[str, float]], list[float]]


def residuals(points: list[Point], values: dict[str, float]) -> list[float]:
    """Errors of the peak, the phases, the KV cache and the parts, as shares of the peak."""
    rows: list[float] = []
    for point in points:
        prediction, phases = predict.predict(point.case, values), expected(point, values)
        if point.ran_out:  # it needs at least what there was
            rows.append(min(0.0, prediction.peak_bytes / point.cap_bytes - 1))
        else:
            rows.append(2 * (max(phases.values()) / point.peak_bytes - 1))
            for phase, measured in point.phases.items():
                rows.append(0.5 * (phases[phase] - measured) / point.peak_bytes)
        if point.kv_tokens is not None:
            off = (prediction.kv_tokens - point.kv_tokens) * point.case.kv_token_bytes
            rows.append(off / point.peak_bytes)
        predicted = predicted_parts(point.case, values) if point.parts else {}
        rows += [(predicted[name] - size) / point.peak_bytes for name, size in point.parts.items()]
    return rows


def part_residuals(points: list[Point], values: dict[str, float]) -> list[float]:
    """Errors of the parts that show the constants `ALONE`, as shares of the part."""
    names = ("context", "weights", "pass", "engine outside")
    rows = []
    for point in points:
        predicted = predicted_parts(point.case, values)
        rows += [predicted[n] / point.parts[n] - 1 for n in names if n in point.parts]
    return rows


def fit(points: list[Point]) -> dict[str, float]:
    """Constants in the units of the table."""
    alone = _least_squares(points, list(ALONE), part_residuals, {})
    others = [name for name in RANGES if name not in ALONE]
    return alone | _least_squares(points, others, residuals, alone)


def _least_squares(
    points: list[Point],
    names: list[str],
    residuals_of: Residuals,
    held: dict[str, float],
    rounds: int = 60,
) -> dict[str, float]:
    low, first, high = (np.array([RANGES[name][n] for name in names]) for n in range(3))

    def off(x: np.ndarray) -> np.ndarray:
        values = in_bytes(held | dict(zip(names, x, strict=True)))
        pull = PULL * (x - first) / (high - low)
        return np.array(residuals_of(points, values) + list(pull))

    x, damping, now = first.copy(), 1e-2, off(first)
    for _ in range(rounds):
        # Steps go inwards: at a limit, a step outwards would be cut off.
        step = 1e-3 * (high - low) * np.where(x > (low + high) / 2, -1, 1)
        slope = np.stack([(off(x + d) - now) / d[d != 0][0] for d in np.diag(step)], axis=1)
        weights = slope * (high - low)
        change = np.linalg.solve(weights.T @ weights + damping * np.eye(len(x)), -weights.T @ now)
        tried = np.clip(x + change * (high - low), low, high)
        then = off(tried)
        if then @ then < now @ now:
            x, now, damping = tried, then, damping / 3
        else:
            damping *= 4
    return dict(zip(names, map(float, x), strict=True))


def in_bytes(fitted: dict[str, float]) -> dict[str, float]:
    """All constants in bytes, with the fitted ones in place of the table's."""
    units = {"GiB": GIB, "MiB": 2**20}
    return constants.values() | {
        name: value * units.get(constants.CALIBRATED[name].unit, 1)
        for name, value in fitted.items()
    }


def worst_for_a_left_out_model(points: list[Point]) -> float:
    """Worst error for a model when the constants are fitted to the points of the others."""
    worst = 0.0
    for shape in {point.case.shape for point in points}:
        others = [point for point in points if point.case.shape != shape]
        values = in_bytes(fit(others))
        off = errors([point for point in points if point.case.shape == shape], values)
        worst = max([worst, *map(abs, off.values())])
    return worst


def table(points: list[Point], values: dict[str, float]) -> dict[str, Any]:
    """The errors of each point by phase, and of the fitted and the set aside points together."""
    rows: list[dict[str, Any]] = []
    sets: dict[str, dict[str, Any]] = {}
    for aside in (False, True):
        chosen = [point for point in points if point.set_aside == aside]
        off = errors(chosen, values)
        sizes = [abs(value) for value in off.values()] or [float("nan")]
        sets["set aside" if aside else "fitted"] = {
            "points": len(off),
            "mean": round(sum(sizes) / len(sizes), 4),
            "worst": round(max(sizes), 4),
            "wrong_verdicts": [point.name for point in chosen if wrong_verdict(point, values)],
        }
        rows += [_row(point, values, off.get(point.name)) for point in chosen]
    return {"sets": sets, "points": rows}


def _row(point: Point, values: dict[str, float], error: float | None) -> dict[str, Any]:
    phases, prediction = expected(point, values), predict.predict(point.case, values)
    return {
        "point": point.name,
        "set_aside": point.set_aside,
        "measured_gib": round(point.peak_bytes / GIB, 3),
        "predicted_gib": round(max(phases.values()) / GIB, 3),
        "needed_gib": round(prediction.peak_bytes / GIB, 3),
        "error": None if error is None else round(error, 4),
        "verdict": predict.verdict(prediction, point.case, int(point.cap_bytes)),
        "phase_errors": {
            name: round(phases[name] / size - 1, 4) for name, size in point.phases.items()
        },
    }


def print_table(errors_by_point: dict[str, Any]) -> None:
    """Print what `table` returns."""
    for title, summary in errors_by_point["sets"].items():
        aside = title == "set aside"
        rows = [row for row in errors_by_point["points"] if row["set_aside"] == aside]
        print(
            f"{title}: {len(rows)} points, {summary['points']} ran; mean {summary['mean']:.1%},"
            f" worst {summary['worst']:.1%}; "
            f"wrong verdicts: {', '.join(summary['wrong_verdicts']) or 'none'}"
        )
        for row in rows:
            mark = "ran out" if row["error"] is None else f"{row['error']:+.1%}"
            phases = " ".join(f"{name} {off:+.1%}" for name, off in row["phase_errors"].items())
            sizes = f"{row['predicted_gib']:6.2f} of {row['measured_gib']:6.2f} GiB"
            print(f"  {row['point']:34} {mark:>8} {sizes}  {row['verdict']:12}  {phases}")


def rewrite(path: Path, fitted: dict[str, float], points: list[Point], worst: float) -> None:
    """Put the fitted values into the table in `path`; units and physics stay as they are."""
    head, old = path.read_text().split("CALIBRATED: dict", 1)
    tail = old.split("\n}\n", 1)[1]
    num_fitted = sum(not point.set_aside for point in points)
    source = f"fit to {num_fitted} rehearsals, benchmarks/memory/points"
    of_all = (
        f"worst of {len(points)} rehearsals, each model once left out, rounded up; "
        f"{MARGIN:.0%} for other cards"
    )
    lines = ["CALIBRATED: dict[str, Constant] = {"]
    for name, constant in constants.CALIBRATED.items():
        value, status, origin = constant.value, constant.status, constant.source
        if name == "error":
            value, status, origin = math.ceil(100 * worst) / 100 + MARGIN, "measured", of_all
        elif name in fitted:
            value, status, origin = float(f"{fitted[name]:.3g}"), "measured", source
        fields = (value, constant.unit, status, origin, constant.physics)
        lines += [f'    "{name}": Constant(']
        lines += [f"        {json.dumps(field, ensure_ascii=False)}," for field in fields]
        lines += ["    ),"]
    path.write_text(head + "\n".join(lines) + "\n}\n" + tail)


def refit(points: list[Point]) -> dict[str, float]:
    """Fit to the points that are not set aside, and print each constant before and after."""
    fitted = fit([point for point in points if not point.set_aside])
    for name, value in fitted.items():
        constant = constants.CALIBRATED[name]
        print(f"{name:18} {constant.value:8.4g} -> {value:8.4g} {constant.unit}")
    return fitted


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--points", type=Path, nargs="+", default=[POINTS], metavar="FOLDER")
    options.add_argument(
        "--fit", action="store_true", help="fit, and rewrite the table of constants"
    )
    options.add_argument("--svg", type=Path, metavar="FILE", help="write the plot")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the table of errors")
    args = options.parse_args()
    points = [point for folder in args.points for point in load(folder)]
    fitted = refit(points) if args.fit else {}
    values = in_bytes(fitted)
    errors_by_point = table(points, values)
    print_table(errors_by_point)
    if args.fit:
        left_out = worst_for_a_left_out_model(points)
        print(f"worst for a model that is left out of the fit: {left_out:.1%}")
        worst = max([left_out, *(row["worst"] for row in errors_by_point["sets"].values())])
        rewrite(Path(constants.__file__), fitted, points, worst)
    if args.json:
        args.json.write_text(json.dumps(errors_by_point, indent=1) + "\n")
    if args.svg:
        marks = [
            plot.Mark(p.name, p.peak_bytes, max(expected(p, values).values()), p.set_aside)
            for p in points
            if not p.ran_out
        ]
        args.svg.write_text(plot.svg(marks))


if __name__ == "__main__":
    main()
