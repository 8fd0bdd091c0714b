"""Recipe + machine -> Plan: shapes, predicted memory, what "auto" stands for, disk, doctor.

It never imports torch and measures nothing.
"""

from r1recipes.planning.plan import Plan, make

__all__ = ["Plan", "make"]
