"""A plan is run: stages, evaluation, rehearsal, live view, trackers, and the backends."""

from r1recipes.training.run import resume, start

__all__ = ["resume", "start"]
