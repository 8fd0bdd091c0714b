"""A recipe with its model, data and demonstrations as files, and an environment without network."""

import json
import os
import re
from pathlib import Path

from r1recipes import data, recipe
from r1recipes.data.examples import demonstrations

ROOT = Path(__file__).parent.parent


def write_recipe(folder: Path, text: str, num_demonstrations: int) -> Path:
    """Write a recipe on a built-in model and problems as one on files. Returns its path."""
    from r1recipes.training.backends import builtin

    source = folder / "source.toml"
    source.write_text(text)
    source_recipe = recipe.load(source).recipe
    builtin.build_model(source_recipe.seed, source_recipe.model.name).save_pretrained(
        folder / "model"
    )
    builtin.build_tokenizer().save_pretrained(folder / "model")
    splits = data.load(source_recipe, folder)
    rows = [
        {"question": row["question"], "answer": row["answer"]}
        for split in (splits.train, splits.held_out)
        for row in split
    ]
    shown = [
        {
            "question": row["prompt"][-1]["content"],
            "completion": row["completion"][0]["content"],
        }
        for row in demonstrations.make(
            source_recipe, folder, num_demonstrations, held_out=splits.held_out
        )
    ]
    for name, lines in (("rows.jsonl", rows), ("demonstrations.jsonl", shown)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = re.sub(r'name = "builtin:(tiny|small)"', 'name = "model"', text)
    text = text.replace('name = "builtin:arithmetic"', 'name = "rows.jsonl"')
    text = re.sub(r"\[data\.problems\]\n(\w+ = .*\n)+", "", text)
    text = re.sub(r"wrong = .*", 'data = "demonstrations.jsonl"', text)
    path = folder / "local.toml"
    path.write_text(text)
    return path


def without_network(log: Path) -> dict[str, str]:
    """Variables of a process that may reach this machine alone; attempts are noted in `log`."""
    path = [
        str(ROOT / "benchmarks" / "reliability" / "network_guard"),
        str(ROOT),
        os.environ.get("PYTHONPATH", ""),
    ]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "R1RECIPES_NETWORK_LOG": str(log),
        "HF_HUB_OFFLINE": "0",  # the test is that nothing is asked for although it may be
    }
