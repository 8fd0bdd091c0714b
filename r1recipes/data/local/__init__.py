"""What a recipe names on this machine, looked at without loading it or asking the Hub.

What is found wrong here would fail later, after minutes. No code runs unless it is allowed.
"""

from r1recipes.data.local.look import Findings, look
from r1recipes.data.local.model import missing_model

__all__ = ["Findings", "look", "missing_model"]
