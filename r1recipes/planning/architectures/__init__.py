"""The shape of any model that can be planned: from the catalogue, a local folder, or the Hub; and
what a run knows of an adapter that it starts from.

Only config.json is read, some kB. Limits: dense decoders whose blocks are Llama's (see `families`);
mixtures of experts, models that see or hear, and anything unknown are refused by name.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from r1recipes.data.local.model import LIKELY, nearest_path
from r1recipes.errors import PlanError
from r1recipes.machine import hub
from r1recipes.planning import models
from r1recipes.planning.architectures.families import FAMILIES, TEXT_PARTS, UNPREDICTED, Family
from r1recipes.planning.models import ModelShape
from r1recipes.recipe import references
from r1recipes.recipe.schema import Model

MAX_COUNT = 10**8
"""A config.json with a larger number is damaged."""


FP8_METHODS = ("compressed-tensors", "fp8", "fbgemm_fp8")
"""Quantisations that weights in FP8 are stored with."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_intermediate_size")
_SENSES = ("vision_config", "audio_config", "vision_tower", "image_token_id")


class Origin(BaseModel):
    """An adapter that a run starts from: it is merged into its base, and the run trains a new
    adapter on the merged model, which is also the reference of the KL divergence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    adapter: Path
    """Folder with the adapter."""
    sha256: str
    """Hash of its configuration and weights."""
    tokenizer: str
    """Folder or Hub id that the tokenizer is loaded from."""
    model: str
    """Name of the base for people: a Hub id, a folder's name, or a built-in model."""
    base: Path | None
    """Folder with the base's weights; without one they are on the Hub."""
    revision: str | None
    """Commit, tag or branch of a base on the Hub."""
    run: str | None = None
    """The run that trained the adapter, such as `tiny/20261121T045820Z-83ddb244`."""
    step: int | None = None
    max_steps: int | None = None

    @property
    def base_model(self) -> Model:
        """The base as a recipe would name it."""
        return Model(name=str(self.base or self.model), revision=self.revision)

    def sentences(self, has_cold_start: bool) -> list[str]:
        """What a run starts from, and a warning where a cold start comes in between."""
        warning = (
            "warning: the cold start trains all weights of the merged model, and may undo what it "
            "has learned; remove [cold_start] from the recipe to train on from here"
        )
        return [self.sentence(), warning] if has_cold_start else [self.sentence()]

    def sentence(self) -> str:
        """`starts from run tiny/... at step 35 of 100, merged into builtin:tiny (adapter 1a2b)`."""
        source = f"adapter {self.adapter.name}"
        if self.run:
            source = f"run {self.run} at step {self.step} of {self.max_steps}"
        return f"starts from {source}, merged into {self.model} (adapter {self.sha256[:8]})"


class Unreachable(PlanError):
    """The config.json of a model cannot be read now, so that nobody can tell what it is."""


class Refused(PlanError):
    """A model that nothing here trains."""


class UnknownFamily(Refused):
    """A dense model whose blocks may be other than Llama's. The engine and its memory are not known
    to work for it; plain TRL trains it."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a model's files."""

    shape: ModelShape
    quantised: bool
    """Whether they are stored in bitsandbytes 4-bit."""
    family: str | None = None
    """The first word of its architecture, such as `qwen`; None where its config.json was not read.
    """
    config: dict[str, Any] | None = None
    """config.json as it is; None of a model of the catalogue, which is not read."""


def find(name: str, base_dir: Path, *, revision: str | None = None, offline: bool) -> Checkpoint:
    """The checkpoint behind a Hub id or a local folder.

    Raises: PlanError when it cannot be read, or its architecture is not supported.
    """
    if name in models.BUILTIN:
        return Checkpoint(models.BUILTIN[name], quantised=False)
    folder = base_dir / name
    if folder.is_file():
        raise PlanError(f"`{name}` is a file", hint="a model is a folder with a config.json")
    if folder.is_dir():
        return of_config(_read(folder / "config.json"), name)
    shape = models.find(name)
    if shape:
        return Checkpoint(shape, references.is_4bit_name(name))
    try:
        return of_config(_read(_fetch(name, revision, offline)), name)
    except PlanError as error:
        near = nearest_path(name, base_dir, is_model=True, alike=LIKELY)
        if near is None or isinstance(error, Refused):
            raise
        text = f"did you mean the folder `{near}`? Else {error.problems[0].hint}"
        raise type(error)(str(error), hint=text) from error


