"""What a backend is, and what it is handed: the protocol, its hooks, and one completion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.runs.reading import Row

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sample:
    """One completion. `cut` means that it reached the length limit before its end."""

    text: str
    num_tokens: int
    cut: bool


Messages = list[dict[str, str]]
Phase = Literal["generate", "train"]
"""The two parts of an optimiser step: completions are generated, then trained on."""


def _ignore(*_: object) -> None:
    """Do nothing: the hook where the caller sets none."""


def _never() -> bool:
    return False


def _nothing(_: int) -> Row:
    return {}


@dataclass(frozen=True)
class Hooks:
    """What a backend calls while it works; the caller sets the hooks that it needs."""

    on_progress: Callable[[int, int], None] = _ignore
    """(done, total) steps of a cold start or completions of an evaluation."""
    on_loss: Callable[[float], None] = _ignore
    """The loss of a step of a cold start, after `on_progress` of that step."""
    on_step: Callable[[Row, list[dict[str, Any]]], None] = _ignore
    """Metrics of an optimiser step under TRL's names, and its sampled completions."""
    evaluate: Callable[[int], Row] = _nothing
    """Called after each optimiser step with its number, before `on_step`. It may call the backend's
    `generate`, and returns what else the metrics of the step have."""
    on_checkpoint: Callable[[Path], None] = _ignore
    """A checkpoint folder is complete."""
    should_stop: Callable[[], bool] = _never
    """Whether to save a checkpoint and stop after the current step; asked often."""
    on_phase: Callable[[Phase], None] = _ignore
    """This part of an optimiser step begins."""
    lengths: Callable[[int], list[int]] | None = None
    """Number of completions -> the tokens that each of them is to have, at most those that the plan
    allows; for a rehearsal. Without it they end where the model ends them."""


class ColdStarted(NamedTuple):
    """How a cold start ended."""

    revision: str | None
    """Commit of the weights that it began with, if they came from the Hub."""
    is_complete: bool
    """False where it was told to stop before its last step: it left a checkpoint and no model."""


class Backend(Protocol):
    """Plan -> model, adapter, samples, trained adapter. Methods are called in this order."""

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, without loading weights."""

    def cold_start(
        self,
        rows: list[dict[str, Any]],
        folder: Path,
        start: Path | None,
        checkpoints: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> ColdStarted:
        """Train all weights on demonstrations and save model and tokenizer to `folder`.

        `start` has the weights that it begins with where they are not those of the recipe's model.
        It goes on from a checkpoint if one is given, and writes one into `checkpoints` only when
        `hooks.should_stop` ends it early.
        """

    def load(
        self, base: Path | None, adapter: Path | None, *, quantised: Path | None = None
    ) -> str | None:
        """Load the model, from `base` after a cold start, with a saved adapter or a fresh one.

        `quantised` is the folder for `base` in 4 bits or FP8, if a backend has to write it; without
        it the cache of the machine.
        Returns the commit of the weights, if they came from the Hub.
        """

    def commit(self) -> str | None:
        """The commit of the weights that were loaded, in whatever repository; None if they are not
        from the Hub. `load` returns it only where it is of the recipe's own repository."""

    def facts(self) -> dict[str, float]:
        """Sizes that the engine chose for itself when the model was loaded, for a rehearsal.

        Keys end in their unit: `_tokens`, `_seqs`, `_gib`. Empty for a backend without an engine.
        """

    def checkpoint_bytes(self) -> int:
        """Size of one training checkpoint on disk at most."""

    def block_size(self) -> int:
        """Problems that are sampled in one call, where many are and what is done is kept now and
        then: a call ends with the longest completion, so few of them are faster."""

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        """Sample from the base (`adapter` False) or from base and adapter; seeded by the recipe.

        While training, it samples with the weights of the last step, and leaves the random state
        and the mode of the model as they were: training goes on as if it had not been called.
        """

    def train(
        self,
        rows: Dataset,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
        *,
        plan: Plan | None = None,
    ) -> None:
        """Train the adapter on rows, from a checkpoint if one is given.

        `plan` may differ from the plan that was loaded in everything that the loaded engine does
        not depend on, such as the batch size; without it the loaded plan is trained.
        """

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter in PEFT's format."""

    def reset(self, plan: Plan) -> None:
        """Go back to just before `load`, but keep the base model and its engine for `plan`.

        The plan must need the same engine (`warm.engine_key`); adapter and trainer are dropped, and
        `load` then adds a fresh adapter as it would to a model just loaded.
        """

    def held_bytes(self) -> int:
        """Memory that the process holds now; grows from reset to reset only if something leaks."""

    def close(self) -> None:
        """End what runs beside the model. Nothing can be called after it."""


@dataclass(frozen=True)
class BackendSpec:
    """One row of `BACKENDS`: what can be asked of a backend before its libraries are imported."""

    name: str
    """The name that `Plan.backend` has."""
    serves: Callable[[Plan], str | None]
    """Why the backend cannot carry out a plan; None if it can. Imports no heavy library."""
    create: Callable[[Plan, bool], Backend]
    """(plan, offline) -> the backend; imports its libraries. Raises: PlanError if they fail."""
