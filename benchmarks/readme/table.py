"""The tables of presets in README.md and docs/choosing.md, made from the proofs and `plan`: rewrite
them, or check them.

    python -m benchmarks.readme.table            rewrite them
    python -m benchmarks.readme.table --check    exit code 1 if they are not what they say

Limits: the text outside the markers is left alone; recipes of built-in models have no row.
"""

import argparse
import sys
from pathlib import Path

from r1recipes import recipe
from r1recipes.algorithms.base import preset_bytes
from r1recipes.planning import proofs
from r1recipes.planning.fit.presets import predicted_gib
from r1recipes.planning.proofs import Measured, Proof
from r1recipes.recipe.loading import Loaded

ROOT = Path(__file__).parents[2]
README, CHOOSING = ROOT / "README.md", ROOT / "docs" / "choosing.md"
STACK = ("unsloth", "vllm", "torch")


def marks(name: str) -> tuple[str, str]:
    """The lines before and after the table of that name."""
    begin = f"<!-- {name}: written by benchmarks/readme/table.py, not by hand -->\n"
    return begin, f"<!-- end of {name} -->\n"


def trained() -> list[Loaded]:
    """The shipped recipes of models that are not built on the spot."""
    loaded = [recipe.load(path) for path in recipe.shipped()]
    return [each for each in loaded if not each.recipe.model.name.startswith("builtin:")]


def measured_proof(each: Loaded, name: str) -> tuple[Proof, Measured] | None:
    """The proof of a preset, if it has one that holds."""
    proof = proofs.find(each, name, proofs.folder())
    return (proof, proof.measured) if proof and proof.measured and proof.holds else None


def presets(each: Loaded) -> list[str]:
    return [name for name in each.recipe.preset if name != "cpu"]


def peaks() -> str:
    """README's table: a row for each recipe, with the peaks of its presets."""
    lines = [["recipe", "model", "peak of each preset in GiB"], ["---"] * 3]
    for each in trained():
        proofs_of = {name: measured_proof(each, name) for name in presets(each)}
        cells = [
            f"{name} [{pair[1].peak_gib:.1f}](recipes/proofs/{pair[0].path.name})"
            for name, pair in proofs_of.items()
            if pair
        ]
        unmeasured = [name for name, pair in proofs_of.items() if not pair]
        missing = [f"{name} {predicted_gib(each, name):.1f}" for name in unmeasured]
        cells += [f"predicted: {' · '.join(missing)}"] if missing else []
        link = f"[{each.name}](recipes/{each.name}.toml)"
        lines.append([link, each.recipe.model.name.split("/")[-1], " · ".join(cells)])
    return rows(lines)


def table() -> str:
    """The table of docs/choosing.md: a row for each recipe, a column for each class of cards, and
    cards and versions below."""
    classes = sorted({name for each in trained() for name in presets(each)}, key=preset_bytes)
    lines = [["recipe", "model", *classes], ["---"] * (2 + len(classes))]
    notes: set[str] = set()
    for each in trained():
        cells = dict.fromkeys(classes, "")
        for name in presets(each):
            cells[name] = f"predicted {predicted_gib(each, name):.1f}"
            if pair := measured_proof(each, name):
                cells[name] = cell(*pair)
                notes.add(note(*pair))
        link = f"[{each.name}](../recipes/{each.name}.toml)"
        lines.append([link, each.recipe.model.name, *cells.values()])
    return "\n".join([rows(lines), *(f"Measured on {note}.\n" for note in sorted(notes))])


def rows(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(proof: Proof, measured: Measured) -> str:
    """Peak, its share of the class, and completions an hour at full length and, where measured,
    with real lengths; with a link to the proof."""
    peak = f"[{measured.peak_gib:.1f}](../recipes/proofs/{proof.path.name})"
    text = f"{peak} ({proof.share:.0%}), {measured.completions_per_hour:,}"
    real = measured.real.completions_per_hour if measured.real else None
    return f"{text}; {real:,}" if real else text


def note(proof: Proof, measured: Measured) -> str:
    """Card, date and versions of a proof."""
    versions = ", ".join(f"{name} {measured.versions.get(name, '-')}" for name in STACK)
    return f"{proof.card}, {proof.date}: {versions}"


def written(path: Path, name: str, text: str) -> tuple[str, str]:
    """The text of a document as it is, and with its table rewritten."""
    begin, end = marks(name)
    old = path.read_text()
    before, _, rest = old.partition(begin)
    _, marker, after = rest.partition(end)
    if not marker:
        sys.exit(f"{path} lacks the markers {begin.strip()} and {end.strip()}")
    return old, before + begin + "\n" + text + "\n" + end + after


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    is_old = False
    for path, name, text in ((README, "recipes", peaks()), (CHOOSING, "presets", table())):
        old, new = written(path, name, text)
        is_old = is_old or old != new
        if not args.check:
            path.write_text(new)
    return int(args.check and is_old)


if __name__ == "__main__":
    sys.exit(main())
