"""Online DPO and PPO: what differs from TRL's trainers, and what a recipe may ask of them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from r1recipes.algorithms import ONLINE_DPO, PPO
from r1recipes.errors import Stopped
from r1recipes.machine import files
from r1recipes.machine.terminal import Interrupts
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import trainer, weights
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from r1recipes.training.view.lines import fact_parts
from tests.algorithms.test_algorithms import of, planned
from tests.helpers import run_in_process

PROMPTS = [[{"role": "user", "content": f"{n} + {n}"}] for n in (3, 12, 5, 70)]


def paid(prompts: Any, completions: Any, answer: Any, **_: Any) -> list[float | None]:
    """The first two prompts have a better completion, the others none."""
    assert len(prompts) == len(completions) == len(answer)
    return [float(n % 2 and n < 4) for n in range(len(prompts))]


def made(path: Path, hooks: Hooks | None = None, batch: int = 2) -> Any:
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
    trl_trainer = trainer.make(
        plan,
        model=backend.model,
        tokenizer=backend.tokenizer(),
        rows=Dataset.from_list([{"prompt": p, "answer": "6"} for p in PROMPTS]),
        rewards={"correctness": Reward("correctness", paid)},
        config_arguments=trainer.arguments(plan, path.parent / "out"),
        hooks=hooks or Hooks(),
    )
    return trl_trainer, backend


def short(path: Path) -> Path:
    """One step of four prompts, whose gradient is not clipped."""
    text = path.read_text().replace("max_steps = 6", "max_steps = 1\nmax_grad_norm = 1e6")
    path.write_text(text)
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
    rows: list[dict[str, Any]]
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
    module = sys.modules[type(trl_trainer).__module__]
    before = module.batch_generation
    rows: list[Any] = []

    log = trl_trainer.log

    def logged(logs: dict[str, Any], *rest: Any) -> None:
        rows.append(dict(logs))
        log(logs, *rest)

    trl_trainer.log = logged
    trl_trainer.train(resume_from_checkpoint=None)
    assert module.batch_generation is before
    assert rows[0]["val/ratio"] == pytest.approx(1, abs=0.05)
    assert rows[0]["policy/approxkl_avg"] < 0.01


@pytest.mark.slow
def test_ppo_stops_at_once_and_begins_its_training_anew(tmp_path, monkeypatch):
    """Ctrl-C after a step; a later run of the same recipe gives the same numbers."""
    path = of(PPO, tmp_path)
    whole = run_in_process(path, tmp_path / "runs")
    asked = iter([False] * 12)  # 11 in the cold start, 1 in the training
    monkeypatch.setattr(Interrupts, "asked", lambda self: next(asked, True))
    with pytest.raises(Stopped, match="the cold start is done"):
        run_in_process(path, tmp_path / "stopped")
    (folder,) = (tmp_path / "stopped" / "small").iterdir()
    rows = files.read_lines(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    first = files.read_lines(whole.metrics)[0]
    assert rows[0]["reward"] == first["reward"] and rows[0]["grad_norm"] == first["grad_norm"]


def test_the_spread_of_groups_is_shown_only_where_they_are_compared():
    row = {"step": 1, "reward": 1.0, "reward_std": 0.5, "loss": 0.0}
    assert not any("groups" in part for part in fact_parts(row, PPO))
    compared = row | {"frac_reward_zero_std": 0.5}
    assert any("groups" in part for part in fact_parts(compared, ONLINE_DPO))
