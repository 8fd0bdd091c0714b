"""Memory of one forward and backward pass of the training.

Derived from unsloth and unsloth_zoo (`packages.READ_IN`); tests/system/test_families.py counts
some of it.
"""

from r1recipes.planning.memory.case import MAX_NUM_SEQS, Case, lora_parameters

CHUNK_ROWS = 256
"""Rows of logits that are made at a time; the backend sets it (`unsloth.environment`)."""
LOGIT_BYTES = 4
"""A logit of that chunk and its gradient in 16 bits; what lies between is fused by compilation."""
FUSED_MLP_BYTES, PLAIN_MLP_BYTES = 6, 12
"""For each token and unit of a layer's MLP, in its backward pass in 16 bits. Unsloth's kernel works
in place on gate, up and their product (kernels/fast_lora.py); autograd through transformers' MLP
keeps gate, its activation and up, and makes the gradients of the product and of both factors. An
MLP without any adapter took no more than the kernel (one rehearsal; why is not known)."""
MLP = {"gate_proj", "up_proj", "down_proj"}


def training_pass(case: Case, known: dict[str, float]) -> dict[str, int]:
    """One forward and backward pass over all completions of a batch as a single stream.

    Logits are made again in the backward pass: of a row, a number in 32 bits stays
    (unsloth_zoo/rl_replacements.py, chunked_hidden_states_selective_log_softmax_recompute). Those
    of one chunk are added to the layer's: what is measured grows with both at every batch.
    """
    completion = _activations(case, known)
    rows = case.batch * case.max_completion_length
    # In the only pass of a step gradients come as activations go: at most those of a batch that is
    # smaller by one completion lie beside it. Later passes find them there. A step of MAX_NUM_SEQS
    # may have more completions than that, and so more passes.
    gradient = 4 * lora_parameters(case.shape, case.lora_rank, case.targets)
    if case.num_seqs <= case.batch < MAX_NUM_SEQS:
        gradient = max(0, gradient - completion)
    return {
        "gradient": gradient,
        "training activations": case.batch * completion,
        "logits": LOGIT_BYTES * min(rows, CHUNK_ROWS) * case.shape.vocab_size + 4 * rows,
        "training kernels": round(known["training_outside"]),
    }


def _activations(case: Case, known: dict[str, float]) -> int:
    """Bytes of one completion in a training pass: what each layer keeps, and one layer's backward
    pass."""
    shape, tokens = case.shape, case.max_seq_length
    hidden = 2 * tokens * shape.hidden_size
    # Unsloth may move them to main memory; at no measured size has it made a difference.
    checkpoints = hidden * shape.num_hidden_layers
    attention = 2 * shape.head_dim * (shape.num_attention_heads + shape.num_key_value_heads)
    # Unsloth's kernel is for an adapter on all of the MLP (unsloth/models/llama.py).
    adapted = MLP & set(case.targets)
    fused = not adapted or (shape.fused_mlp and adapted == MLP)
    mlp = (FUSED_MLP_BYTES if fused else PLAIN_MLP_BYTES) * shape.intermediate_size
    layer = tokens * (mlp + 2 * attention)  # query, key, value, output
    layer += known["hidden_copies"] * hidden
    if shape.capped_attention:  # no kernel caps scores, so all of them are made
        scores = tokens * case.max_seq_length * shape.num_attention_heads
        layer += known["capped_scores"] * scores
    return round(checkpoints + layer)


def unpacked(case: Case) -> dict[str, int]:
    """The buffer in which training unpacks a matrix; once made, it stays.

    (unsloth/kernels/utils.py, fast_dequantize)
    """
    size = 2 * case.shape.hidden_size * case.shape.intermediate_size
    return {"unpacked weight": size} if case.four_bit else {}
