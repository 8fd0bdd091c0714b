"""Levers on the speed of generation that are off by default, on one NVIDIA card.

Each run starts an engine, which takes some minutes. Limits: that they are faster is measured by
benchmarks/speed/levers.py.
"""

import pytest

from r1recipes.machine import files
from r1recipes.runs import Run
from tests.helpers import command

pytestmark = pytest.mark.gpu

MERGED = "UNSLOTH_VLLM_MERGED_ROLLOUT"


def trained(tmp_path, *overrides: str, **environment: str) -> Run:
    """A complete run of the recipe `small`."""
    run = Run(tmp_path / "mine")
    flags = [word for override in overrides for word in ("--set", override)]
    done = command("run", "small", "--run-dir", run.folder, *flags, cwd=tmp_path, **environment)
    log = run.log.read_text()[-4000:] if run.log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    return run


def learned(run: Run) -> bool:
    evaluated = run.read()["evaluation"]
    return evaluated["before"]["accuracy"] < 0.6 < evaluated["after"]["accuracy"]


def test_it_learns_with_the_adapter_in_the_weights_of_the_rollouts(tmp_path):
    """And answers with the adapter beside them while it trains and after."""
    run = trained(tmp_path, "eval.every=20", "train.max_steps=42", **{MERGED: "1"})
    log = run.log.read_text()
    assert "Merged-weight rollouts on (all)" in log and "falling back" not in log
    assert learned(run)


def test_it_learns_with_keys_and_values_in_8_bits(tmp_path):
    """A run whose engine has another cache than the preset ends with an error."""
    assert learned(trained(tmp_path, "preset.kv_cache_dtype=int8_per_token_head"))


def test_256_completions_are_worked_on_at_once_without_text_and_log_probs(tmp_path):
    """What reads log-probs would leave metrics of them."""
    run = trained(tmp_path, "train.max_steps=8")
    assert run.plan().max_num_seqs == 257
    rows = files.read_lines(run.metrics)
    assert all(row["completions/mean_length"] > 0 for row in rows)
    assert not any(key.startswith("sampling/") for row in rows for key in row)
