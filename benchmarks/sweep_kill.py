"""Kill workers and drivers of a sweep at random moments, resume, and count what is there.

    python benchmarks/sweep_kill.py sqlite
    python benchmarks/sweep_kill.py postgresql     also restarts the server, away for 3 s

24 trials, 2 workers; SIGKILL to a worker five times and to the driver twice. Writes
benchmarks/results/sweep_kill-<storage>.json.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from r1recipes.machine import files, host, packages
from r1recipes.study import database, trials
from tests.conftest import SMALL
from tests.postgres import Server

STUDY = """\
format = 1
recipe = "recipe.toml"

[set]
"train.max_steps" = 40
"cold_start.steps" = 150
"cold_start.learning_rate" = 2e-3
"cold_start.wrong" = 0.6
"data.problems.digits" = 1
"data.eval_size" = 12
"data.size" = 40

[study]
n_trials = 24
pruner = "median"

[search]
"train.learning_rate" = { low = 1e-5, high = 1e-2, log = true }
"rewards.correctness" = { low = 0.5, high = 4.0 }
"""
NUM_TRIALS, NUM_WORKER_KILLS, NUM_DRIVER_KILLS = 24, 5, 2


def main() -> None:
    kind = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server()) if kind == "postgresql" else None
        (folder / "recipe.toml").write_text(SMALL)
        (folder / "study.toml").write_text(STUDY)
        url = server.url if server else f"sqlite:///{folder}/study.db"
        log = stack.enter_context(open(folder / "log", "ab"))
        began = time.monotonic()
        events = torment(folder, url, log, random.Random(seed), server)
        found = count(folder, url) | {"left_processes": len(workers(folder))}
        found["wall_s"] = round(time.monotonic() - began, 1)
        print((folder / "log").read_text())
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
        "storage": kind,
        "seed": seed,
        "events": events,
        "found": found,
    }
    print(json.dumps(found, indent=1))
    files.write_json(Path(f"benchmarks/results/sweep_kill-{kind}.json"), result)
    good = found["finished"] == NUM_TRIALS and not found["open"] and not found["left_processes"]
    sys.exit(0 if good and found["runs_complete"] == found["complete"] else 1)


def torment(folder, url, log, rng, server) -> list[dict]:
    """Drive the study to its end through kills. Returns what was done and when."""
    deeds = ["worker"] * NUM_WORKER_KILLS + ["driver"] * NUM_DRIVER_KILLS
    deeds += ["server"] * bool(server)
    rng.shuffle(deeds)
    began, events = time.monotonic(), []
    driver = start(folder, url, log)
    while True:
        end = time.monotonic() + rng.uniform(5, 12)
        while time.monotonic() < end and driver.poll() is None:
            time.sleep(0.05)
        if driver.poll() is not None:
            assert driver.returncode == 0, (folder / "log").read_text()
            assert not deeds, f"the study ended before {deeds}"
            return events
        if not deeds:
            continue
        deed = deeds[-1]
        if deed == "worker":
            pids = workers(folder)
            if not pids:
                continue
            os.kill(rng.choice(pids), signal.SIGKILL)
        elif deed == "driver":
            driver.kill()
            driver.wait()
            time.sleep(rng.uniform(0, 2))
            driver = start(folder, url, log)
        else:
            server.restart(away_s=3)
        deeds.pop()
        events.append({"after_s": round(time.monotonic() - began, 1), "what": deed})


def start(folder: Path, url: str, log) -> subprocess.Popen:
    command = [sys.executable, "-m", "r1recipes", "sweep", str(folder / "study.toml")]
    return subprocess.Popen(
        [*command, "--workers", "2", "--storage", url, "--force"],
        stdout=log,
        stderr=log,
        env=os.environ | {"R1RECIPES_RUNS_DIR": str(folder / "runs"), "OMP_NUM_THREADS": "1"},
    )


def workers(folder: Path) -> list[int]:
    """Processes that work on this study, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder / "runs").encode() in environment and b"\0worker\0" in command:
            found.append(int(path.name))
    return found


def count(folder: Path, url: str) -> dict:
    """States of the trials, and the run folders that went to their end."""
    (cell,) = trials.cells(database.open_storage(url), "study")
    states = [trial.state.name for trial in cell.all()]
    finished = [trial for trial in cell.all() if trials.is_finished(trial)]
    runs = [json.loads(p.read_text()) for p in folder.glob("runs/study/*/record.json")]
    statuses = [run["status"] for run in runs]
    return {
        "finished": len(finished),
        "complete": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
        "open": states.count("RUNNING") + states.count("WAITING"),
        "died": sum(t.state.name == "FAIL" and not trials.counts(t) for t in cell.all()),
        "failed": sum(t.state.name == "FAIL" for t in finished),
        "runs": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "runs_complete": statuses.count("complete"),
        "resumed_runs": sum(run["attempts"] > 1 for run in runs),
    }


if __name__ == "__main__":
    main()
