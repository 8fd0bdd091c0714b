"""Kill workers and drivers of a sweep at random moments, resume, and count what is left.

    python -m benchmarks.reliability.kill_sweep sqlite [--seed N]
    python -m benchmarks.reliability.kill_sweep postgresql

24 trials, 2 workers; SIGKILL to a worker five times and to the driver twice; with PostgreSQL the
server is also restarted once and is away for 3 s. Writes
benchmarks/reliability/results/kill_sweep-<storage>.json. The exit code is 1 if a trial was lost or
ran twice, or a process is left. Limits: Linux, one machine; moments depend on the machine's speed,
not on the seed alone.
"""

import argparse
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
from typing import Any

from benchmarks import about
from benchmarks.postgres import Server
from r1recipes.study import database, trials

RESULTS = Path(__file__).parent / "results"
RECIPE = Path(__file__).parents[1] / "small.toml"
SHORT = """\
[set]
"train.max_steps" = {steps}
"train.save_steps" = {save_steps}
"cold_start.steps" = 150
"cold_start.learning_rate" = 2e-3
"cold_start.wrong" = 0.6
"data.problems.digits" = 1
"data.eval_size" = 12
"data.size" = 40
"""
STUDY = f"""\
format = 1
recipe = "recipe.toml"

{SHORT.format(steps=40, save_steps=2)}
[study]
n_trials = 24
pruner = "median"

[search]
"train.learning_rate" = {{ low = 1e-5, high = 1e-2, log = true }}
"rewards.correctness" = {{ low = 0.5, high = 4.0 }}
"""
NUM_TRIALS, NUM_WORKER_KILLS, NUM_DRIVER_KILLS = 24, 5, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("storage", choices=("sqlite", "postgresql"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server()) if args.storage == "postgresql" else None
        write_study(folder, STUDY)
        url = server.url if server else f"sqlite:///{folder}/study.db"
        began = time.monotonic()
        events = torment(folder, url, random.Random(args.seed), server)
        counts = count(folder, url) | {"left_processes": len(workers(folder))}
        counts["wall_s"] = round(time.monotonic() - began, 1)
        print((folder / "log").read_text())
    print(json.dumps(counts, indent=1))
    result = {"storage": args.storage, "seed": args.seed, "events": events, "found": counts}
    about.write(RESULTS / f"kill_sweep-{args.storage}.json", result)
    good = counts["finished"] == NUM_TRIALS and not counts["open"] and not counts["left_processes"]
    sys.exit(0 if good and counts["runs_complete"] == counts["complete"] else 1)


def write_study(folder: Path, study: str) -> None:
    """Put the small recipe and a study of it into a folder."""
    (folder / "recipe.toml").write_text(RECIPE.read_text())
    (folder / "study.toml").write_text(study)


def torment(
    folder: Path, url: str, rng: random.Random, server: Server | None
) -> list[dict[str, Any]]:
    """Drive the study to its end through kills. Returns what was killed and when."""
    victims = ["worker"] * NUM_WORKER_KILLS + ["driver"] * NUM_DRIVER_KILLS
    victims += ["server"] * bool(server)
    rng.shuffle(victims)
    began = time.monotonic()
    events: list[dict[str, Any]] = []
    driver = start(folder, url)
    try:
        while True:
            end = time.monotonic() + rng.uniform(5, 12)
            while time.monotonic() < end and driver.poll() is None:
                time.sleep(0.05)
            if driver.poll() is not None:
                assert driver.returncode == 0, (folder / "log").read_text()
                assert not victims, f"the study ended before {victims} were killed"
                return events
            pids = workers(folder)
            if not victims or (victims[-1] == "worker" and not pids):
                continue
            victim = victims.pop()
            if victim == "worker":
                os.kill(rng.choice(pids), signal.SIGKILL)
            elif victim == "driver":
                driver.kill()
                driver.wait()
                time.sleep(rng.uniform(0, 2))
                driver = start(folder, url)
            elif server:
                server.restart(away_s=3)
            events.append({"after_s": round(time.monotonic() - began, 1), "what": victim})
    finally:
        driver.kill()  # its workers end with it


def start(folder: Path, url: str) -> subprocess.Popen[bytes]:
    """The driver of the study with two workers; what it prints goes to `log` in the folder."""
    command = [sys.executable, "-m", "r1recipes", "sweep", str(folder / "study.toml")]
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [*command, "--workers", "2", "--storage", url, "--force"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"R1RECIPES_RUNS_DIR": str(folder / "runs"), "OMP_NUM_THREADS": "1"},
            preexec_fn=heed_ctrl_c,
        )


def heed_ctrl_c() -> None:
    """For a child: background jobs of a shell ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers(folder: Path) -> list[int]:
    """Ids of the processes that work on this study, without zombies."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if str(folder / "runs").encode() in environment and b"\0worker\0" in command:
            pids.append(int(path.name))
    return pids


def count(folder: Path, url: str) -> dict[str, Any]:
    """States of the trials, and the run folders that went to their end."""
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    states = [trial.state.name for trial in cell.all()]
    finished = [trial for trial in cell.all() if trials.is_finished(trial)]
    runs = [json.loads(p.read_text()) for p in folder.glob("runs/study/*/record.json")]
    statuses = [run["status"] for run in runs]
    return {
        "finished": len(finished),
        "complete": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
        "open": states.count("RUNNING") + states.count("WAITING"),
        "died": sum(t.state.name == "FAIL" and not trials.is_counted(t) for t in cell.all()),
        "failed": sum(t.state.name == "FAIL" for t in finished),
        "runs": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
        "runs_complete": statuses.count("complete"),
        "resumed_runs": sum(run["attempts"] > 1 for run in runs),
    }


if __name__ == "__main__":
    main()
