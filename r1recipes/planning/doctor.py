"""Is this machine able to run a recipe, and what mends it: looks, and imports no heavy library.

Limits: one NVIDIA GPU on Linux. What a preset needs of the card is known only where it was
measured; elsewhere the size of the card decides, as in `run`.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from r1recipes.algorithms.base import preset_bytes
from r1recipes.errors import PlanError
from r1recipes.machine import gpu, hub, packages
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.packages import Finding
from r1recipes.machine.settings import Settings
from r1recipes.planning import disk, models, plan, proofs
from r1recipes.planning.plan import Plan
from r1recipes.planning.verdict import OTHERS
from r1recipes.recipe import references
from r1recipes.recipe.loading import Loaded

GIB = 2**30
NVIDIA_PCI = "0x10de"


@dataclass(frozen=True)
class Verdict:
    """Whether one recipe runs here."""

    recipe: str
    preset: str | None
    why_not: str | None = None
    mend: str | None = None
    peak_bytes: int | None = None
    """Measured peak of this preset, None where none was measured."""


@dataclass(frozen=True)
class Report:
    """What was found, and which recipes run here."""

    findings: list[Finding]
    verdicts: list[Verdict]

    @property
    def ok(self) -> bool:
        return any(verdict.why_not is None for verdict in self.verdicts)


def examine(recipes: list[Loaded], settings: Settings, *, offline: bool) -> Report:
    """Look at everything that these recipes need."""
    card = gpu.current_gpu()
    plans = {loaded.name: _plan(loaded, card) for loaded in recipes}
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


def _plan(loaded: Loaded, card: Gpu | None) -> Plan | PlanError:
    try:
        return plan.make(
            loaded.recipe, base_dir=loaded.path.parent, gpu=card, num_cores=gpu.cores()
        )
    except PlanError as error:
        return error


# The card


def card_findings(card: Gpu | None) -> list[Finding]:
    """The card that a run would use, what it can do, and who else holds memory of it."""
    if card is None:
        return [_no_card()]
    found = [
        Finding(
            "GPU",
            f"{card.name}, compute capability {card.compute_capability}, "
            f"{card.free_bytes / GIB:.1f} of {card.total_bytes / GIB:.1f} GiB free",
        )
    ]
    if card.compute_capability < plan.MIN_CAPABILITY:
        needed = f"vLLM needs {plan.MIN_CAPABILITY} or more"
        text = f"compute capability {card.compute_capability}; {needed}"
        found.append(Finding("GPU", text, "gpu", "python -m r1recipes run tiny --preset cpu"))
    elif card.compute_capability < 8:
        found.append(Finding("dtype", "float16: this card has no bfloat16"))
    return found + [
        Finding("GPU in use", f"{name} (process {pid}) holds {size / GIB:.1f} GiB", None, mend)
        for pid, name, size in processes(card)
        if (mend := f"kill {pid}")
    ]


def processes(card: Gpu) -> list[tuple[int, str, int]]:
    """Process id, name and bytes of each process on the card; in a container often none is seen."""
    query = "--query-compute-apps=pid,process_name,used_memory"
    command = ["nvidia-smi", f"--id={card.index}", query, "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.split(", ") for line in output.stdout.splitlines())
    return [
        (int(row[0]), Path(row[1]).name, int(row[2]) * 2**20)
        for row in rows
        if len(row) == 3 and row[0].isdigit() and row[2].isdigit()
    ]


def _no_card() -> Finding:
    """Why no GPU is seen: hidden, no tool, no driver, or no card."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shutil.which("nvidia-smi"):
        if hidden is not None and hidden.startswith("MIG-"):
            text = "CUDA_VISIBLE_DEVICES names a MIG slice, and slices are not supported"
            return Finding("GPU", text, "gpu", "sudo nvidia-smi -mig 0")
        works, said = _listed()
        if not works:
            mend = "sudo reboot" if "version mismatch" in said else "sudo modprobe nvidia"
            return Finding("GPU", f"nvidia-smi finds no card: {said}", "gpu", mend)
        if hidden is not None:
            text = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card"
            return Finding("GPU", text, "gpu", "unset CUDA_VISIBLE_DEVICES")
        text = "nvidia-smi does not tell the card's memory"
        if "MIG" in said:
            text += ": it is in MIG slices, and slices are not supported"
            return Finding("GPU", text, "gpu", "sudo nvidia-smi -mig 0")
        return Finding("GPU", f"{text}, and a run goes by it", "gpu", "nvidia-smi -q -d MEMORY")
    if Path("/proc/driver/nvidia/version").exists():
        text = "the driver runs, but there is no nvidia-smi on the PATH"
        return Finding("GPU", text, "gpu", "sudo apt-get install nvidia-utils-580")
    if any(_is_nvidia(device) for device in Path("/sys/bus/pci/devices").glob("*")):
        text = "there is an NVIDIA card, but no driver"
        return Finding("GPU", text, "gpu", "sudo apt-get install nvidia-driver-580")
    return Finding("GPU", "none from NVIDIA")


