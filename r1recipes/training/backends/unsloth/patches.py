"""Repairs of Unsloth and bitsandbytes at run time, each with its reason."""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from r1recipes.planning.plan import Plan


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
def without_engine(model: Any) -> Iterator[None]:
    """Hide the engine of a model while a trainer is made that samples with functions of its own.

    Unsloth sets `use_vllm` for each model with an engine, and removes from `OnlineDPOTrainer` the
    lines that define `generation_kwargs`, which that trainer then reads (unsloth 2026.10.7 and
    2026.10.9, models/rl.py, `vllm_part`): UnboundLocalError.
    """
    owners = [module for module in model.modules() if "vllm_engine" in vars(module)]
    engines = [vars(module).pop("vllm_engine") for module in owners]
    try:
        yield
    finally:
        for module, engine in zip(owners, engines, strict=True):
            module.vllm_engine = engine


SCORE = "chunked_hidden_states_selective_log_softmax_recompute"
"""The function of unsloth_zoo.rl_replacements that makes log-probs of hidden states; Unsloth's loss
looks it up for each pass (`grpo_accumulated_loss`)."""


def score_completions_only(trainer: Any) -> None:
    """Let Unsloth compute logits for the tokens of completions, and not for the others beside them.

    Its rows begin with their first token, so the columns that it scores reach from the end of the
    shortest prompt to the end of the longest row: they hold tokens of prompts and padding too,
    whose log-probs the loss leaves out (`grpo_compute_loss` puts 0 in their place, as here). It
    also makes one part of the logits for each row at least, which is small where rows are short:
    here only `UNSLOTH_GRPO_MAX_ROWS_PER_CHUNK` bounds a part. 2026.10.9 scores the reference with
    the same function, outside `compute_loss`: then no rows are under way, and all are scored.
    """
    from unsloth_zoo import rl_replacements as zoo

    compute, pad = trainer.compute_loss, trainer.processing_class.pad_token_id
    inputs: list[dict[str, Any]] = []  # of the pass that is under way
    score_all = getattr(zoo, SCORE)
    score_all = getattr(score_all, "score_all", score_all)  # of a trainer before this one

    def score(
        hidden: Any, lm_head: Any, index: Any, chunks: int, *rest: Any, **options: Any
    ) -> Any:
        places = completion_places(inputs[-1], index, pad) if inputs else None
        if places is None or options.get("return_entropy") or not len(places):
            return score_all(hidden, lm_head, index, chunks, *rest, **options)
        rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)
        ids = index.reshape(-1).index_select(0, places)
        scored = score_all(rows[None], lm_head, ids[None], 1, *rest, **options)[0]
        return scored.new_zeros(index.numel()).index_copy(0, places, scored).view(index.shape)

    def compute_loss(model: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        inputs.append(batch)
        try:
            return compute(model, batch, *arguments, **options)
        finally:
            inputs.clear()

    vars(score)["score_all"] = score_all
    setattr(zoo, SCORE, score)
    trainer.compute_loss = compute_loss


def completion_places(inputs: dict[str, Any], index: torch.Tensor, pad: int) -> torch.Tensor | None:
    """Numbers of the tokens of `index` [rows, columns] that belong to completions, read row by row.

    `inputs` are TRL's tensors of a pass and `index` its last columns as Unsloth has moved them: all
    padding behind the tokens (`left_pack_padding`, `create_completion_attention_mask`). None where
    `index` is not of these rows.
    """
    prompts, completions = inputs["prompt_ids"], inputs["completion_ids"]
    surplus = index.shape[1] - completions.shape[1]
    if len(prompts) != len(index) or surplus < 0:
        return None
    padding = (prompts == pad).sum(1, keepdim=True)
    begun = torch.arange(index.shape[1], device=index.device) >= surplus - padding
    in_loss = inputs["completion_mask"].sum(1, keepdim=True) > 0
    return (begun & (index != pad) & in_loss).flatten().nonzero().squeeze(1)


@contextlib.contextmanager
def engine_arguments(change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """While a model is loaded: let vLLM's `LLM` have the arguments of Unsloth as `change` leaves
    them."""
    kind = sys.modules["vllm"].LLM
    original = kind.__init__

    @functools.wraps(original)
    def initialise(self: Any, *args: Any, **arguments: Any) -> None:
        change(arguments)
        original(self, *args, **arguments)

    kind.__init__ = initialise
    try:
        yield
    finally:
        kind.__init__ = original


def take_rows_of_fp8(model: Any) -> None:
    """Let linear layers in FP8 with a scale for each output channel compute with these scales.

    Unsloth shares the engine's tensors with the class that it has for a scale for each block of
    128 x 128 where the checkpoint is one of compressed-tensors (unsloth_zoo/vllm_utils.py,
    convert_vllm_to_huggingface). The forward pass of that class refuses other scales
    (unsloth/kernels/fp8.py, FP8BlockQuantLinear): it runs in each layer for which Unsloth has no
    kernel, such as q, k and v with a bias. Here they get the class that they have where vLLM
    quantises while loading, whose scales are those of rows.
    """
    from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear
    from transformers.integrations.finegrained_fp8 import FP8Linear

    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, FP8Linear)]
    for layer in layers:
        scale = layer.weight_scale_inv
        if scale.shape != (layer.weight.shape[0], 1):
            continue  # `differences.other_than_fp8` refuses it
        del layer.weight_scale_inv
        layer.__class__ = FbgemmFp8Linear
        layer.weight_scale = scale  # the parameter itself: it was made in inference mode
        layer.input_scale_ub, layer.quant_method = None, "fbgemm_fp8"


def draw_on_fp8(model: Any, plan: Plan) -> None:
    """Draw a fresh adapter on FP8 weights again, now that it is in 32 bits.

    PEFT casts it to the precision of the weights below it first, in which it keeps less than 5 bits
    of each number, and to 32 bits then (peft, tuners_utils.py, `_move_adapter_to_device_of_base_
    layer` and `cast_adapter_dtype`). On other weights nothing is done.
    """
    from peft.tuners.lora import LoraLayer
    from transformers import set_seed

    if plan.preset.weights != "fp8":
        return
    set_seed(plan.recipe.seed)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.reset_lora_parameters("default", True)


def paged_bytes() -> int:
    """State of all paged optimizers that bitsandbytes has made in this process.

    It lies outside torch's allocator, and nothing frees it (bitsandbytes, get_paged).
    """
    functional = sys.modules.get("bitsandbytes.functional")
    manager = functional.GlobalPageManager.get_instance() if functional else None
    return sum(tensor.nbytes for tensor in manager.paged_tensors) if manager else 0
