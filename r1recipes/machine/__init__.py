"""The machine: cards, packages, files that are whole, processes that can be killed, the terminal.

Nothing here knows what a recipe or a run is.
"""
