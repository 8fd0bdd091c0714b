"""A recipe, or a complete run of one, as files for somebody else; written whole or not at all.

Shared are the recipe with the overrides of its run, the files that it names, lock, record, metrics,
the page of the run if there is one, and a card. Not shared are weights, completions, logs, [track]
and [export]. `hub` sends the files. Limits: a file replaces an older bundle only where that is
asked for; a folder must be new.
"""

import glob
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from r1recipes import recipe
from r1recipes.config import render
from r1recipes.errors import Problem, RecipeError, command, unwritable
from r1recipes.machine.files import clear_drafts, draft, foreign, named, numbered, write_bytes
from r1recipes.publish import cards, redact
from r1recipes.recipe import bundle, loading, references, scaffold
from r1recipes.recipe.bundle import Files
from r1recipes.recipe.loading import Loaded
from r1recipes.recipe.schema import Recipe
from r1recipes.recipe.targets import Export, Track
from r1recipes.rewards.judge import consent
from r1recipes.runs import lock, trained
from r1recipes.runs.record import Run

_FOLDER = (
    "files travel with a recipe, but folders of weights or data do not: put them on the Hub and "
    "name them user/name"
)
HEADER = "# Written by `r1recipes share`: overrides and file names are those of the bundle.\n\n"


@dataclass(frozen=True)
class Shared:
    """A recipe or a run as files for somebody else."""

    name: str
    fingerprint: str
    files: Files
    note: str | None = None
    """The progress of a run that was cut short, such as `step 35 of 100`."""
    hides_judge: bool = False
    """Whether a private address of the judge was replaced."""


def of_recipe(loaded: Loaded) -> Shared:
    """Share a recipe that was not run here; one from elsewhere is passed on as it came.

    Raises: RecipeError with everything that may not or cannot be shared.
    """
    fingerprint = recipe.fingerprint(loaded.recipe)
    if loaded.source and not loaded.overrides:
        return Shared(loaded.name, fingerprint, loaded.source.files())
    is_changed = bool(loaded.overrides)
    return _shared(loaded, is_changed, lock.of_recipe(loaded) | {"overrides": []}, None, {})


def of_run(run: Run) -> Shared:
    """Share a run: complete, or with a whole checkpoint.

    Raises: RecipeError with everything that may not or cannot be shared, and when a file that the
    run read has changed since.
    """
    run.refuse_special()
    record = run.read(*trained.NEEDED, "preset")
    if record["status"] == "complete":
        run.read("finished", *(f"evaluation.{key}" for key in ("before", "after", "difference")))
    locked, plan = run.read_lock(), run.plan()
    if plan.origin:
        raise RecipeError.at(
            str(run.folder),
            f"{plan.origin.sentence()}, which nobody else has",
            f"`{command('export', run.folder, '--to', 'hub:user/name')}` shares its weights",
        )
    if record["status"] != "complete":
        record = _cut_short(run)
    saved = recipe.load(run.recipe)
    is_changed = recipe.fingerprint(saved.recipe) != locked.get("fingerprint")
    final = plan.recipe if is_changed else saved.recipe
    loaded = Loaded(final, plan.base_dir / "recipe.toml", saved.text, saved.data)
    # This also stops a run folder from elsewhere, whose plan could name any file of this machine.
    old, new = locked.get("files", {}), lock.file_hashes(final.model_dump(), plan.base_dir)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        message = f"`{changed[0]}` is not what this run read"
        raise RecipeError.at(str(run.folder), message, "put the old version back")
    folders, proof = [run.folder, plan.base_dir, Path.cwd()], {}
    for path in (run.metrics, run.report):
        if path.is_file():
            content = foreign.read_bytes(run.folder, path.name, bundle.MAX_BYTES)
            text = content.decode(errors="replace")
            proof[path.name] = redact.strip_folders(text, folders).encode()
    shared = _shared(loaded, is_changed, locked | {"overrides": []}, record, proof)
    step, max_steps = record.get("stopped_at_step"), final.train.max_steps
    return replace(shared, note=f"step {step} of {max_steps}" if step else None)


