"""The table of cards, and which of them a name means."""

import json
from pathlib import Path

import pytest

from r1recipes.algorithms.base import preset_bytes
from r1recipes.machine import cards
from r1recipes.machine.cards import professional

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASES = [FIXTURES / "cards.jsonl", FIXTURES / "cards_more.jsonl"]


def cases() -> list[dict[str, object]]:
    return [json.loads(line) for path in CASES for line in path.read_text().splitlines()]


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case["name"]))
def test_each_name_is_known_or_asked_about_or_refused(case):
    name, right = case["name"], case["right"]
    card = cards.find_gpu(name)
    if right == "known":
        assert card is not None
        assert (card.sold_gb, card.compute_capability) == (case["sold_as_gb"], case["capability"])
        return
    assert card is None
    fault = cards.fault(name)
    if right == "asks which size":
        assert "several sizes" in fault.message
        assert all(f"{size}GB" in fault.hint for size in case["sold_as_gb"])
    else:
        reason = right.removeprefix("refused: ").replace("no such card", "no NVIDIA card")
        assert reason in fault.message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Kaggle T4 x2", "T4 16GB"),
        ("GPU T4 x2", "T4 16GB"),
        ("nvidia-tesla-t4", "T4 16GB"),
        ("t4-small", "T4 16GB"),
        ("nvidia-h100-mega-80gb", "H100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("H100:8", "H100 80GB"),
        ("8xH100", "H100 80GB"),
        ("H100 (80 GB PCIe)", "H100 PCIe 80GB"),
        ("1x A100 (80 GB SXM4)", "A100 80GB"),
        ("A100-80", "A100 80GB"),
        ("A100 40 GB", "A100 40GB"),
        ("gpu_1x_a10", "A10 24GB"),
        ("Nvidia A10G - large", "A10G 24GB"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("L4:4", "L4 24GB"),
        ("RTX 4070S Ti", "RTX 4070 Ti SUPER 16GB"),
        ("4070TiS", "RTX 4070 Ti SUPER 16GB"),
        ("RTX_4080S", "RTX 4080 SUPER 16GB"),
        ("rtx4060ti16gb", "RTX 4060 Ti 16GB"),
        ("4060 ti 16", "RTX 4060 Ti 16GB"),
        ("RTX3060-12G", "RTX 3060 12GB"),
        ("4090m", "RTX 4090 Laptop 16GB"),
        ("3070 Max-Q", "RTX 3070 Laptop 8GB"),
        ("GeForce RTX 2060 with Max-Q Design", "RTX 2060 Laptop 6GB"),
        ("NVIDIA RTX A5000 Laptop GPU", "RTX A5000 Laptop 16GB"),
        ("NVIDIA RTX 2000 Ada Generation Laptop GPU", "RTX 2000 Ada Laptop 8GB"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "RTX 4000 Ada SFF 20GB"),
        ("RTX_6000Ada", "RTX 6000 Ada 48GB"),
        ("RTX 6000 Blackwell", "RTX PRO 6000 96GB"),
        ("RTX_PRO_6000_S", "RTX PRO 6000 96GB"),
        ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 96GB"),
        ("Q RTX 8000", "Quadro RTX 8000 48GB"),
        ("quadro a6000", "RTX A6000 48GB"),
        ("5090D", "RTX 5090 D 32GB"),
        ("2080 ti 22gb", "RTX 2080 Ti 22GB"),
        ("1650", "GTX 1650 4GB"),
        ("Jetson Orin Nano Super", "Jetson Orin Nano 8GB"),
        ("NVIDIA Thor", "Jetson AGX Thor 128GB"),
        ("NVIDIA DGX Spark", "GB10 128GB"),
        ("a6000", "RTX A6000 48GB"),
    ],
)
def test_drivers_clouds_and_people_write_names_in_their_own_ways(name, key):
    assert cards.find_gpu(name) is cards.GPUS[key]


def test_every_row_is_found_by_its_own_name():
    for key, card in cards.GPUS.items():
        assert cards.find_gpu(key) is card


