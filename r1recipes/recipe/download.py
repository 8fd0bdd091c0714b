"""Download single files of a recipe: from the Hub with its own client, or over https.

Limits: https alone, and http to this machine; no redirect to anything else; sizes and times are
bounded. Tokens go to the Hub only, by huggingface_hub. Nothing is written but the Hub's own cache.
"""

from __future__ import annotations

import ipaddress
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from r1recipes.errors import RecipeError
from r1recipes.machine.hub import hub_errors
from r1recipes.recipe import bundle
from r1recipes.recipe.bundle import Reader

if TYPE_CHECKING:
    import httpx
    from huggingface_hub import HfApi

CONNECT_LIMIT_S = 10.0
TOTAL_LIMIT_S = 120.0
"""Seconds for one file over https, however slowly it comes; assumed."""
MAX_REDIRECTS = 5
_HUB = re.compile(
    r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)"
    r"(@(?P<revision>refs/pr/\d+|[\w.-]+))?(/(?P<path>[^@]*))?",
    re.ASCII,
)

_ADDRESS = "https://..., or hub:user/name for the Hub"
_BY_HAND = "download it with a browser, and name the file in place of the address"


@dataclass(frozen=True)
class HubReference:
    """`hub:user/name[@revision][/path]`."""

    repo: str
    revision: str | None
    path: str


@dataclass(frozen=True)
class Opened:
    """What stands behind a reference: a bundle's bytes, or else a way to read single files."""

    read: Reader
    recipe_name: str = "recipe.toml"
    archive: bytes | None = None
    commit: str | None = None
    """The commit, if it is from a repository on the Hub."""


def parse_hub(reference: str) -> HubReference:
    """The parts of hub:user/name[@revision][/path]. Raises: RecipeError for another text."""
    match = _HUB.fullmatch(reference)
    if not match or ".." in reference:
        hint = "hub:user/name[@revision][/path]"
        raise RecipeError.at(reference, "is not a reference to the Hub", hint)
    path = (match["path"] or "").strip("/")
    if path:
        bundle.check_name(path, reference)
    return HubReference(match["repo"], match["revision"], path)


def asked_commit(reference: str) -> str | None:
    """The commit that a reference names in full, so that it can never mean anything else."""
    if not reference.startswith("hub:"):
        return None
    revision = parse_hub(reference).revision or ""
    return revision if re.fullmatch(r"[0-9a-f]{40}", revision) else None


def stem(reference: str) -> str:
    """A name for the recipe: the last part of its reference that is not `recipe.toml`."""
    if reference.startswith("hub:"):
        parsed = parse_hub(reference)
        parts = [parsed.repo.split("/")[1], *parsed.path.split("/")]
    else:
        parts = urlsplit(reference).path.split("/")
    names = [part for part in parts if part not in ("", "recipe.toml")]
    return names[-1] if names else "recipe"


def open_reference(reference: str) -> Opened:
    """What stands behind a reference. Raises: RecipeError when that cannot be read."""
    if reference.startswith("hub:"):
        return _open_hub(parse_hub(reference), reference)
    content = download(reference)
    if content.startswith(b"PK\x03\x04"):
        return Opened(lambda name: None, archive=content)
    if content.lstrip()[:1] == b"<":
        hint = "take the link to the raw file"
        raise RecipeError.at(reference, "is a web page, not a recipe", hint)
    # A single file: other files that it names are refused; a bundle can bring them.
    return Opened({"the recipe": content}.get, "the recipe")


def download(url: str) -> bytes:
    """The bytes at a URL. Raises: RecipeError."""
    import httpx

    deadline = time.monotonic() + TOTAL_LIMIT_S
    start, current = url, url
    try:
        with httpx.Client(timeout=CONNECT_LIMIT_S, headers={"Accept-Encoding": "identity"}) as http:
            for _ in range(MAX_REDIRECTS + 1):
                _check_url(current, start)
                with http.stream("GET", current) as response:
                    if not response.is_redirect:
                        return _body(response, url, deadline)
                    current = urljoin(current, response.headers["location"])
    except httpx.InvalidURL as error:
        raise RecipeError.at(url, f"is not a valid URL: {error}", _ADDRESS) from error
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        message = f"cannot be reached: {reason}"
        raise RecipeError.at(url, message, f"try again, or {_BY_HAND}") from error
    raise RecipeError.at(url, f"is redirected more than {MAX_REDIRECTS} times", _BY_HAND)


