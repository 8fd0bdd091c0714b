"""Errors in a terminal and elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

from tests.helpers import command


def in_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal, which is both its stdout and its stderr."""
    ours, theirs = pty.openpty()
    start = [sys.executable, "-m", "r1recipes", *arguments]
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", "FORCE_COLOR")}
    child = subprocess.Popen(start, stdout=theirs, stderr=theirs, env=base | environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert child.wait() == 2
    return b"".join(parts).decode()


def test_an_error_has_colour_in_a_terminal():
    text = in_terminal("rum", TERM="xterm-256color")
    assert "\x1b[1;31merror: \x1b[0m`rum` is not a command" in text
    assert "\x1b[36m  hint: \x1b[0mdid you mean" in text


@pytest.mark.parametrize(
    "environment", [{"NO_COLOR": "1", "TERM": "xterm-256color"}, {"TERM": "dumb"}]
)
def test_a_terminal_without_colour_gets_none(environment):
    text = in_terminal("rum", **environment)
    assert "error: `rum` is not a command" in text and "\x1b" not in text


def test_a_file_gets_no_colour(tmp_path):
    done = command("rum", cwd=tmp_path, TERM="xterm-256color")
    assert done.stderr.startswith("error: `rum` is not a command") and "\x1b" not in done.stderr


def test_a_long_hint_is_one_line_in_a_terminal_so_that_it_can_be_copied():
    text = in_terminal("ask", "tiny", TERM="xterm", COLUMNS="40")
    assert len(text.splitlines()) == 2
