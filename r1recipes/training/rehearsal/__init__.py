"""The rehearsal: true memory and speed of a plan, measured on random weights of the model's shape.

`driver` acts as a smaller card and starts `child`, a process that loads the weights and trains.
"""

from r1recipes.training.rehearsal.driver import rehearse, weights_dir

__all__ = ["rehearse", "weights_dir"]
