"""What the speed model of the planner makes of the rehearsals: its errors, and which is faster.

    python -m benchmarks.speed.model [FILE...]     one line for each rehearsal, then the summary
    python -m benchmarks.speed.model --fit [FILE...]     and constants that fit better, if any do

Without FILE it reads all committed rehearsals that have a generation and a training time. Those
with real lengths are compared with the model at these lengths. Limits: rehearsals of one step, and
those with a reference pass, are left out.
"""

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.memory import measured
from r1recipes.machine import cards
from r1recipes.planning.memory.case import Case
from r1recipes.planning.speed import StepTime, step
from r1recipes.planning.speed.lengths import REAL, Lengths

step_module = sys.modules[step.__module__]  # the package has a function of this name
ROOT = Path(__file__).parents[2]
FOLDERS = ("recipes/proofs", "benchmarks/memory/points", "benchmarks/speed/results/ratio")
FITTED = {
    "generation_s": (
        *("KV_SHARE", "UNPACK_S", "LAUNCH_S", "LAUNCH_S.4bit", "TOKEN_S", "TEXT_TOKEN_S"),
    ),
    "training_s": ("UTILIZATION", "LAYER_PASS_S", "CHUNK_S"),
}
"""Constants that decide each part of a step."""
ROUNDS = 300
"""Changes that are tried in a search; assumed."""
CLEAR = 1.15
"""Ratio of two measured speeds from which on it is asked which is faster: the same setting measured
twice differed by up to 8 % (points/again.*.json)."""


@dataclass(frozen=True)
class Timed:
    """A rehearsal: what was measured and what the model says, for each completion."""

    name: str
    case: Case
    completions: int
    card: str
    measured: StepTime
    modelled: StepTime
    lengths: str

    @property
    def kind(self) -> tuple[object, ...]:
        """What two rehearsals must share to be compared: model, lengths and card."""
        case = self.case
        lengths = (case.max_seq_length, case.max_completion_length, self.lengths)
        return (case.shape, *lengths, self.card)

    def completion_s(self, time: StepTime) -> float:
        return time.step_s / self.completions


def rehearsals(paths: Iterable[Path]) -> Iterator[Timed]:
    """Each rehearsal of some proofs once, and again for its part with real lengths."""
    seen = set()
    for path in sorted(paths):
        proofs = json.loads(path.read_text())
        for number, proof in enumerate(proofs if isinstance(proofs, list) else [proofs]):
            key = (proof["recipe_model"], proof.get("step_s"), proof.get("generation_s"))
            if key in seen or proof.get("steps", 0) < 2 or "backward_s" not in proof:
                continue
            seen.add(key)
            if proof["logprobs_s"] < 0.5:
                yield from _timed(f"{path.stem}-{number}" if number else path.stem, proof)


def _timed(name: str, proof: dict[str, Any]) -> Iterator[Timed]:
    point, card = measured.of_proof(name, proof), cards.find_gpu(proof["card"].split(" HBM")[0])
    if point is None or card is None:
        return
    group = proof["settings"]["num_generations"]
    parts: list[tuple[dict[str, Any], Lengths | None]] = [(proof, None)]
    if proof.get("real", {}).get("lengths") == "real" and "step_s" in proof["real"]:
        parts.append((proof["real"], REAL))
    for times, lengths in parts:
        n = proof["completions_per_step"]
        plain = proof.get("rollouts") != "ids"
        modelled = step(point.case, n, group, proof["kv_tokens"], card.peak, lengths, plain=plain)
        spent = StepTime(times["generation_s"], times["backward_s"])
        kind = "real" if lengths else "full"
        yield Timed(f"{name} {kind}", point.case, n, proof["card"], spent, modelled, kind)


def pairs(timed: list[Timed]) -> list[tuple[Timed, Timed]]:
    """Two settings of one model with the same lengths on one card, the faster one first, where one
    is clearly faster."""
    clear = []
    for one, other in combinations(timed, 2):
        if one.kind != other.kind:
            continue
        slow, fast = sorted((one, other), key=lambda each: -each.completion_s(each.measured))
        if slow.completion_s(slow.measured) > CLEAR * fast.completion_s(fast.measured):
            clear.append((fast, slow))
    return clear


