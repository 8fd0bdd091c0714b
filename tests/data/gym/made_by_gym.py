"""Prints as JSON what reasoning-gym makes: data set -> its first rows, or why there are none."""

import itertools
import json

from r1recipes.data.gym import child
from r1recipes.rewards import gym_child


def main() -> None:
    made: dict[str, object] = {}
    for name in gym_child.names():
        if name in gym_child.REFUSED:
            made[name] = gym_child.REFUSED[name]
            continue
        try:
            made[name] = list(itertools.islice(child.rows(name, {}, "test 0"), 3))
        except child.Unusable as error:
            made[name] = str(error)
    print("\n" + json.dumps(made))  # generators print, too


if __name__ == "__main__":
    main()
