"""What must hold between the keys of a recipe, beyond the type and range of each.

Every check returns its problems as `(key, message, hint)`, the key seen from the section that is
checked, or from the top of the recipe with a leading `/`. The schema, which imports this, calls
them on its sections and raises; nothing is changed here.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from pydantic import Field
from pydantic_core import PydanticCustomError

from r1recipes import rewards
from r1recipes.algorithms import ALGORITHMS, Algorithm
from r1recipes.algorithms.base import (
    AUTO_ON_GPU,
    CPU_ONLY,
    GPU_ONLY,
    PRESET_NAME,
    likely_preset,
    preset_gb,
)
from r1recipes.algorithms.checks import of_batches, of_group
from r1recipes.algorithms.grpo import GrpoTrain
from r1recipes.config.render import show
from r1recipes.config.section import KeyProblems
from r1recipes.recipe import references
from r1recipes.rewards.functions import COMPARES_ANSWERS
from r1recipes.rewards.signatures import likely_code
from r1recipes.rewards.user_code import is_user_code

LOSSES = get_args(GrpoTrain.model_fields["loss_type"].annotation)
"""Variants of GRPO that users take for algorithms."""


class Builtin(NamedTuple):
    """What decides about the rewards of built-in problems, which `data.generators` makes."""

    judge: str
    """The reward that decides what is right."""
    columns: tuple[str, ...] = ()
    """Columns beside question and answer."""
    misjudged: str | None = None
    """What is wrong with rewards that compare with the reference; None where nothing is."""


def of_data(data: Any) -> KeyProblems:
    """Keys that do not apply to this kind of data, and splits or columns taken twice."""
    problems: KeyProblems = []
    made_here = data.name.startswith(references.MADE_HERE)
    if data.problems is not None and not made_here:
        message = "difficulty can be set for built-in and gym: data only"
        problems.append(("problems", message, "remove this section"))
    if made_here:
        for key in ("config", "revision", "answer_after", "answer_kind", "eval_split"):
            if getattr(data, key) is not None:
                problems.append(
                    (key, f"`{key}` does not apply to `{data.name}`", "remove this line")
                )
        for key in ("question", "answer"):
            if getattr(data, key) != key:
                message = f"the column of `{data.name}` is `{key}`"
                problems.append((key, message, "remove this line"))
    elif data.eval_split == data.split:
        problems.append(
            (
                "eval_split",
                f'`eval_split` "{data.split}" is the split that is trained on',
                "remove this line: `eval_size` rows are then held out of it",
            )
        )
    if data.answer_after and data.answer_after.rstrip("{ ").endswith("\\boxed"):
        message = "`answer_after` would leave the brace that closes \\boxed{}"
        problems.append(
            ("answer_after", message, "remove this line: what it holds is found without")
        )
    problems += _of_range(data.keep) if data.keep is not None else []
    if data.question == data.answer:
        message = f'question and answer are the same column, "{data.answer}"'
        problems.append(("answer", message, "name two columns"))
    return problems


def _of_range(keep: list[float]) -> KeyProblems:
    """That `keep` is a lowest and a highest pass rate."""
    if len(keep) != 2:
        count = f"{len(keep)} number{'s' * (len(keep) != 1)}"
        message = f"`keep` has {count}, not a lowest and a highest pass rate"
        return [("keep", message, "write two, such as `keep = [0.1, 0.9]`")]
    low, high = keep
    if not all(0 <= bound <= 1 for bound in keep):
        message = f"`keep` [{low:g}, {high:g}] is not within 0 and 1"
        return [("keep", message, "a pass rate is a share of samples: `keep = [0.1, 0.9]`")]
    if low >= high:
        message = f"`keep` [{low:g}, {high:g}]: the first number must be below the second"
        hint = f"write `keep = [{high:g}, {low:g}]`" if low > high else "such as `[0.1, 0.9]`"
        return [("keep", message, hint)]
    return []


def of_keep(data: Any, presets: Mapping[str, Any]) -> KeyProblems:
    """Presets whose samples cannot give a pass rate within `data.keep`."""
    if data is None or data.keep is None:
        return []
    low, high = data.keep
    problems: KeyProblems = []
    for name, preset in presets.items():
        size = preset.num_generations
        if not any(low <= right / size <= high for right in range(size + 1)):
            message = (
                f"no share of {size} samples (`num_generations`) lies from {low:g} to {high:g}, so "
                "`data.keep` keeps no problem"
            )
            hint = "widen `data.keep`, such as to `[0.1, 0.9]`"
            problems.append((f"{name}.num_generations", message, hint))
    return problems


def keep_schema(schema: dict[str, Any]) -> None:
    """Let an editor check that `data.keep` has two shares; only `check` knows their order."""
    share = {"type": "number", "minimum": 0, "maximum": 1}
    schema |= {"items": share, "minItems": 2, "maxItems": 2}


KEEP = Field(json_schema_extra=keep_schema, examples=[[0.1, 0.9]])
"""What an editor and a message need to know of `data.keep`."""


def of_presets(presets: Any, algorithm: str | None) -> KeyProblems:
    """What a preset needs by its name, and passes that do not divide a step of the algorithm. Takes
    tables as the user wrote them, so also broken ones."""
    problems: KeyProblems = []
    for name, preset in presets.items() if isinstance(presets, Mapping) else ():
        table = preset.__dict__ if hasattr(preset, "lora_rank") else preset
        if not isinstance(table, Mapping):
            continue  # the schema says so
        if row := ALGORITHMS.get(algorithm or ""):
            own = of_group(row, table) or of_batches(row, table)
            problems += [(f"{name}.{key}", text, hint) for key, text, hint in own]
        if name == "cpu":
            for key in AUTO_ON_GPU:
                if table.get(key) == "auto":
                    message = f'`{key} = "auto"` is chosen by the memory of a card'
                    problems.append((f"{name}.{key}", message, "write a number"))
            for key in GPU_ONLY:
                if table.get(key) and table[key] != "16bit":  # which is any precision but 8 and 4
                    problems.append((f"{name}.{key}", f"`{key}` needs a GPU", "remove this line"))
            continue
        is_size = preset_gb(name) is not None  # another name is an error of its own
        for key in CPU_ONLY:
            if is_size and table.get(key):
                message = f"`{key}` is for the preset `cpu`"
                problems.append((f"{name}.{key}", message, "remove this line"))
        if is_size and table.get("gpu_memory_utilization") is None:
            problems.append(
                (
                    f"{name}.gpu_memory_utilization",
                    f"`preset.{name}.gpu_memory_utilization` is missing",
                    "add `gpu_memory_utilization = 0.5`, the share of the card for vLLM; a section "
                    "for the CPU is called `[preset.cpu]`",
                )
            )
    return problems


def of_examples(examples: Any, sections: Mapping[str, Any]) -> KeyProblems:
    """[examples] for an algorithm that samples its own while it trains, [rewards] that choose
    examples and are missing, and a filter of problems that nothing is sampled of.

    `sections` are the valid ones of the recipe before [examples].
    """
    algorithm = ALGORITHMS.get(sections.get("algorithm", ""))
    if algorithm is None:
        return []
    if algorithm.learned is None:
        names = " or ".join(f'`algorithm = "{a.name}"`' for a in ALGORITHMS.values() if a.learned)
        message = f"[examples] is not for {algorithm.title}, which samples while it trains"
        return [("", message, f"remove the section, or set {names}")] if examples else []
    problems: KeyProblems = []
    noun = algorithm.learned.noun
    if algorithm.learned.by_rewards and examples is None and sections.get("rewards") == {}:
        problems.append(
            (
                "/rewards",
                f"[rewards] is missing, by which {algorithm.title} chooses {noun}s of own samples",
                f"add [rewards] with `correctness = 1.0`, or [examples] with {noun}s of your own",
            )
        )
    data = sections.get("data")
    if examples and data is not None and data.keep is not None:
        message = f"`keep` chooses problems to sample, but the {noun}s are those of [examples]"
        problems.append(("/data.keep", message, "remove this line"))
    return problems


def keys_of_others(algorithm: Algorithm) -> dict[str, str]:
    """Keys of [train] that only other algorithms have -> what to write."""
    owners: dict[str, list[str]] = {}
    for other in ALGORITHMS.values():
        for key in other.train.model_fields.keys() - algorithm.train.model_fields.keys():
            owners.setdefault(key, []).append(f'`algorithm = "{other.name}"`')
    return {key: f"remove it: it is a key of {' and '.join(o)}" for key, o in owners.items()}


def of_cold_start(start: Any, model: Any, data: Any) -> KeyProblems:
    """Where demonstrations come from, and that random weights get some.

    A section is None where it is not valid itself.
    """
    problems: KeyProblems = []
    builtin = data is not None and data.name.startswith("builtin:")
    if start and start.data is None and data is not None and not builtin:
        problems.append(
            (
                "",
                f"a cold start on `{data.name}` needs demonstrations",
                'add `data = "demonstrations.jsonl"` to [cold_start]',
            )
        )
    if start and start.data is not None and start.wrong:
        problems.append(("wrong", "`wrong` is for built-in demonstrations", "remove this line"))
    if start and model is not None and references.is_4bit_name(model.name):
        message = f"[cold_start] trains all weights, but those of `{model.name}` are in 4 bits"
        problems.append(("/model.name", message, "take the model without `-bnb-4bit`"))
    if start is None and model is not None and model.name.startswith("builtin:"):
        problems.append(
            (
                "/model.name",
                f"`{model.name}` starts from random weights and knows nothing",
                "add a section `[cold_start]` with `steps = 300`",
            )
        )
    return problems


def of_rewards(evaluation: Any, weights: Any, data: Any) -> KeyProblems:
    """Rewards that cannot judge this data, under keys as seen from `[eval]`.

    A section is None where it is not valid itself.
    """
    if data is None:
        return []
    problems: KeyProblems = []
    for name in weights or ():
        if why := _misjudges(name, data):
            better = _judge(data)
            hint = f"in [rewards] write `{better}` in its place"
            if better in weights:
                hint = f"remove this line: `{better}` is there"
            problems.append((f"/rewards.{name}", f"[rewards] `{name}`: {why}", hint))
    if evaluation is None:
        return problems
    is_given = "reward" in evaluation.model_fields_set
    why = _misjudges(evaluation.reward, data)
    if not why and not is_given and references.is_gym(data.name):
        why = "problems of reasoning-gym may have other right answers than the reference"
    if why:
        default = "" if is_given else ", the default,"
        message = f'`eval.reward` "{evaluation.reward}"{default} decides what is right: {why}'
        verb = "write" if is_given else "add"
        problems.append(("reward", message, f'{verb} `reward = "{_judge(data)}"` in [eval]'))
    return problems


def _misjudges(reward: str, data: Any) -> str:
    builtin, is_gym = data.builtin, references.is_gym(data.name)
    if builtin and builtin.misjudged and reward in COMPARES_ANSWERS:
        return f"on `{data.name}` {builtin.misjudged}"
    if reward == "gym" and not is_gym:
        kind = "it pays for the problems of reasoning-gym (`gym:NAME`)"
        return f"{kind}, not for those of `{data.name}`"
    if not builtin and not is_gym:
        return ""  # the columns of other data are known when they are read
    columns = ("question", "answer", *(builtin.columns if builtin else ("gym",)))
    if missing := [f"`{name}`" for name in _columns_of(reward) if name not in columns]:
        ending = "s" * (len(missing) > 1)
        return f"`{data.name}` lacks its column{ending}, {' and '.join(missing)}"
    return ""


def _columns_of(reward: str) -> list[str]:
    """The columns of the data that a reward of the table takes."""
    if is_user_code(reward):
        return []
    parameters = inspect.signature(rewards.REWARDS[reward]).parameters.values()
    columns = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    return [p.name for p in columns if p.name not in ("prompts", "completions")]


def _judge(data: Any) -> str:
    if references.is_gym(data.name):
        return "gym"
    return data.builtin.judge if data.builtin else "correctness"


def preset_name(name: str) -> str:
    """Refuse a name that is no size of a card, with the one that was likely meant."""
    if PRESET_NAME.fullmatch(name):
        return name
    from r1recipes.machine import cards

    card = cards.find_gpu(name)
    likely = likely_preset(name) or (f"{card.sold_gb}GB" if card else None)
    hint = "name it by the memory of the card, such as `8GB` or `24GB`, or `cpu`"
    message = f"{show(name)} is not a preset's name"
    hint = f"did you mean `[preset.{likely}]`?" if likely else hint
    raise PydanticCustomError("worded", "not a preset's name", {"message": message, "hint": hint})


def known_reward(name: str) -> str:
    """Refuse a reward that is neither in the table nor somebody's own function."""
    if not is_user_code(name) and name not in rewards.REWARDS:
        if (meant := likely_code(name)) and name.rpartition(":")[2] not in rewards.REWARDS:
            message = f'unknown reward "{name}": a function of yours is named `file.py:function`'
            words = {"message": message, "hint": f'write `"{meant}"`'}
            raise PydanticCustomError("worded", "unknown reward", words)
        context = {"what": "unknown reward", "known": sorted(rewards.REWARDS)}
        raise PydanticCustomError("unknown_name", "unknown", context)
    return name


