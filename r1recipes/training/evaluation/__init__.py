"""What a model answers to problems: held-out ones before, while and after training, and those to
train on, whose pass rates tell what can be learned.
"""

from r1recipes.training.evaluation.scoring import Score, evaluate, num_right, reward_arguments
from r1recipes.training.evaluation.while_training import WhileTraining

__all__ = ["Score", "WhileTraining", "evaluate", "num_right", "reward_arguments"]
