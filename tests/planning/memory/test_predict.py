"""The arithmetic of memory: derived terms against published ones."""

from dataclasses import replace
from typing import Any

import pytest

from r1recipes.machine.units import GIB
from r1recipes.planning import models
from r1recipes.planning.memory import constants, engine, predict
from r1recipes.planning.memory.case import (
    ADAM_8BIT_BYTES,
    FOR_256,
    MAX_NUM_SEQS,
    Case,
    engine_sequences,
)

LLAMA = models.MODELS["llama-3.1-8b"]


def case(shape=LLAMA, **changes) -> Case:
    settings: dict[str, Any] = {
        "load_in": "4bit",
        "max_seq_length": 1024,
        "max_completion_length": 768,
        "lora_rank": 32,
        "targets": tuple(shape.projections),
        "num_seqs": 24,
        "batch": 2,
        "engine_bytes": 9 * GIB,
        "standby": False,
        "optimizer_bytes": ADAM_8BIT_BYTES,
    }
    return Case(shape=shape, **(settings | changes))


@pytest.mark.parametrize(
    ("key", "rank", "logged_gib"),
    # "Model loading took" in the saved log of the notebook, with the adapter's slots
    [("mistral-7b-v0.3", 32, 4.0423)],
)
def test_weights_and_slots_are_what_the_engine_logged(key, rank, logged_gib):
    parts = predict.predict(case(models.MODELS[key], lora_rank=rank)).phases["load"]
    assert (parts["weights"] + parts["LoRA in the engine"]) / GIB == pytest.approx(
        logged_gib, rel=0.01
    )


def test_the_engine_has_slots_of_the_next_rank_that_vllm_knows():
    slots = [
        predict.predict(case(lora_rank=rank)).phases["load"]["LoRA in the engine"]
        for rank in (9, 16, 17, 32)
    ]
    assert slots[0] == slots[1] < slots[2] == slots[3]


def test_the_kv_cache_takes_what_the_share_leaves():
    prediction = predict.predict(case())
    parts = prediction.phases["load"]
    inside = ("weights", "LoRA in the engine", "KV cache", "engine")
    assert sum(parts[name] for name in inside) == 9 * GIB
    assert 0 <= parts["KV cache"] - prediction.kv_tokens * 131_072 < 16 * 131_072


def test_standby_trains_without_the_kv_cache():
    beside, alone = (predict.predict(case(standby=standby)) for standby in (False, True))
    cache = beside.phases["load"]["KV cache"]
    assert beside.peaks["train"] - alone.peaks["train"] == cache
    assert beside.peaks["generate"] == alone.peaks["generate"]


@pytest.mark.parametrize("standby", [False, True])
def test_layers_that_are_not_recomputed_keep_what_their_backward_pass_reads(standby):
    """Counted by hand for Llama 3.1 8B: 27 times its hidden size for each token and layer."""
    none, some, twice = (
        predict.predict(case(batch=4, standby=standby, layers_not_recomputed=n)) for n in (0, 8, 16)
    )
    part = "layers not recomputed"
    assert part not in none.phases["train"]
    hidden, inner, key_value = 4096, 14336, 1024
    token = 2 * (3 * hidden + (hidden + 2 * key_value) + 2 * hidden + 2 * inner)
    assert token == 27 * hidden
    assert some.phases["train"][part] == 8 * 4 * 1024 * token
    assert twice.phases["train"][part] == 2 * some.phases["train"][part]
    assert some.peaks["train"] - none.peaks["train"] == some.phases["train"][part]
    assert some.peaks["generate"] == none.peaks["generate"]


def test_an_adapter_on_a_part_of_the_mlp_stores_more_of_it():
    """Then transformers' own MLP runs, which keeps its activation and its product too."""
    whole, part = (
        predict.predict(case(targets=targets, layers_not_recomputed=1)).phases["train"]
        for targets in (tuple(LLAMA.projections), ("q_proj", "up_proj"))
    )
    more = part["layers not recomputed"] - whole["layers not recomputed"]
    assert more == 2 * 1024 * 4 * LLAMA.intermediate_size


