"""A kill in the midst of the download of a model: nothing half is taken for whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub_server import HubServer

NAME, ROOT = "me/tiny", Path(__file__).parents[2]
LOADING = """
import sys
from pathlib import Path
from r1recipes.recipe.schema import Model
from r1recipes.training.backends import weights
folder = weights.at_commit("me/tiny", None, offline=sys.argv[1] == "offline")
weights.load_stored(str(folder), None, offline=True)
weights.load_tokenizer(Model(name=str(folder)), Path(), offline=True)
print(sum(path.stat().st_size for path in Path(folder).iterdir()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_kill_while_a_model_is_downloaded_leaves_nothing_half(name, tmp_path):
    from r1recipes.training.backends import builtin

    builtin.build_model(1, "builtin:tiny").save_pretrained(tmp_path / "model")
    builtin.build_tokenizer().save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    words = [sys.executable, "-c", LOADING]
    with HubServer() as hub:
        hub.commit(f"models/{NAME}", files)
        environment = os.environ | hub.environment(tmp_path) | {"HF_HUB_OFFLINE": "0"}

        def load(mode: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*words, mode], capture_output=True, cwd=ROOT, env=environment, text=True
            )

        hub.half = name
        process = subprocess.Popen([*words, "online"], cwd=ROOT, env=environment)
        assert hub.is_halfway.wait(300)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        hub.half = None
        hub.go_on.set()
        offline = load("offline")
        assert offline.returncode != 0 and "Traceback" in offline.stderr
        assert "Error" in offline.stderr  # it is not there, and is not taken for whole
        again = load("online")
        assert again.returncode == 0, again.stderr
        assert int(again.stdout.split()[-1]) == sum(map(len, files.values()))
        offline = load("offline")
        assert offline.returncode == 0, offline.stderr
