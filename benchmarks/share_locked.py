"""Share a run, repeat it with --locked from a clean clone, and kill `share` at random moments.

    python benchmarks/share_locked.py --recipe recipes/tiny.toml --kills 40

The clone has nothing but what git has, and a cache of its own. Each kill is a SIGKILL of the whole
command `share --to FILE`, or `--to FOLDER`, at a uniformly random moment of the time that it takes;
after each the target must be what it was, or the new bundle. Writes
benchmarks/results/share_locked.json.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from kill_resume import metrics

from r1recipes.machine import files, host, packages
from r1recipes.recipe import bundle, fetch
from r1recipes.runs.record import Run

HERE = Path(__file__).parent.parent


def r1recipes(*arguments: object, cwd: Path = HERE, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "r1recipes", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(cwd)} | environment
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL)


def state(target: Path) -> str | None:
    """Hash of a whole bundle, None where there is nothing. Raises: RecipeError if it is torn."""
    if not target.exists():
        return None
    if target.is_dir():
        return bundle.digest(fetch.collect(lambda n: bundle.read_file(target, n), str(target)))
    return bundle.digest(fetch.from_archive(target.read_bytes(), str(target)))


def kill_share(run: Run, target: Path, old: str | None, after_s: float) -> dict:
    process = r1recipes("share", run.folder, "--to", target, "--force")
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    code, found = process.wait(), state(target)
    kind = "folder" if target.suffix != ".zip" else "file"
    left = "absent" if found is None else "old" if found == old else "new"
    return {"to": kind, "killed_after_s": round(after_s, 3), "exit_code": code, "left": left}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--recipe", default="recipes/tiny.toml")
    parser.add_argument("--folder", type=Path, default=HERE / "runs" / "share-locked")
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    first = Run(args.folder / "first")
    assert r1recipes("run", args.recipe, "--run-dir", first.folder).wait() == 0

    shared, clone = args.folder / "shared.r1.zip", args.folder / "clone"
    began = time.monotonic()
    assert r1recipes("share", first.folder, "--to", shared).wait() == 0
    share_s = time.monotonic() - began
    new, rng, rows = state(shared), random.Random(6), []
    for number in range(args.kills):
        after_s = rng.uniform(0.5, 1.1) * share_s  # nothing is written before
        older = args.folder / "older.r1.zip"
        older.write_bytes(bundle.pack({"recipe.toml": first.recipe.read_bytes()}))
        target = older if number % 2 else args.folder / f"folder-{number}"
        row = kill_share(first, target, state(older), after_s)
        assert row["left"] != "new" or state(target) == new, row
        rows.append(row)

    subprocess.run(["git", "clone", "-q", HERE, clone], check=True)
    again = Run(clone / "again")
    command = ("run", shared, "--locked", "--run-dir", again.folder)
    code = r1recipes(*command, cwd=clone, R1RECIPES_CACHE_DIR=str(args.folder / "cache")).wait()
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
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
    files.write_json(HERE / "benchmarks/results/share_locked.json", result)


if __name__ == "__main__":
    main()
