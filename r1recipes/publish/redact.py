"""Keep what belongs to this machine and its user out of what is shared.

Paths are taken out of what programs wrote; in what the user wrote they are only found, since a
change would change its hash. Tokens are found everywhere. Limits: tokens of known shapes, those of
the environment and the Hub's own; a compressed .parquet is not seen through.
"""

import os
import re
from pathlib import Path
from typing import Any

from r1recipes.errors import Problem
from r1recipes.recipe.bundle import Files

_TOKEN = re.compile(
    rb"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    rb"|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abps]-[\w-]{10,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
MIN_SECRET = 8
"""Shorter values of the environment would be found by chance."""
# An absolute path of two parts or more; not the path of a URL.
_PATH = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:'\"`]+/)+([^\s/:'\"`]*)")


def strip_folders(text: str, folders: list[Path]) -> str:
    """A text in which these folders are their last part alone, and the home folder is `~`."""
    for folder in sorted({str(folder.absolute()) for folder in folders}, key=len, reverse=True):
        if folder.count("/") > 1:
            text = text.replace(folder, f".../{Path(folder).name}")
    return strip_home(text)


def strip_paths(value: Any) -> Any:
    """JSON data in which every absolute path is its last part alone: `.../small.toml`."""
    if isinstance(value, dict):
        return {strip_paths(key): strip_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strip_paths(item) for item in value]
    if isinstance(value, str):
        return _PATH.sub(r".../\1", strip_home(value))
    return value


def strip_home(text: str) -> str:
    """A text with `~` in place of the home folder."""
    home = _home()
    return home.sub("~", text) if home else text


def problems(files: Files) -> list[Problem]:
    """What may not be shared, each with its file and line; the token itself is not repeated."""
    secrets = _secrets()
    found, home = [], _home()
    for name, content in files.items():
        for match in _TOKEN.finditer(content):
            found.append(_problem(name, content, match.start(), "what looks like a token"))
        for what, secret in secrets.items():
            if (at := content.find(secret)) >= 0:
                found.append(_problem(name, content, at, f"the value of {what}"))
        text = content.decode("latin-1")  # one character a byte, whatever the file is
        if home and (match := home.search(text)):
            found.append(_problem(name, content, match.start(), "the path of your home folder"))
    return list(dict.fromkeys(found))


def _problem(name: str, content: bytes, at: int, what: str) -> Problem:
    line = content.count(b"\n", 0, at) + 1
    return Problem(f"has {what}", f"{name}:{line}", "take it out; nothing was written or sent")


def _secrets() -> dict[str, bytes]:
    """What the environment and the Hub's own file keep secret -> its value."""
    from huggingface_hub import get_token

    found = {f"${name}": value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    found["your token for the Hub"] = get_token() or ""
    return {
        name: value.encode(errors="surrogateescape")
        for name, value in found.items()
        if len(value) >= MIN_SECRET and not Path(value).exists()
    }


def _home() -> re.Pattern[str] | None:
    """The home folder as a whole word; None where it is `/`, which says nothing of its user."""
    home = str(Path.home()).rstrip("/")
    return re.compile(rf"(?<![\w.:/-]){re.escape(home)}(?![\w.-])") if home else None
