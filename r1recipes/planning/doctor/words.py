"""What the tables of error texts share: the form of their rows, and commands that many name.

Limits: the tables themselves are in `texts`, `software`, `files` and `stack`.
"""

from collections.abc import Callable

from r1recipes.errors import command

Words = tuple[str, str]
"""The cause in a sentence, and its mend."""
Tell = Callable[[], Words]
"""The words of a row; a call, since some of them ask the machine."""
DOCTOR, AGAIN = command("doctor"), command("run", "--resume")
