"""Studies: search and matrix, their trials, database, workers and leaderboard."""

from r1recipes.study.loading import load

__all__ = ["load"]
