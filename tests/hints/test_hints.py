"""Every hint that names a command leads on: the commands that are printed are run.

What the program prints in each situation is read as a user would; each command and flag in it is
tried, and the message that named it must not come again. Limits: a training ends where its run
folder would be made; commands that load weights or ask the Hub are parsed, and runs that they name
are looked up; programs of others are not started.
"""

import contextlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from r1recipes import cli
from r1recipes.cli.line.parser import EXAMPLES
from r1recipes.errors import R1RecipesError
from r1recipes.runs.record import names
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.hints.collect import HOLE, PROGRAMS, SOURCE, Command, commands
from tests.hints.situations import SITUATIONS, UNPROVOKED, Situation, World, runs_again

NO_FOLDER = "small.toml/run"
"""A run folder that cannot be made: a training ends there, after all that is checked before it."""
WORDS = {
    "COMMAND": "run",
    "MODEL": "unsloth/phi-4",
    "NAME": "study",
    "N": "3",
    "RUN": "old/complete",
    "FOLDER": "folder",
    "ID_OR_FOLDER": "unsloth/phi-4",
    "FILE.r1.zip": "file.r1.zip",
}
"""Words in capitals that a user replaces -> what with."""
PARSED = ("ask", "chat", "eval", "export", "rehearse", "worker")
"""Commands that load weights, or train."""
ENDS = (
    rf"{NO_FOLDER.split('/')[0]}` cannot be written",
    "needs an NVIDIA GPU",
    "confirmation without a terminal",
    "no trial is complete",
)
"""Where a command ends that is given as the way: here there is no run folder, card, terminal or
trial."""
EXCLUSIVE = ("--gpu", "--vram")
"""Flags of which one is given."""
OWN = ("r1recipes ", "--", "python -m pip install -e", "python -m pip install 'r1recipes[")
"""How commands begin that are tried; others are programs of others."""


