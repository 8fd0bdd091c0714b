"""Draw the live view as it was at a step of a finished run, for the README.

    python -m benchmarks.readme.live_view runs/tiny/... 60 docs/live.svg

Limits: the times left are those of the run, as if each step had just ended.
"""

import argparse
import re
import time
from pathlib import Path

from rich.console import Console

from r1recipes.machine import files
from r1recipes.runs.record import Run
from r1recipes.training.view import View


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run")
    parser.add_argument("step", type=int)
    parser.add_argument("out", type=Path, help="an .svg file")
    args = parser.parse_args()
    run = Run(args.run)
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=88, file=nowhere, force_terminal=True)
        view = View(console, live=True)
        plan = run.plan()
        view.plan = plan
        view.evaluated("before", run.read()["evaluation"]["before"])
        rows = files.read_lines(run.metrics)[: args.step]
        elapsed_s = sum(row["step_time"] for row in rows)
        view.phase("Training")
        view.rows = rows
        view._pace.seconds.extend(row["step_time"] for row in rows)
        view._phase_began = time.monotonic() - elapsed_s
        view.progress(args.step, plan.recipe.train.max_steps)
        console.print(view.render())
        svg = console.export_svg(title="python -m r1recipes run recipes/tiny.toml")
    # No font from a server: the picture makes no request.
    args.out.write_text(re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
