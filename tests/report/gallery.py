"""One page of each kind, made of real runs: complete, failed, stopped, killed, with stages, of
several algorithms, several runs, a study, and those of version 0.1.0 and of benchmarks/learning.

Limits: a run of another algorithm than GRPO, and one with stages, is a real run whose plan says so;
its curves are those of GRPO.
"""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

from r1recipes.machine import files
from r1recipes.report import run, study
from r1recipes.runs.record import Run
from r1recipes.study import database, loading
from r1recipes.study.trials import create_cell
from tests.conftest import SMALL

TESTS = Path(__file__).parents[1]
OLD_RUNS = TESTS / "fixtures" / "version-0.1.0.tar.xz"
ON_GPUS = TESTS.parent / "benchmarks" / "learning" / "results"
NUM_LONG, TOKENS = 60, 600
"""Problems of the long run, and tokens of each of its prompts and completions."""
CHARACTERS_OF_TOKEN = 4
"""Of English text (published: OpenAI, "What are tokens and how to count them?")."""
STUDY = """\
format = 1
recipe = "small.toml"

[study]
n_trials = 12

[search]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"preset.lora_rank" = { choices = [4, 8, 16] }
"train.warmup_ratio" = { low = 0.0, high = 0.2 }
"""


def pages(finished: Run, folder: Path) -> dict[str, Path]:
    """Name -> file of a page, of which `folder` gets one each."""
    kinds = {
        "complete": finished,
        "failed": ended(
            finished, folder / "failed", "failed", {"kind": "oom", "message": "out of memory"}
        ),
        "stopped": ended(finished, folder / "stopped", "stopped"),
        "killed": ended(finished, folder / "killed", "running"),
        "stages": with_stages(finished, folder / "stages"),
        "long": long_run(finished, folder / "long"),
        **{name: of_algorithm(finished, folder / name, name) for name in ("sft", "dpo", "ppo")},
        **{path.parent.name: Run(path.parent) for path in sorted(ON_GPUS.glob("*/record.json"))},
        **old_runs(folder / "old"),
    }
    texts = {name: run.html([one]) for name, one in kinds.items()}
    texts["several"] = run.html([finished, kinds["stages"], kinds["stopped"]])
    texts["different problems"] = run.html([finished, kinds["long"]])
    texts["study"] = study.html([searched(folder / "study")], folder / "study")
    written = {}
    for name, text in texts.items():
        written[name] = folder / f"{name}.html"
        written[name].write_text(text)
    return written


def copied(finished: Run, folder: Path) -> Run:
    """A copy of a run that may be changed."""
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "base"))
    return Run(folder)


def ended(finished: Run, folder: Path, status: str, error: dict[str, str] | None = None) -> Run:
    """The run as if it had ended before its last evaluation."""
    made = copied(finished, folder)
    before = made.read()["evaluation"]["before"]
    made.update(status=status, evaluation={"before": before}, error=error)
    made.evaluation("after").unlink()
    return made


def of_algorithm(finished: Run, folder: Path, algorithm: str) -> Run:
    """The run as one of another algorithm."""
    made = copied(finished, folder)
    plan = json.loads(made.resolved.read_text())
    plan["recipe"]["algorithm"] = algorithm
    made.resolved.write_text(json.dumps(plan))
    return made


def with_stages(finished: Run, folder: Path) -> Run:
    """The run as the second training of one with a stage before it."""
    made = copied(finished, folder)
    plan = json.loads(made.resolved.read_text())
    earlier = json.loads(made.resolved.read_text())
    earlier["recipe"]["algorithm"] = "sft"
    made.resolved.write_text(json.dumps(plan | {"earlier": [earlier]}))
    stage = made.stage("1-sft")
    stage.folder.mkdir(parents=True)
    shutil.copy(made.metrics, stage.metrics)
    evaluation = made.read()["evaluation"]
    about = {"steps": 6, "seconds": 3.0, "evaluation": evaluation["after"]}
    about["difference"] = evaluation["difference"]
    made.update(
        stages=[
            {"name": "1-sft", "algorithm": "sft", **about},
            {"name": "2-grpo", "algorithm": "grpo", **about},
        ]
    )
    return made


def long_run(finished: Run, folder: Path) -> Run:
    """The run with 60 held-out problems and 60 prompts in a step, of 600 tokens each, as are their
    answers."""
    made = copied(finished, folder)
    for when in ("before", "after"):
        (item, *_) = files.read_lines(made.evaluation(when))
        items = [item | _answered(item, number, when) for number in range(NUM_LONG)]
        made.evaluation(when).write_text("".join(json.dumps(each) + "\n" for each in items))
    (row, *_) = files.read_lines(made.completions)
    rows = [
        row | {"step": step, "prompt": text_of(f"Prompt {number}"), "completion": text_of("So")}
        for step in (1, 6)
        for number in range(NUM_LONG)
    ]
    made.completions.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return made


def _answered(item: dict[str, Any], number: int, when: str) -> dict[str, Any]:
    is_right = when == "after" or number % 2 == 0
    greedy = item["greedy"] | {"text": text_of("First"), "right": is_right}
    return {"question": text_of(f"Problem {number}"), "answer": str(number), "greedy": greedy}


def text_of(beginning: str) -> str:
    """Lines of English, 600 tokens long."""
    line = "a train with eight coaches leaves the town at noon and meets the other after an hour"
    length = TOKENS * CHARACTERS_OF_TOKEN
    return f"{beginning}: {' '.join([line] * (length // len(line) + 1))}"[:length]


def old_runs(folder: Path) -> dict[str, Run]:
    """The runs of version 0.1.0."""
    with tarfile.open(OLD_RUNS) as archive:
        archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
    runs = sorted((folder / "runs" / "old").glob("*/record.json"))
    return {f"old {path.parent.name}": Run(path.parent) for path in runs}


def searched(folder: Path) -> Any:
    """A study of which all trials but one have a result, and two a report."""
    folder.mkdir()
    (folder / "small.toml").write_text(SMALL)
    (folder / "study.toml").write_text(STUDY)
    (cell,) = loading.load(folder / "study.toml").cells
    trials = create_cell(database.open_storage(f"sqlite:///{folder}/study.db"), cell)
    while (trial := trials.claim({})) is not None:
        made = folder / f"{trial.number:04d}-abcd"
        trials.note_run(trial, made, 6)
        if trial.number == 3:
            trials.fail(trial, "oom", "out of memory")
            continue
        if trial.number < 2:
            made.mkdir()
            (made / "report.html").write_text("<!doctype html><title>a trial</title>")
        trials.complete(trial, [min(1.0, 100 * trial.params["train.learning_rate"])])
    return trials
