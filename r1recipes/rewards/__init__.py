"""What a completion is paid: the functions, their table, and code of the user's own.

Nothing here knows a run or a card.
"""

from r1recipes.rewards.functions import REWARDS, SHIPPED
from r1recipes.rewards.reward import Reward, check, is_right, load

__all__ = ["REWARDS", "SHIPPED", "Reward", "check", "is_right", "load"]
