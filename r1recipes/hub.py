"""What of the Hugging Face Hub is on this machine: cache and token, without a request or import.

Folders and variables are those of huggingface_hub 1 and datasets 4.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from r1recipes import catalog

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


def has_model(name: str, *, four_bit: bool) -> bool:
    """Whether the weights of a model are cached, in 16 bits or in the 4-bit form that is asked."""
    return any(
        any(map(_is_whole, folder.glob("snapshots/*"))) for folder in _cached(name, four_bit)
    )


def downloaded_bytes(name: str, *, four_bit: bool) -> int:
    """What is cached of a model, also of a download that was cut off and will go on."""
    return max(
        (
            sum(blob.stat().st_size for blob in folder.glob("blobs/*"))
            for folder in _cached(name, four_bit)
        ),
        default=0,
    )


def _cached(name: str, four_bit: bool) -> Iterator[Path]:
    """Folders of the repositories that have a model in that form."""
    shape = catalog.find(name)
    for folder in cache().glob("models--*"):
        cached = folder.name.removeprefix("models--").replace("--", "/")
        if shape is None or name.lower().endswith("-bnb-4bit"):
            if cached == name:
                yield folder
        elif catalog.find(cached) is shape and _is_form(cached.lower(), four_bit):
            yield folder


def _is_form(name: str, four_bit: bool) -> bool:
    """Whether a repository has the form that is loaded: in 4 bits not Unsloth's dynamic one."""
    if not four_bit:
        return not name.endswith("bnb-4bit")
    return name.endswith("-bnb-4bit") and not name.endswith("-unsloth-bnb-4bit")


def _is_whole(snapshot: Path) -> bool:
    """Whether all weights of a snapshot are there: a download that was cut off leaves some."""
    try:
        index = json.loads((snapshot / "model.safetensors.index.json").read_text())
        return all((snapshot / name).exists() for name in set(index["weight_map"].values()))
    except OSError:  # one file needs no index
        return any(file.exists() for file in snapshot.glob("*.safetensors"))
    except (ValueError, KeyError):
        return False


def has_data(name: str) -> bool:
    """Whether a data set is cached."""
    folder = Path(os.environ.get("HF_DATASETS_CACHE", f"{_home()}/datasets")).expanduser()
    return (folder / name.replace("/", "___")).is_dir()
