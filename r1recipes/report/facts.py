"""The facts that the page of a run begins with: model, data, machine, steps, what it cost."""

from r1recipes.machine.units import duration, gib
from r1recipes.planning.architectures import Origin
from r1recipes.report.page import Cell
from r1recipes.rewards.judge import cost
from r1recipes.runs import lock, reading
from r1recipes.runs.reading import Reading


def of(run: Reading) -> list[tuple[str, Cell]]:
    """Title and value, in order; rows without a value are left out by the page."""
    machine = run.lock.get("machine") or {}
    threads = machine.get("num_threads")
    name = machine.get("cpu") or "CPU"
    cpu = f"{name}, {threads} thread{'s' if threads != 1 else ''}" if threads else None
    last = run.metrics[-1] if run.metrics else {}
    vram = (run.record.get("vram") or {}).get("measured_bytes")
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
        ("Peak memory", f"{gib(vram, 2)} GiB" if vram else None),
        ("Reward failures", sum((last.get("reward_failures") or {}).values()) or None),
        ("Started", utc(str(run.record.get("started", "")))),
        ("Fingerprint", str(run.record.get("fingerprint", ""))[:8]),
    ]


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


def command(run: Reading) -> str:
    """The command that repeats a run."""
    file = f"{run.record.get('recipe', 'recipe')}.toml"
    return lock.command(file, run.record.get("preset"), run.lock.get("overrides", []))


def utc(timestamp: str) -> str:
    """`2026-11-21T04:58:20Z` as people write it: `2026-11-21 04:58:20 UTC`."""
    return timestamp.replace("T", " ").replace("Z", " UTC")
