"""Run folders: their record, their lock, statistics of their answers, and reading them again."""

from r1recipes.runs.record import Run, all_runs
from r1recipes.runs.record.names import find

__all__ = ["Run", "all_runs", "find"]
