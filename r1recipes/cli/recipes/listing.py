"""`list`: the shipped recipes with what was measured of them, your runs, and your studies."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.cli.common import find_runs, located, printable, runs_folder
from r1recipes.errors import RecipeError, command
from r1recipes.machine.units import GIB, aligned, duration

if TYPE_CHECKING:
    from r1recipes.cli.common import Commands
    from r1recipes.planning.proofs import Proof
    from r1recipes.recipe.loading import Loaded
    from r1recipes.runs.reading import Reading, Row


def add(commands: Commands) -> None:
    listing = commands.add_parser(
        "list", help="list the shipped recipes, your runs or your studies"
    )
    listing.add_argument(
        "kind", nargs="?", choices=["recipes", "runs", "studies"], default="recipes"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(command=list_command)


def list_command(args: argparse.Namespace) -> int:
    kinds = {"recipes": list_recipes, "runs": list_runs, "studies": list_studies}
    kinds[args.kind](as_json=args.json)
    return 0


def list_recipes(*, as_json: bool) -> None:
    """Print the shipped recipes, with what was measured or is predicted of each preset."""
    from r1recipes import recipe
    from r1recipes.algorithms.base import preset_bytes
    from r1recipes.planning import proofs

    rows = []
    for path in recipe.shipped():
        loaded = recipe.load(path)
        presets = sorted(loaded.recipe.preset, key=preset_bytes)
        by_preset = {preset: proofs.find(loaded, preset, proofs.folder()) for preset in presets}
        rows.append((loaded, by_preset))
    if as_json:
        _print_json([_as_json(*row) for row in rows])
        return
    print(f"  PRESET  {'PEAK OF USABLE MEMORY':24}  S A STEP  PER HOUR  MEASURED ON")
    for loaded, by_preset in rows:
        print(f"{loaded.name}  {loaded.recipe.model.name}")
        for preset, proof in by_preset.items():
            text = "needs no GPU"
            if preset != "cpu":
                text = _in_words(proof) if proof else _predicted(loaded, preset)
            print(f"  {preset:<6}  {text}")


def list_runs(*, as_json: bool = False) -> None:
    """Print one line for each run, the oldest first, and below them one for each study."""
    runs, trials = _runs_and_trials()
    if as_json:
        _print_json(runs)
        return
    if runs:
        rows = [[row["run"], *_cells(row)] for row in runs]
        print(*aligned([["RUN", "STATUS", "STEPS", "BEFORE", "AFTER", "TIME"], *rows]), sep="\n")
    else:
        print(f"there are no runs yet; `{command('run', 'tiny')}` makes one", file=sys.stderr)
    if studies := _studies(trials):
        print(*[""] * bool(runs), *_study_lines(studies), sep="\n")


def list_studies(*, as_json: bool) -> None:
    """Print one line for each study."""
    _, trials = _runs_and_trials()
    studies = _studies(trials)
    if as_json:
        _print_json(studies)
    elif studies:
        print(*_study_lines(studies), sep="\n")
    else:
        hint = f"`{command('sweep', 'tiny')}` makes one"
        print(f"there are no studies yet; {hint}", file=sys.stderr)


def _runs_and_trials() -> tuple[list[Row], list[Row]]:
    """What is known of each run, and of each trial of a study; what is damaged is a run."""
    from r1recipes.runs import reading

    runs: list[Row] = []
    trials: list[Row] = []
    for run in find_runs([]):
        try:
            with reading.understood(run):
                row = _run_row(reading.read(run))
            (trials if row["study"] else runs).append(row)
        except RecipeError as error:
            fault = located(error.problems[0])
            print(printable(f"warning: {fault}"), file=sys.stderr)
            runs.append({"run": str(run.folder), "status": "damaged", "fault": fault})
    return runs, trials


def _run_row(run: Reading) -> Row:
    """One run as JSON."""
    record = run.record
    study = record.get("study")
    return {
        "run": str(run.run.folder),
        "recipe": record.get("recipe"),
        "status": run.status,
        "error": (record.get("error") or {}).get("kind"),
        "progress": run.progress,
        "steps": run.steps,
        "max_steps": run.max_steps,
        "accuracy_before": run.evaluated("before").get("accuracy"),
        "accuracy_after": run.evaluated("after").get("accuracy"),
        "seconds": round(run.duration_s, 1),
        "started": record.get("started"),
        "finished": record.get("finished"),
        "study": study.get("name") if isinstance(study, dict) else None,
    }


def _cells(row: Row) -> list[str]:
    if row["status"] == "damaged":
        return ["damaged", "", "", "", ""]
    shares = [row["accuracy_before"], row["accuracy_after"]]
    return [
        row["status"],
        row["progress"],
        *("-" if share is None else f"{share:.1%}" for share in shares),
        duration(row["seconds"]),
    ]


def _studies(trials: list[Row]) -> list[Row]:
    """One study as JSON, for each that has a folder; counted are the trials that were started."""
    folders = {path.parent.name: path.parent for path in runs_folder().glob("*/study.db")}
    names = dict.fromkeys([*folders, *(trial["study"] for trial in trials)])
    return [
        _study_row(name, folders.get(name), [trial for trial in trials if trial["study"] == name])
        for name in names
    ]


def _study_row(name: str, folder: Path | None, trials: list[Row]) -> Row:
    states = [trial["status"] for trial in trials]
    done = [trial["accuracy_after"] for trial in trials if trial["status"] == "complete"]
    return {
        "study": name,
        "folder": str(folder) if folder else None,
        "trials": {state: states.count(state) for state in dict.fromkeys(states)},
        "best_accuracy": max((share for share in done if share is not None), default=None),
        "seconds": round(sum(trial["seconds"] for trial in trials), 1),
    }


def _study_lines(studies: list[Row]) -> list[str]:
    rows = [["STUDY", "TRIALS", "BEST", "TIME OF ALL TRIALS"]]
    for study in studies:
        counts = ", ".join(f"{count} {state}" for state, count in study["trials"].items())
        best = study["best_accuracy"]
        share = "-" if best is None else f"{best:.1%}"
        rows.append([study["study"], counts or "none yet", share, duration(study["seconds"])])
    return [*aligned(rows), f"`{command('study', 'NAME')}` shows one with its trials"]


def _print_json(rows: list[Row]) -> None:
    import json

    print(json.dumps(rows, indent=1))


def _peak(peak_gib: float, usable_gib: float) -> str:
    return f"{peak_gib:5.2f} of {usable_gib:5.2f} GiB ({peak_gib / usable_gib:.0%})"


def _predicted(loaded: Loaded, preset: str) -> str:
    """What `plan` predicts of a preset that was not measured, in the columns of one that was."""
    from r1recipes.planning import proofs
    from r1recipes.planning.fit.presets import predicted_gib

    peak_gib, usable = predicted_gib(loaded, preset), proofs.class_bytes(preset)
    if peak_gib is None or usable is None:
        return "not measured"
    return f"{_peak(peak_gib, usable / GIB)}  {'':8}  {'':8}  predicted, not measured"


def _in_words(proof: Proof) -> str:
    """The measurements of a preset, or the reason why there are none that hold."""
    measured = proof.measured
    if not proof.holds or measured is None:
        return proof.fault or ""
    full = (
        f"{_peak(measured.peak_gib, proof.class_bytes / GIB)}  "
        f"{measured.step_s:8.1f}  {measured.completions_per_hour:8,}  "
        f"{proof.card}, {proof.date}"
    )
    real = measured.real
    if real is None or real.step_s is None:
        return full
    kind = "real" if real.lengths == "real" else printable(real.lengths)
    line = f"{f'with {kind} lengths':24.24}  {real.step_s:8.1f}  {real.completions_per_hour:8,}"
    return f"{full}\n{'':10}{line}"


def _as_json(loaded: Loaded, by_preset: dict[str, Proof | None]) -> dict[str, Any]:
    presets = {
        preset: None
        if proof is None
        else {
            "holds": proof.holds,
            "fault": proof.fault,
            "class_bytes": proof.class_bytes,
            "measured": proof.measured and proof.measured.model_dump(),
        }
        for preset, proof in by_preset.items()
    }
    return {"recipe": loaded.name, "model": loaded.recipe.model.name, "presets": presets}