def refuse_adapter(name: str, revision: str | None, *, offline: bool) -> None:
    """Refuse an adapter on the Hub: transformers would load its base instead, without a word.

    A repository that cannot be asked is left to the loader, which explains it. Raises: PlanError.
    """
    import httpx
    from huggingface_hub import file_exists

    is_adapter = hub.has_adapter(name)
    if not is_adapter and not offline:
        with suppress(httpx.HTTPError, OSError, ValueError):
            is_adapter = file_exists(name, hub.ADAPTER, revision=revision)
    if is_adapter:
        message, hint = hub.adapter_fault(name)
        raise PlanError(message, hint=hint)


def num_embeddings(model: Model, base_dir: Path, *, offline: bool) -> int | None:
    """The tokens that a model of any architecture has embeddings for; None where its config.json
    does not say it or cannot be read, which loading will explain."""
    shape = models.BUILTIN.get(model.name) or models.find(model.name)
    folder = base_dir / model.name
    if shape and not folder.is_dir():
        return shape.vocab_size
    try:
        path = folder / "config.json"
        config = _read(path if folder.is_dir() else _fetch(model.name, model.revision, offline))
    except PlanError:
        return None
    text = config.get("text_config")
    number = (text if isinstance(text, dict) else config).get("vocab_size")
    return number if isinstance(number, int) else None


def of_config(config: dict[str, Any], name: str) -> Checkpoint:
    """The checkpoint that a config.json describes. Raises: PlanError."""
    kind = config.get("model_type")
    nested = config.get("text_config")
    merged = config | (nested if isinstance(nested, dict) else {})
    hint, reason = _HINT, UNPREDICTED.get(kind) if isinstance(kind, str) else None
    if any(merged.get(key) is not None for key in _SENSES) or nested is not None:
        predicate = "takes more than text"
        if text := TEXT_PARTS.get(str(kind)):
            hint = f"its text part is supported as a model of its own, a `{text}`: docs/models.md"
    elif any(config.get(key) for key in _EXPERTS):
        predicate = "is a mixture of experts"
    elif kind is None:
        message = f"config.json of `{name}` has no `model_type`, which names its architecture"
        raise PlanError(message, hint=f"take the model's own config.json; {_HINT}")
    elif not isinstance(kind, str) or kind not in FAMILIES:
        because = f": {reason}" if reason else ""
        raise UnknownFamily(f"`{name}` has the unknown architecture `{kind}`{because}", hint=_HINT)
    else:
        family = re.match("[a-z]+", kind)
        word = family[0] if family else None
        return Checkpoint(_shape(config, name), _in_4_bit(config, name), word, config)
    named = f" ({kind})" if kind else ""
    because = f"; {reason}" if reason else ""
    raise Refused(f"`{name}` {predicate}{named}, which is not supported{because}", hint=hint)


COPY = "copy or download the model's config.json again"
_HINT = "supported are dense models of the families " + ", ".join(FAMILIES)


def _in_4_bit(config: dict[str, Any], name: str) -> bool:
    """Whether the weights are bitsandbytes 4-bit. Raises: PlanError for any other quantisation."""
    settings = config.get("quantization_config")
    if not settings:
        return False
    settings = settings if isinstance(settings, dict) else {}
    method = settings.get("quant_method", "an unknown method")
    if method == "bitsandbytes":
        if settings.get("load_in_4bit"):
            return True
        method = "bitsandbytes in 8 bits"
    hint = "take the 16-bit checkpoint, or one in bitsandbytes 4-bit"
    if method in FP8_METHODS:
        hint = 'take the 16-bit checkpoint: with `load_in = "fp8"` it is quantised here'
    raise Refused(
        f"`{name}` is quantised with {method}, which cannot be trained",
        hint=hint,
    )


