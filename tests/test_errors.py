"""Errors of other libraries, as the user reads them."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from r1recipes import errors
from r1recipes.errors import MAX_GIVEN, MAX_MESSAGE, Problem, RecipeError, RunError, listed, visible

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
QUOTA = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
DENIED = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
SAFETENSORS = Exception("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("error", [FULL, QUOTA, SAFETENSORS])
def test_a_full_disk_is_named_with_its_folder_and_a_way_out(error):
    with pytest.raises(RunError, match="`/cache` cannot be written: No space left") as raised:
        with errors.full_disk(Path("/cache"), "set R1RECIPES_CACHE_DIR to another folder"):
            raise error
    assert raised.value.kind == "disk" and raised.value.__cause__ is error
    (problem,) = raised.value.problems
    assert problem.hint == "free some space, or set R1RECIPES_CACHE_DIR to another folder"


@pytest.mark.parametrize("error", [DENIED, ValueError("other"), RunError(str(FULL), kind="disk")])
def test_other_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised, errors.full_disk(Path("/cache"), "a hint"):
        raise error
    assert raised.value is error


def test_a_place_that_may_not_be_written_is_the_users_choice():
    assert isinstance(errors.unwritable(Path("/x"), DENIED), RecipeError)
    assert isinstance(errors.unwritable(Path("/x"), FULL), RunError)


def test_the_first_line_of_an_error_without_text_is_its_kind():
    assert errors.first_line(ValueError("\n one\ntwo")) == "one"
    assert errors.first_line(KeyboardInterrupt()) == "KeyboardInterrupt"


HIDDEN = [
    "\x1b[2J", "\x07", "\r", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\u200d",
    "\u200e", "\ufeff", "\u2028", "\u034f", "\u115f", "\u3164", "\u2800", "\U000e0041",
    "\U000e0101", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("hidden", HIDDEN, ids=ascii)
def test_nothing_that_is_hidden_is_shown_as_it_is(hidden):
    for text in (visible(f"a{hidden}b"), visible(f"a{hidden}b", lines=True)):
        assert hidden not in text and "\\U" in text and text.isprintable()
        assert visible(text) == text
    problem = Problem(f"unknown key `a{hidden}b`", f"{hidden}.toml:1:1", f"remove {hidden}")
    assert all(
        text.isprintable() and hidden not in text
        for text in (problem.message, problem.where or "", problem.hint or "")
    )


def test_what_people_write_stays():
    for text in ("Größe 10 µm", "数学　問題", "5\u00a0%", "naïve ❤️", "שלום"):
        assert visible(text) == text
    assert visible("a\n\tb", lines=True) == "a\n\tb" and "\n" not in visible("a\nb")


@pytest.mark.parametrize("quote", ["`{}`", '"{}"', "{}", "is not valid: {}"])
def test_a_message_has_at_most_300_characters_of_what_was_given(quote):
    problem = Problem("unknown key " + quote.format("k" * 900_000), "k" * 900_000, "k" * 900_000)
    for text in (problem.message, problem.hint or ""):
        assert text.count("k") <= MAX_GIVEN + 2 and " ... " in text
    words = Problem("is wrong: " + "word " * 100_000)
    assert len(words.message) <= MAX_MESSAGE
    assert len(listed("x" * 250 for _ in range(20))) < 400


@pytest.mark.parametrize("started", ["-m", "script"])
def test_hints_name_the_program_as_it_was_started(started, tmp_path):
    script = shutil.which("r1recipes", path=str(Path(sys.executable).parent))
    start = [sys.executable, "-m", "r1recipes"] if started == "-m" else [script]
    assert script is not None
    done = subprocess.run([*start, "report"], capture_output=True, text=True, cwd=tmp_path)
    name = f"{Path(sys.executable).name} -m r1recipes" if started == "-m" else "r1recipes"
    assert f"hint: `{name} run tiny`" in done.stderr


def test_a_command_can_be_pasted_into_a_shell():
    assert errors.command("run", "--resume", Path("runs/my run")) == (
        "r1recipes run --resume 'runs/my run'"
    )
