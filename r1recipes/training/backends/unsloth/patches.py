"""Repairs of Unsloth and bitsandbytes at run time, each with its reason."""

import math
import sys
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


def paged_bytes() -> int:
    """State of all paged optimizers that bitsandbytes has made in this process.

    It lies outside torch's allocator, and nothing frees it (bitsandbytes, get_paged).
    """
    functional = sys.modules.get("bitsandbytes.functional")
    manager = functional.GlobalPageManager.get_instance() if functional else None
    return sum(tensor.nbytes for tensor in manager.paged_tensors) if manager else 0