def _shape(config: dict[str, Any], name: str) -> ModelShape:
    def number(key: str, default: int | None = None) -> int:
        return _number(config, key, name, default)

    family = FAMILIES[config["model_type"]]
    hidden, inner = number("hidden_size"), number("intermediate_size")
    heads = number("num_attention_heads")
    key_heads = number("num_key_value_heads", heads)
    head = number("head_dim", family.head_dim or max(1, hidden // heads))
    tied, bias = config.get("tie_word_embeddings"), config.get("attention_bias")
    bias = family.bias if bias is None else bool(bias)
    query_norm = {"none": 0, "head": 2 * head, "all": (heads + key_heads) * head}
    extra = (len(family.norms) - 2) * hidden + query_norm[family.query_norm]
    extra += hidden if bias and family.output_bias else 0
    extra += 2 * inner + hidden if config.get("mlp_bias") else 0
    has_window = config.get("sliding_window") is not None
    windowed_layers = _windowed_layers(config, family, number("num_hidden_layers"))
    return ModelShape(
        owner="",
        repositories=(),
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=number("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=head,
        vocab_size=number("vocab_size"),
        tie_word_embeddings=family.tied if tied is None else bool(tied),
        attention_bias=bias,
        sliding_window=number("sliding_window") if family.windowed and has_window else None,
        windowed_layers=windowed_layers,
        window=number("sliding_window") if windowed_layers and has_window else None,
        extra_parameters=extra,
        capped_attention=family.capped,
        fused_mlp=family.fused and not config.get("mlp_bias"),
        model_type=config["model_type"],
    )


def _windowed_layers(config: dict[str, Any], family: Family, layers: int) -> int:
    """Layers that look back a window only, where others keep whole sequences."""
    types = config.get("layer_types")
    if isinstance(types, list):
        return sum(kind == "sliding_attention" for kind in types[:layers])
    every = config.get("sliding_window_pattern", family.whole_every)
    if family.whole_every is None or type(every) is not int or every < 1:
        return 0
    return layers - layers // every


def _number(config: dict[str, Any], key: str, name: str, default: int | None) -> int:
    """A count of config.json; `default` where it is missing or null. Raises: PlanError."""
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 1 <= value <= MAX_COUNT:
        state = "no" if key not in config else f"{str(value)[:40]} for"
        raise PlanError(
            f"config.json of `{name}` has {state} `{key}`, expected 1 to {MAX_COUNT:,}",
            hint="check `model.name`: is it a model?",
        )
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"`{path}` cannot be read: {error.strerror}", hint=COPY) from error
    except (ValueError, RecursionError) as error:
        raise PlanError(f"`{path}` is not JSON: {error}", hint=COPY) from error
    if not isinstance(config, dict):
        raise PlanError(f"`{path}` is not a model's configuration", hint=COPY)
    return config


def _fetch(name: str, revision: str | None, offline: bool) -> Path:
    """config.json from the Hub or its cache. Imported here: that takes longer than a plan."""
    from huggingface_hub import hf_hub_download

    is_cut_off = offline or not hub.answers()
    try:
        return Path(
            hf_hub_download(name, "config.json", revision=revision, local_files_only=is_cut_off)
        )
    except (OSError, ValueError) as error:
        refuse_adapter(name, revision, offline=is_cut_off)
        fault = hub.explain(error, offline=offline)
        folder = "give a local folder with its config.json"
        kind = Unreachable if hub.is_out_of_reach(error) else PlanError
        raise kind(
            f"`{name}` is not a folder here, and {fault.predicate}",
            hint=f"{fault.hint}; or {folder}",
        ) from error
