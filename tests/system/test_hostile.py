"""Bundles, recipes, folders and references made to do harm get one clear line and exit code 2.

Limits: harm is a file of this machine that is read, changed or run; time is not measured.
"""

import gzip
import io
import json
import os
import pickle
import re
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1recipes.recipe import bundle
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.hub_server import FileServer, Handler

MODEL, DATA = 'name = "builtin:tiny"', 'name = "openai/gsm8k"'
WITH_FILES = (  # without the keys that go with built-in data alone
    SMALL.replace('name = "builtin:arithmetic"', DATA)
    .replace("[data.problems]\ndigits = 2\n", "")
    .replace("wrong = 0.3", 'data = "shown.jsonl"')
)
JSONL = b'{"question": "1+1", "answer": "2"}\n'
FILE_TYPES = {
    "a symbolic link": stat.S_IFLNK,
    "a pipe": stat.S_IFIFO,
    "a character device": stat.S_IFCHR,
    "a block device": stat.S_IFBLK,
    "a socket": stat.S_IFSOCK,
    "a folder": stat.S_IFDIR,
}


def archive(*members: tuple[str, bytes], mode: int = stat.S_IFREG, method: int = 0) -> bytes:
    """A zip with the small recipe and these members, written without any check."""
    target = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as file:
        warnings.simplefilter("ignore")  # zipfile warns of a name that is given twice
        file.writestr("recipe.toml", WITH_FILES)
        file.writestr("shown.jsonl", JSONL)
        for name, content in members:
            member = zipfile.ZipInfo(name)
            member.filename = name  # ZipInfo cuts a name at its first NUL
            member.external_attr, member.compress_type = (mode | 0o777) << 16, method
            file.writestr(member, content)
    return target.getvalue()


def tar(kind: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as file:
        member = tarfile.TarInfo("recipe.toml")
        member.type, member.linkname = kind, "/etc/passwd"
        file.addfile(member)
    return target.getvalue()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new) and old in content
    return content.replace(old, new)


def overlapping() -> bytes:
    """Two entries of the directory that share the bytes of one member."""
    content = bytearray(archive(("README.md", b"x" * 2000), ("report.html", b"x" * 2000)))
    first = content.index(b"PK\1\2")
    second = content.index(b"PK\1\2", first + 4)
    third = content.index(b"PK\1\2", second + 4)
    content[third + 42 : third + 46] = content[second + 42 : second + 46]
    return bytes(content)


def encrypted() -> bytes:
    content = bytearray(archive(("README.md", b"secret")))
    at = content.rindex(b"PK\1\2") + 8
    content[at : at + 2] = struct.pack("<H", 1)
    return bytes(content)


class Boom:
    def __reduce__(self):
        return os.system, ("touch ran-code",)


