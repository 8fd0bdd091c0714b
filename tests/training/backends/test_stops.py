"""Completions end at each token that the model was made to end with, also in training."""

from pathlib import Path

import pytest

from r1recipes.machine import files
from r1recipes.runs import record
from r1recipes.training.backends import builtin, trainer
from tests.helpers import run_in_process

pytestmark = pytest.mark.slow
OTHER = "</reasoning>"


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_another_end_token_of_the_model_ends_completions(small: Path, monkeypatch, algorithm: str):
    """As Llama's `<|end_of_text|>` beside `<|eot_id|>`: what follows would be padding."""
    tokenizer, build = builtin.build_tokenizer(), builtin.build_model
    end, other = (tokenizer.convert_tokens_to_ids(t) for t in (tokenizer.eos_token, OTHER))
    assert isinstance(other, int)

    def build_with_two(seed: int, name: str = "builtin:tiny"):
        model = build(seed, name)
        model.generation_config.eos_token_id = [end, other]
        return model

    monkeypatch.setattr(builtin, "build_model", build_with_two)
    seen: list[list[int]] = []

    def watch(made, ids):
        stop_at(made, ids)
        generate = made._generate_single_turn

        def watched(*arguments, **options):
            result = generate(*arguments, **options)
            seen.extend(result[0] if isinstance(result, tuple) else result)
            return result

        made._generate_single_turn = watched

    stop_at = trainer.stop_at
    monkeypatch.setattr(trainer, "stop_at", watch)
    flags = (f"algorithm={algorithm}", "train.max_steps=2", "data.eval_size=4")
    run = run_in_process(small, small.parent / "runs", *flags)
    ended = [ids for ids in seen if other in ids]
    assert ended and all(ids.index(other) == len(ids) - 1 for ids in ended)
    assert all(ids[-1] in (end, other) or len(ids) == 40 for ids in seen)
    samples = [s for item in files.read_lines(run.evaluation("before")) for s in item["samples"]]
    closed = [sample for sample in samples if OTHER in sample["text"]]
    assert closed and all(s["text"].endswith(OTHER) and not s["cut"] for s in closed)
    assert record.Run(run.folder).read()["status"] == "complete"


def test_one_end_token_changes_nothing(small: Path):
    """The trainer is left as TRL made it."""
    tokenizer, model = builtin.build_tokenizer(), builtin.build_model(1)
    assert trainer.stop_ids(tokenizer, model) == [tokenizer.eos_token_id]
    untouched = object()
    trainer.stop_at(untouched, [tokenizer.eos_token_id])
    model.generation_config.eos_token_id = None
    assert trainer.stop_ids(tokenizer, model) == [tokenizer.eos_token_id]
