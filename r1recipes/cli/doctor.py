"""`doctor`: what this machine can run, and for everything that is wrong a command that fixes it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import overridable
from r1recipes.machine.units import gib

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.planning.doctor import RecipeVerdict, Report

    Line = tuple[str, str, str, str | None]
    """Level, name, finding, and the command that fixes it."""

MARKS = {
    "ok": ("ok  ", "green"),
    "warning": ("warn", "yellow"),
    "problem": ("FAIL", "bold red"),
    "no": ("no  ", "red"),
}
"""Level of a line -> its mark and the style of the mark."""


def add(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check what this machine can run, and how to fix what it cannot",
    )
    doctor.add_argument("recipe", nargs="?", help="check only what this recipe needs")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--update",
        action="store_true",
        help="say which set of versions is installed, what a newer one would bring, and whether it "
        "was measured",
    )
    overridable(doctor)
    doctor.set_defaults(command=doctor_command)


def doctor_command(args: argparse.Namespace) -> int:
    if args.update:
        from r1recipes.planning.doctor import sets

        print(*sets.update(), sep="\n")
        return 0
    from r1recipes import recipe
    from r1recipes.machine import hub, settings
    from r1recipes.planning import doctor
    from r1recipes.runs import origin

    names = [args.recipe] if args.recipe else recipe.shipped()
    loaded = [recipe.load(name, args.overrides) for name in names]
    own = settings.load()
    offline = own.offline or hub.is_offline()
    origins = {one.name: origin.of_recipe(one, own.runs_dir) for one in loaded}
    report = doctor.examine(loaded, own, offline=offline, origins=origins)
    if args.json:
        import json

        print(json.dumps(_as_json(report), indent=1))
    else:
        _print(report)
    return 0 if report.ok else 2


def _as_json(report: Report) -> dict[str, Any]:
    findings = [
        {
            "what": finding.subject,
            "found": finding.state,
            "stops": finding.stops,
            "mend": finding.mend,
            "level": finding.level,
        }
        for finding in report.findings
    ]
    verdicts = [asdict(v) | {"runs": v.why_not is None} for v in report.verdicts]
    return {"ok": report.ok, "findings": findings, "recipes": verdicts}


def _print(report: Report) -> None:
    _print_lines([(f.level, f.subject, f.state, f.mend) for f in report.findings])
    print()
    _print_lines([_recipe_line(verdict) for verdict in report.verdicts])


def _recipe_line(verdict: RecipeVerdict) -> Line:
    if verdict.why_not:
        return "no", verdict.recipe, verdict.why_not, verdict.mend
    peak = verdict.peak_bytes
    memory = f"measured peak {gib(peak, 2)} GiB" if peak else "memory not measured"
    preset = verdict.preset or ""
    note = f"; {verdict.note}" if verdict.note else ""
    return "ok", verdict.recipe, preset if preset == "cpu" else f"{preset}, {memory}{note}", None


def _print_lines(lines: list[Line]) -> None:
    """Print each line, and the command that fixes it on the next one, so that it can be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(len(name) for _, name, _, _ in lines)
    for level, name, finding, command in lines:
        mark, style = MARKS[level]
        console.print(Text(mark, style), Text(f"{name:<{width}}  {finding}"), soft_wrap=True)
        if command:
            console.print(Text(f"{'':<{width + 7}}{command}", "bold"), soft_wrap=True)
