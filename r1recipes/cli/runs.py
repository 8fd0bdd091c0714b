"""`list runs`, `compare`, `report`, `clean`: which runs there are, what they show, what can go."""

import argparse
import shutil
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from r1recipes.cli.common import known_runs, write_over
from r1recipes.errors import RecipeError, unwritable

DONE = ("complete", "pruned")
"""Statuses of runs that are never resumed, so that their checkpoints are of no use."""


def add(commands: argparse._SubParsersAction) -> None:
    compare = commands.add_parser("compare", help="what differs between runs, and which is better")
    compare.add_argument("runs", nargs="+", metavar="RUN")
    compare.set_defaults(command=compare_command)

    clean = commands.add_parser("clean", help="delete the checkpoints of complete runs")
    clean.add_argument("runs", nargs="*", metavar="RUN", help="default: all runs")
    clean.add_argument(
        "--cache",
        action="store_true",
        help="delete in their place what is kept between runs and can be made or fetched again",
    )
    clean.add_argument("--yes", action="store_true", help="do not ask")
    clean.set_defaults(command=clean_command)

    report = commands.add_parser("report", help="one HTML page about a run, or about several")
    report.add_argument("runs", nargs="*", metavar="RUN", help="default: the newest run")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run folder; of several runs, in this folder",
    )
    report.add_argument(
        "--csv", type=Path, metavar="FOLDER", help="also write the data of each chart as CSV"
    )
    report.set_defaults(command=report_command)


def list_runs() -> int:
    """One line for each run, the oldest first."""
    from r1recipes.runs import reading

    rows = [["RUN", "STATUS", "STEPS", "BEFORE", "AFTER", "TIME"]]
    runs = known_runs([])
    for run in runs:
        try:
            with reading.understood(run):
                rows.append([str(run.folder), *_state(reading.read(run))])
        except RecipeError as error:
            problem = error.problems[0]
            print(f"warning: {problem.where} {problem.message}", file=sys.stderr)
            rows.append([str(run.folder), "damaged", "", "", "", ""])
    if runs:
        print(_columns(rows))
    else:
        print("there are no runs yet; `r1recipes run tiny` makes one", file=sys.stderr)
    return 0


def _state(found: Any) -> list[str]:
    shares = [found.evaluated(when).get("accuracy") for when in ("before", "after")]
    return [
        found.status,
        f"{found.steps}/{found.max_steps or '?'}",
        *("-" if share is None else f"{share:.1%}" for share in shares),
        f"{found.duration_s:.0f} s",
    ]


def compare_command(args: argparse.Namespace) -> int:
    from r1recipes.runs import reading

    runs = known_runs(args.runs)
    if len(runs) < 2:
        raise RecipeError("one run cannot be compared", hint="name two, see `r1recipes list runs`")
    names = reading.letters(len(runs))
    with reading.understood(*runs):
        readings = [reading.read(run, name) for run, name in zip(runs, names, strict=True)]
        table = _columns([["", *names], *_results(readings), *_differing(readings)])
        pairs = [_pair(readings[0], other) for other in readings[1:]]
    folders = [f"{one.label}  {one.run.folder}" for one in readings]
    print(*folders, "", table, "", *pairs, sep="\n")
    return 0


def _results(readings: list[Any]) -> list[list[str]]:
    rows = [
        ["status", *(r.status for r in readings)],
        ["steps", *(str(r.steps) for r in readings)],
        ["time", *(f"{r.duration_s:.0f} s" for r in readings)],
    ]
    for when in ("before", "after"):
        for key in ("accuracy", "greedy"):
            found = [r.evaluated(when).get(key) for r in readings]
            shown = ["-" if value is None else f"{value:.1%}" for value in found]
            rows.append([f"{key} {when}", *shown])
    return rows


