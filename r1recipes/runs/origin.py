"""What `model.name` means where it is not a model: a run or an adapter that a new run starts from.

A run is found by its folder or its short name, an adapter by the folder that holds it in PEFT's
format, also within a run. Nothing is loaded, so that `check` and `plan` refuse what cannot be
merged. Limits: LoRA adapters as safetensors, in folders of this machine, on a base in 16 or 32
bits; a recipe from elsewhere starts from a run only if a flag of the user says so.
"""

import hashlib
import json
from pathlib import Path

from r1recipes.data.local import model as local_model
from r1recipes.data.local import parts
from r1recipes.errors import PlanError, RecipeError, command
from r1recipes.machine import files, hub
from r1recipes.planning.architectures import Origin
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded
from r1recipes.recipe.schema import BUILTIN_MODELS, Model
from r1recipes.runs import trained
from r1recipes.runs.record import Run, checkpoints
from r1recipes.runs.trained import TrainedRun

CONFIG, WEIGHTS = hub.ADAPTER, "adapter_model.safetensors"


def of_recipe(loaded: Loaded, runs_dir: Path) -> Origin | None:
    """The adapter that a recipe names as its model; None where it names a model.

    Raises: RecipeError at the place of `model.name` when it is neither, or cannot be merged.
    """
    key = ("model", "name")
    if loaded.source and key not in loaded.overrides:
        return None
    try:
        return find(loaded.recipe.model, loaded.path.parent, runs_dir)
    except (RecipeError, PlanError) as error:
        problem = error.problems[0]
        where = loaded.where(key)
        raise RecipeError.at(where, f"`model.name`: {problem.message}", problem.hint) from error


def find(model: Model, base_dir: Path, runs_dir: Path) -> Origin | None:
    """The adapter that a model's name means; None where it names a model.

    Raises: RecipeError when it is neither, or cannot be merged.
    """
    if model.name in BUILTIN_MODELS:
        return None
    name = files.named(model.name)
    paths = [path for path in (base_dir / name, name) if path.exists()]
    if (runs_dir / name / "record.json").is_file():
        paths.append(runs_dir / name)
    for folder in paths:
        if (folder / "record.json").is_file():
            return _of_run(Run(folder), model)
        if (folder / CONFIG).is_file():
            return _of_adapter(folder, model)
        if (folder / "config.json").is_file():
            return None
    if paths:
        _refuse(paths[0])
    if hub.has_adapter(model.name):
        message, hint = hub.adapter_fault(model.name)
        raise RecipeError(message, hint=hint)
    return None


def _refuse(path: Path) -> None:
    """Raises: RecipeError about a file or folder that is nothing to train on."""
    if path.is_file():
        raise RecipeError(f"`{path}` is a file", hint="name the folder that holds the model")
    raise RecipeError(
        f"`{path}` is neither a model, nor an adapter, nor a run: it has no config.json, no "
        f"{CONFIG} and no record.json",
        hint=f"name the folder that has one of them; `{command('list', 'runs')}` shows the runs",
    )


def _of_run(run: Run, model: Model) -> Origin:
    if not run.resolved.is_file():
        raise RecipeError(
            f"`{run.folder}` is a shared run: it has a record and no weights",
            hint="name the model that it was trained on, or a run of yours",
        )
    return _of_trained(trained.of_run(run), model)


def _of_trained(source: TrainedRun, model: Model) -> Origin:
    """Raises: RecipeError when the run's base cannot be merged with."""
    if model.revision:
        raise RecipeError(
            f"`{source.run.folder}` is a run, which has no revisions on the Hub",
            hint="remove `model.revision`",
        )
    name = source.model_name
    local = source.plan.base_dir / files.named(name)
    folder = source.base or (local if local.is_dir() else None)
    _refuse_rounded(name, folder)
    return _origin(
        source.adapter,
        folder,
        model=local.name if local.is_dir() else name,
        revision=source.base_revision if folder is None else None,
        run=source.run.folder.absolute(),
        step=source.step,
        max_steps=source.plan.recipe.train.max_steps,
    )


