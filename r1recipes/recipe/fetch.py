"""Fetch a recipe from elsewhere into a local folder, with a note on where it came from.

    hub:user/name[@revision][/path]   a folder or a .toml of a repository on the Hub
    https://...                       a .toml or a bundle; plain http on this machine alone
    NAME.r1.zip, a folder             what `share` wrote

Only recipe.toml, the proof and the files that the recipe names are taken. They are cached below
`cache_dir`/recipes under the hash of their content, so that a run can be resumed and a reference be
used again without a network. A branch is resolved to its commit. No code is run that was fetched.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.config.toml import parse
from r1recipes.errors import RecipeError, command
from r1recipes.machine import hub
from r1recipes.machine.files import clear_drafts, draft, foreign, write_text
from r1recipes.recipe import bundle, download, references
from r1recipes.recipe.bundle import Files, Reader
from r1recipes.recipe.sections.foreign_keys import EXAMPLE

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,60}", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a recipe from elsewhere came from."""

    reference: str
    """The reference as the user wrote it."""
    name: str
    """Name of the recipe; safe as the name of a folder."""
    folder: Path
    """The folder of the cache with its files; they must not be changed."""
    sha256: str
    """The hash of all its files (`bundle.digest`)."""
    commit: str | None = None
    """The commit, if it is from a repository on the Hub."""

    @property
    def shown(self) -> str:
        """One line for people: the reference at its commit."""
        at = f" at commit {self.commit}" if self.commit else ""
        return f"{self.reference}{at}, sha256 {self.sha256[:16]}"

    def origin(self) -> dict[str, Any]:
        """The entry in the lock of a run; a file on this machine is entered by its name alone."""
        is_local = not is_remote(self.reference)
        reference = Path(self.reference).name if is_local else self.reference
        return {"reference": reference, "commit": self.commit, "sha256": self.sha256}

    def files(self) -> Files:
        """The recipe and everything that came with it."""
        return _read_folder(self.folder)


def is_remote(reference: str) -> bool:
    """Whether a reference is fetched over the network."""
    return reference.startswith("hub:") or "://" in reference


def is_bundle(path: Path) -> bool:
    """Whether a path that exists is a folder or file that may hold a recipe from elsewhere."""
    return path.is_dir() or path.name.endswith(".zip")


def get(reference: str) -> Source:
    """The recipe that `reference` means, in the cache.

    Raises: RecipeError, with one problem, when it cannot be fetched or is not a bundle.
    """
    from r1recipes.machine import settings  # costs more than all of a recipe that is a local file

    machine = settings.load()
    cache = machine.cache_dir / "recipes"
    if not is_remote(reference):
        files, stem = _from_disk(Path(reference)), Path(reference).absolute().name
        return _source(reference, stem, cache, files, None)
    entry = cache / "references" / hashlib.sha256(reference.encode()).hexdigest()[:32]
    offline = machine.offline or hub.is_offline()
    # A commit can never mean anything else; a branch and a URL are asked for each time.
    if offline or download.asked_commit(reference):
        if cached := _from_cache(reference, cache, entry):
            return cached
    if offline:
        raise RecipeError.at(
            reference,
            "is not in the cache of this machine, and no request may be made (offline)",
            f"fetch it once with a connection: `{command('show', reference)}`",
        )
    opened = download.open_reference(reference)
    if opened.archive is not None:
        files = from_archive(opened.archive, reference)
    else:
        files = collect(opened.read, reference, opened.recipe_name)
    source = _source(reference, download.stem(reference), cache, files, opened.commit)
    clear_drafts(entry.parent, ".*.tmp")
    write_text(entry, json.dumps({"reference": reference, **source.origin()}))
    return source


def _from_cache(reference: str, cache: Path, entry: Path) -> Source | None:
    """The recipe that a reference meant when it was last fetched; None if it is not whole."""
    origin = _read_entry(entry)
    files = _cached_files(cache / origin["sha256"]) if origin else None
    if origin is None or files is None:
        return None
    return _source(reference, download.stem(reference), cache, files, origin.get("commit"))


def _from_disk(path: Path) -> Files:
    where = str(path)
    if path.is_dir():
        recipes = sorted(path.glob("*.toml"))
        if recipes and path / "recipe.toml" not in recipes:
            raise RecipeError.at(where, "has no recipe.toml", f"did you mean `{recipes[0]}`?")
        return collect(lambda name: bundle.read_file(path, name), where)
    content = bundle.read_file(path.parent, path.name)
    if content is None:
        raise RecipeError.at(where, "cannot be read", bundle.HINT)
    return from_archive(content, where)


