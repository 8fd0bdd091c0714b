"""Running a plan: stages, evaluation, rehearsal, observers, trackers, the live view, backends."""

from r1recipes.training.observers import Observer
from r1recipes.training.run import resume, start

__all__ = ["Observer", "resume", "start"]
