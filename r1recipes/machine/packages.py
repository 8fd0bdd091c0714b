"""The installed packages against the ranges that are supported, from metadata: nothing is imported.

The ranges are those of r1recipes's own metadata, also of its extra `gpu`; what its direct
requirements ask for in turn is compared too, for pip leaves conflicts behind. Limits: a package
that only another one misses is not named, since a slim installation works without some of them.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

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
"""What is known to go wrong outside the ranges (read in unsloth_zoo 2026.10.7 and 2026.10.9)."""
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
    """One thing that was looked at."""

    what: str
    found: str
    stops: Stops | None = None
    """What cannot run because of it."""
    mend: str | None = None
    """The one command that mends it. Without `stops` it is a warning."""

    @property
    def level(self) -> Literal["ok", "warning", "problem"]:
        return "problem" if self.stops else "warning" if self.mend else "ok"


def examine(card: Gpu | None) -> list[Finding]:
    """Python, the required packages, the extra `gpu`, and torch's build for this card."""
    python, required = _own_requirements()
    core = [r for r in required if _applies(r)]
    extra = [r for r in required if _applies(r, "gpu") and not _applies(r)]
    present = [r for r in extra if version(r.name)]
    found = [_python(python), *_ranges("packages", core, "everything")]
    whole = "python -m pip install " + " ".join(f"'{r.name}{r.specifier}'" for r in extra)
    if present:  # Unsloth and vLLM are used as soon as both are there, so they must be right
        found += _ranges("extra gpu", extra, "gpu")
    elif card:
        found.append(Finding("extra gpu", "not installed: plain TRL generates slowly", mend=whole))
    else:
        found.append(Finding("extra gpu", "not installed; only an NVIDIA GPU needs it"))
    found += _conflicts([*core, *present])
    found += _torch_build(card, None if present else whole)
    if card and present:
        found += _compiler()
    if card and not version("bitsandbytes"):
        mend = "python -m pip install bitsandbytes" if present else whole
        found.append(Finding("bitsandbytes", "not installed", "4-bit", mend))
    return found


def _own_requirements() -> tuple[str, list[Requirement]]:
    """Python and packages that r1recipes needs; from its source where it is not installed."""
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
    except InvalidVersion:  # a private build: its own business
        return True


def _python(requires: str) -> Finding:
    found = f"{platform.python_version()} on {platform.system()}"
    if not _fits(SpecifierSet(requires), platform.python_version()):
        mend = "python3.12 -m venv .venv"
        return Finding("Python", f"{found}; r1recipes needs {requires}", "everything", mend)
    return Finding("Python", found)


def _ranges(what: str, requirements: list[Requirement], stops: Stops) -> list[Finding]:
    """One line for all that fit, and one for each that does not."""
    bad = [found for r in requirements if (found := _out_of_range(r, stops))]
    total, good = len(requirements), len(requirements) - len(bad)
    return [Finding(what, f"{good} of {total} are within the supported versions"), *bad]


def _out_of_range(requirement: Requirement, stops: Stops) -> Finding | None:
    name, wanted = requirement.name, str(requirement.specifier)
    mend = f"python -m pip install '{name}{wanted}'"
    installed = version(name)
    if installed is None:
        return Finding(name, f"not installed; needed is {wanted}", stops, mend)
    if _fits(requirement.specifier, installed):
        return None
    known = REASONS.get(canonicalize_name(name), [])
    reasons = [text for versions, text in known if _fits(versions, installed)][:1]
    return Finding(name, "; ".join([f"{installed}, supported is {wanted}", *reasons]), stops, mend)


def _conflicts(requirements: list[Requirement]) -> Iterator[Finding]:
    """What an installed requirement asks of another package that is there in another version."""
    for name in dict.fromkeys(r.name for r in requirements):
        for text in (version(name) and importlib.metadata.requires(name)) or []:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue
            installed = version(wanted.name) if _applies(wanted) else None
            if installed and not _fits(wanted.specifier, installed):
                yield Finding(
                    wanted.name,
                    f"{installed}, but {name} {version(name)} asks for {wanted.specifier}",
                    mend=f"python -m pip install '{wanted.name}{wanted.specifier}'",
                )


def _torch_build(card: Gpu | None, mend: str | None) -> list[Finding]:
    """Whether torch can use the card: its CUDA, and the driver that this needs.

    `mend`: what brings another torch anyway.
    """
    installed = version("torch")
    if not installed:
        return []  # named among the packages
    cuda = torch_cuda()
    if card is None:
        return [Finding("torch", f"{installed}, {f'CUDA {cuda}' if cuda else 'a CPU build'}")]
    if cuda is None:
        mend = mend or f"python -m pip install --force-reinstall 'torch{_wanted_torch(installed)}'"
        return [Finding("torch", f"{installed} is a CPU build, and there is a GPU", "gpu", mend)]
    needed = MIN_DRIVER.get(int(cuda.split(".")[0]), 0)
    major = card.driver.split(".")[0]
    if major.isdigit() and int(major) < needed:
        text = f"{card.driver}, but CUDA {cuda} of torch {installed} needs {needed} or newer"
        return [Finding("driver", text, "gpu", f"sudo apt-get install nvidia-driver-{needed}")]
    return [Finding("torch", f"{installed}, CUDA {cuda}"), Finding("driver", card.driver)]


def _wanted_torch(installed: str) -> str:
    """The version that vLLM asks for, which has kernels for one alone; without it the same, or
    where that is too old or too new what is supported."""
    texts = (version("vllm") and importlib.metadata.requires("vllm")) or []
    asked = (Requirement(text) for text in texts if text.startswith("torch"))
    specifiers = [str(one.specifier) for one in asked if one.name == "torch" and _applies(one)]
    supported = next(r.specifier for r in _own_requirements()[1] if r.name == "torch")
    same = f"=={Version(installed).public}"
    return next(iter(specifiers), same if _fits(supported, installed) else str(supported))


def _compiler() -> list[Finding]:
    """What Triton builds its launcher with, on the first start (triton, runtime/build.py)."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return [Finding("compiler", "no gcc or clang", "gpu", "sudo apt-get install gcc")]
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").exists():
        major, minor, *_ = platform.python_version_tuple()
        mend = f"sudo apt-get install python{major}.{minor}-dev"
        return [Finding("compiler", f"Python's headers are not in {include}", "gpu", mend)]
    return []


def torch_cuda() -> str | None:
    """CUDA version of the installed torch, None for a CPU build; read from its file."""
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
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
