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
from r1recipes.machine import cards, gpu, host, hub, packages
from r1recipes.machine.gpu import Gpu, NoDriver, Process
from r1recipes.machine.packages import Finding, Stops
from r1recipes.machine.settings import Settings
from r1recipes.machine.units import GIB, gib, gigabytes
from r1recipes.planning import disk, models, plan, proofs
from r1recipes.planning.architectures import Origin
from r1recipes.planning.fit import OTHERS
from r1recipes.planning.plan import Plan
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded

NVIDIA_PCI = "0x10de"
"""PCI vendor number of NVIDIA."""
DRIVER_RUNS = Path("/proc/driver/nvidia/version")
PCI_DEVICES = Path("/sys/bus/pci/devices")


@dataclass(frozen=True)
class RecipeVerdict:
    """Whether one recipe runs here."""

    recipe: str
    preset: str | None
    why_not: str | None = None
    mend: str | None = None
    peak_bytes: int | None = None
    """Measured peak of this preset; None where it was not measured."""


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
        loaded.name: _plan(loaded, card, (origins or {}).get(loaded.name)) for loaded in recipes
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


def _plan(loaded: Loaded, card: Gpu | None, origin: Origin | None) -> Plan | PlanError:
    try:
        target = plan.Target.here(card, host.cores())
        return plan.make(loaded.recipe, target, base_dir=loaded.path.parent, origin=origin)
    except PlanError as error:
        return error


# The card


def card_findings(card: Gpu | None) -> list[Finding]:
    """The card that a run would use, what it can do, and who else holds memory on it."""
    if card is None:
        return [_no_card()]
    findings = [
        Finding(
            "GPU",
            f"{card.name}, compute capability {card.compute_capability}, "
            f"{gib(card.free_bytes)} of {gib(card.total_bytes)} GiB free",
        )
    ]
    if gpu.is_unified(card.name):
        text = "the card uses the main memory, which the system and other programs need as well"
        findings.append(Finding("GPU memory", text))
    if card.compute_capability < cards.MIN_CAPABILITY:
        needed = f"vLLM needs {cards.MIN_CAPABILITY} or more"
        text = f"compute capability {card.compute_capability}; {needed}"
        findings.append(Finding("GPU", text, "gpu", "python -m r1recipes run tiny --preset cpu"))
    elif card.compute_capability < 8:
        findings.append(Finding("dtype", "float16: this card has no bfloat16"))
    return findings + [_in_use(process) for process in gpu.processes(card)]


def _in_use(process: Process) -> Finding:
    size = process.used_bytes
    held = "memory, how much is not known" if size is None else f"{gib(size)} GiB"
    name = process.name or "a program"
    text = f"{name} (process {process.pid}) holds {held}"
    return Finding("GPU in use", text, None, f"kill {process.pid}")


def _no_card() -> Finding:
    """Why no card is used: no driver, hidden, in slices, unknown to the driver, or not there."""
    try:
        devices = gpu.devices()
    except NoDriver as error:
        return _no_driver(error)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.startswith("MIG-"):
        text = "CUDA_VISIBLE_DEVICES names a MIG slice, and slices are not supported"
        return Finding("GPU", text, "gpu", "sudo nvidia-smi -mig 0")
    if any(device.card for device in devices):
        text = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card"
        return Finding("GPU", text, "gpu", "unset CUDA_VISIBLE_DEVICES")
    if any(device.is_sliced for device in devices):
        text = "the card is in MIG slices, and slices are not supported"
        return Finding("GPU", text, "gpu", "sudo nvidia-smi -mig 0")
    if devices:
        unknown = devices[0].unknown or ""
        text = f"the driver does not report the card's {unknown}, which a run needs"
        mend = "nvidia-smi -q -d MEMORY" if unknown.startswith("memory") else "nvidia-smi -q"
        return Finding("GPU", text, "gpu", mend)
    return Finding("GPU", "the NVIDIA driver lists no card", "gpu", "sudo reboot")


def _no_driver(error: NoDriver) -> Finding:
    if error.kind != "no library":
        mend = "sudo modprobe nvidia" if error.kind == "not loaded" else "sudo reboot"
        return Finding("GPU", f"the NVIDIA driver cannot be asked: {error}", "gpu", mend)
    if DRIVER_RUNS.exists():
        text = f"the driver runs, but its library {gpu.LIBRARY} is not there"
        return Finding("GPU", text, "gpu", "sudo apt-get install libnvidia-compute-580")
    if any(_is_nvidia(device) for device in PCI_DEVICES.glob("*")):
        text = "there is an NVIDIA card, but no driver"
        return Finding("GPU", text, "gpu", "sudo apt-get install nvidia-driver-580")
    return Finding("GPU", "none from NVIDIA")


def _is_nvidia(device: Path) -> bool:
    try:  # class 0x03....: a display controller
        vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
    except OSError:
        return False
    return vendor.strip() == NVIDIA_PCI and kind.startswith("0x03")


# Memory, folders, the Hub


def _memory() -> str:
    """Main memory and its free part; the limit of a container counts."""
    total, available = host.memory_bytes(), host.available_bytes()
    for line in _lines(Path("/sys/fs/cgroup/memory.max")):
        total = min(total, int(line)) if line.strip().isdigit() else total
    free = "" if available is None else f"{gib(min(available, total))} of "
    return f"{free}{gib(total)} GiB free, {host.cores()} cores"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


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
        if card is None and "cpu" not in loaded.recipe.preset:
            smallest = min(loaded.recipe.preset, key=preset_bytes)
            why = f"needs an NVIDIA GPU of {smallest} or more"
        if card and OTHERS in (planned.problems[0].hint or ""):
            return RecipeVerdict(loaded.name, None, why, _end_another(card))
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
    return RecipeVerdict(loaded.name, name, peak_bytes=peak)


def _concerns(finding: Finding, planned: Plan) -> bool:
    if finding.subject == "Hub cache" and finding.level == "warning":
        return not disk.is_here(planned)  # then its weights will be downloaded to that folder
    on_gpu = planned.device == "cuda"
    four_bit = on_gpu and planned.preset.load_in_4bit
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
    return [Finding("GPU memory", text, "gpu", _end_another(card))]


def _end_another(card: Gpu) -> str:
    """The command that ends the process that holds most memory, or that lists the processes."""
    holders = gpu.processes(card)
    if not holders:
        return "nvidia-smi"
    return f"kill {max(holders, key=lambda holder: holder.used_bytes or 0).pid}"


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
            mend = "python -m pip install reasoning-gym"
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
