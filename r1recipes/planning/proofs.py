"""Measurements of a preset: the proof that `rehearse` wrote, and whether it still holds.

The proof of a shipped preset is `recipes/proofs/<recipe>.<preset>.json`. It holds while the preset
has the values that were measured, for the same model, within the memory of the preset's class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from r1recipes.algorithms.base import Preset, preset_bytes, preset_gb
from r1recipes.machine import cards
from r1recipes.machine.units import GIB
from r1recipes.recipe import loading
from r1recipes.recipe.loading import Loaded

CAP_TOLERANCE = 1.01
"""A rehearsal may have left free this many times the memory of the preset's class, for rounding."""
WORDS = ("NVIDIA ", "GeForce ", "Tesla ", " HBM3")
"""Words that a card's short name does without."""


class Real(BaseModel):
    """Times with real lengths (`rehearse --lengths`); only `error` where they failed."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    lengths: str
    """`real`, or the name of a run."""
    step_s: float | None = None
    generation_s: float | None = None
    backward_s: float | None = None
    completions_per_hour: int | None = None
    mean_length: float | None = None
    error: str | None = None


class Measured(BaseModel):
    """The fields of a proof that are read here; `rehearse` writes more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    recipe_model: str
    settings: dict[str, Any]
    overrides: list[str] = []
    vram_gib: float
    peak_gib: float
    card: str
    date: str
    versions: dict[str, str]
    completions_per_step: int | None = None
    step_s: float | None = None
    completions_per_hour: int | None = None
    tokens_per_s: int | None = None
    generation_s: float | None = None
    backward_s: float | None = None
    real: Real | None = None
    """With real lengths; the times beside it are at full length."""
    error: str | None = None
    failed_in: str | None = None


@dataclass(frozen=True)
class Proof:
    """The proof of one preset. `fault` says why it does not hold for the preset as it is now."""

    path: Path
    class_bytes: int
    measured: Measured | None
    fault: str | None

    @property
    def holds(self) -> bool:
        return self.measured is not None and self.fault is None

    @property
    def share(self) -> float:
        """Peak as a share of the memory that the smallest card of the class can use."""
        assert self.measured is not None
        return self.measured.peak_gib * GIB / self.class_bytes

    @property
    def card(self) -> str:
        """Short name of the card that the preset was measured on."""
        assert self.measured is not None
        name = self.measured.card
        for word in WORDS:
            name = name.replace(word, "")
        return name

    @property
    def date(self) -> str:
        assert self.measured is not None
        return self.measured.date[:10]


def folder() -> Path:
    """The folder of the proofs of the shipped recipes."""
    return loading.shipped_folder() / "proofs"


def class_bytes(preset: str) -> int | None:
    """Usable memory of the card of this size that has least; None where no card has this size."""
    return min(cards.sold_as(preset_gb(preset) or 0), default=None)


def find(loaded: Loaded, preset: str, proofs_folder: Path) -> Proof | None:
    """The proof of a recipe's preset, whether it holds or not; None where there is none."""
    path = proofs_folder / f"{loaded.name}.{preset}.json"
    if not path.is_file():
        return None
    usable = class_bytes(preset) or preset_bytes(preset)
    try:
        measured = Measured.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        return Proof(path, usable, None, f"the proof cannot be read: {_first(error)}")
    return Proof(path, usable, measured, _fault(measured, loaded, preset, usable))


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")
    return str(error)


def _fault(measured: Measured, loaded: Loaded, preset: str, usable: int) -> str | None:
    if measured.recipe_model != loaded.recipe.model.name:
        return f"stale: measured with {measured.recipe_model}"
    changes = _changes(measured.settings, loaded.recipe.preset[preset])
    if changes:
        return "stale: " + ", ".join(changes)
    others = [flag for flag in measured.overrides if not flag.startswith("preset.")]
    if others:
        return "stale: measured with --set " + " --set ".join(others)
    if measured.vram_gib * GIB > usable * CAP_TOLERANCE:
        free = f"{measured.vram_gib:.2f} GiB were left free"
        return f"{free}, more than the {usable / GIB:.2f} of the class"
    if measured.error:
        where = f" in {measured.failed_in}" if measured.failed_in else ""
        return f"failed{where}: {measured.error}"
    if None in (measured.step_s, measured.completions_per_hour, measured.completions_per_step):
        return "the proof has no step time"
    return None


def _changes(settings: dict[str, Any], preset: Preset) -> list[str]:
    """Keys whose measured value is not that of the preset now; a newer key had its default then."""
    now = preset.model_dump()
    default = {name: field.default for name, field in Preset.model_fields.items()}
    then = default | settings
    return [
        f"{key} {then.get(key)} -> {now.get(key, 'no such key')}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]
