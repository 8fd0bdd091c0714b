"""What a bare `r1recipes` prints: what to do first, second and third."""

from r1recipes import __doc__ as purpose
from r1recipes import __version__
from r1recipes.errors import command, program
from r1recipes.machine.units import aligned


def guide() -> str:
    """A short guide for a user who gave no command."""
    steps = [
        ("First", command("run", "tiny"), "the whole job on a CPU, in minutes"),
        ("Second", command("doctor"), "what this machine can run"),
        ("", command("list"), "the recipes, and the memory they need"),
        ("Third", command("new", "mine.toml", "--model", "MODEL"), "a recipe of your own"),
        ("", command("check", "mine.toml"), "what is wrong with it"),
        ("", command("run", "mine.toml"), "train it"),
    ]
    return "\n".join(
        [
            f"r1recipes {__version__}",
            (purpose or "").strip(),
            "",
            *aligned(steps),
            "",
            f"`{program()} --help` lists all commands, `{program()} COMMAND --help` explains one.",
        ]
    )