def _cut_short(run: Run) -> dict[str, Any]:
    """The record of a run that did not end, with the step of its last whole checkpoint.

    Raises: RecipeError when it has none, or is still running.
    """
    hint = f"{run.to_go_on()}, or share its recipe.toml alone"
    if run.status() == "running":
        raise RecipeError.at(str(run.folder), f"{run.standing()}, so it is not done", hint)
    try:
        saved = trained.of_run(run)
    except RecipeError as error:
        message = f"{run.standing()} without a whole checkpoint, so it proves nothing"
        raise RecipeError.at(str(run.folder), message, hint) from error
    status = {"running": "stopped"}.get(run.read()["status"], run.read()["status"])  # by a kill
    return run.read("evaluation.before") | {"status": status, "stopped_at_step": saved.step}


def _shared(
    loaded: Loaded,
    is_changed: bool,
    locked: dict[str, Any],
    record: dict[str, Any] | None,
    proof: Files,
) -> Shared:
    """`is_changed` says that the recipe differs from `loaded.text`, by overrides."""
    renamed, files = _companions(loaded.recipe, loaded.path.parent)
    # Trackers and exports are the sharer's own, and a recipe from elsewhere may not ask for them.
    private: dict[str, Any] = {"track": Track(), "export": Export()}
    if loaded.recipe.judge:
        private["judge"] = consent.without_private(loaded.recipe.judge)
    final = _with_names(loaded.recipe, renamed).model_copy(update=private)
    is_rewritten = is_changed or final != loaded.recipe
    text = HEADER + render.render(final) if is_rewritten else redact.strip_home(loaded.text)
    fingerprint = recipe.fingerprint(final)
    read = loading.load_text(text, Path("recipe.toml")).recipe
    if recipe.fingerprint(read) != fingerprint:
        raise RecipeError.at(
            loaded.shown, "has the path of your home folder in a value", "write it anew"
        )
    name = str(locked.get("recipe") or loaded.name)
    locked = _renamed(locked, renamed, files) | {"fingerprint": fingerprint}
    files |= proof | {"recipe.toml": text.encode(), "lock.json": _json(redact.strip_paths(locked))}
    if record:
        record = redact.strip_paths(record | {"fingerprint": fingerprint})
        files["record.json"] = _json(record)
    written = [*proof, "record.json", "lock.json"]
    files |= redact.without_address(files, written, loaded.recipe.judge)
    files["README.md"] = cards.of_recipe(name, final, locked, record, files).encode()
    key_name = loaded.recipe.judge.api_key_env if loaded.recipe.judge else None
    problems = redact.problems(files, [key_name] if key_name else [])
    if problems:
        raise RecipeError(problems=problems)
    bundle.check_sizes(files, loaded.shown)
    is_private = final.judge != loaded.recipe.judge
    return Shared(name, fingerprint, files, hides_judge=is_private)


def _renamed(locked: dict[str, Any], renamed: dict[str, str], files: Files) -> dict[str, Any]:
    """The lock with the names that files have in the bundle."""
    inputs = dict(locked.get("inputs", {}))
    for old, new in renamed.items():
        inputs = {name.replace(f"`{old}:", f"`{new}:"): sha for name, sha in inputs.items()}
    hashes = {new: hashlib.sha256(files[new]).hexdigest() for new in renamed.values()}
    return locked | {"inputs": inputs, "files": hashes}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def _companions(source: Recipe, base_dir: Path) -> tuple[dict[str, str], Files]:
    """Name in the recipe -> name in the bundle, and the files. Raises: RecipeError."""
    data = source.model_dump()
    renamed: dict[str, str] = {}
    files: Files = {}
    problems = []
    local = references.local_files(data, base_dir)
    for item in references.references_in(data):
        path = local.get(item.name)
        if path is None:
            is_local = (base_dir / named(item.name)).exists()
            if is_local or not item.may_be_hub or references.is_file_name(item.name):
                key = render.dotted(item.loc)
                message = f"`{key}` names `{item.name}`, which is not a file that can be shared"
                problems.append(Problem(message, hint=_FOLDER))
            continue
        renamed[item.name] = _free_name(item.name, files, path)
        files[renamed[item.name]] = path.read_bytes()
    if problems:
        raise RecipeError(problems=problems)
    return renamed, files


