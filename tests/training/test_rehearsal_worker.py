"""The worker of a rehearsal on a CPU: each batch is measured, at full and with real lengths."""

import contextlib
import copy
import json
import multiprocessing
import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from r1recipes import planning, recipe
from r1recipes.errors import RecipeError
from r1recipes.machine.files import read_lines
from r1recipes.planning import models
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.runs.reading import Row
from r1recipes.runs.record import Run
from r1recipes.training.backends.unsloth import lengths as engine_lengths
from r1recipes.training.rehearsal import child, drawn
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.training.test_rehearsal import CARD

COLD_START = SMALL[SMALL.index("[cold_start]") : SMALL.index("[eval]")]
RECIPE = SMALL.replace(COLD_START, "").replace("builtin:tiny", "own/own-0.1b")
SHAPE = models.ModelShape("own", ("own-0.1b",), 64, 128, 2, 4, 2, 16, 128, True, True)


@pytest.fixture
def on_cpu(tmp_path, monkeypatch) -> Callable[..., tuple[list[Row], int]]:
    """Rehearses batches through TRL: the proofs, without sizes of an engine, and the last phase."""
    monkeypatch.setitem(models.MODELS, "own-0.1b", SHAPE)
    (tmp_path / "mine.toml").write_text(RECIPE)
    loaded = recipe.load(str(tmp_path / "mine.toml"))
    plan = planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=tmp_path)

    def work(*batches: int, lengths: Lengths | None = None) -> tuple[list[Row], int]:
        proofs: list[Row] = []
        phase, weights = multiprocessing.Value("i", 0), tmp_path / "weights"
        text = plan.model_dump_json()
        child.work(text, weights, 2, batches, lengths, phase, proofs.append)
        return proofs, phase.value

    return work


def test_the_worker_trains_each_batch_on_weights_of_the_models_shape(on_cpu, tmp_path):
    proofs, phase = on_cpu(4, 8)
    assert [proof.get("error") for proof in proofs] == [None, None]
    for proof in proofs:
        assert proof["steps"] == 2
        assert proof["completions_per_step"] == 16 and proof["mean_length"] > 1
        assert proof["step_s"] > proof["generation_s"] > 0 < proof["projected_run_s"]
    assert phase == child.phase_index("steps", 1)
    (made_once,) = (tmp_path / "weights").iterdir()
    assert not [path for path in made_once.iterdir() if path.is_dir()]  # no checkpoint
    assert json.loads((made_once / "config.json").read_text())["hidden_size"] == SHAPE.hidden_size


@pytest.mark.parametrize(
    ("method", "failed_in"),
    [("_generate_single_turn", "generate"), ("_compute_loss", "first step")],
)
def test_an_error_is_reported_with_its_phase(method, failed_in, on_cpu, monkeypatch):
    """Out of memory in the engine is not answered with a smaller training pass."""

    def full(*arguments, **options):
        raise RuntimeError("CUDA out of memory.")

    monkeypatch.setattr(f"trl.GRPOTrainer.{method}", full)
    ((proof,), phase) = on_cpu(8)
    assert proof["failed_in"] == failed_in and "CUDA out of memory." in proof["error"]
    assert phase == child.phase_index(failed_in, 0)


@pytest.fixture
def seen(monkeypatch) -> list[list[int]]:
    """The lengths of the completions that TRL was given in each step."""
    from trl import GRPOTrainer

    lengths: list[list[int]] = []
    generate = GRPOTrainer._generate_single_turn

    def watched(self, *args, **options):
        made = generate(self, *args, **options)
        lengths.append([len(ids) for ids in made[0]])
        return made

    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", watched)
    return lengths


def test_real_lengths_are_measured_after_full_ones(on_cpu, seen, monkeypatch):
    """Each completion has the length that was drawn for it."""
    asked: list[list[int]] = []
    completions = Lengths.completions

    def watched(self, *args):
        asked.append(completions(self, *args))
        return asked[-1]

    monkeypatch.setattr(Lengths, "completions", watched)
    proofs, phase = on_cpu(4, 8, lengths=REAL)
    assert len(asked) == 4 and seen[2:4] + seen[6:8] == asked
    assert phase == child.phase_index("steps", 3)  # not among the phases of the two batches
    for proof, lengths in zip(proofs, (asked[:2], asked[2:]), strict=True):
        real = proof["real"]
        assert "error" not in proof and "error" not in real and real["lengths"] == "real"
        assert real["steps"] == 2 and real["step_s"] > real["generation_s"] > 0
        assert real["max_length"] == max(map(max, lengths)) and proof["steps"] == 2
        assert real["mean_length"] == pytest.approx(sum(map(sum, lengths)) / 32, abs=0.06)
        assert 0 < real["projected_run_s"] and real["completions_per_hour"] > 0
    assert asked[:2] == asked[2:]  # each batch has the same


