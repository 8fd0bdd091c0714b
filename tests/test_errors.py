"""Errors of other libraries, as the user reads them."""

import errno
import os
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