def rewards_schema(schema: dict[str, Any]) -> None:
    """Let an editor complete the names of the rewards, each with its first docstring line."""
    number = {"type": "number", "minimum": 0, "maximum": 1000}
    schema["properties"] = {
        name: number | {"description": (function.__doc__ or "").strip().split("\n")[0]}
        for name, function in rewards.REWARDS.items()
    }
    schema["patternProperties"] = {r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$": number}


def gym_settings_schema(schema: dict[str, Any]) -> None:
    """Let an editor take the settings of gym: data in [data.problems]; only `check` knows them."""
    text = "gym:NAME: a setting of this data set of reasoning-gym."
    schema["patternProperties"] = {r"^[A-Za-z_][A-Za-z0-9_]*$": {"description": text}}
    schema["properties"]["operators"]["type"] = ["string", "array"]  # a list in some of them


def known_algorithm(name: str) -> str:
    """Refuse an algorithm that is not in the table; a loss of GRPO is pointed to its key."""
    if name in LOSSES and name not in ALGORITHMS:
        hint = f'write `algorithm = "grpo"`, and `loss_type = "{name}"` in [train]'
        message = f'"{name}" is a loss of GRPO, not an algorithm'
        raise PydanticCustomError("worded", "a loss", {"message": message, "hint": hint})
    if name not in ALGORITHMS:
        context = {"what": "unknown algorithm", "known": list(ALGORITHMS)}
        raise PydanticCustomError("unknown_name", "unknown", context)
    return name
