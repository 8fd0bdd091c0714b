"""Errors of other libraries, as the user reads them."""

import errno
import os
from pathlib import Path

import pytest

from r1recipes import errors
from r1recipes.errors import RecipeError, RunError

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
