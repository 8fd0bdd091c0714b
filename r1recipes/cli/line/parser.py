"""Parses the command line, and says of what is mistyped what it is likely to mean.

Limits: a word that is far from every name gets the way to the list of names instead.
"""

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from r1recipes.errors import RecipeError, command, listed, program

CUTOFF = 0.6
"""Likeness, by difflib's ratio, from which on a name is proposed; assumed."""
_KEY = re.compile(r'[A-Za-z_][\w."-]*')
_WORDS = {
    r"the following arguments are required: (.+)": "`{title}` needs {0}",
    r"argument (\S+)(?:/\S+)?: invalid int value: '(.*)'": "`{0} {1}` is not a whole number",
    r"argument (\S+)(?:/\S+)?: invalid float value: '(.*)'": "`{0} {1}` is not a number",
    r"argument (\S+)(?:/\S+)?: expected one argument": "`{0}` needs a value",
    r"argument (\S+)(?:/\S+)?: expected at least one argument": "`{0}` needs a value or more",
    r"argument (\S+)(?:/\S+)?: not allowed with argument (.+)": "`{0}` does not go with `{1}`",
    r"argument (\S+)(?:/\S+)?: (.*)": "{0}: {1}",
}
"""What argparse says (Lib/argparse.py, Python 3.11 to 3.13) -> what is printed."""
_NUMBER = re.compile(r"-[\d.]")


EXAMPLES = {
    "run": "run tiny",
    "sweep": "sweep tiny",
    "study": "study tiny",
    "worker": "worker tiny",
    "eval": "eval tiny --samples 16",
    "grade": "grade phi4 --sample 8",
    "ask": "ask tiny '12+34='",
    "chat": "chat tiny",
    "compare": "compare runs/tiny/2026A runs/tiny/2026B",
    "report": "report tiny",
    "clean": "clean tiny",
    "plan": "plan phi4 --gpu t4",
    "rehearse": "rehearse phi4 --vram 16",
    "check": "check mine.toml",
    "show": "show phi4",
    "list": "list runs",
    "new": "new mine.toml --model unsloth/Qwen2.5-3B-Instruct",
    "schema": "schema recipe.schema.json",
    "export": "export tiny --to merged_16bit",
    "share": "share tiny",
    "copy": "copy phi4 mine.toml",
    "doctor": "doctor phi4",
    "completion": "completion bash",
}
"""Command -> a command line of it, as `--help` and errors show it."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are RecipeErrors with a hint."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        if example := EXAMPLES.get(self.title):
            self.epilog = f"example: {program()} {example}"

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The arguments. Raises: RecipeError for those that the command does not have."""
        words = joined(_with_help(args))
        if error := self._before_command(words):
            raise error
        parsed, rest = self.parse_known_args(words, namespace)
        if rest:
            inner = self.commands().get(getattr(parsed, "title", ""), self)
            raise _unknown(inner, rest, self.commands())
        return parsed

    def _before_command(self, words: Sequence[str]) -> RecipeError | None:
        """The error for a flag of a command that stands before it; None where there is none."""
        commands, flag = self.commands(), words[0].partition("=")[0] if words else ""
        place = next((n for n, word in enumerate(words) if word in commands), None)
        if place is None or not flag.startswith("--") or flag == "--" or flag in self.flags():
            return None
        title = words[place]
        if flag not in commands[title].flags():
            return _unknown(commands[title], [flag], commands)
        behind = command(title, *words[place + 1 :], *words[:place])
        message = f"`{flag}` stands before its command"
        return RecipeError(message, hint=f"put it behind: `{behind}`")

    def error(self, message: str) -> NoReturn:
        """Raises: RecipeError, for what is missing and for a value that is not valid."""
        hint = f"`{self.prog} --help` shows its arguments"
        if example := EXAMPLES.get(self.title):
            hint = f"such as `{program()} {example}`; {hint}"
        raise RecipeError(self._in_words(message), hint=hint)

    def _in_words(self, message: str) -> str:
        """A message of argparse, without its jargon."""
        for pattern, words in _WORDS.items():
            if match := re.fullmatch(pattern, message):
                return words.format(*match.groups(), title=self.title)
        return message

    @property
    def title(self) -> str:
        """The name of a command, of its parser's `prog`."""
        return self.prog.removeprefix(f"{program()} ")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises: RecipeError for a command or a value that is none of the choices."""
        if action.choices is None or value in action.choices:
            return
        names = [str(name) for name in action.choices]
        is_command = isinstance(action, argparse._SubParsersAction)
        name = "a command" if is_command else f"a value of {_name(action)}"
        meant = _nearest(str(value), names)
        if meant and is_command:
            hint = f"did you mean `{command(meant)}`?"
        elif meant:
            hint = f"did you mean `{meant}`?"
        else:
            hint = f"`{program()} --help` lists them" if is_command else f"one of: {listed(names)}"
        raise RecipeError(f"`{value}` is not {name}", hint=hint)

    def commands(self) -> dict[str, "Parser"]:
        """The parsers of the commands, by their names."""
        return {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, parser in action.choices.items()
        }

    def flags(self) -> list[str]:
        """The flags that are not hidden."""
        shown = [a for a in self._actions if a.help != argparse.SUPPRESS]
        return [flag for action in shown for flag in action.option_strings]


def _with_help(arguments: Sequence[str]) -> Sequence[str]:
    """The arguments, with `help COMMAND` as `COMMAND --help` and `help` alone as `--help`."""
    return [*arguments[1:2], "--help"] if arguments[:1] == ["help"] else arguments


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `--set a.b 5` as `--set a.b=5`."""
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    place = 0
    while place < end:
        word = words[place]
        key_at = place + 1 if word == "--set" else place if word.startswith("--set=") else None
        place += 1
        if key_at is None or key_at + 1 >= end:
            continue
        key, value = words[key_at].removeprefix("--set="), words[key_at + 1]
        is_flag = value.startswith("-") and not _NUMBER.match(value)
        if _KEY.fullmatch(key) and not is_flag:
            words[key_at : key_at + 2] = [f"{words[key_at]}={value}"]
            end -= 1
    return words


def _unknown(inner: Parser, rest: Sequence[str], commands: dict[str, Parser]) -> RecipeError:
    """The error for the first of the arguments that a command does not have."""
    flag = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
    title = inner.title
    if flag is None:
        hint = "words with spaces need quotes, and names stand before the flags; "
        hint += f"`{inner.prog} --help` shows its arguments"
        return RecipeError(f"`{title}` does not take `{' '.join(rest)}`", hint=hint)
    message = f"`{title}` has no flag `{flag}`"
    homes = [name for name, parser in commands.items() if flag in parser.flags()]
    if homes:
        hint = f"it is a flag of {listed(f'`{name}`' for name in homes)}"
    elif meant := _nearest(flag, inner.flags()):
        hint = f"did you mean `{meant}`?"
    else:
        hint = f"`{inner.prog} --help` lists its flags"
    return RecipeError(message, hint=hint)


def _nearest(word: str, names: Iterable[str]) -> str | None:
    import difflib  # takes a millisecond, and few command lines are mistyped

    return next(iter(difflib.get_close_matches(word, list(names), 1, CUTOFF)), None)


def _name(action: argparse.Action) -> str:
    return f"`{action.option_strings[0]}`" if action.option_strings else f"`{action.dest}`"
