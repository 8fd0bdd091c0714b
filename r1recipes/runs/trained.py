"""A trained run: its plan with pinned commits, its base model and its adapter, ready to answer.

The adapter is that of the end of training, or of the last whole checkpoint of a run that was
stopped, failed or was killed. Everything comes from the run folder, apart from the weights of a
model on the Hub. Limits: a run with neither is refused, and so is one that is still training.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.data.local import model
from r1recipes.data.tokenizer import chat_template
from r1recipes.errors import PlanError, RecipeError
from r1recipes.machine.gpu import Gpu
from r1recipes.planning.plan import Plan, choose_dtype, has_unsloth
from r1recipes.recipe import references
from r1recipes.runs.record import Run, checkpoints, names

NEEDED = ("recipe", "fingerprint", "duration_s", "evaluation")
"""Keys of the record that every run has, beside the status."""
STATE_OF_TRAINER = (checkpoints.CHECKPOINT_DONE, "trainer_state.json", "README.md")
"""Files of a checkpoint that belong neither to the adapter nor to the tokenizer; the others of this
kind are pickled (`*.pt`, `*.pth`, `*.bin`)."""


@dataclass(frozen=True)
class TrainedRun:
    """A run that has an adapter, with its plan."""

    run: Run
    plan: Plan
    adapter: Path
    """Folder of the adapter and the tokenizer: `adapter`, or a whole checkpoint."""
    step: int
    """Optimiser steps that the adapter was trained for."""

    @property
    def base(self) -> Path | None:
        """The run's own base; None where the base is the model of the recipe."""
        return self.run.base if self.plan.has_own_base else None

    @property
    def model_name(self) -> str:
        """The model that was trained, for people; no path of this machine."""
        return self.plan.origin.model if self.plan.origin else self.plan.recipe.model.name

    @property
    def base_revision(self) -> str | None:
        """The commit of the base in 16 bits, if it is known.

        Where the base was loaded in 4 bits, the recorded commit may be of another repository, so
        only one that the recipe names is used.
        """
        plan = self.run.plan() if self.plan.preset.weights == "4bit" else self.plan
        return plan.recipe.model.revision

    def chat_template(self) -> str:
        """The chat template that was trained with, also where the recipe names a file."""
        return chat_template.read_file(self.adapter / "chat_template.jinja")

    @property
    def is_cut_short(self) -> bool:
        """Whether the adapter was trained for fewer steps than the recipe asks for."""
        return self.step < self.plan.recipe.train.max_steps

    @property
    def progress(self) -> str:
        """`step 35 of 100`."""
        return f"step {self.step} of {self.plan.recipe.train.max_steps}"

    @property
    def note(self) -> str | None:
        """What to tell the user about an adapter that is not that of a whole run."""
        if self.adapter != self.run.adapter:
            return f"checkpoint of {self.progress}; the run {self.run.standing()}"
        return f"trained to {self.progress}, where it was finished" if self.is_cut_short else None

    def adapter_files(self) -> list[Path]:
        """The files of the adapter and its tokenizer, without the trainer's state."""
        pickled = (".pt", ".pth", ".bin")
        return [
            path
            for path in sorted(self.adapter.iterdir())
            if path.is_file() and path.name not in STATE_OF_TRAINER and path.suffix not in pickled
        ]

    def evaluation(self) -> dict[str, Any]:
        """The recorded evaluations that hold for this adapter; a checkpoint has only the base's."""
        recorded: dict[str, Any] = self.run.read()["evaluation"]
        names = recorded if self.adapter == self.run.adapter else ("before",)
        return {name: recorded[name] for name in names if name in recorded}


def find(runs_dir: Path, name: str) -> TrainedRun:
    """The trained run with this folder or name.

    Raises: RecipeError when there is no such run, when it has neither an adapter nor a whole
    checkpoint yet, or when the id of its model on the Hub is also a folder here.
    """
    return of_run(names.find(runs_dir, name))


def of_run(run: Run) -> TrainedRun:
    """The trained run in a run folder.

    Raises: RecipeError when it has neither an adapter nor a whole checkpoint yet, has lost a file,
    or when the id of its model on the Hub is also a folder here.
    """
    run.refuse_special()
    run.read(*NEEDED)
    plan = run.pinned_plan()
    adapter, step = _adapter(run, plan)
    for folder in (adapter, *([run.base] if plan.has_own_base and run.base.is_dir() else [])):
        model.refuse_unsafe(folder)
    needed = {"recipe.toml": "the recipe"}
    if plan.has_own_base:
        needed["base"] = "the model that the adapter was trained on"
    for file, meaning in needed.items():
        if not (run.folder / file).exists():
            raise RecipeError(
                f"{run.folder} has lost `{file}`, {meaning}",
                hint="put back a copy of this folder, or train again",
            )
    if run.read_lock().get("source"):
        references.refuse_taken(plan.recipe.model_dump(), plan.base_dir)
    return TrainedRun(run, plan, adapter, step)


def _adapter(run: Run, plan: Plan) -> tuple[Path, int]:
    """The adapter at the end of training or of the last whole checkpoint, and its step.

    Raises: RecipeError when there is neither, or while the run trains.
    """
    if run.adapter.is_dir():
        return run.adapter, run.read().get("stopped_at_step") or plan.recipe.train.max_steps
    is_running = run.status() == "running"  # its checkpoints come and go
    if (checkpoint := run.last_checkpoint()) and not is_running:
        return checkpoint
    lacking = "no trained adapter yet" if is_running else "no trained adapter and no checkpoint"
    raise RecipeError(f"{run.folder} has {lacking}: it {run.standing()}", hint=run.to_go_on())


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
    base is loaded in 32 bits. A base that was trained on in FP8 is loaded in 16 bits.
    """
    device = "cuda" if gpu is not None and plan.device == "cuda" else "cpu"
    is_4bit = plan.preset.weights == "4bit" and device == "cuda"
    preset = plan.preset.with_weights("4bit" if is_4bit else "16bit")
    dtype = choose_dtype(device, gpu)
    return plan.model_copy(
        update={"backend": "trl", "device": device, "dtype": dtype, "preset": preset}
    )
