"""What is kept out of a shared run: paths of this machine, and secrets."""

import json
import shutil

import pytest

from r1recipes import recipe
from r1recipes.publish import share
from r1recipes.runs.record import Run
from tests.helpers import in_process


@pytest.fixture
def run(finished, tmp_path) -> Run:
    """A finished run that a test may change."""
    folder = tmp_path / "runs" / "copy"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "base"))
    return Run(folder)


def test_the_report_goes_along_without_paths(run):
    run.report.write_text(f"<p>{run.folder}/adapter</p>")
    assert share.of_run(run).files["report.html"] == b"<p>.../copy/adapter</p>"


def test_no_path_and_no_secret_gets_out(run, tmp_path, monkeypatch):
    home = tmp_path / "home" / "somebody"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    text = run.recipe.read_text()
    run.update_lock(overrides=[f"--set data.name={home}/x.jsonl"], note=f"{home}/runs")
    run.update(error={"message": "in /data/corp/private/x.py line 3"}, where=str(home))
    run.recipe.write_text(text + f"# from {home}/notes\n")
    files = share.of_run(run).files
    everything = b"".join(files.values())
    for secret in (str(home), str(tmp_path), "/data/corp", "x.jsonl"):
        assert secret.encode() not in everything, secret
    assert b".../x.py line 3" in files["record.json"]
    assert recipe.load(run.recipe).recipe  # the run's own file is as it was


def test_a_secret_is_refused_and_not_repeated(run, tmp_path, monkeypatch):
    token = "hf_" + "a1B2" * 9
    run.recipe.write_text(run.recipe.read_text() + f"# token {token}\n")
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    run.report.write_text(json.dumps({"step": 7, "note": "correct horse battery"}))
    code, out, err = in_process("share", run.folder, "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "2 errors" in err and token not in err + out
    assert "has what looks like a token" in err and "the value of $MY_API_KEY" in err
    assert not (tmp_path / "x.r1.zip").exists()
