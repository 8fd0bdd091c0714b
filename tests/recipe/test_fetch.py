"""Recipes from the Hub and over http, by the real clients, from servers on this machine."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1recipes import recipe
from r1recipes.publish import share
from r1recipes.recipe import bundle, download
from r1recipes.runs import record
from tests.conftest import SMALL
from tests.helpers import command, in_process
from tests.hub_server import TOKEN, FileServer, HubServer
from tests.system.test_hostile import WITH_FILES

RECIPE = SMALL.encode()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path):
    with HubServer() as server:
        yield server


def test_a_run_goes_to_the_hub_and_comes_back(finished, hub, tmp_path):
    environment = hub.environment(tmp_path)
    done = command("share", finished.folder, "--to", "hub:me/sums", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    commit, files = hub.files("models/me/sums")
    assert f"hub:me/sums@{commit}" in done.stdout
    assert set(files) - {".gitattributes"} == set(share.of_run(finished).files)
    assert TOKEN.encode() not in b"".join(files.values())
    shown = command("show", "hub:me/sums", cwd=tmp_path, **environment)
    assert shown.returncode == 0, shown.stderr
    assert f"# hub:me/sums at commit {commit}, sha256" in shown.stdout
    assert finished.read()["fingerprint"] in shown.stdout
    done = command("run", "hub:me/sums@main", "--locked", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert f"from hub:me/sums@main at commit {commit}" in done.stderr
    (run,) = record.all_runs(tmp_path / "runs")
    assert run.read_lock()["source"]["commit"] == commit
    assert run.read_lock()["source"]["reference"] == "hub:me/sums@main"
    # A moved branch: the commit still means what it meant, the branch what is new.
    newer = hub.commit("models/me/sums", {"recipe.toml": RECIPE.replace(b"seed = 1", b"seed = 7")})
    for reference, seed in ((f"hub:me/sums@{commit}", 1), ("hub:me/sums@main", 7)):
        shown = command("show", reference, "--json", cwd=tmp_path, **environment)
        assert json.loads(shown.stdout)["recipe"]["seed"] == seed
    copied = command("copy", "hub:me/sums", "mine.toml", cwd=tmp_path, **environment)
    assert newer in copied.stderr and "seed = 7" in (tmp_path / "mine.toml").read_text()


def test_a_second_push_leaves_no_old_proof_and_no_strange_card_changed(finished, hub, tmp_path):
    theirs = {"README.md": b"# A model", "report.html": b"old", "adapter.safetensors": b"weights"}
    hub.commit("models/me/sums", theirs)
    environment = hub.environment(tmp_path)
    done = command("share", finished.folder, "--to", "hub:me/sums", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    _, files = hub.files("models/me/sums")
    assert files["README.md"] == b"# A model" and files["adapter.safetensors"] == b"weights"
    assert files.get("report.html") != b"old" and "record.json" in files


def test_places_of_a_repository(hub, tmp_path):
    own = WITH_FILES.replace("openai/gsm8k", "rows.jsonl").encode()
    row = b"".join(b'{"question": "1+%d", "answer": "%d"}\n' % (n, n + 1) for n in range(9))
    files = {
        "recipes/sums/recipe.toml": own,
        "recipes/sums/rows.jsonl": row,
        "recipes/sums/shown.jsonl": b'{"question": "1+1", "completion": "2"}\n',
        "recipes/sums/secret.jsonl": b"not asked for",
        "other.toml": RECIPE,
        "packed.r1.zip": bundle.pack({"recipe.toml": RECIPE}),
        "large.toml": b"#" * (bundle.MAX_BYTES + 1),
    }
    hub.commit("models/me/x", files)
    environment = hub.environment(tmp_path)
    good = ["hub:me/x/recipes/sums", "hub:me/x/recipes/sums/recipe.toml", "hub:me/x/other.toml"]
    done = command("check", *good, "hub:me/x@main/packed.r1.zip", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert not any("secret" in request for request in hub.requests)
    bad = {
        "hub:me/absent": "is not on the Hub",
        "hub:me/x@gone": "has no such branch",
        "hub:me/x": "has no recipe.toml",
        "hub:me/x/none.toml": "has no none.toml",
        "hub:me/x/large.toml": "has 67 MB",
    }
    done = command("check", *bad, cwd=tmp_path, **environment)
    assert done.returncode == 2
    for reference, reason in bad.items():
        assert f"error: {reference}: " in done.stderr and reason in done.stderr


def test_a_token_that_may_not_write(hub, tmp_path):
    environment = hub.environment(tmp_path) | {"HF_TOKEN": "hf_wrong"}
    done = command("share", "tiny", "--to", "hub:me/x", cwd=tmp_path, **environment)
    assert done.returncode == 2 and "set HF_TOKEN" in done.stderr
    assert "hf_wrong" not in done.stderr + done.stdout


def test_without_a_network_what_was_seen_is_used(hub, tmp_path):
    hub.commit("models/me/x", {"recipe.toml": RECIPE})
    environment = hub.environment(tmp_path)
    offline = environment | {"HF_HUB_OFFLINE": "1"}
    done = command("check", "hub:me/x", cwd=tmp_path, **offline)
    assert done.returncode == 2 and "no request may be made (offline)" in done.stderr
    assert command("check", "hub:me/x", cwd=tmp_path, **environment).returncode == 0
    hub.requests.clear()
    assert command("check", "hub:me/x", cwd=tmp_path, **offline).returncode == 0
    assert hub.requests == []
    hub.__exit__()
    done = command("check", "hub:me/x", cwd=tmp_path, **environment)
    assert done.returncode == 2 and "the Hub cannot be asked" in done.stderr
    assert done.stderr.count("error:") == 1


def test_a_data_set_of_the_hub_cannot_name_local_files(hub, tmp_path):
    (tmp_path / "secret.csv").write_text("question,answer\n1+1,2\n")
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {tmp_path}/secret.csv\n---\n"
    hub.commit("datasets/o/d", {"README.md": card.encode(), "a.csv": b"question,answer\n1,2\n"})
    text = WITH_FILES.replace("openai/gsm8k", "o/d")
    shown = b'{"question": "1+1", "completion": "2"}\n'
    hub.commit("models/me/x", {"recipe.toml": text.encode(), "shown.jsonl": shown})
    done = command("run", "hub:me/x", cwd=tmp_path, **hub.environment(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "names a file outside of its repository" in done.stderr


def test_over_http_from_this_machine(cache):
    packed = bundle.pack({"recipe.toml": RECIPE, "README.md": b"# x"})
    paths: dict[str, bytes | Callable[..., Any]] = {
        "/x.toml": RECIPE,
        "/small.r1.zip": packed,
        "/moved": lambda handler: handler.answer(301, Location="/small.r1.zip"),
    }
    with FileServer(paths) as server:
        for path, name in (("/x.toml", "x"), ("/small.r1.zip", "small"), ("/moved", "moved")):
            loaded = recipe.load(server.url + path)
            assert loaded.recipe.seed == 1 and loaded.name == name and loaded.source
            assert loaded.path.is_relative_to(cache)
        code, out, _ = in_process("show", server.url + "/x.toml")
        assert code == 0 and out.startswith(f"# {server.url}/x.toml, sha256 ")


def test_limits_of_a_slow_and_of_a_compressed_answer(cache, monkeypatch):
    def drip(handler) -> None:
        import time

        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"#\n")
                time.sleep(0.02)
        except OSError:
            handler.close_connection = True

    monkeypatch.setattr(download, "TOTAL_LIMIT_S", 0.3)
    with FileServer({"/slow": drip, "/gz": gzip.compress(RECIPE)}) as server:
        code, _, err = in_process("check", server.url + "/slow")
        assert code == 2 and "takes more than" in err
        code, _, err = in_process("check", server.url + "/gz")
        assert code == 2 and "neither TOML in UTF-8 nor a bundle" in err


AT_COMMIT = """
import sys
from r1recipes.training.backends.weights import at_commit
from r1recipes.errors import PlanError
for revision in sys.argv[1:]:
    try:
        folder = at_commit("me/model", revision, False)
        print(folder.name, (folder / "config.json").read_text(), len(list(folder.iterdir())))
    except PlanError as error:
        print("refused:", error)
"""


def test_a_model_at_a_commit_is_loaded_from_there_though_the_branch_moved(hub, tmp_path):
    files = {"config.json": b"1", "model.safetensors": b"w", "consolidated.safetensors": b"w"}
    first = hub.commit("models/me/model", files)
    hub.commit("models/me/model", {"config.json": b"2"})
    done = subprocess.run(
        [sys.executable, "-c", AT_COMMIT, first, "0" * 40],
        env=os.environ | hub.environment(tmp_path),
        capture_output=True,
        text=True,
    )
    old, missing = done.stdout.splitlines()
    assert old == f"{first} 1 2" and missing.startswith("refused: `me/model` at revision"), missing
