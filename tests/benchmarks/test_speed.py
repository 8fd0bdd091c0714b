"""The pages of speed say what the records say, and the roofline agrees with sums by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import choices, ratio
from benchmarks.speed.roofline import floor

SETTINGS = {
    "load_in_4bit": True,
    "max_seq_length": 1024,
    "max_completion_length": 768,
    "lora_rank": 32,
    "prompts_per_step": 8,
}
PROOF: dict[str, Any] = {
    "recipe_model": "unsloth/Qwen2.5-1.5B-Instruct",
    "card": "NVIDIA H200",
    "completions_per_step": 64,
    "mean_length": 768.0,
    "settings": SETTINGS,
}


def test_the_page_of_choices_is_made_from_the_records():
    assert choices.PAGE.read_text() == choices.text(), "run `python -m benchmarks.speed.choices`"


def test_the_links_of_the_page_of_choices_lead_to_files():
    records = list(choices.distinct(*choices.FOLDERS))
    assert len(records) > 50
    assert all((choices.PAGE.parent / record["file"]).is_file() for record in records)


def test_the_page_of_ratios_is_made_from_its_result():
    pairs = json.loads(ratio.RESULT.read_text())["pairs"]
    assert ratio.PAGE.read_text() == ratio.text(pairs), "run `python -m benchmarks.speed.ratio`"
    for pair in pairs:
        hourly = [pair[side]["completions_per_hour"] for side in ("preset", "notebook")]
        assert pair["ratio"] == round(hourly[0] / hourly[1], 2)
        shares = [s for side in ("preset", "notebook") for s in pair[side]["roofline"].values()]
        assert all(0 < share < 1 for share in shares)


def test_the_roofline_by_hand():
    """Each number is from config.json and the vendor's page, not from the package."""
    least = floor(PROOF)
    layer = 1536 * (2 * 1536 + 2 * 256) + 3 * 1536 * 8960
    linear, head = 28 * layer, 2 * 1536 * 151936
    token_bytes = linear * (0.5 + 1 / 64 + 1 / 4096) + head + 64 * (256 + 384) * 28 * 2 * 256 * 2
    generation = 768 * token_bytes / 4.8e12 + 8 * 256 * 2 * linear / 989e12
    assert math.isclose(least.generation_s, generation, rel_tol=1e-6)
    attention = 4.5 * 4 * 28 * 1536 * 512
    adapter = 6 * 32 * 28 * (2 * (1536 + 1536) + 2 * (1536 + 256) + 3 * (1536 + 8960))
    training = 64 * 1024 * (6 * linear + attention + adapter) + 64 * 768 * 2 * head
    assert math.isclose(least.training_s, training / 989e12, rel_tol=1e-6)


def test_16_bits_read_more_and_a_slower_card_takes_longer():
    heavy = PROOF | {"settings": SETTINGS | {"load_in_4bit": False}}
    assert floor(heavy).generation_s > floor(PROOF).generation_s
    assert floor(heavy).training_s == floor(PROOF).training_s
    assert floor(PROOF | {"card": "Tesla T4"}).step_s > 10 * floor(PROOF).step_s


@pytest.mark.parametrize("change", [{"card": "NVIDIA X"}, {"recipe_model": "nobody/nothing"}])
def test_an_unknown_card_or_model_has_no_roofline(change):
    with pytest.raises(ValueError, match="no shape or no card is known"):
        floor(PROOF | change)


def test_a_pair_that_was_not_measured_alike_is_refused():
    folder = Path(ratio.__file__).parents[1] / "memory" / "points"
    preset, notebook = (
        ratio.measured(folder / f"{prefix}qwen2.5-1.5b.8GB.json") for prefix in ("", "notebook.")
    )
    assert ratio.compared("x", preset, notebook)["ratio"] > 1
    other = notebook | {"vram_gib": 8.0, "settings": notebook["settings"] | {"lora_rank": 8}}
    with pytest.raises(SystemExit, match="differ in vram_gib, lora_rank"):
        ratio.compared("x", preset, other)
