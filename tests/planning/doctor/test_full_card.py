"""Who holds a full card, and what lies in pieces, by the figures in torch's message."""

import pytest

from r1recipes.machine.units import GIB
from r1recipes.planning import out_of_memory
from r1recipes.planning.doctor import full_card
from tests.planning.test_out_of_memory import made

START = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.00 GiB"
START += " of which 0.50 GiB is free."
OTHER = " Process 17 has 9.00 GiB memory in use."
THIS = " Including non-PyTorch memory, this process has 5.00 GiB memory in use."
IN_CONTAINER = " Process 18 has 5.00 GiB memory in use."
FULL = " Of the allocated memory 4.60 GiB is allocated by PyTorch, and 0.10 GiB is reserved by"
FULL += " PyTorch but unallocated."
PIECES = " Of the allocated memory 2.00 GiB is allocated by PyTorch, and 2.70 GiB is reserved by"
PIECES += " PyTorch but unallocated."
OLD = "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.00 GiB total capacity; {} GiB"
OLD += " already allocated; 0.50 GiB free; {} GiB reserved in total by PyTorch)"


@pytest.mark.parametrize(
    ("message", "unused", "others"),
    [
        (START + THIS + FULL, 0.1, 0),
        (START + OTHER + THIS + FULL, 0.1, 9),
        (START + OTHER + IN_CONTAINER + FULL, 0.1, 9),
        (START + IN_CONTAINER + PIECES, 2.7, 0),
        (OLD.format("4.00", "14.50"), 10.5, 0),
        (OLD.format("4.00", "4.10"), 0.1, 10.4),
    ],
)
def test_the_figures_of_a_message(message, unused, others):
    figures = full_card.read(message)
    assert figures and figures.tried_bytes == 2 * GIB
    assert figures.unused_bytes == pytest.approx(unused * GIB, abs=1e4)
    assert figures.others_bytes == pytest.approx(others * GIB, abs=1e4)


@pytest.mark.parametrize("message", ["", "CUDA error: out of memory", "memory in use: 3 GiB"])
def test_other_messages_have_none(message):
    assert full_card.read(message) is None


@pytest.mark.parametrize("phase", ["load", "generate", "first step", "steps"])
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (START + OTHER + THIS + FULL, "the card is held by"),
        (OLD.format("4.00", "4.10"), "the card is held by"),
        (START + THIS + PIECES, "fragmentation"),
        (OLD.format("4.00", "14.50"), "fragmentation"),
    ],
)
def test_what_the_figures_show_goes_before_the_phase(message, kind, phase):
    assert kind in out_of_memory.explain(message, phase, made()).kind


def test_a_card_that_is_merely_full_is_told_by_the_phase():
    """A desktop's memory, or the pieces that any full card has, are not the cause."""
    desktop = OTHER.replace("9.00 GiB", "0.40 GiB")
    kind = out_of_memory.explain(START + desktop + THIS + FULL, "first step", made()).kind
    assert kind == "the first training pass was too large"


def test_with_standby_torchs_setting_is_not_advised():
    """vLLM's allocator, which standby needs, does not take expandable segments."""
    message = START + THIS + PIECES
    with_it = out_of_memory.explain(message, "steps", made("preset.standby=true"))
    without = out_of_memory.explain(message, "steps", made("preset.standby=false"))
    assert "expandable_segments" not in with_it.change
    assert without.change.endswith("expandable_segments:True")
