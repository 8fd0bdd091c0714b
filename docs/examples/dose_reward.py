"""A reward for questions whose answer is a dose of a medicine, such as "500 mg".

    [rewards]
    "dose_reward.py:dose" = 2.0

1.0 for the same amount in any unit ("0.5 g" is "500 mg"), 0.2 for another amount in the right kind
of unit (mass for mass), 0 for everything else. The column `answer` holds the reference. A number
without a unit is not a dose: "500" earns nothing, as a nurse would not give it.
"""

import re
from fractions import Fraction

UNITS = {  # spelling: (kind, how many of the smallest unit of the kind)
    "ng": ("mass", 1),
    "mcg": ("mass", 10**3),
    "ug": ("mass", 10**3),
    "\u00b5g": ("mass", 10**3),  # the micro sign
    "\u03bcg": ("mass", 10**3),  # the Greek letter, which looks the same
    "mg": ("mass", 10**6),
    "g": ("mass", 10**9),
    "kg": ("mass", 10**12),
    "ul": ("volume", 1),
    "ml": ("volume", 10**3),
    "l": ("volume", 10**6),
    "iu": ("activity", 1),
    "units": ("activity", 1),
}
DOSE = re.compile(r"(\d{1,9}(?:,\d{3})*(?:\.\d{1,9})?)\s*([a-z\u00b5\u03bc]{1,5})", re.IGNORECASE)


def dose(completion: str, row: dict) -> float | None:
    """Pay one completion. Called with its text and the row of the data set."""
    given = parse(answer_of(completion))
    reference = parse(row["answer"])
    if reference is None:
        return None  # no opinion: this row does not ask for a dose
    if given is None or given[0] != reference[0]:
        return 0.0
    return 1.0 if given[1] == reference[1] else 0.2


def answer_of(completion: str) -> str:
    """What the last <answer> holds."""
    before, opened, after = completion.rpartition("<answer>")
    return after.partition("</answer>")[0] if opened else ""


def parse(text: str) -> tuple[str, Fraction] | None:
    """Kind and exact amount of a text that is one dose and nothing else."""
    found = DOSE.fullmatch(text.strip().removesuffix("."))
    if found is None or found[2].lower() not in UNITS:
        return None
    kind, factor = UNITS[found[2].lower()]
    return kind, Fraction(found[1].replace(",", "")) * factor
