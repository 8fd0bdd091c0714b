"""One optimiser step of TRL's trainer, with its gradient and the shapes of its passes."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from r1recipes import planning, recipe
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import passes, trainer
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from tests.conftest import SMALL

ALL = ",".join(passes.LEVERS)


STEP = """
max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 8
per_device_train_batch_size = 4
num_threads = 1
"""


class Step(NamedTuple):
    """One optimiser step as the trainer has done it."""

    gradient: torch.Tensor
    shapes: list[tuple[int, int]]
    """Rows and width of each forward pass of the training."""
    row: dict[str, Any]
    """Its metrics."""


class Gradients(TrainerCallback):
    """Keeps the gradient of the last step, before the optimiser takes it."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        parameters = [p for p in kwargs["model"].parameters() if p.requires_grad]
        self.all = torch.cat([p.grad.flatten().double() for p in parameters])


def by_length(completions: list[Any], prompts: list[Any], **columns: Any) -> list[float]:
    """No spread in the groups of about half of the prompts; else the share of digits."""
    texts = [completion[0]["content"] for completion in completions]
    groups = [sum(map(ord, prompt[-1]["content"])) for prompt in prompts]
    return [
        0.5 if group % 2 else sum(map(str.isdigit, text)) / (1 + len(text))
        for group, text in zip(groups, texts, strict=True)
    ]


def always(completions: list[Any], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


def shortened(made: Any, end: int) -> Any:
    """Completions of many lengths: the untrained model writes up to the limit. Some end there."""
    generate = made._generate_single_turn

    def of_many_lengths(*arguments: Any, **options: Any) -> Any:
        result = generate(*arguments, **options)
        completions, *rest = result if isinstance(result, tuple) else (result,)
        cut = [ids[: 1 + (11 * n) % 29] for n, ids in enumerate(completions)]
        cut = [ids[:-1] + [end] if n % 4 else ids for n, ids in enumerate(cut)]
        return (cut, *rest) if isinstance(result, tuple) else cut

    return of_many_lengths


def planned(folder: Path, **train: Any) -> planning.Plan:
    """One step of the small recipe, in eight passes of four rows, paid by one reward."""
    algorithm = train.pop("algorithm", "grpo")
    text = SMALL.replace("seed = 1\n", f'seed = 1\nalgorithm = "{algorithm}"\n')
    (folder / "small.toml").write_text(text.partition("[preset.cpu]")[0] + "[preset.cpu]" + STEP)
    flags = [f"train.{key}={value}" for key, value in (train | {"max_steps": 1}).items()]
    loaded = recipe.load(folder / "small.toml", flags).recipe
    loaded = loaded.model_copy(update={"rewards": {"correctness": 1.0}})
    return planning.make(loaded, planning.Target.here(None, 1), base_dir=folder)


def step(
    folder: Path, levers: str, reward: Any = by_length, backend_row: str = "trl", **train: Any
) -> Step:
    """What a step does with these levers, with an adapter that is not fresh; `backend_row`: whose
    row of the algorithm is trained, by TRL in any case."""
    plan, metrics, shapes = planned(folder, **train), [], []
    plan = plan.model_copy(update={"backend": backend_row})
    backend, seen = TrlBackend(plan, offline=True), Gradients()
    backend.load(None, None)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    problems = [f"{n}{n}+{'1' * (1 + n % 9)}=" for n in range(40)]
    rows = [{"prompt": [{"role": "user", "content": text}], "answer": "1"} for text in problems]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(passes.VARIABLE, levers)
        made = trainer.make(
            plan,
            model=backend.model,
            tokenizer=backend.tokenizer(),
            rows=Dataset.from_list(rows),
            rewards={"correctness": Reward("correctness", reward)},
            config_arguments=trainer.arguments(plan, folder / "out"),
            hooks=Hooks(on_step=lambda row, samples: metrics.append(row)),
        )
    made.add_callback(seen)
    made._generate_single_turn = shortened(made, backend.tokenizer().eos_token_id)
    backend.model.register_forward_pre_hook(
        lambda model, arguments, options: (
            shapes.append(tuple(options["input_ids"].shape)) if torch.is_grad_enabled() else None
        ),
        with_kwargs=True,
    )
    made.train()
    return Step(seen.all, shapes, metrics[0])
