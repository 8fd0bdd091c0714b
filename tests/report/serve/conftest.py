"""Run folders that were made by version 0.1.0, and a server of them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from r1recipes.report.serve import folder as following
from r1recipes.report.serve.folder import Folder
from r1recipes.report.serve.pages import Pages
from r1recipes.report.serve.server import Server, listen

ARCHIVE = Path(__file__).parents[2] / "fixtures" / "version-0.1.0.tar.xz"
RUN = "old/complete"
"""The key of a complete run."""


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
    return folder / "runs" / "old"


@pytest.fixture
def runs_dir(unpacked: Path, tmp_path: Path) -> Path:
    """A folder with a complete and a stopped run."""
    for name in ("complete", "stopped"):
        shutil.copytree(unpacked / name, tmp_path / "runs" / "old" / name)
        (tmp_path / "runs" / "old" / name / ".owner").touch()
    return tmp_path / "runs"


@pytest.fixture
def followed(runs_dir: Path) -> Folder:
    folder = Folder(runs_dir)
    folder.start()
    return folder


@pytest.fixture
def pages(followed: Folder) -> Pages:
    return Pages(followed, "the runs")


@pytest.fixture
def server(pages: Pages) -> Iterator[Server]:
    server = listen(0, pages)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_EVERY_S", 0.05)


@contextmanager
def command(runs_dir: Path, *names: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`report --serve` in a process of its own, and its address."""
    line = [sys.executable, "-m", "r1recipes", "report", "--serve", *names, "--port", "0"]
    environment = os.environ | {"R1RECIPES_RUNS_DIR": str(runs_dir)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        line,
        cwd=runs_dir,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert process.stdout
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert address
            yield process, address[0]
        finally:
            process.kill()


def settled(folder: Folder):
    """A snapshot in which every run has been read."""
    while (snapshot := folder.look(10)).num_pending:
        pass
    return snapshot
