"""Unsloth scores the tokens of completions alone, on a stand-in that lays rows out as it does."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from r1recipes.training.backends.unsloth import patches

PAD, VOCABULARY, HIDDEN = 0, 50, 8
torch.manual_seed(0)
HEAD, EMBEDDING = torch.randn(VOCABULARY, HIDDEN), torch.randn(VOCABULARY, HIDDEN)


def padded(prompts: list[int], completions: list[int]) -> dict[str, Any]:
    """Rows as TRL pads them, with tokens that are no padding."""
    rows: dict[str, Any] = {}
    for name, sizes in (("prompt", prompts), ("completion", completions)):
        places = torch.arange(max(sizes)).expand(len(sizes), -1)
        length = torch.tensor(sizes)[:, None]
        mask = places >= max(sizes) - length if name == "prompt" else places < length
        tokens = torch.randint(
            1, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(1)
        )
        rows |= {f"{name}_ids": tokens * mask, f"{name}_mask": mask.long()}
    return rows


class ScoringTrainer:
    """The layout of Unsloth's loss (unsloth_zoo, rl_replacements.py, `grpo_accumulated_loss`)."""

    def __init__(self, zoo: Any):
        self.processing_class, self.zoo = SimpleNamespace(pad_token_id=PAD), zoo
        self.weights = torch.eye(HIDDEN, requires_grad=True)
        self.scored: list[int] = []

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> Any:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        keep = inputs["completion_ids"].shape[1]
        padding = (ids[:, :-keep] == PAD).sum(1)
        widest = int(padding.max())
        order = torch.argsort(ids != PAD, dim=1, descending=True, stable=True)
        ids = torch.gather(ids, 1, order)
        index = ids[:, -(keep + widest) :]
        begun = torch.arange(index.shape[1]) >= (widest - padding)[:, None]
        in_loss = inputs["completion_mask"].sum(1, keepdim=True) > 0
        mask = begun & (index != PAD) & in_loss
        hidden = EMBEDDING[ids].cumsum(1) @ self.weights
        hidden = hidden[:, -(index.shape[1] + 1) :][:, :-1]
        logps = getattr(self.zoo, patches.SCORE)(
            hidden, HEAD, index, len(ids), 0.0, lm_head_bias=None
        )
        assert logps.shape == index.shape
        return (torch.where(mask, logps, 0.0) * torch.arange(1, len(ids) + 1)[:, None]).sum()


@pytest.fixture
def zoo(monkeypatch):
    """A stand-in for unsloth_zoo with a function that scores rows and counts them."""
    library, module = ModuleType("unsloth_zoo"), ModuleType("unsloth_zoo.rl_replacements")

    def score(hidden, lm_head, index, chunks, scale, lm_head_bias=None, return_entropy=False):
        calls.append((index.numel(), chunks))
        return (hidden @ lm_head.t()).log_softmax(-1).gather(-1, index[..., None])[..., 0]

    calls: list[tuple[int, int]] = []
    vars(module).update({patches.SCORE: score, "calls": calls})
    vars(library).update(rl_replacements=module)
    monkeypatch.setitem(sys.modules, library.__name__, library)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize(
    ("prompts", "completions", "masked"),
    [
        ([3, 9, 5], [20, 2, 7], []),
        ([4, 4], [6, 6], []),
        ([2, 7, 7], [5, 1, 3], [1]),
        ([6], [9], []),
        ([3, 5], [4, 2], [0, 1]),
    ],
)
def test_the_loss_and_its_gradient_are_those_of_all_columns(zoo, prompts, completions, masked):
    rows = padded(prompts, completions)
    rows["completion_mask"][masked] = 0
    whole, alone = ScoringTrainer(zoo), ScoringTrainer(zoo)
    loss = whole.compute_loss(None, rows)
    loss.backward()
    patches.score_completions_only(alone)
    patches.score_completions_only(alone)  # of a trainer before: it is not applied twice
    other = alone.compute_loss(None, rows, num_items_in_batch=3)
    assert torch.allclose(other, loss)
    if in_loss := sum(size for n, size in enumerate(completions) if n not in masked):
        other.backward()
        assert alone.weights.grad is not None and whole.weights.grad is not None
        assert torch.allclose(alone.weights.grad, whole.weights.grad, 1e-5)
    (columns, chunks), (scored, parts) = zoo.calls
    assert scored == (in_loss or columns) and parts == (1 if in_loss else chunks)
    assert in_loss <= columns and chunks == len(prompts)


def test_other_calls_score_every_column(zoo):
    """With entropies, for rows of another pass, and outside of a loss, as before it."""
    rows, trainer = padded([3, 5], [4, 2]), ScoringTrainer(zoo)
    patches.score_completions_only(trainer)
    score, hidden = getattr(zoo, patches.SCORE), torch.zeros(2, 6, HIDDEN)
    index = torch.ones(2, 6, dtype=torch.long)
    assert score(hidden, HEAD, index, 2, 0.0).shape == (2, 6)
    assert patches.completion_places(rows, index[:1], PAD) is None
    assert patches.completion_places(rows, index[:, :3], PAD) is None
    trainer.compute_loss(None, rows)
    assert score(hidden, HEAD, index, 2, 0.0, return_entropy=True).shape == (2, 6)
    assert [size for size, _ in zoo.calls] == [12, 6, 12]
