"""What a run does, from the cold start to the evaluation after training.

training  one training, from the probe to the adapter     run  the whole run, in order
earlier   a training before the last, a [[stage]]
"""

from r1recipes.training.stages.run import Stages

__all__ = ["Stages"]
