"""What each lever on speed is worth, on one card, with real lengths.

    python -m benchmarks.speed.levers qwen2.5-coder-0.5b --preset 24GB --out levers.json \
        --variants before before+text before+text+logprobs now now+merged now+int8

Each variant is a run of the recipe in a fresh process: `before` has none of the levers, `now`
those that change no number but by rounding, and +NAME or -NAME turns one on or off. Levers are
switched off by putting back what the code did without them. Each row has medians over the steps
after --warmup, from metrics.jsonl. The result is written after each variant, and a variant that it
has already is not run again, so the same command goes on after an end by time. Limits: one run of
a few steps for each variant; completions of two variants differ, so compare times for each token,
too.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import about
from r1recipes.machine import files
from r1recipes.runs.record import Run

RESULTS = Path(__file__).parent / "results"
PARTS = ("step_s", "generation_s", "backward_s", "logprobs_s", "rewards_s")
LOG_LINES = 30
"""Lines of a log that a failed variant keeps."""


def _with_text() -> None:
    from r1recipes.training.backends.unsloth import sampling

    sampling.WITHOUT_TEXT = {}


def _with_logprobs() -> None:
    from r1recipes.training.backends.unsloth import sampling

    sampling.WITHOUT_LOGPROBS = {}


def _at_most_255_slots() -> None:
    from r1recipes.planning import auto, plan

    def engine_sequences(completions: int) -> int:
        return min(completions, 255)

    for module in (auto, plan):
        vars(module)["engine_sequences"] = engine_sequences


def _passes_as_trl_cuts_them() -> None:
    from r1recipes.training.backends import passes

    os.environ[passes.VARIABLE] = ""


def _without_fused_logprobs() -> None:
    os.environ["UNSLOTH_FUSED_LINEAR"] = "0"  # read when unsloth_zoo is imported


def _calls_of_64() -> None:
    from r1recipes.training.backends.unsloth import sampling

    sampling.PROMPTS_PER_CALL = 64


class Lever(NamedTuple):
    """One way to be faster."""

    title: str
    off: Callable[[], None] | None = None
    """Puts back what the code did before, where the lever is on by default."""
    flags: tuple[str, ...] = ()
    """Of `run`, which turn it on."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables that turn it on."""


LEVERS = {
    "text": Lever("no text for each token", _with_text),
    "logprobs": Lever("no log-prob for each token", _with_logprobs),
    "slots": Lever("as many sequences at once as have a CUDA graph", _at_most_255_slots),
    "calls": Lever("all prompts of an evaluation in one call", _calls_of_64),
    "merged": Lever(
        "the adapter in the weights of a rollout",
        environment=(("UNSLOTH_VLLM_MERGED_ROLLOUT", "1"),),
    ),
    "int8": Lever(
        "KV cache in 8 bits with scales",
        flags=("--set", "preset.kv_cache_dtype=int8_per_token_head"),
    ),
    "fp8": Lever("KV cache in fp8 without scales", flags=("--set", "preset.kv_cache_dtype=fp8")),
    "fused": Lever(
        "log-probs and their gradient in one kernel; nothing before Unsloth 2026.10.9",
        _without_fused_logprobs,
    ),
    "graphs": Lever("fewer CUDA graphs", environment=(("R1RECIPES_GRAPHS", "few"),)),
    "scheduling": Lever(
        "tokens that need no block of the KV cache are passed over by vLLM's scheduler",
        environment=(("R1RECIPES_SCHEDULING", "short"),),
    ),
    "passes": Lever(
        "training passes without idle rows, sorted, sized by tokens and trimmed",
        _passes_as_trl_cuts_them,
    ),
}
BY_DEFAULT = frozenset(name for name, lever in LEVERS.items() if lever.off)


