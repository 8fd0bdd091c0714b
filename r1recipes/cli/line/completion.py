"""What a shell completes, and `completion`, which prints the script that asks for it.

The shell starts the program with `_ARGCOMPLETE` at each Tab; argcomplete answers with commands,
flags, choices, and the names that are here: recipes, studies, runs, cards, and what `line.keys`
knows of the recipe on the line. Limits: nothing else is read but folders' names, so that the answer
is there at once; `python -m r1recipes` is not completed, because shells complete by the first word.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1recipes.cli.line import keys
from r1recipes.machine import shipped_folder

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.cli.line.parser import Parser

    Names = Callable[[str], Iterator[str]]
    """The beginning of a word -> the names that may be meant."""

SHELLS = {
    "bash": ("~/.bashrc", 'eval "$(r1recipes completion bash)"'),
    "zsh": ("~/.zshrc, after `compinit`", 'eval "$(r1recipes completion zsh)"'),
    "fish": ("~/.config/fish/config.fish", "r1recipes completion fish | source"),
}
"""Shell -> the file in which its completion is set up, and the line for it."""

_OF_THE_LINE: dict[str, Callable[..., list[str]]] = {
    "preset": keys.preset_names,
    "overrides": keys.recipe_keys,
    "FORM": keys.export_forms,
}
"""Name or placeholder of an argument -> what completes it by the other words of the line."""
_STAMP = re.compile(r"\d{8}T\d{6}Z-")
"""How the name of a run begins, in whose folder a study of the same name may have its trials."""


def add(commands: Commands) -> None:
    completion = commands.add_parser(
        "completion",
        help="print the script by which a shell completes commands, flags, recipes and runs",
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(command=completion_command)


def completion_command(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    place, line = SHELLS[args.shell]
    how = f"# To complete r1recipes in every {args.shell}, add this line to {place}:\n#   {line}"
    if sys.stdout.isatty():
        print(how)
        return 0
    print(how, shellcode(["r1recipes"], shell=args.shell), sep="\n")
    return 0


def answer(root: Parser) -> None:
    """Answer a shell that asks for completions, and end the process; otherwise do nothing."""
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete
    from argcomplete.completers import SuppressCompleter

    for parser in [root, *root.commands().values()]:
        for action in parser._actions:
            if completer := _completer_for(action):
                action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(
        root, default_completer=SuppressCompleter(), always_complete_options=False
    )


def _completer_for(action: argparse.Action) -> Callable[..., list[str]] | None:
    """What completes an argument, as argcomplete calls it; None where it takes no names."""
    for word in (action.dest, str(action.metavar)):
        if word in _OF_THE_LINE:
            return _OF_THE_LINE[word]
    names = _names_for(action)
    return _completer(names) if names else None


def _names_for(action: argparse.Action) -> list[Names]:
    """Where the names come from that an argument takes; empty where it takes none."""
    words = {action.dest, str(action.metavar)}
    if "completions" in words:
        return [run_names, file_names]
    if words & {"recipe", "recipes", "data", "recipe_or_run"}:
        own = [run_names] if "recipe_or_run" in words else []
        return [recipe_names, *own, recipe_files]
    if words & {"RUN", "runs", "resume", "finish"}:
        return [run_names]
    if "study" in words:
        return [study_names, sweep_names, recipe_files]
    if "gpu" in words:
        return [card_names]
    is_place = words & {"FILE", "FOLDER", "file", "out", "model"}
    return [file_names] if is_place else []


def _completer(sources: list[Names]) -> Callable[..., list[str]]:
    def complete(prefix: str, **_: object) -> list[str]:
        return [name for names in sources for name in names(prefix) if name.startswith(prefix)]

    return complete


def recipe_names(prefix: str) -> Iterator[str]:
    """The shipped recipes."""
    yield from (path.stem for path in sorted(shipped_folder("recipes").glob("*.toml")))


def sweep_names(prefix: str) -> Iterator[str]:
    """The shipped studies."""
    yield from (path.stem for path in sorted(shipped_folder("sweeps").glob("*.toml")))


def study_names(prefix: str) -> Iterator[str]:
    """The studies that were made here."""
    from r1recipes.cli.common import runs_folder

    yield from sorted(path.parent.name for path in runs_folder().glob("*/study.db"))


def run_names(prefix: str) -> Iterator[str]:
    """Recipes that were run, and with a beginning their runs: `tiny`, `2026...`,
    `tiny/2026...`, `runs/tiny/2026...`."""
    from r1recipes.cli.common import runs_folder

    folders = sorted(path.parent for path in runs_folder().glob("*/*/record.json"))
    folders = [each for each in folders if _STAMP.match(each.name) or not _is_study(each.parent)]
    yield from dict.fromkeys(folder.parent.name for folder in folders)
    for folder in folders if prefix else ():
        yield folder.name
    for folder in folders if "/" in prefix else ():
        yield f"{folder.parent.name}/{folder.name}"
        yield str(folder)


def _is_study(folder: Path) -> bool:
    return (folder / "study.db").exists()


def card_names(prefix: str) -> Iterator[str]:
    """The cards that `--gpu` takes, as a shell needs no quotes for them."""
    from r1recipes.machine import cards

    yield from (name.lower().replace(" ", "-") for name in cards.GPUS)


def recipe_files(prefix: str) -> Iterator[str]:
    """Folders, and files that a recipe or a study may be in."""
    yield from (name for name in file_names(prefix) if name.endswith(("/", ".toml", ".zip")))


def file_names(prefix: str) -> Iterator[str]:
    """Folders, and files that commands read or write."""
    folder, _, _ = prefix.rpartition("/")
    parent = Path(folder + "/" if folder or prefix.startswith("/") else ".").expanduser()
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir()):
        name = f"{prefix.rpartition('/')[0]}/{path.name}" if "/" in prefix else path.name
        if path.name.startswith(".") and not Path(prefix).name.startswith("."):
            continue
        yield f"{name}/" if path.is_dir() else name
