"""One training pass with several settings of its levers, through Unsloth, on random weights.

    python -m tests.gpu.passes RESULT.json [--recipe NAME] [--preset NAME] [--steps N]
        [--idle SHARE] [--set KEY=VALUE] [--losses dapo grpo:0.04 ...] [--levers "sort,trim" ...]
        [--profile FILE]

The model has the shape of the recipe's, so nothing is downloaded. Completions are made up, with the
lengths of a real run: 120 tokens on average, the longest at the limit. Each setting trains a fresh
adapter on the same rows; the last setting of each loss (`loss_type`, with `beta` behind a colon) is
the first one again with passes of half the rows: how far its gradient is off is the rounding of
sums in 16 bits. Settings that are read before Unsloth is
imported (R1RECIPES_LOGIT_ROWS, R1RECIPES_CHECKPOINTS, `preset.layers_not_recomputed`)
are compared by calling this again. Limits: one NVIDIA GPU with the extra `gpu`; the engine is
loaded and not used.
"""

import argparse
import os
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import about
from r1recipes import planning, recipe
from r1recipes.machine import gpu, host, settings
from r1recipes.machine.units import GIB
from r1recipes.planning.plan import Plan
from r1recipes.rewards.reward import Reward
from r1recipes.runs.reading import Row
from r1recipes.training.backends import create, prepare_environment
from r1recipes.training.backends.base import Hooks
from r1recipes.training.rehearsal import child

