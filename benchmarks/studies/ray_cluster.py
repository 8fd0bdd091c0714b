"""A sweep on a Ray cluster of three nodes on this machine, with PostgreSQL.

    python -m benchmarks.studies.ray_cluster loss     a node is lost midway
    python -m benchmarks.studies.ray_cluster stop     Ctrl-C midway, then the same command again

Writes benchmarks/studies/results/ray_cluster-<loss or stop>.json. The exit code is 1 if a trial is
missing or open. Limits: Linux; needs the extra `cluster` and PostgreSQL; the nodes are processes of
one machine.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from benchmarks import about
from benchmarks.postgres import Server
from benchmarks.reliability.kill_sweep import STUDY, count, heed_ctrl_c, workers, write_study
from r1recipes.study import database, trials

RESULTS = Path(__file__).parent / "results"
NUM_TRIALS, AFTER_S = 10, 25


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("event", choices=("loss", "stop"))
    event = parser.parse_args().event
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        write_study(folder, STUDY)
        counts = interrupted(event, folder, server.url)
    print(json.dumps(counts, indent=1))
    result = {"nodes": 3, f"{event}_after_s": AFTER_S, "found": counts}
    about.write(RESULTS / f"ray_cluster-{event}.json", result, "ray")
    sys.exit(0 if counts["finished"] == NUM_TRIALS and not counts["open"] else 1)


def interrupted(event: str, folder: Path, url: str) -> dict[str, Any]:
    """Drive the study to its end on a cluster, through a lost node or Ctrl-C."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    driver = start(folder, url, cluster.address)
    time.sleep(AFTER_S)
    counts: dict[str, Any] = {}
    if event == "loss":
        cluster.remove_node(nodes[0])
        cluster.add_node(num_cpus=1)
    else:
        counts["stopped"] = stop(driver, folder, url)
        driver = start(folder, url, cluster.address)
    counts |= {"exit_code": driver.wait()} | count(folder, url)
    (cell,) = trials.load_cells(database.open_storage(url), "study")
    attributes = [trial.user_attrs.get("worker") for trial in cell.all()]
    counts["workers"] = len({worker["name"] for worker in attributes if worker})
    counts["left_processes"] = len(workers(folder))
    cluster.shutdown()
    return counts


def start(folder: Path, url: str, address: str) -> subprocess.Popen[bytes]:
    """The driver of the study with three workers on the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "r1recipes", "sweep", str(folder / "study.toml"), "--force"]
        + ["--launcher", "ray", "--workers", "3", "--n-trials", str(NUM_TRIALS)]
        + ["--storage", url],
        env=os.environ | {"RAY_ADDRESS": address, "R1RECIPES_RUNS_DIR": str(folder / "runs")},
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


def stop(driver: subprocess.Popen[bytes], folder: Path, url: str) -> dict[str, Any]:
    """Send Ctrl-C as a terminal does, to all processes of its foreground job."""
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)
    code = driver.wait(180)
    return {
        "exit_code": code,
        "seconds": round(time.monotonic() - began, 1),
        "left_processes": len(workers(folder)),
        **count(folder, url),
    }


if __name__ == "__main__":
    main()