def test_without_lengths_a_proof_is_as_it_was(on_cpu):
    ((proof,), phase) = on_cpu(8)
    assert "real" not in proof and phase == child.phase_index("steps", 0)


@pytest.mark.parametrize("fault", ["generate", "ignored"])
def test_an_error_with_real_lengths_leaves_what_was_measured(fault, on_cpu, monkeypatch):
    if fault == "generate":

        def full(*args):
            raise RuntimeError("CUDA out of memory.")

        monkeypatch.setattr(Lengths, "completions", full)
    else:  # as where a version of the stack no longer takes the lengths
        monkeypatch.setattr(
            "r1recipes.training.backends.trl._ended", lambda *_: contextlib.nullcontext()
        )
        monkeypatch.setattr("r1recipes.training.rehearsal.drawn.TOLERANCE", -1.0)
    ((proof,), _) = on_cpu(8, lengths=REAL)
    assert "error" not in proof and proof["step_s"] > 0
    expected = "out of memory" if fault == "generate" else "tokens on average"
    assert expected in proof["real"]["error"] and "step_s" not in proof["real"]


class Params:
    """As vLLM's SamplingParams."""

    def __init__(self) -> None:
        self.max_tokens, self.temperature = 99, 0.5

    clone = copy.copy


def test_the_engine_is_asked_for_each_length_and_is_put_back():
    calls: list[tuple[list[str], list[Params], dict[str, Any]]] = []

    class Engine:
        def generate(self, prompts, sampling_params=None, **options):
            calls.append((prompts, sampling_params, options))
            return "made"

    engine, shared = Engine(), Params()
    trainer = SimpleNamespace(vllm_generation=SimpleNamespace(llm=engine))
    with engine_lengths.ended(trainer, lambda count: [*range(1, count + 1)]):
        made = engine.generate(["a", "b"], sampling_params=shared, use_tqdm=False)
    prompts, params, options = calls[0]
    assert made == "made" and prompts == ["a", "b"] and options == {"use_tqdm": False}
    assert [(each.max_tokens, each.temperature) for each in params] == [(1, 0.5), (2, 0.5)]
    assert shared.max_tokens == 99 and not vars(engine)
    with engine_lengths.ended(trainer, None):
        assert not vars(engine)


def test_lengths_of_a_run_are_those_of_its_answers(finished):
    run, lengths = finished, drawn.of_run(finished)
    items = [item for when in ("before", "after") for item in read_lines(run.evaluation(when))]
    tokens = sorted(sample["num_tokens"] for item in items for sample in item["samples"])
    limit = run.plan().preset.max_completion_length
    mean, longest = lengths.expected(len(tokens), limit)
    assert mean == pytest.approx(sum(tokens) / len(tokens), rel=0.1)
    assert lengths.quantiles[0][1] == tokens[0] and longest <= tokens[-1]
    assert (
        lengths.name == run.folder.name and 0 < lengths.prompt_mean < run.plan().max_prompt_length
    )


def test_a_run_without_answers_has_no_lengths(finished, tmp_path, monkeypatch):
    run = Run(shutil.copytree(finished.folder, tmp_path / "mine"))
    for when in ("before", "after"):
        run.evaluation(when).unlink()
    with pytest.raises(RecipeError, match="has no answers to held-out problems yet"):
        drawn.of_run(run)
    monkeypatch.setattr("r1recipes.machine.gpu.current", lambda: CARD)
    monkeypatch.setattr("r1recipes.planning.plan.has_unsloth", lambda: True)
    code, _, err = in_process("rehearse", "qwen2.5-1.5b", "--lengths", tmp_path / "nowhere")
    assert code == 2 and "there is no run folder" in err
