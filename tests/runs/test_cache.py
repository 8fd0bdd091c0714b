"""`clean --cache`: what can go, and what must stay."""

import pytest

from r1recipes import planning, recipe
from r1recipes.machine import files
from r1recipes.runs import record
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.hub_server import FileServer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return tmp_path / "cache"


def test_what_can_be_made_again_goes_and_what_a_run_needs_stays(cache, tmp_path):
    pages = {f"/{n}.toml": SMALL.replace("seed = 1", f"seed = {n}").encode() for n in (1, 2)}
    with FileServer({**pages}) as server:
        needed, other = (recipe.load(server.url + name) for name in pages)
    resolved = planning.make(
        needed.recipe, planning.Target.here(None, 1), base_dir=needed.path.parent
    )
    run = record.create(needed, resolved, None, tmp_path / "runs")
    (cache / "nf4" / "model").mkdir(parents=True)
    (cache / "nf4" / "model" / "weights").write_bytes(b"x" * 2_000_000)
    (cache / "pass-rates" / "key").mkdir(parents=True)
    (cache / "pass-rates" / "key" / "block.json").write_text("{}")
    (cache / "mine.txt").write_text("not ours")
    draft = cache / "recipes" / "references" / f"{files.DRAFT}00"
    draft.mkdir()  # of a process that was killed; the next one to write there removes it
    with run.owned():
        code, _, err = in_process("clean", "--cache", "--yes")
    assert code == 2 and "is running and may use the cache" in err and other.path.exists()
    code, out, err = in_process("clean", "--cache")
    assert code == 2 and "--yes" in err and "2.0 MB  models in 4 bits" in out
    code, out, _ = in_process("clean", "--cache", "--yes")
    assert code == 0 and "recipes from elsewhere" in out and "deleted 2.0 MB" in out
    assert "pass rates of problems" in out
    assert needed.path.exists() and not other.path.exists()
    assert len([path for path in draft.parent.iterdir() if path != draft]) == 1
    assert {path.name for path in cache.iterdir()} == {"recipes", "mine.txt"}
    assert in_process("clean", "--cache") == (0, "", "nothing to delete\n")


def test_the_cache_is_not_that_of_a_run(cache):
    code, _, err = in_process("clean", "--cache", "runs/x")
    assert code == 2 and "--cache does not go with a run" in err