SETTINGS = (
    "",
    "trim",
    "sort,trim",
    "sort,resize,trim",
    "score",
    "sort,resize,trim,score",
    "drop,sort,resize,trim,score",
)
MEAN, SPREAD = 100, 0.6
"""Median length of a completion, and the standard deviation of its logarithm: 120 on average."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("result", type=Path)
    parser.add_argument("--recipe", default="qwen2.5-coder-0.5b")
    parser.add_argument("--preset", default=None)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--idle", type=float, default=0.3, help="share of groups without spread")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--losses", nargs="+", default=["dapo"], metavar="LOSS[:BETA]")
    parser.add_argument("--levers", nargs="*", default=SETTINGS)
    parser.add_argument(
        "--profile", type=Path, help="a table of the last step's kernels, by setting"
    )
    asked = parser.parse_args()
    loaded = recipe.load(asked.recipe, [*asked.set, "train.max_grad_norm=1e6"])
    target = planning.Target.here(gpu.take(), host.cores())
    place = loaded.path.parent
    plan = planning.make(loaded.recipe, target, base_dir=place, preset=asked.preset)
    prepare_environment(plan, settings.load().cache_dir)
    create(plan, offline=True)  # imports Unsloth before anything else imports torch
    with TemporaryDirectory() as folder:
        measure = Measurement(plan, Path(folder), asked.steps, asked.idle, asked.profile)
        rows, results = plan.per_device_train_batch_size, []
        settings_of_a_loss = [*((levers, rows) for levers in asked.levers)]
        settings_of_a_loss.append((asked.levers[0], rows // 2))
        for loss, (levers, batch) in product(asked.losses, settings_of_a_loss):
            results.append(measure.of(levers, batch, loss))
            about.write(asked.result, {"results": results})
            print({k: v for k, v in results[-1].items() if k != "shapes"}, flush=True)
    measure.backend.close()


class Measurement:
    """A loaded model that is trained again and again."""

    def __init__(
        self, plan: Plan, folder: Path, steps: int, idle: float, profile: Path | None = None
    ):
        weights = child._weights_folder(plan, folder)
        self.plan, self.folder, self.idle = child._rehearsed(plan, weights, steps), folder, idle
        self.steps, self.profile = steps, profile
        self.backend: Any = create(self.plan, offline=True)
        child._write_weights(plan, weights)
        self.backend.load(None, None)
        self.first: dict[str, Any] = {}
        """The gradient of the first setting of each loss."""

    def of(self, levers: str, batch: int, loss: str = "dapo") -> dict[str, Any]:
        """Times, memory and the gradient of the first step with these levers."""
        import torch

        from r1recipes.training.backends import passes, trainer

        os.environ[passes.VARIABLE] = levers
        count = self.plan.completions_per_step // batch
        changes: dict[str, Any] = {child.BATCH: batch, "gradient_accumulation_steps": count}
        kind, _, beta = loss.partition(":")
        scaling = "none" if kind == "dr_grpo" else "group"  # Unsloth turns it off there
        losses = {"loss_type": kind, "beta": float(beta or 0), "scale_rewards": scaling}
        train = self.plan.recipe.train.model_copy(update=losses)
        changes["recipe"] = self.plan.recipe.model_copy(update={"train": train})
        plan = self.plan.model_copy(update=changes)
        if self.backend.trainer is not None:
            self.backend.reset(self.plan)
            self.backend.load(None, None)
        torch.manual_seed(0)
        for name, parameter in self.backend.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data, std=0.01)
        watch, make = _watch(), trainer.make
        rows: list[Row] = []

        def made(*arguments: Any, **options: Any) -> Any:
            each = make(*arguments, **options)
            each.add_callback(watch)
            if self.profile:
                each.add_callback(_profiler(self.profile, levers, self.steps))
            watch.trainer, each._generate_single_turn = (
                each,
                _made_up(plan, self.backend.tokenizer()),
            )
            return each

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        trainer.make = made
        try:
            self._train(plan, rows)
        finally:
            trainer.make = make
        first = self.first.setdefault(loss, watch.gradient)
        difference = (watch.gradient - first).norm() / first.norm()
        return {
            "loss_type": loss,
            "levers": levers,
            "batch": batch,
            "gradient_error": difference.item(),
            "grad_norm": [row["grad_norm"] for row in rows],
            "loss": [row["loss"] for row in rows],
            "backward_s": [round(row["time/backward_s"], 3) for row in rows],
            "logprobs_s": [round(row["time/logprobs_s"], 3) for row in rows],
            "allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
            "passes": [len(each) for each in watch.shapes],
            "tokens": [sum(rows * width for rows, width in each) for each in watch.shapes],
            "shapes": watch.shapes,
        }

    def _train(self, plan: Plan, rows: list[Row]) -> None:
        from datasets import Dataset

        texts = [
            f"{n:04}" + "a" * (60 + 7 * n % 50) for n in range(4 * plan.preset.prompts_per_step)
        ]
        problems = [{"prompt": [{"role": "user", "content": t}], "answer": "0"} for t in texts]
        hooks = Hooks(on_step=lambda row, samples: rows.append(row))
        group, idle = plan.preset.num_generations, self.idle

        def reward(completions: list[Any], **columns: Any) -> list[float]:
            groups = [n // group for n in range(len(completions))]
            return [
                0.5 if (7 * g) % 10 < 10 * idle else (31 * n % 97) / 97
                for n, g in enumerate(groups)
            ]

        with TemporaryDirectory(dir=self.folder) as output:
            self.backend.train(
                Dataset.from_list(problems),
                {"noise": Reward("noise", reward)},
                Path(output),
                None,
                hooks,
                plan=plan,
            )


def _watch() -> Any:
    """A callback with the gradient of the first step and the shapes of the passes of each."""
    import torch
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        trainer: Any = None
        gradient: Any = None
        shapes: list[list[tuple[int, int]]]

        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, **options: Any
        ) -> None:
            passes = [each for each in self.trainer._buffered_inputs if each]
            self.shapes.append(
                [
                    (len(p["prompt_ids"]), p["prompt_ids"].shape[1] + p["completion_ids"].shape[1])
                    for p in passes
                ]
            )
            if self.gradient is None:
                trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
                self.gradient = torch.cat([p.grad.detach().float().flatten() for p in trained])

    watch = Watch()
    watch.shapes = []
    return watch


def _profiler(path: Path, levers: str, step: int) -> Any:
    """A callback that adds a table of the time of this step's kernels and calls to `path`."""
    import torch
    from transformers import TrainerCallback

    class Profiler(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            if state.global_step + 1 == step:
                self.profile = torch.profiler.profile()
                self.profile.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            if state.global_step == step:
                self.profile.stop()
                averages = self.profile.key_averages()
                with path.open("a") as file:
                    for order in ("self_cuda_time_total", "self_cpu_time_total"):
                        table = averages.table(sort_by=order, row_limit=40)
                        print(f"== `{levers}`, {order}", table, sep="\n", file=file)

    return Profiler()


def _made_up(plan: Plan, tokenizer: Any) -> Any:
    """Completions in place of generation: the same in each setting, others in each step."""
    import torch

    random = torch.Generator().manual_seed(plan.recipe.seed)
    most, end = plan.preset.max_completion_length, tokenizer.eos_token_id
    plain = sorted({*range(min(1000, len(tokenizer)))} - {*tokenizer.all_special_ids})

    def generate(prompt_ids: list[Any], *arguments: Any, **options: Any) -> Any:
        scale = torch.randn(len(prompt_ids), generator=random)
        lengths = (MEAN * (SPREAD * scale).exp()).long().clamp(4, most).tolist()
        lengths[-1] = most
        completions = [
            [plain[n] for n in torch.randint(0, len(plain), (length - 1,), generator=random)]
            + [end]
            for length in lengths
        ]
        return completions, [[0.0] * length for length in lengths]

    return generate


if __name__ == "__main__":
    main()
