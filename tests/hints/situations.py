"""The situations in which the program names a command: a folder with files, runs and studies, and
the command lines that lead to a message there.
"""

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from r1recipes import planning, recipe
from r1recipes.runs import Run, record
from r1recipes.study import driver, loading

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
STUDY = """format = 1
recipe = "small.toml"

[study]
n_trials = 2

[search]
"train.learning_rate" = { low = 1e-6, high = 5e-5, log = true }
"""
CPU_PRESET = """max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 4
"""


@dataclass
class Situation:
    """A command line, and what is there when it is given."""

    line: str
    """The words behind the program's name; `{run}` and the like are names of `World.names`."""
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[["World"], None] | None = None


class World:
    """A folder with what the situations need; it is the working folder while they are tried."""

    def __init__(self, folder: Path, small: str):
        self.folder, self.small = folder, small
        self.names: dict[str, str] = {}
        (folder / "small.toml").write_text(small)
        (folder / "other.toml").write_text(small)
        (folder / "staged.toml").write_text(small + '[[stage]]\nalgorithm = "sft"\n')
        (folder / "empty.toml").write_text("")
        (folder / "broken.toml").write_text("format\n")
        (folder / "far.toml").write_text(STUDY.replace("small.toml", "plain"))
        (folder / "model").mkdir()
        (folder / "st.toml").write_text(STUDY)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
        self._name_runs()
        self._write_recipes()

    def _name_runs(self) -> None:
        """Runs that are complete, stopped, failed, and cut short."""
        runs = self.folder / "runs"
        complete = next(r for r in record.all_runs(runs) if r.status() == "complete")
        self.names["complete"] = str(complete.folder.relative_to(self.folder))
        failures = {"stopped": None, "oom": "try `--set preset.num_threads=1`"}
        failures |= {"forced": "raise `num_generations`, or train anyway with `--force`"}
        for name, hint in failures.items():
            run = self.new_run(name)
            error = hint and {"kind": "oom", "message": "it failed", "hint": hint}
            run.update(status="failed" if hint else "stopped", error=error)
        shutil.copytree(complete.folder, runs / "finished")
        Run(runs / "finished").update(stopped_at_step=2)
        self.names["finished"] = "runs/finished"

    def new_run(self, name: str) -> Run:
        """A run of small.toml that has begun, and nothing more; its name is that of its folder."""
        loaded = recipe.load(self.folder / "small.toml")
        plan = planning.make(
            loaded.recipe, planning.Target.here(None, 1), base_dir=self.folder, preset="cpu"
        )
        run = record.create(loaded, plan, self.folder / "runs" / name, self.folder / "runs")
        self.names[name] = f"runs/{name}"
        return run

    def _write_recipes(self) -> None:
        small = self.small
        head, _, _ = small.partition("[preset.cpu]")
        gpu = f"{head}[preset.24GB]\ngpu_memory_utilization = 0.5\n{CPU_PRESET}"
        (self.folder / "gpu.toml").write_text(gpu)
        ppo = recipe.find("phi4").read_text().replace('"grpo"', '"ppo"')
        (self.folder / "ppo.toml").write_text(ppo)
        foreign = self.folder / "foreign"
        foreign.mkdir()
        (self.folder / "plain").mkdir()
        (self.folder / "plain" / "recipe.toml").write_text(small)
        text = small + "\n[track]\ntensorboard = true\n"
        (foreign / "recipe.toml").write_text(text)
        with_code = self.folder / "code"
        with_code.mkdir()
        code = small.replace("[rewards]", '[rewards]\n"mine.py:pay" = 1.0')
        (with_code / "recipe.toml").write_text(code)
        (with_code / "mine.py").write_text("def pay(completion, row):\n    return 1.0\n")
        answers = [{"completion": "<answer>3</answer>", "question": "1+2=", "answer": "3"}] * 30
        lines = "".join(json.dumps(row) + "\n" for row in answers)
        (self.folder / "answers.jsonl").write_text(lines)


def _no_runs(world: World) -> None:
    (world.folder / "runs").rename(world.folder / "hidden")


def runs_again(world: World) -> None:
    """Put back the runs that a situation took away."""
    if (world.folder / "hidden").is_dir():
        shutil.rmtree(world.folder / "runs", ignore_errors=True)
        (world.folder / "hidden").rename(world.folder / "runs")


