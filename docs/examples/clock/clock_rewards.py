"""A reward for the worked example in docs/own-data.md: part of the pay for an answer that is near.

    [rewards]
    "clock_rewards.py:near" = 0.2

Pays 1.0 for the right number of minutes, 0.3 for one that is at most 20 minutes off, and 0 for
anything else. `row["answer"]` is the reference, `row["solution"]` the whole column of the file.
"""

import re


def near(completion: str, row: dict) -> float:
    answers = re.findall(r"<answer>\s*(\d{1,6})\s*</answer>", completion)
    if not answers:
        return 0.0
    off = abs(int(answers[-1]) - int(row["answer"]))
    return 1.0 if off == 0 else 0.3 if off <= 20 else 0.0
