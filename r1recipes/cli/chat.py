"""`ask` and `chat`: the base and the trained model answer side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from r1recipes.cli.common import RUN_HELP, named_run, offline_settings, printable, whole_number
from r1recipes.errors import R1RecipesError, RecipeError, command
from r1recipes.machine.units import aligned

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from r1recipes.cli.common import Commands

MODELS = ("base", "trained")
COMMANDS = {
    "/help": "shows these commands",
    "/reset": "starts a new conversation; `/new` does the same",
    "/system TEXT": 'sets the system prompt and starts anew; "" is none, without TEXT it is shown',
    "/quit": "ends; so does Ctrl-D",
}
"""What a line of `chat` may be beside a question."""
OTHER_NAMES = {"/new": "/reset", "/exit": "/quit", "/?": "/help"}


def add(commands: Commands) -> None:
    ask = commands.add_parser("ask", help="ask the base and the trained model one question")
    chat = commands.add_parser("chat", help="chat with the base and the trained model side by side")
    for each in (ask, chat):
        each.add_argument("run", metavar="RUN", help=RUN_HELP)
        each.add_argument(
            "--temperature", type=_temperature, default=0.8, help="default: %(default)s"
        )
        each.add_argument("--top-p", type=_share, default=0.95, help="default: %(default)s")
        each.add_argument(
            "--max-tokens",
            type=whole_number,
            default=1024,
            help="most tokens of an answer (default: %(default)s)",
        )
        each.add_argument("--seed", type=int, default=3407, help="default: %(default)s")
        each.add_argument("--offline", action="store_true", help="make no request to the Hub")
    ask.add_argument("question")
    ask.set_defaults(command=ask_command)
    chat.set_defaults(command=chat_command)


def _temperature(text: str) -> float:
    return _between(text, 0.0, 10.0)


def _share(text: str) -> float:
    return _between(text, 1e-6, 1.0)


def _between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from {low:g} to {high:g}")
    return value


def ask_command(args: argparse.Namespace) -> int:
    if not args.question.strip():
        hint = f"such as `{command('ask', args.run, '12+34=')}`"
        raise RecipeError("the question is empty", hint=hint)
    talk = _Talk(args)
    talk.ask(args.question)
    return 0


def chat_command(args: argparse.Namespace) -> int:
    talk = _Talk(args)
    _note("`/help` shows the commands; Ctrl-D ends")
    for line in _lines():
        word, _, text = line.partition(" ")
        word = OTHER_NAMES.get(word, word)
        if word == "/quit":
            break
        if word.startswith("/"):
            _obey(talk, word, text.strip())
        elif line.strip():
            try:
                talk.ask(line.strip())
            except R1RecipesError as error:  # such as a conversation that is too long
                _note(f"{error}; `/reset` starts a new conversation")
    return 0


def _obey(talk: _Talk, word: str, text: str) -> None:
    """Do what a line that begins with a slash asks for."""
    names = {line.split()[0]: line for line in COMMANDS}
    if word == "/help":
        _note("\n".join(aligned(list(COMMANDS.items()))))
    elif word == "/reset":
        talk.begin()
        _note("a new conversation")
    elif word == "/system" and text:
        talk.system = "" if text in ('""', "''") else text
        talk.begin()
        which = "this" if talk.system else "no"
        _note(f"a new conversation, with {which} system prompt")
    elif word == "/system":
        _note(f"the system prompt: {talk.system}" if talk.system else "there is no system prompt")
    else:
        from r1recipes.config.suggest import nearest

        meant = nearest(word, names, 0.5)
        hint = f"did you mean `{meant}`?" if meant else "`/help` shows the commands."
        _note(f"`{word}` is not a command: {hint} A question may begin with a space.")


def _note(text: str) -> None:
    print(printable(text), file=sys.stderr)


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").rstrip()
        except EOFError:
            return


class _Talk:
    """Two conversations with the same questions, each with its own answers."""

    def __init__(self, args: argparse.Namespace):
        settings = offline_settings(args.offline)
        from r1recipes.machine import gpu
        from r1recipes.runs import trained
        from r1recipes.training.backends import prepare_environment

        run = trained.of_run(named_run(settings.runs_dir, args.run))
        plan = trained.for_answers(run.plan, gpu.current())
        prepare_environment(plan, settings.cache_dir)
        if plan.device != run.plan.device:
            print("no GPU: the model answers on the CPU, slowly", file=sys.stderr)
        if run.note:
            print(printable(run.note), file=sys.stderr)
        self.system = plan.recipe.prompt.system
        with _quiet():  # bitsandbytes prints when it is imported
            from r1recipes.training.backends.chat import Chat, Sampling

            self.sampling = Sampling(args.temperature, args.top_p, args.max_tokens, args.seed)
            self.chat = Chat(
                plan,
                run.base,
                run.adapter,
                run.chat_template(),
                offline=settings.offline,
            )
        self.begin()

    def begin(self) -> None:
        """Start both conversations anew."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        self.messages = {model: list(first) for model in MODELS}

    def ask(self, question: str) -> None:
        """Let both models answer; if one cannot, the conversations stay as they were.

        Raises: RecipeError when the question cannot be answered.
        """
        if any("\ud800" <= letter <= "\udfff" for letter in question):  # bytes that are not UTF-8
            hint = "type it again, in a terminal whose locale is UTF-8, such as LANG=C.UTF-8"
            raise RecipeError("the question is not valid UTF-8", hint=hint)
        messages = {model: [*self.messages[model], _message("user", question)] for model in MODELS}
        with _view() as view:
            for model in MODELS:
                view.begin(model)
                sample = self.chat.answer(
                    messages[model], self.sampling, model == "trained", view.text
                )
                view.end(f"{sample.num_tokens} tokens" + (", cut" if sample.cut else ""))
                messages[model].append(_message("assistant", sample.text))
        self.messages = messages


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what libraries print while they load; a failure still raises its exception."""
    from r1recipes.machine.terminal import Capture

    with Capture():
        yield


@contextmanager
def _view() -> Iterator[_Lines | _Columns]:
    """Two columns in a terminal that is wide enough, or else one answer after the other."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal or console.is_dumb_terminal or console.width < 60:
        yield _Lines()
        return
    columns = _Columns(console)
    with Live(get_renderable=columns.latest, console=console, transient=True):
        yield columns
    console.print(columns.whole())


