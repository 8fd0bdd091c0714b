"""Recipe + machine -> Plan: shapes, predicted memory, what "auto" stands for, disk, doctor.

It never imports torch and measures nothing.
"""

from r1recipes.planning.plan import DoesNotFit, Plan, Target, make

__all__ = ["DoesNotFit", "Plan", "Target", "make"]
