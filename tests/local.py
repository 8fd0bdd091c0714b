"""A recipe whose model, data and demonstrations are files, and a world without a network."""

import json
import os
import re
from pathlib import Path

from r1recipes import data, recipe
from r1recipes.data import demonstrations

ROOT = Path(__file__).parent.parent


def write_recipe(folder: Path, text: str, num_demonstrations: int) -> Path:
    """Make a recipe on `builtin:` model and problems one on files in `folder`. Returns its path."""
    from r1recipes.training.backends import builtin

    source = folder / "source.toml"
    source.write_text(text)
    found = recipe.load(source).recipe
    builtin.build_model(found.seed, found.model.name).save_pretrained(folder / "model")
    builtin.build_tokenizer().save_pretrained(folder / "model")
    splits = data.load(found, folder)
    rows = [
        {"question": row["question"], "answer": row["answer"]}
        for split in (splits.train, splits.held_out)
        for row in split
    ]
    shown = demonstrations.make(found, folder, num_demonstrations, held_out=splits.held_out)
    lines_shown = [
        {
            "question": row["prompt"][-1]["content"],
            "completion": row["completion"][0]["content"],
        }
        for row in shown
    ]
    for name, lines in (("rows.jsonl", rows), ("demonstrations.jsonl", lines_shown)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = re.sub(r'name = "builtin:(tiny|small)"', 'name = "model"', text)
    text = text.replace('name = "builtin:arithmetic"', 'name = "rows.jsonl"')
    text = re.sub(r"\[data\.problems\]\n(\w+ = .*\n)+", "", text)
    text = re.sub(r"wrong = .*", 'data = "demonstrations.jsonl"', text)
    path = folder / "local.toml"
    path.write_text(text)
    return path


def without_network(log: Path) -> dict[str, str]:
    """Environment of a process that may reach this machine alone; `log` notes what it tried."""
    path = [str(ROOT / "tests" / "network_guard"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "R1RECIPES_NETWORK_LOG": str(log),
        "HF_HUB_OFFLINE": "0",  # nothing is asked for, also where it may be
    }
