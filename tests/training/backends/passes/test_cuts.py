"""How rows are cut into passes, and trimmed."""

import pytest
import torch

from r1recipes.algorithms.step import PassRules
from r1recipes.training.backends import passes


def limits(**changes: int) -> passes.Limits:
    settings = dict(passes=8, rows=8, tokens=8 * 300, completion_tokens=8 * 200)
    return passes.Limits(**(settings | {"multiple": 1, "launch_tokens": 100} | changes))


def lengths(seed: int, count: int = 64) -> list[tuple[int, int]]:
    random = torch.Generator().manual_seed(seed)
    prompts = torch.randint(20, 101, (count,), generator=random)
    completions = torch.randint(1, 201, (count,), generator=random) ** 2 // 200
    return list(zip(prompts.tolist(), completions.tolist(), strict=True))


def cost(sizes: list[tuple[int, int]], bounds: passes.Limits) -> float:
    widths = [
        passes.rounded_up(max(column), bounds.multiple) for column in zip(*sizes, strict=True)
    ]
    return len(sizes) * sum(widths) + bounds.launch_tokens


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("multiple", [1, 32])
def test_every_row_is_in_one_pass_and_no_pass_is_larger_than_the_plan(seed, multiple):
    bounds, sizes = limits(multiple=multiple), lengths(seed)
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=True)
    active = [n % 3 > 0 for n in range(len(sizes))]
    cut = passes.cut_rows(sizes, active, rules, bounds)
    rows = [row for each in cut for row in each]
    assert len(set(rows)) == len(rows) and 1 <= len(cut) <= bounds.passes
    used = {row for row in range(64) if active[row] and sizes[row][1]}
    assert set(rows) >= used and len(rows) == passes.rounded_up(len(used), bounds.unit)
    for each in cut:
        widest = [max(column) for column in zip(*(sizes[row] for row in each), strict=True)]
        if len(each) > bounds.rows:
            assert len(each) * sum(widest) <= bounds.tokens
            assert len(each) * widest[1] <= bounds.completion_tokens
        assert len(each) % bounds.unit == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [2, 3, 8])
def test_no_other_cut_costs_less(seed, most):
    """Against all cuts of 32 sorted rows into passes of whole units."""
    bounds = limits(rows=4, passes=most, tokens=16 * 300, completion_tokens=16 * 200)
    sizes = sorted(lengths(seed, 32), key=lambda size: size[1], reverse=True)
    every = {}
    for pattern in range(2**7):
        ends = [4 * (n + 1) for n in range(7) if pattern >> n & 1] + [32]
        parts = [sizes[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        fits = all(
            len(part) <= 4
            or len(part) * sum(map(max, zip(*part, strict=True))) <= bounds.tokens
            and len(part) * max(c for _, c in part) <= bounds.completion_tokens
            for part in parts
        )
        if fits and len(parts) <= most:
            every[tuple(ends)] = sum(cost(part, bounds) for part in parts)
    chosen = passes.boundaries(sizes, bounds)
    assert len(chosen) <= most and every[tuple(chosen)] <= (1.0 if most == 8 else 1.1) * min(
        every.values()
    )


@pytest.mark.parametrize(
    ("card", "hidden", "least", "most"),
    [
        ("NVIDIA H100 80GB HBM3", 896, 17_300, 17_600),
        ("NVIDIA H100 80GB HBM3", 4096, 825, 845),
        ("NVIDIA L4", 896, 500, 2500),
        ("an unlisted one", 896, 2000, 3000),
    ],
)
def test_a_pass_costs_what_its_launch_does_on_this_card(monkeypatch, card, hidden, least, most):
    """More of the time of small models and of fast cards."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card)
    assert least < passes._launch_tokens(hidden) < most


@pytest.mark.parametrize(("rows", "unit"), [(32, 8), (12, 6), (6, 6), (10, 5), (7, 7), (11, 1)])
def test_passes_have_few_shapes(rows, unit):
    assert limits(rows=rows).unit == unit


def rows_of(prompts: list[int], completions: list[int], wide: bool) -> passes.Rows:
    """Padded as TRL pads; each token tells its row and place. `wide`: log-probs as Unsloth's."""
    count, p, c = len(prompts), max(prompts), max(completions)
    rows: passes.Rows = {"advantages": torch.arange(count), "num_items_in_batch": torch.tensor(9)}
    for name, sizes, width in (("prompt", prompts, p), ("completion", completions, c)):
        ids, mask = torch.zeros(count, width), torch.zeros(count, width)
        for row, size in enumerate(sizes):
            place = slice(width - size, width) if name == "prompt" else slice(0, size)
            ids[row, place] = 100 * (row + 1) + torch.arange(1, size + 1)
            mask[row, place] = 1
        rows |= {f"{name}_ids": ids, f"{name}_mask": mask}
    pad = p - min(prompts) if wide else 0
    logps = torch.zeros(count, c + pad)
    for row, size in enumerate(completions):
        start = prompts[row] - min(prompts) if wide else 0
        logps[row, start : start + size] = rows["completion_ids"][row, :size]
    return rows | {"ref_per_token_logps": logps, "max_left_pad": torch.zeros(count, 1)}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_trimming_takes_padding_alone(wide, multiple):
    prompts, completions = [3, 9, 12, 5, 4], [20, 7, 2, 9, 1]
    rows = rows_of(prompts, completions, wide)
    index = [3, 0, 4] if multiple == 4 else [4, 3]
    sizes = [(prompts[row], completions[row]) for row in index]
    cut = passes.trimmed(passes.selected(rows, index), sizes, multiple)
    for name in ("prompt", "completion"):
        ids, mask = cut[f"{name}_ids"], cut[f"{name}_mask"]
        whole = rows[f"{name}_ids"][index]
        longest = max(size[name == "completion"] for size in sizes)
        assert ids.shape[1] == min(whole.shape[1], passes.rounded_up(longest, multiple))
        assert mask.sum() == rows[f"{name}_mask"][index].sum() and ids.sum() == whole.sum()
    # Unsloth reads the start of a completion in its log-probs off the padding of the prompt.
    prompt, logps = cut["prompt_ids"], cut["ref_per_token_logps"]
    surplus = logps.shape[1] - cut["completion_ids"].shape[1]
    assert surplus >= 0
    for n, row in enumerate(index):
        start = surplus - int((prompt[n] == 0).sum()) if wide else 0
        own = logps[n, start : start + completions[row]]
        assert torch.equal(own, rows["completion_ids"][row, : completions[row]])
    assert cut["advantages"].tolist() == index and cut["num_items_in_batch"] == 9


def test_rows_that_were_cut_apart_are_put_together_again():
    rows = rows_of([3, 2, 1, 4], [1, 2, 3, 4], False) | {"images": [1, 2, 3, 4], "none": None}
    halves = [passes.selected(rows, index) for index in ([0, 1], [2, 3])]
    whole = passes.joined(halves)
    assert whole.keys() == rows.keys()
    for name, value in rows.items():
        same_value = torch.equal(whole[name], value) if torch.is_tensor(value) else None
        assert same_value or whole[name] == value
