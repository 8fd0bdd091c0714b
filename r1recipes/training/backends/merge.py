"""Base + adapter -> one model in 16 or 4 bits, and the proof that what was written is that model.

The base is read in the precision that it is stored in, never in 4 bits; W + scale * B A is summed
in 32 bits and rounded once. On the CPU, so that no card is needed. Limits: the merged model must
fit into main memory; 4 bits need an NVIDIA GPU and bitsandbytes.
"""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from r1recipes.errors import PlanError, RunError, first_line
from r1recipes.machine import hub
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.backends.weights import load_tokenizer, resolve_name

MAX_COMPLETION = 256
"""Tokens of a recorded completion that the proof looks at; assumed enough to tell models apart."""
Example = tuple[list[dict[str, str]], str]
"""Messages and the answer that the trained model gave."""


class Trained:
    """Base and adapter in memory, not merged yet, with the base in its own precision.

    Raises: PlanError when the base is only there in 4 bits or cannot be had.
    """

    def __init__(
        self, plan: Plan, base: str | Path | None, adapter: Path, template: str, *, offline: bool
    ):
        self.tokenizer = load_tokenizer(plan.recipe.model, plan.base_dir, offline)
        self.tokenizer.chat_template = template
        weights = _base_weights(plan, base, offline)
        self.revision: str | None = getattr(weights.config, "_commit_hash", None)
        try:
            self.model = PeftModel.from_pretrained(weights, adapter).eval()
        except RuntimeError as error:  # the shapes differ
            raise PlanError(
                f"the adapter does not fit the base `{base or plan.recipe.model.name}`",
                hint="`--base` must be the model that was trained, in 16 bits",
            ) from error

    def num_parameters(self) -> int:
        return self.model.get_base_model().num_parameters()

    def dtype(self) -> torch.dtype:
        """16 bits of the kind that the weights are stored in; float16 for 32-bit weights, since it
        rounds eight times finer than bfloat16, unless one of them is too large for it."""
        weights = [p for p in self.model.get_base_model().parameters() if p.is_floating_point()]
        if weights[0].dtype != torch.float32:
            return weights[0].dtype
        largest = max(float(p.detach().abs().max()) for p in weights)
        return torch.float16 if largest < 0.5 * torch.finfo(torch.float16).max else torch.bfloat16

    def likelihoods(self, examples: list[Example], *, adapter: bool) -> list[torch.Tensor]:
        """Log-probabilities at each position of each answer, (tokens, vocabulary)."""
        if adapter:
            return log_probabilities(self.model, self.tokenizer, examples)
        with self.model.disable_adapter():
            return log_probabilities(self.model, self.tokenizer, examples)

    def save_merged(self, folder: Path) -> None:
        """Merge, round to 16 bits, write model and tokenizer. The model is merged from then on."""
        dtype = self.dtype()
        self.model = self.model.merge_and_unload(safe_merge=True).to(dtype)
        # Sampling settings of the base's authors for another model; the card names this one's.
        self.model.generation_config.do_sample = False
        for name in ("temperature", "top_p", "top_k"):
            setattr(self.model.generation_config, name, None)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _base_weights(plan: Plan, base: str | Path | None, offline: bool) -> Any:
    model, wanted = plan.recipe.model, str(base) if base else None
    if wanted is None and model.name.startswith("builtin:"):
        backend = TrlBackend(plan, offline=offline)
        return backend.load_weights(None)
    name = wanted or resolve_name(model.name, plan.base_dir)
    revision = None if wanted else model.revision
    try:
        weights = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            local_files_only=offline,
            trust_remote_code=False,  # left open, transformers would ask at the terminal
            dtype="auto",
        )
    except (OSError, ValueError, ImportError) as error:
        raise PlanError(
            f"the base `{name}` in 16 bits {hub.explain(error, offline=offline).predicate}",
            hint="give its 16-bit weights with `--base ID_OR_FOLDER`",
        ) from error
    if getattr(weights.config, "quantization_config", None):
        plain = name.removesuffix("-bnb-4bit").removesuffix("-unsloth")
        raise PlanError(
            f"the base `{name}` is quantised; merging into it would round the adapter away",
            hint=f"give its 16-bit weights, such as `--base {plain}`"
            if plain != name
            else "give its 16-bit weights with `--base ID_OR_FOLDER`",
        )
    return weights


def log_probabilities(model: Any, tokenizer: Any, examples: list[Example]) -> list[torch.Tensor]:
    """At each position of each example's answer, (tokens, vocabulary), in 32 bits."""
    found = []
    with torch.no_grad():
        for messages, answer in examples:
            prompt = prompt_ids(tokenizer, messages)
            rest = tokenizer(answer, add_special_tokens=False)["input_ids"][:MAX_COMPLETION]
            ids = torch.tensor([[*prompt, *rest]], device=model.device)
            logits = model(input_ids=ids).logits[0, len(prompt) - 1 :]
            found.append(logits.float().log_softmax(-1).cpu())
    return found


def share_likeliest(
    likelihoods: list[torch.Tensor], tokenizer: Any, examples: list[Example]
) -> float:
    """Share of the answers' tokens that are the likeliest where they stand."""
    same = []
    for rows, (_, answer) in zip(likelihoods, examples, strict=True):
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"][:MAX_COMPLETION]
        same += (rows[: len(ids)].argmax(-1) == torch.tensor(ids)).tolist()
    return sum(same) / len(same)


def log_softmax(logits: Any) -> torch.Tensor:
    """Log-probabilities from a numpy array of logits."""
    return torch.from_numpy(logits).float().log_softmax(-1)


def prompt_ids(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]


def divergence(reference: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Mean Kullback-Leibler divergence of `other` from `reference` at a token, in nats."""
    sums = [(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, other, strict=True)]
    return float(torch.cat(sums).mean().clamp(min=0.0))  # rounding can take it below; NaN stays


def reload(
    folder: Path, base: str | None = None, *, own_tokenizer: bool = False, device: str = "cpu"
) -> tuple[Any, Any]:
    """Model and tokenizer as a user would load them; `folder` is an adapter where `base` is given.

    With `own_tokenizer` not by AutoTokenizer, which gives every Qwen2 model that model's own
    splitting into words, whatever its tokenizer.json says (transformers 5.17, tokenization_auto.py,
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS). Raises: RunError when they cannot be loaded.
    """
    loader = PreTrainedTokenizerFast if own_tokenizer else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            base or folder, local_files_only=True, dtype="auto", device_map={"": device}
        )
        if base:
            model = PeftModel.from_pretrained(model, folder)
    except Exception as error:
        raise RunError(f"what was written cannot be loaded again: {first_line(error)}") from error
    return model.eval(), tokenizer


def greedy(model: Any, tokenizer: Any, messages: list[dict[str, str]], limit: int) -> list[int]:
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
    from r1recipes.training.backends import nf4

    dtype = AutoModelForCausalLM.from_pretrained(merged, device_map="meta", dtype="auto").dtype
    nf4.write_checkpoint(merged, folder, dtype)


def save_builtin(plan: Plan, folder: Path) -> None:
    """Write a built-in base, which is on no Hub, with its tokenizer."""
    backend = TrlBackend(plan, offline=True)
    backend.load_weights(None).save_pretrained(folder)
    backend.tokenizer().save_pretrained(folder)