def _begun_study(world: World) -> None:
    """A study in its database, with no trial yet."""
    loaded = loading.load(world.folder / "st.toml")
    folder = world.folder / "runs" / "st"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(exist_ok=True)
    driver.create_cells(loaded, folder, f"sqlite:///{folder.absolute()}/study.db")


def _changed_study(world: World) -> None:
    _begun_study(world)
    text = STUDY.replace("5e-5", "9e-5")
    (world.folder / "changed.toml").write_text(text)


def _checkpoints(world: World) -> None:
    """Checkpoints of the complete run, which can be deleted."""
    folder = world.folder / world.names["complete"] / "checkpoints" / "checkpoint-2"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_bytes(b"0" * 1000)


def _exported(world: World) -> None:
    (world.folder / world.names["complete"] / "export" / "lora").mkdir(parents=True, exist_ok=True)


SITUATIONS = [
    Situation(""),
    Situation("lst"),
    Situation("--json list"),
    Situation("new"),
    Situation("new x.toml"),
    Situation("new x --model unsloth/phi-4"),
    Situation("new y.toml --model unsloth/phi-4 --algorithm RLOOO"),
    Situation("new y.toml --model unsloth/Meta-Llama-3.1-70B-Instruct --gpu t4"),
    Situation("new z.toml --model unsloth/phi-4 --gpu t4"),
    Situation("completion fish"),
    Situation("list studies", prepare=_no_runs),
    Situation("list studies", prepare=_begun_study),
    Situation("list runs", prepare=_no_runs),
    # recipes
    Situation("plan"),
    Situation("check phi4 --set algorithm=rloo"),
    Situation("check broken.toml"),
    Situation("check far.toml"),
    Situation("check nothing-like-it"),
    Situation("check phi5"),
    Situation("check phi5.toml"),
    Situation("check missing.toml"),
    Situation("check empty.toml"),
    Situation("check st.toml --set x"),
    Situation("run st.toml"),
    Situation("check small.toml --set x"),
    Situation("check small.toml --set =5"),
    Situation("check small.toml --set train.max_steps.x=1"),
    Situation("check small.toml --set 'export.to=[\"hub:a/b\"]'"),
    Situation("check small.toml --set data.eval_size=0"),
    Situation("check foreign"),
    Situation("check small.toml --set model.name=./model"),
    Situation("check staged.toml --set stage.2.train.max_steps=5"),
    Situation(f"check {'x' * 300}"),
    Situation("check hub:somebody/something --set train.max_steps=5"),
    Situation("copy code here.toml"),
    Situation("copy phi4 phi4-copy.toml"),
    # planning
    Situation("plan phi4"),
    Situation("plan tiny"),
    Situation("plan smollm2-135m --preset cpu"),
    Situation("plan phi4 --vram h100"),
    Situation("plan phi4 --vram 9999"),
    Situation("plan phi4 --vram 4"),
    Situation("plan phi4 --vram 8"),
    Situation("plan phi4 --preset 12GB --gpu t4"),
    Situation("plan ppo.toml --gpu h100"),
    Situation("plan phi4 --gpu 'a100 mig 1g.5gb'"),
    Situation("plan phi4 --gpu 'rtx 4090 48gb'"),
    Situation("plan phi4 --gpu 'rtx 4099'"),
    Situation("plan phi4 --gpu zzzz"),
    Situation("plan phi4 --gpu a10-4a"),
    Situation("plan phi4 --gpu 24gb"),
    Situation("plan phi4 --gpu a100"),
    Situation("plan phi4 --gpu t4 --set preset.load_in=fp8"),
    Situation("plan qwen2.5-1.5b --gpu h100 --set preset.kv_cache_dtype=fp8"),
    Situation(
        "plan qwen2.5-1.5b --gpu h100 --set model.name=unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit "
        "--set preset.load_in=16bit"
    ),
    Situation(
        "plan qwen2.5-1.5b --gpu h100 --set preset.load_in=4bit",
        {"UNSLOTH_VLLM_MERGED_ROLLOUT": "1"},
    ),
    Situation("rehearse tiny"),
    Situation("rehearse phi4"),
    Situation("rehearse phi4 --steps 0"),
    Situation("doctor"),
    # runs
    Situation("run"),
    Situation("run phi4"),
    Situation("run gpu.toml"),
    Situation("run smollm2-135m --preset 24GB"),
    Situation("run smollm2-135m --set train.optim=paged_adamw_8bit"),
    Situation("run small.toml --locked"),
    Situation("run small.toml --run-dir {stopped}"),
    Situation("run small.toml --wandb offline"),
    Situation("run small.toml --wandb --offline"),
    Situation("run --resume", prepare=_no_runs),
    Situation("run --resume {finished}"),
    Situation("run other.toml --resume {stopped}"),
    Situation("run --resume {stopped} --wandb"),
    Situation("ask {complete} ''"),
    Situation("export {stopped} --to lora"),
    Situation("export {oom} --to lora"),
    Situation("export {forced} --to lora"),
    Situation("export {complete} --to hub"),
    Situation("export {complete} --to merged_4bit"),
    Situation("export {complete} --to lora", prepare=_exported),
    Situation("report", prepare=_no_runs),
    Situation("report small", prepare=_no_runs),
    Situation("report nothing"),
    Situation("report {complete} --out ."),
    Situation("compare {complete}"),
    Situation("clean --cache {complete}"),
    Situation("clean {complete}", prepare=_checkpoints),
    Situation("grade small.toml"),
    Situation("grade small.toml answers.jsonl"),
    Situation("share {complete} --private"),
    Situation("share {complete} --to https://nowhere"),
    Situation("share {complete} --to repeat.r1.zip"),
    Situation("share {complete} --to shared.zip"),
    Situation("share {complete} --to shared.r1.zip"),
    Situation("share {complete} --to shared.r1.zip"),
    # studies
    Situation("sweep small.toml"),
    Situation("sweep st.toml --workers -1"),
    Situation("sweep st.toml --n-trials 0"),
    Situation("sweep st.toml --name a/b"),
    Situation("sweep st.toml --workers 0"),
    Situation("sweep st.toml --set train.learning_rate=1e-5"),
    Situation("sweep st.toml --launcher ray"),
    Situation("sweep changed.toml --name st --workers 0", prepare=_changed_study),
    Situation("study nothing", prepare=_no_runs),
    Situation("study nothing", prepare=_begun_study),
    Situation("study st", prepare=_begun_study),
    Situation("study runs/st", prepare=_begun_study),
    Situation("study {stopped}"),
    Situation("study elsewhere/st"),
    Situation("study st --storage sqlite:///nothing.db"),
]

