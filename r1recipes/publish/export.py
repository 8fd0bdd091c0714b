"""A trained run -> LoRA, merged 16 and 4 bits, GGUF, Ollama, Hub; each checked before it counts.

    RUN/export/<form>/   README.md (model card), export.json (what was made and checked), files

The disk is looked at first. Every form is written as a draft, loaded again, compared with base +
adapter as trained, and only then renamed. Limits: on the CPU, but for 4 bits.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.data import splits
from r1recipes.errors import Problem, RecipeError, full_disk, unwritable
from r1recipes.machine import files, gpu
from r1recipes.publish import hub, llama_cpp
from r1recipes.recipe.targets import Target
from r1recipes.runs.trained import Finished

NUM_EXAMPLES = 8
"""Held-out answers that a form is compared on; assumed enough, and quick."""


@dataclass(frozen=True)
class Wanted:
    """What to make of a run, and where."""

    targets: list[Target]
    folder: Path
    base: str | None = None
    """16-bit weights of the base, where they are not those that the recipe names."""
    replace: bool = False
    public: bool = False
    offline: bool = False

    @property
    def forms(self) -> list[Target]:
        """What is made of the run, the adapter first, since merging changes the model in memory."""
        found = [target for target in self.targets if target.kind != "hub"] or [Target("lora")]
        order = ("lora", "merged_16bit", "merged_4bit", "gguf", "ollama")
        return sorted(found, key=lambda target: order.index(target.kind))


def problems(finished: Finished, wanted: Wanted) -> list[Problem]:
    """Everything that is known to be in the way, before a weight is loaded."""
    found: list[Problem] = []
    if any(target.kind == "hub" for target in wanted.targets):
        found += hub.missing(wanted.offline)
        if len(wanted.forms) > 1:
            hint = "push each form to a repository of its own"
            found.append(Problem("a Hub repository holds one form", hint=hint))
    forms = _to_make(finished, wanted)
    found += missing(forms, finished.plan.recipe.model.name)
    found += _links(finished)
    for target in forms:
        path = wanted.folder / target.kind
        if path.exists() and not wanted.replace:
            found.append(Problem(f"`{path}` exists", hint="`--force` replaces it"))
    return list(dict.fromkeys(found))


def _to_make(finished: Finished, wanted: Wanted) -> list[Target]:
    """The forms without the one that is there already and has only to be pushed."""
    if wanted.replace or wanted.base or not any(target.repo for target in wanted.targets):
        return wanted.forms
    return [target for target in wanted.forms if not _is_made(finished, wanted, target)]


def _is_made(finished: Finished, wanted: Wanted, target: Target) -> bool:
    """Whether an earlier export made this form of this run."""
    try:
        made = json.loads((wanted.folder / target.kind / "export.json").read_text())
    except (OSError, ValueError):
        return False
    run = {"run": finished.run.folder.name, "fingerprint": finished.run.read()["fingerprint"]}
    types = tuple(f"-{name}.gguf" for name in target.types)
    return run.items() <= made.items() and all(
        any(name.endswith(end) for name in made.get("files", ())) for end in types
    )


def _links(finished: Finished) -> list[Problem]:
    """A run makes none; one in a folder from elsewhere could name any file of this machine."""
    folders = [finished.run.adapter, *([finished.base] if finished.base else [])]
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return [Problem("is a link, and no run makes one", str(p)) for p in paths if p.is_symlink()]


def missing(forms: list[Target], model: str) -> list[Problem]:
    """What these forms of a model need and this machine has not."""
    found = []
    for target in forms:
        if target.types:
            found += llama_cpp.missing(target.types, builtin=model.startswith("builtin:"))
        elif target.kind == "merged_4bit":
            found += _missing_4bit()
    return list(dict.fromkeys(found))


def _missing_4bit() -> list[Problem]:
    hint = "`--to gguf:q4_k_m` has 4 bits and needs no GPU"
    if gpu.current() is None:
        return [Problem("merged_4bit needs an NVIDIA GPU, and there is none here", hint=hint)]
    if importlib.util.find_spec("bitsandbytes") is None:
        return [Problem("merged_4bit needs the package `bitsandbytes`", hint=hint)]
    return []


def execute(finished: Finished, wanted: Wanted, say: Callable[[str], None]) -> list[str]:
    """Make every form; `say` gets a line at each stage. Returns folders and addresses.

    Raises: RecipeError with all that is in the way; RunError when a form fails its check, which
    leaves what was there before.
    """
    found = problems(finished, wanted)
    if found:
        raise RecipeError(problems=found)
    examples = _examples(finished)
    with finished.run.owned():
        try:
            with full_disk(wanted.folder, _ELSEWHERE):
                return _make(finished, wanted, examples, say)
        except OSError as error:
            raise unwritable(wanted.folder, error, _ELSEWHERE) from error


_ELSEWHERE = "name another folder with `--out`"


def _make(finished: Finished, wanted: Wanted, examples: list, say: Any) -> list[str]:
    from r1recipes.publish.forms import Forms

    done = []
    if to_make := _to_make(finished, wanted):
        files.clear_drafts(wanted.folder, ".draft-[0-9]*")
        with files.scratch(wanted.folder) as work:
            forms = Forms(finished, wanted, examples, say, work)
            done = [str(forms.make(target)) for target in to_make]
    for target in wanted.targets:
        if target.repo:
            form = wanted.forms[0].kind
            say(f"Pushing {form} to {target.repo}")
            message = f"r1recipes {finished.run.read()['fingerprint'][:8]}, {form}"
            place = wanted.folder / form
            done.append(hub.push(place, target.repo, message, public=wanted.public))
    return done


def _examples(finished: Finished) -> list[tuple[list[dict[str, str]], str]]:
    """Held-out prompts, each with the trained model's answer; first where the base says otherwise.

    Raises: RecipeError when the run has no evaluation yet.
    """
    run = finished.run
    after = files.read_lines(run.evaluation("after"))
    before = {row["question"]: row for row in files.read_lines(run.evaluation("before"))}
    if not after or run.status() != "complete":
        raise RecipeError(
            f"{run.folder} was not evaluated to its end (it {run.standing()}), so nothing could "
            "be compared with it",
            hint=run.to_go_on(),
        )
    rows = [row for row in after if row["greedy"]["text"].strip()] or after
    rows.sort(key=lambda row: _greedy(before.get(row["question"])) == _greedy(row))
    recipe = finished.plan.recipe
    return [(splits.messages(row["question"], recipe), _greedy(row)) for row in rows[:NUM_EXAMPLES]]


def _greedy(row: dict[str, Any] | None) -> str:
    return row["greedy"]["text"] if row else ""
