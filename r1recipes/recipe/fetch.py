"""Turn a reference to a recipe from elsewhere into a local folder and a note on where it came from.

    hub:user/name[@revision][/path]   a folder or a .toml of a repository on the Hub
    https://...                       a .toml or a bundle; plain http on this machine alone
    NAME.r1.zip, a folder             what `share` wrote

Only recipe.toml, the proof and the files that the recipe names are taken. They are kept below
`cache_dir`/recipes under the hash of their content, so that a run can be resumed and a reference be
used again without a network. A branch is resolved to its commit. Nothing that is read is run.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.config.toml import parse
from r1recipes.errors import RecipeError
from r1recipes.machine import hub
from r1recipes.machine.files import clear_drafts, draft, write_text
from r1recipes.recipe import bundle, download, references
from r1recipes.recipe.bundle import Files, Reader

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,60}", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where a recipe from elsewhere came from."""

    reference: str
    """As it was asked for."""
    name: str
    """Name of the recipe; safe as the name of a folder."""
    folder: Path
    """Where its files are kept; not to be changed."""
    sha256: str
    """Of all its files."""
    commit: str | None = None
    """Commit of a repository on the Hub."""

    @property
    def shown(self) -> str:
        """One line for people: the reference at its commit."""
        at = f" at commit {self.commit}" if self.commit else ""
        return f"{self.reference}{at}, sha256 {self.sha256[:16]}"

    def origin(self) -> dict[str, Any]:
        """For the lock of a run; of a file on this machine the name alone."""
        is_local = not is_remote(self.reference)
        reference = Path(self.reference).name if is_local else self.reference
        return {"reference": reference, "commit": self.commit, "sha256": self.sha256}

    def files(self) -> Files:
        """Everything that came with it."""
        return _files(self.folder)


def is_remote(reference: str) -> bool:
    """Whether a reference is to be asked over the network."""
    return reference.startswith("hub:") or "://" in reference


def is_bundle(path: Path) -> bool:
    """Whether a path that exists is a folder or file that may hold a recipe from elsewhere."""
    return path.is_dir() or path.name.endswith(".zip")


def get(reference: str) -> Source:
    """The recipe that `reference` means, in the cache.

    Raises: RecipeError, one problem, when it cannot be had or is not a bundle.
    """
    from r1recipes.machine import settings  # costs more than all of a recipe that is a local file

    machine = settings.load()
    cache = machine.cache_dir / "recipes"
    commit, stem = None, "recipe"
    if not is_remote(reference):
        files, stem = _from_disk(Path(reference)), Path(reference).absolute().name
    else:
        at = cache / "references" / hashlib.sha256(reference.encode()).hexdigest()[:32]
        offline = machine.offline or hub.is_offline()
        known = _known(at)
        # A commit can never mean anything else; a branch and a URL are asked for each time.
        if known and (offline or download.asked_commit(reference)):
            files, commit = _kept(cache / known["sha256"]), known.get("commit")
            if files is not None:
                return _source(reference, download.stem(reference), cache, files, commit)
        if offline:
            raise RecipeError.at(
                reference,
                "is not kept on this machine, and no request may be made (offline)",
                "fetch it once with a connection: `r1recipes show` does",
            )
        opened, stem = download.open_reference(reference), download.stem(reference)
        commit = opened.commit
        if opened.archive is not None:
            files = from_archive(opened.archive, reference)
        else:
            files = collect(opened.read, reference, opened.recipe_name)
    source = _source(reference, stem, cache, files, commit)
    if is_remote(reference):
        clear_drafts(at.parent, ".*.tmp")
        write_text(at, json.dumps({"reference": reference, **source.origin()}))
    return source


def _from_disk(path: Path) -> Files:
    where = str(path)
    if path.is_dir():
        return collect(lambda name: bundle.read_file(path, name), where)
    content = bundle.read_file(path.parent, path.name)
    if content is None:
        raise RecipeError.at(where, "cannot be read")
    return from_archive(content, where)


def from_archive(content: bytes, where: str) -> Files:
    """The files of a bundle's bytes, each of which is proof or named by the recipe."""
    files = bundle.unpack(content, where)
    wanted = collect(files.get, where)
    for name in files.keys() - wanted.keys():
        raise RecipeError.at(where, f"has `{name}`, which its recipe does not name")
    return wanted


def collect(reader: Reader, where: str, recipe_name: str = "recipe.toml") -> Files:
    """The recipe, its proof, and the files that it names. Raises: RecipeError without a recipe."""
    text = reader(recipe_name)
    if text is None:
        raise RecipeError.at(
            where, f"has no {recipe_name}", "name the .toml file, or a folder with one"
        )
    if not text.strip():
        raise RecipeError.at(where, "is empty")
    try:
        data = parse(text.decode("utf-8-sig"), where)
    except UnicodeDecodeError as error:
        raise RecipeError.at(where, "is neither TOML in UTF-8 nor a bundle") from error
    files = {"recipe.toml": text}
    extra = bundle.PROOF if recipe_name == "recipe.toml" else ()
    names = [name for name in references.names_inside(data) if _is_inside(name)]
    if len(names) > bundle.MAX_MEMBERS:
        raise RecipeError.at(where, f"names {len(names)} files; {bundle.MAX_MEMBERS} are allowed")
    for name in dict.fromkeys([*extra, *names]):
        if name not in files and (content := reader(name)) is not None:
            files[name] = content
            bundle.check_sizes(files, where)
    bundle.check_sizes(files, where)
    return files


def _is_inside(name: str) -> bool:
    """Other names are left for the check of the recipe, which knows line and column."""
    try:
        bundle.check_name(name, "")
    except RecipeError:
        return False
    return True


def _source(reference: str, stem: str, cache: Path, files: Files, commit: str | None) -> Source:
    sha256 = bundle.digest(files)
    folder = cache / sha256
    if _kept(folder) is None:
        _keep(folder, files)
    return Source(reference, _name(files, stem), folder.absolute(), sha256, commit)


def _name(files: Files, stem: str) -> str:
    """The recipe's name: as in the lock, or as in the reference; never more than one folder."""
    try:
        locked = json.loads(files.get("lock.json", b"{}")).get("recipe", "")
    except (ValueError, AttributeError, RecursionError):
        locked = ""
    for name in (locked, stem.removesuffix(bundle.SUFFIX).removesuffix(".toml")):
        if isinstance(name, str) and _NAME.fullmatch(name) and ".." not in name:
            return name
    return "recipe"


def _kept(folder: Path) -> Files | None:
    """The files of a folder of the cache, None unless they are what its name says."""
    if not folder.is_dir():
        return None
    files = _files(folder)
    return files if bundle.digest(files) == folder.name else None


def _files(folder: Path) -> Files:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _keep(folder: Path, files: Files) -> None:
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


def _known(at: Path) -> dict[str, Any] | None:
    try:
        known = json.loads(at.read_text())
        return known if re.fullmatch(r"[0-9a-f]{64}", known["sha256"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
