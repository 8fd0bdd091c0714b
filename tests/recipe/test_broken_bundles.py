"""What is wrong with a bundle, a folder or a download, and the way out that each error names."""

import io
import stat
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from r1recipes import recipe
from r1recipes.errors import Problem, RecipeError
from r1recipes.recipe import bundle, download
from tests.conftest import SMALL
from tests.hub_server import FileServer

RECIPE = SMALL.encode()


@pytest.fixture(autouse=True)
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers on this machine may be asked, and nothing was downloaded before."""
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def archive(*members: zipfile.ZipInfo | str, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with a recipe and these members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as file:
        for member in ("recipe.toml", *members):
            file.writestr(member, RECIPE)
    return target.getvalue()


def link() -> zipfile.ZipInfo:
    member = zipfile.ZipInfo("rows.jsonl")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def encrypted() -> bytes:
    """The flag of encryption is set in the directory of the file alone."""
    content = bytearray(archive())
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


BUNDLES = {
    "has no recipe.toml": lambda: bundle.pack({"README.md": b"x"}),
    "has 66 files; 64 are allowed": lambda: archive(*(f"f{number}" for number in range(65))),
    "has too many files": lambda: archive() + 641 * b"PK\1\2",
    "has `a` as a file and as a folder": lambda: archive("a", "a/b"),
    "has `recipe.toml` twice": lambda: archive("Recipe.toml"),
    "`../x` cannot be the name": lambda: archive("../x"),
    "is not a plain file: links": lambda: archive(link()),
    "is encrypted": encrypted,
    "is compressed": lambda: archive(compression=zipfile.ZIP_DEFLATED),
    "is not a whole zip file": lambda: archive()[:-30],
}


def problem_of(action: Callable[[], object]) -> Problem:
    with pytest.raises(RecipeError) as raised:
        action()
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize("message", BUNDLES)
def test_a_broken_bundle_is_downloaded_again(message: str) -> None:
    problem = problem_of(lambda: bundle.unpack(BUNDLES[message](), "x.r1.zip"))
    assert message in problem.message
    assert problem.hint == bundle.HINT and problem.where == "x.r1.zip"


def test_what_is_too_large_belongs_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 100)
    for action in (
        lambda: bundle.unpack(archive(), "x.r1.zip"),
        lambda: bundle.check_sizes({"a": b"0" * 60, "b": b"0" * 60}, "x"),
        lambda: bundle.check_sizes({"a": b"0" * 101}, "x"),
    ):
        assert problem_of(action).hint == bundle.TOO_LARGE


def test_a_folder_names_what_to_put_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/etc/hostname")
    (tmp_path / "folder").mkdir()
    for name in ("rows.jsonl", "folder"):
        problem = problem_of(partial(bundle.read_file, tmp_path, name))
        assert f"`{name}` is" in problem.message and problem.hint == bundle.NO_PLAIN_FILE
    problem = problem_of(lambda: bundle.read_file(tmp_path, "../x"))
    assert "such as `data/rows.jsonl`" in (problem.hint or "")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://a:b@example.org/x.toml", "leave the password out"),
        ("https://[::1/x.toml", "https://..., or hub:user/name"),
        ("http://example.org/x.toml", "https://..., or hub:user/name"),
        ("hub:user/name/.git/x.toml", "no part that is empty or begins with a dot"),
    ],
)
def test_an_address_that_is_not_asked(url: str, hint: str) -> None:
    assert hint in (problem_of(lambda: download.open_reference(url)).hint or "")


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (404, "check the address"),
        (403, "download it with a browser"),
        (429, "try again later"),
        (503, "try again later"),
    ],
)
def test_a_server_that_does_not_send(status: int, hint: str) -> None:
    paths: dict[str, bytes | Callable[..., Any]] = {"/x.toml": lambda h: h.answer(status)}
    with FileServer(paths) as server:
        problem = problem_of(lambda: recipe.load(f"{server.url}/x.toml"))
    assert f"was not sent: HTTP {status}" in problem.message and hint in (problem.hint or "")


def test_a_server_that_sends_on_and_on() -> None:
    paths: dict[str, bytes | Callable[..., Any]] = {"/x": lambda h: h.answer(301, Location="/x")}
    with FileServer(paths) as server:
        problem = problem_of(lambda: download.download(f"{server.url}/x"))
    assert "redirected more than 5 times" in problem.message
    assert "name the file in place of the address" in (problem.hint or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b" \n", "is empty"), (b"\xff\xfe", "is neither TOML in UTF-8 nor a bundle")],
)
def test_a_download_that_is_no_recipe(content: bytes, message: str) -> None:
    with FileServer({"/x.toml": content}) as server:
        problem = problem_of(lambda: recipe.load(f"{server.url}/x.toml"))
    assert problem.message == message and "`share` wrote" in (problem.hint or "")