def is_right(pair: tuple[Timed, Timed]) -> bool:
    """Whether the model says of a pair, too, that the first is faster."""
    fast, slow = pair
    return fast.completion_s(fast.modelled) < slow.completion_s(slow.modelled)


def mean_error(modelled: Iterable[float], spent: Iterable[float]) -> float:
    """Mean of the errors as ratios, of which over and under count alike: 0.1 is 10 %."""
    ratios = zip(modelled, spent, strict=True)
    return math.exp(statistics.fmean(abs(math.log(m / s)) for m, s in ratios)) - 1


def committed() -> list[Path]:
    """The proofs in the repository."""
    return [path for folder in FOLDERS for path in (ROOT / folder).glob("*.json")]


def fitted(paths: list[Path], part: str, names: tuple[str, ...]) -> tuple[dict[str, float], float]:
    """Constants of `speed.step` with the least mean error of a part of the step, and that error.

    One constant at a time is changed by a random factor, and the change stays if it helps. Of
    a table of constants, the 4-bit one is `NAME.4bit`, and without a dot that in 16 bits.
    """
    draw = random.Random(0)
    best = error_with({}, paths, part)
    constants = {name: read(name) for name in names}
    for number in range(ROUNDS):
        name = draw.choice(names)
        factor = math.exp(draw.gauss(0, 0.2 if number < ROUNDS / 3 else 0.05))
        tried = constants | {name: constants[name] * factor}
        error = error_with(tried, paths, part)
        if error < best:
            best, constants = error, tried
    return constants, best


def read(name: str) -> float:
    """A constant of `speed.step` by its name here."""
    plain, _, form = name.partition(".")
    value: Any = getattr(step_module, plain)
    return float(value[form or "16bit"] if isinstance(value, dict) else value)


def error_with(constants: dict[str, float], paths: list[Path], part: str) -> float:
    """The mean error of a part of the step with these constants; those of the package stay."""
    originals = {name: getattr(step_module, name.partition(".")[0]) for name in constants}
    try:
        for name, value in constants.items():
            plain, _, form = name.partition(".")
            now = getattr(step_module, plain)
            changed = now | {form or "16bit": value} if isinstance(now, dict) else value
            setattr(step_module, plain, changed)
        timed = list(rehearsals(paths))
    finally:
        for name, value in reversed(originals.items()):
            setattr(step_module, name.partition(".")[0], value)
    modelled = [getattr(each.modelled, part) for each in timed]
    return mean_error(modelled, [getattr(each.measured, part) for each in timed])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--fit", action="store_true", help="search for better constants")
    args = parser.parse_args()
    paths = args.files or committed()
    timed = list(rehearsals(paths))
    print("generation and training pass in seconds: measured, modelled")
    for each in timed:
        spent, modelled = each.measured, each.modelled
        print(
            f"{each.name:36} {spent.generation_s:7.2f} {modelled.generation_s:7.2f}"
            f" {spent.training_s:7.2f} {modelled.training_s:7.2f}"
        )
    print(f"{len(timed)} rehearsals; mean error", end="")
    for part in ("generation_s", "training_s", "step_s"):
        modelled_s = [getattr(each.modelled, part) for each in timed]
        error = mean_error(modelled_s, [getattr(each.measured, part) for each in timed])
        print(f"  {part[:-2]} {error:.1%}", end="")
    compared = pairs(timed)
    print(f"\nfaster of two: {sum(map(is_right, compared))} of {len(compared)} pairs right")
    for fast, slow in compared:
        if not is_right((fast, slow)):
            print(f"  wrong: {fast.name} is faster than {slow.name}")
    if args.fit:
        for part, names in FITTED.items():
            constants, error = fitted(paths, part, names)
            print(
                f"{part[:-2]} {error:.1%} with", *(f"{k} = {v:.3g}" for k, v in constants.items())
            )


if __name__ == "__main__":
    main()
