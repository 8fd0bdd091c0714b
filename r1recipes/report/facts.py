"""What a page says of a run in words: its facts, the commands that repeat it or go on with it, and
accuracies and their differences.

Limits: a command is for the folder that the page is made in.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from r1recipes.machine.units import duration, gib
from r1recipes.planning.architectures import Origin
from r1recipes.recipe import loading
from r1recipes.report.charts import scales
from r1recipes.report.page import Cell, Command
from r1recipes.rewards.judge import cost
from r1recipes.runs import lock, reading
from r1recipes.runs.reading import Reading, Row
from r1recipes.runs.record import going_on

SWEEP = "r1recipes sweep STUDY.toml"


def of(run: Reading) -> list[tuple[str, Cell]]:
    """Title and value, in order; rows without a value are left out by the page."""
    machine = run.lock.get("machine") or {}
    threads = machine.get("num_threads")
    name = machine.get("cpu") or "CPU"
    cpu = f"{name}, {threads} thread{'s' if threads != 1 else ''}" if threads else None
    last = run.metrics[-1] if run.metrics else {}
    vram = run.record.get("vram") or {}
    return [
        ("Model", _model(run)),
        ("Data", run.recipe.get("data", {}).get("name")),
        ("Preset", run.record.get("preset")),
        ("Machine", machine.get("gpu") or cpu),
        ("Steps", f"{run.steps} of {run.max_steps}" if run.max_steps else run.steps or None),
        _step_size(run),
        ("Sampled for examples", _own_samples(run)),
        ("Problems kept", _num_kept(run)),
        ("Judge", _judge(run)),
        ("Time", duration(run.duration_s)),
        ("Peak memory", _peak(vram)),
        ("Reward failures", sum((last.get("reward_failures") or {}).values()) or None),
        ("Started", utc(re.sub(r":\d\dZ$", "Z", str(run.record.get("started", ""))))),
        ("Fingerprint", str(run.record.get("fingerprint", ""))[:8]),
    ]


def _peak(vram: Row) -> str | None:
    """The measured peak, in GiB."""
    measured = vram.get("measured_bytes")
    if not measured:
        return None
    others = " with other processes" if vram.get("shared") else ""
    return f"{gib(measured, 2)} GiB{others}"


def _step_size(run: Reading) -> tuple[str, Cell]:
    """What a step trains on."""
    preset = run.resolved.get("preset", {})
    learned = next((row.learned for row in reading.algorithms([run])), None)
    prompts, group = preset.get("prompts_per_step"), preset.get("num_generations")
    if learned and prompts:
        return "Examples a step", learned.example(prompts)
    return "Completions a step", f"{prompts} x {group}" if group else None


def _own_samples(run: Reading) -> str | None:
    """The problems that were sampled for examples, and how many these became."""
    recorded = run.record.get("own_samples")
    if not recorded:
        return None
    problems = f"{recorded['num_problems']:,} problems x {recorded['num_samples']}"
    return f"{problems}, {recorded['num_examples']:,} examples"


def _judge(run: Reading) -> str | None:
    """The model that judged, what it cost, and how far it agreed with itself."""
    recorded = run.record.get("judge")
    if not recorded:
        return None
    text = f"{run.recipe.get('judge', {}).get('model')}: {cost.sentence(recorded)}"
    if trial := recorded.get("trial"):
        text += f"; {trial['num_same']} of {trial['num_twice']} trials judged the same twice"
    return text


def _num_kept(run: Reading) -> str | None:
    """The training problems that `data.keep` kept, of those that were measured."""
    recorded = run.record.get("pass_rates") or {}
    if "num_kept" not in recorded:
        return None
    others = f"of {recorded['num_measured']:,}" if "num_measured" in recorded else "of the lock"
    return f"{recorded['num_kept']:,} {others}"


def _model(run: Reading) -> str | None:
    """The model, and the adapter that the run starts from."""
    name = run.recipe.get("model", {}).get("name")
    origin = run.resolved.get("origin")
    return f"{name}: {Origin.model_validate(origin).sentence()}" if origin else name


def reproduce(run: Reading) -> Command:
    """The command that repeats a run, and where it works.

    A recipe that comes with r1recipes has its name; another one its file, from the current folder
    where it lies below that. A page may be shared, so no folder above is named.
    """
    version = run.lock.get("versions", {}).get("r1recipes", "")
    sentence = f"With r1recipes {version} and the recipe below; the lock has the versions and "
    sentence += "hashes that made it."
    recipe_name, folder = _recipe_name(run), ""
    if recipe_name.endswith((".toml", ".zip")) and not Path(recipe_name).exists():
        folder = f" Run it in the folder that has {recipe_name}."
    overrides = run.lock.get("overrides", [])
    flags = lock.permissions(run.recipe, is_foreign=bool(run.lock.get("source")))
    line = lock.command(recipe_name, run.record.get("preset"), overrides, flags)
    return Command(sentence + folder, line)


def _recipe_name(run: Reading) -> str:
    """What `r1recipes run` takes for the recipe of a run."""
    if source := run.lock.get("source"):
        return _reference(source)
    name = str(run.record.get("recipe", "recipe"))
    shipped = {path.stem: path for path in loading.shipped()}
    if name in shipped and shipped[name].read_text(encoding="utf-8") == run.recipe_text:
        return name
    base_dir = run.resolved.get("base_dir")
    file = Path(base_dir or "", f"{name}.toml").absolute()
    if base_dir and file.is_file() and file.is_relative_to(Path.cwd()):
        return str(file.relative_to(Path.cwd()))
    return f"{name}.toml"


def _reference(source: Row) -> str:
    """Where a recipe from elsewhere is fetched again: on the Hub at the commit that was run."""
    reference, commit = str(source.get("reference", "recipe.toml")), source.get("commit")
    on_hub = re.fullmatch(r"(hub:[^/@]+/[^/@]+)(?:@[^/]+)?(/.*)?", reference)
    if not (on_hub and commit):
        return reference
    return f"{on_hub[1]}@{commit}{on_hub[2] or ''}"


def next_step(run: Reading) -> Command | None:
    """What goes on with a run that has ended without being complete; None for any other.

    A failure that comes from the recipe needs a new run, with what its hint says.
    """
    if run.status in ("complete", "running", "pruned") or not run.resolved:
        return None
    if "study" in run.record:
        return Command("It is a trial. The command that began its study goes on with it:", SWEEP)
    error = run.record.get("error") or {}
    if run.status == "failed" and error.get("kind") in going_on.REPEATS:
        changes = re.findall(r"`(--set [^`]+)`", error.get("hint") or "")
        sentence = "As it is it fails again. Change the recipe, then start a new run:"
        if changes:
            sentence = "As it is it fails again. A new run with a change:"
        return Command(sentence, " ".join([reproduce(run).line, *changes]))
    flags = lock.permissions(run.recipe, is_foreign=bool(run.lock.get("source")))
    if _sends(run.recipe.get("track") or {}):
        flags.append("--wandb")
    line = " ".join([f"r1recipes run --resume {shlex.quote(_run_name(run))}", *flags])
    checkpoint = run.run.last_checkpoint()
    where = f"from step {checkpoint[1]}" if checkpoint else "from what is saved"
    return Command(f"Go on {where} with:", line)


def _sends(track: Row) -> bool:
    """Whether a resumed run must be told again to send its metrics to wandb."""
    wandb: Row | None = track.get("wandb")
    return wandb is not None and wandb.get("mode") != "offline"


def _run_name(run: Reading) -> str:
    """The folder of a run as a command takes it, relative where it lies below the current one."""
    folder = run.run.folder.absolute()
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def difference_sentence(mean: float, interval: Sequence[float]) -> tuple[str, str]:
    """What a difference of two accuracies, from -1 to 1, says; and its tone for `Headline`."""
    low, high = interval
    points = f"{100 * mean:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0:
        return f"Better: {points}", "better"
    if high < 0:
        return f"Worse: {points}", "worse"
    return f"No clear difference: {points}", ""


def accuracy(evaluation: Row) -> str:
    """`41.6 % (38.3 to 45.1)`; empty before the evaluation."""
    if not evaluation:
        return ""
    low, high = evaluation["interval"]
    return f"{percent(evaluation['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


def percent(share: float) -> str:
    """`41.6 %`, with a space that does not break."""
    return scales.text(share, "%").replace(" ", "\u00a0")


def text(value: object) -> str:
    """A value of a recipe or a lock in a table."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def utc(timestamp: str) -> str:
    """`2026-11-21T04:58:20Z` as people write it: `2026-11-21 04:58:20 UTC`."""
    return timestamp.replace("T", " ").replace("Z", " UTC")
