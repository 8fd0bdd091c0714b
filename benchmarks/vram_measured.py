"""Measured runs as points: what a rehearsal asked for, what it took, and what is predicted for it.

A point is a proof of `r1recipes rehearse` in benchmarks/vram_points; a file has the proofs of one
engine, which differ in the batch. A third of the files is set aside before anything is fitted:
those of which sha256 over model, card, memory and settings without the batch leaves 0 when divided
by 3. What is compared is the most that the driver showed, with what torch takes only while there is
room; a verdict goes by the need.
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
from r1recipes.planning.memory.case import MAX_NUM_SEQS, Case
from r1recipes.planning.memory.engine import engine_pass

PHASES = {"load": ("load",), "generate": ("generate",), "train": ("first step", "steps")}
"""A phase of the prediction and those of a proof. Rehearsals before the phase "generate" count it
to the steps."""


@dataclass(frozen=True)
class Point:
    """One rehearsal: what was asked for and what was measured."""

    name: str
    case: Case
    cap_bytes: float
    peak_bytes: float
    phases: dict[str, float]
    kv_tokens: int | None
    told: dict[str, float]
    """Parts that the engine and torch say by themselves, in bytes."""
    ran_out: bool
    set_aside: bool


def load(folder: Path) -> list[Point]:
    """All points that reached the engine; other errors than out of memory are left out."""
    found = []
    for path in sorted(folder.glob("*.json")):
        proofs = json.loads(path.read_text())
        for number, proof in enumerate(proofs if isinstance(proofs, list) else [proofs]):
            if point := of_proof(f"{path.stem}-{number}" if number else path.stem, proof):
                found.append(point)
    return found


def of_proof(name: str, proof: dict[str, Any]) -> Point | None:
    shape = models.find(proof["recipe_model"])
    error = proof.get("error", "")
    ran_out = out_of_memory.is_out_of_memory(error)
    if shape is None or (error and not ran_out):
        return None
    settings, cap = proof["settings"], proof["vram_gib"] * GIB
    completions = settings["prompts_per_step"] * settings["num_generations"]
    batch = settings["per_device_train_batch_size"] or settings["num_generations"]
    case = Case(
        shape=shape,
        four_bit=settings["load_in_4bit"],
        max_seq_length=settings["max_seq_length"],
        max_completion_length=settings["max_completion_length"],
        lora_rank=settings["lora_rank"],
        targets=tuple(proof.get("target_modules", shape.projections)),
        num_seqs=min(completions, MAX_NUM_SEQS),
        batch=batch,
        engine_bytes=math.floor(settings["gpu_memory_utilization"] * cap),
        standby=settings["standby"],
    )
    by_phase = proof["peak_gib_by_phase"]
    phases = {
        phase: max(by_phase[key] for key in keys if key in by_phase) * GIB
        for phase, keys in PHASES.items()
        if any(key in by_phase for key in keys)
    }
    engine = {k: v for k, v in settings.items() if k != "per_device_train_batch_size"}
    identity = [proof["recipe_model"], proof["card"], proof["vram_gib"], engine]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Point(
        name=name,
        case=case,
        cap_bytes=cap,
        peak_bytes=proof["peak_gib"] * GIB,
        phases=phases,
        kv_tokens=proof.get("kv_tokens"),
        told=_told(proof),
        ran_out=ran_out,
        set_aside=int(digest, 16) % 3 == 0,
    )


def _told(proof: dict[str, Any]) -> dict[str, float]:
    names = {"context": "context_gib", "weights": "weights_gib", "pass": "profile_gib"}
    names["engine outside"] = "non_torch_gib"
    found = {name: proof[key] * GIB for name, key in names.items() if proof.get(key)}
    torch_peaks, peaks = proof.get("torch_gib_by_phase", {}), proof["peak_gib_by_phase"]
    if "steps" in torch_peaks and "steps" in peaks:
        found["allocated"] = torch_peaks["steps"][0] * GIB
        if not proof["settings"]["standby"]:  # its pool counts as torch's while it is given back
            for name in ("load", "steps"):
                found[f"outside in {name}"] = (peaks[name] - torch_peaks[name][1]) * GIB
    return found


def parts(case: Case, known: dict[str, float]) -> dict[str, float]:
    """The same parts as they are predicted."""
    phases = predict.predict(case, known).phases
    load, train = phases["load"], phases["train"]
    inside = ["adapter", "gradient", "training activations", "logits"]
    inside += ["unpacked weight"] if case.four_bit else []
    outside = known["context"] + load["CUDA graphs"]
    weights = load["weights"] + load["LoRA in the engine"]
    return {
        "context": known["context"],
        "weights": weights,
        "pass": engine_pass(case, known),
        "engine outside": known["engine_outside"],
        "allocated": weights + load["KV cache"] + sum(train[name] for name in inside),
        "outside in load": outside,
        "outside in steps": outside + known["training_outside"] + train["optimizer"],
    }


def expected(point: Point, known: dict[str, float]) -> dict[str, int]:
    prediction = predict.predict(point.case, known)
    return predict.expected_bytes(prediction, point.case, int(point.cap_bytes))


def errors(points: list[Point], known: dict[str, float]) -> dict[str, float]:
    """Relative error of the peak of each point that ran."""
    return {
        point.name: max(expected(point, known).values()) / point.peak_bytes - 1
        for point in points
        if not point.ran_out
    }


def wrong_verdict(point: Point, known: dict[str, float]) -> bool:
    """ "fits" for what ran out, "does not fit" for what ran with more than 8 % room."""
    said = predict.verdict(predict.predict(point.case, known), point.case, int(point.cap_bytes))
    if point.ran_out:
        return said == "fits"
    return said == "does not fit" and point.peak_bytes < 0.92 * point.cap_bytes
