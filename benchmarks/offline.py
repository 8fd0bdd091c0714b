"""A large model from a local folder on local data: the whole run, and every request that it makes.

    python benchmarks/offline.py FOLDER [--recipe qwen2.5-7b] [--preset 24GB] [--steps 2] [--hub]

Writes random 16-bit weights of the recipe's model in its true shape to FOLDER, and problems as a
file; then `run` does everything, with nothing set that would keep a library from asking: data,
NF4 from the 16-bit folder where the preset asks for 4 bits, engine, evaluation, training, adapter.
With --hub the model keeps its name and lies in a cache of the Hub, as after a download (in 4 bits
the published NF4 form), and `run --offline` takes it from there. Connections are noted in Python
(tests/network_guard, which refuses them too) and below it (connections.c, where there is a C
compiler). Writes benchmarks/results/offline.json, or offline-hub.json. Lengths are short, since the
weights decide what is asked for. Exit code 1 if the run fails or asks.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import tomli
import tomli_w

from r1recipes import recipe
from r1recipes.machine import files, host, packages
from r1recipes.planning import models
from r1recipes.runs.record import Run

HERE = Path(__file__).parent
RESULTS = HERE / "results"
SHORT = {"max_seq_length": 512, "max_completion_length": 128, "prompts_per_step": 2}
KEEP_QUIET = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")


def write_model(name: str, folder: Path) -> None:
    """Random 16-bit weights in the shape of a model of the catalogue; kept for the next time."""
    import torch

    from r1recipes.machine import files
    from r1recipes.training.backends import random_weights

    shape = models.find(name)
    assert shape is not None, f"{name} is not in the catalogue"
    if not folder.exists():
        with files.draft(folder) as draft:
            random_weights.write(shape, draft, four_bit=False, dtype=torch.bfloat16)


def write_hub(name: str, four_bit: bool, folder: Path) -> None:
    """The same as a download of `name` leaves it: weights, or in 4 bits those of its NF4 form."""
    import torch

    from r1recipes.training.backends import random_weights

    shape = models.find(name)
    assert shape is not None, f"{name} is not in the catalogue"
    own, weights = (snapshot(folder, each) for each in (name, f"{name}-bnb-4bit"))
    if not four_bit:
        random_weights.write(shape, own, four_bit=False, dtype=torch.bfloat16)
        return
    random_weights.write(shape, weights, four_bit=True, dtype=torch.bfloat16)
    # Tokenizer and configuration are the model's own.
    shutil.copytree(weights, own, ignore=shutil.ignore_patterns("*.safetensors*"))
    config = json.loads((own / "config.json").read_text())
    del config["quantization_config"]
    (own / "config.json").write_text(json.dumps(config))


def snapshot(cache: Path, name: str) -> Path:
    """Where the Hub's cache has the newest commit of a repository; the folder is to be made."""
    repository, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    shutil.rmtree(repository, ignore_errors=True)
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return repository / "snapshots" / commit


def write_recipe(source: str, preset: str, steps: int, hub: bool, folder: Path) -> Path:
    """The shipped recipe with model and data from `folder`, short lengths and few problems."""
    table = tomli.loads(recipe.find(source).read_text())
    name = table["model"]["name"]
    if hub:
        write_hub(name, table["preset"][preset]["load_in_4bit"], folder / "hub")
    else:
        write_model(name, folder / "model")
        table["model"] = {"name": "model"}
    problems = [generate_row(number) for number in range(64)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    table["data"] = {"name": "rows.jsonl", "question": "question", "answer": "answer"}
    table["data"]["eval_size"] = 4
    table["prompt"]["system"] = ""
    table["eval"] = {"samples": 2}
    table["train"] |= {"max_steps": steps, "save_steps": steps}
    table["preset"] = {preset: table["preset"][preset] | SHORT}
    path = folder / "local.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def generate_row(number: int) -> dict[str, str]:
    return {"question": f"{number} + {number + 7} = ?", "answer": str(2 * number + 7)}


def watched(folder: Path) -> tuple[dict[str, str], list[Path]]:
    """Environment in which connections are noted, and the files that they are noted in."""
    environment = {name: value for name, value in os.environ.items() if name not in KEEP_QUIET}
    logs = [folder / "python.log", folder / "native.log"]
    for log in logs:
        log.unlink(missing_ok=True)
    guard = HERE.parent / "tests" / "network_guard"
    path = [str(guard), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "R1RECIPES_NETWORK_LOG": str(logs[0]),
    }
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        library = folder / "connections.so"
        source = HERE / "connections.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        environment |= {"LD_PRELOAD": str(library), "CONNECTIONS_LOG": str(logs[1])}
    return environment, logs if compiler else logs[:1]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="qwen2.5-7b")
    parser.add_argument("--preset", default="24GB")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--hub", action="store_true", help="the model from a cache of the Hub")
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    path = write_recipe(args.recipe, args.preset, args.steps, args.hub, folder)
    written_s = time.monotonic() - began
    environment, logs = watched(folder)
    if args.hub:
        environment |= {"HF_HUB_CACHE": str(folder / "hub")}
    run = Run(folder / f"run-{os.getpid()}")
    began = time.monotonic()
    command = ["run", path, "--preset", args.preset, "--run-dir", run.folder, "--force"]
    command += ["--offline"] if args.hub else []
    done = subprocess.run([sys.executable, "-m", "r1recipes", *map(str, command)], env=environment)
    asked = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    found = run.read() if run.record.exists() else {}
    result = {
        "date": files.now(),
        "machine": host.describe(),
        "versions": packages.versions(),
        "recipe": args.recipe,
        "preset": args.preset,
        "load_in_4bit": run.plan().preset.load_in_4bit if found else None,
        "model_bytes": sum(
            file.stat().st_size
            for file in (folder / ("hub" if args.hub else "model")).rglob("*.safetensors")
        ),
        "weights_written_s": round(written_s, 1),
        "run_s": round(time.monotonic() - began, 1),
        "exit_code": done.returncode,
        "status": found.get("status"),
        "duration_s": found.get("duration_s"),
        "steps": len(files.read_lines(run.metrics)),
        "watched": ["Python", "C library"][: len(logs)],
        "requests": asked,
    }
    files.write_json(RESULTS / f"offline{'-hub' if args.hub else ''}.json", result)
    print(json.dumps(result, indent=1))
    if done.returncode and run.log.exists():
        print(run.log.read_text()[-4000:])
    return 1 if done.returncode or asked else 0


if __name__ == "__main__":
    sys.exit(main())
