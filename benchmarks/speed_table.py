"""What each choice of speed is worth: records of `rehearse` that differ in that choice alone.

    python benchmarks/speed_table.py

Reads every record in benchmarks/ and recipes/proofs, and writes benchmarks/speed.md: each row is
one committed file, and a choice that no two records differ in alone has no row. New records need
only lie there. Limits: one run each, of a few steps; a large card that is held to less memory has
the speed of a large card.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = HERE / "speed.md"
BATCH = "per_device_train_batch_size"
Record = dict[str, Any]
TITLE = """\
# What each choice of speed is worth

Written by `python benchmarks/speed_table.py`: the rows of a group differ in the choice at hand and
in what is named beside it, and in nothing else: model, kind of card, versions, memory, lengths.
Times are of one optimiser step in s, by the median of the steps after the first; the memory is what
a card was held to, and the peak what the driver saw, in GiB.
"""
MADE_OF = ("step_s", "generation_s", "settings", "date")
CHOICES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "Sequences in a generation call",
        "prompts_per_step",
        (BATCH,),
        "Decoding reads all weights for each token, however many sequences share it. The presets "
        "take as many prompts as their cache holds, and the notebooks one.",
    ),
    (
        "Completions in a training pass",
        BATCH,
        (),
        "The arithmetic is the same; what a pass costs beside it is not, and small models gain "
        "most from fewer of them. Memory is the price, and above a size nothing is gained.",
    ),
    (
        "4 bits or 16",
        "load_in_4bit",
        ("gpu_memory_utilization",),
        "4 bits are a memory tool: 16 are taken where they fit beside the cache.",
    ),
    (
        "Standby",
        "standby",
        ("gpu_memory_utilization",),
        "The cache is given back in each training pass and taken again. It is on where the preset "
        "would not fit without.",
    ),
)
"""Title, the key that differs, keys that may differ with it, what was decided."""


def main() -> None:
    TABLE.write_text(text())
    print(TABLE.read_text(), end="")


def text() -> str:
    """The whole page."""
    starts = list(distinct(HERE / "results" / "starts"))
    records = list(distinct(HERE, HERE.parent / "recipes" / "proofs"))
    records = [record for record in records if "/starts/" not in record["file"]]
    kept = [record for record in records if "kept_logits" in record["file"]]
    others = [record for record in records if record not in kept]
    whole = [record for record in others if "error" not in record]
    sections = [section(whole, *choice) for choice in CHOICES]
    return "".join([TITLE, *sections, logits(kept, others), log_probs(whole), caches(starts)])


def distinct(*folders: Path) -> Iterator[Record]:
    """Each record once, though a proof is a copy of a point; its file is kept in it."""
    seen = set()
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        found = json.loads(path.read_text())
        for record in found if isinstance(found, list) else [found]:
            if not isinstance(record, dict) or not {"settings", "vram_gib"} <= record.keys():
                continue
            key = json.dumps([record.get(name) for name in MADE_OF])
            if key not in seen:
                seen.add(key)
                yield record | {"file": str(path.relative_to(HERE.parent))}


def section(records: list[Record], title: str, key: str, beside: tuple, decided: str) -> str:
    """The groups of records that differ in `key` and at most in what is `beside` it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        rest = {k: v for k, v in record["settings"].items() if k not in (key, *beside)}
        same = [record[name] for name in ("recipe_model", "card", "versions", "vram_gib")]
        groups.setdefault(json.dumps([same, rest], sort_keys=True), []).append(record)
    rows = []
    for group in groups.values():
        fastest: dict[Any, Record] = {}
        for record in sorted(group, key=lambda record: record["completions_per_hour"]):
            fastest[record["settings"][key]] = record
        if len(fastest) > 1:
            rows += [row(fastest[value], str(value)) for value in sorted(fastest)]
    table = columns(f"`{key}`") + "".join(rows) if rows else "No two records differ in it alone.\n"
    return f"\n## {title}\n\n{decided}\n\n{table}"


def logits(kept: list[Record], others: list[Record]) -> str:
    """Records from before the logits were made again in the backward pass, and their successors."""
    rows = []
    for old in kept:
        rows.append(row(old, "kept"))
        of = [old["recipe"], old["preset"]]
        rows += [row(r, "made again") for r in others if [r["recipe"], r["preset"]] == of]
    unique = list(dict.fromkeys(rows))
    return (
        "\n## Logits kept for the backward pass, or made again\n\nUnsloth keeps them unless "
        "UNSLOTH_GRPO_LOGPROB_RECOMPUTE is set, and its first step compiles a part of the loop for "
        "each piece of them. They are made again: larger passes fit, and the first step is "
        "shorter. Rows differ in more than that: passes, memory, prompts, as written.\n\n"
        + columns("logits")
        + "".join(unique)
    )


def log_probs(records: list[Record]) -> str:
    """How much of a step a second pass for log-probs takes, over all without a reference pass."""
    records = [record for record in records if "train.beta" not in str(record.get("overrides"))]
    shares = [record["logprobs_s"] / record["step_s"] for record in records]
    return (
        "\n## A second pass for log-probs\n\nThere is one update for a batch, so the old log-probs "
        "are those of the pass itself. What is left between generation and the training pass takes "
        f"{min(shares):.1%} to {max(shares):.1%} of a step in the {len(records)} records above and "
        "beside them.\n"
    )


def caches(records: list[Record]) -> str:
    """The first and the second start of a recipe, with the compiled kernels kept."""
    head = "| model | start | import | load | first step | until the first step | record |\n"
    rows = [
        f"| {name(r)} | {Path(r['file']).stem} | {r['import_s']:.1f} | {r['load_s']:.1f} "
        f"| {r['first_step_s']:.1f} | {r['import_s'] + r['load_s']:.1f} | {link(r)} |\n"
        for r in records
    ]
    return (
        "\n## Compile caches kept between runs\n\nInductor, Triton, vLLM and Unsloth keep what "
        "they compile in one folder. Times in s.\n\n" + head + "| --- " * 7 + "|\n" + "".join(rows)
    )


def columns(choice: str) -> str:
    head = (
        f"| model | memory | {choice} | completions a step | a pass of | generation "
        "| training pass | step | first step | completions an hour | peak | record |\n"
    )
    return head + "| --- " * 12 + "|\n"


def row(record: Record, value: str) -> str:
    settings = record["settings"]
    completions = settings["prompts_per_step"] * settings["num_generations"]
    generation_s, step_s = record.get("generation_s"), record.get("step_s")
    whole = generation_s is not None and record.get("backward_s") is not None
    cells = (
        name(record),
        f"{record['vram_gib']:.2f}",
        value,
        completions,
        settings[BATCH] or settings["num_generations"],
        seconds(generation_s),
        seconds(record["logprobs_s"] + record["backward_s"] if whole else None),
        "out of memory" if "error" in record else seconds(step_s),
        seconds(record.get("first_step_s")),
        "" if step_s is None else f"{3600 * completions / step_s:,.0f}",
        f"{record['peak_gib']:.2f}",
        link(record),
    )
    return f"| {' | '.join(map(str, cells))} |\n"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def name(record: Record) -> str:
    return record["recipe_model"].rpartition("/")[2]


def link(record: Record) -> str:
    return f"[{Path(record['file']).stem}](../{record['file']})"


if __name__ == "__main__":
    main()
