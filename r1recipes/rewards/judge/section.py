"""The section [judge] of a recipe: which model judges, by what rubric, and how it is asked.

Limits: nothing is looked up or sent here; whether the judge may be asked at all is decided by
`consent`, with the flags of the user.
"""

import math
import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from r1recipes.config.section import KeyProblems, Section, Text, Word, refuse
from r1recipes.config.suggest import nearest

PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
"""A name in braces; other braces of a rubric, such as those of JSON, are text."""
PLACEHOLDERS = {
    "scale": ("question", "answer", "completion"),
    "reference": ("question",),
    "group": ("question", "answer"),
}
"""What a rubric may name, by `compare`: a comparison shows two texts as A and B, so that the judge
does not see which of them is the reference."""
SCALE = (1.0, 10.0)
WHERE_NOT_COMPUTED = {"url", "api_key_env", "concurrency", "retries", "time_limit_s"}
"""Keys that say where and how fast the judge is asked: no part of a recipe's fingerprint."""
_HINT_URL = 'such as `url = "http://127.0.0.1:8080/v1"`'


class Judge(Section):
    """A model that judges completions, for the reward `judge`."""

    url: Annotated[Word | None, Field(examples=["http://127.0.0.1:8080/v1"])] = None
    """Base URL of an endpoint with OpenAI's chat completions API; without it `model` is a folder,
    and runs on the CPU."""
    model: Annotated[Word, Field(examples=["qwen2.5-7b-instruct"])]
    """The model's name at the endpoint, or a local folder."""
    api_key_env: Annotated[
        str | None,
        StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"),
        Field(examples=["OPENAI_API_KEY"]),
    ] = None
    """Environment variable with the API key, which no recipe holds."""
    rubric: Annotated[Text, Field(examples=["Is the explanation clear and complete?"])]
    """What is judged, in words, with {question}, {answer} and {completion} where they belong."""
    compare: Literal["scale", "reference", "group"] = "scale"
    """A score for each completion, or a comparison with the reference, or within its group."""
    scale: Annotated[list[float] | None, Field(examples=[[1, 10]])] = None
    """The lowest and the highest score, which are paid 0 and 1; [1, 10] without it."""
    right_from: Annotated[float | None, Field(examples=[8])] = None
    """Score from which on a completion is paid 1; needed for `eval.reward = "judge"`."""
    opponents: Annotated[int | None, Field(ge=1, le=64, examples=[3])] = None
    """`compare = "group"`: how many others that follow it in its group each completion is compared
    with; 2 without it."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature of the judge."""
    max_tokens: Annotated[int, Field(ge=16, le=100_000)] = 512
    """Tokens of an answer of the judge at most."""
    response_format: Literal["text", "json_object", "json_schema", "json_object_schema"] = (
        "json_object"
    )
    """What the endpoint is told of the form of an answer: nothing, JSON, its schema in OpenAI's way
    or in that of llama.cpp."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests at a time."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Further tries after a failure that may pass, with growing pauses."""
    time_limit_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds for one judgement, with all its tries."""
    max_failed: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of completions that are not judged above which a run stops."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse([*_of_url(self), *_of_scale(self), *_of_rubric(self)])
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        low, high = self.scale or SCALE
        return low, high

    @property
    def names_answer(self) -> bool:
        """Whether the rubric shows the reference answer to the judge."""
        return "answer" in PLACEHOLDER.findall(self.rubric) or self.compare == "reference"


def _of_url(judge: Judge) -> KeyProblems:
    if judge.url is None:
        if judge.api_key_env:
            message = "`api_key_env` is for an endpoint, and `judge.url` names none"
            return [("api_key_env", message, f"remove this line, or add `url`, {_HINT_URL}")]
        return []
    try:
        parts = urlsplit(judge.url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return [("url", f"`judge.url` is not a URL: {error}", _HINT_URL)]
    if parts.scheme not in ("http", "https") or not host:
        message = f"`judge.url` is not the base URL of an endpoint: {judge.url}"
        return [("url", message, _HINT_URL)]
    if parts.username is not None or parts.password is not None:
        message = "`judge.url` holds a user or a password, which a recipe must not"
        hint = 'name a variable of the environment: `api_key_env = "JUDGE_API_KEY"`'
        return [("url", message, hint)]
    if parts.query or parts.fragment:
        message = "`judge.url` is a base URL, without `?` and `#`"
        return [("url", message, _HINT_URL)]
    if parts.path.rstrip("/").endswith("/chat/completions"):
        base = judge.url.rstrip("/").removesuffix("/chat/completions")
        return [("url", "`judge.url` is the base of the API", f'write `url = "{base}"`')]
    return []


def _of_scale(judge: Judge) -> KeyProblems:
    problems: KeyProblems = []
    for key, kind in {"scale": "scale", "right_from": "scale", "opponents": "group"}.items():
        if getattr(judge, key) is not None and judge.compare != kind:
            message = f'`{key}` does not apply to `compare = "{judge.compare}"`'
            problems.append((key, message, "remove this line"))
    if problems or judge.compare != "scale":
        return problems
    if judge.scale is not None and len(judge.scale) != 2:
        message = f"`scale` has {len(judge.scale)} numbers, not a lowest and a highest score"
        return [("scale", message, "such as `scale = [1, 10]`")]
    low, high = judge.bounds
    if not low < high or not math.isfinite(high - low):
        message = f"`scale` [{low:g}, {high:g}]: the first number must be below the second"
        return [("scale", message, "such as `scale = [1, 10]`")]
    if judge.right_from is not None and not low < judge.right_from <= high:
        message = f"`right_from` {judge.right_from:g} is not on the scale from {low:g} to {high:g}"
        hint = f"a score above {low:g}, at most {high:g}"
        return [("right_from", message, hint)]
    return []


def _of_rubric(judge: Judge) -> KeyProblems:
    """Placeholders that the rubric may not have; each is named once."""
    usable = PLACEHOLDERS[judge.compare]
    problems: KeyProblems = []
    if not judge.rubric.strip():
        return [("rubric", "`rubric` is empty", "say in a sentence what is good")]
    for name in dict.fromkeys(PLACEHOLDER.findall(judge.rubric)):
        if name in usable:
            continue
        shown = ", ".join(f"{{{other}}}" for other in usable)
        message = f"`rubric` names {{{name}}}, and may name {shown}"
        hint = "write the braces with a space, `{ " + name + " }`, if they are plain text"
        if name in PLACEHOLDERS["scale"]:
            message += f' where `compare = "{judge.compare}"`'
            hint = "remove it: both texts are shown to the judge, as A and B"
        elif meant := nearest(name, usable, 0.6):
            hint = f"did you mean {{{meant}}}?"
        problems.append(("rubric", message, hint))
    return problems


def of_use(judge: Any, weights: Any, evaluation: Any) -> KeyProblems:
    """Whether [judge] and the reward `judge` go together, under keys as seen from [judge].

    [rewards] or [eval] is None where it is not valid itself.
    """
    if weights is None or evaluation is None:
        return []
    is_paid, decides = "judge" in weights, evaluation.reward == "judge"
    if judge is None:
        key = "/rewards.judge" if is_paid else "/eval.reward"
        message = "the reward `judge` needs a section [judge]"
        hint = 'add [judge] with `url = "http://127.0.0.1:8080/v1"`, `model` and `rubric`'
        return [(key, message, hint)] if is_paid or decides else []
    if not (is_paid or decides):
        hint = "add `judge = 0.5` to [rewards], or remove this section"
        return [("", "nothing uses [judge]: the reward `judge` is not named", hint)]
    if not decides:
        return []
    if judge.compare != "scale":
        message = f'`eval.reward = "judge"` with `compare = "{judge.compare}"` calls nothing right'
        hint = 'set `compare = "scale"` and `right_from`, or let another reward decide'
        return [("/eval.reward", message, hint)]
    if judge.right_from is None:
        message = '`eval.reward = "judge"` lets a model decide what is right, so say from when on'
        hint = f"add `right_from = {judge.bounds[1]:g}` or lower to [judge], or let another decide"
        return [("/eval.reward", message, hint)]
    return []
