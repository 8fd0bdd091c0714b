"""Sections of a recipe that have a module of their own, and words about keys."""
