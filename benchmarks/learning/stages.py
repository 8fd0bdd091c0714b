"""`tiny` trained by GRPO alone, and by SFT on its own right samples and then GRPO in one run.

python -m benchmarks.learning.stages FOLDER OUT.json

A case whose run in FOLDER is complete is only collected. Limits: one seed; on other machines the
last digits are others.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.learning.offline import COMMON, collected
from r1recipes import recipe
from r1recipes.runs import Run

STEPS = 20
"""Steps of GRPO in both cases."""
STAGE = f"""
[[stage]]
algorithm = "sft"

[stage.train]
{COMMON.replace("max_steps = 90", "max_steps = 30")}learning_rate = 2e-3
"""
CASES = {"grpo": "", "sft-then-grpo": STAGE}
"""Name -> what is added to `tiny`."""


def run(name: str, folder: Path) -> Run:
    """The complete run of a case."""
    of_case = Run(folder / "runs" / name)
    if of_case.record.exists() and of_case.read()["status"] == "complete":
        return of_case
    path = folder / f"{name}.toml"
    path.write_text(recipe.find("tiny").read_text() + CASES[name])
    command = [sys.executable, "-m", "r1recipes", "run", str(path), "--offline"]
    steps = ["--set", f"train.max_steps={STEPS}"]
    subprocess.run([*command, *steps, "--run-dir", str(of_case.folder)], check=True)
    return of_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for recipes and runs")
    parser.add_argument("out", type=Path, help="the .json file to write")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in CASES:
        of_case = run(name, args.folder)
        results[name] = collected(of_case) | {"stages": of_case.read().get("stages", [])}
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
