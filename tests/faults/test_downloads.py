"""A kill in the midst of the download of a model: nothing half is taken for whole.

Each download runs in a process of its own, forked from one that has imported what all of them need.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer

LOADING = """
import os, sys
from pathlib import Path
from r1recipes.errors import PlanError
from r1recipes.recipe.schema import Model
from r1recipes.training.backends import weights

def load(name, mode):
    folder = weights.at_commit(name, None, offline=mode == "offline")
    weights.load_stored(str(folder), None, offline=True)
    weights.load_tokenizer(Model(name=str(folder)), Path(), offline=True)
    return sum(path.stat().st_size for path in folder.iterdir())

for line in iter(sys.stdin.readline, ""):
    pid = os.fork()
    if pid == 0:
        print(os.getpid(), flush=True)
        try:
            print(load(*line.split()), flush=True)
        except PlanError as error:
            print(error.problems[0].message, flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Loader:
    """Loads models of a server in processes of their own."""

    def __init__(self, hub: HubServer, folder: Path):
        self.hub = hub
        self.process = subprocess.Popen(
            [sys.executable, "-c", LOADING],
            cwd=Path(__file__).parents[2],
            env=os.environ | hub.environment(folder) | {"HF_HUB_OFFLINE": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, name: str, mode: str) -> int:
        """Begin to load a model. Returns the id of the process that does."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {mode}\n")
        self.process.stdin.flush()
        return int(self.line())

    def line(self) -> str:
        """The next line that is printed."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def load(self, name: str, mode: str) -> str:
        """What a whole load prints: the number of bytes, or the error."""
        self.begin(name, mode)
        printed, status = self.line(), self.line()
        assert status == "0", printed
        return printed


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    with HubServer() as hub:
        loader = Loader(hub, tmp_path_factory.mktemp("hub"))
        yield loader
        loader.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_kill_while_a_model_is_downloaded_leaves_nothing_half(loader, name, tmp_path):
    from r1recipes.training.backends import builtin

    builtin.build_model(1, "builtin:tiny").save_pretrained(tmp_path / "model")
    builtin.build_tokenizer().save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    hub, model = loader.hub, f"me/{Path(name).stem}"
    hub.commit(f"models/{model}", files)
    hub.half = name
    hub.is_halfway.clear()
    hub.go_on.clear()
    pid = loader.begin(model, "online")
    assert hub.is_halfway.wait(300)
    os.kill(pid, signal.SIGKILL)
    assert loader.line() == str(-signal.SIGKILL)
    hub.half = None
    hub.go_on.set()
    assert "not in the Hub's cache" in loader.load(model, "offline")  # nothing half is whole
    assert loader.load(model, "online") == str(sum(map(len, files.values())))
    assert loader.load(model, "offline") == str(sum(map(len, files.values())))
