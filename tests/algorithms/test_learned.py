"""What algorithms learn from examples: which samples become some, the size of a step, the rules."""

from pathlib import Path
from typing import Any

import pytest

from r1recipes import recipe
from r1recipes.algorithms import ALGORITHMS, dpo, sft
from r1recipes.algorithms.base import Preset
from r1recipes.algorithms.examples import Scored
from r1recipes.algorithms.step import Step
from r1recipes.errors import RecipeError
from r1recipes.machine import files
from tests.algorithms.test_algorithms import write_examples
from tests.conftest import SMALL
from tests.helpers import in_process, run_in_process

LEARNING = [name for name, row in ALGORITHMS.items() if row.learned]
SAMPLING = [name for name, row in ALGORITHMS.items() if not row.learned]
PRESET = {"max_seq_length": 128, "max_completion_length": 40, "lora_rank": 8}


def preset(prompts: int, group: int, batch: int | None = None) -> Preset:
    counts = {"prompts_per_step": prompts, "num_generations": group}
    return Preset.model_validate(PRESET | counts | {"per_device_train_batch_size": batch})


def samples(*scores: tuple[str, float, bool]) -> list[Scored]:
    return [Scored(*score) for score in scores]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([("a", 0.0, False), ("b", 2.0, True), ("c", 1.0, False)], ["b"]),
        ([("b", 2.0, True), ("b", 2.0, True), ("d", 2.0, True)], ["b", "d"]),
        ([("a", 1.0, False)], []),
        ([], []),
    ],
)
def test_sft_learns_each_right_sample_once(scores, chosen):
    assert sft.choose(samples(*scores)) == [{"completion": text} for text in chosen]


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        ([("a", 0.5, False), ("b", 2.0, True), ("c", 0.0, False)], [("b", "c")]),
        ([("a", 1.0, False), ("b", 0.5, False)], [("a", "b")]),
        ([("a", 2.0, True), ("b", 2.0, True), ("c", 1.0, True), ("d", 1.0, True)], [("a", "c")]),
        ([("a", 2.0, True), ("b", 2.0, True)], []),
        ([("a", 2.0, True)], []),
        ([], []),
    ],
)
def test_dpo_learns_the_best_against_the_worst_sample(scores, pairs):
    expected = [{"chosen": best, "rejected": worst} for best, worst in pairs]
    assert dpo.choose(samples(*scores)) == expected


@pytest.mark.parametrize(
    ("name", "counts", "step"),
    [
        ("sft", (32, 8), Step(32, 8, 1)),
        ("sft", (32, 8, 64), Step(32, 32, 1)),
        ("sft", (6, 4), Step(6, 2, 1)),
        ("dpo", (32, 8), Step(64, 8, 2)),
        ("dpo", (32, 8, 64), Step(64, 64, 2)),
        ("dpo", (32, 8, 512), Step(64, 64, 2)),
        ("dpo", (5, 8), Step(10, 2, 2)),
        ("grpo", (32, 8, 64), Step(256, 64, 1)),
    ],
)
def test_a_step_has_the_completions_of_its_examples(name, counts, step):
    made = ALGORITHMS[name].step(preset(*counts))
    assert made == step and made.is_whole and step.batch in step.batches()


@pytest.mark.parametrize(
    ("name", "counts", "message", "hint"),
    [
        ("sft", (6, 8, 4), "6 demonstrations a step do not divide into batches of 4", "3` or 6"),
        ("dpo", (6, 8, 5), "6 pairs = 12 completions a step do not divide into", "4` or 6"),
        ("dpo", (6, 8, 3), "do not divide into batches of 3", "2` or 4"),
        ("dpo", (1, 8, 1), "1 pair = 2 completions a step", "= 2`"),
        ("grpo", (3, 4, 5), "3 prompts x 4 completions = 12 completions", "4` or 6"),
    ],
)
def test_passes_that_do_not_divide_a_step_are_refused(tmp_path, name, counts, message, hint):
    prompts, group, batch = counts
    text = SMALL.replace("num_generations = 4", f"num_generations = {group}")
    text = text.replace("prompts_per_step = 4", f"prompts_per_step = {prompts}")
    path = written(tmp_path, name, f"{text}\nper_device_train_batch_size = {batch}\n")
    code, _, err = in_process("check", path)
    assert code == 2 and message in err and hint in err and err.count("error:") == 1
    line = len(path.read_text().splitlines())
    assert f"small.toml:{line}:" in err


def written(folder: Path, name: str, text: str = SMALL) -> Path:
    """The small recipe with this algorithm."""
    path = folder / "small.toml"
    text = text.replace("seed = 1\n", f'seed = 1\nalgorithm = "{name}"\n')
    if size := ALGORITHMS[name].group_size:
        text = text.replace("num_generations = 4", f"num_generations = {size}")
    path.write_text(text)
    return path


