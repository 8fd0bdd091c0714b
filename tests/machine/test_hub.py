"""What errors of the Hub's client mean, as they come and behind those of other libraries."""

import httpx
import pytest
from huggingface_hub import errors

from r1recipes.errors import RecipeError
from r1recipes.machine import hub

REQUEST = httpx.Request("GET", "https://hub/x")


def refused(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind("a long text", response=httpx.Response(status, request=REQUEST))


def behind(error: Exception) -> OSError:
    """As transformers passes it on."""
    wrapped = OSError("x is not a local folder and is not a valid model identifier ...")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize("wrap", [lambda error: error, behind])
@pytest.mark.parametrize(
    ("error", "predicate", "hint"),
    [
        (refused(errors.GatedRepoError, 403), "is gated: its owner", "ask for access"),
        (refused(errors.RepositoryNotFoundError, 404), "is not on the Hub, or", "check the name"),
        (
            refused(errors.RevisionNotFoundError, 404),
            "has no such branch, tag or commit",
            "the newest",
        ),
        (refused(errors.HfHubHTTPError, 401), "was refused by the Hub: HTTP 401", "set HF_TOKEN"),
        (refused(errors.HfHubHTTPError, 503), "was refused by the Hub: HTTP 503", "try again"),
        (errors.HFValidationError("no"), "is not a name on the Hub", "`owner/name`"),
        (httpx.ConnectError("no route"), "the Hub cannot be asked: no route", "a connection"),
        (httpx.ConnectError(""), "the Hub cannot be asked: ConnectError", "a connection"),
    ],
)
def test_each_has_a_sentence_and_a_way_out(wrap, error, predicate, hint):
    fault = hub.explain(wrap(error))
    assert predicate in fault.predicate
    assert hint in fault.hint


def test_what_is_not_cached_is_said_with_its_reason(monkeypatch):
    error = errors.LocalEntryNotFoundError("nothing there")
    assert hub.explain(error, offline=True).predicate.endswith("cache, and this is offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert hub.explain(error).predicate.endswith("cache, and the Hub cannot be asked")


def test_an_error_of_something_else_keeps_its_first_line():
    full = OSError(28, "No space left on device")
    fault = hub.explain(full)
    assert fault.predicate == "cannot be loaded: [Errno 28] No space left on device"
    assert "free some space" in fault.hint
    fault = hub.explain(ValueError("one\ntwo"))
    assert fault.predicate == "cannot be loaded: one" and "try again" in fault.hint


def test_a_reference_is_named_with_what_is_wrong():
    with pytest.raises(RecipeError) as raised, hub.hub_errors("hub:me/x"):
        raise refused(errors.GatedRepoError, 403)
    (problem,) = raised.value.problems
    assert (problem.where, problem.message) == ("hub:me/x", hub.GATED)
    with pytest.raises(RecipeError, match="already a sentence"), hub.hub_errors("hub:me/x"):
        raise RecipeError("already a sentence")
    with pytest.raises(KeyError), hub.hub_errors("hub:me/x"):
        raise KeyError("a defect")
