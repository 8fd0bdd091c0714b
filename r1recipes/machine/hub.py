"""The Hugging Face Hub: what of it is on this machine, and what its errors mean. The only
request is the one that asks whether it answers.

Folders and variables are those of huggingface_hub 1 and datasets 4.
"""

import functools
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from r1recipes.errors import RecipeError, first_line, is_full

TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")
"""Shape of an access token; its length has changed over the years, its prefix has not."""


ADAPTER = "adapter_config.json"
"""The file that tells an adapter in PEFT's format."""
HASHED = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt")
"""Files of a model's folder that answers depend on."""


def model_sha256(folder: Path) -> str:
    """The hash (hex) of everything in a model's folder that answers depend on."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in HASHED for path in folder.glob(pattern)}):
        digest.update(path.name.encode() + b"\0")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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


def has_adapter(name: str) -> bool:
    """Whether a repository is in the cache and holds a PEFT adapter."""
    folder = cache() / f"models--{name.replace('/', '--')}"
    return any(folder.glob(f"snapshots/*/{ADAPTER}"))


def adapter_fault(name: str) -> tuple[str, str]:
    """Message and hint about an adapter on the Hub that is named as a model."""
    folder = name.rpartition("/")[2]
    return (
        f"`{name}` on the Hub is an adapter, not a model",
        f"download it and name the folder: `hf download {name} --local-dir {folder}`, then "
        f"`--set model.name={folder}`",
    )


def datasets_cache() -> Path:
    """The folder of downloaded data sets."""
    return Path(os.environ.get("HF_DATASETS_CACHE", f"{_home()}/datasets")).expanduser()


def token() -> str | None:
    """The access token that the libraries would use."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if value := os.environ.get(name, "").strip():
            return value
    path = Path(os.environ.get("HF_TOKEN_PATH", f"{_home()}/token")).expanduser()
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def answers() -> bool:
    """Whether the Hub answers at all, which its client would try to find out for minutes."""
    from huggingface_hub import constants

    return not is_offline() and _answers(constants.ENDPOINT)


@functools.cache
def _answers(endpoint: str) -> bool:
    import httpx

    try:
        httpx.head(endpoint, timeout=ANSWER_S)
    except httpx.HTTPError:
        return False
    return True


ANSWER_S = 10.0
"""Seconds after which a Hub that has not answered is not asked again; assumed."""
GATED = "is gated: its owner decides who may read it"


class Fault(NamedTuple):
    """Why a repository of the Hub cannot be read or written."""

    predicate: str
    """The rest of a sentence that begins with the repository's name."""
    hint: str


def explain(error: BaseException, *, offline: bool = False) -> Fault:
    """What an error of the Hub's client means, also behind an error of another library.

    `offline`: no request was to be made.
    """
    import httpx
    from huggingface_hub import errors

    for cause in _causes(error):
        match cause:
            case errors.GatedRepoError():
                return Fault(GATED, "ask for access on its page, then set HF_TOKEN")
            case errors.RepositoryNotFoundError():
                hint = "check the name; for a private one set HF_TOKEN"
                return Fault("is not on the Hub, or it is private", hint)
            case errors.RevisionNotFoundError():
                hint = "without a revision the newest commit is taken"
                return Fault("has no such branch, tag or commit", hint)
            case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled():
                why = "this is offline" if offline or is_offline() else "the Hub cannot be asked"
                return Fault(f"is not in the Hub's cache, and {why}", _ONLINE)
            case errors.HFValidationError():
                return Fault("is not a name on the Hub", "a name there is `owner/name`")
            case errors.HfHubHTTPError(response=response):
                hint = _TOKEN if response.status_code in (401, 403) else "try again later"
                reason = f"HTTP {response.status_code} {response.reason_phrase}"
                return Fault(f"was refused by the Hub: {reason}", hint)
            case httpx.TransportError() | ConnectionError():
                reason = first_line(cause)[:200]
                return Fault(f"cannot be loaded: the Hub cannot be asked: {reason}", _ONLINE)
    hint = "try again; if it stays so, remove its folder from the Hub's cache (HF_HOME)"
    if is_full(error):
        hint = "free some space, or set HF_HOME to a folder on another disk"
    return Fault(f"cannot be loaded: {first_line(error)[:200]}", hint)


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an error of the Hub's client says nothing of the repository: there is no connection,
    or none was to be made, or the Hub has a fault or too much to do."""
    import httpx
    from huggingface_hub import errors

    cut_off = (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        httpx.TransportError,
        ConnectionError,
    )
    for cause in _causes(error):
        if isinstance(cause, cut_off):
            return True
        if isinstance(cause, errors.HfHubHTTPError):
            return cause.response.status_code in (408, 429) or cause.response.status_code >= 500
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


@contextmanager
def hub_errors(reference: str) -> Iterator[None]:
    """Errors of huggingface_hub as one line each. Raises: RecipeError."""
    import httpx

    try:
        yield
    except RecipeError:
        raise
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise RecipeError.at(reference, *explain(error)) from error


_TOKEN = "set HF_TOKEN to a token that may do this (https://huggingface.co/settings/tokens)"
_ONLINE = "with a connection, and without HF_HUB_OFFLINE; HF_ENDPOINT must be the Hub or a mirror"
