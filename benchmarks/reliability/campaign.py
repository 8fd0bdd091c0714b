"""Kill runs, exports, bundles and sweeps at random moments, and count what is lost or doubled.

    python -m benchmarks.reliability.campaign [--kills 100] [--seed 1]

SIGKILL to the whole process group of a command, at a moment drawn uniformly from the time that it
takes undisturbed: 4 in 10 kills to `run`, each run killed until it is complete and then compared
with one that was not; 2 in 10 each to `export` and `share`, which replace an older state that must
stay whole or give way to the new one; 2 in 10 to `sweep`, whose driver dies with its workers.
Writes benchmarks/reliability/results/campaign.json; the exit code is 1 if anything was lost or
doubled, or a process or a draft is left. Limits: Linux, the small recipe, one command at a time;
moments depend on the machine's speed, not on the seed alone.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.reliability import kill_run, kill_sweep
from r1recipes.machine import files
from r1recipes.recipe import bundle
from r1recipes.runs.record import Run
from r1recipes.study import database, trials

RESULT = Path(__file__).parent / "results" / "campaign.json"
NUM_TRIALS = 6
STUDY = f"""\
format = 1
recipe = "recipe.toml"

[set]
"train.max_steps" = 3

[study]
n_trials = {NUM_TRIALS}

