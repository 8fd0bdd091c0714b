"""The table of measured presets in README.md, made from the proofs: rewrite it, or check it.

python benchmarks/readme_table.py            write
python benchmarks/readme_table.py --check    exit 1 if it is not what the proofs say
"""

import sys
from pathlib import Path

from r1recipes import recipe
from r1recipes.algorithms.base import preset_bytes
from r1recipes.planning import proofs
from r1recipes.planning.proofs import Proof

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- presets: written by benchmarks/readme_table.py, not by hand -->\n"
END = "<!-- end of presets -->\n"
STACK = ("unsloth", "vllm", "torch")


def table() -> str:
    """A row for each recipe, a column for each class of cards, the cards and versions below."""
    recipes = [recipe.load(path) for path in recipe.shipped()]
    recipes = [each for each in recipes if not each.recipe.model.name.startswith("builtin:")]
    named = [[name for name in each.recipe.preset if name != "cpu"] for each in recipes]
    classes = sorted({name for names in named for name in names}, key=preset_bytes)
    lines, notes = [["recipe", "model", *classes], ["---"] * (2 + len(classes))], set()
    for each, names in zip(recipes, named, strict=True):
        found = {name: proofs.find(each, name, proofs.folder()) for name in names}
        cells = [cell(found[name]) if name in found else "" for name in classes]
        lines.append([f"[{each.name}](recipes/{each.name}.toml)", each.recipe.model.name, *cells])
        notes |= {note(proof) for proof in found.values() if proof and proof.holds}
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return "\n".join([rows, *(f"Measured on {note}.\n" for note in sorted(notes))])


def cell(proof: Proof | None) -> str:
    """Peak, its share of the class, and completions an hour, with a link to the proof."""
    if proof is None or not proof.holds:
        return "not measured"
    measured = proof.measured
    peak = f"[{measured.peak_gib:.1f}](recipes/proofs/{proof.path.name})"
    return f"{peak} ({proof.share:.0%}), {measured.completions_per_hour:,}"


def note(proof: Proof) -> str:
    """Card, date and versions of a proof."""
    versions = proof.measured.versions
    names = ", ".join(f"{name} {versions.get(name, '-')}" for name in STACK)
    return f"{proof.card}, {proof.date}: {names}"


def main() -> int:
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        sys.exit(f"{README} lacks the markers {BEGIN.strip()} and {END.strip()}")
    written = before + BEGIN + "\n" + table() + "\n" + END + after
    if "--check" in sys.argv:
        return int(written != text)
    README.write_text(written)
    return 0


if __name__ == "__main__":
    sys.exit(main())
