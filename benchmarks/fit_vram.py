"""Fit the constants of the memory prediction to measured runs, and say how far off it is.

    python benchmarks/fit_vram.py             errors of the constants as they are
    python benchmarks/fit_vram.py --fit       fit them and rewrite planning/memory/constants.py
    python benchmarks/fit_vram.py --svg FILE  predicted against measured
    python benchmarks/fit_vram.py --json FILE the table of errors

The points and the rule by which a third of them is set aside are in vram_measured.py. Each constant
has a range that its physics allows. The fit is least squares of the relative errors
(Levenberg-Marquardt), with a weak pull to the value that the sources give, so that a constant which
no point shows keeps it. Constants that the engine or torch show by themselves are fitted to that
alone.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import vram_plot
from vram_measured import Point, errors, expected, load, parts, wrong_verdict

from r1recipes.machine.units import GIB
from r1recipes.planning.memory import constants, predict

HERE = Path(__file__).parent
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
"""Least, value by the sources, and most that the physics of each constant allows; the units are
the table's."""
ALONE = ("context", "engine_outside", "engine_hidden", "weights_slack")
"""Fitted first, to the parts that show them and nothing else; the rest is fitted with them held."""
MARGIN = 0.01
"""On top of the worst error: the points are of Hopper cards, parts of which were held."""
PULL = 0.02
"""Weight of the pull to the first value, a whole range away, beside one point's relative error."""


def residuals(points: list[Point], known: dict[str, float]) -> list[float]:
    """Errors of the peak, the phases, the KV cache and what was told, as shares of the peak."""
    found = []
    for point in points:
        prediction, phases = predict.predict(point.case, known), expected(point, known)
        if point.ran_out:  # it needs at least what there was
            found.append(min(0.0, prediction.peak_bytes / point.cap_bytes - 1))
        else:
            found.append(2 * (max(phases.values()) / point.peak_bytes - 1))
            for phase, measured in point.phases.items():
                found.append(0.5 * (phases[phase] - measured) / point.peak_bytes)
        if point.kv_tokens is not None:
            off = (prediction.kv_tokens - point.kv_tokens) * point.case.shape.kv_token_bytes
            found.append(off / point.peak_bytes)
        said = parts(point.case, known) if point.told else {}
        found += [(said[name] - size) / point.peak_bytes for name, size in point.told.items()]
    return found


def told_residuals(points: list[Point], known: dict[str, float]) -> list[float]:
    """Errors of the parts that show the constants `ALONE`, as shares of the part."""
    shown = ("context", "weights", "pass", "engine outside")
    found = []
    for point in points:
        said = parts(point.case, known)
        found += [said[name] / point.told[name] - 1 for name in shown if name in point.told]
    return found


def fit(points: list[Point]) -> dict[str, float]:
    """Constants in the units of the table."""
    alone = _least_squares(points, list(ALONE), told_residuals, {})
    rest = [name for name in RANGES if name not in ALONE]
    return alone | _least_squares(points, rest, residuals, alone)


def _least_squares(
    points: list[Point],
    names: list[str],
    errors_of: Callable[[list[Point], dict[str, float]], list[float]],
    held: dict[str, float],
    rounds: int = 60,
) -> dict[str, float]:
    low, first, high = (np.array([RANGES[name][n] for name in names]) for n in range(3))

    def off(x: np.ndarray) -> np.ndarray:
        known = in_bytes(held | dict(zip(names, x, strict=True)))
        pull = PULL * (x - first) / (high - low)
        return np.array(errors_of(points, known) + list(pull))

    x, damping, now = first.copy(), 1e-2, off(first)
    for _ in range(rounds):
        # Steps that lead inwards: at a limit the other way would be cut off.
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


def in_bytes(found: dict[str, float]) -> dict[str, float]:
    """All constants, those of `found` in place of the table's."""
    units = {"GiB": GIB, "MiB": 2**20}
    return constants.values() | {
        name: value * units.get(constants.CALIBRATED[name].unit, 1) for name, value in found.items()
    }


def worst_of_a_left_out_model(points: list[Point]) -> float:
    """Worst error for a model when the constants are fitted to the points of the others."""
    worst = 0.0
    for shape in {point.case.shape for point in points}:
        others = [point for point in points if point.case.shape != shape]
        known = in_bytes(fit(others))
        off = errors([point for point in points if point.case.shape == shape], known)
        worst = max([worst, *map(abs, off.values())])
    return worst


