"""Looks at each thing of this machine that a recipe names.

Data files and their columns, demonstrations, the chat template, the folder of the model, functions
of the user's own rewards. Limits: of a data file only the first rows; nothing of the Hub; a name
that may be one of the Hub's is only compared with what is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.examples import Examples
from r1recipes.data import answer_column, gym, splits
from r1recipes.data.examples import demonstrations, reading
from r1recipes.data.local.model import (
    describe,
    missing_model,
    model_folder_problems,
    nearest_path,
    starting_point,
)
from r1recipes.data.local.rows import sample
from r1recipes.data.tokenizer import chat_template
from r1recipes.data.tokenizer.chat_template import template_text
from r1recipes.errors import Problem, RecipeError, listed
from r1recipes.machine import files
from r1recipes.recipe import overrides, references
from r1recipes.recipe.loading import Loaded, shipped_folder
from r1recipes.recipe.schema import Model, Recipe, of_stage
from r1recipes.recipe.sections.stage import Stage
from r1recipes.rewards import doubts, signatures, user_code
from r1recipes.rewards.judge import consent
from r1recipes.rewards.judge.section import Judge


@dataclass
class Findings:
    """What a recipe names on this machine, and what is wrong with it."""

    lines: list[str] = field(default_factory=list)
    """What was looked at, in a line each."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: list[str] | None = None
    """The columns of the training data; None where they are not known."""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make a RecipeError within the context one of the problems."""
        try:
            yield
        except RecipeError as error:
            self.problems += error.problems


def look(loaded: Loaded, *, allow_code: bool = False) -> Findings:
    """Look at what a valid recipe names. `allow_code`: files of rewards are imported, in a child
    process that can be killed."""
    recipe, base_dir, findings = loaded.recipe, loaded.path.parent, Findings()
    if references.is_gym(recipe.data.name):
        with findings.guard():
            gym.check(loaded)
    elif not recipe.data.name.startswith("builtin:"):
        _look_at_data(recipe, base_dir, findings)
    if recipe.cold_start and recipe.cold_start.data:
        _look_at_demonstrations(recipe.cold_start.data, base_dir, findings)
    if recipe.examples:
        _look_at_examples(recipe, recipe.examples, base_dir, findings, "examples")
    if recipe.model.chat_template:
        _look_at_template(recipe.model.chat_template, base_dir, findings)
    if not recipe.model.name.startswith("builtin:"):
        _look_at_model(recipe.model, loaded, findings)
    if not findings.problems:
        _try_template(loaded, findings)
    if recipe.judge:
        _look_at_judge(recipe.judge, loaded, findings)
    for name in recipe.reward_names:
        if user_code.is_user_code(name):
            with findings.guard():
                _look_at_code(name, base_dir, allow_code, findings)
    for number, stage in enumerate(recipe.stage):
        _look_at_stage(number, stage, recipe, base_dir, findings)
    findings.lines += _references(recipe)
    findings.warnings += _unused(recipe)
    if ALGORITHMS[recipe.algorithm].samples:
        findings.warnings += doubts.of_names(list(recipe.rewards), recipe.eval.reward)
    findings.problems = overrides.named_as_typed(findings.problems, loaded.overrides)
    return findings


def _look_at_stage(
    number: int, stage: Stage, recipe: Recipe, base_dir: Path, findings: Findings
) -> None:
    """What a stage names, as that of the recipe that trains it alone."""
    alone, name = of_stage(recipe, stage, recipe.preset), recipe.stage_names[number]
    if alone.examples:
        _look_at_examples(alone, alone.examples, base_dir, findings, f"stage[{number}].examples")
    warnings = list(ALGORITHMS[stage.algorithm].limits)
    if stage.rewards is not None:
        warnings += _unused(alone)
        if ALGORITHMS[stage.algorithm].samples:
            warnings += doubts.of_names(list(stage.rewards), recipe.eval.reward)
    findings.warnings += [f"stage {name}: {warning}" for warning in warnings]


def _references(recipe: Recipe) -> list[str]:
    """A line on the reference of trainings that begin with the adapter of a stage."""
    titles = [f"stage {name}" for name in recipe.stage_names] + ["the last training"]
    sections = [*(stage.train for stage in recipe.stage), recipe.train]
    trainings = zip(titles, recipe.algorithms, sections, strict=True)
    later = [title for title, name, keys in trainings if ALGORITHMS[name].reference(keys)]
    later = [title for title in later if title != titles[0]]
    if not later:
        return []
    return [f"{listed(later)}: the reference is the model before all stages (`beta`)"]


def _unused(recipe: Recipe) -> list[str]:
    """A warning on [rewards] that nothing is chosen by."""
    learned = ALGORITHMS[recipe.algorithm].learned
    if learned is None or not recipe.rewards or (learned.by_rewards and recipe.examples is None):
        return []
    source = f"{learned.noun}s of [examples]" if recipe.examples else "`eval.reward` alone"
    title = ALGORITHMS[recipe.algorithm].title
    return [f"[rewards] pay for nothing: {title} goes by {source}"]


# Data


def _look_at_data(recipe: Recipe, base_dir: Path, findings: Findings) -> None:
    data = recipe.data
    path = _file_of(data.name, "data.name", base_dir, findings)
    if path is None:
        return
    with findings.guard():
        path = splits.local_file(data, base_dir, path, "data.name")
        findings.columns = _look_at_rows(path, "data.name", recipe, findings)
    if data.eval_split:
        with findings.guard():
            other = splits.local_file(data, base_dir, path, "data.eval_split")
            _look_at_rows(other, "data.eval_split", recipe, findings)


def _file_of(name: str, key: str, base_dir: Path, findings: Findings) -> Path | None:
    """The file that a name means; None where it is a folder or may be on the Hub."""
    path = references.local_path(name, base_dir)
    if path is not None and path.is_dir():
        findings.lines.append(f"{key} {name}: a folder")
        return None
    if path is None and (near := nearest_path(name, base_dir)):
        findings.warnings.append(
            f"`{key}` {name} is looked for on the Hub: no file or folder here has this name, but "
            f"there is `{near}`"
        )
    return path


def _look_at_examples(
    recipe: Recipe, section: Examples, base_dir: Path, findings: Findings, where_named: str
) -> None:
    key, form = f"{where_named}.name", reading.learned(recipe)
    path = _file_of(section.name, key, base_dir, findings)
    if path is None:
        return
    with findings.guard():
        columns, rows = sample(path, key, (*reading.QUESTIONS, *form.columns))
        question = reading.question_column(section, columns)
        read = [name for name in (question, *form.columns) if name in columns]
        values = {name: [row.get(name) for row in rows.rows] for name in read}
        where = f"`{path}`" if rows.is_whole else f"the first rows of `{path}`"
        problems = reading.column_problems(columns, values, section, form, where)
        for name in ("config", "revision"):
            if getattr(section, name) is not None:
                own = f"`{where_named}.{name}`"
                message = f"{own} is for the Hub, but `{key}` is the file `{path}`"
                problems.append(Problem(message, hint=f"remove {own}"))
        findings.problems += problems
        findings.lines.append(f"{key} {path.name}: {rows.about}, columns {', '.join(columns)}")


def _look_at_rows(path: Path, key: str, recipe: Recipe, findings: Findings) -> list[str]:
    """Its columns, with the names that question and answer get. Raises: RecipeError."""
    data = recipe.data
    columns, rows = sample(path, key, (data.question, data.answer))
    splits.check_columns(columns, data, f"`{path}`")
    where = f"`{path}`" if rows.is_whole else f"the first rows of `{path}`"
    questions = [splits.read_question(row.get(data.question)) for row in rows.rows]
    compared = answer_column.are_compared(recipe)
    values = [row.get(data.answer) for row in rows.rows]
    finals = answer_column.final_answers(values, data, where, compared=compared)
    problems = splits.count_faults(data.question, [fault for _, fault in questions], where)
    problems += splits.count_faults(data.answer, finals.faults, where)
    problems += [finals.problem] if finals.problem else []
    different = len({splits.question_key(text) for text, fault in questions if not fault})
    if rows.is_whole and not problems:
        problems += _too_few_questions(different, key, recipe, where)
    findings.problems += problems
    findings.warnings += [note.removeprefix("warning: ") for note in finals.notes]
    about = rows.about
    if different < sum(not fault for _, fault in questions):
        about += f", {different:,} different question" + "s" * (different != 1)
    findings.lines.append(f"{key} {path.name}: {about}, columns {', '.join(columns)}")
    return list(dict.fromkeys(["question", "answer", *columns]))


def _too_few_questions(num_different: int, key: str, recipe: Recipe, where: str) -> list[Problem]:
    """The problem with a whole file that has too few questions to hold some out, if it has."""
    data = recipe.data
    are_trained = not data.eval_split
    if key == "data.name" and not are_trained:
        return []
    problem = splits.too_few_questions(num_different, data, where, are_trained=are_trained)
    if not problem and are_trained and num_different == data.eval_size:
        problem = splits.none_to_train(num_different, data)
    return [problem] if problem else []


def _look_at_demonstrations(name: str, base_dir: Path, findings: Findings) -> None:
    path, key = base_dir / files.named(name), "cold_start.data"
    with findings.guard():
        columns, rows = sample(path, key, demonstrations.COLUMNS)
        values = {
            column: [row.get(column) for row in rows.rows]
            for column in demonstrations.COLUMNS
            if column in columns
        }
        where = f"`{path}`" if rows.is_whole else f"the first rows of `{path}`"
        findings.problems += demonstrations.file_problems(columns, values, where)
        findings.lines.append(f"{key} {name}: {rows.about}, columns {', '.join(columns)}")


# The model

_OWN_TEMPLATE = "remove `model.chat_template` where the model has a template of its own"


def _look_at_template(template: str, base_dir: Path, findings: Findings) -> None:
    import jinja2

    with findings.guard():
        text = template_text(template, base_dir)
        try:
            jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        except jinja2.TemplateSyntaxError as error:
            if "unknown tag 'generation'" not in str(error):  # a tag of transformers' own
                message = f"`model.chat_template` is not valid Jinja: {error.message}"
                message = f"{message}, line {error.lineno} of it"
                raise RecipeError(message, hint=f"correct that line, or {_OWN_TEMPLATE}") from error
        except (RecursionError, ValueError) as error:  # also a number of thousands of digits
            message = "`model.chat_template` is nested too deeply, or has too long a number"
            raise RecipeError(message, hint=f"make it simpler, or {_OWN_TEMPLATE}") from error
        shown = "in the recipe" if text == template else f"{template}: {len(text):,} characters"
        findings.lines.append(f"model.chat_template {shown}")


def _try_template(loaded: Loaded, findings: Findings) -> None:
    """Render the template that the recipe or the folder of its model has, where it can be stopped.

    Those of the shipped recipes are known, and starting a process takes a second or two.
    """
    recipe, base_dir = loaded.recipe, loaded.path.parent
    if not chat_template.is_foreign(recipe):
        return
    if recipe.model.chat_template:
        if loaded.path.resolve().parent == shipped_folder().resolve():
            return
    elif not (base_dir / recipe.model.name).is_dir():  # of the Hub: `run` tries it
        return
    with findings.guard():
        if text := chat_template.template_here(recipe, base_dir):
            chat_template.attempt(text, recipe.prompt.system)


def _look_at_model(model: Model, loaded: Loaded, findings: Findings) -> None:
    base_dir, where = loaded.path.parent, loaded.where(("model", "name"))
    if starting_point(model.name, base_dir):  # `runs.origin` looks at these
        return
    if problem := missing_model(model.name, base_dir):
        findings.problems.append(Problem(problem.message, where, problem.hint))
        return
    folder = base_dir / model.name
    if folder.is_dir():
        problems = list(model_folder_problems(folder))
        findings.problems += [Problem(p.message, where, p.hint) for p in problems]
        if not problems:
            findings.lines.append(f"model.name {model.name}: {describe(folder)}")
    elif near := nearest_path(model.name, base_dir, is_model=True):
        findings.warnings.append(
            f"`model.name` {model.name} is looked for on the Hub: no folder here has this name, "
            f"but there is `{near}`"
        )


# Rewards


def _look_at_judge(judge: Judge, loaded: Loaded, findings: Findings) -> None:
    """Nothing is sent: an endpoint is looked at by its name alone."""
    if judge.url:
        place = consent.place_of(judge.url)
        needs = "" if place == "this machine" else "; asked with --allow-judge alone"
        findings.lines.append(f"judge.model {judge.model}: at {judge.url}, {place}{needs}")
        findings.warnings += consent.warnings(judge)
        return
    folder, where = loaded.path.parent / judge.model, loaded.where(("judge", "model"))
    if not folder.is_dir():
        near = nearest_path(judge.model, loaded.path.parent, is_model=True)
        hint = f"did you mean `{near}`?" if near else "add `url` if it is a model at an endpoint"
        message = f"`judge.model`: there is no folder `{folder}`"
        findings.problems.append(Problem(message, where, hint))
        return
    problems = list(model_folder_problems(folder))
    findings.problems += [Problem(p.message, where, p.hint) for p in problems]
    if not problems:
        about = f"judge.model {judge.model}: {describe(folder)}; runs on the CPU"
        findings.lines.append(about)


def _look_at_code(name: str, base_dir: Path, allow_code: bool, findings: Findings) -> None:
    """Raises: RecipeError."""
    code = user_code.look_up(name, base_dir)
    problems = signatures.problems(name, code, findings.columns)
    findings.problems += problems
    if allow_code and not problems:
        own = user_code.UserCode(code, time_limit_s=user_code.LOAD_LIMIT_S)
        try:
            own.load()
        except user_code.Failed as failed:
            hint = f"correct `{name.rpartition(':')[0]}`"
            raise RecipeError(f"reward `{name}` {failed.message}", hint=hint) from failed
        finally:
            own.close()
    if not problems:
        ran = ", imported" if allow_code else ""
        file = name.rpartition(":")[0]
        findings.lines.append(f"reward {file}: {signatures.describe(code)}{ran}")
