"""Read single files of a recipe over the network: from the Hub by its own client, or over https.

Limits: https alone, and http to this machine; no redirect to anything else; sizes and times are
bounded. Tokens go to the Hub only, by huggingface_hub. Nothing is written but the Hub's own cache.
"""

import ipaddress
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

from r1recipes.errors import RecipeError
from r1recipes.machine.hub import hub_errors
from r1recipes.recipe import bundle
from r1recipes.recipe.bundle import Reader

CONNECT_LIMIT_S = 10.0
TOTAL_LIMIT_S = 120.0
"""Seconds for one file over https, however slowly it comes; assumed."""
MAX_REDIRECTS = 5
_HUB = re.compile(
    r"hub:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)"
    r"(@(?P<revision>refs/pr/\d+|[\w.-]+))?(/(?P<path>[^@]*))?",
    re.ASCII,
)


@dataclass(frozen=True)
class HubReference:
    """`hub:user/name[@revision][/path]`."""

    repo: str
    revision: str | None
    path: str


@dataclass(frozen=True)
class Opened:
    """What a reference means: a bundle's bytes, or else a way to read single files."""

    read: Reader
    recipe_name: str = "recipe.toml"
    archive: bytes | None = None
    commit: str | None = None
    """On the Hub."""


def parse_hub(reference: str) -> HubReference:
    """Raises: RecipeError unless it is hub:user/name[@revision][/path]."""
    found = _HUB.fullmatch(reference)
    if not found or ".." in reference:
        raise RecipeError.at(
            reference, "is no reference to the Hub", "hub:user/name[@revision][/path]"
        )
    path = (found["path"] or "").strip("/")
    if path:
        bundle.check_name(path, reference)
    return HubReference(found["repo"], found["revision"], path)


def asked_commit(reference: str) -> str | None:
    """The commit that a reference names in full, which can never mean anything else."""
    if not reference.startswith("hub:"):
        return None
    revision = parse_hub(reference).revision or ""
    return revision if re.fullmatch(r"[0-9a-f]{40}", revision) else None


def stem(reference: str) -> str:
    """A name for the recipe: the last part of its reference that says something."""
    if reference.startswith("hub:"):
        found = parse_hub(reference)
        parts = [found.repo.split("/")[1], *found.path.split("/")]
    else:
        parts = [part for part in urlsplit(reference).path.split("/") if part]
    said = [part for part in parts if part not in ("", "recipe.toml")]
    return said[-1] if said else "recipe"


def open_reference(reference: str) -> Opened:
    """Raises: RecipeError when it cannot be reached or is not there."""
    if reference.startswith("hub:"):
        return _open_hub(parse_hub(reference), reference)
    content = download(reference)
    if content.startswith(b"PK\x03\x04"):
        return Opened({}.get, archive=content)
    if content.lstrip()[:1] == b"<":
        hint = "take the link to the raw file"
        raise RecipeError.at(reference, "is a web page, not a recipe", hint)
    # A single file: what it names beside itself is refused, and a bundle brings it.
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
        raise RecipeError.at(url, f"is no valid URL: {error}") from error
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise RecipeError.at(
            url, f"cannot be reached: {reason}", "try again, or download it"
        ) from error
    raise RecipeError.at(url, f"is redirected more than {MAX_REDIRECTS} times")


def _check_url(url: str, start: str) -> None:
    """Raises: RecipeError unless it is https, or http to this machine that was asked for."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise RecipeError.at(start, f"is no valid URL: {error}") from error
    name = "is" if url == start else f"is redirected to `{url[:100]}`, which is"
    if parts.username or parts.password:
        raise RecipeError.at(_without_password(start), f"{name} a URL with a password in it")
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and _is_this_machine(host) and start.startswith("http://"):
        return
    hint = "https://..., or hub:user/name for the Hub"
    raise RecipeError.at(
        start, f"{name} not https" if host else f"{name} no URL that is read", hint
    )


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(response: Any, url: str, deadline: float) -> bytes:
    if response.status_code != 200:
        raise RecipeError.at(
            url, f"is not there: HTTP {response.status_code} {response.reason_phrase}"
        )
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RecipeError.at(url, "is sent compressed, which was not asked for")
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > bundle.MAX_BYTES:
            raise RecipeError.at(url, f"has more than {bundle.MAX_BYTES // 2**20} MiB")
        if time.monotonic() > deadline:
            raise RecipeError.at(url, f"takes more than {TOTAL_LIMIT_S:.0f} s")
    return bytes(content)


def _open_hub(wanted: HubReference, reference: str) -> Opened:
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(reference):
        info = api.repo_info(wanted.repo, revision=wanted.revision)
    commit, names = info.sha, {file.rfilename for file in info.siblings or []}
    folder, recipe_name = wanted.path, "recipe.toml"
    if wanted.path.endswith(".toml"):
        path = PurePosixPath(wanted.path)
        folder, recipe_name = str(path.parent) if path.parent.name else "", path.name

    def read(name: str) -> bytes | None:
        path = f"{folder}/{name}" if folder else name
        return _hub_file(api, wanted.repo, commit, path, reference) if path in names else None

    if wanted.path.endswith(bundle.SUFFIX):
        content = _hub_file(api, wanted.repo, commit, wanted.path, reference)
        return Opened(read, archive=content, commit=commit)
    return Opened(read, recipe_name, commit=commit)


def _hub_file(api: Any, repo: str, commit: str, path: str, reference: str) -> bytes:
    from huggingface_hub import RepoFile
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    with hub_errors(reference):
        found = api.get_paths_info(repo, [path], revision=commit)
        sizes = [entry.size for entry in found if isinstance(entry, RepoFile)]
        if not sizes:
            raise RecipeError.at(reference, f"has no file `{path}`")
        if sizes[0] > bundle.MAX_BYTES:
            raise RecipeError.at(
                reference, f"`{path}` has {sizes[0] / 1e6:.0f} MB; a bundle has 64 MiB"
            )
        disable_progress_bars()
        try:
            local = api.hf_hub_download(repo, path, revision=commit)
        finally:
            enable_progress_bars()
    with open(Path(local), "rb") as file:
        return file.read(bundle.MAX_BYTES + 1)
