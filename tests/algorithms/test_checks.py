"""What a recipe may ask of online DPO and PPO, what is said of them before they run, and memory."""

from types import SimpleNamespace
from typing import Any

import pytest

from r1recipes import planning, recipe
from r1recipes.algorithms import ALGORITHMS, ONLINE_DPO, PPO
from r1recipes.data.tokenizer import special_tokens
from r1recipes.errors import RecipeError
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning.memory import plain
from r1recipes.recipe import scaffold
from r1recipes.runs.health.verdicts import Terms
from tests.algorithms.test_algorithms import of, planned
from tests.helpers import in_process

CARD = Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 24 * GIB, 8.9, "580.1")


def test_another_number_of_completions_is_refused_with_the_change_that_works(tmp_path):
    path = of(ONLINE_DPO, tmp_path)
    text = path.read_text().replace("num_generations = 2", "num_generations = 8")
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        recipe.load(path)
    (problem,) = refused.value.problems
    assert problem.message == "Online DPO takes 2 completions of a prompt, not 8"
    assert problem.hint is not None and "`prompts_per_step = 16`" in problem.hint
    text = text.replace("= 8", "= 2")
    path.write_text(text.replace("prompts_per_step = 4", "prompts_per_step = 16"))
    assert planned(path).completions_per_step == 32


@pytest.mark.parametrize(
    ("section", "line", "message"),
    [
        ("train", "top_p = 0.9", "has no `top_p`"),
        ("train", "top_k = 5", "has no `top_k`"),
        ("train", "min_p = 0.1", "has no `min_p`"),
        ("train", "repetition_penalty = 1.1", "has no `repetition_penalty`"),
        ("lora", "lora_dropout = 0.1", "PPO is trained without dropout"),
    ],
)
def test_what_ppo_would_ignore_is_refused(tmp_path, section, line, message):
    path = of(PPO, tmp_path)
    head = f"[{section}]\n"
    text = path.read_text()
    text = text.replace(head, head + line + "\n") if head in text else text + f"\n{head}{line}\n"
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        recipe.load(path)
    (problem,) = refused.value.problems
    assert message in problem.message and problem.hint == "remove this line"


def test_ppo_refuses_to_pad_with_the_end_token(tmp_path):
    asked = recipe.load(of(PPO, tmp_path)).recipe
    tokenizer: Any = SimpleNamespace(pad_token_id=2, eos_token_id=2, eos_token="</s>")
    with pytest.raises(RecipeError, match="ends no completion"):
        special_tokens._refuse_end_as_padding(tokenizer, asked)
    tokenizer.pad_token_id = 0
    special_tokens._refuse_end_as_padding(tokenizer, asked)
    tokenizer.pad_token_id = 2
    others = asked.model_copy(update={"algorithm": "grpo"})
    special_tokens._refuse_end_as_padding(tokenizer, others)


def test_what_ppo_cannot_do_is_said_before_anything_is_loaded(tmp_path):
    code, out, err = in_process("check", of(PPO, tmp_path))
    assert code == 0 and "PPO has no checkpoints" in out + err and "far slower" in out + err
    code, out, err = in_process("check", of(ONLINE_DPO, tmp_path))
    assert code == 0 and "checkpoints" not in out + err


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_shipped_recipe_is_written_anew_for_any_algorithm(name):
    base = recipe.load("qwen2.5-1.5b").recipe
    train = base.train.model_copy(update={"top_p": 0.9})
    lora = base.lora.model_copy(update={"lora_dropout": 0.1})
    written = scaffold.for_algorithm(base.model_copy(update={"train": train, "lora": lora}), name)
    algorithm = ALGORITHMS[name]
    assert written.algorithm == name and type(written.train) is algorithm.train
    for size, preset in written.preset.items():
        before = base.preset[size]
        assert preset.num_generations == (algorithm.group_size or before.num_generations)
        completions = before.prompts_per_step * before.num_generations
        if algorithm.group_size:
            assert preset.prompts_per_step * preset.num_generations == completions


def test_the_memory_of_ppo_is_predicted_and_grows_with_its_passes(tmp_path):
    base = recipe.load("qwen2.5-1.5b").recipe
    written = scaffold.for_algorithm(base, "ppo")
    peaks = []
    for batch in (1, 2, 8):
        presets = {
            size: preset.model_copy(update={"per_device_train_batch_size": batch})
            for size, preset in written.preset.items()
        }
        changed = written.model_copy(update={"preset": presets})
        target = planning.Target.elsewhere(CARD)
        plan = planning.make(changed, target, base_dir=tmp_path, preset="24GB")
        assert plan.backend == "trl" and plan.predicted is not None
        assert plan.predicted.error == plain.ERROR and plan.predicted.peak_phase == "train"
        peaks.append(plan.predicted.peak_bytes)
    assert peaks == sorted(peaks)
    assert plan.predicted is not None and plan.predicted.verdict == "does not fit"
    (way,) = plan.predicted.ways
    assert way.startswith("--set preset.per_device_train_batch_size=")


def test_a_group_that_cannot_be_larger_is_not_told_to_be(tmp_path):
    for algorithm in ALGORITHMS.values():
        terms = Terms.of(planned(of(algorithm, tmp_path)).model_dump())
        assert terms.has_fixed_group == (algorithm.group_size is not None)
