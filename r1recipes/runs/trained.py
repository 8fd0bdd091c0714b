"""A trained run: its plan with pinned commits, its base model and its adapter, ready to answer.

Everything comes from the run folder, apart from the weights of a model on the Hub. Limits: a run
without an adapter is refused.
"""

from dataclasses import dataclass
from pathlib import Path

from r1recipes.errors import PlanError, RecipeError
from r1recipes.machine.gpu import Gpu
from r1recipes.planning.plan import Plan, choose_dtype, has_unsloth, pinned
from r1recipes.recipe import references
from r1recipes.runs import record
from r1recipes.runs.record import Run


@dataclass(frozen=True)
class TrainedRun:
    """A run that has an adapter, with its plan."""

    run: Run
    plan: Plan

    @property
    def base(self) -> Path | None:
        """The model after the cold start; None where the base is the model of the recipe."""
        return self.run.base if self.plan.recipe.cold_start else None

    def chat_template(self) -> str:
        """The chat template that was trained with, also where the recipe names a file."""
        return (self.run.adapter / "chat_template.jinja").read_text(encoding="utf-8")


def find(runs_dir: Path, name: str) -> TrainedRun:
    """The trained run with this folder or name.

    Raises: RecipeError when there is no such run, when it has no adapter yet, or when the id of its
    model on the Hub is also a folder here.
    """
    run = record.find(runs_dir, name)
    if not run.adapter.is_dir():
        raise RecipeError(
            f"{run.folder} has no trained adapter: it {run.standing()}", hint=run.to_go_on()
        )
    locked = run.read_lock()
    plan = pinned(run.plan(), locked)
    needed = {"recipe.toml": "the recipe"}
    if plan.recipe.cold_start:
        needed["base"] = "the model after the cold start"
    for file, meaning in needed.items():
        if not (run.folder / file).exists():
            raise RecipeError(
                f"{run.folder} has lost `{file}`, {meaning}",
                hint="put back a copy of this folder, or train again",
            )
    if locked.get("source"):
        references.refuse_taken(plan.recipe.model_dump(), plan.base_dir)
    return TrainedRun(run, plan)


def on_this_machine(plan: Plan, gpu: Gpu | None) -> Plan:
    """The plan of a trained run, with the backend that is installed here.

    Raises: PlanError when the plan needs a GPU and there is none.
    """
    if plan.device == "cpu":
        return plan
    if gpu is None:
        raise PlanError(
            f"this run was trained on a GPU (preset {plan.preset_name}), and there is none here",
            hint="run this on a machine with an NVIDIA GPU; `ask` and `export` also work on a CPU",
        )
    return plan.model_copy(update={"backend": "unsloth" if has_unsloth() else "trl"})


def for_answers(plan: Plan, gpu: Gpu | None) -> Plan:
    """The plan of a trained run for single answers: plain transformers, on a GPU or a CPU.

    transformers starts at once and can stream. Without a GPU there are no 4-bit weights, and the
    base is loaded in 32 bits.
    """
    device = "cuda" if gpu is not None and plan.device == "cuda" else "cpu"
    four_bit = plan.preset.load_in_4bit and device == "cuda"
    preset = plan.preset.model_copy(update={"load_in_4bit": four_bit})
    dtype = choose_dtype(device, gpu)
    return plan.model_copy(
        update={"backend": "trl", "device": device, "dtype": dtype, "preset": preset}
    )