ARCHIVES = {
    "a name above": archive(("../outside", b"x")),
    "a name far above": archive(("../" * 20 + "etc/cron.d/x", b"x")),
    "a name above inside": archive(("files/../../outside", b"x")),
    "an absolute name": archive(("/tmp/outside", b"x")),
    "a home": archive(("~/.bashrc/../outside", b"x")),
    "a drive": archive(("C:/outside", b"x")),
    "backslashes": archive(("..\\..\\outside", b"x")),
    "an empty name": bundle.pack({"recipe.toml": WITH_FILES.encode(), "": b""}),
    "an empty part": archive(("a//b", b"x")),
    "a hidden file": archive((".env", b"R1RECIPES_RUNS_DIR=/tmp")),
    "a control character": archive(("a\x1b[2Jb", b"x")),
    "a right-to-left name": archive(("a\u202eb", b"x")),
    "a name cut by NUL": archive(("README.md\x00/../../x", b"x")),
    "a long name": archive(("x" * 5000, b"x")),
    "a deep name": archive(("/".join("abcdefghij"), b"x")),
    "the recipe twice": archive(("recipe.toml", WITH_FILES.encode())),
    "the recipe in capitals": archive(("RECIPE.toml", WITH_FILES.encode())),
    "a file and a folder": archive(("README.md", b"x"), ("README.md/x", b"x")),
    "a bomb": archive(("README.md", bytes(50_000_000)), method=zipfile.ZIP_DEFLATED),
    "a bomb of bzip2": archive(("README.md", bytes(5_000_000)), method=zipfile.ZIP_BZIP2),
    "a bomb of lzma": archive(("README.md", bytes(5_000_000)), method=zipfile.ZIP_LZMA),
    "overlapping files": overlapping(),
    "many files": archive(*((f"file{number}", b"") for number in range(100))),
    "very many files": archive(*((f"file{number}", b"") for number in range(2000))),
    "too large": bytes(bundle.MAX_BYTES + 1),
    "a large lock": archive(("lock.json", b"[" * 1_500_000)),
    "an encrypted file": encrypted(),
    "a module beside it": archive(("torch.py", b"open('ran-code', 'w')")),
    "a pickle": archive(("adapter.pt", pickle.dumps(Boom()))),
    "a bundle in it": archive(("inner.r1.zip", archive())),
    "no recipe": patched(archive(), b"recipe.toml", b"recipe.html"),
    "cut off": archive()[:-30],
    "a changed byte": patched(archive(), b"seed = 1\n", b"seed = 2\n"),
    "two names for one file": patched(archive(("README.md", b"x")), b"README.mdx", b"READYE.mdx"),
    "a tar with a symbolic link": tar(tarfile.SYMTYPE),
    "a tar with a hard link": tar(tarfile.LNKTYPE),
    "a gzip bomb": gzip.compress(bytes(10_000_000)),
    "only a pickle": pickle.dumps(Boom()),
    "nothing": b"",
} | {
    f"{name} as a member": archive(("README.md", b"/etc/passwd"), mode=mode)
    for name, mode in FILE_TYPES.items()
}

RECIPES = {
    "data of the system": (DATA, 'name = "/etc/passwd"'),
    "data of the system as rows": (DATA, 'name = "/etc/passwd.jsonl"'),
    "data above": (DATA, 'name = "../../secret.jsonl"'),
    "data of the home": (DATA, 'name = "~/secret.jsonl"'),
    "data beside the user": (DATA, 'name = "secret.jsonl"'),
    "data by URL": (DATA, 'name = "file:///etc/passwd"'),
    "data by another URL": (DATA, 'name = "http://169.254.169.254/latest"'),
    "data of the current folder": (DATA, 'name = "csv"'),
    "data of the current folder as rows": (DATA, 'name = "json"'),
    "the current folder": (DATA, 'name = "."'),
    "a folder named as on the Hub": (DATA, 'name = "mine/private"'),
    "a bucket": (DATA, 'name = "buckets/mine/private"'),
    "a data set above": (DATA, 'name = "mine/.."'),
    "held-out data of the system": (DATA, 'name = "rows.jsonl"\neval_split = "/etc/passwd"'),
    "held-out data above": (DATA, 'name = "rows.jsonl"\neval_split = "../secret.jsonl"'),
    "a commit of data above": (DATA, 'name = "o/d"\nrevision = "../../../x"'),
    "a model of the system": (MODEL, 'name = "/opt/model"'),
    "a model above": (MODEL, 'name = "../model"'),
    "a model of the home": (MODEL, 'name = "~/model"'),
    "a model that is a folder here": (MODEL, 'name = "mine/private"'),
    "a model beside it": (MODEL, 'name = "rows.jsonl"'),
    "a commit of the model above": (MODEL, 'name = "o/m"\nrevision = "../../../x"'),
    "a template of the system": (MODEL, MODEL + '\nchat_template = "/etc/passwd"'),
    "a template above": (MODEL, MODEL + '\nchat_template = "../../secret.jinja"'),
    "a template of the home": (MODEL, MODEL + '\nchat_template = "~/.netrc"'),
    "demonstrations of the system": ('"shown.jsonl"', '"/etc/passwd.jsonl"'),
    "demonstrations above": ('"shown.jsonl"', '"../secret.jsonl"'),
    "code of the system": ("integer = 0.5", '"/tmp/evil.py:pay" = 0.5'),
    "code above": ("integer = 0.5", '"../evil.py:pay" = 0.5'),
    "code that did not come": ("integer = 0.5", '"evil.py:pay" = 0.5'),
    "code that judges": ("samples = 2", 'samples = 2\nreward = "../evil.py:pay"'),
    "a tracker": ("[eval]", '[track]\nwandb = { project = "x" }\n[eval]'),
    "an export": ("[eval]", '[export]\nto = "hub:me/x"\n[eval]'),
    "a huge number": ("max_steps = 6", "max_steps = " + "9" * 10_000),
    "too many steps": ("max_steps = 6", "max_steps = 10000000000"),
    "a deep value": ("max_steps = 6", "max_steps = " + "[" * 5000 + "]" * 5000),
    "a wrong type": ("max_steps = 6", "max_steps = [6]"),
    "an escape of the terminal": ("max_steps = 6", '"\\u001b[2J" = 6'),
    "no TOML": ("max_steps = 6", "import os; os.system('touch ran-code')"),
    "a large recipe": ("[train]", "# " + "x" * 1_500_000 + "\n[train]"),
    "no text": ("[train]", "\udcff"),
    "a study": ("[train]", '[study]\nmetric = "eval/accuracy"\n[train]'),
}

