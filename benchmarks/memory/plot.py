"""A plot of predicted against measured peaks in GiB, as SVG.

Limits: both axes are logarithmic, from 2 to 128 GiB at most; the dashed band is 8 %.
"""

import math
from typing import NamedTuple

from r1recipes.machine.units import GIB


class Mark(NamedTuple):
    """One rehearsal in the plot."""

    name: str
    measured_bytes: float
    predicted_bytes: float
    set_aside: bool
    """Set aside before the fit, and drawn in red."""


def svg(marks: list[Mark]) -> str:
    """The whole picture, a mark for each rehearsal."""
    largest = max(mark.measured_bytes for mark in marks) / GIB * 1.2
    smallest = min(mark.measured_bytes for mark in marks) / GIB / 1.2
    size, edge = 480, 50

    def at(value: float) -> float:
        return size * math.log(value / smallest) / math.log(largest / smallest)

    def xy(x: float, y: float) -> tuple[float, float]:
        return edge + at(x), edge / 2 + size - at(y)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size + 80}" height="{size + 80}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for factor, dash in ((1.0, ""), (1.08, "4"), (1 / 1.08, "4")):
        inside = (max(smallest, smallest / factor), min(largest, largest / factor))
        (x1, y1), (x2, y2) = (xy(end, end * factor) for end in inside)
        lines.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#999" '
            f'stroke-dasharray="{dash}"/>'
        )
    for tick in (2, 4, 8, 16, 32, 64, 128):
        if smallest < tick < largest:
            x, y = xy(tick, tick)
            lines.append(f'<text x="{x:.1f}" y="{edge / 2 + size + 16:.1f}">{tick}</text>')
            lines.append(f'<text x="{edge - 24}" y="{y:.1f}">{tick}</text>')
    for mark in marks:
        x, y = xy(mark.measured_bytes / GIB, mark.predicted_bytes / GIB)
        fill = "#d62728" if mark.set_aside else "#1f77b4"
        lines.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" fill-opacity="0.7">'
            f"<title>{mark.name}</title></circle>"
        )
    lines.append(
        f'<text x="{edge}" y="{size + 70}">measured peak, GiB (red: set aside; dashed: 8 %)</text>'
    )
    lines.append(f'<text x="{edge}" y="16">predicted peak, GiB</text></svg>')
    return "\n".join(lines) + "\n"
