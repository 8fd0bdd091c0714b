"""Run the tiny recipe with several seeds and write what each took and reached.

    python -m benchmarks.readme.tiny [SEED...]

Each seed is a process of its own, as a user starts it; without SEED they are 1, 2 and 3. Writes
benchmarks/readme/results/tiny.json. Limits: times are those of a machine with nothing else to do.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes.runs.record import Run

RESULT = Path(__file__).parent / "results" / "tiny.json"
ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", type=int, nargs="*", default=[1, 2, 3], metavar="SEED")
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        rows = [one_run(Path(folder) / str(seed), seed) for seed in seeds]
    about.write(RESULT, {"runs": rows})


def one_run(folder: Path, seed: int) -> dict[str, Any]:
    """Train with one seed. Raises: CalledProcessError if the run fails."""
    command = [sys.executable, "-m", "r1recipes", "run", "recipes/tiny.toml"]
    began = time.monotonic()
    subprocess.run(
        [*command, "--run-dir", str(folder), "--set", f"seed={seed}"], check=True, cwd=ROOT
    )
    wall_s = time.monotonic() - began
    record = Run(folder).read()
    return {
        "seed": seed,
        "wall_s": round(wall_s, 1),
        "duration_s": record["duration_s"],
        "evaluation": record["evaluation"],
    }


if __name__ == "__main__":
    main()
