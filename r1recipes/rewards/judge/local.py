"""A judge in a folder of this machine: served by a child process on the CPU, never on the card,
whose memory is the training's.

The child speaks the same API as any endpoint, on a port of this machine with a key of its own.
Limits: one answer at a time; its memory in RAM is not planned.
"""

import os
import secrets
import select
import subprocess
import sys
from pathlib import Path

from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import hub

START_LIMIT_S = 600.0
"""Seconds until the model is loaded; assumed, a model of 8B parameters takes a minute."""
KEY_VARIABLE = "R1RECIPES_LOCAL_JUDGE_KEY"
"""How the child gets the key: an argument could be read by every user of the machine."""


class LocalServer:
    """A model in a folder, with the child process that answers for it."""

    def __init__(self, folder: Path):
        """Raises: RecipeError where there is no model."""
        self.folder = folder
        if not (folder / "config.json").is_file():
            raise RecipeError(
                f"`judge.model` names `{folder}`, which is no folder of a model",
                hint="name a folder with a config.json, or add `url` for a model at an endpoint",
            )
        self._key = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[str] | None = None
        self._url = ""

    def sha256(self) -> str:
        """The hash (hex) of everything in the folder that answers depend on."""
        return hub.model_sha256(self.folder)

    def start(self) -> tuple[str, str]:
        """Base URL and key; the child is started unless it is there. Raises: RunError."""
        if self._process is None or self._process.poll() is not None:
            module = "r1recipes.rewards.judge.local_child"
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.folder.absolute()), str(os.getpid())],
                env=os.environ | {KEY_VARIABLE: self._key, "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
            )
            self._url = self._ready()
        return self._url, self._key

    def _ready(self) -> str:
        """The URL that the child prints once it can answer. Raises: RunError."""
        assert self._process is not None and self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_LIMIT_S)
        line = self._process.stdout.readline().strip() if readable else ""
        if not line.startswith("http://127.0.0.1:"):
            self.close()
            reason = line or f"it did not start within {START_LIMIT_S:g} s, or ended"
            raise RunError(
                f"the judge in `{self.folder}` cannot be loaded: {reason}",
                kind="reward",
                hint="serve it with another program, and name its `url` in [judge]",
            )
        return line

    def close(self) -> None:
        """End the child. It may be called twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None