def _differing(readings: list[Any]) -> list[list[str]]:
    from r1recipes.runs import reading

    rows: list[list[str]] = []
    for title, tables in (
        ("recipe", [r.settings for r in readings]),
        ("versions, machine, inputs", [r.environment for r in readings]),
    ):
        found = reading.differing(tables)
        unknown = reading.unknown(readings, tables)
        said = f"not known of {unknown}" if unknown else "" if found else "the same"
        rows += [[], [f"{title}: {said}"]]
        for key, values in found.items():
            rows.append([f"  {key}", *("-" if v is None else _short(v) for v in values)])
    return rows


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 32 else text[:29] + "..."


def _columns(rows: list[list[str]]) -> str:
    full = [row for row in rows if len(row) > 1]
    widths = [max(len(row[i]) for row in full) for i in range(len(full[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _pair(first: Any, other: Any) -> str:
    from r1recipes.report.run import difference_sentence
    from r1recipes.runs import reading

    found = reading.paired(first, other)
    if found is None:
        return f"{other.label} against {first.label}: they answered no common problems"
    said, _ = difference_sentence(found.mean, found.interval)
    return f"{other.label} against {first.label}, on the same {found.num_problems} problems: {said}"


def clean_command(args: argparse.Namespace) -> int:
    if args.cache:
        return _clean_cache(args)
    found, kept_bytes = [], 0
    for run in known_runs(args.runs):
        try:
            status = run.status()
        except RecipeError as error:
            print(f"warning: skipped: {error.problems[0].where} is damaged", file=sys.stderr)
            continue
        size = _size(run.checkpoints)
        if size and status in DONE:
            found.append((run, size))
        elif size:
            kept_bytes += size
            if args.runs:
                said = f"kept: {run.folder} {run.standing()} and needs them"
                print(f"{said}; {run.to_go_on()}", file=sys.stderr)
    if kept_bytes and not args.runs:
        size = _readable(kept_bytes)
        print(f"unfinished runs keep {size} of checkpoints, to go on with", file=sys.stderr)
    for run, size in found:
        print(f"{_readable(size):>10}  {run.checkpoints}")
    total = _readable(sum(size for _, size in found))
    question = f"delete {total} of checkpoints? Adapters and records stay."
    if not found or not (args.yes or _agreed(question)):
        print("nothing was deleted" if found else "nothing to delete", file=sys.stderr)
        return 0
    for run, _ in found:
        with run.owned():
            shutil.rmtree(run.checkpoints)
    print(f"deleted {total}")
    return 0


def _clean_cache(args: argparse.Namespace) -> int:
    from r1recipes.machine import settings
    from r1recipes.runs import cache

    if args.runs:
        raise RecipeError("--cache is not of a run", hint="`r1recipes clean --cache`")
    folder = settings.load().cache_dir
    found = cache.removable(folder, known_runs([]))
    sizes = {what: sum(map(_size, paths)) for what, paths in found.items()}
    for what, size in sizes.items():
        print(f"{_readable(size):>10}  {what}")
    total = _readable(sum(sizes.values()))
    question = f"delete {total} from {folder}? It is made or fetched again when needed."
    if not found or not (args.yes or _agreed(question)):
        print("nothing was deleted" if found else "nothing to delete", file=sys.stderr)
        return 0
    for path in chain(*found.values()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"deleted {total}")
    return 0


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise RecipeError("there is nobody to ask", hint="`--yes` deletes without asking")
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _size(path: Path) -> int:
    files = (path, *path.rglob("*"))
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def _readable(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def report_command(args: argparse.Namespace) -> int:
    from r1recipes.report import run

    runs = known_runs(args.runs)
    if not runs:
        raise RecipeError("there is no run yet", hint="`r1recipes run tiny` makes one in minutes")
    runs = runs if args.runs else runs[-1:]
    if args.out and args.out.is_dir():
        raise RecipeError(f"`{args.out}` is a folder", hint=f"`--out {args.out / 'report.html'}`")
    out = args.out or (runs[0].report if len(runs) == 1 else Path("report.html"))
    write_over(out, run.html(runs))
    print(out)
    if args.csv:
        try:
            written = run.write_csv(runs, args.csv)
        except OSError as error:
            raise unwritable(args.csv, error) from error
        print(*written, sep="\n")
    return 0
