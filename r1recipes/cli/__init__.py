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
from r1recipes.cli import chat, doctor, evaluate, plan, publish, recipes, run, runs
from r1recipes.cli.line import completion
from r1recipes.cli.line.explain import explain
from r1recipes.cli.line.guide import guide
from r1recipes.cli.line.parser import Parser
from r1recipes.cli.studies import study, worker
from r1recipes.errors import R1RecipesError, program, system_error

COMMANDS = (
    run,
    study,
    worker,
    evaluate,
    chat,
    runs,
    plan,
    recipes,
    publish,
    doctor,
    completion,
)
"""In the order in which `--help` lists them."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    began = time.monotonic()
    _open_standard_streams()
    root = parser()
    completion.answer(root)
    try:
        args = root.parse_args(sys.argv[1:] if argv is None else argv)
        args.began = began
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


def parser() -> Parser:
    """The parser of the command line."""
    root = Parser(prog=program(), description=r1recipes.__doc__)
    root.add_argument("--version", action="version", version=f"r1recipes {__version__}")
    root.set_defaults(command=_show_guide)
    commands = root.add_subparsers(title="commands", dest="title", metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return root


def _show_guide(args: argparse.Namespace) -> int:
    print(guide())
    return 0
