"""The least time that a GRPO step can take on a card: memory traffic, or arithmetic at its peak.

Closed forms: all completions of the step are decoded together, the prompt of a group is prefilled
once, weights are read once a token, nothing waits. Limits: no kernel reaches it; completions that a
small card has to decode in turns, since its cache does not hold them, count as decoded together.
Sources: vendors' peaks, dense 16-bit (machine/cards), and shapes from config.json
(planning/models.py).
"""

from dataclasses import dataclass
from typing import Any

from r1recipes.machine import cards
from r1recipes.machine.cards import Peak
from r1recipes.planning import models
from r1recipes.planning.models import NF4_BYTES, ModelShape

BACKWARD_ATTENTION = 2.5
"""Operations of a backward pass of attention per operation of a forward pass: scores again, and the
gradients of queries, keys and values (published, arXiv 2205.14135)."""


@dataclass(frozen=True)
class Floor:
    """Seconds of a step at the roofline."""

    generation_s: float
    training_s: float

    @property
    def step_s(self) -> float:
        return self.generation_s + self.training_s


def floor(proof: dict[str, Any]) -> Floor:
    """The roofline of what a proof of `rehearse` has measured.

    Raises: ValueError if the model or the card of the proof is not in the tables.
    """
    shape, settings = models.find(proof["recipe_model"]), proof["settings"]
    card = cards.find_gpu(proof["card"])
    if shape is None or card is None:
        raise ValueError(f"no shape or no card is known: {proof['recipe_model']}, {proof['card']}")
    peak = card.peak
    completions = proof["completions_per_step"]
    length = proof["mean_length"]
    prompt = settings["max_seq_length"] - settings["max_completion_length"]
    weight_bytes = 1.0 if settings.get("load_in") == "fp8" else 2.0
    weight_bytes = NF4_BYTES if settings["load_in_4bit"] else weight_bytes
    return Floor(
        _prefill_s(shape, settings["prompts_per_step"] * prompt, peak)
        + length * _token_s(shape, completions, prompt + length / 2, weight_bytes, peak),
        _training_s(shape, completions, prompt, length, settings["lora_rank"], peak),
    )


def _head(shape: ModelShape) -> int:
    """Operations of the output head for one token."""
    return 2 * shape.hidden_size * shape.vocab_size


def _attention(shape: ModelShape) -> int:
    """Operations of scores and their use for one token and one token that it attends to."""
    return 4 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim


def _prefill_s(shape: ModelShape, tokens: int, peak: Peak) -> float:
    return tokens * 2 * shape.linear_parameters / peak.operations


def _token_s(
    shape: ModelShape, at_once: int, context: float, weight_bytes: float, peak: Peak
) -> float:
    """One token for each of `at_once` sequences: the weights and every KV cache are read."""
    weights = shape.linear_parameters * weight_bytes
    cache = 4 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    traffic = weights + _head(shape) + at_once * context * cache  # the head: 2 bytes a weight
    one = 2 * shape.linear_parameters + _head(shape) + _attention(shape) * context
    return max(traffic / peak.bandwidth, at_once * one / peak.operations)


def _training_s(
    shape: ModelShape, completions: int, prompt: int, length: float, rank: int, peak: Peak
) -> float:
    """Forward, forward again from the checkpoint, and the gradient of the inputs; weights of the
    base have no gradient. The head sees completions alone; there is no pass for log-probs or KL."""
    tokens = completions * (prompt + length)
    linear = 3 * 2 * shape.linear_parameters
    mean_context = (prompt + length) / 2
    attention = (2 + BACKWARD_ATTENTION) * _attention(shape) * mean_context
    sides = sum(inputs + outputs for inputs, outputs in shape.projections.values())
    adapter = 3 * 2 * rank * shape.num_hidden_layers * sides
    head = 2 * _head(shape) * completions * length
    return (tokens * (linear + attention + adapter) + head) / peak.operations
