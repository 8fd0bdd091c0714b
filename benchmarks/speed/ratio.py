"""The presets against one prompt a step, as in the notebooks, and both against the roofline.

    python -m benchmarks.speed.ratio [FOLDER...]

Reads pairs of proofs, X.json and notebook.X.json, as benchmarks.memory.rehearse with ratio.toml
writes them; without FOLDER those in benchmarks/speed/results/ratio. Writes results/ratio.json and
the page ratio.md. Limits: both of a pair must come from the same kind of card with the same driver,
versions, memory and lengths; a pair of an earlier run that is in no FOLDER is kept.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed.roofline import floor
from r1recipes import recipe
from r1recipes.algorithms.base import Preset
from r1recipes.machine import files

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "ratio.json", HERE / "ratio.md"
SAME = ("recipe_model", "preset", "card", "driver", "versions", "vram_gib", "mean_length")
FEWER = ("prompts_per_step", "per_device_train_batch_size")
"""Settings in which a pair may differ."""
Record = dict[str, Any]
HEAD = """\
# Completions an hour: the presets against one prompt a step

Written by `python -m benchmarks.speed.ratio` from the proofs of both. One prompt a step is what the
notebooks do; model, memory, lengths and engine are the same. Share of the roofline: the least time
that the card could take (roofline.py) over the time that was measured, for generation, for the
training pass and for the whole step.

| preset | card, memory | completions an hour | with one prompt | ratio | share of the roofline: \
generation, training, step | with one prompt |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = [HERE / "results" / "ratio"]
    parser.add_argument("folders", type=Path, nargs="*", default=default, metavar="FOLDER")
    folders = parser.parse_args().folders
    earlier = json.loads(RESULT.read_text())["pairs"] if RESULT.exists() else []
    pairs = {pair["name"]: pair for pair in earlier}
    for folder in folders:
        for path in sorted(folder.glob("notebook.*.json")):
            name = path.name.removeprefix("notebook.").removesuffix(".json")
            pairs[name] = compared(name, measured(folder / f"{name}.json"), measured(path))
    rows = [pairs[name] for name in sorted(pairs)]
    files.write_json(RESULT, {"pairs": rows})
    PAGE.write_text(text(rows))
    print("".join(map(line, rows)), end="")


def text(pairs: list[Record]) -> str:
    """The whole page."""
    return HEAD + "".join(map(line, pairs))


def measured(path: Path) -> Record:
    """The proof of a file; where several batches were tried, that of the shipped preset."""
    content = json.loads(path.read_text())
    proofs: list[Record] = [content]
    if isinstance(content, list):
        name, preset = content[0]["recipe"], content[0]["preset"]
        shipped = recipe.load(name).recipe.preset[preset].model_dump()
        defaults = {key: field.default for key, field in Preset.model_fields.items()}
        proofs = [proof for proof in content if defaults | proof["settings"] == shipped]
        if not proofs:
            sys.exit(f"{path}: no proof has the settings of {name} {preset} as it is shipped")
    if "error" in proofs[0]:
        sys.exit(f"{path}: {proofs[0]['error']}")
    return proofs[0]


def compared(name: str, preset: Record, notebook: Record) -> Record:
    """A row of results/ratio.json. Exits when the two were not measured alike."""
    unlike = [key for key in SAME if preset[key] != notebook[key]]
    own, other = preset["settings"], notebook["settings"]
    unlike += [key for key in own if key not in FEWER and own[key] != other.get(key)]
    if unlike:
        sys.exit(f"{name}: preset and notebook differ in {', '.join(unlike)}")
    hourly = preset["completions_per_hour"], notebook["completions_per_hour"]
    return {
        "name": name,
        "card": preset["card"],
        "vram_gib": preset["vram_gib"],
        "date": [preset["date"], notebook["date"]],
        "versions": preset["versions"],
        "ratio": round(hourly[0] / hourly[1], 2),
        "preset": summary(preset),
        "notebook": summary(notebook),
    }


def summary(proof: Record) -> Record:
    """What was measured of one side of a pair, and its shares of the roofline, 0 to 1."""
    least = floor(proof)
    training_s = proof["logprobs_s"] + proof["backward_s"]
    return {
        "completions_per_hour": proof["completions_per_hour"],
        "completions_per_step": proof["completions_per_step"],
        "step_s": proof["step_s"],
        "generation_s": proof["generation_s"],
        "training_s": round(training_s, 2),
        "roofline": {
            "generation": round(least.generation_s / proof["generation_s"], 4),
            "training": round(least.training_s / training_s, 4),
            "step": round(least.step_s / proof["step_s"], 4),
        },
    }


def line(pair: Record) -> str:
    """The pair's row of the page."""
    preset, notebook = pair["preset"], pair["notebook"]
    return (
        f"| {pair['name']} | {pair['card'].removeprefix('NVIDIA ')}, {pair['vram_gib']} GiB "
        f"| {preset['completions_per_hour']:,} | {notebook['completions_per_hour']:,} "
        f"| {pair['ratio']:.1f} x | {shares(preset)} | {shares(notebook)} |\n"
    )


def shares(side: Record) -> str:
    """Shares of the roofline as text: generation, training, step."""
    return ", ".join(f"{share:.1%}" for share in side["roofline"].values())


if __name__ == "__main__":
    main()
