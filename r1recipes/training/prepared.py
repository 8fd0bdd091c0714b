"""What a run begins with: what the user allowed, and a plan with everything loaded but the weights.

The hashes of what was loaded go into the lock (`inputs`). Limits: nothing is loaded here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from r1recipes import data
from r1recipes.data.examples import demonstrations
from r1recipes.data.examples.demonstrations import Lengths
from r1recipes.data.splits import Splits
from r1recipes.machine.settings import Settings
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends.base import Backend
from r1recipes.training.evaluation.probe import Judge
from r1recipes.training.warm import Warm

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Options:
    """What the user allowed or asked for on the command line."""

    allow_code: bool = False
    """Run rewards from the recipe's own Python files."""
    allow_judge: bool = False
    """Send completions to a judge that is not on this machine."""
    force: bool = False
    """Train even if the probe sees nothing to learn from."""
    finish: bool = False
    """Train no further than the last whole checkpoint: evaluate it, and close the run."""

    def flags(self) -> str:
        """The permissions as they were typed, each after a space."""
        allowed = [name for name, is_given in self.allowed().items() if is_given]
        return "".join(f" --{name.replace('_', '-')}" for name in allowed)

    def allowed(self) -> dict[str, bool]:
        """What rewards may do, by the names of `preflight.load_rewards`."""
        return {"allow_code": self.allow_code, "allow_judge": self.allow_judge}


@dataclass(frozen=True)
class Prepared:
    """A plan with everything that can be loaded and checked before the weights."""

    plan: Plan
    splits: Splits
    backend: Backend
    rewards: dict[str, Reward]
    """The rewards that training pays, by their name in the recipe."""
    decisive: Reward
    """The reward that decides whether a completion is right."""
    inputs: dict[str, str]
    """Each thing that the run reads beside its recipe -> its sha256."""
    examples: datasets.Dataset | None = None
    """What the algorithm learns from, as its trainer takes it; None before own samples are chosen,
    and where it learns from `splits.train`."""
    examples_revision: str | None = None
    """The commit of the examples on the Hub."""
    settings: Settings | None = None
    """The settings of this machine; needed where an adapter is merged."""
    judge: Judge | None = None
    """Judges answers wherever they stand in a completion, if it is answers that decide."""
    warm: Warm = field(default_factory=Warm)
    """What earlier runs in this process have loaded and computed."""

    @property
    def training_rows(self) -> datasets.Dataset:
        """What the algorithm trains on: its examples, or problems to sample."""
        return self.splits.train if self.examples is None else self.examples

    def for_lock(self) -> dict[str, object]:
        """What the lock says of the inputs: their hashes, and their commits on the Hub."""
        read: dict[str, object] = {"inputs": self.inputs, "data_revision": self.splits.revision}
        commit = self.examples_revision
        return read | ({"examples_revision": commit} if commit else {})

    def demonstration_notes(self) -> list[str]:
        """Lines on demonstrations of the cold start that are left out. Raises: RecipeError."""
        recipe, held_out = self.plan.recipe, self.splits.held_out
        lengths = self.demonstration_lengths()
        return demonstrations.check(recipe, self.plan.base_dir, held_out, lengths)

    def demonstration_lengths(self) -> Lengths:
        """Tells which demonstrations fit into the sequences of this plan."""
        return Lengths(self.backend.tokenizer(), self.plan.preset.max_seq_length)


def input_hashes(
    plan: Plan,
    splits: data.Splits,
    template: str,
    loaded: Iterable[Reward],
    examples: datasets.Dataset | None = None,
) -> dict[str, str]:
    """sha256 of each thing that a run reads beside its recipe, under its name in plain words."""
    rows = (splits.train, splits.held_out)
    hashes = {"the data": _rows_sha256(*rows), "the chat template": _sha256(template.encode())}
    if examples is not None:
        hashes["the examples"] = _rows_sha256(examples)
    start = plan.recipe.cold_start
    if start and start.data:
        hashes["the demonstrations"] = _sha256((plan.base_dir / start.data).read_bytes())
    if plan.origin:
        hashes["the adapter that it starts from"] = plan.origin.sha256
    for reward in loaded:
        if reward.judge and reward.judge.weights_sha256:
            hashes["the model that judges"] = reward.judge.weights_sha256
        if reward.code_sha256:
            hashes[f"the code of reward `{reward.name}`"] = reward.code_sha256
    return hashes


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _rows_sha256(*splits: datasets.Dataset) -> str:
    digest = hashlib.sha256()
    for rows in splits:
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()
