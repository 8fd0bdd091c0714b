"""Run folders that were made by version 0.1.0, and a server of them."""

import shutil
import tarfile
import threading
from collections.abc import Iterator
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


def settled(folder: Folder):
    """A snapshot in which every run has been read."""
    while (snapshot := folder.look(10)).num_pending:
        pass
    return snapshot