@dataclass
class Printed:
    """What the program printed in a situation, and what became of the commands in it."""

    situation: Situation
    words: list[str]
    text: str
    tried: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def errors(self) -> set[str]:
        return {line for line in self.text.splitlines() if line.startswith("error:")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.delenv("R1RECIPES_RUNS_DIR", raising=False)
        patch.setenv("R1RECIPES_CACHE_DIR", str(folder / "cache"))
        yield World(folder, SMALL)


@pytest.fixture(scope="module")
def printed(world: World) -> list[Printed]:
    """Every situation, tried once."""
    return [_try_situation(situation, world) for situation in SITUATIONS]


def _try_situation(situation: Situation, world: World) -> Printed:
    if situation.prepare:
        situation.prepare(world)
    words = shlex.split(situation.line.format(**world.names))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in situation.environment.items():
            patch.setenv(name, value)
        _, out, err = in_process(*words)
        printed = Printed(situation, words, f"{out}\n{err}")
        for piece in dict.fromkeys(_pieces(printed.text)):
            printed.tried.append(piece)
            if fault := _try(piece, printed):
                printed.faults.append(f"`{piece}`: {fault}")
    runs_again(world)
    return printed


def _pieces(text: str) -> Iterator[str]:
    """The commands and flags that a printed text tells the user to type."""
    for line in text.splitlines():
        if line.startswith("error:"):
            continue
        yield from re.findall(r"`((?:r1recipes |--[a-z]|python -m pip |rm )[^`]*)`", line)
        own = re.findall(r"(?<![`\w/])(?<!&& )(r1recipes ([a-z]+)[^`]*?)(?=  |$|`)", line)
        yield from (command for command, title in own if title in EXAMPLES)


def _try(piece: str, printed: Printed) -> str | None:
    """What is wrong with a command or a flag that was printed; None where it leads on."""
    if " && " in piece:
        faults = [_try(part, printed) for part in piece.split(" && ")]
        return next(filter(None, faults), None)
    if piece == "--name NAME":
        piece = "--name another"
    words = [WORDS.get(word, word) for word in shlex.split(piece.split(" | ")[0])]
    words = [word.replace("hub:user/name", "hub:somebody/something") for word in words]
    if words[0] == "rm":
        Path(words[-1]).unlink()
        return None
    if words[0] == "python":
        return None if _extra(piece) in _extras() else "there is no such extra"
    if words[0] == "r1recipes":
        return _try_command(words[1:], printed.errors)
    if words[0] in ("--launcher", "--storage"):  # of other machines
        return _parse([*printed.words, *words])
    return _try_command(_changed(printed, words), printed.errors, is_way=False)


def _changed(printed: Printed, flag: list[str]) -> list[str]:
    """The words of a command line with a flag that a hint names: added, in the place of the same
    one, or without it."""
    words, name = list(printed.words), flag[0]
    for other in EXCLUSIVE if name in EXCLUSIVE else ():
        if other in words:
            del words[words.index(other) : words.index(other) + 2]
    if name == "--set":  # one that is wrong is replaced
        wrong = [word for word in words if any(f"--set {word}:" in e for e in printed.errors)]
        for word in wrong:
            del words[words.index(word) - 1 : words.index(word) + 1]
    removal = re.search(rf"(?:remove|leave out) `{re.escape(shlex.join(flag))}", printed.text)
    if name in words and (name != "--set" or removal):
        at = words.index(name)
        has_value = at + 1 < len(words) and not words[at + 1].startswith("--")
        del words[at : at + 1 + has_value]
    return words if removal else [*words, *flag]


def _try_command(words: list[str], errors: set[str], *, is_way: bool = True) -> str | None:
    """Whether a command leads further than to these errors; `is_way`: without any error."""
    if (fault := _parse(words)) or "--help" in words:
        return fault
    if words[0] == "run" and ("--resume" in words or "--finish" in words):
        return _look_up(words)
    is_on_hub = any(word.startswith("hub:") for word in words)
    if words[0] in PARSED or is_on_hub or "--sample" in words:
        return None
    if words[0] == "run":
        words = [*words, "--run-dir", NO_FOLDER]
    if words[0] == "sweep":
        words = [*words, "--workers", "0"]  # the last one counts
    if words[0] in ("new", "copy") and "mine.toml" in words:  # which several hints propose
        Path("mine.toml").unlink(missing_ok=True)
    code, out, err = in_process(*words)
    again = errors & set(f"{out}\n{err}".splitlines())
    if again:
        return f"says again: {' '.join(again)}"
    if code == 0 or not is_way:  # with a flag another mistake may be left
        return None
    return None if any(re.search(pattern, err) for pattern in ENDS) else err


def _parse(words: list[str]) -> str | None:
    try:
        cli.parser().parse_args(words)
    except (R1RecipesError, SystemExit) as error:
        return None if isinstance(error, SystemExit) and error.code == 0 else f"no command: {error}"
    return None


def _look_up(words: list[str]) -> str | None:
    """Whether the run that is to be resumed is there, and is not complete."""
    args = cli.parser().parse_args(words)
    name = args.resume or args.finish
    if not name:
        return None
    run = names.find(Path("runs"), name)
    return None if run.status() != "complete" else "the run is complete"


def _extra(piece: str) -> str:
    match = re.search(r"\[(\w+)\]", piece)
    return match[1] if match else ""


def _extras() -> dict[str, list[str]]:
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return extras


def test_what_is_printed_leads_on(printed: list[Printed]) -> None:
    faults = [f"$ r1recipes {each.situation.line}: {f}" for each in printed for f in each.faults]
    assert not faults, "\n".join(faults)
    assert sum(len(each.tried) for each in printed) > 100


def test_no_command_of_the_program_is_left_out(printed: list[Printed]) -> None:
    """A new hint needs a situation, or where it needs a card or hours, a line in UNPROVOKED."""
    text = "\n".join(each.text for each in printed)
    own = [c for c in commands() if c.text.startswith(("r1recipes ", "--"))]
    left_out = [c for c in own if not c.matches(text) and not _is_unprovoked(c)]
    assert not left_out, "\n".join(map(str, left_out))
    assert len(own) > 100


def _is_unprovoked(command: Command) -> bool:
    return command.text.replace(HOLE, "{}") in UNPROVOKED


@pytest.mark.parametrize("line", [*UNPROVOKED.values(), *EXAMPLES.values()])
def test_a_command_that_no_situation_leads_to_can_be_given(line: str) -> None:
    assert _parse(shlex.split(line)) is None


def test_every_extra_that_is_named_is_one() -> None:
    named = [c for c in commands() if re.search(r"pip install .*\[(\w+)\]", c.text)]
    assert {_extra(c.text) for c in named} <= _extras().keys() and len(named) > 7


def _foreign() -> list[Command]:
    return [command for command in commands() if not command.text.startswith(OWN)]


@pytest.mark.parametrize("command", _foreign(), ids=str)
def test_a_command_of_another_program_is_whole(command: Command) -> None:
    """It can be split, begins with a program, and what pip is to install are requirements."""
    text = command.text.replace(HOLE, "x")
    words = shlex.split(text, comments=True)
    assert words[0] in PROGRAMS
    if "install" in words and "pip" in words and not text.endswith("install "):
        for word in words[words.index("install") + 1 :]:
            assert (
                word.startswith("-") or word in ("x", "&&", "optuna-dashboard") or Requirement(word)
            )