def _listed() -> tuple[bool, str]:
    """Whether nvidia-smi lists a card, and what it says."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return False, "it does not answer"
    said = " ".join((done.stdout + done.stderr).split())
    return done.returncode == 0 and "GPU" in said, said


def _is_nvidia(device: Path) -> bool:
    try:  # class 0x03....: a display controller
        vendor, kind = (device / "vendor").read_text(), (device / "class").read_text()
    except OSError:
        return False
    return vendor.strip() == NVIDIA_PCI and kind.startswith("0x03")


# Memory, folders, the Hub


def _memory() -> str:
    """Main memory, and how much of it is free; a container's limit counts."""
    total, available = gpu.memory_bytes(), None
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    for line in _lines(Path("/sys/fs/cgroup/memory.max")):
        total = min(total, int(line)) if line.strip().isdigit() else total
    free = "" if available is None else f"{min(available, total) / GIB:.1f} of "
    return f"{free}{total / GIB:.1f} GiB free, {gpu.cores()} cores"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def folder_findings(settings: Settings) -> list[Finding]:
    """Whether the folders that are written to can be, and how much room they have."""
    folders = [
        ("runs", settings.runs_dir, "everything", "R1RECIPES_RUNS_DIR"),
        ("cache", settings.cache_dir, "gpu", "R1RECIPES_CACHE_DIR"),
        ("Hub cache", hub.cache(), None, "HF_HUB_CACHE"),
    ]
    found = []
    for what, folder, stops, variable in folders:
        existing = disk.existing(folder)
        try:
            with tempfile.TemporaryFile(dir=existing):
                free = shutil.disk_usage(existing).free
        except OSError as error:
            text = f"{folder} cannot be written: {error.strerror}"
            mend = f'export {variable}="$HOME/{variable.lower()}"'
            found.append(Finding(what, text, stops, mend))
            continue
        found.append(Finding(what, f"{folder}, {free / 1e9:.1f} GB free"))
    return found


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
) -> Verdict:
    """Whether a recipe runs here; the first reason why not, and what mends it."""
    if isinstance(planned, PlanError):
        broken = next((f for f in findings if f.what == "GPU" and f.stops), None)
        why = planned.problems[0].message
        if card is None and "cpu" not in loaded.recipe.preset:
            smallest = min(loaded.recipe.preset, key=preset_bytes)
            why = f"needs an NVIDIA GPU of {smallest} or more"
        if card and OTHERS in (planned.problems[0].hint or ""):
            return Verdict(loaded.name, None, why, _end_another(card))
        return Verdict(loaded.name, None, why, broken.mend if broken else None)
    name = planned.preset_name
    proof = proofs.find(loaded, name, loaded.path.parent / "proofs")
    measured = proof.measured if proof and proof.holds else None
    peak = round(measured.peak_gib * GIB) if measured else None
    stopping = [
        Finding(f.what, f"{f.what}: {f.found}", f.stops, f.mend)
        for f in findings
        if _concerns(f, planned)
    ]
    needs = [*stopping, *_local(planned, offline), *_room(planned, settings, offline)]
    if card and planned.device == "cuda":
        needs += _free_memory(planned, card, peak)
    if needs:
        return Verdict(loaded.name, name, needs[0].found, needs[0].mend, peak)
    return Verdict(loaded.name, name, peak_bytes=peak)


def _concerns(finding: Finding, planned: Plan) -> bool:
    if finding.what == "Hub cache" and finding.level == "warning":
        return not disk.is_here(planned)  # its weights are to go there
    on_gpu = planned.device == "cuda"
    four_bit = on_gpu and planned.preset.load_in_4bit
    return {None: False, "everything": True, "gpu": on_gpu, "4-bit": four_bit}[finding.stops]


def _free_memory(planned: Plan, card: Gpu, peak: int | None) -> list[Finding]:
    """The engine's share, and the whole peak where it was measured, against what is free."""
    needed = (planned.preset.gpu_memory_utilization or 0) * card.total_bytes
    what = "the engine's share"
    if peak and peak > needed:
        needed, what = peak, "the measured peak"
    if needed <= card.free_bytes:
        return []
    text = f"{what} is {needed / GIB:.1f} GiB, {card.free_bytes / GIB:.1f} GiB are free"
    return [Finding("GPU memory", text, "gpu", _end_another(card))]


def _end_another(card: Gpu) -> str:
    """The command that ends the process that holds most of the card, or shows who may."""
    holders = processes(card)
    return f"kill {max(holders, key=lambda holder: holder[2])[0]}" if holders else "nvidia-smi"


def _room(planned: Plan, settings: Settings, offline: bool) -> list[Finding]:
    """The run folder and what has to be downloaded, against the disks that they go to."""
    shape = models.find(planned.recipe.model.name)
    needs = disk.needs(planned, shape, settings.runs_dir, offline=offline)
    return [
        Finding("disk", said, "everything", f"export {need.variable}=FOLDER_ON_A_LARGER_DISK")
        for need, said in disk.too_small(needs)
    ]


def _local(planned: Plan, offline: bool) -> list[Finding]:
    """Files that the recipe names, and without network the model, must be there."""
    recipe, found = planned.recipe, []
    if offline and not disk.is_here(planned):
        # A local folder: which 4-bit repository stands for a name, Unsloth alone knows.
        name, local = recipe.model.name, f"models/{Path(recipe.model.name).name}"
        text = f"offline, and `{name}` is not cached; as a folder: --set model.name='\"{local}\"'"
        mend = f"HF_HUB_OFFLINE=0 hf download {name} --local-dir {local}"
        found.append(Finding("model", text, "everything", mend))
    if references.is_gym(recipe.data.name):
        if packages.version("reasoning-gym") is None:
            mend = "python -m pip install reasoning-gym"
            text = f"`{recipe.data.name}` needs the package reasoning-gym"
            found.append(Finding("data", text, "everything", mend))
    elif not recipe.data.name.startswith(references.MADE_HERE):
        path = references.local_path(recipe.data.name, planned.base_dir)
        if path is not None and not path.exists():
            found.append(Finding("data", f"{path} does not exist", "everything"))
        elif path is None and offline and not disk.has_data(recipe.data.name):
            mend = f"HF_HUB_OFFLINE=0 hf download --repo-type dataset {recipe.data.name}"
            text = f"offline, and the data `{recipe.data.name}` are not cached"
            found.append(Finding("data", text, "everything", mend))
    return found
