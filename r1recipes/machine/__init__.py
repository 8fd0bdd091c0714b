"""The machine: cards, packages, files that are whole, processes that can be killed, the terminal.

It knows no recipe and no run.
"""
