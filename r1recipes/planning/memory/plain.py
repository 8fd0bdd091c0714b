"""Memory of an algorithm that plain TRL trains on a card, without an engine.

Derived from the sources of TRL 1.12 and transformers, and not measured: what is near the memory of
the card is called tight. Limits: dense decoders of the Llama family.
"""

from dataclasses import replace

from r1recipes.planning.memory import constants
from r1recipes.planning.memory.case import Case
from r1recipes.planning.memory.predict import Fit
from r1recipes.planning.memory.training import training_pass, unpacked
from r1recipes.planning.models import adapter_parameters, weights_bytes

ERROR = 0.25
"""How far a measured peak may lie from the predicted one; assumed, as none has been measured."""
SAMPLED_BYTES = 16
"""Bytes for each entry of the vocabulary and sequence while a token is sampled: its logit in 32
bits, scaled, as a probability and sorted (derived; transformers, `_sample`)."""


def phases_of(case: Case) -> dict[str, dict[str, int]]:
    """Bytes by part for `load`, `generate` and `train`. As many completions are generated at once
    as a pass has."""
    values = constants.values()
    adapter = adapter_parameters(case.shape, case.lora_rank, case.targets)
    load = {
        "context": round(values["context"]),
        "weights": weights_bytes(case.shape, case.load_in),
        "adapter": 4 * adapter,
    }
    stays = load | {"optimizer": round(case.optimizer_bytes * adapter)} | unpacked(case)
    cache = case.batch * case.max_seq_length * case.shape.kv_token_bytes
    sampled = SAMPLED_BYTES * case.batch * case.shape.vocab_size
    plain = replace(case, shape=replace(case.shape, fused_mlp=False))
    return {
        "load": load,
        "generate": stays | {"KV cache": cache, "sampling": sampled},
        "train": stays | training_pass(plain, values),
    }


def verdict(peak: int, available: int) -> Fit:
    if peak * (1 + ERROR) <= available:
        return "fits"
    return "tight" if peak <= available * (1 + ERROR) else "does not fit"
