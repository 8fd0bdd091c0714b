"""The commands: the only code that catches every error, or exits.

They print what users read, beside the live view (`training.view`); what else is printed goes to a
log. Exit codes: 0 done, 1 the run failed, 2 the user's input is wrong, 130 stopped by the user.
Data go to stdout, messages to stderr. Each module has a few commands, and `add`, which puts them on
the command line. Limits: a module imports nothing heavy before its command needs it.
"""

import argparse
import os
import sys
import time

import r1recipes
from r1recipes import __version__
from r1recipes.cli import chat, doctor, evaluate, plan, publish, recipes, run, runs, study, worker
from r1recipes.cli.common import located, printable
from r1recipes.errors import R1RecipesError, first_problems, system_error

COMMANDS = (run, study, worker, evaluate, chat, runs, plan, recipes, publish, doctor)
"""In the order in which `--help` lists them."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    began = time.monotonic()
    _open_standard_streams()
    args = parser().parse_args(argv)
    args.began = began
    try:
        code: int = args.command(args)
        sys.stdout.flush()
        return code
    except R1RecipesError as error:
        explain(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `r1recipes list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        explain(known := system_error(error))
        return known.exit_code


def _open_standard_streams() -> None:
    """Open /dev/null for each of stdin, stdout and stderr that is closed: otherwise the next file
    that is opened gets its number, and what is printed ends up in that file."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")


def explain(error: R1RecipesError) -> None:
    """Print every problem with its place and its hint."""
    for problem in first_problems(error.problems):
        label = "" if error.exit_code == 130 else "error: "
        print(f"{label}{printable(located(problem))}", file=sys.stderr)
        if problem.hint:
            print(f"  hint: {printable(problem.hint)}", file=sys.stderr)
    if len(error.problems) > 1:
        print(f"{len(error.problems)} errors", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    root = argparse.ArgumentParser(prog="r1recipes", description=r1recipes.__doc__)
    root.add_argument("--version", action="version", version=f"r1recipes {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return root
