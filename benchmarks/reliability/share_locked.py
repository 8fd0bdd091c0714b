"""Share a run, repeat it with --locked from a clean clone, and kill `share` at random moments.

    python -m benchmarks.reliability.share_locked [--recipe recipes/tiny.toml] [--kills 40]

The clone has only what git has, and a cache of its own. Each kill is a SIGKILL of the whole command
`share --to FILE`, or `--to FOLDER`, at a uniformly random moment of the time that it takes; after
each the target must be what it was, or the new bundle. Writes
benchmarks/reliability/results/share_locked.json. Limits: the clone has the last commit, not the
working tree; `--folder` must not exist.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.reliability.kill_run import metrics
from r1recipes.recipe import bundle, fetch
from r1recipes.runs.record import Run

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "share_locked.json"


def launch(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[bytes]:
    """`python -m r1recipes ...` of the checkout in `cwd`."""
    command = [sys.executable, "-m", "r1recipes", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(cwd)} | environment
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)


def state(target: Path) -> str | None:
    """Hash of a whole bundle, None where there is none. Raises: RecipeError if it is torn."""
    if not target.exists():
        return None
    if target.is_dir():
        return bundle.digest(fetch.collect(lambda n: bundle.read_file(target, n), str(target)))
    return bundle.digest(fetch.from_archive(target.read_bytes(), str(target)))


def kill_share(run: Run, target: Path, old: str | None, after_s: float) -> dict[str, Any]:
    """Share to a target, kill that after some seconds, and say what is in the target then."""
    process = launch("share", run.folder, "--to", target, "--force")
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    code, digest = process.wait(), state(target)
    kind = "folder" if target.suffix != ".zip" else "file"
    outcome = "absent" if digest is None else "old" if digest == old else "new"
    return {"to": kind, "killed_after_s": round(after_s, 3), "exit_code": code, "left": outcome}


def kills(first: Run, folder: Path, shared: Path, share_s: float, count: int) -> list[Any]:
    """Kill `share` again and again, to a file that exists and to a folder that does not."""
    new, rng, rows = state(shared), random.Random(6), []
    for number in range(count):
        after_s = rng.uniform(0.5, 1.1) * share_s  # nothing is written before
        older = folder / "older.r1.zip"
        older.write_bytes(bundle.pack({"recipe.toml": first.recipe.read_bytes()}))
        target = older if number % 2 else folder / f"folder-{number}"
        row = kill_share(first, target, state(older), after_s)
        assert row["left"] != "new" or state(target) == new, row
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--recipe", default="recipes/tiny.toml")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "share-locked")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    first = Run(args.folder / "first")
    assert launch("run", args.recipe, "--run-dir", first.folder).wait() == 0

    shared, clone = args.folder / "shared.r1.zip", args.folder / "clone"
    began = time.monotonic()
    assert launch("share", first.folder, "--to", shared).wait() == 0
    share_s = time.monotonic() - began
    rows = kills(first, args.folder, shared, share_s, args.kills)

    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    again = Run(clone / "again")
    command = ("run", shared, "--locked", "--run-dir", again.folder)
    code = launch(*command, cwd=clone, R1RECIPES_CACHE_DIR=str(args.folder / "cache")).wait()
    result = {
        "recipe": args.recipe,
        "exit_code": code,
        "same_fingerprint": again.read()["fingerprint"] == first.read()["fingerprint"],
        "same_metrics": metrics(again) == metrics(first),
        "same_evaluation": again.read()["evaluation"] == first.read()["evaluation"],
        "same_answers": all(
            again.evaluation(when).read_bytes() == first.evaluation(when).read_bytes()
            for when in ("before", "after")
        ),
        "steps": len(metrics(again)),
        "bundle_bytes": shared.stat().st_size,
        "share_s": round(share_s, 2),
        "kills": rows,
    }
    about.write(RESULT, result)


if __name__ == "__main__":
    main()