LOCKS = {
    "a deep lock": "[" * 100_000,
    "a list": "[]",
    "a huge number": '{"format": ' + "9" * 5000 + "}",
    "no text in it": '{"format": 1, "fingerprint": 5, "seed": 1}',
    "no fingerprint": '{"format": 1, "seed": 1}',
    "a fingerprint that is a path": '{"format": 1, "fingerprint": "../../x", "seed": 1}',
}
LOCKED: dict[str, dict[str, Any]] = {
    "a commit that is a path": {"model_revision": "../../../etc"},
    "a commit with an option": {"data_revision": "--upload-pack=touch ran-code"},
    "a billion threads": {"machine": {"num_threads": 10**9}},
    "no table": {"versions": ["torch"]},
    "a table of tables": {"inputs": {"the data": {"a": {}}}},
    "another GPU": {"machine": {"gpu": "NVIDIA X"}},
    "another seed": {"seed": 99},
    "a preset that is a path": {"preset": "../../x"},
}

REFERENCES = [
    "hub:../../etc/passwd",
    "hub:me",
    "hub:me/x@../../y",
    "hub:me/x/../../../etc/passwd",
    "hub:me/x/.git/config",
    "hub:me/x@main/a\\b.toml",
    "file:///etc/passwd",
    "ftp://example.org/recipe.toml",
    "http://example.org/recipe.toml",
    "http://localhost@example.org/recipe.toml",
    "https://me:secret@example.org/recipe.toml",
    "https://",
    "https://[::1/recipe.toml",
    "https://x:99999999/recipe.toml",
    "s3://bucket/recipe.toml",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with private files, and a cache beside it."""
    here = tmp_path / "here"
    (here / "mine" / "private").mkdir(parents=True)
    (here / "mine" / "private" / "train.jsonl").write_bytes(JSONL)
    (here / "secret.jsonl").write_bytes(JSONL)
    (tmp_path / "secret.jsonl").write_bytes(JSONL)
    (tmp_path / "evil.py").write_text("open('ran-code', 'w')\ndef pay(completion): return 1.0\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return here


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, without the cache."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p): p.read_bytes() for p in paths if p.relative_to(folder).parts[0] != "cache"}


def assert_refused(place: Path, reference: str, *arguments: str, commands=None) -> str:
    before = content_of(place.parent)
    for command in commands or (["check"], ["show"], ["run"], ["copy"]):
        extra = ["out.toml"] if command == ["copy"] else arguments
        code, out, err = in_process(*command, reference, *extra)
        lines = [line for line in err.splitlines() if not line.startswith(("  hint:", "from "))]
        assert (code, out) == (2, ""), (command, out, err)
        assert len(lines) == 1 and lines[0].startswith("error: "), err
        assert len(lines[0]) < 500 and lines[0].isprintable() and "secret@" not in lines[0]
    assert content_of(place.parent) == before
    # The cache may keep recipes, but no links and nothing that can be executed.
    cached = [path for path in (place.parent / "cache").rglob("*") if not path.is_dir()]
    assert all(not p.is_symlink() and not p.stat().st_mode & 0o111 for p in cached)
    return lines[0]


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_hostile_bundle_is_refused(place, name):
    path = place.parent / "evil.r1.zip"
    path.write_bytes(ARCHIVES[name])
    assert_refused(place, str(path))


@pytest.mark.parametrize("name", RECIPES)
def test_a_hostile_recipe_is_refused(place, name):
    old, new = RECIPES[name]
    assert old in WITH_FILES
    text = WITH_FILES.replace(old, new).encode(errors="surrogateescape")
    companions = [file for file in ("shown.jsonl", "rows.jsonl") if file.encode() in text]
    files = {"recipe.toml": text} | dict.fromkeys(companions, JSONL)
    path = place.parent / "evil.r1.zip"
    path.write_bytes(bundle.pack(files))
    line = assert_refused(place, str(path))
    if old in (DATA, MODEL, '"shown.jsonl"', "integer = 0.5", "samples = 2"):
        assert re.search("did not come with|is on the Hub, but a folder|is not a commit", line), (
            line
        )


@pytest.mark.parametrize("name", [*LOCKS, *LOCKED])
def test_a_hostile_lock_is_refused(place, name):
    path = place.parent / "evil.r1.zip"
    files = {"recipe.toml": WITH_FILES.encode(), "shown.jsonl": JSONL}
    path.write_bytes(bundle.pack(files))
    fingerprint = json.loads(in_process("show", "--json", path)[1])["fingerprint"]
    valid = {"format": 1, "fingerprint": fingerprint, "seed": 1}
    lock = LOCKS.get(name) or json.dumps(valid | LOCKED[name])
    path.write_bytes(bundle.pack(files | {"lock.json": lock.encode()}))
    assert_refused(place, str(path), "--locked", commands=[["run"]])


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "device"])
@pytest.mark.parametrize("name", ["recipe.toml", "rows.jsonl", "lock.json"])
def test_a_hostile_folder_is_refused(place, kind, name):
    folder = place.parent / "evil"
    folder.mkdir()
    (folder / "recipe.toml").write_text(WITH_FILES.replace(DATA, 'name = "rows.jsonl"'))
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        targets = {"link": "/etc/passwd", "dangling": "/nowhere", "device": "/dev/zero"}
        path.symlink_to(targets[kind])
    assert_refused(place, str(folder))


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_hostile_reference_is_refused(place, reference):
    assert_refused(place, reference)


def redirect(to: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(302, Location=to)


def endless(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"# x\n" * 2**16)
    except OSError:
        handler.close_connection = True


ANSWERS: dict[str, bytes | Callable[[Handler], None]] = {
    "/file": redirect("file:///etc/passwd"),
    "/http": redirect("http://example.org/recipe.toml"),
    "/ftp": redirect("ftp://example.org/recipe.toml"),
    "/loop": redirect("/loop"),
    "/gzip": lambda h: h.answer(200, gzip.compress(bytes(10**7)), Content_Encoding="gzip"),
    "/endless": endless,
    "/page": b"<!DOCTYPE html><html></html>",
    "/nothing": b"",
    "/error": lambda handler: handler.answer(500),
    "/bundle": archive(("../outside", b"x")),
    "/extra": archive(("torch.py", b"open('ran-code', 'w')")),
    "/names-a-file": WITH_FILES.encode(),
}


@pytest.mark.parametrize("path", [*ANSWERS, "/absent"])
def test_a_hostile_server_is_refused(place, path):
    with FileServer(ANSWERS) as server:
        assert_refused(place, server.url + path, commands=[["check"]])


def test_there_are_more_than_fifty():
    assert len(ARCHIVES) + len(RECIPES) > 50
