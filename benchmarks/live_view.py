"""Draw the live view as it was at a step of a finished run, for the README.

python benchmarks/live_view.py runs/tiny/... 60 docs/live.svg
"""

import re
import sys
import time
from pathlib import Path

from rich.console import Console

from r1recipes.machine import files
from r1recipes.runs.record import Run
from r1recipes.training.view import View


def main() -> None:
    run, step, out = Run(Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=88, file=nowhere, force_terminal=True)
        view = View(console, live=True)
        view.plan = run.plan()
        view.evaluated("before", run.read()["evaluation"]["before"])
        rows = files.read_lines(run.metrics)[:step]
        spent = sum(row["step_time"] for row in rows)
        view.phase("Training")
        view.rows = rows
        view._step_times = [row["step_time"] for row in rows[-20:]]
        view._phase_began = time.monotonic() - spent
        view.progress(step, view.plan.recipe.train.max_steps)
        console.print(view.render())
        svg = console.export_svg(title="python -m r1recipes run recipes/tiny.toml")
    # No font from a server: the picture makes no request.
    out.write_text(re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
