"""Rehearse every case of a list, one at a time on each GPU of this machine.

    python -m benchmarks.memory.rehearse CASES.toml FOLDER [--seconds N] [--only NAME...]
                                         [--gpus INDEX...]

Writes FOLDER/<case>.json, the proof or the list of proofs, and FOLDER/<case>.log; `benchmarks.gpus`
says what the log is for. Limits: one machine; NVIDIA GPUs alone.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import tomli

from benchmarks import gpus

CASE_S = 150
"""Seconds of a usual case, for --seconds (measured, H200, the cases of cases.toml)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", type=Path, help="a TOML file with [[case]] tables")
    parser.add_argument("folder", type=Path, help="where proofs and logs go")
    gpus.add_flags(parser)
    args = parser.parse_args()
    listed = tomli.loads(args.cases.read_text())["case"]
    cases = [
        gpus.Case(case["name"], command(case, args.folder), case.get("seconds", CASE_S))
        for case in listed
    ]
    gpus.run_all(cases, args.folder, args)


def command(case: dict[str, Any], folder: Path) -> list[str]:
    """The command line of a [[case]]: name, recipe, and perhaps preset, vram, steps, lengths,
    seconds, set, batches."""
    proof = folder / f"{case['name']}.json"
    line = [sys.executable, "-m", "r1recipes", "rehearse", case["recipe"], "--proof", str(proof)]
    for flag in ("vram", "preset", "steps", "lengths"):
        if flag in case:
            line += [f"--{flag}", str(case[flag])]
    for override in case.get("set", []):
        line += ["--set", override]
    if "batches" in case:
        line += ["--batches", *map(str, case["batches"])]
    return line


if __name__ == "__main__":
    main()
