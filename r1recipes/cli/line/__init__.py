"""The command line itself, before and beside its commands.

parser      arguments, and what they are likely to mean where they are mistyped
explain     errors on stderr          guide       what a bare `r1recipes` prints
completion  what a shell completes, and `completion`, which prints its script
"""
