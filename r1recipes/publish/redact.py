"""Keep paths of this machine and secrets of its user out of what is shared.

Paths are removed from what programs wrote. In what the user wrote they are reported only, since a
change would change its hash. Tokens are reported everywhere. Limits: only tokens of known forms,
those in the environment, and the Hub's own are recognised; compressed .parquet files are not
searched.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from r1recipes.errors import Problem
from r1recipes.recipe.bundle import Files
from r1recipes.rewards.judge import consent
from r1recipes.rewards.judge.section import Judge

_TOKEN = re.compile(
    rb"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}"
    rb"|\bgithub_pat_\w{30,}|\bglpat-[\w-]{20,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abps]-[\w-]{10,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL", re.IGNORECASE)
MIN_SECRET = 8
"""Characters; shorter values of the environment would also match by chance. Assumed."""
# An absolute path of two parts or more, but not the path of a URL.
_PATH = re.compile(r"(?<![\w.:/~-])/(?:[^\s/:'\"`]+/)+([^\s/:'\"`]*)")


def strip_folders(text: str, folders: list[Path]) -> str:
    """Shorten these folders in a text to their last part, and the home folder to `~`."""
    for folder in sorted({str(folder.absolute()) for folder in folders}, key=len, reverse=True):
        if folder.count("/") > 1:
            text = text.replace(folder, f".../{Path(folder).name}")
    return strip_home(text)


def strip_paths(value: Any) -> Any:
    """Shorten every absolute path in JSON data to its last part, such as `.../small.toml`."""
    if isinstance(value, dict):
        return {strip_paths(key): strip_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [strip_paths(item) for item in value]
    if isinstance(value, str):
        return _PATH.sub(r".../\1", strip_home(value))
    return value


def strip_home(text: str) -> str:
    """Replace the home folder in a text by `~`."""
    home = _home()
    return home.sub("~", text) if home else text


def without_address(files: Files, names: list[str], judge: Judge | None) -> Files:
    """What programs wrote, without the private address of a judge."""
    if judge is None or judge.url is None or consent.place_of(judge.url) != "private":
        return {}
    old, new = (urlsplit(url).netloc.encode() for url in (judge.url, consent.STANDS_FOR))
    return {name: files[name].replace(old, new) for name in names if name in files}


def problems(files: Files, variables: Collection[str] = ()) -> list[Problem]:
    """What may not be shared, each with its file and line; the token itself is not repeated.

    `variables` of the environment hold secrets too, whatever they are called.
    """
    secrets, home = _secrets(variables), _home()
    leaks = []
    for name, content in files.items():
        for token in _TOKEN.finditer(content):
            leaks.append(_problem(name, content, token.start(), "what looks like a token"))
        for origin, secret in secrets.items():
            if (start := content.find(secret)) >= 0:
                leaks.append(_problem(name, content, start, f"the value of {origin}"))
        text = content.decode("latin-1")  # one character a byte, whatever the file is
        if home and (path := home.search(text)):
            leaks.append(_problem(name, content, path.start(), "the path of your home folder"))
    return list(dict.fromkeys(leaks))


def _problem(name: str, content: bytes, start: int, secret: str) -> Problem:
    """`start` is the position in `content`, in bytes."""
    line = content.count(b"\n", 0, start) + 1
    return Problem(f"has {secret}", f"{name}:{line}", "remove it; nothing was written or sent")


def _secrets(variables: Collection[str]) -> dict[str, bytes]:
    """Origin of each secret, such as `$API_KEY`, -> its value."""
    from huggingface_hub import get_token

    secrets = {
        f"${name}": value
        for name, value in os.environ.items()
        if name in variables or _SECRET_NAME.search(name)
    }
    secrets["your token for the Hub"] = get_token() or ""
    return {
        name: value.encode(errors="surrogateescape")
        for name, value in secrets.items()
        if len(value) >= MIN_SECRET and not Path(value).exists()
    }


def _home() -> re.Pattern[str] | None:
    """Finds the home folder as a whole path; None where it is `/`, which names no user."""
    home = str(Path.home()).rstrip("/")
    return re.compile(rf"(?<![\w.:/-]){re.escape(home)}(?![\w.-])") if home else None
