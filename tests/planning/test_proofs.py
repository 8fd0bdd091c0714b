"""Proofs: which hold, why others do not, and that `list` and the README say the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.readme.table import cell
from r1recipes import recipe
from r1recipes.algorithms.base import Preset
from r1recipes.planning import proofs
from tests.helpers import in_process

ROOT = Path(__file__).parents[2]
SHIPPED = [
    (path.stem, preset) for path in recipe.shipped() for preset in recipe.load(path).recipe.preset
]
LOADED = recipe.load("qwen2.5-1.5b")
SETTINGS = LOADED.recipe.preset["8GB"].model_dump()
GOOD = {
    "recipe_model": LOADED.recipe.model.name,
    "settings": SETTINGS,
    "overrides": [],
    "vram_gib": 7.6,
    "peak_gib": 6.6,
    "step_s": 8.92,
    "completions_per_step": 32,
    "completions_per_hour": 12919,
    "card": "NVIDIA GeForce RTX 4060",
    "date": "2026-11-21T04:09:18Z",
    "versions": {"vllm": "0.26.0"},
}


def write_proof(folder: Path, **changes: object) -> proofs.Proof:
    (folder / "qwen2.5-1.5b.8GB.json").write_text(json.dumps(GOOD | changes))
    return read_proof(folder)


def read_proof(folder: Path) -> proofs.Proof:
    proof = proofs.find(LOADED, "8GB", folder)
    assert proof is not None
    return proof


def test_a_proof_of_the_values_that_the_preset_has_holds(tmp_path):
    assert proofs.find(LOADED, "8GB", tmp_path) is None
    proof = write_proof(tmp_path)
    assert proof.holds and (proof.card, proof.date) == ("RTX 4060", "2026-11-21")
    assert proof.share == pytest.approx(6.6 / 7.62, abs=1e-3)


def test_a_key_that_came_later_had_its_default_when_it_was_measured(tmp_path):
    older = dict(SETTINGS)
    del older["standby"]
    assert LOADED.recipe.preset["8GB"].standby is Preset.model_fields["standby"].default
    assert write_proof(tmp_path, settings=older).holds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": SETTINGS | {"lora_rank": 16}}, "stale: lora_rank 16 -> 32"),
        ({"settings": SETTINGS | {"gone": 1}}, "stale: gone 1 -> no such key"),
        ({"recipe_model": "some/other"}, "stale: measured with some/other"),
        ({"overrides": ["preset.lora_rank=32", "train.beta=0.1"]}, "with --set train.beta=0.1"),
        ({"vram_gib": 15.0}, "15.00 GiB were left free, more than the 7.62 of the class"),
        ({"error": "OutOfMemoryError: 2 GiB", "failed_in": "load"}, "failed in load: OutOfMemory"),
        ({"step_s": None}, "no step time"),
        ({"peak_gib": "much"}, "cannot be read: peak_gib"),
        ({"card": None}, "cannot be read: card"),
    ],
)
def test_a_proof_that_does_not_hold_says_why(changes, words, tmp_path):
    proof = write_proof(tmp_path, **changes)
    assert not proof.holds and words in (proof.fault or "")


def test_a_torn_proof_is_a_fault_and_not_a_crash(tmp_path):
    (tmp_path / "qwen2.5-1.5b.8GB.json").write_text('{"settings": ')
    assert "cannot be read" in (read_proof(tmp_path).fault or "")


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_no_shipped_preset_has_a_proof_that_does_not_hold(name, preset):
    proof = proofs.find(recipe.load(name), preset, proofs.folder())
    assert proof is None or proof.fault is None, f"{name} {preset}: {proof.fault}"


def test_every_proof_belongs_to_a_preset():
    names = {f"{name}.{preset}.json" for name, preset in SHIPPED}
    assert {path.name for path in proofs.folder().iterdir()} <= names


def test_list_shows_what_was_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(proofs, "folder", lambda: tmp_path)
    write_proof(tmp_path)
    code, out, _ = in_process("list")
    line = next(line for line in out.splitlines() if "12,919" in line)
    assert line.split()[:5] == ["8GB", "6.60", "of", "7.62", "GiB"]
    assert line.split()[6:8] == ["8.9", "12,919"] and line.endswith("RTX 4060, 2026-11-21")
    num_on_gpus = sum(preset != "cpu" for _, preset in SHIPPED)
    assert code == 0 and out.count("not measured") == num_on_gpus - 1
    assert out.endswith("tiny  builtin:tiny\n  cpu     needs no GPU\n")
    write_proof(tmp_path, settings=SETTINGS | {"lora_rank": 16})
    assert "  8GB     stale: lora_rank 16 -> 32\n" in in_process("list")[1]
    shown = json.loads(in_process("list", "--json")[1])
    by_name = {row["recipe"]: row["presets"] for row in shown}
    assert by_name["qwen2.5-1.5b"]["8GB"]["holds"] is False and by_name["tiny"]["cpu"] is None


REAL = {"lengths": "real", "step_s": 3.46, "completions_per_hour": 33333}


def test_real_lengths_are_shown_beside_full_ones(monkeypatch, tmp_path):
    """In `list`, under its columns, and in the documents' tables; old proofs have none."""
    monkeypatch.setattr(proofs, "folder", lambda: tmp_path)
    older = write_proof(tmp_path)
    assert older.measured and older.measured.real is None
    full = in_process("list")[1].splitlines()
    proof = write_proof(tmp_path, real=REAL)
    assert proof.holds and proof.measured
    assert cell(proof, proof.measured).endswith(", 12,919; 33,333")
    both = in_process("list")[1].splitlines()
    (line,) = [line for line in both if line not in full]
    assert line.split() == ["with", "real", "lengths", "3.5", "33,333"]
    above = both[both.index(line) - 1]
    assert line.index("33,333") == above.index("12,919") and len(line) <= 80


def test_real_lengths_that_failed_leave_the_proof_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr(proofs, "folder", lambda: tmp_path)
    older, shown = write_proof(tmp_path), in_process("list")[1]
    failed = write_proof(tmp_path, real={"lengths": "mine", "error": "RuntimeError: no"})
    assert failed.holds and in_process("list")[1] == shown
    assert failed.measured and older.measured
    assert cell(failed, failed.measured) == cell(older, older.measured)


def test_list_fits_a_terminal():
    lines = in_process("list")[1].splitlines()
    measured = next(line for line in lines if "H200" in line)
    assert max(map(len, lines)) <= 80 and lines[0].index("MEASURED ON") == measured.index("H200")


def test_the_documents_say_what_the_proofs_say():
    check = [sys.executable, "-m", "benchmarks.readme.table", "--check"]
    done = subprocess.run(check, cwd=ROOT)
    assert done.returncode == 0, "run `python -m benchmarks.readme.table`"
