"""Whether this machine can run a recipe, and the commands that mend what is missing.

It only looks, and imports no heavy library. Limits: one NVIDIA GPU on Linux. The memory that a
preset needs is known where it was measured; elsewhere the size of the card decides, as in `run`.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1recipes.algorithms.base import preset_bytes
from r1recipes.data.local import missing_model
from r1recipes.errors import PlanError
from r1recipes.machine import gpu, host, hub, packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.packages import Finding, Stops
from r1recipes.machine.settings import Settings
from r1recipes.machine.units import GIB, gib, gigabytes
from r1recipes.planning import architectures, disk, models, plan, proofs
from r1recipes.planning.architectures import Origin
from r1recipes.planning.doctor.card import card_findings, end_another
from r1recipes.planning.fit import refusals
from r1recipes.planning.memory.predicted import OTHERS
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded

__all__ = ["RecipeVerdict", "Report", "card_findings", "examine", "verdict"]


@dataclass(frozen=True)
class RecipeVerdict:
    """Whether one recipe runs here."""

    recipe: str
    preset: str | None
    why_not: str | None = None
    mend: str | None = None
    peak_bytes: int | None = None
    """Measured peak of this preset; None where it was not measured."""
    note: str | None = None
    """Why its memory is not predicted, where that is so."""


@dataclass(frozen=True)
class Report:
    """What was examined, and which recipes run here."""

    findings: list[Finding]
    verdicts: list[RecipeVerdict]

    @property
    def ok(self) -> bool:
        return any(v.why_not is None for v in self.verdicts)


def examine(
    recipes: list[Loaded],
    settings: Settings,
    *,
    offline: bool,
    origins: Mapping[str, Origin | None] | None = None,
) -> Report:
    """Examine everything that these recipes need. `origins`: name of a recipe -> the adapter that
    it names as its model."""
    card = gpu.current()
    plans = {
        loaded.name: _plan(loaded, card, (origins or {}).get(loaded.name), offline)
        for loaded in recipes
    }
    on_gpu = any(isinstance(p, PlanError) or p.device == "cuda" for p in plans.values())
    findings = packages.examine(card if on_gpu else None)
    if on_gpu:
        findings += card_findings(card)
    findings.append(Finding("memory", _memory()))
    findings += folder_findings(settings)
    findings += hub_findings(offline)
    verdicts = [
        verdict(loaded, plans[loaded.name], findings, settings, card=card, offline=offline)
        for loaded in recipes
    ]
    return Report(findings, verdicts)


def _plan(
    loaded: Loaded, card: Gpu | None, origin: Origin | None, offline: bool
) -> Plan | PlanError:
    target, base_dir = plan.Target.here(card, host.cores()), loaded.path.parent
    try:
        return plan.make(loaded.recipe, target, base_dir=base_dir, origin=origin, offline=offline)
    except PlanError as error:
        return error


# Memory, folders, the Hub


def _memory() -> str:
    """Main memory and its free part; the limit of a container counts."""
    total = min(host.memory_bytes(), host.memory_limit() or host.memory_bytes())
    available = host.available_bytes()
    free = "" if available is None else f"{gib(min(available, total))} of "
    note = "; WSL2 has half of Windows's unless .wslconfig says more"
    whole = f"{free}{gib(total)} GiB free, {host.cores()} cores"
    return whole + (note if host.place() == "wsl" else "")


def folder_findings(settings: Settings) -> list[Finding]:
    """Whether the folders of runs and caches can be written, and how much room they have."""
    folders: list[tuple[str, Path, Stops | None, str]] = [
        ("runs", settings.runs_dir, "everything", "R1RECIPES_RUNS_DIR"),
        ("cache", settings.cache_dir, "gpu", "R1RECIPES_CACHE_DIR"),
        ("Hub cache", hub.cache(), None, "HF_HUB_CACHE"),
    ]
    findings = []
    for subject, folder, stops, variable in folders:
        existing = disk.existing(folder)
        try:
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free
        except OSError as error:
            text = f"{folder} cannot be written: {error.strerror}"
            mend = f'export {variable}="$HOME/{variable.lower()}"'
            findings.append(Finding(subject, text, stops, mend))
            continue
        findings.append(Finding(subject, f"{folder}, {gigabytes(free)} free"))
    return findings


def hub_findings(offline: bool) -> list[Finding]:
    """Whether the Hub may be asked, and whether a token is set; the token is never shown."""
    if offline:
        return [Finding("Hub", "offline: models and data must be on this machine")]
    token = hub.token()
    if token is None:
        return [Finding("Hub token", "none; the shipped recipes need none, a gated model does")]
    if hub.TOKEN.fullmatch(token):
        return [Finding("Hub token", "present")]
    mend = "unset HF_TOKEN" if os.environ.get("HF_TOKEN") else "hf auth login"
    return [Finding("Hub token", "present, but not of the form hf_...", None, mend)]


# The recipes


def verdict(
    loaded: Loaded,
    planned: Plan | PlanError,
    findings: list[Finding],
    settings: Settings,
    *,
    card: Gpu | None,
    offline: bool,
) -> RecipeVerdict:
    """Whether a recipe runs here; if not, the first reason and what mends it."""
    if isinstance(planned, PlanError):
        gpu_fault = next((f for f in findings if f.subject == "GPU" and f.stops), None)
        why = planned.problems[0].message
        if isinstance(planned, architectures.Refused):
            return RecipeVerdict(loaded.name, None, f"{why}; {planned.problems[0].hint}")
        if card is None and "cpu" not in loaded.recipe.preset:
            smallest = min(loaded.recipe.preset, key=preset_bytes)
            why = f"needs an NVIDIA GPU of {smallest} or more"
        if card and OTHERS in (planned.problems[0].hint or ""):
            return RecipeVerdict(loaded.name, None, why, end_another(card))
        return RecipeVerdict(loaded.name, None, why, gpu_fault.mend if gpu_fault else None)
    name = planned.preset_name
    proof = proofs.find(loaded, name, loaded.path.parent / "proofs")
    measured = proof.measured if proof and proof.holds else None
    peak = round(measured.peak_gib * GIB) if measured else None
    stopping = [
        Finding(f.subject, f"{f.subject}: {f.state}", f.stops, f.mend)
        for f in findings
        if _concerns(f, planned)
    ]
    needs = [*stopping, *_local(planned, offline), *_room(planned, settings, offline)]
    if card and planned.device == "cuda":
        needs += _free_memory(planned, card, peak)
    if needs:
        return RecipeVerdict(loaded.name, name, needs[0].state, needs[0].mend, peak)
    note = None
    if planned.backend == "unsloth" and planned.predicted is None:
        note = refusals.unpredicted(planned.base_model.name)
    return RecipeVerdict(loaded.name, name, peak_bytes=peak, note=note)


def _concerns(finding: Finding, planned: Plan) -> bool:
    if finding.subject == "Hub cache" and finding.level == "warning":
        return not disk.is_here(planned)  # then its weights will be downloaded to that folder
    on_gpu = planned.device == "cuda"
    four_bit = on_gpu and planned.preset.weights == "4bit"
    return {None: False, "everything": True, "gpu": on_gpu, "4-bit": four_bit}[finding.stops]


def _free_memory(planned: Plan, card: Gpu, peak: int | None) -> list[Finding]:
    """Whether the free memory holds the engine's share, and the peak where that was measured."""
    needed = (planned.preset.gpu_memory_utilization or 0) * card.total_bytes
    part = "the engine's share"
    if peak and peak > needed:
        needed, part = peak, "the measured peak"
    if needed <= card.free_bytes:
        return []
    text = f"{part} is {gib(needed)} GiB, {gib(card.free_bytes)} GiB are free"
    return [Finding("GPU memory", text, "gpu", end_another(card))]


