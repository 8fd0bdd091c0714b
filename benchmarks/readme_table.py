"""The table of measured presets in README.md, made from the proofs: rewrite it, or check it.

python benchmarks/readme_table.py            write
python benchmarks/readme_table.py --check    exit 1 if it is not what the proofs say
"""

import sys
from pathlib import Path

from r1recipes import proofs, recipe
from r1recipes.preset import preset_bytes
from r1recipes.proofs import Proof

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- presets: written by benchmarks/readme_table.py, not by hand -->\n"
END = "<!-- end of presets -->\n"
STACK = ("unsloth", "vllm", "torch")
HEAD = """\
| recipe | preset | peak memory | share of the class | a step | completions an hour | card, date |
| --- | --- | --- | --- | --- | --- | --- |
"""


def table() -> str:
    """Rows of all presets whose proof holds, the names of the others, and the versions."""
    rows, others, stacks = [], [], set()
    for path in recipe.shipped():
        loaded = recipe.load(path)
        names = sorted((name for name in loaded.recipe.preset if name != "cpu"), key=preset_bytes)
        found = {name: proofs.find(loaded, name, proofs.folder()) for name in names}
        held = {name: proof for name, proof in found.items() if proof and proof.holds}
        rows += [row(loaded.name, name, proof) for name, proof in held.items()]
        stacks |= {stack(proof) for proof in held.values()}
        if rest := [name for name in names if name not in held]:
            others.append(f"{loaded.name} {', '.join(rest)}")
    notes = [f"Versions: {'; '.join(sorted(stacks))}.\n"] if stacks else []
    if others:
        notes.append(f"Not measured: {'; '.join(others)}.\n")
    return "\n".join([HEAD + "".join(rows), *notes])


def row(name: str, preset: str, proof: Proof) -> str:
    measured = proof.measured
    tokens = proof.measured.settings["max_completion_length"]
    link = f"[{preset}](recipes/proofs/{proof.path.name})"
    return (
        f"| {name} | {link} | {measured.peak_gib:.2f} of {proof.class_bytes / 2**30:.2f} GiB "
        f"| {proof.share:.0%} "
        f"| {measured.step_s:.1f} s, "
        f"{measured.completions_per_step} completions of {tokens} tokens "
        f"| {measured.completions_per_hour:,} | {proof.card}, {proof.date} |\n"
    )


def stack(proof: Proof) -> str:
    return ", ".join(f"{name} {proof.measured.versions.get(name, '-')}" for name in STACK)


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
