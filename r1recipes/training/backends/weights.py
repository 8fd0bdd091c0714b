"""Weights and tokenizers by name: which repository, which commit, and how they are loaded.

Limits: transformers and the Hub's cache only; Unsloth loads its weights by itself.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from r1recipes.data.local import model as local_model
from r1recipes.data.local import parts
from r1recipes.data.tokenizer import chat_template
from r1recipes.errors import PlanError, R1RecipesError, RecipeError, shorten
from r1recipes.machine import hub
from r1recipes.planning import architectures, disk
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.recipe.schema import BUILTIN_MODELS, Model
from r1recipes.training.backends import builtin


def checkpoint_bytes(model: Any) -> int:
    """Bytes of a checkpoint of the weights of a model that are trained."""
    return disk.checkpoint_bytes(sum(p.numel() for p in model.parameters() if p.requires_grad))


def resolve_name(name: str, base_dir: Path) -> str:
    """The absolute path of a local folder, relative to the recipe's folder; else the Hub id."""
    folder = base_dir / name
    return str(folder.absolute()) if folder.is_dir() else name


def try_template(template: str, plan: Plan) -> None:
    """Try the chat template of a run's folder, which may be a stranger's, where it can be stopped.

    Raises: RecipeError.
    """
    if template != builtin.CHAT_TEMPLATE:
        chat_template.attempt(template, plan.recipe.prompt.system)


