"""Run the tiny recipe with several seeds and write what it took and reached.

    python benchmarks/tiny.py 1 2 3

Each seed is a process of its own, as a user starts it. Writes benchmarks/results/tiny.json.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from r1recipes.machine import files, host, packages
from r1recipes.runs.record import Run


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in map(int, sys.argv[1:] or ("1", "2", "3")):
            run = Run(Path(folder) / str(seed))
            began = time.monotonic()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "r1recipes",
                    "run",
                    "recipes/tiny.toml",
                    "--run-dir",
                    str(run.folder),
                    "--set",
                    f"seed={seed}",
                ],
                check=True,
            )
            found = run.read()
            rows.append(
                {
                    "seed": seed,
                    "wall_s": round(time.monotonic() - began, 1),
                    "duration_s": found["duration_s"],
                    "evaluation": found["evaluation"],
                }
            )
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
        "runs": rows,
    }
    files.write_json(Path("benchmarks/results/tiny.json"), result)


if __name__ == "__main__":
    main()
