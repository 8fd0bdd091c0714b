"""Base + adapter -> one model in 16 or 4 bits, and the measures that prove what was written.

The base is read in the precision that it is stored in, never in 4 bits; W + scale * B A is summed
in 32 bits and rounded once. Merging is done on the CPU, so that no GPU is needed. Limits: the
merged model must fit into main memory; 4 bits need an NVIDIA GPU and bitsandbytes.
"""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from r1recipes.errors import RunError, first_line
from r1recipes.planning.architectures import Origin
from r1recipes.planning.plan import Plan
from r1recipes.recipe.schema import BUILTIN_MODELS, Model
from r1recipes.training.backends import builtin, weights
from r1recipes.training.backends.base import Messages

MAX_COMPLETION = 256
"""Tokens of a recorded completion that are compared; assumed enough to tell models apart."""
SAME_RELEASES = (
    "install the releases of transformers and tokenizers that the run's lock.json names, and "
    "export again"
)
"""Hint where a form that was written is not read again as what was trained."""
Example = tuple[Messages, str]
"""Messages and the answer that the trained model gave."""


class Trained:
    """Base and adapter in memory, not merged yet, with the base in its own precision.

    Raises: PlanError when the base is quantised or cannot be loaded.
    """

    def __init__(
        self, plan: Plan, base: str | Path | None, adapter: Path, template: str, *, offline: bool
    ):
        weights.try_template(template, plan)
        weights.check_tokenizer(adapter)
        self.tokenizer = weights.tokenizer_of(plan, offline)
        self.tokenizer.chat_template = template
        base_model = _load_base(plan, base, offline)
        self.revision = weights.commit(base_model)
        name = str(base or plan.recipe.model.name)
        self.model: Any = weights.with_adapter(base_model, adapter, name)

    def num_parameters(self) -> int:
        return self.model.get_base_model().num_parameters()

    def dtype(self) -> torch.dtype:
        """The 16-bit type of the merged model: that of the stored weights. For 32-bit weights it is
        float16, which rounds eight times finer than bfloat16, unless a weight is too large for it.
        """
        parameters = self.model.get_base_model().parameters()
        floating = [p for p in parameters if p.is_floating_point()]
        if floating[0].dtype != torch.float32:
            return floating[0].dtype
        largest = max(float(p.detach().abs().max()) for p in floating)
        return torch.float16 if largest < 0.5 * torch.finfo(torch.float16).max else torch.bfloat16

    def likelihoods(self, examples: list[Example], *, adapter: bool) -> list[torch.Tensor]:
        """Log-probabilities at each position of each answer, (tokens, vocabulary)."""
        with weights.switched(self.model, adapter):
            return log_probabilities(self.model, self.tokenizer, examples)

    def answer(self, messages: list[dict[str, str]], limit: int) -> str:
        """The likeliest answer of base + adapter, of at most `limit` tokens."""
        ids = greedy(self.model, self.tokenizer, messages, limit)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def save_merged(self, folder: Path) -> None:
        """Merge, round to 16 bits, write model and tokenizer. `self.model` stays merged."""
        dtype = self.dtype()
        self.model = self.model.merge_and_unload(safe_merge=True).to(dtype)
        # The base's authors chose their sampling settings for another model than this one.
        self.model.generation_config.do_sample = False
        for name in ("temperature", "top_p", "top_k"):
            setattr(self.model.generation_config, name, None)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def write_origin(origin: Origin, base: Path, folder: Path) -> None:
    """Write the model that a run starts from, in the precision that the base is stored in, with
    the tokenizer that the adapter was trained with.

    `base` is the folder of the base's weights. Raises: PlanError when the adapter does not fit.
    """
    tokenizer = weights.load_tokenizer(Model(name=origin.tokenizer), base, offline=True)
    base_model = weights.load_stored(str(base), None, offline=True)
    adapted = weights.with_adapter(base_model, origin.adapter, origin.model)
    adapted.merge_and_unload(safe_merge=True).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load_base(plan: Plan, base: str | Path | None, offline: bool) -> PreTrainedModel:
    """The base in its own precision: the user's `base`, else the model of the recipe."""
    model = plan.recipe.model
    if base:
        return weights.load_stored(str(base), None, offline=offline)
    if model.name in BUILTIN_MODELS:
        return builtin.build_model(plan.recipe.seed, model.name)
    name = weights.resolve_name(model.name, plan.base_dir)
    return weights.load_stored(name, model.revision, offline=offline)