def levers_of(variant: str) -> frozenset[str]:
    """The levers of `now-slots` or `before+text`. Raises: ValueError for any other form."""
    words = variant.replace("+", " +").replace("-", " -").split()
    bases = {"now": BY_DEFAULT, "before": frozenset[str]()}
    if not words or words[0] not in bases:
        raise ValueError(f"`{variant}` does not begin with {' or '.join(bases)}")
    levers = bases[words[0]]
    for word in words[1:]:
        sign, name = word[0], word[1:]
        if name not in LEVERS:
            raise ValueError(f"`{variant}` names no lever; these are {', '.join(LEVERS)}")
        levers = levers | {name} if sign == "+" else levers - {name}
    return levers


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--preset")
    parser.add_argument("--variants", nargs="+", default=["before", "now"], metavar="VARIANT")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=3, help="steps that are not counted")
    parser.add_argument("--seconds", type=float, default=600, help="most for one variant")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, help="default: results/levers-RECIPE.json")
    args = parser.parse_args()
    if args.warmup >= args.steps:
        parser.error("--warmup must be less than --steps")
    try:
        variants = {variant: levers_of(variant) for variant in args.variants}
    except ValueError as error:
        parser.error(str(error))
    path = args.out or RESULTS / f"levers-{Path(args.recipe).stem}.json"
    rows = json.loads(path.read_text())["variants"] if path.exists() else {}
    flags = ["--force", "--set", f"train.max_steps={args.steps}"]
    flags += ["--preset", args.preset] if args.preset else []
    flags += [word for override in args.overrides for word in ("--set", override)]
    for variant, levers in variants.items():
        if "step_s" in rows.get(variant, {}):
            continue
        rows[variant] = measure(args.recipe, levers, flags, args.warmup, args.seconds)
        print(variant, json.dumps(rows[variant], indent=1), flush=True)
        result = {"recipe": args.recipe, "flags": flags, "warmup": args.warmup, "variants": rows}
        about.write(path, result)


def measure(
    name: str, levers: frozenset[str], flags: list[str], warmup: int, seconds: float
) -> dict[str, Any]:
    """One variant in a process of its own; with "error" in place of times where it fails."""
    on = [LEVERS[lever] for lever in sorted(levers)]
    environment = os.environ | {key: value for lever in on for key, value in lever.environment}
    flags = [*flags, *(word for lever in on for word in lever.flags)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run, log = Run(Path(folder) / "run"), Path(folder) / "log"
        arguments = ["run", name, "--run-dir", str(run.folder), *flags]
        code = f"from benchmarks.speed import levers; levers.child({sorted(levers)}, {arguments})"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                status: int | str = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                status = "timeout"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        wall_s = round(time.monotonic() - began, 1)
        shown = {"levers": sorted(levers), "date": files.now(), "wall_s": wall_s}
        if status != 0:
            texts = [p.read_text() for p in (log, run.log) if p.exists()]
            tail = [line for text in texts for line in text.splitlines()[-LOG_LINES:]]
            return shown | {"error": status, "log": tail}
        return shown | times(run, warmup)


def child(levers: list[str], arguments: list[str]) -> None:
    """In the process of a variant: without the other levers, the command line `arguments`."""
    for name in BY_DEFAULT - set(levers):
        switch_off = LEVERS[name].off
        assert switch_off is not None
        switch_off()
    from r1recipes.cli import main as command

    raise SystemExit(command(arguments))


def times(run: Run, warmup: int) -> dict[str, Any]:
    """Medians over the steps of a run after the first ones, and what the whole run has."""
    rows, record, plan = files.read_lines(run.metrics), run.read(), run.plan()
    counted, vram = rows[warmup:], record.get("vram") or {}
    generation = [row["time/generation_s"] for row in counted]
    mean, most = ([row[f"completions/{n}_length"] for row in counted] for n in ("mean", "max"))
    tokens = [plan.completions_per_step * length for length in mean]

    def ratio(over: list[float], under: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(over, under, strict=True))

    medians = {key: statistics.median(row[f"time/{key}"] for row in counted) for key in PARTS}
    return {key: round(value, 3) for key, value in medians.items()} | {
        "generation_tokens_per_s": round(ratio(tokens, generation)),
        "ms_per_decoded_position": round(1000 * ratio(generation, most), 2),
        "mean_length": round(statistics.median(mean), 1),
        "max_length": statistics.median(most),
        "steps": len(counted),
        "completions_per_step": plan.completions_per_step,
        "max_num_seqs": plan.max_num_seqs,
        "generation_s_of_each": [round(row["time/generation_s"], 3) for row in rows],
        "step_s_of_each": [round(row["time/step_s"], 3) for row in rows],
        "reward_of_each": [round(row["reward"], 4) for row in rows],
        "stages_s": record["duration_s"],
        "accuracy": {when: record["evaluation"][when]["accuracy"] for when in ("before", "after")},
        "peak_gib": round((vram.get("measured_bytes") or 0) / 2**30, 2),
    }


if __name__ == "__main__":
    main()