def from_archive(content: bytes, where: str) -> Files:
    """The files of a bundle's bytes. Raises: RecipeError for a file that is neither a part of the
    proof nor named by the recipe."""
    files = bundle.unpack(content, where)
    named = collect(files.get, where)
    for name in files.keys() - named.keys():
        raise RecipeError.at(where, f"has `{name}`, which its recipe does not name", bundle.HINT)
    return named


def collect(reader: Reader, where: str, recipe_name: str = "recipe.toml") -> Files:
    """The recipe, its proof, and the files that it names. Raises: RecipeError without a recipe."""
    text = reader(recipe_name)
    if text is None:
        raise RecipeError.at(
            where, f"has no {recipe_name}", "name the .toml file, or a folder with one"
        )
    if not text.strip():
        raise RecipeError.at(where, "is empty", bundle.HINT)
    try:
        data = parse(text.decode("utf-8-sig"), where, EXAMPLE)
    except UnicodeDecodeError as error:
        hint = "name a .toml file in UTF-8, or a bundle that `share` wrote"
        raise RecipeError.at(where, "is neither TOML in UTF-8 nor a bundle", hint) from error
    files = {"recipe.toml": text}
    proof = bundle.PROOF if recipe_name == "recipe.toml" else ()
    names = [name for name in references.file_names(data) if _is_inside(name)]
    if len(names) > bundle.MAX_MEMBERS:
        message = f"names {len(names)} files; {bundle.MAX_MEMBERS} are allowed"
        hint = "put rewards into one file of functions, and data on the Hub"
        raise RecipeError.at(where, message, hint)
    for name in dict.fromkeys([*proof, *names]):
        if name not in files and (content := reader(name)) is not None:
            files[name] = content
            bundle.check_sizes(files, where)
    bundle.check_sizes(files, where)
    return files


def _is_inside(name: str) -> bool:
    """Whether a name can be that of a file in a bundle. The check of the recipe refuses the others,
    with line and column."""
    try:
        bundle.check_name(name, "")
    except RecipeError:
        return False
    return True


def _source(reference: str, stem: str, cache: Path, files: Files, commit: str | None) -> Source:
    sha256 = bundle.digest(files)
    folder = cache / sha256
    if _cached_files(folder) is None:
        _cache(folder, files)
    return Source(reference, _name(files, stem), folder.absolute(), sha256, commit)


def _name(files: Files, stem: str) -> str:
    """The recipe's name, from the lock or else from the reference; it has no slash."""
    try:
        locked = json.loads(files.get("lock.json", b"{}")).get("recipe", "")
    except (ValueError, AttributeError, RecursionError):
        locked = ""
    for name in (locked, stem.removesuffix(bundle.SUFFIX).removesuffix(".toml")):
        if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
            return name
    return "recipe"


def _cached_files(folder: Path) -> Files | None:
    """The files of a folder of the cache; None unless their hash is the folder's name."""
    if folder.is_symlink() or not folder.is_dir():
        return None
    try:
        files = _read_folder(folder)
    except RecipeError:  # a file that no bundle has
        return None
    return files if bundle.digest(files) == folder.name else None


def _read_folder(folder: Path) -> Files:
    """The files of a folder of the cache. No link is followed, and none is read that is larger than
    all of a bundle. Raises: RecipeError."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = [path.relative_to(folder).as_posix() for path in paths]
    return {name: foreign.read_bytes(folder, name, bundle.MAX_BYTES) for name in names}


def _cache(folder: Path, files: Files) -> None:
    """Write a folder of the cache as a whole. Raises: RecipeError when it cannot be written."""
    try:
        clear_drafts(folder.parent, ".*.tmp")
        with draft(folder, taken="replace") as path:
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
    except OSError as error:
        hint = "set R1RECIPES_CACHE_DIR to a folder that can be written"
        raise RecipeError.at(
            str(folder.parent), f"cannot be written: {error.strerror}", hint
        ) from None


def _read_entry(entry: Path) -> dict[str, Any] | None:
    """The origin that was noted for a reference; None if there is none, or it is damaged."""
    try:
        origin = foreign.read_object(entry.parent, entry.name)
        return origin if re.fullmatch(r"[0-9a-f]{64}", origin["sha256"]) else None
    except (OSError, ValueError, KeyError, TypeError):  # also a link, or what is no plain file
        return None
