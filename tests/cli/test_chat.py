"""`chat`: what a line means that begins with a slash."""

import pytest

from r1recipes.cli import chat
from tests.cli.test_runs import Terminal
from tests.helpers import in_process

pytestmark = pytest.mark.slow


@pytest.fixture
def spoken(finished, monkeypatch):
    """Types lines into `chat` about a trained run, and returns what it prints."""

    def speak(*lines: str) -> tuple[str, str]:
        monkeypatch.setattr("sys.stdin", Terminal("\n".join([*lines, ""])))
        code, out, err = in_process("chat", finished.folder, "--max-tokens", "4", "--offline")
        assert code == 0
        return out, err

    return speak


def test_help_names_every_command(spoken):
    out, err = spoken("/help", "/?")
    assert out.replace("> ", "") == ""
    for command in chat.COMMANDS:
        assert err.count(f"{command} ") == 2


def test_quit_ends_before_the_next_line(spoken):
    out, _ = spoken("/quit", "1+2=")
    assert "base:" not in out
    assert "base:" not in spoken("/exit", "1+2=")[0]


def test_system_sets_shows_and_removes_the_prompt_and_begins_anew(spoken):
    _, err = spoken("/system You add numbers.", "/system", '/system ""', "/system")
    assert "a new conversation, with this system prompt" in err
    assert "the system prompt: You add numbers." in err
    assert "with no system prompt" in err and "there is no system prompt" in err


def test_what_the_models_are_asked_follows_the_commands(finished, monkeypatch, spoken):
    asked = []
    answer = chat._Talk.ask

    def listening(self, question):
        answer(self, question)
        asked.append([message["role"] for message in self.messages["trained"]])

    monkeypatch.setattr(chat._Talk, "ask", listening)
    spoken("/system Add.", "1+2=", "3+4=", "/reset", "5+6=", '/system ""', "7+8=", " /1")
    turn = ["user", "assistant"]
    system = ["system"]
    assert asked[:3] == [[*system, *turn], [*system, *turn, *turn], [*system, *turn]]
    assert asked[3:] == [turn, [*turn, *turn]]


@pytest.mark.parametrize(
    ("line", "answer"),
    [("/rest", "did you mean `/reset`?"), ("/frobnicate", "`/help` shows the commands")],
)
def test_an_unknown_command_is_answered_and_not_asked(spoken, line, answer):
    out, err = spoken(line)
    assert f"`{line}` is not a command: {answer}" in err and "base:" not in out
