"""A trained run -> LoRA, merged 16 and 4 bits, GGUF, Ollama, Hub; each form is checked.

    RUN/export/<form>/   README.md (model card), export.json (what was made and checked), files

Everything that would stop an export is looked for first. Every form is written as a draft, loaded
again, compared with base + adapter as trained, and only then renamed. Limits: everything runs on
the CPU, except for 4 bits.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.data import splits
from r1recipes.errors import Problem, RecipeError, full_disk, unwritable
from r1recipes.machine import files
from r1recipes.publish import hub
from r1recipes.publish.forms import FORMS, Maker
from r1recipes.recipe.targets import Target
from r1recipes.runs.trained import TrainedRun

if TYPE_CHECKING:
    from r1recipes.training.backends.merge import Example

NUM_EXAMPLES = 8
"""Held-out answers that a form is compared on; assumed to be enough, and quick."""


@dataclass(frozen=True)
class Request:
    """Which forms to make of a run, and where."""

    targets: list[Target]
    folder: Path
    base: str | None = None
    """16-bit weights of the base, where they are others than the recipe names."""
    replace: bool = False
    public: bool = False
    offline: bool = False

    @property
    def forms(self) -> list[Target]:
        """The forms in the order in which they are made; a push alone makes the adapter."""
        forms = [target for target in self.targets if target.kind != "hub"] or [Target("lora")]
        return sorted(forms, key=lambda target: list(FORMS).index(target.kind))


def check(finished: TrainedRun, request: Request) -> None:
    """Raises: RecipeError with everything that is known to stop this export, before a weight is
    loaded."""
    problems: list[Problem] = []
    finished.chat_template()
    if any(target.kind == "hub" for target in request.targets):
        problems += hub.missing(request.offline)
        if len(request.forms) > 1:
            hint = "push each form to a repository of its own"
            problems.append(Problem("a Hub repository holds one form", hint=hint))
    new_forms = _to_make(finished, request)
    problems += missing(new_forms, finished.model_name)
    for target in new_forms:
        path = request.folder / target.kind
        if path.exists() and not request.replace:
            problems.append(Problem(f"`{path}` exists", hint="`--force` replaces it"))
    if problems:
        raise RecipeError(problems=list(dict.fromkeys(problems)))


def _to_make(finished: TrainedRun, request: Request) -> list[Target]:
    """The forms without one that exists already and only has to be pushed."""
    if request.replace or request.base or not any(target.repo for target in request.targets):
        return request.forms
    return [target for target in request.forms if not _is_made(finished, request, target)]


def _is_made(finished: TrainedRun, request: Request, target: Target) -> bool:
    """Whether an earlier export made this form of this run."""
    try:
        manifest = json.loads((request.folder / target.kind / "export.json").read_text())
    except (OSError, ValueError):
        return False
    run = {"run": finished.run.folder.name, "fingerprint": finished.run.read()["fingerprint"]}
    if manifest.get("step", finished.plan.recipe.train.max_steps) != finished.step:
        return False
    types = tuple(f"-{name}.gguf" for name in target.types)
    return run.items() <= manifest.items() and all(
        any(name.endswith(end) for name in manifest.get("files", ())) for end in types
    )


def missing(forms: list[Target], model: str) -> list[Problem]:
    """What these forms of a model need and this machine does not have."""
    problems: list[Problem] = []
    for target in forms:
        problems += FORMS[target.kind].missing(target, model)
    return list(dict.fromkeys(problems))


def execute(finished: TrainedRun, request: Request, say: Callable[[str], None]) -> list[str]:
    """Make every form; `say` gets a line at each stage. Returns folders and addresses.

    Raises: RecipeError as `check` does; RunError when a form fails its check,
    which leaves an older export as it was.
    """
    check(finished, request)
    examples, by_base = _examples(finished)
    with finished.run.owned():
        try:
            with full_disk(request.folder, _ELSEWHERE):
                return _make(finished, request, examples, by_base, say)
        except OSError as error:
            raise unwritable(request.folder, error, _ELSEWHERE) from error


_ELSEWHERE = "name another folder with `--out`"


def _make(
    finished: TrainedRun,
    request: Request,
    examples: list["Example"],
    by_base: bool,
    say: Callable[[str], None],
) -> list[str]:
    results = []
    if new_forms := _to_make(finished, request):
        files.clear_drafts(request.folder, ".draft-[0-9]*")
        with files.scratch(request.folder) as work:
            maker = Maker(
                finished,
                examples,
                say,
                by_base=by_base,
                targets=request.targets,
                folder=request.folder,
                base=request.base,
                offline=request.offline,
                work=work,
            )
            results = [str(maker.make(target)) for target in new_forms]
    for target in request.targets:
        if target.repo:
            form = request.forms[0].kind
            say(f"Pushing {form} to {target.repo}")
            message = f"r1recipes {finished.run.read()['fingerprint'][:8]}, {form}"
            folder = request.folder / form
            results.append(hub.push_folder(folder, target.repo, message, public=request.public))
    return results


def _examples(finished: TrainedRun) -> tuple[list["Example"], bool]:
    """Held-out prompts with recorded answers, and whether the base gave them.

    The base gave them where the adapter was not evaluated. Among the trained model's answers those
    come first that differ from the base's.

    Raises: RecipeError when no evaluation is there, as in a folder that is half copied.
    """
    run, evaluation = finished.run, finished.evaluation()
    rows_of_base = run.answers("before")
    rows = run.answers("after") if "after" in evaluation else []
    by_base = not rows
    if not rows_of_base:
        raise RecipeError(
            f"{run.folder} has lost the answers of its evaluation, so nothing could be compared",
            hint="put back a copy of this folder, or train again",
        )
    before = {row["question"]: row for row in rows_of_base}
    rows = rows or rows_of_base
    rows = [row for row in rows if row["greedy"]["text"].strip()] or rows
    if not by_base:
        rows.sort(key=lambda row: _greedy(before.get(row["question"])) == _greedy(row))
    recipe = finished.plan.recipe
    messages = [splits.messages(row["question"], recipe) for row in rows[:NUM_EXAMPLES]]
    return [(m, _greedy(row)) for m, row in zip(messages, rows, strict=False)], by_base


def _greedy(row: dict[str, Any] | None) -> str:
    return row["greedy"]["text"] if row else ""
