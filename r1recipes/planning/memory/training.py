"""Memory of one forward and backward pass of the training.

Derived from unsloth and unsloth_zoo (`packages.READ_IN`); tests/system/test_families.py counts
some of it.

2026.10.9 was read too (unsloth_zoo/fused_losses/fused_linear.py). It makes log-probs and their
gradient in one pass over the logits. `UNSLOTH_GRPO_MAX_ROWS_PER_CHUNK` bounds the rows of that pass
too, and those of the tiles that it takes instead on a card of 24.5 GiB or less, or from 4096 rows
on (`_flash_min_rows_auto`, line 98; `_tiled_layout`, 1088). For the backward pass it keeps one
tensor as wide as the hidden state, the gradient in place of the hidden state itself (1772), so this
is as much as before; in float16 it has 4 bytes in place of 2 (`_u_dtype`, 997). DPO and online DPO
use it too and hold no logits of a whole pass any more: for them more is planned than is needed.
"""

from r1recipes.planning.memory.case import Case
from r1recipes.planning.memory.constants import CALIBRATED
from r1recipes.planning.models import adapter_parameters

CHUNK_ROWS = 256
"""Rows of logits that are computed at a time; backends/unsloth/environment.py sets it."""
LOGIT_BYTES = 4
"""Bytes of a logit of that chunk and its gradient in 16 bits; steps in between are fused."""
FUSED_MLP_BYTES, PLAIN_MLP_BYTES = 6, 12
"""Bytes for each token and unit of a layer's MLP, in its backward pass in 16 bits. Unsloth's kernel
works in place on gate, up and their product (kernels/fast_lora.py). Autograd through transformers'
MLP keeps gate, its activation and up, and computes the gradients of the product and of both
factors. An MLP without any adapter took no more than the kernel (one rehearsal; the reason is not
known)."""
STORED_HIDDEN = 3
"""Tensors as wide as the hidden state that a layer stores for its backward pass where it is not
computed again: both normalised inputs, and the sum behind the attention. Like the next two derived
from what Unsloth's kernels save (fast_lora.py, rms_layernorm.py, _attention), not measured."""
STORED_ATTENTION = 2
"""How often the output of the attention is stored: by the attention, and as rows for `o_proj`."""
STORED_FUSED_MLP_BYTES, STORED_PLAIN_MLP_BYTES = 4, 8
"""Bytes for each token and unit of a layer's MLP that are stored in 16 bits: gate and up, and in
transformers' MLP the activation and the product too."""
STORED = "layers not recomputed"
"""The name of the part that the memory of such layers is."""
UNPACKED = "unpacked weight"
"""The name of the part that a matrix takes while it is there in 16 bits."""
FP8_UNPACKED_BYTES = 4
"""Bytes for each weight of an FP8 matrix in the backward pass: in 16 bits, and times its scales
(unsloth/kernels/fp8.py, weight_dequant). Derived, not measured."""
MLP = {"gate_proj", "up_proj", "down_proj"}


def training_pass(case: Case, calibrated: dict[str, float]) -> dict[str, int]:
    """Bytes by part of one forward and backward pass over all completions of a batch as one stream.

    Logits are computed again in the backward pass, so one number in 32 bits is kept for each row
    (unsloth_zoo/rl_replacements.py, chunked_hidden_states_selective_log_softmax_recompute). The
    logits of one chunk are added to the layer's memory: measured peaks grow with both at every
    batch.
    """
    completion = _activations(case, calibrated)
    # In the only pass of a step, gradients arrive as activations are freed: at most the activations
    # of a batch that is smaller by one completion lie beside the gradient. In later passes it is
    # there already.
    gradient = 4 * adapter_parameters(case.shape, case.lora_rank, case.targets)
    if case.samples and (case.completions or case.num_seqs) <= case.batch:
        gradient = max(0, gradient - completion)
    stored = {STORED: case.batch * _stored(case)} if case.layers_not_recomputed else {}
    return {
        "gradient": gradient,
        "training activations": case.batch * completion,
        **stored,
        "logits": _logits(case),
        "training kernels": round(calibrated["training_outside"]),
        **({UNPACKED: FP8_UNPACKED_BYTES * _largest_matrix(case)} if case.load_in == "fp8" else {}),
    }


def _logits(case: Case) -> int:
    """Bytes of the logits of a pass: those of a chunk of its completions, or of all its tokens."""
    if case.logit_bytes:
        return round(case.logit_bytes * case.batch * case.max_seq_length * case.shape.vocab_size)
    rows = case.batch * case.max_completion_length
    return LOGIT_BYTES * min(rows, CHUNK_ROWS) * case.shape.vocab_size + 4 * rows


def _activations(case: Case, calibrated: dict[str, float]) -> int:
    """Bytes of one completion in a training pass: the kept input of each layer, and the backward
    pass of one layer."""
    shape, tokens = case.shape, case.max_seq_length
    hidden = 2 * tokens * shape.hidden_size
    # Unsloth may move them to main memory; that made no difference at any measured size.
    checkpoints = hidden * shape.num_hidden_layers
    attention = 2 * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    mlp = (FUSED_MLP_BYTES if _is_fused(case) else PLAIN_MLP_BYTES) * shape.intermediate_size
    layer: float = tokens * (mlp + 2 * attention)  # query, key, value, output
    layer += calibrated["hidden_copies"] * hidden
    if shape.capped_attention:  # no kernel caps scores, so all of them are kept
        scores = tokens * case.max_seq_length * shape.num_attention_heads
        layer += calibrated["capped_scores"] * scores
    return round(checkpoints + layer)


def _is_fused(case: Case) -> bool:
    """Whether the MLP takes no more than with Unsloth's kernel, which is for an adapter on all of
    it (unsloth/models/llama.py)."""
    adapted = MLP & set(case.targets)
    return not adapted or (case.shape.fused_mlp and adapted == MLP)


def _stored(case: Case) -> int:
    """Bytes of one completion in the layers that are not computed again, beside their inputs, which
    count as those of the other layers do. Derived, not measured."""
    shape, tokens = case.shape, case.max_seq_length
    query = shape.head_dim * shape.num_attention_heads
    key_value = 2 * shape.head_dim * shape.num_key_value_heads
    mlp = STORED_FUSED_MLP_BYTES if _is_fused(case) else STORED_PLAIN_MLP_BYTES
    attention = 2 * (query + key_value + STORED_ATTENTION * query)
    token = 2 * STORED_HIDDEN * shape.hidden_size + attention + mlp * shape.intermediate_size
    if shape.capped_attention:  # as in `_activations`
        token += round(CALIBRATED["capped_scores"].value) * tokens * shape.num_attention_heads
    return case.layers_not_recomputed * tokens * token


def unpacked(case: Case) -> dict[str, int]:
    """Bytes of the buffer in which training unpacks a 4-bit matrix, which is then kept.

    (unsloth/kernels/utils.py, fast_dequantize)
    """
    return {UNPACKED: 2 * _largest_matrix(case)} if case.load_in == "4bit" else {}


def _largest_matrix(case: Case) -> int:
    return case.shape.hidden_size * case.shape.intermediate_size