[search]
"train.learning_rate" = {{ low = 1e-4, high = 1e-2, log = true }}
"""
SHARES = {"run": 0.4, "export": 0.2, "share": 0.2, "sweep": 0.2}
Row = dict[str, Any]


class Campaign:
    """Kills of the commands in one folder."""

    def __init__(self, folder: Path, rng: random.Random):
        self.folder, self.rng = folder, rng
        self.rows: list[Row] = []
        self.recipe = folder / "recipe.toml"
        self.whole = Run(folder / "whole")
        kill_sweep.write_study(folder, STUDY)

    def command(self, *words: object) -> tuple[int, float]:
        """Exit code and seconds of a command that nobody kills."""
        began = time.monotonic()
        code = self.launch(*words).wait()
        return code, time.monotonic() - began

    def launch(self, *words: object) -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "r1recipes", *map(str, words)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"R1RECIPES_RUNS_DIR": str(self.folder / "runs")},
            )

    def killed(self, what: str, whole_s: float, *words: object) -> bool:
        """Kill a command at a random moment. Returns whether it had ended by itself, well."""
        after_s = self.rng.uniform(0, whole_s)
        process = self.launch(*words)
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        self.rows.append({"what": what, "after_s": round(after_s, 2), "exit_code": code})
        return code == 0

    def kills(self, what: str) -> int:
        """How many kills of a kind there were."""
        return sum(row["what"] == what and row["exit_code"] < 0 for row in self.rows)

    def runs(self, num_kills: int) -> Row:
        """Runs that are killed and resumed until they are complete."""
        code, whole_s = self.command("run", self.recipe, "--run-dir", self.whole.folder)
        assert code == 0, (self.folder / "log").read_text()[-2000:]
        states: Counter[str] = Counter()
        number = complete = same = 0
        while self.kills("run") < num_kills:
            number += 1
            run, is_over = Run(self.folder / f"run-{number}"), False
            while not is_over:
                words: list[object] = ["--resume", run.folder]
                if not run.record.exists():
                    words = [self.recipe, "--run-dir", run.folder]
                if self.kills("run") < num_kills:
                    is_over = self.killed("run", whole_s, "run", *words)
                    states.update([] if is_over else [kill_run.last_stage(run)])
                else:
                    is_over = self.command("run", *words)[0] == 0
                    break
            complete += is_over and run.read()["status"] == "complete"
            same += kill_run.metrics(run) == kill_run.metrics(self.whole) and all(
                run.evaluation(when).read_bytes() == self.whole.evaluation(when).read_bytes()
                for when in ("before", "after")
            )
        return {"runs": number, "complete": complete, "same": same, "killed": dict(states)}

    def exports(self, num_kills: int) -> Row:
        """An export that replaces an older one, whole or not at all."""
        out = self.folder / "out"
        words = ["export", self.whole.folder, "--out", out, "--to", "lora", "--to", "merged_16bit"]
        code, whole_s = self.command(*words)
        assert code == 0, (self.folder / "log").read_text()[-2000:]
        whole = 0
        while self.kills("export") < num_kills:
            self.killed("export", whole_s, *words, "--force")
            whole += all(self.is_whole(out / form) for form in ("lora", "merged_16bit"))
        code, _ = self.command(*words, "--force")
        names = sorted(path.name for path in out.iterdir())
        tries = sum(row["what"] == "export" for row in self.rows)
        return {"tries": tries, "whole": whole, "goes_on": code == 0, "left": names}

    @staticmethod
    def is_whole(folder: Path) -> bool:
        """Whether every file that an export lists is there."""
        manifest = json.loads((folder / "export.json").read_text())
        return all((folder / name).is_file() for name in manifest["files"])

    def shares(self, num_kills: int) -> Row:
        """A bundle that replaces an older one, whole or not at all."""
        target = self.folder / "shared" / "x.r1.zip"
        words = ["share", self.whole.folder, "--to", target, "--force"]
        target.parent.mkdir()
        code, whole_s = self.command(*words)
        assert code == 0, (self.folder / "log").read_text()[-2000:]
        before, same = bundle.unpack(target.read_bytes(), ""), 0
        while self.kills("share") < num_kills:
            self.killed("share", whole_s, *words)
            same += bundle.unpack(target.read_bytes(), "") == before  # raises where it is torn
        code, _ = self.command(*words)
        names = sorted(path.name for path in target.parent.iterdir())
        tries = sum(row["what"] == "share" for row in self.rows)
        return {"tries": tries, "same": same, "goes_on": code == 0, "left": names}

    def sweeps(self, num_kills: int) -> Row:
        """Studies whose driver is killed, until all of their trials are finished."""
        url_of = "sqlite:///{}/study.db".format
        finished = doubled = number = left = 0
        while self.kills("sweep") < num_kills:
            number += 1
            name = f"study-{number}"
            words = ["sweep", self.folder / "study.toml", "--name", name, "--force"]
            while self.kills("sweep") < num_kills:
                if self.killed("sweep", 25.0, *words):
                    break
                time.sleep(0.5)
                left += len(kill_sweep.workers(self.folder))
            assert self.command(*words)[0] == 0, (self.folder / "log").read_text()[-2000:]
            storage = database.open_storage(url_of(self.folder / "runs" / name))
            (cell,) = trials.load_cells(storage, name)
            ended = [trial for trial in cell.all() if trials.is_finished(trial)]
            folders = {trial.user_attrs["run"] for trial in ended}
            finished += len(ended)
            doubled += len(ended) - len(folders)
        return {
            "studies": number,
            "finished": finished,
            "of": NUM_TRIALS * number,
            "doubled": doubled,
            "left_processes": left,
        }


def is_good(kinds: dict[str, Row]) -> bool:
    """Whether nothing was lost or doubled, and everything went on."""
    runs, sweeps = kinds["run"], kinds["sweep"]
    return (
        runs["runs"] == runs["complete"] == runs["same"]
        and kinds["export"]["whole"] == kinds["export"]["tries"]
        and kinds["share"]["same"] == kinds["share"]["tries"]
        and all(kinds[kind]["goes_on"] for kind in ("export", "share"))
        and not any(files.DRAFT in n for kind in ("export", "share") for n in kinds[kind]["left"])
        and sweeps["finished"] == sweeps["of"]
        and not sweeps["doubled"]
        and not sweeps["left_processes"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), random.Random(args.seed))
        tests = {"run": campaign.runs, "export": campaign.exports, "share": campaign.shares}
        tests["sweep"] = campaign.sweeps
        kinds = {}
        for what, share in SHARES.items():
            kinds[what] = tests[what](round(args.kills * share)) | {"kills": campaign.kills(what)}
            print(what, kinds[what], flush=True)
    result: Row = {"seed": args.seed, "wall_s": round(time.monotonic() - began, 1)}
    result |= {"num_kills": sum(row["kills"] for row in kinds.values()), "kinds": kinds}
    about.write(RESULT, result | {"is_good": is_good(kinds), "kills": campaign.rows})
    sys.exit(not is_good(kinds))


if __name__ == "__main__":
    main()
