"""The table of presets in README.md, made from the proofs and `plan`: rewrite it, or check it.

    python -m benchmarks.readme.table            rewrite it
    python -m benchmarks.readme.table --check    exit code 1 if it is not what they say

Limits: the text outside the two markers is left alone; recipes of built-in models have no row.
"""

import argparse
import sys
from pathlib import Path

from r1recipes import planning, recipe
from r1recipes.algorithms.base import preset_bytes
from r1recipes.machine.gpu import Gpu
from r1recipes.machine.units import GIB
from r1recipes.planning import proofs
from r1recipes.planning.fit.presets import BASE_CAPABILITY
from r1recipes.planning.proofs import Measured, Proof
from r1recipes.recipe.loading import Loaded

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- presets: written by benchmarks/readme/table.py, not by hand -->\n"
END = "<!-- end of presets -->\n"
STACK = ("unsloth", "vllm", "torch")


def table() -> str:
    """A row for each recipe, a column for each class of cards, and cards and versions below."""
    recipes = [recipe.load(path) for path in recipe.shipped()]
    recipes = [each for each in recipes if not each.recipe.model.name.startswith("builtin:")]
    presets = [[name for name in each.recipe.preset if name != "cpu"] for each in recipes]
    classes = sorted({name for names in presets for name in names}, key=preset_bytes)
    lines = [["recipe", "model", *classes], ["---"] * (2 + len(classes))]
    notes: set[str] = set()
    for each, names in zip(recipes, presets, strict=True):
        cells = dict.fromkeys(classes, "")
        for name in names:
            cells[name] = predicted(each, name)
            proof = proofs.find(each, name, proofs.folder())
            if proof and proof.measured and proof.holds:
                cells[name] = cell(proof, proof.measured)
                notes.add(note(proof, proof.measured))
        link = f"[{each.name}](recipes/{each.name}.toml)"
        lines.append([link, each.recipe.model.name, *cells.values()])
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n".join([rows, *(f"Measured on {note}.\n" for note in sorted(notes))])


def predicted(loaded: Loaded, preset: str) -> str:
    """What `plan` predicts for the smallest card of a class, of a preset that has no proof."""
    size = proofs.class_bytes(preset) or preset_bytes(preset)
    target = planning.Target.elsewhere(Gpu(0, preset, size, size, BASE_CAPABILITY, ""))
    plan = planning.make(loaded.recipe, target, base_dir=loaded.path.parent, preset=preset)
    assert plan.predicted is not None, "the catalogue has the model of every shipped recipe"
    return f"predicted {plan.predicted.peak_bytes / GIB:.1f}"


def cell(proof: Proof, measured: Measured) -> str:
    """Peak, its share of the class, and completions an hour at full length and, where measured,
    with real lengths; with a link to the proof."""
    peak = f"[{measured.peak_gib:.1f}](recipes/proofs/{proof.path.name})"
    text = f"{peak} ({proof.share:.0%}), {measured.completions_per_hour:,}"
    real = measured.real.completions_per_hour if measured.real else None
    return f"{text}; {real:,}" if real else text


def note(proof: Proof, measured: Measured) -> str:
    """Card, date and versions of a proof."""
    versions = ", ".join(f"{name} {measured.versions.get(name, '-')}" for name in STACK)
    return f"{proof.card}, {proof.date}: {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        sys.exit(f"{README} lacks the markers {BEGIN.strip()} and {END.strip()}")
    written = before + BEGIN + "\n" + table() + "\n" + END + after
    if args.check:
        return int(written != text)
    README.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
