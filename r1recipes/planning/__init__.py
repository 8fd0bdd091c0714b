"""Recipe + machine -> Plan: shapes, predicted memory, values for "auto", disk space, the doctor.

Nothing here imports torch or measures anything.
"""

from r1recipes.planning.plan import DoesNotFit, Plan, Target, make

__all__ = ["DoesNotFit", "Plan", "Target", "make"]
