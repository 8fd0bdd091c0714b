"""Rehearsals as points: what each asked for, what memory it took, and what is predicted for it.

A point is a proof of `r1recipes rehearse` in benchmarks/memory/points; a file has the proofs of one
engine, which differ in the batch. A third of the files is set aside before anything is fitted:
those for which sha256 over model, card, memory and settings without the batch is divisible by 3.
Limits: the peak that is compared is the most that the driver showed, including what torch takes
only while there is room; a verdict is compared by the memory that is needed.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.machine.units import GIB
from r1recipes.planning import models, out_of_memory
from r1recipes.planning.memory import predict
from r1recipes.planning.memory.case import ADAM_8BIT_BYTES, Case
from r1recipes.planning.memory.engine import engine_passes, sized_bytes

PHASES = {"load": ("load",), "generate": ("generate",), "train": ("first step", "steps")}
"""Phases of a proof for each phase of the prediction. Old rehearsals have no phase "generate" and
count it to the steps."""
MOST_SEQUENCES_THEN = 255
"""Most sequences at once of the rehearsals whose proof does not say how many there were."""


@dataclass(frozen=True)
class Point:
    """One rehearsal: its settings and what was measured; sizes in bytes."""

    name: str
    case: Case
    cap_bytes: float
    """Memory that the rehearsal was held to."""
    peak_bytes: float
    phases: dict[str, float]
    """Peak of each phase of the prediction that the proof has."""
    kv_tokens: int | None
    parts: dict[str, float]
    """Parts that the engine and torch report, as in `predicted_parts`."""
    ran_out: bool
    set_aside: bool


def load(folder: Path) -> list[Point]:
    """All points that reached the engine; other errors than out of memory are left out."""
    points = []
    for path in sorted(folder.glob("*.json")):
        proofs = json.loads(path.read_text())
        for number, proof in enumerate(proofs if isinstance(proofs, list) else [proofs]):
            if point := of_proof(f"{path.stem}-{number}" if number else path.stem, proof):
                points.append(point)
    return points


def of_proof(name: str, proof: dict[str, Any]) -> Point | None:
    """The point of a proof; None for an unknown model and after other errors."""
    shape = models.find(proof["recipe_model"])
    error = proof.get("error", "")
    ran_out = out_of_memory.is_out_of_memory(error)
    if shape is None or (error and not ran_out):
        return None
    settings, cap = proof["settings"], proof["vram_gib"] * GIB
    completions = settings["prompts_per_step"] * settings["num_generations"]
    case = Case(
        shape=shape,
        load_in=settings.get("load_in") or ("4bit" if settings["load_in_4bit"] else "16bit"),
        max_seq_length=settings["max_seq_length"],
        max_completion_length=settings["max_completion_length"],
        lora_rank=settings["lora_rank"],
        targets=tuple(proof.get("target_modules", shape.projections)),
        num_seqs=proof.get("max_num_seqs", min(completions, MOST_SEQUENCES_THEN)),
        batch=settings["per_device_train_batch_size"] or settings["num_generations"],
        engine_bytes=math.floor(settings["gpu_memory_utilization"] * cap),
        standby=settings["standby"],
        optimizer_bytes=ADAM_8BIT_BYTES,
        completions=completions,
        layers_not_recomputed=settings.get("layers_not_recomputed", 0),
        kv_cache_dtype=settings.get("kv_cache_dtype"),
    )
    by_phase = proof["peak_gib_by_phase"]
    phases = {
        phase: max(by_phase[key] for key in keys if key in by_phase) * GIB
        for phase, keys in PHASES.items()
        if any(key in by_phase for key in keys)
    }
    return Point(
        name=name,
        case=case,
        cap_bytes=cap,
        peak_bytes=proof["peak_gib"] * GIB,
        phases=phases,
        kv_tokens=proof.get("kv_tokens"),
        parts=_measured_parts(proof),
        ran_out=ran_out,
        set_aside=_is_set_aside(proof),
    )


def _is_set_aside(proof: dict[str, Any]) -> bool:
    """A third of all engines, whatever was measured."""
    settings = proof["settings"].items()
    engine = {name: value for name, value in settings if name != "per_device_train_batch_size"}
    identity = [proof["recipe_model"], proof["card"], proof["vram_gib"], engine]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return int(digest, 16) % 3 == 0


def _measured_parts(proof: dict[str, Any]) -> dict[str, float]:
    keys = {"context": "context_gib", "weights": "weights_gib", "pass": "profile_gib"}
    keys["engine outside"] = "non_torch_gib"
    parts = {name: proof[key] * GIB for name, key in keys.items() if proof.get(key)}
    if proof.get("consumed_gib") and "weights" in parts:  # vLLM 0.27.1 has no `non_torch_gib`
        parts["engine outside"] = proof["consumed_gib"] * GIB - parts["weights"]
    torch_peaks, peaks = proof.get("torch_gib_by_phase", {}), proof["peak_gib_by_phase"]
    if "steps" in torch_peaks and "steps" in peaks:
        parts["allocated"] = torch_peaks["steps"][0] * GIB
        if not proof["settings"]["standby"]:  # its pool counts as torch's while it is given back
            for phase in ("load", "steps"):
                parts[f"outside in {phase}"] = (peaks[phase] - torch_peaks[phase][1]) * GIB
    return parts


def engine_pass(case: Case, values: dict[str, float]) -> float:
    """Bytes of the pass that the ladder gives if Unsloth's estimate equals that of r1recipes."""
    cache = sized_bytes(case)
    return max(size for step, size in engine_passes(case, values) if cache > step or step == 0)


def predicted_parts(case: Case, values: dict[str, float]) -> dict[str, float]:
    """The parts of a point as they are predicted with these constants, in bytes."""
    phases = predict.predict(case, values).phases
    load_phase, train = phases["load"], phases["train"]
    inside = ["adapter", "gradient", "training activations", "logits"]
    inside += ["unpacked weight"] if case.load_in != "16bit" else []
    outside = values["context"] + load_phase["CUDA graphs"]
    weights = load_phase["weights"] + load_phase["LoRA in the engine"]
    return {
        "context": values["context"],
        "weights": weights,
        "pass": engine_pass(case, values),
        "engine outside": values["engine_outside"],
        "allocated": weights + load_phase["KV cache"] + sum(train[name] for name in inside),
        "outside in load": outside,
        "outside in steps": outside + values["training_outside"] + train["optimizer"],
    }


def expected(point: Point, values: dict[str, float]) -> dict[str, int]:
    """Predicted peak of each phase as the driver will show it, in bytes."""
    prediction = predict.predict(point.case, values)
    return predict.expected_bytes(prediction, point.case, int(point.cap_bytes))


def errors(points: list[Point], values: dict[str, float]) -> dict[str, float]:
    """Relative error of the predicted peak of each point that ran."""
    return {
        point.name: max(expected(point, values).values()) / point.peak_bytes - 1
        for point in points
        if not point.ran_out
    }


def wrong_verdict(point: Point, values: dict[str, float]) -> bool:
    """Whether "fits" was predicted for what ran out, or "does not fit" for 8 % of free room."""
    prediction = predict.predict(point.case, values)
    verdict = predict.verdict(prediction, point.case, int(point.cap_bytes))
    if point.ran_out:
        return verdict == "fits"
    return verdict == "does not fit" and point.peak_bytes < 0.92 * point.cap_bytes
