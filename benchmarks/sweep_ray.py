"""A sweep on a Ray cluster of three nodes on this machine, with PostgreSQL.

    python -m benchmarks.sweep_ray loss     a node is lost midway
    python -m benchmarks.sweep_ray stop     Ctrl-C midway, as a terminal sends it; then once more

Writes benchmarks/results/sweep_ray.json or sweep_ray-stop.json. Needs the extra `cluster` and
PostgreSQL.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from benchmarks.sweep_kill import STUDY, count, workers
from r1recipes.machine import files, host, packages
from r1recipes.study import database, trials
from tests.conftest import SMALL
from tests.postgres import Server

NUM_TRIALS, AFTER_S = 10, 25


def main() -> None:
    what = sys.argv[1]
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        (folder / "recipe.toml").write_text(SMALL)
        (folder / "study.toml").write_text(STUDY)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        driver = start(folder, server.url, cluster.address)
        time.sleep(AFTER_S)
        stopped = {}
        if what == "loss":
            cluster.remove_node(nodes[0])
            cluster.add_node(num_cpus=1)
        else:
            stopped = {"stopped": stop(driver, folder, server.url)}
            driver = start(folder, server.url, cluster.address)
        found = stopped | {"exit_code": driver.wait()} | count(folder, server.url)
        (cell,) = trials.cells(database.open_storage(server.url), "study")
        named = [t.user_attrs["worker"] for t in cell.all() if t.user_attrs.get("worker")]
        found["workers"] = len({worker["name"] for worker in named})
        found["left_processes"] = len(workers(folder))
        cluster.shutdown()
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions() | {"ray": ray.__version__},
        "nodes": 3,
        f"{what}_after_s": AFTER_S,
        "found": found,
    }
    print(json.dumps(found, indent=1))
    name = "sweep_ray" if what == "loss" else f"sweep_ray-{what}"
    files.write_json(Path(f"benchmarks/results/{name}.json"), result)
    sys.exit(0 if found["finished"] == NUM_TRIALS and not found["open"] else 1)


def start(folder: Path, url: str, address: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "r1recipes", "sweep", str(folder / "study.toml"), "--force"]
        + ["--launcher", "ray", "--workers", "3", "--n-trials", str(NUM_TRIALS)]
        + ["--storage", url],
        env=os.environ | {"RAY_ADDRESS": address, "R1RECIPES_RUNS_DIR": str(folder / "runs")},
        start_new_session=True,
    )


def stop(driver: subprocess.Popen, folder: Path, url: str) -> dict:
    """Ctrl-C goes to all processes of the terminal's foreground job."""
    began = time.monotonic()
    os.killpg(driver.pid, signal.SIGINT)
    code = driver.wait(180)
    waited = round(time.monotonic() - began, 1)
    return {
        "exit_code": code,
        "seconds": waited,
        "left_processes": len(workers(folder)),
        **count(folder, url),
    }


if __name__ == "__main__":
    main()
