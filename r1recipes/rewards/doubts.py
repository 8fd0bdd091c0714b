"""Finds rewards that can be earned without solving anything, or that cannot be earned at all.

`of_names` looks at names alone; the other functions pay made-up completions and compare. Limits: a
doubt is not a proof, so all of them are warnings.
"""

from collections.abc import Sequence

MOST = {
    "notebook_xmlcount": 0.5,
    "notebook_soft_format": 0.5,
    "notebook_strict_format": 0.5,
    "notebook_int": 0.5,
}
"""The most that rewards of the table pay, where it is below 1."""


def of_names(weighted: Sequence[str], decisive: str) -> list[str]:
    """Doubts about a recipe's choice of rewards. `weighted` are those of [rewards], `decisive` is
    `eval.reward`."""
    doubts = []
    if decisive not in weighted:
        doubts.append(
            f"`eval.reward` {decisive} is not among [rewards]: training is not paid for what "
            "decides whether an answer is right"
        )
    if decisive in MOST:
        doubts.append(
            f"`eval.reward` {decisive} pays at most {MOST[decisive]:g}, and a completion is right "
            "from 1 on: none ever is"
        )
    return doubts
