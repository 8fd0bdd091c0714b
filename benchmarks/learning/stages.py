"""A recipe trained by GRPO alone, and by SFT on its own right samples and then GRPO in one run.

    python -m benchmarks.learning.stages FOLDER OUT.json [--recipe NAME] [--preset NAME]
                                         [--set KEY=VALUE ...] [--only CASE]

A case whose run in FOLDER is complete is only collected. Limits: one seed; on other machines the
last digits are others.
"""

import argparse
import json
from pathlib import Path

from benchmarks.learning.offline import COMMON, collected, run
from r1recipes import recipe

STAGE = f"""
[[stage]]
algorithm = "sft"

[stage.train]
{COMMON.replace("max_steps = 90", "max_steps = 30")}learning_rate = {{rate}}
"""
CASES = {"grpo": "", "sft-then-grpo": STAGE}
"""Name -> what is added to the recipe."""


def write(name: str, args: argparse.Namespace) -> Path:
    """The recipe of a case."""
    path: Path = args.folder / f"{name}.toml"
    path.write_text(recipe.find(args.recipe).read_text() + CASES[name].format(rate=args.rate))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="for recipes and runs")
    parser.add_argument("out", type=Path, help="the .json file to write")
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--preset", help="without it the largest that the card can hold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in run")
    parser.add_argument("--steps", type=int, default=20, help="of GRPO in both cases")
    parser.add_argument("--rate", default="2e-3", help="the learning rate of SFT")
    parser.add_argument("--only", choices=CASES, help="this case alone")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    words = ["--preset", args.preset] if args.preset else []
    for flag in (f"train.max_steps={args.steps}", *args.set):
        words += ["--set", flag]
    results = {}
    for name in [args.only] if args.only else CASES:
        of_case = run(write(name, args), *words)
        results[name] = collected(of_case) | {"stages": of_case.read().get("stages", [])}
    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
