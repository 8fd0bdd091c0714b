"""Strict TOML: text to frozen sections, every mistake with its place and a way out.

It knows no recipe: names of keys, presets and rewards are handed in by those who own them.
"""

from r1recipes.config.section import Section, refuse
from r1recipes.config.toml import parse

__all__ = ["Section", "parse", "refuse"]