def check_folder(name: str) -> None:
    """Try what a local folder of a model has beside its weights, before a run begins.

    Libraries raise errors of every kind for a value that they do not know, and name no file.
    Raises: RecipeError that names the file; as `refuse_unsafe`.
    """
    folder = Path(name)
    if not (folder / "config.json").is_file():
        return
    local_model.refuse_unsafe(folder)
    with _blamed(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    shapes = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
    parts.refuse_other_weights(folder, shapes)
    if (folder / "generation_config.json").is_file():
        with _blamed(folder / "generation_config.json"):
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
            generation.validate()
            _check_generation(generation)


_TOKENS = ("eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens")
_COUNTS = ("max_length", "max_new_tokens", "min_length", "min_new_tokens", "top_k",
           "no_repeat_ngram_size")  # fmt: skip
_NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty", "length_penalty")
_UNUSED = ("assistant_early_exit", "sequence_bias", "bad_words_ids", "forced_bos_token_id",
           "begin_suppress_tokens", "watermarking_config", "prompt_lookup_num_tokens")  # fmt: skip
"""Ways of generating that no model is trained with here."""


def _check_generation(generation: GenerationConfig) -> None:
    """Raises: TypeError for a value that generating would trip over, ValueError for one too large.

    transformers checks some of them, and merges all into the settings of a call.
    """
    for key in (*_TOKENS, *_COUNTS):
        value = getattr(generation, key, None)
        for number in value if isinstance(value, list) and key in _TOKENS else [value]:
            if number is not None and (type(number) is not int or not 0 <= number < 2**31):
                raise TypeError(
                    f"`{key}` must be a whole number from 0, not {shorten(repr(number))}"
                )
    for key in _NUMBERS:
        value = getattr(generation, key, None)
        if value is not None and (not isinstance(value, int | float) or not 0 <= value < 1e6):
            raise TypeError(f"`{key}` must be a number from 0, not {shorten(repr(value))}")
    if (generation.num_beams or 1) != 1 or (generation.num_return_sequences or 1) != 1:
        raise ValueError("`num_beams` and `num_return_sequences` must be 1: one answer is sampled")
    for key in _UNUSED:
        if getattr(generation, key, None) is not None:
            raise ValueError(f"`{key}` is for another way of generating")


def check_tokenizer(folder: Path) -> None:
    """Try the tokenizer in the folder of an adapter. Raises: RecipeError that names the file."""
    if (folder / "tokenizer_config.json").is_file():
        with _blamed(_tokenizer_file(folder)):
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            tokenizer("a")


@contextlib.contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Within it an error of a library is one about a local file. Raises: RecipeError."""
    try:
        yield
    except (R1RecipesError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # of transformers, tokenizers, safetensors and PEFT: without a root
        if isinstance(error, RuntimeError) and "mismatch" not in str(error):
            raise  # of CUDA, say
        reason = " ".join(str(error).split()) or type(error).__name__
        if "ignore_mismatched_sizes" in reason:
            reason = "its config.json describes tensors of other shapes than its weights have"
        if isinstance(error, KeyError):
            reason = f"it names {reason}, which transformers does not know"
        raise parts.damaged(path, shorten(reason)) from error


def with_adapter(
    base_model: PreTrainedModel, adapter: Path, base: str, *, is_trainable: bool = False
) -> Any:
    """The base with a LoRA adapter, all of whose weights have a place in it. `base`: its name.

    Raises: RecipeError for a damaged configuration; PlanError where the adapter does not fit.
    """
    hint = "`--base` must be the model that was trained, in 16 bits"
    with _blamed(adapter / hub.ADAPTER):
        PeftConfig.from_pretrained(str(adapter))
    try:
        model = PeftModel.from_pretrained(base_model, str(adapter), is_trainable=is_trainable)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = shorten(" ".join(str(error).split()))
        message = f"the adapter `{adapter}` does not fit the base `{base}`: {reason}"
        raise PlanError(message, hint=hint) from error
    needed = {key for key in get_peft_model_state_dict(model) if "lora_" in key}
    names = {key for key in parts.header(adapter / "adapter_model.safetensors") if "lora_" in key}
    if needed != names:
        verb = "lacks" if needed - names else "has"
        odd = min(needed - names or names - needed)
        where = f"{len(needed ^ names)} tensors differ: it {verb} `{odd}`"
        message = f"`{adapter / 'adapter_model.safetensors'}` does not fit the base `{base}`"
        raise PlanError(f"{message}: {where}", hint=hint)
    return model if is_trainable else model.eval()


WEIGHTS = ("*.json", "*.txt", "*.jinja", "*.model", "model*.safetensors")
"""Files of a repository that a model is loaded from; others hold the same weights once more."""


def at_commit(name: str, revision: str | None, offline: bool) -> Path:
    """The Hub's cached folder of a model at a revision, named after its commit; downloads it.

    For a loader that takes the default branch whatever revision it is given. Raises: PlanError.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(WEIGHTS)
        )
    except (OSError, ValueError) as error:
        model = f"`{name}` at revision `{revision}`" if revision else f"`{name}`"
        fault = hub.explain(error, offline=offline)
        raise PlanError(f"{model} {fault.predicate}", hint=fault.hint) from error
    return Path(folder)


def commit(model: Any) -> str | None:
    """The commit that a model was loaded from; None for a model that is not from the Hub."""
    return getattr(model.config, "_commit_hash", None)


def load_base(
    plan: Plan, folder: Path | None, *, offline: bool, is_trainable: bool = False
) -> PreTrainedModel:
    """The base model of a plan in the plan's precision, from `folder` after a cold start.

    `is_trainable`: for training all weights, so neither quantised nor in float16, whose gradients
    cannot be unscaled. Raises: OSError, ValueError from transformers.
    """
    model = plan.recipe.model
    if folder is None and model.name in BUILTIN_MODELS:
        return builtin.build_model(plan.recipe.seed, model.name)
    options: dict[str, Any] = {"dtype": getattr(torch, plan.dtype)}
    if is_trainable and plan.dtype == "float16":
        options["dtype"] = torch.float32
    if plan.preset.weights == "4bit" and not is_trainable:
        options["quantization_config"] = _nf4(plan.dtype)
    name = str(folder) if folder else resolve_name(model.name, plan.base_dir)
    check_folder(name)
    with _blamed(Path(name)) if Path(name).is_dir() else contextlib.nullcontext():
        return _whole(
            name,
            revision=None if folder else model.revision,
            local_files_only=offline,
            device_map={"": plan.device},
            **options,
        )


