"""The installed packages against the ranges that are supported, from metadata: nothing is imported.

The ranges are those of r1recipes's own metadata, with its extra `gpu`. What the direct
requirements ask for in turn is compared too, since pip leaves conflicts behind. Limits: a missing
package that only another package asks for is not named, since a slim installation works without.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from r1recipes.machine import host
from r1recipes.machine.gpu import Gpu

Stops = Literal["everything", "gpu", "4-bit"]

MIN_DRIVER = {13: 580, 12: 525}
"""CUDA's major version -> oldest Linux driver (published: CUDA Toolkit release notes, table 2)."""
REASONS = {
    "vllm": [
        (SpecifierSet(">=0.28"), "from 0.28 on 4-bit needs `vllm-bnb-plugin`"),
        (SpecifierSet("==0.10.*"), "standby fails on 0.10 (bad_alloc)"),
        (SpecifierSet("==0.14.*"), "standby fails on 0.14 (illegal address)"),
    ],
    "transformers": [
        (SpecifierSet("<5"), "vLLM is left out by Unsloth with transformers below 5"),
        (SpecifierSet(">5.17.0"), "Unsloth allows at most 5.17.0"),
    ],
    "trl": [
        (SpecifierSet(">=1.16"), "Unsloth allows at most 1.15, and GRPO does not run on a CPU"),
        (SpecifierSet(">=1.15"), "GRPO does not run on a CPU from 1.15 on"),
        (SpecifierSet("<1"), "its GRPOConfig has other arguments and defaults"),
    ],
    "datasets": [(SpecifierSet(">=5"), "Unsloth allows none from 5 on")],
}
"""Package -> versions outside its range, and why they fail (read in unsloth_zoo 2026.10.7 and
2026.10.9)."""
READ_IN = {
    "unsloth": "2026.10.7",
    "unsloth_zoo": "2026.10.7",
    "vllm": "0.26.0",
    "trl": "1.12.0",
    "transformers": "5.17.0",
    "bitsandbytes": "0.50.2",
    "triton": "3.6.0",
}
"""Versions whose source code was read. A comment or docstring that cites a file or a function of
one of these libraries means this version, unless it names another: before a newer one is allowed,
every such place has to be read again (`grep -rE "unsloth|vllm"` finds them)."""


@dataclass(frozen=True)
class Finding:
    """One thing that was examined."""

    subject: str
    """The thing, such as `driver`."""
    state: str
    """Its state, in words."""
    stops: Stops | None = None
    """What cannot run because of it."""
    mend: str | None = None
    """The one command that mends it. With a command and without `stops` it is a warning."""

    @property
    def level(self) -> Literal["ok", "warning", "problem"]:
        return "problem" if self.stops else "warning" if self.mend else "ok"


def examine(card: Gpu | None) -> list[Finding]:
    """Python, the required packages, the extra `gpu`, and torch's build for this card."""
    python, required = _own_requirements()
    core = [r for r in required if _applies(r)]
    extra = [r for r in required if _applies(r, "gpu") and not _applies(r)]
    present = [r for r in extra if version(r.name)]
    findings = [_python(python), *_ranges("packages", core, "everything")]
    install = "python -m pip install " + " ".join(f"'{r.name}{r.specifier}'" for r in extra)
    if present:  # Unsloth and vLLM are used as soon as both are there, so they must be right
        findings += _ranges("extra gpu", extra, "gpu")
    elif card:
        text = "not installed: plain TRL generates slowly"
        findings.append(Finding("extra gpu", text, mend=install))
    else:
        findings.append(Finding("extra gpu", "not installed; only an NVIDIA GPU needs it"))
    findings += _conflicts([*core, *present])
    findings += _torch_build(card, None if present else install)
    if card and present:
        findings += _compiler()
    if card and not version("bitsandbytes"):
        mend = "python -m pip install bitsandbytes" if present else install
        findings.append(Finding("bitsandbytes", "not installed", "4-bit", mend))
    return findings


def extra(name: str) -> str:
    """The command that installs an extra of r1recipes: from its source where it runs from there, or
    else by its name, of which pip then finds only the extra's packages to be missing."""
    source = Path(__file__).parents[2]
    if not (source / "pyproject.toml").is_file():
        return f"python -m pip install 'r1recipes[{name}]'"
    place = "." if source == Path.cwd() else str(source)
    return f"python -m pip install -e '{place}[{name}]'"