UNPROVOKED = {
    "r1recipes doctor --update": "doctor --update",
    "--to merged_16bit": "export RUN --to merged_16bit",
    "r1recipes grade RECIPE --sample 8": "grade small.toml --sample 8",
    "--port 0": "report --serve --port 0",
    "--set lora.target_modules={}": "run phi4 --set 'lora.target_modules=[\"q_proj\"]'",
    "r1recipes report --serve": "report --serve",
    "--base {}": "export RUN --to merged_16bit --base MODEL",
    "--n-trials N": "sweep st.toml --n-trials 3",
    "--to merged_16bit --base {}": "export RUN --to merged_16bit --base MODEL",
    "r1recipes run --finish {}": "run --finish RUN",
    "r1recipes run tiny --preset cpu": "run tiny --preset cpu",
    "r1recipes share": "share RUN",
    "--data phi4": "eval RUN --data phi4",
    "--offline": "export RUN --to lora --offline",
    "--base": "export RUN --to merged_16bit --base MODEL",
    "--base ID_OR_FOLDER": "export RUN --to merged_16bit --base MODEL",
    "--force": "run small.toml --force",
    "--launcher ray": "sweep st.toml --launcher ray",
    "--out": "export RUN --to lora --out FOLDER",
    "--run-dir": "run small.toml --run-dir FOLDER",
    "--set preset.load_in=16bit": "run phi4 --set preset.load_in=16bit",
    "--set preset.load_in=4bit": "run phi4 --set preset.load_in=4bit",
    "r1recipes run --resume": "run --resume",
}
"""Commands that need a card, a full disk or hours before they are printed -> a command line that
has them, which must parse."""