def _check_url(url: str, start: str) -> None:
    """Raises: RecipeError unless it is https, or http to this machine that was asked for."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RecipeError.at(start, f"is not a valid URL: {error}", _ADDRESS) from error
    subject = "is" if url == start else f"is redirected to `{url[:100]}`, which is"
    if parts.username or parts.password:
        message, where = f"{subject} a URL with a password in it", _without_password(start)
        raise RecipeError.at(where, message, f"leave the password out, or {_BY_HAND}")
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and _is_this_machine(host) and start.startswith("http://"):
        return
    message = f"{subject} not {'https' if host else 'a web address'}"
    raise RecipeError.at(start, message, _ADDRESS)


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(response: httpx.Response, url: str, deadline: float) -> bytes:
    if response.status_code != 200:
        raise _refused(url, response.status_code, response.reason_phrase)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RecipeError.at(url, "is sent compressed, which was not asked for", _BY_HAND)
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > bundle.MAX_BYTES:
            message = f"has more than {bundle.MAX_BYTES // 2**20} MiB"
            raise RecipeError.at(url, message, bundle.TOO_LARGE)
        if time.monotonic() > deadline:
            message = f"takes more than {TOTAL_LIMIT_S:.0f} s"
            raise RecipeError.at(url, message, f"try again, or {_BY_HAND}")
    return bytes(content)


def _refused(url: str, status: int, reason: str) -> RecipeError:
    """The error for an answer of a server that is not the file."""
    if status in (401, 403):
        hint = f"it may be private: {_BY_HAND}"
    elif status in (408, 429) or status >= 500:
        hint = f"try again later, or {_BY_HAND}"
    else:
        hint = "check the address: it must be that of the file itself"
    return RecipeError.at(url, f"was not sent: HTTP {status} {reason}", hint)


def _open_hub(parsed: HubReference, reference: str) -> Opened:
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(reference):
        info = api.model_info(parsed.repo, revision=parsed.revision)
    commit, names = info.sha or "", {file.rfilename for file in info.siblings or []}
    folder, recipe_name = parsed.path, "recipe.toml"
    if parsed.path.endswith(".toml"):
        path = PurePosixPath(parsed.path)
        folder, recipe_name = str(path.parent) if path.parent.name else "", path.name

    def read(name: str) -> bytes | None:
        path = f"{folder}/{name}" if folder else name
        return _hub_file(api, parsed.repo, commit, path, reference) if path in names else None

    if parsed.path.endswith(bundle.SUFFIX):
        content = _hub_file(api, parsed.repo, commit, parsed.path, reference)
        return Opened(read, archive=content, commit=commit)
    return Opened(read, recipe_name, commit=commit)


def _hub_file(api: HfApi, repo: str, commit: str, path: str, reference: str) -> bytes:
    from huggingface_hub import RepoFile
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    with hub_errors(reference):
        entries = api.get_paths_info(repo, [path], revision=commit)
        sizes = [entry.size for entry in entries if isinstance(entry, RepoFile)]
        if not sizes:
            hint = "check the path on the page of the repository, and its revision"
            raise RecipeError.at(reference, f"has no file `{path}`", hint)
        if sizes[0] > bundle.MAX_BYTES:
            message = f"`{path}` has {sizes[0] / 1e6:.0f} MB; a bundle has 64 MiB"
            raise RecipeError.at(reference, message, bundle.TOO_LARGE)
        disable_progress_bars()
        try:
            local = api.hf_hub_download(repo, path, revision=commit)
        finally:
            enable_progress_bars()
    with open(Path(local), "rb") as file:
        return file.read(bundle.MAX_BYTES + 1)
