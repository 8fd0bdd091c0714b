"""What of the Hugging Face Hub is on this machine: cache and token, without a request or import.

Folders and variables are those of huggingface_hub 1 and datasets 4.
"""

import os
import re
from contextlib import contextmanager
from pathlib import Path

from r1recipes.errors import RecipeError

TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")
"""Shape of an access token; its length has changed over the years, its prefix has not."""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids requests, as its libraries read it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _home() -> str:
    general = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.environ.get("HF_HOME", f"{general}/huggingface")


def cache() -> Path:
    """The folder of downloaded models."""
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", f"{_home()}/hub")
    return Path(os.environ.get("HF_HUB_CACHE", older)).expanduser()


def token() -> str | None:
    """The access token that the libraries would use."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if found := os.environ.get(name, "").strip():
            return found
    path = Path(os.environ.get("HF_TOKEN_PATH", f"{_home()}/token")).expanduser()
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


@contextmanager
def hub_errors(reference: str):
    """Errors of huggingface_hub as one line each. Raises: RecipeError."""
    import httpx
    from huggingface_hub import errors

    try:
        yield
    except RecipeError:
        raise
    except errors.GatedRepoError as error:
        hint = "ask for access on its page, then set HF_TOKEN"
        raise RecipeError.at(
            reference, "is gated: its owner decides who may read it", hint
        ) from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the name; for a private one set HF_TOKEN"
        raise RecipeError.at(reference, "is not on the Hub, or it is private", hint) from error
    except errors.RevisionNotFoundError as error:
        raise RecipeError.at(reference, "has no such branch, tag or commit") from error
    except errors.HfHubHTTPError as error:
        hint = _TOKEN if error.response.status_code in (401, 403) else "try again later"
        reason = f"HTTP {error.response.status_code} {error.response.reason_phrase}"
        raise RecipeError.at(reference, f"the Hub refused: {reason}", hint) from error
    except (httpx.HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise RecipeError.at(
            reference, f"the Hub cannot be asked: {reason[0][:200]}", _ONLINE
        ) from error


_TOKEN = "set HF_TOKEN to a token that may do this (https://huggingface.co/settings/tokens)"
_ONLINE = "with a connection, and without HF_HUB_OFFLINE; HF_ENDPOINT must be the Hub or a mirror"
