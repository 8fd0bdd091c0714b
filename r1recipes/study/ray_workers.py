"""Runs the workers of a study on a Ray cluster: one task for each, with a GPU if there are any.

Ray chooses the nodes. The workers meet in the database alone, so every node must be able to reach
it. Run folders are made on the node, under the driver's path. Needs the extra `cluster`.
RAY_ADDRESS names the cluster; without it Ray starts one on this machine.
"""

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from typing import Any

from r1recipes.errors import PlanError, RecipeError, RunError
from r1recipes.machine import packages
from r1recipes.study.driver import MAX_DEATHS_IN_A_ROW, describe_exit
from r1recipes.study.trials import RESTART

FAREWELL_S = 60
"""Time that a worker has to save a checkpoint when its task is cancelled; assumed."""


class RayWorkers:
    """The launcher of workers on a Ray cluster.

    Raises: RecipeError for a database that other machines cannot reach, PlanError without Ray.
    """

    def __init__(
        self, name: str, url: str, num_workers: int, flags: list[str], say: Callable[[str], None]
    ):
        if url.startswith("sqlite"):
            raise RecipeError(
                "an SQLite file cannot be shared by machines",
                hint="`--storage postgresql://user:password@host/name`",
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send usage statistics
        try:
            import ray
        except ImportError as error:
            hint = f"`{packages.extra('cluster')}`"
            raise PlanError("`--launcher ray` needs Ray", hint=hint) from error
        self.ray, self.num_workers, self.say = ray, num_workers, say
        ray.init(log_to_driver=False, logging_level="error", ignore_reinit_error=True)
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1
        self.task = ray.remote(
            num_cpus=0 if has_gpus else 1, num_gpus=int(has_gpus), max_retries=0
        )(run_worker)
        self.command = ["-m", "r1recipes", "worker", name, *flags, "--child", "0/1"]
        self.environment = {"R1RECIPES_STORAGE": url}
        if runs_dir := os.environ.get("R1RECIPES_RUNS_DIR"):
            self.environment["R1RECIPES_RUNS_DIR"] = os.path.abspath(runs_dir)
        self.children: dict[Any, str] = {}
        self.ended_workers: set[str] = set()
        self.deaths = 0

    def start(self) -> None:
        """Start all workers."""
        for _ in range(self.num_workers):
            self._start()

    def _start(self) -> None:
        name = uuid.uuid4().hex
        environment = self.environment | {"R1RECIPES_WORKER": name}
        self.children[self.task.remote(self.command, environment)] = name

    def look(self) -> int:
        """Replace workers that ended early. Returns how many died. Raises: RunError."""
        num_died = 0
        ended, _ = self.ray.wait(list(self.children), num_returns=len(self.children), timeout=0)
        for reference in ended:
            self.ended_workers.add(self.children.pop(reference))
            try:
                code, node, output = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                code, node, output = 1, "a lost node", str(error).splitlines()[0]
            if code == 2:
                message = f"the worker on {node} was refused: {output}"
                hint = "correct it on that node; then the same command goes on"
                raise RunError(message, hint=hint)
            if code not in (0, RESTART):
                num_died += 1
                self.deaths += 1
                self.say(f"a worker on {node} died ({describe_exit(code)}) and is replaced")
                if self.deaths >= MAX_DEATHS_IN_A_ROW:
                    message = f"{self.deaths} workers died with no trial finished in between"
                    raise RunError(message, hint=f"the last one said: {output}")
            if code != 0:
                self._start()
        return num_died

    def stop(self) -> None:
        """Cancel the tasks, and wait until the workers have saved a checkpoint."""
        for reference in self.children:
            self.ray.cancel(reference)
        try:
            if self.children:
                count = len(self.children)
                self.ray.wait(list(self.children), num_returns=count, timeout=FAREWELL_S)
        finally:  # also when the user does not want to wait; it ends the tasks that are left
            self.children = {}
            self.ray.shutdown()


def run_worker(command: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
    """On a node: run one worker to its end. Returns exit code, node and the end of its output."""
    parent = ["--parent", str(os.getpid())]
    process = subprocess.Popen(
        [sys.executable, *command, *parent],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while True:
        try:
            # Ray cancels by a KeyboardInterrupt that does not wake a wait for output.
            output, _ = process.communicate(timeout=1.0)
            return process.returncode, socket.gethostname(), output[-500:]
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:
            process.terminate()
