"""What each choice of speed is worth: records of `rehearse` that differ in that choice alone.

    python -m benchmarks.speed.choices

Reads the records in benchmarks/speed/results, benchmarks/memory/points and recipes/proofs, and
writes benchmarks/speed/choices.md: each row is one committed file, and a choice that no two records
differ in alone has no row. A new record only has to be put there. Limits: each row is one run of a
few steps; a large card that is held to less memory has the speed of a large card.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = HERE / "choices.md"
STARTS = HERE / "results" / "starts"
FOLDERS = (HERE / "results", HERE.parent / "memory" / "points", ROOT / "recipes" / "proofs")
BATCH = "per_device_train_batch_size"
Record = dict[str, Any]
TITLE = """\
# What each choice of speed is worth

Written by `python -m benchmarks.speed.choices`: the rows of a group differ in the choice of the
group and in what is named beside it, and in nothing else: model, kind of card, versions, memory,
lengths. Times are of one optimiser step in s, by the median of the steps after the first; the
memory is what a card was held to, and the peak what the driver reported, in GiB.
"""
IDENTITY = ("step_s", "generation_s", "settings", "date")
"""Keys in which two records differ, unless one file is a copy of the other."""


class Choice(NamedTuple):
    """A setting whose worth is shown, with what was decided."""

    title: str
    key: str
    """The key of a preset in which the rows of a group differ."""
    beside: tuple[str, ...]
    """Keys that may differ with it."""
    decision: str


CHOICES = (
    Choice(
        "Sequences in a generation call",
        "prompts_per_step",
        (BATCH,),
        "Decoding reads all weights for each token, however many sequences share it. The presets "
        "take as many prompts as their cache holds, and the notebooks one.",
    ),
    Choice(
        "Completions in a training pass",
        BATCH,
        (),
        "The arithmetic is the same, but each pass has costs of its own, and small models gain "
        "most from fewer passes. The price is memory, and above a certain size nothing is gained.",
    ),
    Choice(
        "4 bits or 16",
        "load_in_4bit",
        ("gpu_memory_utilization",),
        "4 bits save memory: 16 are taken where they fit beside the cache.",
    ),
    Choice(
        "Standby",
        "standby",
        ("gpu_memory_utilization",),
        "The cache is given back in each training pass and allocated again after it. Standby is on "
        "where the preset would not fit without.",
    ),
)


def main() -> None:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    PAGE.write_text(text())
    print(PAGE.read_text(), end="")


def text() -> str:
    """The whole page."""
    starts = list(distinct(STARTS))
    records = [record for record in distinct(*FOLDERS) if "/starts/" not in record["file"]]
    kept_logits = [record for record in records if "/kept_logits/" in record["file"]]
    others = [record for record in records if "/kept_logits/" not in record["file"]]
    complete = [record for record in others if "error" not in record]
    sections = [section(complete, choice) for choice in CHOICES]
    pages = [logits(kept_logits, others), log_probs(complete), caches(starts)]
    return "".join([TITLE, *sections, *pages])


def distinct(*folders: Path) -> Iterator[Record]:
    """Each record once, although a proof is a copy of a point; "file" is its path from here."""
    seen = set()
    for path in (path for folder in folders for path in sorted(folder.rglob("*.json"))):
        content = json.loads(path.read_text())
        for record in content if isinstance(content, list) else [content]:
            if not isinstance(record, dict) or not {"settings", "vram_gib"} <= record.keys():
                continue
            key = json.dumps([record.get(name) for name in IDENTITY])
            if key not in seen:
                seen.add(key)
                yield record | {"file": os.path.relpath(path, HERE)}


def section(records: list[Record], choice: Choice) -> str:
    """The groups of records that differ in the choice's key, and at most in those beside it."""
    groups: dict[str, list[Record]] = {}
    apart = (choice.key, *choice.beside)
    for record in records:
        chosen = {k: v for k, v in record["settings"].items() if v is not None}  # or not yet a key
        rest = {key: value for key, value in chosen.items() if key not in apart}
        same = [record[name] for name in ("recipe_model", "card", "versions", "vram_gib")]
        same.append(record.get("rollouts", "all"))  # what the engine makes of each token
        same.append(record.get("levers", {}))
        groups.setdefault(json.dumps([same, rest], sort_keys=True), []).append(record)
    rows = []
    for group in groups.values():
        fastest: dict[Any, Record] = {}
        for record in sorted(group, key=lambda record: record["completions_per_hour"]):
            fastest[record["settings"][choice.key]] = record
        if len(fastest) > 1:
            rows += [row(fastest[value], str(value)) for value in sorted(fastest)]
    head = columns(f"`{choice.key}`")
    table = head + "".join(rows) if rows else "No two records differ in it alone.\n"
    return f"\n## {choice.title}\n\n{choice.decision}\n\n{table}"


def logits(with_kept: list[Record], others: list[Record]) -> str:
    """Records from when logits were kept for the backward pass, and those of the same presets."""
    rows = []
    for old in with_kept:
        rows.append(row(old, "kept"))
        preset = [old["recipe"], old["preset"]]
        same = (new for new in others if [new["recipe"], new["preset"]] == preset)
        rows += [row(new, "recomputed") for new in same]
    unique = list(dict.fromkeys(rows))
    return (
        "\n## Logits kept for the backward pass, or recomputed\n\nUnsloth keeps them unless "
        "UNSLOTH_GRPO_LOGPROB_RECOMPUTE is set, and its first step compiles a part of the loop for "
        "each chunk of them. r1recipes has them recomputed: larger passes fit, and the first step "
        "is shorter. The rows also differ in passes, memory and prompts, as written.\n\n"
        + columns("logits")
        + "".join(unique)
    )


def log_probs(records: list[Record]) -> str:
    """The share of a step that a second pass for log-probs takes, without a reference pass."""
    records = [record for record in records if "train.beta" not in str(record.get("overrides"))]
    shares = [record["logprobs_s"] / record["step_s"] for record in records]
    return (
        "\n## A second pass for log-probs\n\nThere is one update for a batch, so the old log-probs "
        "are those of the pass itself. What remains between generation and the training pass takes "
        f"{min(shares):.1%} to {max(shares):.1%} of a step in all {len(records)} records without "
        "`train.beta`.\n"
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
    """The head of a table whose third column is the choice."""
    head = (
        f"| model | memory | {choice} | completions a step | a pass of | generation "
        "| training pass | step | first step | completions an hour | peak | record |\n"
    )
    return head + "| --- " * 12 + "|\n"


def row(record: Record, value: str) -> str:
    """A record's row in a table with those columns; `value` is the choice."""
    settings = record["settings"]
    completions = settings["prompts_per_step"] * settings["num_generations"]
    generation_s, step_s = record.get("generation_s"), record.get("step_s")
    has_passes = generation_s is not None and record.get("backward_s") is not None
    cells = (
        name(record),
        f"{record['vram_gib']:.2f}",
        value,
        completions,
        settings[BATCH] or settings["num_generations"],
        seconds(generation_s),
        seconds(record["logprobs_s"] + record["backward_s"] if has_passes else None),
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
    """The model without its owner."""
    return str(record["recipe_model"]).rpartition("/")[2]


def link(record: Record) -> str:
    """A link from the page to the record's file."""
    return f"[{Path(record['file']).stem}]({record['file']})"


if __name__ == "__main__":
    main()