def _own_requirements() -> tuple[str, list[Requirement]]:
    """The Python and the packages that r1recipes needs; read from its source if not installed."""
    try:
        metadata = importlib.metadata.metadata("r1recipes")
        python, texts = metadata["Requires-Python"], metadata.get_all("Requires-Dist") or []
    except importlib.metadata.PackageNotFoundError:
        import tomli

        source = Path(__file__).parents[2] / "pyproject.toml"
        project = tomli.loads(source.read_text())["project"]
        python, texts = project["requires-python"], list(project["dependencies"])
        for extra, more in project["optional-dependencies"].items():
            texts += [f'{text}; extra == "{extra}"' for text in more]
    return python, [Requirement(text) for text in texts]


def version(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _fits(specifier: SpecifierSet, installed: str) -> bool:
    try:
        return specifier.contains(Version(installed), prereleases=True)
    except InvalidVersion:  # a private build, which nobody can judge
        return True


def _python(requires: str) -> Finding:
    running = f"{platform.python_version()} on {platform.system()}"
    if not _fits(SpecifierSet(requires), platform.python_version()):
        mend = "python3.12 -m venv .venv"
        return Finding("Python", f"{running}; r1recipes needs {requires}", "everything", mend)
    return Finding("Python", running)


def _ranges(group: str, requirements: list[Requirement], stops: Stops) -> list[Finding]:
    """One finding for all packages that fit, and one for each that does not."""
    bad = [finding for r in requirements if (finding := _out_of_range(r, stops))]
    total, good = len(requirements), len(requirements) - len(bad)
    return [Finding(group, f"{good} of {total} are within the supported versions"), *bad]


def _out_of_range(requirement: Requirement, stops: Stops) -> Finding | None:
    name, supported = requirement.name, str(requirement.specifier)
    mend = f"python -m pip install '{name}{supported}'"
    installed = version(name)
    if installed is None:
        return Finding(name, f"not installed; needed is {supported}", stops, mend)
    if _fits(requirement.specifier, installed):
        return None
    failures = REASONS.get(canonicalize_name(name), [])
    reasons = [reason for affected, reason in failures if _fits(affected, installed)][:1]
    text = "; ".join([f"{installed}, supported is {supported}", *reasons])
    return Finding(name, text, stops, mend)


def _conflicts(requirements: list[Requirement]) -> Iterator[Finding]:
    """Installed packages whose version is not one that an installed requirement asks for."""
    for name in dict.fromkeys(r.name for r in requirements):
        for text in (version(name) and importlib.metadata.requires(name)) or []:
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue
            installed = version(needed.name) if _applies(needed) else None
            if installed and not _fits(needed.specifier, installed):
                yield Finding(
                    needed.name,
                    f"{installed}, but {name} {version(name)} asks for {needed.specifier}",
                    mend=f"python -m pip install '{needed.name}{needed.specifier}'",
                )


def _torch_build(card: Gpu | None, mend: str | None) -> list[Finding]:
    """Whether torch can use the card: its CUDA version, and the driver that this needs.

    `mend`: a command that is needed anyway and installs another torch.
    """
    installed = version("torch")
    if not installed:
        return []  # it is one of the packages
    cuda = torch_cuda()
    if card is None:
        return [Finding("torch", f"{installed}, {f'CUDA {cuda}' if cuda else 'a CPU build'}")]
    if cuda is None:
        mend = mend or f"python -m pip install --force-reinstall 'torch{_torch_range(installed)}'"
        return [Finding("torch", f"{installed} is a CPU build, and there is a GPU", "gpu", mend)]
    needed = MIN_DRIVER.get(int(cuda.split(".")[0]), 0)
    major = card.driver.split(".")[0]
    if major.isdigit() and int(major) < needed:
        text = f"{card.driver}, but CUDA {cuda} of torch {installed} needs {needed} or newer"
        who, command = host.needs_driver(needed)
        return [Finding("driver", f"{text}; {who}" if who else text, "gpu", command)]
    torch = _other_cuda(installed, cuda) or [Finding("torch", f"{installed}, CUDA {cuda}")]
    return [*torch, Finding("driver", card.driver)]


def _other_cuda(installed: str, cuda: str) -> list[Finding]:
    """Whether vLLM's kernels are for the CUDA of torch. `torch==2.11.0`, which vLLM asks for, also
    allows 2.11.0+cu128, so pip and uv keep that build beside a wheel for CUDA 13."""
    other = vllm_cuda()
    if other is None or other == cuda.split(".")[0]:
        return []
    text = f"{installed} is for CUDA {cuda}, and vLLM {version('vllm')} for CUDA {other}"
    names = ("torch", "torchvision", "torchaudio")
    texts = (version("vllm") and importlib.metadata.requires("vllm")) or []
    requirements = [r for r in map(Requirement, texts) if r.name in names and _applies(r)]
    same = " ".join(f"'{r.name}{r.specifier}'" for r in requirements) or "torch"
    return [Finding("torch", text, "gpu", f"python -m pip install --force-reinstall {same}")]


def vllm_cuda() -> str | None:
    """Major version of CUDA that the installed vLLM is linked with; None where it is not seen.

    Its compiled module names the library among its first bytes, and is not loaded.
    """
    spec = importlib.util.find_spec("vllm") if version("vllm") else None
    for folder in (spec and spec.submodule_search_locations) or []:
        for path in sorted(Path(folder).glob("_C*.so")):
            with suppress(OSError), open(path, "rb") as file:
                if match := re.search(rb"libcudart\.so\.(\d+)", file.read(LINKED_BYTES)):
                    return match[1].decode()
    return None


LINKED_BYTES = 64 * 2**20
"""Bytes of a compiled module in which the names of its libraries stand; assumed."""


def _torch_range(installed: str) -> str:
    """The version that vLLM asks for, since its kernels are for that one alone. Without vLLM it is
    the installed version, or the supported range where that version is outside of it."""
    texts = (version("vllm") and importlib.metadata.requires("vllm")) or []
    requirements = [Requirement(text) for text in texts if text.startswith("torch")]
    specifiers = [str(r.specifier) for r in requirements if r.name == "torch" and _applies(r)]
    supported = next(r.specifier for r in _own_requirements()[1] if r.name == "torch")
    same = f"=={Version(installed).public}"
    return next(iter(specifiers), same if _fits(supported, installed) else str(supported))


def _compiler() -> list[Finding]:
    """The C compiler and headers that Triton builds its launcher with, on the first start (triton,
    runtime/build.py)."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return [Finding("compiler", "no gcc or clang", "gpu", _install("gcc", "gcc"))]
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").exists():
        major, minor, *_ = platform.python_version_tuple()
        name = f"python{major}.{minor}"
        mend = _install(f"{name}-dev", name, f"uv venv --managed-python --python {major}.{minor}")
        return [Finding("compiler", f"Python's headers are not in {include}", "gpu", mend)]
    return []


def _install(package: str, module: str, without_root: str = "") -> str:
    """The command that installs a package of the system: as a module or with conda where users of
    a cluster may not install, else with apt."""
    if host.cluster():
        return without_root or f"module load {module}"
    if os.environ.get("CONDA_PREFIX") and package == "gcc":
        return "conda install -c conda-forge gcc"
    return host.as_root(f"apt-get install {package}")


def torch_cuda() -> str | None:
    """CUDA version of the installed torch, or None for a CPU build; torch is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return None
    match = re.search(r"^cuda\b.*=\s*['\"](\d[\d.]*)['\"]", text, re.MULTILINE)
    return match[1] if match else None


GPU_PACKAGES = ("unsloth", "unsloth_zoo", "vllm", "bitsandbytes", "triton")
"""A run on a CPU uses none of these, even where they are installed."""
PACKAGES = (
    "r1recipes",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "tokenizers",
    "math-verify",
    *GPU_PACKAGES,
)


def versions() -> dict[str, str]:
    """Version of each installed package that decides what a run computes, and of Python."""
    installed = {name: version(name) for name in PACKAGES}
    present = {name: number for name, number in installed.items() if number}
    return {"python": platform.python_version()} | present
