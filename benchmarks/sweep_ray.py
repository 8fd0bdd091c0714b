"""A sweep on a Ray cluster of three nodes on this machine, with PostgreSQL; a node is lost midway.

    python benchmarks/sweep_ray.py

Writes benchmarks/results/sweep_ray.json. Needs the extra `cluster` and
PostgreSQL.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from benchmarks.sweep_kill import STUDY, count
from r1recipes import database, machine, record, trials
from tests.conftest import SMALL
from tests.postgres import Server

NUM_TRIALS, LOSS_AFTER_S = 10, 25


def main() -> None:
    with tempfile.TemporaryDirectory() as name, Server() as server:
        folder = Path(name)
        (folder / "recipe.toml").write_text(SMALL)
        (folder / "study.toml").write_text(STUDY)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        driver = subprocess.Popen(
            [sys.executable, "-m", "r1recipes", "sweep", str(folder / "study.toml"), "--force"]
            + ["--launcher", "ray", "--workers", "3", "--n-trials", str(NUM_TRIALS)]
            + ["--storage", server.url],
            env=os.environ
            | {"RAY_ADDRESS": cluster.address, "R1RECIPES_RUNS_DIR": str(folder / "runs")},
        )
        time.sleep(LOSS_AFTER_S)
        cluster.remove_node(nodes[0])
        cluster.add_node(num_cpus=1)
        code = driver.wait()
        (cell,) = trials.cells(database.open_storage(server.url), "study")
        workers = {t.user_attrs["worker"]["name"] for t in cell.all() if "worker" in t.user_attrs}
        found = count(folder, server.url) | {"exit_code": code, "workers": len(workers)}
        cluster.shutdown()
    result = {
        "date": record.now(),
        "machine": machine.describe(),
        "versions": machine.versions() | {"ray": ray.__version__},
        "nodes": 3,
        "node_lost_after_s": LOSS_AFTER_S,
        "found": found,
    }
    print(json.dumps(found, indent=1))
    record.write_json(Path("benchmarks/results/sweep_ray.json"), result)
    sys.exit(0 if found["finished"] == NUM_TRIALS and not found["open"] else 1)


if __name__ == "__main__":
    main()
