"""Write, read and check a bundle: a recipe with its proof as one file NAME.r1.zip or a folder.

    recipe.toml    the recipe                lock.json      versions, revisions, seed, hashes
    record.json    times and accuracy        metrics.jsonl  one line per step
    report.html    the page of the run       README.md      the card
    and the files that the recipe names: data, chat template, rewards

It is a zip file because every file manager opens one, and its directory gives all sizes before
anything is read. Members are stored without compression, in the order of their names and with one
fixed date: so the same content is the same bytes on every machine, while deflate differs between
versions of zlib, and nothing can grow when it is read. Reading keeps everything in memory, extracts
nothing to the disk, runs nothing, and unpickles nothing. Limits: 64 MiB; plain files only.
"""

import hashlib
import io
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from r1recipes.errors import RecipeError, unreadable

SUFFIX = ".r1.zip"
PROOF = ("README.md", "lock.json", "metrics.jsonl", "record.json", "report.html")
"""Files that may be in a bundle beside the recipe and the files that it names."""
MAX_BYTES = 64 * 2**20
MAX_MEMBERS = 64
HINT = "download it again, or ask for one that `share` wrote"
TOO_LARGE = "large data belong on the Hub, and the recipe names them there"
NO_PLAIN_FILE = "put a copy of the file in its place"
PLAIN_NAME = (
    "a name there is relative, such as `data/rows.jsonl`: at most 200 characters, no backslash or "
    "colon, and no part that is empty or begins with a dot"
)
LIMITS = {"recipe.toml": 10**6, "lock.json": 10**6, "record.json": 10**6, "README.md": 10**6}
"""Bytes of single files; the others may fill what is left of MAX_BYTES."""
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can carry

Files = dict[str, bytes]
Reader = Callable[[str], bytes | None]
"""Name of a file -> its content, None where there is none."""
_DAMAGED = (zipfile.BadZipFile, struct.error, EOFError, RuntimeError, ValueError, OSError)


def pack(files: Files) -> bytes:
    """The bytes of a bundle; the same files give the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            member = zipfile.ZipInfo(name, DATE)
            member.create_system = 3  # Unix, whatever the machine
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, files[name])
    return target.getvalue()


def unpack(content: bytes, where: str) -> Files:
    """The files of a bundle, by name. Raises: RecipeError for anything that `pack` cannot write."""
    if len(content) > MAX_BYTES:
        raise RecipeError.at(where, f"has more than {MAX_BYTES // 2**20} MiB", TOO_LARGE)
    if content.count(b"PK\1\2") > 10 * MAX_MEMBERS:  # before a million entries are made objects
        raise RecipeError.at(where, f"has too many files; {MAX_MEMBERS} are allowed", HINT)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                message = f"has {len(members)} files; {MAX_MEMBERS} are allowed"
                raise RecipeError.at(where, message, HINT)
            for member in members:
                _check_member(member, where)
            _check_names([member.filename for member in members], where)
            if sum(member.file_size for member in members) > len(content):
                raise RecipeError.at(where, "has files that overlap", HINT)
            files = {member.filename: archive.read(member) for member in members}
    except RecipeError:
        raise
    except _DAMAGED as error:
        raise RecipeError.at(where, f"is not a whole zip file: {error}", HINT) from error
    check_sizes(files, where)
    return files


def _check_member(member: zipfile.ZipInfo, where: str) -> None:
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    if not member.filename:  # which zipfile itself does not expect
        raise RecipeError.at(where, "has a file without a name", HINT)
    if kind not in (0, stat.S_IFREG) or member.is_dir():
        message = f"`{name[:80]}` is not a plain file: links and folders are refused"
        raise RecipeError.at(where, message, HINT)
    if member.flag_bits & 0x1:
        raise RecipeError.at(where, f"`{name[:80]}` is encrypted", HINT)
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        message = f"`{name[:80]}` is compressed; `r1recipes share` stores files as they are"
        raise RecipeError.at(where, message, HINT)
    check_name(name, where, HINT)


def check_name(name: str, where: str, hint: str = PLAIN_NAME) -> None:
    """Raises: RecipeError unless `name` is a plain relative name with forward slashes."""
    parts = name.split("/")
    bad = any(part in ("", ".", "..") or part.startswith(".") for part in parts)
    if bad or len(name) > 200 or len(parts) > 8 or not name.isprintable() or set(name) & set("\\:"):
        message = f"`{name[:80]}` cannot be the name of a file in a bundle"
        raise RecipeError.at(where, message, hint)


def _check_names(names: list[str], where: str) -> None:
    folded = [name.casefold() for name in names]
    for name in names:
        if folded.count(name.casefold()) > 1:
            raise RecipeError.at(where, f"has `{name}` twice", HINT)
        if any(other.startswith(f"{name.casefold()}/") for other in folded):
            raise RecipeError.at(where, f"has `{name}` as a file and as a folder", HINT)
    if "recipe.toml" not in names:
        raise RecipeError.at(where, "has no recipe.toml", HINT)


def check_sizes(files: Files, where: str) -> None:
    """Raises: RecipeError when a file, or all together, are larger than a bundle may be."""
    for name, content in files.items():
        limit = LIMITS.get(name, MAX_BYTES)
        if len(content) > limit:
            message = f"`{name}` has more than {limit / 1e6:.0f} MB"
            raise RecipeError.at(where, message, TOO_LARGE)
    if sum(map(len, files.values())) > MAX_BYTES:
        raise RecipeError.at(where, f"has more than {MAX_BYTES // 2**20} MiB", TOO_LARGE)


def read_file(folder: Path, name: str) -> bytes | None:
    """A file of a folder from elsewhere, None where it is absent.

    No link is followed on the way. Raises: RecipeError for links, pipes, devices, large files.
    """
    check_name(name, str(folder))
    path = folder
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            message = f"`{name}` is a link; only plain files are read"
            raise RecipeError.at(str(folder), message, NO_PLAIN_FILE)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RecipeError.at(str(folder), f"`{name}` is not a plain file", NO_PLAIN_FILE)
    with open(descriptor, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    check_sizes({name: content}, str(folder))
    return content


def digest(files: Files) -> str:
    """sha256 (hex) of names and contents: the same for a folder, a file, and the Hub."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()