def test_unsloths_own_estimate_shortens_sequences_as_it_was_seen_to():
    """Phi-4 at 0.6 of 15 GiB: max_seq_length became 256 (measured, H100, 2026-11-21)."""
    phi = models.MODELS["phi-4"]
    small = case(phi, lora_rank=16, engine_bytes=9 * GIB)
    assert predict.predict(small).sized_tokens == 0
    assert predict.lacking_tokens(predict.predict(small), small) >= 1024
    assert predict.verdict(predict.predict(small), small, 80 * GIB) == "does not fit"


def test_the_least_share_holds_the_sequences_and_no_smaller_one_does():
    for sequences in (1, 24):
        least = predict.least_share_bytes(case(), sequences)
        enough = predict.predict(case(engine_bytes=least))
        assert enough.kv_tokens >= sequences * 1024 and enough.sized_tokens >= 1024
        less = predict.predict(case(engine_bytes=least - 2**28))
        assert less.kv_tokens < sequences * 1024 or less.sized_tokens < 1024


def test_a_sliding_window_bounds_what_a_long_sequence_keeps():
    window = replace(LLAMA, sliding_window=4096)
    assert engine.sequence_tokens(case(window, max_seq_length=100_000)) == 4096 + 16_384
    assert engine.sequence_tokens(case(window, max_seq_length=2048)) == 2048
    assert engine.sequence_tokens(case(max_seq_length=100_000)) == 100_000


def test_captured_sizes_are_vllms():
    def listed(largest):
        sizes = [n for n in (1, 2, 4) if n <= largest]
        return sizes + [*range(8, min(largest + 1, 256), 8)] + [*range(256, largest + 1, 16)]

    for largest in range(1, 513):
        assert engine.capture_sizes(largest) == len(listed(largest)), largest


def test_every_number_of_completions_meets_a_captured_graph():
    """The graph of all sequences at once is captured, and no smaller number would do."""
    for completions in range(1, 600):
        asked = engine_sequences(completions)
        sizes = [n for n in (1, 2, 4) if n <= asked]
        sizes += [*range(8, min(asked + 1, 256), 8)] + [*range(256, asked + 1, 16)]
        at_once = min(completions, asked)
        graph = next((size for size in sizes if size >= at_once), None)
        assert graph is not None and asked in (graph, FOR_256), completions
        assert asked != 256, completions  # Unsloth's word for "not set"
    assert [engine_sequences(n) for n in (1, 3, 6, 60, 64, 248, 249, 255, 256, 257, 512)] == [
        *(1, 4, 8, 64, 64, 248, FOR_256, FOR_256, FOR_256, MAX_NUM_SEQS, MAX_NUM_SEQS)
    ]


def test_room_for_more_sequences_than_completions_changes_graphs_alone():
    """6 completions in room for 8: one pass of the training is still the only one."""
    exact, rounded = case(num_seqs=6, batch=6), case(num_seqs=8, batch=6, completions=6)
    few, more = (predict.predict(c).phases["train"] for c in (exact, rounded))
    assert [name for name in few if few[name] != more[name]] == ["CUDA graphs"]
    assert rounded.at_once == exact.at_once == 6


@pytest.mark.parametrize(
    ("dtype", "token", "by_unsloth"),
    # 8 heads of 128 in 32 layers: two bytes each, one, and one with 4 bytes of scale a head
    [
        (None, 131_072, 131_072),
        ("fp8", 65_536, 81_920),
        ("int8_per_token_head", 32 * 8 * 2 * (128 + 4), 131_072),
    ],
)
def test_a_cache_in_8_bits_holds_about_twice_the_tokens(dtype, token, by_unsloth):
    """Unsloth's estimate, which may shorten sequences, has 1.25 bytes for fp8."""
    plain, stored = predict.predict(case()), predict.predict(case(kv_cache_dtype=dtype))
    cache = stored.phases["load"]["KV cache"]
    assert stored.phases == plain.phases
    assert stored.kv_tokens == cache // token // 16 * 16
    unsloth = 0.95 * engine.sized_bytes(case()) / by_unsloth
    assert stored.sized_tokens == int(unsloth) // 256 * 256
    least = predict.least_share_bytes(case(kv_cache_dtype=dtype), 24)
    assert predict.predict(case(kv_cache_dtype=dtype, engine_bytes=least)).kv_tokens >= 24 * 1024
    assert least <= predict.least_share_bytes(case(), 24)


