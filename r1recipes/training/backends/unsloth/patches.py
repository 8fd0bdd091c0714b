"""Repairs of Unsloth and bitsandbytes at run time, each with its reason."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch


def bound_reference_pass(trainer: Any) -> None:
    """Let Unsloth score the reference (beta > 0) in passes as large as those of training.

    With `unsloth_grpo_mini_batch = 1` it takes all completions of a step in one pass, which has
    many times the tokens of a training pass, for which the memory is planned
    (unsloth/models/rl_replacements.py, _get_per_token_logps_and_entropies, `B` and `_pk_cap`).
    The pass is not compiled: compilation unrolls its loop over parts of 256 rows, again for each
    number of parts, and with 48 of them the first step took 186 s, the next 12
    (benchmarks/memory/points/beta.json).
    """
    score, args = trainer._get_per_token_logps_and_entropies, trainer.args

    def in_passes(model: Any, input_ids: Any, *rest: Any, **options: Any) -> Any:
        training_passes = args.unsloth_grpo_mini_batch
        args.unsloth_grpo_mini_batch = math.ceil(len(input_ids) / args.per_device_train_batch_size)
        try:
            with torch.compiler.set_stance("force_eager"):
                return score(model, input_ids, *rest, **options)
        finally:
            args.unsloth_grpo_mini_batch = training_passes

    trainer._get_per_token_logps_and_entropies = in_passes


def return_logits() -> None:
    """Let the forward pass return logits again, not hidden states, as a GRPO trainer has asked for
    in this process (unsloth/models/llama.py, UNSLOTH_RETURN_HIDDEN_STATES)."""
    os.environ["UNSLOTH_RETURN_HIDDEN_STATES"] = "0"


@contextlib.contextmanager
def kv_cache_in(dtype: str | None) -> Iterator[None]:
    """While a model is loaded: let vLLM store keys and values as `dtype`, where it is not None.

    Unsloth has an argument for "fp8" alone, and may ask for an attention backend that knows no
    scales for each token and head; Triton's does (unsloth_zoo/vllm_utils.py, load_vllm;
    vllm/v1/attention/backends/triton_attn.py).
    """
    if dtype is None:
        yield
        return
    kind = sys.modules["vllm"].LLM
    original = kind.__init__
    ours = {"kv_cache_dtype": dtype}
    if dtype.endswith("per_token_head"):
        ours["attention_backend"] = "TRITON_ATTN"

    @functools.wraps(original)
    def initialise(self: Any, *args: Any, **arguments: Any) -> None:
        original(self, *args, **arguments | ours)

    kind.__init__ = initialise
    try:
        yield
    finally:
        kind.__init__ = original


def paged_bytes() -> int:
    """State of all paged optimizers that bitsandbytes has made in this process.

    It lies outside torch's allocator, and nothing frees it (bitsandbytes, get_paged).
    """
    functional = sys.modules.get("bitsandbytes.functional")
    manager = functional.GlobalPageManager.get_instance() if functional else None
    return sum(tensor.nbytes for tensor in manager.paged_tensors) if manager else 0
