"""The process in which reasoning-gym makes problems: one JSON request on stdin, lines of JSON out.

{"name", "settings", "parts": [[salt, count], ...]}
    -> a line [[key, message, hint], ...]: what is wrong, by the key below [data]; where nothing is,
       for each problem a line {"part", "question", "answer", "gym"}; no question twice in all parts

The parent starts it with PYTHONHASHSEED=0, since some generators go through sets, and the random
numbers of each problem are seeded, so every process makes the same problems. Limits: they may
differ between versions of reasoning-gym.
"""

import json
import os
import random
import sys
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from r1recipes.config.suggest import nearest
from r1recipes.data.splits import question_key
from r1recipes.errors import listed
from r1recipes.rewards import gym_child
from r1recipes.rewards.gym_child import Settings

CHUNK = 500
"""Problems of one seed. Some data sets choose kinds of problems by the number that is asked for
(acre, list_functions), so this number is always the same."""
MAX_TRIES = 12
"""Problems that are made for each one that is asked for, before it is given up; assumed."""
FEWEST_TRIES = 1000
"""Problems that are made at least before it is given up, however few are asked for; assumed."""

Finding = tuple[str, str, str]
"""Key below [data], message, hint."""
Row = dict[str, Any]


class Unusable(Exception):
    """Why problems of a data set cannot be used."""


def examine(name: str, settings: Settings) -> list[Finding]:
    """What is wrong with a data set's name and settings."""
    names = gym_child.names()
    if name not in names:
        close = nearest(name, names, 0.5)
        hint = f'did you mean "gym:{close}"?' if close else f"it has {listed(names)}"
        return [("name", f'reasoning-gym has no data set "{name}"', hint)]
    if name in gym_child.REFUSED:
        return [_refusal(name, gym_child.REFUSED[name])]
    problems = [problem for item in settings.items() if (problem := _setting(name, *item))]
    try:
        next(rows(name, {} if problems else settings, "examine"))
    except Unusable as error:
        return [_refusal(name, str(error))]
    except Exception as error:  # whatever a configuration or a generator raises
        if problems:
            return problems
        text = str(error).strip() or type(error).__name__
        key = "problems" if settings else "name"
        return [(key, f"`gym:{name}` refuses these settings: {text}", "change [data.problems]")]
    return problems


def _refusal(name: str, reason: str) -> Finding:
    return "name", f"`gym:{name}` cannot be used: {reason}", "take another data set"


def _setting(name: str, key: str, value: Any) -> Finding | None:
    """What is wrong with one setting, by the field of the configuration that has its name."""
    from pydantic import ValidationError

    where, hints = f"problems.{key}", dict(gym_child.fields(name))
    if key in gym_child.OWN_FIELDS:
        home = "`data.size`" if key == "size" else "`seed`, at the top of the recipe"
        return where, f"`{key}` is not set in [data.problems]", f"remove this line, and set {home}"
    if key not in hints:
        close = nearest(key, hints, 0.5)
        hint = f"did you mean `{close}`?" if close else f"it has {listed(hints)}"
        return where, f"`gym:{name}` has no setting `{key}`", hint
    if key.endswith("_file") and os.path.basename(str(value)) != value:
        hint = "remove this line, or write the name alone"
        return where, f"`{key}` is the name of a file of reasoning-gym", hint
    try:
        gym_child.converted(hints[key], value)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        message = f"`{key}` of `gym:{name}`: {reason[0].lower()}{reason[1:]}, not {value!r:.60}"
        return where, message, f"its type is {gym_child.type_name(hints[key])}"
    return None


def rows(name: str, settings: Settings, salt: str) -> Iterator[Row]:
    """Problems without end, always the same for the same arguments; some may come twice.

    Raises: Unusable, and what a configuration or a generator raises.
    """
    for chunk in range(sys.maxsize):
        seed = _seed(salt, chunk)
        _seed_all(seed)
        maker = gym_child.make(name, settings, seed=seed, size=CHUNK)
        for index in range(CHUNK):
            _seed_all(seed + index)  # list_functions draws from Python's own generator
            yield _row(name, settings, maker[index])


def _seed(salt: str, chunk: int) -> int:
    """Problem i of seed s is problem i - 1 of seed s + 1, so neighbouring seeds would overlap."""
    digest = blake2b(f"{salt} {chunk}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def _seed_all(seed: int) -> None:
    import numpy

    random.seed(seed)
    numpy.random.seed(seed)


def _row(name: str, settings: Settings, entry: dict[str, Any]) -> Row:
    """A problem whose reference answer its own scorer pays in full. Raises: Unusable."""
    question, answer = entry["question"], entry["answer"]
    if not isinstance(answer, str) or not answer.strip():
        raise Unusable("its problems have no reference answer")
    pack = gym_child.packed(name, settings, entry["metadata"])
    # As the answer of a completion comes to it: without the space around it, and by way of `pack`.
    paid = gym_child.score(answer.strip(), question, answer, pack)
    if paid < 1.0:
        raise Unusable(f"its scorer pays {paid:g} for its own reference answer `{answer:.60}`")
    return {"question": question, "answer": answer, "gym": pack}


def different(name: str, settings: Settings, parts: list[tuple[str, int]]) -> Iterator[Row]:
    """`count` problems for each (salt, count), no question twice in all of them. Fewer where
    hardly any new ones come."""
    seen: set[str] = set()
    for part, (salt, count) in enumerate(parts):
        made, tries = 0, FEWEST_TRIES + MAX_TRIES * count
        for _, row in zip(range(tries), rows(name, settings, salt), strict=False):
            if made == count:
                break
            key = question_key(row["question"])
            if key not in seen:
                seen.add(key)
                made += 1
                yield {"part": part, **row}


def main() -> None:
    # Generators print: what they write goes to standard error.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        request = json.load(sys.stdin)
        name, settings = request["name"], request["settings"]
        problems = examine(name, settings)
        print(json.dumps(problems), file=out, flush=True)
        for row in different(name, settings, [] if problems else request["parts"]):
            print(json.dumps(row), file=out, flush=True)


if __name__ == "__main__":
    main()
