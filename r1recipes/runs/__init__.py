"""The run folder: its record, its lock, statistics of its answers, and how it is read again."""

from r1recipes.runs.record import Run, all_runs, find

__all__ = ["Run", "all_runs", "find"]
