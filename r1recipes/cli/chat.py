"""`ask` and `chat`: the base and the trained model answer side by side."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from r1recipes.cli.common import offline_settings, whole_number
from r1recipes.errors import R1RecipesError, RecipeError

WHO = ("base", "trained")
HELP = "/new begins anew, /quit or Ctrl-D ends"


def add(commands: argparse._SubParsersAction) -> None:
    ask = commands.add_parser("ask", help="one question to the base and the trained model")
    chat = commands.add_parser("chat", help="talk to the base and the trained model side by side")
    for command in (ask, chat):
        command.add_argument("run", metavar="RUN", help="a run folder")
        command.add_argument("--temperature", type=_temperature, default=0.8, help="default 0.8")
        command.add_argument("--top-p", type=_share, default=0.95, help="default 0.95")
        command.add_argument("--max-tokens", type=whole_number, default=1024, help="default 1024")
        command.add_argument("--seed", type=int, default=3407, help="default 3407")
        command.add_argument("--offline", action="store_true", help="make no request to the Hub")
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
        raise argparse.ArgumentTypeError(f"`{text}` is no number from {low:g} to {high:g}")
    return value


def ask_command(args: argparse.Namespace) -> int:
    if not args.question.strip():
        raise RecipeError("the question is empty")
    talk = _Talk(args)
    talk.ask(args.question)
    return 0


def chat_command(args: argparse.Namespace) -> int:
    talk = _Talk(args)
    print(HELP, file=sys.stderr)
    for line in _lines():
        if line == "/quit":
            break
        if line == "/new":
            talk.begin()
        elif line:
            try:
                talk.ask(line)
            except R1RecipesError as error:  # such as a conversation that is full: go on with /new
                print(f"{error}; /new begins anew", file=sys.stderr)
    return 0


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


class _Talk:
    """Two conversations with the same questions, each with its own answers."""

    def __init__(self, args: argparse.Namespace):
        settings = offline_settings(args.offline)
        from r1recipes.machine import gpu
        from r1recipes.runs import trained
        from r1recipes.training.backends import prepare_environment

        found = trained.find(settings.runs_dir, args.run)
        plan = trained.for_answers(found.plan, gpu.current())
        prepare_environment(plan, settings.cache_dir)
        if plan.device != found.plan.device:
            print("no GPU: the model answers on the CPU, slowly", file=sys.stderr)
        self.system = plan.recipe.prompt.system
        with _quiet():  # bitsandbytes speaks up when it is imported
            from r1recipes.training.backends.chat import Chat, Sampling

            self.sampling = Sampling(args.temperature, args.top_p, args.max_tokens, args.seed)
            self.chat = Chat(
                plan,
                found.base,
                found.run.adapter,
                found.chat_template(),
                offline=settings.offline,
            )
        self.begin()

    def begin(self) -> None:
        first = [{"role": "system", "content": self.system}] if self.system else []
        self.messages = {who: list(first) for who in WHO}

    def ask(self, question: str) -> None:
        """Both answer; a question that cannot be answered leaves the conversations as they were."""
        if any("\ud800" <= letter <= "\udfff" for letter in question):  # bytes that are no UTF-8
            raise RecipeError("the question is no text in UTF-8")
        asked = {who: [*self.messages[who], _message("user", question)] for who in WHO}
        with _view() as view:
            for who in WHO:
                view.begin(who)
                sample = self.chat.answer(asked[who], self.sampling, who == "trained", view.text)
                view.end(f"{sample.num_tokens} tokens" + (", cut" if sample.cut else ""))
                asked[who].append(_message("assistant", sample.text))
        self.messages = asked


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@contextmanager
def _quiet() -> Iterator[None]:
    """Libraries say nothing while they load; what fails is told by its exception."""
    from r1recipes.machine.terminal import Capture

    with Capture():
        yield


@contextmanager
def _view() -> Iterator[Any]:
    """Two columns in a terminal that is wide enough, else one answer after the other."""
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
    def begin(self, who: str) -> None:
        print(f"{who}:", flush=True)

    def text(self, part: str) -> None:
        print(part, end="", flush=True)

    def end(self, note: str) -> None:
        print(f"\n({note})\n", flush=True)


class _Columns:
    def __init__(self, console: Any):
        self.console, self.who = console, WHO[0]
        self.texts, self.notes = dict.fromkeys(WHO, ""), dict.fromkeys(WHO, "")

    def begin(self, who: str) -> None:
        self.who = who

    def text(self, part: str) -> None:
        self.texts[self.who] += part

    def end(self, note: str) -> None:
        self.notes[self.who] = note

    def whole(self) -> Any:
        return self._table(10**6)

    def latest(self) -> Any:
        """The end of each answer, as much as the terminal holds."""
        return self._table(self.console.height - 4)

    def _table(self, num_lines: int) -> Any:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(expand=True)
        width = self.console.width // 2 - 4  # of the text in a panel
        panels = []
        for who in WHO:
            table.add_column(ratio=1)
            lines = Text(self.texts[who]).wrap(self.console, width)[-num_lines:]
            panels.append(Panel(Text("\n").join(lines), title=who, subtitle=self.notes[who]))
        table.add_row(*panels)
        return table
