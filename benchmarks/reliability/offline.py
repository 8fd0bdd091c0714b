"""A large model from a local folder on local data: the whole run, and every request that it makes.

    python -m benchmarks.reliability.offline FOLDER [--recipe qwen2.5-7b] [--preset 24GB]
                                             [--steps 2] [--hub]

Writes random 16-bit weights of the recipe's model in its true shape to FOLDER, and problems as a
file. Then `run` does everything, in an environment where no variable keeps a library from asking:
data, NF4 from the 16-bit folder where the preset asks for 4 bits, engine, evaluation, training,
adapter. With --hub the model keeps its name and is in a cache of the Hub, as after a download (in
4 bits the published NF4 form), and `run --offline` takes it from there. Connections are noted in
Python (network_guard, which also refuses them) and below it (connections.c, where there is a C
compiler). Writes benchmarks/reliability/results/offline.json, or offline-hub.json. The exit code is
1 if the run fails or asks. Limits: a GPU for the preset; lengths are short, since it is the weights
that decide what is asked for.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from benchmarks import about
from r1recipes import recipe
from r1recipes.machine import files
from r1recipes.planning import models
from r1recipes.runs.record import Run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SHORT = {"max_seq_length": 512, "max_completion_length": 128, "prompts_per_step": 2}
KEEP_QUIET = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
"""Variables that are removed, since they keep libraries from asking."""


def write_model(name: str, folder: Path) -> None:
    """Random 16-bit weights in the shape of a model of the catalogue; kept for the next time."""
    import torch

    from r1recipes.training.backends.unsloth import random_weights

    shape = models.find(name)
    assert shape is not None, f"{name} is not in the catalogue"
    if not folder.exists():
        with files.draft(folder) as draft:
            random_weights.write(shape, draft, load_in="16bit", dtype=torch.bfloat16)


def write_hub(name: str, four_bit: bool, folder: Path) -> None:
    """What a download of `name` leaves in a cache: its weights, or in 4 bits its NF4 form."""
    import torch

    from r1recipes.training.backends.unsloth import random_weights

    shape = models.find(name)
    assert shape is not None, f"{name} is not in the catalogue"
    own, nf4 = (snapshot(folder, each) for each in (name, f"{name}-bnb-4bit"))
    if not four_bit:
        random_weights.write(shape, own, load_in="16bit", dtype=torch.bfloat16)
        return
    random_weights.write(shape, nf4, load_in="4bit", dtype=torch.bfloat16)
    # Tokenizer and configuration come from the model itself.
    shutil.copytree(nf4, own, ignore=shutil.ignore_patterns("*.safetensors*"))
    config = json.loads((own / "config.json").read_text())
    del config["quantization_config"]
    (own / "config.json").write_text(json.dumps(config))


def snapshot(cache: Path, name: str) -> Path:
    """The folder of a repository's newest commit in a cache of the Hub; the caller makes it."""
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
        write_hub(name, table["preset"][preset]["load_in"] == "4bit", folder / "hub")
    else:
        write_model(name, folder / "model")
        table["model"] = {"name": "model"}
    problems = [problem(number) for number in range(64)]
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


def problem(number: int) -> dict[str, str]:
    """A sum and its answer."""
    return {"question": f"{number} + {number + 7} = ?", "answer": str(2 * number + 7)}


def watched(folder: Path) -> tuple[dict[str, str], list[Path]]:
    """An environment in which connections are noted, and the files that they are noted in."""
    environment = {name: value for name, value in os.environ.items() if name not in KEEP_QUIET}
    logs = [folder / "python.log", folder / "native.log"]
    for log in logs:
        log.unlink(missing_ok=True)
    path = [str(HERE / "network_guard"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment |= {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "R1RECIPES_NETWORK_LOG": str(logs[0]),
    }
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        return environment, logs[:1]
    library, source = folder / "connections.so", HERE / "connections.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    environment |= {"LD_PRELOAD": str(library), "CONNECTIONS_LOG": str(logs[1])}
    return environment, logs


def main() -> int:
    args = arguments()
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
    requests = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
    weights = (folder / ("hub" if args.hub else "model")).rglob("*.safetensors")
    result = {
        "recipe": args.recipe,
        "preset": args.preset,
        "load_in_4bit": run.plan().preset.weights == "4bit" if run.record.exists() else None,
        "model_bytes": sum(file.stat().st_size for file in weights),
        "weights_written_s": round(written_s, 1),
        "run_s": round(time.monotonic() - began, 1),
        "exit_code": done.returncode,
        **outcome(run),
        "watched": ["Python", "C library"][: len(logs)],
        "requests": requests,
    }
    about.write(HERE / "results" / f"offline{'-hub' if args.hub else ''}.json", result)
    print(json.dumps(result, indent=1))
    if done.returncode and run.log.exists():
        print(run.log.read_text()[-4000:])
    return 1 if done.returncode or requests else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="qwen2.5-7b")
    parser.add_argument("--preset", default="24GB")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--hub", action="store_true", help="take the model from a cache of the Hub")
    return parser.parse_args()


def outcome(run: Run) -> dict[str, Any]:
    """How far a run went, also where it has no record."""
    record = run.read() if run.record.exists() else {}
    return {
        "status": record.get("status"),
        "duration_s": record.get("duration_s"),
        "steps": len(files.read_lines(run.metrics)),
    }


if __name__ == "__main__":
    sys.exit(main())
