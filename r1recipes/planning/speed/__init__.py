"""How long things take, roughly: a step of two settings, and the evaluations while training.

step        seconds of an optimiser step      lengths      how long prompts and completions are
evaluation  problems that `eval.every` may answer
"""

from r1recipes.planning.speed.evaluation import MAX_SHARE, Evaluation, eval_problems
from r1recipes.planning.speed.lengths import REAL, Lengths
from r1recipes.planning.speed.step import StepTime, step

__all__ = ["MAX_SHARE", "REAL", "Evaluation", "Lengths", "StepTime", "eval_problems", "step"]