def table(points: list[Point], known: dict[str, float]) -> dict[str, Any]:
    """The errors of each point by phase, and of both sets."""
    rows, sets = [], {}
    for aside in (False, True):
        chosen = [p for p in points if p.set_aside == aside]
        off = errors(chosen, known)
        sizes = [abs(value) for value in off.values()] or [float("nan")]
        sets["set aside" if aside else "fitted"] = {
            "points": len(off),
            "mean": round(sum(sizes) / len(sizes), 4),
            "worst": round(max(sizes), 4),
            "wrong_verdicts": [p.name for p in chosen if wrong_verdict(p, known)],
        }
        rows += [_row(point, known, off.get(point.name)) for point in chosen]
    return {"sets": sets, "points": rows}


def _row(point: Point, known: dict[str, float], error: float | None) -> dict[str, Any]:
    phases, prediction = expected(point, known), predict.predict(point.case, known)
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


def report(found: dict[str, Any]) -> None:
    """Print a table of errors."""
    for title, errors_of in found["sets"].items():
        rows = [row for row in found["points"] if row["set_aside"] == (title == "set aside")]
        print(
            f"{title}: {len(rows)} points, {errors_of['points']} ran; mean {errors_of['mean']:.1%},"
            f" worst {errors_of['worst']:.1%}; "
            f"wrong verdicts: {', '.join(errors_of['wrong_verdicts']) or 'none'}"
        )
        for row in rows:
            mark = "ran out" if row["error"] is None else f"{row['error']:+.1%}"
            phases = " ".join(f"{name} {off:+.1%}" for name, off in row["phase_errors"].items())
            sizes = f"{row['predicted_gib']:6.2f} of {row['measured_gib']:6.2f} GiB"
            print(f"  {row['point']:34} {mark:>8} {sizes}  {row['verdict']:12}  {phases}")


def rewrite(path: Path, found: dict[str, float], points: list[Point], worst: float) -> None:
    """Put the fitted values into the table of `path`; what each is and its unit stay."""
    head, tail = (
        path.read_text().split("CALIBRATED: dict", 1)[0],
        path.read_text().split("\n}\n", 1)[1],
    )
    ran = sum(not point.set_aside for point in points)
    source = f"fit to {ran} rehearsals, benchmarks/vram_points"
    of_all = (
        f"worst of {len(points)} rehearsals, each model once left out, rounded up; "
        f"{MARGIN:.0%} for other cards"
    )
    lines = ["CALIBRATED: dict[str, Constant] = {"]
    for name, constant in constants.CALIBRATED.items():
        fields = [constant.value, constant.unit, constant.status, constant.source, constant.physics]
        if name in found or name == "error":
            stated = math.ceil(100 * worst) / 100 + MARGIN
            value = stated if name == "error" else float(f"{found[name]:.3g}")
            fields[:4] = [value, constant.unit, "measured", of_all if name == "error" else source]
        lines += [f'    "{name}": Constant(']
        lines += [f"        {json.dumps(field, ensure_ascii=False)}," for field in fields] + [
            "    ),"
        ]
    path.write_text(head + "\n".join(lines) + "\n}\n" + tail)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folders = [HERE / "vram_points"]
    options.add_argument("--points", type=Path, nargs="+", default=folders, metavar="FOLDER")
    options.add_argument(
        "--fit", action="store_true", help="fit them and rewrite the table of constants"
    )
    options.add_argument("--svg", type=Path, help="write the plot")
    options.add_argument("--json", type=Path, help="write the table of errors")
    args = options.parse_args()
    points = [point for folder in args.points for point in load(folder)]
    known, found = constants.values(), {}
    if args.fit:
        found = fit([point for point in points if not point.set_aside])
        known = in_bytes(found)
        for name, value in found.items():
            constant = constants.CALIBRATED[name]
            print(f"{name:18} {constant.value:8.4g} -> {value:8.4g} {constant.unit}")
    errors_found = table(points, known)
    report(errors_found)
    if args.fit:
        left_out = worst_of_a_left_out_model(points)
        print(f"worst for a model that is left out of the fit: {left_out:.1%}")
        worst = max([left_out, *(one["worst"] for one in errors_found["sets"].values())])
        rewrite(Path(constants.__file__), found, points, worst)
    if args.json:
        args.json.write_text(json.dumps(errors_found, indent=1) + "\n")
    if args.svg:
        shown = [
            (p.name, p.peak_bytes, max(expected(p, known).values()), p.set_aside)
            for p in points
            if not p.ran_out
        ]
        args.svg.write_text(vram_plot.svg(shown))


if __name__ == "__main__":
    main()