def _room(planned: Plan, settings: Settings, offline: bool) -> list[Finding]:
    """Whether the disks have room for the run folder and for what has to be downloaded."""
    shape = models.find(planned.base_model.name)
    needs = disk.needs(planned, shape, settings.runs_dir, offline=offline)
    return [
        Finding("disk", text, "everything", f"export {need.variable}=FOLDER_ON_A_LARGER_DISK")
        for need, text in disk.too_small(needs)
    ]


def _local(planned: Plan, offline: bool) -> list[Finding]:
    """Whether the files that the recipe names, and without network the model, are there."""
    recipe, missing = planned.recipe, []
    if problem := missing_model(recipe.model.name, planned.base_dir):
        missing.append(Finding("model", f"{problem.message}; {problem.hint}", "everything"))
    elif offline and not disk.is_here(planned):
        # Into a local folder: only Unsloth knows which 4-bit repository stands for a name.
        name = planned.base_model.name
        local = f"models/{Path(name).name}"
        text = f"offline, and `{name}` is not cached; as a folder: --set model.name='\"{local}\"'"
        mend = f"HF_HUB_OFFLINE=0 hf download {name} --local-dir {local}"
        missing.append(Finding("model", text, "everything", mend))
    if references.is_gym(recipe.data.name):
        if packages.version("reasoning-gym") is None:
            mend = packages.extra("gym")
            text = f"`{recipe.data.name}` needs the package reasoning-gym"
            missing.append(Finding("data", text, "everything", mend))
    elif not recipe.data.name.startswith(references.MADE_HERE):
        path = references.local_path(recipe.data.name, planned.base_dir)
        if path is not None and not path.exists():
            missing.append(Finding("data", f"{path} does not exist", "everything"))
        elif path is None and offline and not disk.has_data(recipe.data.name):
            mend = f"HF_HUB_OFFLINE=0 hf download --repo-type dataset {recipe.data.name}"
            text = f"offline, and the data `{recipe.data.name}` are not cached"
            missing.append(Finding("data", text, "everything", mend))
    return missing
