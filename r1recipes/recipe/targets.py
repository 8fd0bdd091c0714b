"""Where the results of a run go: the forms of [export] and `--to`, and the trackers of [track].

Only names are read: nothing is looked up, loaded or sent here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from r1recipes.config.section import KeyProblems, Section, Word, refuse
from r1recipes.errors import Problem, command

GGUF_TYPES = ("f16", "q8_0", "q6_k", "q5_k_m", "q4_k_m")
"""The types of llama.cpp that can be written, from the largest to the smallest."""
KINDS = {
    "lora": "lora",
    "merged_16bit": "merged_16bit",
    "merged_4bit": "merged_4bit",
    "gguf": "gguf:q8_0,q4_k_m",
    "ollama": "ollama",
    "hub": "hub:user/name",
}
"""Name of a form -> how it is written. They are made in this order: the adapter comes first, since
merging changes the model in memory. How each is made stands in `publish.forms.FORMS`."""
HINT = f"one of {', '.join(KINDS.values())}"
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Target:
    """One form of the result."""

    kind: str
    types: tuple[str, ...] = ()
    """The types of a gguf or ollama form."""
    repo: str | None = None
    """The repository of a hub form, `user/name`."""


def parse(texts: Sequence[str], where: str | None = None) -> tuple[list[Target], list[Problem]]:
    """The targets, and every problem with them. Each kind may be named once."""
    targets: dict[str, Target] = {}
    problems = []
    for text in texts:
        target = _target(text.strip())
        if isinstance(target, str):
            problems.append(Problem(target, where, HINT))
        elif target.kind in targets:
            hint = "name it once, as in `gguf:q8_0,q4_k_m`"
            problems.append(Problem(f"`{target.kind}` is named twice", where, hint))
        else:
            targets[target.kind] = target
    return list(targets.values()), problems


def _target(text: str) -> Target | str:
    """The target, or a message on what is wrong with it."""
    kind, colon, rest = text.partition(":")
    if kind not in KINDS:
        return f"unknown form `{text}`"
    if kind == "hub":
        return (
            Target(kind, repo=rest) if REPO.fullmatch(rest) else f"`{text}` does not name user/name"
        )
    if kind not in ("gguf", "ollama"):
        return f"`{kind}` takes nothing after a colon" if colon else Target(kind)
    types = tuple(dict.fromkeys(part.strip().lower() for part in rest.split(","))) if colon else ()
    unknown = [name for name in types if name not in GGUF_TYPES]
    if unknown:
        return f"`{unknown[0]}` in `{text}` is not one of {', '.join(GGUF_TYPES)}"
    if kind == "ollama" and len(types) > 1:
        return f"`{text}`: an Ollama model has one type"
    return Target(kind, types or ("q8_0",))


class Export(Section):
    """What `run` makes of the result at its end, in the folder `export` of the run."""

    to: Annotated[list[Word], Field(examples=[["gguf:q8_0"]])] = []
    """Forms as for `export --to`: lora, merged_16bit, merged_4bit, gguf:q8_0,q4_k_m, ollama."""

    @field_validator("to")
    @classmethod
    def _known(cls, texts: list[str]) -> list[str]:
        targets, problems = parse(texts)
        refused: KeyProblems = [("", problem.message, problem.hint or "") for problem in problems]
        if any(target.kind == "hub" for target in targets):
            hint = (
                f"`{command('export', 'RUN', '--to', 'hub:user/name')}` pushes when you ask for it"
            )
            refused.append(("", "a recipe pushes nothing to the Hub", hint))
        refuse(refused)
        return texts


class Wandb(Section):
    """Weights & Biases; needs the extra `wandb`, and online an API key."""

    project: Word = "r1recipes"
    """Project that runs are listed under."""
    entity: Annotated[Word | None, Field(examples=["my-team"])] = None
    """User or team; without it the default of the key."""
    mode: Literal["online", "offline"] = "online"
    """"offline" sends nothing and writes into the run folder; `wandb sync` sends it later."""


class Trackio(Section):
    """trackio, kept on this machine and shown by `trackio show`; needs the extra `trackio`."""

    project: Word = "r1recipes"
    """Project that runs are listed under."""


class Track(Section):
    """Trackers beside the metrics that every run keeps; without this section nothing is sent."""

    wandb: Wandb | None = None
    """Weights & Biases, such as `wandb = { project = "r1" }`."""
    tensorboard: bool = False
    """Write TensorBoard's event files into the run folder; needs the extra `tensorboard`."""
    trackio: Trackio | None = None
    """trackio, such as `trackio = { project = "r1" }`."""

    def names(self) -> list[str]:
        """The trackers that are asked for."""
        return [name for name in type(self).model_fields if getattr(self, name)]