def _whole(name: str, **options: Any) -> PreTrainedModel:
    """A model; of a local folder with all of its weights, which transformers would make up.

    Raises: RecipeError; and whatever transformers does.
    """
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        name,
        trust_remote_code=False,  # left open, transformers would ask at the terminal
        output_loading_info=True,
        **options,
    )
    model, about = loaded
    lacking = sorted(about["missing_keys"])
    if lacking and Path(name).is_dir():
        message = f"`{name}` lacks {len(lacking)} of the model's tensors, such as `{lacking[0]}`"
        raise RecipeError(message, hint="copy or download the folder again")
    assert isinstance(model, PreTrainedModel)
    return model


def load_stored(name: str, revision: str | None, *, offline: bool) -> PreTrainedModel:
    """A model in the precision that it is stored in, on the CPU, to merge an adapter into it.

    Raises: PlanError when it cannot be loaded or is quantised; RecipeError as `check_folder`.
    """
    check_folder(name)
    try:
        with _blamed(Path(name)) if Path(name).is_dir() else contextlib.nullcontext():
            model = _whole(name, revision=revision, local_files_only=offline, dtype="auto")
    except (OSError, ValueError, ImportError) as error:
        if isinstance(error, R1RecipesError):
            raise
        raise PlanError(
            f"the base `{name}` in 16 bits {hub.explain(error, offline=offline).predicate}",
            hint="give its 16-bit weights with `--base ID_OR_FOLDER`",
        ) from error
    if getattr(model.config, "quantization_config", None):
        plain = references.without_4bit(name)
        raise PlanError(
            f"the base `{name}` is quantised; merging into it would round the adapter away",
            hint=f"give its 16-bit weights, such as `--base {plain}`"
            if plain != name
            else "give its 16-bit weights with `--base ID_OR_FOLDER`",
        )
    return model


def switched(model: Any, adapter: bool) -> contextlib.AbstractContextManager[None]:
    """Within it a PEFT model has its adapter, or is the base alone."""
    return contextlib.nullcontext() if adapter else model.disable_adapter()


def tokenizer_of(plan: Plan, offline: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of the model that a plan trains. Raises: PlanError."""
    model = plan.recipe.model
    if plan.origin:
        source = {"name": plan.origin.tokenizer, "revision": plan.origin.revision}
        model = model.model_copy(update=source)
    return load_tokenizer(model, plan.base_dir, offline)


def load_tokenizer(model: Model, base_dir: Path, offline: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; pads on the left, as generation needs.

    The folder of a built-in model is not left to AutoTokenizer: it gives every Qwen2 model the
    splitting of the original Qwen2, which drops spaces and newlines here (transformers,
    tokenization_auto.py, MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS).

    Raises: PlanError when it cannot be loaded.
    """
    if model.name in BUILTIN_MODELS:
        return builtin.build_tokenizer()
    name = resolve_name(model.name, base_dir)
    is_local = Path(name).is_dir()
    if is_local:
        local_model.refuse_unsafe(Path(name))
        check_folder(name)
    else:
        architectures.refuse_adapter(name, model.revision, offline=offline)
    options: dict[str, Any] = {
        "revision": model.revision,
        "local_files_only": offline,
        "trust_remote_code": False,
        "padding_side": "left",
    }
    try:
        with _blamed(_tokenizer_file(Path(name))) if is_local else contextlib.nullcontext():
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            if builtin.is_own(tokenizer):
                tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        if isinstance(error, R1RecipesError):
            raise
        fault = hub.explain(error, offline=offline)
        raise PlanError(
            f"the tokenizer of `{model.name}` {fault.predicate}",
            hint=f"{fault.hint}; or give a local folder",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_file(folder: Path) -> Path:
    """The file of a tokenizer that is to blame: tokenizer.json where it cannot be read alone."""
    path = folder / "tokenizer.json"
    if path.is_file():
        with _blamed(path):
            Tokenizer.from_file(str(path))
    return folder / "tokenizer_config.json"


def _nf4(dtype: str) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
