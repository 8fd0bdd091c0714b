"""Strict TOML: text to frozen sections, and every mistake with its place and a way out.

It knows no recipe: names of keys and words about them are handed in by the models of the files.
"""

from r1recipes.config.section import Section, refuse
from r1recipes.config.toml import parse

__all__ = ["Section", "parse", "refuse"]
