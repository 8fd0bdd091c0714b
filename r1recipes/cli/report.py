"""`report`: one HTML page about a run, or about several."""

import argparse
from pathlib import Path

from r1recipes.cli.common import known_runs, write_over
from r1recipes.errors import RecipeError, unwritable


def add(commands: argparse._SubParsersAction) -> None:
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


def report_command(args: argparse.Namespace) -> int:
    from r1recipes import report

    runs = known_runs(args.runs)
    if not runs:
        raise RecipeError("there is no run yet", hint="`r1recipes run tiny` makes one in minutes")
    runs = runs if args.runs else runs[-1:]
    if args.out and args.out.is_dir():
        raise RecipeError(f"`{args.out}` is a folder", hint=f"`--out {args.out / 'report.html'}`")
    out = args.out or (runs[0].report if len(runs) == 1 else Path("report.html"))
    write_over(out, report.html(runs))
    print(out)
    if args.csv:
        try:
            written = report.write_csv(runs, args.csv)
        except OSError as error:
            raise unwritable(args.csv, error) from error
        print(*written, sep="\n")
    return 0
