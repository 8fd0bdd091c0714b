"""Run one recipe with one fingerprint as different processors would compute it, and compare.

    python -m benchmarks.reliability.processors

Each case is the recipe `tiny` with one step of training, in a process whose libraries may use only
the named vector instructions, or with another number of threads. Writes results/processors.json.
Limits: one machine stands in for several, so what differs between makers of processors is not seen.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes.machine import files, host
from r1recipes.runs.record import Run

RESULT = Path(__file__).parent / "results" / "processors.json"
ROOT = Path(__file__).parents[2]
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
"""What keeps torch, MKL and oneDNN from using AVX-512 (published: their manuals)."""
CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    "as it is": ({}, []),
    "the same again": ({}, []),
    "AVX2 instead of AVX-512": (AVX2, []),
    "2 threads instead of 1": ({}, ["--set", "preset.num_threads=2"]),
}
"""Name -> (environment, arguments)."""


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [one_case(Path(folder) / str(i), name) for i, name in enumerate(CASES)]
    for row in rows:
        row["same_as_first"] = row["answers"] == rows[0]["answers"]
    for row in rows:
        del row["answers"]
    about.write(RESULT, {"cpu": host.cpu(), "cases": rows})


def one_case(folder: Path, name: str) -> dict[str, Any]:
    """Train once. Raises: CalledProcessError if the run fails."""
    environment, arguments = CASES[name]
    command = [sys.executable, "-m", "r1recipes", "run", "recipes/tiny.toml", *arguments]
    command += ["--set", "train.max_steps=1", "--run-dir", str(folder)]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | environment)
    run = Run(folder)
    before = run.read()["evaluation"]["before"]
    return {
        "name": name,
        "environment": environment,
        "arguments": arguments,
        "fingerprint": run.read()["fingerprint"],
        "wall_s": round(time.monotonic() - began, 1),
        "accuracy_before": before["accuracy"],
        "greedy_before": before["greedy"],
        "answers": files.read_lines(run.evaluation("before")),
    }


if __name__ == "__main__":
    main()