def test_the_verdict_keeps_the_error_on_both_sides():
    asleep = case(standby=True)
    prediction, error = predict.predict(asleep), constants.CALIBRATED["error"].value
    peak = prediction.peak_bytes
    assert predict.verdict(prediction, asleep, round(peak * (1 + error)) + 1) == "fits"
    assert predict.verdict(prediction, asleep, round(peak * (1 + error)) - 1000) == "tight"
    assert predict.verdict(prediction, asleep, round(peak / (1 + error)) + 1) == "tight"
    assert predict.verdict(prediction, asleep, round(peak / (1 + error)) - 1000) == "does not fit"


def test_without_standby_torch_is_stopped_before_the_card_is_full():
    """As `limit_allocator` does: at 0.97 of the card less 1 GiB, beside what is outside torch."""
    awake, size = case(), 40 * GIB
    prediction = predict.predict(awake)
    outside = sum(
        prediction.phases["train"][k] for k in ("context", "CUDA graphs", "training kernels")
    )
    assert predict.room_bytes(prediction, awake, size) == round(0.97 * size - GIB + outside) < size
    assert predict.room_bytes(prediction, case(standby=True), size) == size
    assert predict.verdict(prediction, awake, size) == "fits"


def test_more_rows_than_a_chunk_make_no_more_logits_but_a_number_a_row():
    one, two = (predict.predict(case(batch=n)).phases["train"]["logits"] for n in (1, 2))
    assert two - one == 4 * 768


def test_what_only_takes_room_that_is_there_is_no_need():
    small, prediction = case(), predict.predict(case())
    wide = predict.expected_bytes(prediction, small, 80 * GIB)
    assert (
        wide["load"]
        == prediction.peaks["load"] + prediction.spare["load"]
        > prediction.peaks["load"]
    )
    assert wide["generate"] == max(prediction.peaks["generate"], prediction.peaks["train"])
    narrow = predict.expected_bytes(prediction, small, round(prediction.peak_bytes * 1.05))
    assert narrow["load"] == prediction.peaks["load"]
    assert predict.predict(case(load_in="16bit")).spare["load"] == 0


def test_in_standby_most_blocks_of_training_are_given_back_before_the_cache_comes():
    asleep, calibrated = case(standby=True, batch=8), constants.values()["standby_kept"]
    prediction = predict.predict(asleep)
    seen = predict.expected_bytes(prediction, asleep, 80 * GIB)
    assert seen["generate"] == prediction.peaks["generate"] + round(calibrated)
    assert seen["generate"] < prediction.peaks["train"] + prediction.phases["load"]["KV cache"]
    assert (
        max(predict.expected_bytes(prediction, asleep, prediction.peak_bytes).values())
        == prediction.peak_bytes
    )


def test_gradients_come_as_activations_go_where_a_step_has_one_pass():
    """A run with one pass a step took 0.3 GiB less: its gradients (notebook.llama3.1-8b.24GB)."""
    parts = {n: predict.predict(case(num_seqs=8, batch=n)).phases["train"] for n in (4, 8)}
    assert 6 * parts[4]["gradient"] == 4 * parts[4]["adapter"]
    assert parts[8]["gradient"] == 0
    assert parts[8]["training activations"] == 2 * parts[4]["training activations"]


def test_idle_blocks_of_a_large_pass_are_no_need():
    small, large = (predict.predict(case(batch=n, num_seqs=200)) for n in (2, 100))
    assert small.spare["train"] == 0 < large.spare["train"]
    room = round(large.peak_bytes * 1.5)
    seen = predict.expected_bytes(large, case(batch=100, num_seqs=200), room)
    assert seen["train"] == large.peaks["train"] + large.spare["train"]


def test_every_constant_says_what_it_is():
    for name, constant in constants.CALIBRATED.items():
        assert constant.value >= 0 and constant.physics and constant.source, name
        assert constant.unit in ("GiB", "MiB", "bytes", "share", "tensors"), name
