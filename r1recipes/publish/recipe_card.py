"""The card of a shared recipe: a README.md made from its record and lock, and from nothing else."""

from typing import Any

from r1recipes.recipe.bundle import Files
from r1recipes.recipe.schema import Recipe

MARK = "<!-- made by `r1recipes share` -->"


def text(
    name: str,
    recipe: Recipe,
    locked: dict[str, Any],
    record: dict[str, Any] | None,
    files: Files,
) -> str:
    """Markdown with the Hub's front matter; `record` is None for a recipe that was not run."""
    lines = [
        _front_matter(recipe),
        f"# {name}",
        "",
        *([recipe.description, ""] if recipe.description else []),
        f"A recipe for r1recipes: `{recipe.model.name}` on "
        f"`{recipe.data.name}`, GRPO, {recipe.train.max_steps} steps, seed {recipe.seed}.",
        "",
        *(_proof(record, locked) if record else ["It was shared without a run.", ""]),
        "## Run it",
        "",
        "```",
        "python -m r1recipes run FOLDER_OR_FILE --locked   # refuses what differs from lock.json",
        "python -m r1recipes run FOLDER_OR_FILE            # takes what is here",
        "```",
        "",
        f"Fingerprint of the recipe: `{locked['fingerprint']}`",
        "",
        "## Files",
        "",
        *(f"- `{file}`" for file in sorted({*files, "README.md"})),
        "",
        MARK,
    ]
    return "\n".join(lines) + "\n"


def _front_matter(recipe: Recipe) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        base_model=_hub_id(recipe.model.name),
        datasets=_hub_id(recipe.data.name),
        library_name="r1recipes",
        tags=["r1recipes", "grpo"],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _hub_id(name: str) -> str | None:
    is_id = name.count("/") == 1 and not name.startswith(("builtin:", "/", ".", "~"))
    return name if is_id else None


def _proof(record: dict[str, Any], locked: dict[str, Any]) -> list[str]:
    evaluation = record["evaluation"]
    before, after, difference = (evaluation[key] for key in ("before", "after", "difference"))
    low, high = (100 * bound for bound in difference["interval"])
    seconds = sum(record["duration_s"].values())
    made_on = locked.get("machine", {}).get("gpu") or "a CPU"
    return [
        "| | before | after |",
        "| --- | --- | --- |",
        f"| accuracy, sampled | {before['accuracy']:.1%} | {after['accuracy']:.1%} |",
        f"| accuracy, greedy | {before['greedy']:.1%} | {after['greedy']:.1%} |",
        "",
        f"Difference {100 * difference['mean']:+.1f} points, 95 % {low:+.1f} to {high:+.1f}; "
        f"{seconds:.0f} s on {made_on}, preset {record['preset']}, "
        f"finished {record['finished'][:10]}.",
        "",
    ]
