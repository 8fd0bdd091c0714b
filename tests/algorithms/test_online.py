"""Online DPO and PPO: what differs from TRL's trainers, and what a recipe may ask of them."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from rich.console import Console

from r1recipes import planning, recipe
from r1recipes.algorithms import ALGORITHMS, ONLINE_DPO, PPO
from r1recipes.data.tokenizer import special_tokens
from r1recipes.errors import RecipeError, Stopped
from r1recipes.machine import files
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning.memory import plain
from r1recipes.recipe import scaffold
from r1recipes.runs.health.verdicts import Terms
from r1recipes.training.backends import trainer, weights
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.view import View
from tests.algorithms.test_algorithms import of, planned
from tests.conftest import SMALL
from tests.helpers import in_process, run_in_process

CARD = Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 24 * GIB, 8.9, "580.1")
PROMPTS = [[{"role": "user", "content": f"{n} + {n}"}] for n in (3, 12, 5, 70)]


def paid(prompts: Any, completions: Any, answer: Any, **_: Any) -> list[float | None]:
    """The first two prompts have a better completion, the others none."""
    assert len(prompts) == len(completions) == len(answer)
    return [float(n % 2 and n < 4) for n in range(len(prompts))]


paid.failures = {}  # type: ignore[attr-defined]


def made(path: Path, steps: Hooks | None = None, batch: int = 2, **train: Any) -> Any:
    """A trainer of the recipe that would train on `PROMPTS`, and its backend."""
    plan = planned(path)
    step = plan.step
    plan = plan.model_copy(
        update={
            "recipe": plan.recipe.model_copy(update={"rewards": {"correctness": 1.0}}),
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": step.completions // batch,
        }
    )
    backend = TrlBackend(plan, offline=True)
    backend.load(None, None)
    made = trainer.make(
        plan,
        model=backend.model,
        tokenizer=backend.tokenizer(),
        rows=Dataset.from_list([{"prompt": p, "answer": "6"} for p in PROMPTS]),
        rewards={"correctness": paid},  # type: ignore[dict-item]
        config_arguments=trainer.arguments(plan, path.parent / "out"),
        hooks=steps or Hooks(),
    )
    return made, backend


def short(path: Path) -> Path:
    """One step of four prompts; nothing is learned at rate 0, and no gradient is clipped."""
    text = path.read_text().replace("max_steps = 6", "max_steps = 1")
    path.write_text(text.replace("learning_rate = 1e-3", "max_grad_norm = 1e6\nlearning_rate = 1e-3"))
    return path


def gradient_of(path: Path, batch: int) -> list[torch.Tensor]:
    """The gradient of one step, with passes of so many completions."""
    trl_trainer, backend = made(path, batch=batch)
    gradients: list[torch.Tensor] = []
    parameters = [p for p in backend.model.parameters() if p.requires_grad]

    def note(*_: Any) -> None:
        gradients.extend(p.grad.clone() for p in parameters)

    create = trl_trainer.create_optimizer

    def created(*arguments: Any) -> Any:
        optimizer = create(*arguments)
        optimizer.register_step_pre_hook(note)
        return optimizer

    if trl_trainer.optimizer is None:
        trl_trainer.create_optimizer = created
    else:
        trl_trainer.optimizer.optimizer.register_step_pre_hook(note)
    torch.manual_seed(1)
    trl_trainer.train(resume_from_checkpoint=None)
    return gradients[: len(parameters)]


def test_passes_of_any_size_have_the_gradient_of_the_step(tmp_path):
    """TRL adds up the gradients of the passes of online DPO without dividing."""
    path = short(of(ONLINE_DPO, tmp_path))
    whole, halves = gradient_of(path, 8), gradient_of(path, 4)
    assert any(part.abs().max() > 0 for part in whole)
    for one, other in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)


def test_the_reference_of_online_dpo_is_the_model_without_its_adapter(tmp_path):
    trl_trainer, backend = made(of(ONLINE_DPO, tmp_path))
    assert trl_trainer.ref_model is None and trl_trainer.model is backend.model
    loaded = sum(p.numel() for p in backend.model.parameters())
    base = sum(p.numel() for p in weights.load_base(backend.plan, None, offline=True).parameters())
    assert loaded < 1.5 * base


def test_pairs_that_earn_the_same_have_no_tokens(tmp_path):
    trl_trainer, _ = made(short(of(ONLINE_DPO, tmp_path)), batch=8)
    masks = []
    pay = trl_trainer._calculate_rewards_from_functions

    def noted(*arguments: Any, **columns: Any) -> Any:
        rewards = pay(*arguments, **columns)
        masks.append((rewards, trl_trainer_mask()))
        return rewards

    generate = trl_trainer._generate
    tensors: list[Any] = []

    def kept(*arguments: Any, **options: Any) -> Any:
        tensors[:] = generate(*arguments, **options)
        return tuple(tensors)

    def trl_trainer_mask() -> torch.Tensor:
        return tensors[3].sum(1) > 0

    trl_trainer._generate, trl_trainer._calculate_rewards_from_functions = kept, noted
    trl_trainer.train()
    ((rewards, has_tokens),) = masks
    assert rewards.tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert has_tokens.tolist() == [True, True, False, False] * 2


@pytest.mark.parametrize("algorithm", [ONLINE_DPO, PPO], ids=lambda row: row.name)
def test_a_step_is_recorded_as_those_of_grpo(tmp_path, algorithm):
    rows: list[dict[str, Any]] = []
    samples: list[Any] = []

    def on_step(row: dict[str, Any], step_samples: list[Any]) -> None:
        rows.append(row)
        samples.extend(step_samples)

    path = short(of(algorithm, tmp_path))
    trl_trainer, _ = made(path, Hooks(on_step=on_step))
    trl_trainer.train(resume_from_checkpoint=None)
    (row,) = rows
    assert row.keys() >= {
        "loss",
        "grad_norm",
        "learning_rate",
        "reward",
        "reward_std",
        "rewards/correctness/mean",
        "accuracy",
        "completions/mean_length",
        "completions/clipped_ratio",
        "kl",
        "entropy",
        "time/generation_s",
    }
    expected = paid(*[[None] * (8 if algorithm is ONLINE_DPO else 16)] * 3)
    assert row["reward"] == pytest.approx(sum(expected) / len(expected))  # type: ignore[arg-type]
    assert row["accuracy"] == row["reward"] == row["rewards/correctness/mean"]
    assert row["kl"] == pytest.approx(0, abs=1e-4)  # a fresh adapter changes nothing
    assert ("frac_reward_zero_std" in row) == algorithm.compares
    assert samples[0]["answer"] == "6"
    parts = ("generation", "rewards", "logprobs", "backward")
    assert sum(row[f"time/{part}_s"] for part in parts) <= row["time/step_s"] * 1.01


def test_the_rewards_of_ppo_get_the_columns_of_the_row_of_each_completion(tmp_path):
    """Also where prompts are the same and their answers differ."""
    path = short(of(PPO, tmp_path))
    trl_trainer, backend = made(path)
    seen: list[tuple[str, str]] = []

    def pay(prompts: Any, completions: Any, answer: Any, **_: Any) -> list[float]:
        seen.extend((p[-1]["content"], a) for p, a in zip(prompts, answer, strict=True))
        return [float(a) for a in answer]

    rollout = trl_trainer.reward_model
    rows = [{"prompt": PROMPTS[n // 2], "answer": str(n)} for n in range(4)]
    object.__setattr__(rollout.parts, "rows", Dataset.from_list(rows))
    rollout.collector.functions = lambda: [pay]
    queries = next(iter(rollout))["input_ids"]
    rollout.add([[5, 6, 7]] * len(queries))
    scores = [
        rollout.score(rollout.backbone(input_ids=part).hidden_states[-1])[:, -1, 0]
        for part in queries.split(4)
    ]
    assert torch.cat(scores).tolist() == [float(answer) for _, answer in seen]
    assert sorted({(p, a) for p, a in seen}) == sorted(
        {(row["prompt"][-1]["content"], row["answer"]) for row in rows}
    )


def test_ppo_holds_no_second_model(tmp_path):
    trl_trainer, backend = made(of(PPO, tmp_path))
    own = {id(p) for p in backend.model.parameters()}
    others = [p for p in trl_trainer.model.parameters() if id(p) not in own]
    size = backend.model.config.hidden_size
    assert sorted(p.numel() for p in others) == [1, size]
    assert trl_trainer.ref_model is None


def test_ppo_scores_what_it_has_sampled_as_trl_does(tmp_path):
    """The log-probs that are held in place of logits are those that TRL takes from the logits."""
    trl_trainer, backend = made(short(of(PPO, tmp_path)))
    module = __import__(type(trl_trainer).__module__, fromlist=["batch_generation"])
    before = module.batch_generation
    rows: list[Any] = []

    @contextmanager
    def watched() -> Iterator[None]:
        log = trl_trainer.log
        trl_trainer.log = lambda logs, *rest: (rows.append(dict(logs)), log(logs, *rest))[1]
        yield

    with watched():
        trl_trainer.train(resume_from_checkpoint=None)
    assert module.batch_generation is before
    assert rows[0]["val/ratio"] == pytest.approx(1, abs=0.05)
    assert rows[0]["policy/approxkl_avg"] < 0.01


@pytest.mark.parametrize("prompts", ["4", '"auto"'])
def test_another_number_of_completions_is_refused_with_the_change_that_works(tmp_path, prompts):
    path = of(ONLINE_DPO, tmp_path)
    text = path.read_text().replace("num_generations = 2", "num_generations = 8")
    path.write_text(text)
    with pytest.raises(RecipeError) as refused:
        recipe.load(path)
    (problem,) = refused.value.problems
    assert problem.message == "Online DPO takes 2 completions of a prompt, not 8"
    assert problem.hint is not None and "`prompts_per_step = 16`" in problem.hint
    path.write_text(text.replace("= 8", "= 2").replace("prompts_per_step = 4", "prompts_per_step = 16"))
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
        assert preset.num_generations == algorithm.group_size or before.num_generations
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
    assert peaks == sorted(peaks) and plan.predicted.verdict == "does not fit"
    (way,) = plan.predicted.ways
    assert way.startswith("--set preset.per_device_train_batch_size=")


def test_a_group_that_cannot_be_larger_is_not_told_to_be(tmp_path):
    for algorithm in ALGORITHMS.values():
        terms = Terms.of(planned(of(algorithm, tmp_path)).model_dump())
        assert terms.has_fixed_group == (algorithm.group_size is not None)


@pytest.mark.slow
def test_ppo_stops_at_once_and_begins_its_training_anew(tmp_path, monkeypatch):
    """Ctrl-C after a step; a later run of the same recipe gives the same numbers."""
    path = of(PPO, tmp_path)
    whole = run_in_process(path, tmp_path / "runs")
    asked = iter([False, True])
    monkeypatch.setattr("r1recipes.machine.terminal.Interrupts.asked", lambda self: next(asked, True))
    with pytest.raises(Stopped, match="no step is saved yet"):
        run_in_process(path, tmp_path / "stopped")
    (folder,) = (tmp_path / "stopped" / "small").iterdir()
    rows = files.read_lines(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    first = files.read_lines(whole.metrics)[0]
    assert rows[0]["reward"] == first["reward"] and rows[0]["grad_norm"] == first["grad_norm"]


def test_the_view_leaves_out_the_spread_of_groups_that_are_not_compared(tmp_path):
    out = io.StringIO()
    view = View(Console(file=out, width=200), live=False)
    row = {"step": 1, "reward": 1.0, "reward_std": 0.5, "loss": 0.0}
    plan = planned(of(PPO, tmp_path))
    view.plan = plan
    from r1recipes.training.view import fact_parts

    assert not any("groups" in part for part in fact_parts(row, plan.algorithm))
    assert any("groups" in part for part in fact_parts(row | {"frac_reward_zero_std": 0.5}, ONLINE_DPO))


assert SMALL