def without_rewards(text: str = SMALL) -> str:
    start, end = text.index("[rewards]"), text.index("[train]")
    return text[:start] + text[end:]


EXAMPLES = '\n[examples]\nname = "examples.jsonl"\n'


def problems(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(RecipeError) as refused:
        recipe.load(path)
    return [(problem.message, problem.hint or "") for problem in refused.value.problems]


@pytest.mark.parametrize("name", SAMPLING)
def test_an_algorithm_that_samples_takes_no_examples_and_needs_rewards(tmp_path, name):
    ((message, hint),) = problems(written(tmp_path, name, SMALL + EXAMPLES))
    assert "[examples] is not for" in message and '`algorithm = "dpo"`' in hint
    ((message, _),) = problems(written(tmp_path, name, without_rewards()))
    assert "rewards" in message and "missing" in message


def test_rewards_are_needed_where_own_samples_are_chosen_by_them(tmp_path):
    ((message, hint),) = problems(written(tmp_path, "dpo", without_rewards()))
    assert "[rewards] is missing, by which DPO chooses pairs" in message and "[examples]" in hint
    for name, text in (
        ("dpo", without_rewards() + EXAMPLES),
        ("sft", without_rewards()),
        ("sft", without_rewards() + EXAMPLES),
    ):
        loaded = recipe.load(written(tmp_path, name, text)).recipe
        assert loaded.rewards == {} and loaded.eval.reward == "correctness"


@pytest.mark.parametrize("name", LEARNING)
def test_a_filter_of_problems_is_refused_beside_examples(tmp_path, name):
    text = SMALL.replace("eval_size = 6", "eval_size = 6\nkeep = [0.1, 0.9]") + EXAMPLES
    ((message, hint),) = problems(written(tmp_path, name, text))
    assert "`keep` chooses problems to sample" in message and hint == "remove this line"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("label_smoothing = 0.1", '`label_smoothing` is for `loss_type = "robust"`'),
        ('loss_type = "robust"', '"robust" without `label_smoothing`'),
        ("beta = 0.0", "train.beta"),
        ('loss_type = "dapo"', "train.loss_type"),
        ("packing = true", "unknown key `train.packing`"),
    ],
)
def test_keys_of_dpo_that_contradict_one_another(tmp_path, lines, message):
    text = SMALL.replace("[train]\n", f"[train]\n{lines}\n")
    ((found, _),) = problems(written(tmp_path, "dpo", text))
    assert message in found


def test_a_recipe_without_examples_has_the_fingerprint_that_it_had(tmp_path):
    loaded = recipe.load(written(tmp_path, "grpo")).recipe
    assert recipe.fingerprint(loaded).startswith(OLD_FINGERPRINT)


OLD_FINGERPRINT = "cb85b9b0a6dc73f5"
"""The fingerprint of the small recipe before there was [examples]."""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_new_writes_a_valid_recipe_for_each_algorithm(tmp_path, name):
    path = tmp_path / "mine.toml"
    model = "unsloth/Qwen2.5-3B-Instruct"
    code, out, err = in_process("new", path, "--model", model, "--algorithm", name)
    assert code == 0, err
    made: Any = recipe.load(path).recipe
    assert made.algorithm == name and made.model.name == model
    assert type(made.train) is ALGORITHMS[name].train
    assert made.train.optim == "paged_adamw_8bit"  # of the nearest recipe
    if ALGORITHMS[name].learned:
        assert "#[examples]" in path.read_text()
        assert made.train.learning_rate == ALGORITHMS[name].train().learning_rate
        assert made.preset["24GB"].per_device_train_batch_size >= 1  # chosen by the planner


@pytest.mark.slow
def test_packed_demonstrations_do_not_see_one_another(tmp_path):
    """The loss of one sequence with all demonstrations is that of a step with each of them."""
    path = written(tmp_path, "sft")
    write_examples(path, ALGORITHMS["sft"])
    losses = []
    for flags in (
        ["train.packing=true", "preset.prompts_per_step=1", "preset.max_seq_length=1024"],
        ["preset.prompts_per_step=20", "preset.per_device_train_batch_size=20"],
    ):
        run = run_in_process(path, tmp_path / "runs", *flags, "train.max_steps=1")
        losses.append(files.read_lines(run.metrics)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_new_names_the_algorithms(tmp_path):
    code, _, err = in_process("new", tmp_path / "m.toml", "--model", "a/b", "--algorithm", "ppoo")
    assert code == 2 and "unknown algorithm `ppoo`" in err and "dpo" in err
