"""The tables of speed: what they say is what the records say, and the roofline is what it is."""

import importlib
import json
import math
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROOF = {
    "recipe_model": "unsloth/Qwen2.5-1.5B-Instruct",
    "card": "NVIDIA H200",
    "completions_per_step": 64,
    "mean_length": 768.0,
    "settings": {
        "load_in_4bit": True,
        "max_seq_length": 1024,
        "max_completion_length": 768,
        "lora_rank": 32,
        "prompts_per_step": 8,
    },
}


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_the_page_of_speed_is_made_from_the_records(script):
    speed = script("speed_table")
    assert speed.TABLE.read_text() == speed.text(), "run python benchmarks/speed_table.py"


def test_the_page_of_ratios_is_made_from_its_result(script):
    ratio = script("ratio_table")
    pairs = json.loads(ratio.RESULT.read_text())["pairs"]
    assert ratio.TABLE.read_text() == ratio.text(pairs), "run python benchmarks/ratio_table.py"
    for pair in pairs:
        hourly = [pair[side]["completions_per_hour"] for side in ("preset", "notebook")]
        assert pair["ratio"] == round(hourly[0] / hourly[1], 2)
        assert all(
            0 < s < 1 for side in ("preset", "notebook") for s in pair[side]["roofline"].values()
        )


def test_the_roofline_by_hand(script):
    """Each number from config.json and the vendor's page, not from the package."""
    found = script("roofline").floor(PROOF)
    layer = 1536 * (2 * 1536 + 2 * 256) + 3 * 1536 * 8960
    linear, head = 28 * layer, 2 * 1536 * 151936
    token_bytes = linear * (0.5 + 1 / 64 + 1 / 4096) + head + 64 * (256 + 384) * 28 * 2 * 256 * 2
    generation = 768 * token_bytes / 4.8e12 + 8 * 256 * 2 * linear / 989e12
    assert math.isclose(found.generation_s, generation, rel_tol=1e-6)
    attention = 4.5 * 4 * 28 * 1536 * 512
    adapter = 6 * 32 * 28 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))
    training = 64 * 1024 * (6 * linear + attention + adapter) + 64 * 768 * 2 * head
    assert math.isclose(found.training_s, training / 989e12, rel_tol=1e-6)


def test_16_bits_read_more_and_a_slower_card_takes_longer(script):
    floor = script("roofline").floor
    heavy = PROOF | {"settings": PROOF["settings"] | {"load_in_4bit": False}}
    assert floor(heavy).generation_s > floor(PROOF).generation_s
    assert floor(heavy).training_s == floor(PROOF).training_s
    assert floor(PROOF | {"card": "Tesla T4"}).step_s > 10 * floor(PROOF).step_s


def test_a_pair_that_was_not_measured_alike_is_refused(script):
    ratio, folder = script("ratio_table"), BENCHMARKS / "vram_points"
    pair = [ratio.measured(folder / f"{n}qwen2.5-1.5b.8GB.json") for n in ("", "notebook.")]
    assert ratio.compared("x", *pair)["ratio"] > 1
    with pytest.raises(SystemExit, match="differ in vram_gib, lora_rank"):
        other = pair[1] | {"vram_gib": 8.0, "settings": pair[1]["settings"] | {"lora_rank": 8}}
        ratio.compared("x", pair[0], other)