@pytest.mark.parametrize("name", ["RTX 6000", "RTX 5000", "RTX 4000", "RTX 3050", "3080 mobile"])
def test_a_name_of_several_cards_is_asked_about(name):
    fault = cards.fault(name)
    assert cards.find_gpu(name) is None and "which one?" in fault.hint
    for option in fault.hint.split("'")[1::2]:
        assert cards.find_gpu(option) is cards.GPUS[option]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Tesla V100-SXM2-32GB", "compute capability 7.0"),
        ("V100S-PCIE-32GB", "compute capability 7.0"),
        ("Jetson AGX Xavier", "compute capability 7.2"),
        ("P100-PCIE-16GB", "compute capability 6.0"),
        ("GTX 1080 Ti", "compute capability 6.1"),
        ("TITAN X (Pascal)", "compute capability 6.1"),
        ("P40", "compute capability 6.1"),
        ("Tesla M4", "compute capability 5.2"),
        ("K80", "compute capability 3.7"),
        ("M4 Max", "not an NVIDIA card"),
        ("AMD Instinct MI300X", "not an NVIDIA card"),
        ("Radeon RX 7900 XT", "not an NVIDIA card"),
        ("Arc B580", "not an NVIDIA card"),
        ("v5e-1", "not an NVIDIA card"),
        ("Trainium2", "not an NVIDIA card"),
        ("Ascend 910B", "not an NVIDIA card"),
    ],
)
def test_what_cannot_run_says_so_and_hints_at_no_other_card(name, reason):
    fault = cards.fault(name)
    assert cards.find_gpu(name) is None and reason in fault.message
    assert "perhaps" not in fault.hint and "--vram" not in fault.hint + fault.by_memory
    assert "compute capability 7.5 or more" in fault.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG slice", "`--vram 5`"),
        ("MIG 3g.20gb", "MIG slice", "`--vram 20`"),
        ("A16-4A", "without CUDA", "A16-4Q"),
        ("4090 12gb", "no `4090 12gb`", "24GB or 48GB"),
        ("24 GB", "amount of memory", "`--vram 24`"),
        ("4095", "no NVIDIA card", "RTX 4090"),
        ("", "no NVIDIA card", "--gpu t4"),
    ],
)
def test_what_is_no_whole_card_says_what_to_write(name, message, hint):
    fault = cards.fault(name)
    assert cards.find_gpu(name) is None
    assert message in fault.message and hint in f"{fault.hint} {fault.by_memory}"


@pytest.mark.parametrize(
    ("name", "key", "gigabytes"),
    [
        ("GRID T4-16Q", "T4 16GB", 16),
        ("NVIDIA A40-24C", "A40 48GB", 24),
        ("A100D-40C", "A100 80GB", 40),
        ("RTX6000-24Q", "Quadro RTX 6000 24GB", 24),
    ],
)
def test_a_virtual_card_has_its_part_of_the_memory(name, key, gigabytes):
    card, whole = cards.find_gpu(name), cards.GPUS[key]
    assert card is not None and card.sold_gb == gigabytes
    assert card.compute_capability == whole.compute_capability and card.status == "derived"
    assert card.usable_bytes == whole.usable_bytes * gigabytes // whole.sold_gb


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3060", "NVIDIA GeForce RTX 4060 Ti"])
def test_a_card_at_hand_is_told_apart_by_its_memory(name):
    assert cards.find_gpu(name) is None
    for gib, size in ((7.6, 8), (11.7, 12), (15.5, 16)):
        card = cards.find_gpu(name, int(gib * 2**30))
        assert card is None or card.sold_gb == size
    assert cards.find_gpu(name, int(7.6 * 2**30)) is not None
    assert cards.find_gpu(name, int(3.0 * 2**30)) is None


def test_every_card_is_of_the_class_that_it_is_sold_as():
    for name, card in cards.GPUS.items():
        assert name.endswith(f" {card.sold_gb}GB") and card.source
        assert 0.90 * preset_bytes(f"{card.sold_gb}GB") <= card.usable_bytes, name
        assert card.usable_bytes < preset_bytes(f"{card.sold_gb}GB"), name
        if not card.is_rare:
            assert cards.size_class(card.usable_bytes) == f"{card.sold_gb}GB", name


@pytest.mark.parametrize(("gib", "size"), [(0.7, "1GB"), (7, "6GB"), (16, "16GB"), (400, "288GB")])
def test_memory_of_no_card_is_of_the_largest_class_that_it_holds(gib, size):
    assert cards.size_class(int(gib * 2**30)) == size


def test_the_smallest_card_of_a_class_is_one_with_a_source():
    smallest = {gb: min(cards.sold_as(gb)) / 2**30 for gb in (6, 8, 16, 24, 48, 80)}
    assert {gb: round(gib, 2) for gb, gib in smallest.items()} == {
        6: 5.41, 8: 7.62, 16: 14.74, 24: 21.99, 48: 44.39, 80: 79.15
    }  # fmt: skip
    assert cards.sold_as(20) and not cards.sold_as(128)  # of its own, not the main memory


def test_derived_operations_are_those_that_are_published():
    """The rules of the series, against vendors' data sheets (TFLOPS, dense, 32-bit sums)."""
    published = {
        "RTX 2080 Ti 11GB": 53.8,
        "TITAN RTX 24GB": 130.5,
        "RTX 3090 24GB": 71,
        "RTX A6000 48GB": 154.8,
        "RTX 6000 Ada 48GB": 364.2,
        "RTX 5090 32GB": 209.5,
    }
    for name, tflops in published.items():
        assert cards.GPUS[name].peak.operations == pytest.approx(tflops * 1e12, rel=0.01)
        assert cards.GPUS[name].peak.status == "derived"


def test_cards_of_data_centres_have_published_operations_and_all_cards_a_peak():
    for card in cards.GPUS.values():
        assert card.peak.bandwidth > 3e10 and card.peak.operations > 1e12, card.name
        ratio = card.peak.operations / card.peak.bandwidth
        assert 15 < ratio < 500, (card.name, ratio)
    assert all(row.usable_gib is None or row.source for s in professional.SERIES for row in s.rows)
