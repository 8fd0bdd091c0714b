"""The folder of a model: whether it is there, and whether it is whole.

Limits: names and sizes of its files; no weight is read. Names that may be those of the Hub are left
to it, and only compared with the folders that are here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path

from r1recipes.data.local import parts
from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import files, hub
from r1recipes.machine.files import foreign
from r1recipes.recipe import references
from r1recipes.recipe.schema import BUILTIN_MODELS

CLOSE = 0.8
"""How alike a name of the Hub is to one here for which it is a slip; assumed."""
LIKELY = 0.6
"""How alike a name that can only be one here is to one for which it is a slip; assumed."""
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json",
)  # fmt: skip
"""Files of which a tokenizer has at least one (transformers 5.17)."""
CONFIGS = (
    "config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json",
    "preprocessor_config.json", hub.ADAPTER,
)  # fmt: skip
"""Files that tell a library what to load."""
KERNELS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal",
           "experts_implementation", "_experts_implementation")  # fmt: skip
"""Keys whose value may be a repository of compiled code, which transformers downloads and runs."""
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Suffixes of weights that are stored as pickled objects."""
LFS = b"version https://git-lfs"
"""What a file begins with that Git LFS has not downloaded."""


def missing_model(name: str, base_dir: Path) -> Problem | None:
    """The problem with a name that can only be that of a folder, and is that of none."""
    folder = base_dir / name
    if name in BUILTIN_MODELS:
        return None
    if folder.is_file():
        return Problem(f"`{name}` is a file", hint="a model is a folder with a config.json")
    if folder.is_dir() or references.HUB_ID.fullmatch(name):
        return None
    if name.startswith("~"):
        path = files.named(name)
        return Problem(f"`{name}`: the `~` of a model's folder must be written out", hint=f"{path}")
    near = nearest_path(name, base_dir, is_model=True, alike=LIKELY)
    names = ", ".join(f"`{path}`" for path in _models_beside(base_dir)[:5])
    hint = f"did you mean `{near}`?" if near else "a relative path starts at the recipe's folder"
    hint += f"; models there: {names}" if names and not near else ""
    return Problem(f"there is no folder `{folder}` (`model.name`)", hint=hint)


def _models_beside(base_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in base_dir.glob("*/config.json"))


def nearest_path(
    name: str, base_dir: Path, *, is_model: bool = False, alike: float = CLOSE
) -> str | None:
    """A file or folder here whose name is like `name`, each part of it; None where nothing is.

    `alike` is the least share of equal characters, as difflib counts it.
    """
    path = Path(name)
    current = Path(path.anchor) if path.is_absolute() else base_dir
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for part in parts:
        if part in (".", "..") or (current / part).exists():
            current = current / part
            continue
        inner = sorted(current.iterdir()) if current.is_dir() else []
        names = {entry.name: entry for entry in inner if not entry.name.startswith(".")}
        stems = {entry.stem: entry for entry in inner if not is_model}
        close = difflib.get_close_matches(part, [*names, *stems], 1, alike)
        if not close:
            return None
        current = names.get(close[0]) or stems[close[0]]
    if is_model and not (current / "config.json").is_file():
        return None
    near = current if path.is_absolute() else current.relative_to(base_dir)
    return f"./{near}" if name.startswith("./") else str(near)


def starting_point(name: str, base_dir: Path) -> bool:
    """Whether a name is that of a run or an adapter, which a run may start from."""
    path = files.named(name)
    folders = (base_dir / path, path)
    return any((f / file).is_file() for f in folders for file in ("record.json", hub.ADAPTER))


def model_folder_problems(folder: Path) -> Iterator[Problem]:
    """What a model's folder lacks, or has damaged: configuration, tokenizer, index, weights."""
    names = {path.name for path in folder.iterdir()}
    if "config.json" not in names:
        yield _without_config(folder)
        return
    if problem := special(folder):
        yield problem
        return
    try:
        refuse_code(folder)
    except RecipeError as error:
        yield from error.problems
        return
    if not names & set(TOKENIZER_FILES):
        yield Problem(
            f"`{folder}` has no tokenizer: none of {', '.join(TOKENIZER_FILES[:3])}",
            hint="copy the tokenizer's files of the model that it came from",
        )
    try:
        weights = weight_files(folder)
    except RecipeError as error:
        yield from error.problems
        return
    missing = [name for name in weights if name not in names]
    if problem := pickled(folder):
        yield problem
    elif missing:
        message = f"`{folder}` lacks {len(missing)} of {len(weights)} files of weights"
        yield Problem(f"{message}: {missing[0]}", hint="copy or download the rest of them")
    elif not weights:
        message = f"`{folder}` has no weights: no *.safetensors"
        hint = (
            "a model is trained from safetensors, not from GGUF"
            if any(name.endswith(".gguf") for name in names)
            else "copy or download them"
        )
        yield Problem(message, hint=hint)
    elif pointer := next((name for name in weights if _is_pointer(folder / name)), None):
        message = f"`{folder / pointer}` is a pointer of Git LFS, not the weights"
        yield Problem(message, hint=f"`git -C {folder} lfs pull`")
    else:
        try:
            parts.refuse_damaged(folder)
        except RecipeError as error:
            yield from error.problems