def log_probabilities(model: Any, tokenizer: Any, examples: list[Example]) -> list[torch.Tensor]:
    """At each position of each example's answer, (tokens, vocabulary), in 32 bits."""
    likelihoods = []
    with torch.no_grad():
        for messages, answer in examples:
            prompt = prompt_ids(tokenizer, messages)
            rest = tokenizer(answer, add_special_tokens=False)["input_ids"][:MAX_COMPLETION]
            ids = torch.tensor([[*prompt, *rest]], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 :]
            likelihoods.append(logits.float().log_softmax(-1).cpu())
    return likelihoods


def share_likeliest(
    likelihoods: list[torch.Tensor], tokenizer: Any, examples: list[Example]
) -> float:
    """Share of the answers' tokens that are the likeliest at their position."""
    same = []
    for rows, (_, answer) in zip(likelihoods, examples, strict=True):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"][:MAX_COMPLETION]
        same += (rows[: len(ids)].argmax(-1) == torch.tensor(ids)).tolist()
    return sum(same) / len(same) if same else 1.0  # every answer is empty


def log_softmax(logits: Any) -> torch.Tensor:
    """Log-probabilities from a numpy array of logits."""
    return torch.from_numpy(logits).float().log_softmax(-1)


def prompt_ids(tokenizer: Any, messages: Messages) -> list[int]:
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]


def divergence(reference: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Mean Kullback-Leibler divergence of `other` from `reference`, in nats per token."""
    sums = [(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, other, strict=True)]
    return float(torch.cat(sums).mean().clamp(min=0.0))  # rounding can give less; NaN stays


def reload(
    folder: Path, base: str | None = None, *, own_tokenizer: bool = False, device: str = "cpu"
) -> tuple[Any, Any]:
    """Model and tokenizer as a user would load them; `folder` is an adapter where `base` is given.

    With `own_tokenizer` AutoTokenizer is not used: it gives every Qwen2 model the splitting of the
    original Qwen2, whatever its tokenizer.json says (transformers, tokenization_auto.py,
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS). Raises: RunError when they cannot be loaded.
    """
    loader = PreTrainedTokenizerFast if own_tokenizer else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True)
        weights_model = AutoModelForCausalLM.from_pretrained(
            base or folder, local_files_only=True, dtype="auto", device_map={"": device}
        )
        model = PeftModel.from_pretrained(weights_model, folder) if base else weights_model
    except Exception as error:  # of four libraries without a common root; each means the same
        message = f"what was written cannot be loaded again: {first_line(error)}"
        raise RunError(message, hint=SAME_RELEASES) from error
    return model.eval(), tokenizer


def greedy(model: Any, tokenizer: Any, messages: Messages, limit: int) -> list[int]:
    """Ids of the likeliest answer, without the prompt, up to and with its end."""
    prompt = prompt_ids(tokenizer, messages)
    with torch.no_grad():
        output = model.generate(
            input_ids=torch.tensor([prompt], device=model.device),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=model.device),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return output[0, len(prompt) :].tolist()


def save_4bit(merged: Path, folder: Path) -> None:
    """Quantise a merged folder to NF4. Needs an NVIDIA GPU and bitsandbytes."""
    from r1recipes.training.backends import quantised

    dtype = AutoModelForCausalLM.from_pretrained(merged, device_map="meta", dtype="auto").dtype
    quantised.write_checkpoint(merged, folder, dtype, quantised.FORMS["4bit"])


def save_builtin(plan: Plan, folder: Path) -> None:
    """Write the base and the tokenizer of a built-in model, which is not on the Hub."""
    model = builtin.build_model(plan.recipe.seed, plan.recipe.model.name)
    model.save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
