"""Grades given completions by a recipe: what each reward pays, which are right, what is doubtful.

References are judged as a run would, in the light of the whole column of the data. Nothing is
trained, recorded or written. Limits: what the chat template opens is only known where the template
is on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from r1recipes import rewards
from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer import chat_template
from r1recipes.machine.settings import Settings
from r1recipes.recipe.loading import Loaded
from r1recipes.rewards import doubts, grading
from r1recipes.rewards.grading import Completion, Grade, Summary


@dataclass(frozen=True)
class Grades:
    """The grades of some completions, in their order, and what they show together."""

    completions: Sequence[Completion]
    grades: Sequence[Grade]
    summaries: Sequence[Summary]
    decisive: str
    """`eval.reward`."""
    references: str
    """A sentence about the kinds of the references."""
    warnings: Sequence[str]
    trial: Sequence[str] = ()
    """What a trial of the judge showed and what it all cost, a line each; empty without one."""

    @property
    def num_right(self) -> int:
        return sum(grade.right for grade in self.grades)

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        rows = [
            {
                "where": completion.where,
                "question": completion.columns["question"],
                "reference": completion.columns["answer"],
                "completion": completion.text,
                "answer": grade.answer,
                "rewards": grade.paid,
                "failures": grade.failures,
                "total": grade.total,
                "right": grade.right,
                "why": grade.why,
            }
            | ({"judged": grade.judged} if self.trial else {})
            for completion, grade in zip(self.completions, self.grades, strict=True)
        ]
        return {
            "decisive": self.decisive,
            "num_right": self.num_right,
            "references": self.references,
            "rewards": [vars(summary) for summary in self.summaries],
            "warnings": list(self.warnings),
            "rows": rows,
        } | ({"judge": list(self.trial)} if self.trial else {})


def make(
    loaded: Loaded,
    splits: Splits,
    completions: Sequence[Completion],
    settings: Settings,
    *,
    allow_code: bool = False,
    allow_judge: bool = False,
) -> Grades:
    """Pay the completions and doubt the rewards. Raises: RecipeError for a reward that cannot be
    loaded; what a loaded one does wrong is a warning."""
    recipe, base_dir = loaded.recipe, loaded.path.parent
    decisive, weights = recipe.eval.reward, recipe.rewards
    column = preflight.answer_column(splits, recipe.data.answer_kind)
    with ExitStack() as stack:
        by_name, verifier = preflight.load_rewards(
            recipe,
            column,
            base_dir,
            settings,
            stack,
            allow_code=allow_code,
            allow_judge=allow_judge,
        )
        tried = preflight.try_judge(list(by_name.values()), splits, strict=False)
        grades = grading.grade_all(by_name, weights, decisive, completions, verifier)
        warnings = [*splits.notes, *grading.warnings(by_name, grades, completions, decisive)]
        warnings += [line for line in tried if line.startswith("warning: ")]
        opened = chat_template.opened_by_template(recipe, base_dir)
        rows = preflight.varied_rows(splits.train)
        for reward in by_name.values():
            warnings += [problem.message for problem in rewards.check(reward, rows)]
            decides = reward.name == decisive
            warnings += doubts.of_reward(reward, rows, decides=decides, opened=opened)
        return Grades(
            completions=completions,
            grades=grades,
            summaries=grading.summaries(grades, weights, completions),
            decisive=decisive,
            references=column.summary,
            warnings=list(dict.fromkeys(text.removeprefix("warning: ") for text in warnings)),
            trial=[line for line in tried if not line.startswith("warning: ")],
        )
