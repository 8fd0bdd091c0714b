"""Open a trained run: its plan with pinned commits, and its base and adapter, ready to answer.

Everything comes from the run folder, apart from the weights of a model on the Hub. Limits: a run
that has no adapter yet is refused.
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
class Finished:
    """A run that has an adapter."""

    run: Run
    plan: Plan

    @property
    def base(self) -> Path | None:
        """The model after the cold start; None where the base is that of the recipe."""
        return self.run.base if self.plan.recipe.cold_start else None

    def chat_template(self) -> str:
        """As the run had it, also when its recipe named a file."""
        return (self.run.adapter / "chat_template.jinja").read_text(encoding="utf-8")


def find(runs_dir: Path, name: str) -> Finished:
    """Raises: RecipeError: no such run, no adapter yet, or a Hub id that is a folder here."""
    run = record.find(runs_dir, name)
    if not run.adapter.is_dir():
        raise RecipeError(
            f"{run.folder} has no trained adapter: it {run.standing()}", hint=run.to_go_on()
        )
    began = run.read_lock()
    plan = pinned(run.plan(), began)
    needed = {"recipe.toml": "the recipe"}
    if plan.recipe.cold_start:
        needed["base"] = "the model after the cold start"
    for name, what in needed.items():
        if not (run.folder / name).exists():
            raise RecipeError(
                f"{run.folder} has lost `{name}`, {what}",
                hint="put back a copy of this folder, or train again",
            )
    if began.get("source"):
        references.refuse_taken(plan.recipe.model_dump(), plan.base_dir)
    return Finished(run, plan)


def on_this_machine(plan: Plan, gpu: Gpu | None) -> Plan:
    """The plan as it was trained, with the engine that is installed here.

    Raises: PlanError when it needs a GPU that is not here.
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
    """The plan with transformers, which streams and starts at once, on a GPU or a CPU.

    Without a GPU 4-bit weights are not had: the base is loaded in 32 bits then.
    """
    device = "cuda" if gpu is not None and plan.device == "cuda" else "cpu"
    four_bit = plan.preset.load_in_4bit and device == "cuda"
    preset = plan.preset.model_copy(update={"load_in_4bit": four_bit})
    dtype = choose_dtype(device, gpu)
    return plan.model_copy(
        update={"backend": "trl", "device": device, "dtype": dtype, "preset": preset}
    )
