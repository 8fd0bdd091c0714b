"""A recipe on a local model folder and local data makes no request, and the guards see one."""

import os
import shutil
import subprocess
import sys

import pytest

from r1recipes import runs
from tests.conftest import SMALL
from tests.helpers import command
from tests.local import ROOT, without_network, write_recipe

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


BELOW_PYTHON = """
import socket
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("192.0.2.1", 9))
hosts = [("127.0.0.1", port), ("::ffff:127.0.0.1", port)]
hosts += [("192.0.2.1", 9), ("::ffff:192.0.2.3", 9)]
for host, port in [*hosts, (own.getsockname()[0], port)]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.settimeout(0.2)
        sock.connect_ex((host, port))
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_the_watch_below_python_notes_what_goes_beyond_this_machine(tmp_path):
    library, log = tmp_path / "connections.so", tmp_path / "native.log"
    source = ROOT / "benchmarks" / "reliability" / "connections.c"
    build = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(build, check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), "CONNECTIONS_LOG": str(log)}
    subprocess.run([sys.executable, "-c", BELOW_PYTHON], env=environment, check=True)
    attempts = [line.partition(": ")[2] for line in log.read_text().splitlines()]
    assert attempts == ["connects to 192.0.2.1", "connects to 192.0.2.3"]


def test_a_local_model_and_local_data_make_no_request(tmp_path):
    path = write_recipe(tmp_path, SMALL, 32)
    log = tmp_path / "network.log"
    folder = tmp_path / "mine"
    quick = ["--set", "train.max_steps=1", "--set", "cold_start.steps=2", "--force"]
    done = command("run", path, "--run-dir", folder, *quick, cwd=tmp_path, **without_network(log))
    assert done.returncode == 0, done.stdout + done.stderr
    assert runs.Run(folder).read()["status"] == "complete"
    done = command("export", folder, "--to", "merged_16bit", cwd=tmp_path, **without_network(log))
    assert done.returncode == 0, done.stdout + done.stderr
    assert not log.exists(), log.read_text()
