"""What is mended in Unsloth and bitsandbytes while they run, each with its reason."""

import math
import sys
from typing import Any

import torch


def bound_reference_pass(trainer: Any) -> None:
    """Let Unsloth score the reference (beta > 0) in passes as large as those of training.

    With `unsloth_grpo_mini_batch = 1` it takes all completions of a step in one pass: those are
    many times the tokens that a training pass has and that the memory is planned for
    (unsloth/models/rl_replacements.py, _get_per_token_logps_and_entropies, `B` and `_pk_cap`).
    Nothing is compiled in it: its loop over parts of 256 rows is unrolled, anew for each number of
    parts, and with 48 of them the first step took 186 s, the next 12
    (benchmarks/memory/points/beta.json).
    """
    score, args = trainer._get_per_token_logps_and_entropies, trainer.args

    def in_passes(model: Any, input_ids: Any, *rest: Any, **options: Any) -> Any:
        asked = args.unsloth_grpo_mini_batch
        args.unsloth_grpo_mini_batch = math.ceil(len(input_ids) / args.per_device_train_batch_size)
        try:
            with torch.compiler.set_stance("force_eager"):
                return score(model, input_ids, *rest, **options)
        finally:
            args.unsloth_grpo_mini_batch = asked

    trainer._get_per_token_logps_and_entropies = in_passes


def paged_bytes() -> int:
    """State of all paged optimizers that bitsandbytes has made in this process.

    It lies outside torch's allocator, and nothing frees it (bitsandbytes 0.50.2, get_paged).
    """
    functional = sys.modules.get("bitsandbytes.functional")
    manager = functional.GlobalPageManager.get_instance() if functional else None
    return sum(tensor.nbytes for tensor in manager.paged_tensors) if manager else 0