def _of_adapter(folder: Path, model: Model) -> Origin:
    config = parts.config(folder / CONFIG)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise RecipeError(
            f"`{folder}` is an adapter of the kind {kind}, and only LoRA can be merged",
            hint="merge it with the tool that made it, and name the merged model",
        )
    if not (folder / WEIGHTS).is_file():
        raise RecipeError(
            f"`{folder}` has {CONFIG} and no {WEIGHTS}",
            hint="copy the whole adapter, stored as safetensors",
        )
    local_model.refuse_unsafe(folder)
    folder = folder.absolute()
    run = Run(folder.parent)
    if folder == run.adapter and run.resolved.is_file():
        return _of_run(run, model)
    run = Run(folder.parents[1])
    if folder.parent == run.checkpoints and run.resolved.is_file():
        return _of_checkpoint(run, folder, model)
    name = str(config.get("base_model_name_or_path") or "")
    base = _local_base(folder, name)
    _refuse_rounded(name, base)
    return _origin(
        folder,
        base,
        model=name if base is None else base.name,
        revision=(model.revision or config.get("revision")) if base is None else None,
    )


def _of_checkpoint(run: Run, folder: Path, model: Model) -> Origin:
    number = folder.name.removeprefix("checkpoint-")
    if not checkpoints.is_whole(folder) or not number.isdigit():
        raise RecipeError(
            f"`{folder}` is not a whole checkpoint: a kill left it half written",
            hint=f"`model.name = {json.dumps(str(run.folder))}` takes the last whole one",
        )
    return _of_trained(TrainedRun(run, run.pinned_plan(), folder, int(number)), model)


def _local_base(folder: Path, name: str) -> Path | None:
    """The folder of an adapter's base; None where the base is on the Hub. Raises: RecipeError."""
    hint = f"write the base's folder or Hub id into {folder / CONFIG}, `base_model_name_or_path`"
    if not name:
        raise RecipeError(f"the adapter `{folder}` does not name its base", hint=hint)
    for base in (folder / name, Path(name)):
        if (base / CONFIG).is_file():
            raise RecipeError(
                f"the base of the adapter `{folder}` is an adapter itself, `{base}`", hint=hint
            )
        if (base / "config.json").is_file():
            return base.absolute()
    is_hub_id = references.HUB_ID.fullmatch(name) and "/" in name  # `base` is that of an export
    if not is_hub_id or Path(name).is_absolute():
        message = f"the base of the adapter `{folder}` is not on this machine: `{name}`"
        raise RecipeError(message, hint=hint)
    return None


def _refuse_rounded(name: str, folder: Path | None) -> None:
    """Raises: RecipeError when the base is quantised."""
    is_quantised = references.is_4bit_name(name)
    if folder:
        is_quantised = "quantization_config" in parts.config(folder / "config.json")
    if is_quantised:
        plain = references.without_4bit(name)
        base = plain if plain != name else "MODEL"
        raise RecipeError(
            f"its base `{name}` is quantised; merging into it would round the adapter away",
            hint=f"`export` of the run with `--to merged_16bit --base {base}` merges it into 16-bit"
            " weights, and its folder is a model; for an adapter from elsewhere change "
            f"`base_model_name_or_path` in its {CONFIG}",
        )


def _origin(
    adapter: Path,
    base: Path | None,
    *,
    model: str,
    revision: str | None,
    run: Path | None = None,
    step: int | None = None,
    max_steps: int | None = None,
) -> Origin:
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    return Origin(
        adapter=adapter.absolute(),
        sha256=sha256(adapter),
        tokenizer=str(adapter.absolute() if has_tokenizer else base or model),
        model=model,
        base=base.absolute() if base else None,
        revision=revision,
        run=f"{run.parent.name}/{run.name}" if run else None,
        step=step,
        max_steps=max_steps,
    )


def sha256(adapter: Path) -> str:
    """Hash of an adapter's configuration and weights. Raises: RecipeError when they are gone."""
    digest = hashlib.sha256()
    try:
        for name in (CONFIG, WEIGHTS):
            with open(adapter / name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        message = f"the adapter `{adapter}` cannot be read: {error.strerror}"
        raise RecipeError(message, hint="put back a copy of it") from error
    return digest.hexdigest()


def verify(origin: Origin) -> None:
    """Raises: RecipeError when the adapter is no longer the one that the run began with."""
    if sha256(origin.adapter) != origin.sha256:
        raise RecipeError(
            f"the adapter `{origin.adapter}` changed since this run began",
            hint="start a new run, or put the old adapter back",
        )
