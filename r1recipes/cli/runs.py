"""`compare`, `report`, `clean`: compare, show and tidy up runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.common import RUN_HELP, find_runs, located, printable, write_over
from r1recipes.errors import RecipeError, command, unwritable
from r1recipes.machine.files.foreign import refused_link
from r1recipes.machine.units import aligned, duration, gigabytes, shortened

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.runs import Run
    from r1recipes.runs.reading import Reading

DONE = ("complete", "pruned")
"""Statuses of runs that are never resumed, and so do not need their checkpoints."""


def add(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="show how runs differ, and whether one is better")
    compare.add_argument("runs", nargs="+", metavar="RUN", help=RUN_HELP)
    compare.set_defaults(command=compare_command)

    clean = commands.add_parser("clean", help="delete the checkpoints of complete runs")
    clean.add_argument("runs", nargs="*", metavar="RUN", help="default: all runs")
    clean.add_argument(
        "--cache",
        action="store_true",
        help="instead delete caches that will be built or downloaded again when needed",
    )
    clean.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    clean.set_defaults(command=clean_command)

    report = commands.add_parser("report", help="write an HTML page about one run or several")
    report.add_argument("runs", nargs="*", metavar="RUN", help="default: the newest run")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run folder, or for several runs in the current folder",
    )
    report.add_argument(
        "--csv", type=Path, metavar="FOLDER", help="also write the data of each chart as CSV"
    )
    report.add_argument(
        "--inline",
        action="store_true",
        help="print the page as HTML that a notebook displays, and write no file",
    )
    report.add_argument(
        "--serve",
        action="store_true",
        help="instead follow all runs and studies live, on a page of this machine alone; RUN may "
        "be a folder of runs",
    )
    report.add_argument(
        "--port", type=int, metavar="N", help="port of --serve, or the next free one (default 6116)"
    )
    report.add_argument("--open", action="store_true", help="open the page of --serve in a browser")
    report.set_defaults(command=report_command)


def compare_command(args: argparse.Namespace) -> int:
    from r1recipes.runs import reading

    runs = find_runs(args.runs)
    if len(runs) < 2:
        raise RecipeError(
            "`compare` needs at least two runs",
            hint=f"`{command('list', 'runs')}` shows their names",
        )
    names = reading.letters(len(runs))
    with reading.understood(*runs):
        readings = [reading.read(run, name) for run, name in zip(runs, names, strict=True)]
        table = aligned([["", *names], *_results(readings), *_differing(readings)])
        pairs = [line for other in readings[1:] for line in _pair(readings[0], other)]
    folders = [printable(f"{r.label}  {r.run.folder}") for r in readings]
    print(*folders, "", *table, "", *pairs, sep="\n")
    return 0


def _results(readings: Sequence[Reading]) -> list[list[str]]:
    rows = [
        ["status", *(r.status for r in readings)],
        ["steps", *(str(r.steps) for r in readings)],
        ["time", *(duration(r.duration_s) for r in readings)],
    ]
    for when in ("before", "after"):
        for key in ("accuracy", "greedy"):
            shares = [r.evaluated(when).get(key) for r in readings]
            cells = ["-" if share is None else f"{share:.1%}" for share in shares]
            rows.append([f"{key} {when}", *cells])
    return rows


def _differing(readings: Sequence[Reading]) -> list[list[str]]:
    from r1recipes.runs import reading

    rows: list[list[str]] = []
    for title, tables in (
        ("recipe", [r.settings for r in readings]),
        ("versions, machine, inputs", [r.environment for r in readings]),
    ):
        differences = reading.differing(tables)
        unknown = reading.unknown(readings, tables)
        remark = f"unknown for {unknown}" if unknown else "" if differences else "the same"
        rows += [[], [f"{title}: {remark}"]]
        for key, values in differences.items():
            cells = ["-" if value is None else shortened(str(value), 32) for value in values]
            rows.append([f"  {key}", *cells])
    return rows


def _pair(first: Reading, other: Reading) -> list[str]:
    """Whether one run is better than the first; also by greedy answers, where the samples differ in
    how they were drawn."""
    from r1recipes.report.facts import difference_sentence
    from r1recipes.runs import reading

    pair = f"{other.label} against {first.label}"
    comparison = reading.paired(first, other)
    if comparison is None:
        return [f"{pair}: they answered no common problems"]
    sentence, _ = difference_sentence(comparison.mean, comparison.interval)
    lines = [f"{pair}, on the same {comparison.num_problems} problems: {sentence}"]
    how = reading.sampled_differently([first, other])
    greedy = reading.paired(first, other, greedy=True) if how else None
    if greedy:
        sentence, _ = difference_sentence(greedy.mean, greedy.interval)
        lines += [f"  their answers were sampled differently ({how}); greedy answers: {sentence}"]
    return lines


def clean_command(args: argparse.Namespace) -> int:
    if args.cache:
        return _clean_cache(args)
    removable, needed_bytes = [], 0
    for run in find_runs(args.runs):
        try:
            status = run.status()
        except RecipeError as error:
            print(printable(f"warning: skipped: {located(error.problems[0])}"), file=sys.stderr)
            continue
        size = _size(run.checkpoints)
        if size and status in DONE:
            removable.append((run, size))
        elif size:
            needed_bytes += size
            if args.runs:
                reason = f"{run.folder} {run.standing()} and needs its checkpoints: they stay"
                print(printable(f"{reason}; {run.to_go_on()}"), file=sys.stderr)
    if needed_bytes and not args.runs:
        total = gigabytes(needed_bytes)
        print(f"kept {total} of checkpoints that unfinished runs need", file=sys.stderr)
    for run, size in removable:
        print(printable(f"{gigabytes(size):>10}  {run.checkpoints}"))
    total = gigabytes(sum(size for _, size in removable))
    question = f"delete {total} of checkpoints? Adapters and records stay."
    if not removable or not (args.yes or _agreed(question)):
        print("nothing was deleted" if removable else "nothing to delete", file=sys.stderr)
        return 0
    for run, _ in removable:
        with run.owned():
            shutil.rmtree(run.checkpoints)
    print(f"deleted {total}")
    return 0


def _clean_cache(args: argparse.Namespace) -> int:
    from r1recipes.machine import settings
    from r1recipes.runs import cache

    if args.runs:
        raise RecipeError("--cache does not go with a run", hint=f"`{command('clean', '--cache')}`")
    folder = settings.load().cache_dir
    removable = cache.removable(folder, find_runs([]))
    sizes = {name: sum(map(_size, paths)) for name, paths in removable.items()}
    for name, size in sizes.items():
        print(f"{gigabytes(size):>10}  {name}")
    total = gigabytes(sum(sizes.values()))
    question = f"delete {total} from {folder}? It is made or fetched again when needed."
    if not removable or not (args.yes or _agreed(question)):
        print("nothing was deleted" if removable else "nothing to delete", file=sys.stderr)
        return 0
    for path in chain(*removable.values()):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    print(f"deleted {total}")
    return 0


def _agreed(question: str) -> bool:
    """Whether the user answers yes. Raises: RecipeError where nobody can answer."""
    if not sys.stdin.isatty():
        raise RecipeError(
            "cannot ask for confirmation without a terminal", hint="`--yes` deletes without asking"
        )
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = (path, *path.rglob("*"))
    return sum(file.lstat().st_size for file in files if file.is_symlink() or file.is_file())


def _print_inline(args: argparse.Namespace, page: str) -> int:
    from r1recipes.report import Inline

    if args.out or args.csv:
        raise RecipeError("--inline writes no file", hint="leave out --out and --csv")
    print(Inline(page)._repr_html_())
    return 0


def _newest(runs: list[Run]) -> Run:
    """The newest run; a trial of a study only where there are no others."""
    from r1recipes.runs.record import names

    own = [run for of_recipe in names.recipes_of(runs).values() for run in of_recipe]
    return [run for run in runs if run in own][-1] if own else runs[-1]


def _serve(args: argparse.Namespace) -> int:
    from r1recipes.machine import settings
    from r1recipes.report import serve

    if args.out or args.csv:
        raise RecipeError("--serve writes no file", hint="leave out --out and --csv")
    port = serve.PORT if args.port is None else args.port
    if not 0 <= port <= 65535:
        raise RecipeError(f"--port {port} is not a port, from 0 to 65535", hint="leave it out")
    return serve.serve(args.runs, settings.load().runs_dir, port, is_opened=args.open)


def report_command(args: argparse.Namespace) -> int:
    from r1recipes.report import run

    if args.serve:
        return _serve(args)
    if args.port is not None or args.open:
        raise RecipeError("--port and --open go with --serve", hint="`r1recipes report --serve`")
    runs = find_runs(args.runs)
    if not runs:
        hint = f"`{command('run', 'tiny')}` makes one in minutes"
        raise RecipeError("there is no run yet", hint=hint)
    runs = runs if args.runs else [_newest(runs)]
    if args.inline:
        return _print_inline(args, run.html(runs))
    if args.out and args.out.is_dir():
        raise RecipeError(f"`{args.out}` is a folder", hint=f"`--out {args.out / 'report.html'}`")
    out = args.out or (runs[0].report if len(runs) == 1 else Path("report.html").absolute())
    if not args.out and out.is_symlink():
        raise refused_link(out)
    write_over(out, run.html(runs))
    print(printable(str(out)))
    if args.csv:
        try:
            written = run.write_csv(runs, args.csv)
        except OSError as error:
            raise unwritable(args.csv, error) from error
        print(*written, sep="\n")
    return 0
