"""Without network: a recipe on a local model folder and local data makes no request."""

import os
import subprocess
import sys

from r1recipes import record
from tests.conftest import SMALL
from tests.helpers import command
from tests.local import without_network, write_recipe

TRIES = """
import socket, urllib.request
for host in ("192.0.2.1", "huggingface.co"):
    try:
        urllib.request.urlopen(f"http://{host}", timeout=5)
        print("reached", host)
    except OSError as error:
        print("refused", host)
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
print("reached itself")
"""


def test_the_guard_refuses_and_notes_what_goes_beyond_this_machine(tmp_path):
    log = tmp_path / "network.log"
    environment = os.environ | without_network(log)
    done = subprocess.run(
        [sys.executable, "-c", TRIES], env=environment, capture_output=True, text=True
    )
    lines = ["refused 192.0.2.1", "refused huggingface.co", "reached itself"]
    assert done.stdout.splitlines() == lines, done.stderr
    assert len(log.read_text().splitlines()) == 2


def test_a_local_model_and_local_data_make_no_request(tmp_path):
    path = write_recipe(tmp_path, SMALL, 32)
    log = tmp_path / "network.log"
    folder = tmp_path / "mine"
    quick = ["--set", "train.max_steps=1", "--set", "cold_start.steps=2", "--force"]
    done = command("run", path, "--run-dir", folder, *quick, cwd=tmp_path, **without_network(log))
    assert done.returncode == 0, done.stdout + done.stderr
    assert record.Run(folder).read()["status"] == "complete"
    done = command("export", folder, "--to", "merged_16bit", cwd=tmp_path, **without_network(log))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not log.exists(), log.read_text()
