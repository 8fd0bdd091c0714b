"""What a backend is, and what it is handed: the protocol, its hooks, and one completion."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward


@dataclass(frozen=True)
class Sample:
    """One completion. `cut` means that it reached the length limit before its end."""

    text: str
    num_tokens: int
    cut: bool


Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Hooks:
    """What the caller wants to know while a backend trains."""

    on_progress: Callable[[int, int], None]
    """(done, total) steps of a cold start or completions of an evaluation."""
    on_step: Callable[[dict[str, Any], list[dict[str, Any]]], None]
    """Metrics of an optimiser step under TRL's names, and its sampled completions."""
    on_checkpoint: Callable[[Path], None]
    """A checkpoint folder was written to its end."""
    should_stop: Callable[[], bool]
    """Whether to save a checkpoint and stop after the current step; asked often."""


class ColdStarted(NamedTuple):
    """How a cold start ended."""

    revision: str | None
    """Commit of the weights that it began with, if they came from the Hub."""
    is_complete: bool
    """False where it was told to stop before its last step: it left a checkpoint and no model."""


class Backend(Protocol):
    """Plan -> model, adapter, samples, trained adapter. Methods are called in this order."""

    def tokenizer(self) -> Any:
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

    def load(self, base: Path | None, adapter: Path | None) -> str | None:
        """Load the model, from `base` after a cold start, with a saved adapter or a fresh one.

        Returns the commit of the weights, if they came from the Hub.
        """

    def checkpoint_bytes(self) -> int:
        """Size of one training checkpoint on disk at most."""

    def generate(
        self, prompts: list[Messages], num_samples: int, greedy: bool, adapter: bool, hooks: Hooks
    ) -> list[list[Sample]]:
        """Sample from the base (`adapter` False) or from base and adapter; seeded by the recipe."""

    def train(
        self,
        rows: Any,
        rewards: dict[str, Reward],
        output_dir: Path,
        resume_from: Path | None,
        hooks: Hooks,
    ) -> None:
        """Train the adapter on a datasets.Dataset of rows, from a checkpoint if one is given."""

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