class _Lines:
    """One answer after the other, as it comes."""

    def begin(self, model: str) -> None:
        print(f"{model}:", flush=True)

    def text(self, part: str) -> None:
        print(printable(part), end="", flush=True)

    def end(self, note: str) -> None:
        print(f"\n({note})\n", flush=True)


class _Columns:
    """A column for each model."""

    def __init__(self, console: Console):
        self.console, self.model = console, MODELS[0]
        self.texts, self.notes = dict.fromkeys(MODELS, ""), dict.fromkeys(MODELS, "")

    def begin(self, model: str) -> None:
        self.model = model

    def text(self, part: str) -> None:
        self.texts[self.model] += printable(part)

    def end(self, note: str) -> None:
        self.notes[self.model] = note

    def whole(self) -> Table:
        """Both answers in full."""
        return self._table(10**6)

    def latest(self) -> Table:
        """The end of each answer, as much as the terminal holds."""
        return self._table(self.console.height - 4)

    def _table(self, num_lines: int) -> Table:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(expand=True)
        width = self.console.width // 2 - 4  # of the text in a panel
        panels = []
        for model in MODELS:
            table.add_column(ratio=1)
            lines = Text(self.texts[model]).wrap(self.console, width)[-num_lines:]
            panels.append(Panel(Text("\n").join(lines), title=model, subtitle=self.notes[model]))
        table.add_row(*panels)
        return table
