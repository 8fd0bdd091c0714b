"""`doctor`: what this machine can run, and the command that mends what it cannot."""

import argparse
from dataclasses import asdict
from typing import Any

from r1recipes.cli.common import overridable

MARKS = {
    "ok": ("ok  ", "green"),
    "warning": ("warn", "yellow"),
    "problem": ("FAIL", "bold red"),
    "no": ("no  ", "red"),
}


def add(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser("doctor", help="what this machine can run, and what mends it")
    doctor.add_argument("recipe", nargs="?", help="look only at what this recipe needs")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    overridable(doctor)
    doctor.set_defaults(command=doctor_command)


def doctor_command(args: argparse.Namespace) -> int:
    from r1recipes import recipe
    from r1recipes.machine import hub, settings
    from r1recipes.planning import doctor

    names = [args.recipe] if args.recipe else recipe.shipped()
    loaded = [recipe.load(name, args.overrides) for name in names]
    own = settings.load()
    offline = own.offline or hub.is_offline()
    report = doctor.examine(loaded, own, offline=offline)
    if args.json:
        import json

        print(json.dumps(_as_json(report), indent=1))
    else:
        _print(report)
    return 0 if report.ok else 2


def _as_json(report: Any) -> dict[str, Any]:
    findings = [asdict(finding) | {"level": finding.level} for finding in report.findings]
    verdicts = [asdict(v) | {"runs": v.why_not is None} for v in report.verdicts]
    return {"ok": report.ok, "findings": findings, "recipes": verdicts}


def _print(report: Any) -> None:
    rows = [(f.level, f.what, f.found, f.mend) for f in report.findings]
    _table(rows)
    print()
    _table([_recipe_row(verdict) for verdict in report.verdicts])


def _recipe_row(verdict: Any) -> tuple[str, str, str, str | None]:
    if verdict.why_not:
        return "no", verdict.recipe, verdict.why_not, verdict.mend
    peak = verdict.peak_bytes
    measured = f"measured peak {peak / 2**30:.2f} GiB" if peak else "memory not measured"
    return (
        "ok",
        verdict.recipe,
        verdict.preset if verdict.preset == "cpu" else f"{verdict.preset}, {measured}",
        None,
    )


def _table(rows: list[tuple[str, str, str, str | None]]) -> None:
    """A line for each, and below it the command, alone on its line so that it can be copied."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = max(len(what) for _, what, _, _ in rows)
    for level, what, found, mend in rows:
        mark, style = MARKS[level]
        console.print(Text(mark, style), Text(f"{what:<{width}}  {found}"), soft_wrap=True)
        if mend:
            console.print(Text(f"{'':<{width + 7}}{mend}", "bold"), soft_wrap=True)
