"""Errors as the user reads them: each with its place and its hint, coloured in a terminal."""

import os
import sys

from r1recipes.cli.common import located, printable
from r1recipes.errors import R1RecipesError, first_problems


def explain(error: R1RecipesError) -> None:
    """Print every problem with its place and its hint to stderr."""
    label = "" if error.exit_code == 130 else "error: "
    for problem in first_problems(error.problems):
        _print(label, printable(located(problem)), "bold red")
        if problem.hint:
            _print("  hint: ", printable(problem.hint), "cyan")
    if len(error.problems) > 1:
        print(f"{len(error.problems)} errors", file=sys.stderr)


def _print(label: str, text: str, style: str) -> None:
    """Print a line to stderr, its label in colour where that is a terminal that shows it."""
    if not (sys.stderr.isatty() and label) or os.environ.get("NO_COLOR"):
        print(f"{label}{text}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)  # has no colour where TERM is `dumb`
    console.print(Text.assemble((label, style), text), soft_wrap=True)
