"""The head of a result: when it was measured, on which machine, with which versions.

Limits: one file for each result, in the `results/` beside the script that measured it.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from r1recipes.machine import files, gpu, packages


def here(*more_packages: str) -> dict[str, Any]:
    """Date in UTC, machine, and the versions of what decides a run and of `more_packages`."""
    versions = packages.versions() | {name: version(name) for name in more_packages}
    return {"date": files.now(), "machine": gpu.describe_machine(), "versions": versions}


def write(path: Path, result: Mapping[str, Any], *more_packages: str) -> None:
    """Write a result as JSON with its head, whole or not at all; `path` ends in .json."""
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, here(*more_packages) | dict(result))