def _free_name(name: str, files: Files, path: Path) -> str:
    """The name itself where a bundle can have it, else its last part, made unique."""
    stem, suffix, content = path.stem.lstrip("."), path.suffix, path.read_bytes()
    for candidate in (name, *islice(numbered(stem, suffix), 9)):
        taken = candidate in (*bundle.PROOF, "recipe.toml")
        if taken or files.get(candidate, content) != content:
            continue
        with suppress(RecipeError):
            bundle.check_name(candidate, "")
            return candidate
    message = "finds no free name in the bundle"
    raise RecipeError.at(name, message, "give the file another name")


def _with_names(source: Recipe, renamed: dict[str, str]) -> Recipe:
    """The recipe with the names that its files have in the bundle."""
    if all(old == new for old, new in renamed.items()):
        return source
    named = references.with_names(source.model_dump(), lambda name: renamed.get(name, name))
    return Recipe.model_validate(named)


def write(files: Files, target: Path, *, overwrite: bool = False) -> None:
    """Write a bundle, or a new folder if the name does not end in .r1.zip; whole or not at all.

    Raises: RecipeError when the name is taken and may not be replaced, or cannot be written;
    RunError when the disk is full.
    """
    if target.suffix in (".zip", ".tar", ".gz", ".toml") and not _is_file(target):
        message = f"is not the name of a bundle: it ends in {bundle.SUFFIX}"
        raise RecipeError.at(str(target), message, f"`--to {target.stem}{bundle.SUFFIX}`")
    try:
        clear_drafts(target.parent, f".{glob.escape(target.name)}.*.tmp")
        if _is_file(target):
            _refuse_taken(target, overwrite)
            write_bytes(target, bundle.pack(files))
        else:
            if target.exists() or target.is_symlink():
                raise RecipeError.at(str(target), "exists", "take another name")
            with draft(target) as folder:
                for name, content in files.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content)
    except OSError as error:
        raise unwritable(target, error, "take another place with --to") from error


def _is_file(target: Path) -> bool:
    return target.name.endswith(bundle.SUFFIX)


def _refuse_taken(target: Path, overwrite: bool) -> None:
    """Raises: RecipeError unless the target is new, or a bundle that may be replaced."""
    if not target.exists():
        return
    try:
        bundle.unpack(target.read_bytes(), str(target))
    except (OSError, RecipeError) as error:
        message = "exists and is not a bundle"
        raise RecipeError.at(str(target), message, "take another name") from error
    if not overwrite:
        raise RecipeError.at(str(target), "exists", "`--force` replaces it")


def copy(loaded: Loaded, target: Path, *, allow_code: bool) -> list[Path]:
    """Copy a recipe to a file that must not exist, and beside it the files that it names.

    Returns what was written.

    Raises: RecipeError before anything is written, also for code from elsewhere without
    `allow_code`: a module beside the user's own files can be imported by accident.
    """
    _, files = _companions(loaded.recipe, loaded.path.parent)
    local = references.local_files(loaded.recipe.model_dump(), loaded.path.parent)
    plain = {name: content for name, content in files.items() if name in local}
    code = [name for name in plain if name.endswith(".py")]
    if code and loaded.source and not allow_code:
        message = f"has code, `{code[0]}`, which is copied only with --allow-code"
        raise RecipeError.at(loaded.shown, message, "`--allow-code` shows it first, with its hash")
    written = {target.parent / name: content for name, content in plain.items()}
    written[target] = scaffold.with_schema_of(loaded.text, target.parent).encode()
    for path, content in written.items():
        if (path.exists() or path.is_symlink()) and (path == target or not _has(path, content)):
            raise RecipeError.at(str(path), "exists", "take another name or folder")
    for path, content in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with draft(path) as file:
                    file.write_bytes(content)
        except OSError as error:
            raise unwritable(path, error) from error
    return list(written)


def _has(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
