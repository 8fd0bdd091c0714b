"""The sets of versions that belong together, in the one place where they are kept, and what a newer
set would bring.

The table in docs/install.md is made from here, and pyproject.toml's ranges allow the supported
ones; tests hold both. Limits: nothing is asked of a package index, so a set is as new as this file.
"""

from dataclasses import dataclass

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from r1recipes.machine import packages

GPU_NAMES = ("unsloth", "unsloth_zoo", "vllm")


@dataclass(frozen=True)
class VersionSet:
    """Versions that were run, or are known to resolve, together."""

    name: str
    versions: dict[str, str]
    """Package -> the versions, as a specifier."""
    cuda: str
    """CUDA of the wheels, with the driver that it needs; `none` for a CPU."""
    measured: str | None
    """Where and when it was measured; None where it never was."""
    brings: str = ""
    """What it would bring beside the supported ones, and what has to be measured anew."""

    @property
    def is_supported(self) -> bool:
        return self.measured is not None

    def has(self, installed: dict[str, str]) -> bool:
        """Whether these versions are installed, as far as the set names packages."""
        return all(_fits(spec, installed.get(name)) for name, spec in self.versions.items())


def _fits(specifier: str, version: str | None) -> bool:
    try:
        return version is not None and SpecifierSet(specifier).contains(Version(version))
    except InvalidVersion:  # a private build
        return False


SETS = (
    VersionSet(
        "GPU",
        {
            "torch": "==2.11.*",
            "transformers": "==5.17.0",
            "trl": "==1.12.*",
            "unsloth": "==2026.10.7",
            "unsloth_zoo": "==2026.10.7",
            "vllm": "==0.26.*",
        },
        "13, driver 580 or newer",
        "H100 and H200, 2026-11-21 to 2026-11-26",
    ),
    VersionSet(
        "CPU",
        {"torch": ">=2.11,<2.14", "transformers": "==5.17.0", "trl": "==1.12.*"},
        "none",
        "2 cores, torch 2.13.0, 2026-11-21 to 2026-11-26",
    ),
    VersionSet(
        "next GPU",
        {
            "torch": "==2.13.*",
            "transformers": "==5.17.0",
            "trl": "==1.12.*",
            "unsloth": "==2026.10.9",
            "unsloth_zoo": "==2026.10.9",
            "vllm": "==0.27.1",
        },
        "13, driver 580 or newer",
        None,
        "log-probs and their gradient are computed by one kernel, so that DPO and online DPO hold "
        "no logits of a whole pass, fixes for Qwen3.5 and Gemma 4; the engine takes its buffers "
        'from its share, `loss_type = "bnpo"` divides by the tokens of a pass as in TRL; log-probs '
        "are scored in another way, so peaks and a learning curve have to be measured anew",
    ),
)


def installed() -> dict[str, str]:
    """The installed version of each package that a set names."""
    names = {name for one in SETS for name in one.versions}
    found = {name: packages.version(name) for name in names}
    return {name: version for name, version in found.items() if version}


def table() -> list[str]:
    """The lines of the table of sets in docs/install.md."""
    names = list(SETS[0].versions)
    lines = [
        f"| set | {' | '.join(names)} | CUDA | measured |",
        f"| --- |{' --- |' * len(names)} --- | --- |",
    ]
    for one in SETS:
        cells = [one.versions.get(name, "-").removeprefix("==") for name in names]
        lines.append(f"| {one.name} | {' | '.join(cells)} | {one.cuda} | {one.measured or 'no'} |")
    return lines


def update() -> list[str]:
    """What is installed, which set that is, and what a newer one would bring, a line each."""
    present = installed()
    shown = ", ".join(f"{name} {version}" for name, version in sorted(present.items()))
    names = GPU_NAMES if any(name in present for name in GPU_NAMES) else ()
    kind = "GPU" if names else "CPU"
    lines = [f"installed  {shown or 'none of the packages'}"]
    own = next((one for one in SETS if one.name.endswith(kind) and one.has(present)), None)
    if own:
        measured = f"measured on {own.measured}" if own.measured else "never measured"
        lines.append(f"set        {own.name}, {measured}")
    else:
        lines.append(
            f"set        none of those below; `doctor` says what does not fit the {kind}'s"
        )
    for one in SETS:
        if one is own or one.name == "CPU":
            continue
        state = f"measured on {one.measured}" if one.measured else "not measured, not supported yet"
        versions = ", ".join(f"{n} {s.removeprefix('==')}" for n, s in one.versions.items())
        lines.append(f"{one.name:10} {versions}: {state}")
        if one.brings:
            lines.append(f"{'':10} brings: {one.brings}")
        if one.is_supported:
            wanted = " ".join(f"'{name}{spec}'" for name, spec in one.versions.items())
            lines.append(f"{'':10} python -m pip install {wanted}")
    return lines
