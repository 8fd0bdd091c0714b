"""A judge in a folder of this machine, served by a child on the CPU."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from r1recipes.errors import RecipeError, RunError
from r1recipes.rewards.judge.local import KEY_VARIABLE, LocalServer
from r1recipes.rewards.judge.section import Judge
from tests import smollm2
from tests.helpers import hint, is_running
from tests.judge_server import ask, to_judge

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder():
    return smollm2.folder()


@pytest.fixture(scope="module")
def server(folder):
    server = LocalServer(folder)
    server.start()
    yield server
    server.close()


def test_a_model_of_this_machine_judges_on_the_cpu(folder, tmp_path):
    """What a model of 135M parameters answers is noise; it is read, or counted as none."""
    judge = to_judge("http://127.0.0.1/v1", tmp_path)
    judge.close()
    section = {"model": str(folder), "rubric": "Is it right?", "max_tokens": 24, "retries": 0}
    section |= {"url": None}
    local = to_judge("http://127.0.0.1/v1", tmp_path, **section)
    assert local.weights_sha256 and len(local.weights_sha256) == 64
    (paid,) = ask(local, "2")
    assert paid in ("not_json", "no_score", "out_of_range", "cut_off") or 0 <= paid <= 1
    assert local.cost.calls >= 1 and 0 < local.cost.completion_tokens <= 24 * local.cost.calls
    assert local._server is not None and local._server._process is not None
    pid = local._server._process.pid
    variables = dict(
        entry.split("=", 1)
        for entry in open(f"/proc/{pid}/environ").read().split("\0")
        if "=" in entry
    )
    assert variables["CUDA_VISIBLE_DEVICES"] == ""
    local.close()
    assert not is_running(pid)


def test_only_its_parent_has_the_key(server):
    url, _ = server.start()
    request = urllib.request.Request(f"{url}/chat/completions", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    assert caught.value.code == 401


def test_the_same_child_answers_again(server):
    first = server._process.pid
    assert server.start()[1] == server._key and server._process.pid == first


START_AND_DIE = """
import os, signal, sys
from pathlib import Path
from r1recipes.rewards.judge.local import LocalServer
server = LocalServer(Path(sys.argv[1]))
server.start()
print(server._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_its_parent(folder):
    command = [sys.executable, "-c", START_AND_DIE, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True)
    pid = int(out.stdout)
    for _ in range(100):
        if not is_running(pid):
            break
        subprocess.run(["sleep", "0.1"])
    assert not is_running(pid)
    assert KEY_VARIABLE not in os.environ


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="which is no folder of a model") as caught:
        LocalServer(tmp_path)
    assert "add `url`" in hint(caught)


def test_a_model_that_cannot_be_loaded_is_said(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    server = LocalServer(tmp_path)
    with pytest.raises(RunError, match="cannot be loaded: ") as caught:
        server.start()
    assert "name its `url`" in hint(caught) and server._process is None


def test_another_weight_is_another_judge(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = LocalServer(tmp_path).sha256()
    (tmp_path / "notes.md").write_text("no part of it")
    assert LocalServer(tmp_path).sha256() == first
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert LocalServer(tmp_path).sha256() != first


def test_a_section_without_url_names_a_folder():
    judge = Judge.model_validate({"model": "folder", "rubric": "Right?"})
    assert judge.url is None