def refuse_code(folder: Path) -> None:
    """Raises: RecipeError for a local folder whose configuration names code to be imported.

    The Hub's cache is left out: there `trust_remote_code=False` stops such code, and many models
    name some beside that of transformers.
    """
    if _is_of_hub(folder):
        return
    for name in CONFIGS:
        config = parts.config(folder / name)
        if "auto_map" in config or "custom_pipelines" in config:
            key = "auto_map" if "auto_map" in config else "custom_pipelines"
            message = "names code of its own to be run, which is never done"
            hint = "remove the key, if transformers knows this architecture without it"
            raise RecipeError(f"`{folder / name}`: `{key}` {message}", hint=hint)
        for key in KERNELS:
            if "/" in str(config.get(key)):
                message = f"`{folder / name}`: `{key}` names code on the Hub, which is never run"
                raise RecipeError(message, hint="remove the key, or set it to sdpa")
        weights = config.get("transformers_weights")
        if weights is not None and weights not in [path.name for path in folder.iterdir()]:
            message = f"`{folder / name}`: `transformers_weights` names no file of the folder"
            raise RecipeError(message, hint="remove the key: the weights are model.safetensors")
        is_megatron = config.get("megatron_core") not in (None, "megatron.core")
        if is_megatron or config.get("megatron_config"):
            message = (
                f"`{folder / name}`: `megatron_core` names a module to be imported, which is never "
                "done"
            )
            hint = "set `megatron_config` to null, and `megatron_core` to megatron.core"
            raise RecipeError(message, hint=hint)


def refuse_unsafe(folder: Path) -> None:
    """Raises: RecipeError for a local folder of a model or an adapter that is not loaded: one with
    pickled weights in place of safetensors or with damaged files, or as for `refuse_code`."""
    refuse_code(folder)
    if problem := special(folder) or pickled(folder):
        raise RecipeError(problems=[problem])
    if not _is_of_hub(folder):
        parts.refuse_damaged(folder)


def _is_of_hub(folder: Path) -> bool:
    return folder.absolute().is_relative_to(hub.cache().absolute())


def special(folder: Path) -> Problem | None:
    """The problem with a folder that has a pipe, a socket or a device: reading one may not end."""
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.exists() and not path.is_file() and not path.is_dir()
    )
    if not names:
        return None
    message = f"`{folder}` has `{names[0]}`, which is neither a plain file nor a folder"
    return Problem(message, hint="copy or download the folder again")


def pickled(folder: Path) -> Problem | None:
    """The problem with a folder whose weights are stored in no other way than as pickled objects,
    or whose index names files elsewhere."""
    stem = "adapter_model" if (folder / hub.ADAPTER).is_file() else "model"
    if (folder / f"{stem}.safetensors").is_file():
        return None
    try:
        names = _indexed(folder / f"{stem}.safetensors.index.json")
    except RecipeError as error:
        return error.problems[0]
    for name in names or ():
        if Path(name).name != name or Path(name).suffix in PICKLED:
            message = f"`{folder}` has an index that names `{name}`, which is no safetensors in it"
            return Problem(message, hint="copy or download the folder again")
    files = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if names is None and files:
        message = f"`{folder}` has pickled weights, `{files[0]}`: only safetensors are loaded"
        return Problem(message, hint="save the model again as safetensors, the default since 2023")
    return None


def _without_config(folder: Path) -> Problem:
    inner = sorted(path.parent.name for path in folder.glob("*/config.json"))
    hint = f"did you mean `{folder / inner[0]}`?" if inner else "is it the folder of a model?"
    return Problem(f"`{folder}` has no config.json", hint=hint)


def weight_files(folder: Path) -> list[str]:
    """The names of the files of weights, by the index where there is one.

    Raises: RecipeError when the index is damaged.
    """
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (names := _indexed(folder / index)) is not None:
            return names
    weights = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return sorted(path.name for path in weights)


def _indexed(path: Path) -> list[str] | None:
    """The files that an index names; None where there is no index. Raises: RecipeError."""
    hint = "copy or download this file again"
    try:
        foreign.refuse_beyond(foreign.plain_size(path), parts.MAX_CONFIG_BYTES, "bytes", path)
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecipeError(f"`{path}` cannot be read: {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"`{path}` is damaged: it is not JSON: {reason}", hint=hint) from error
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        message = f"`{path}` is damaged: it has no `weight_map` of tensors to files"
        raise RecipeError(message, hint=hint)
    return sorted(set(files.values()))


def _is_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def describe(folder: Path) -> str:
    sizes = [(folder / name).stat().st_size for name in weight_files(folder)]
    return f"{len(sizes)} file{'s' * (len(sizes) != 1)} of weights, {sum(sizes) / 1e9:.1f} GB"
