"""The recipe: its schema, and how one is found, read, overridden, fetched and written anew.

Nothing is chosen for a machine here: `planning` does.
"""

from r1recipes.recipe.loading import IsStudy, Loaded, find, fingerprint, load, shipped
from r1recipes.recipe.schema import Recipe

__all__ = ["IsStudy", "Loaded", "Recipe", "find", "fingerprint", "load", "shipped"]
