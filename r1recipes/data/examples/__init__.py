"""Worked problems: demonstrations of a cold start, and examples that an algorithm learns from.

`reading` reads examples, `fitting` gives them the form of the trainer.
"""

from r1recipes.data.examples.fitting import fitting
from r1recipes.data.examples.reading import Examples, Row, learned, load

__all__ = ["Examples", "Row", "fitting", "learned", "load"]
