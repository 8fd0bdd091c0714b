"""Which problems of reasoning-gym a small model can learn from: right answers and groups with
spread, before training.

    python -m benchmarks.learning.problem_sets MODEL OUT.json [SET...]

MODEL is a local folder. Each set of `SETS` is tried on the CPU with the tags alone, and with the
tags and one worked example. Limits: a few dozen problems for each row, so a share of 20 % is known
to about 10 points; short completions only.
"""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import about
from benchmarks.learning.prompts import XML, attempt
from r1recipes import data, planning, recipe
from r1recipes.machine import host, settings
from r1recipes.training.backends import create, prepare_environment


@dataclass(frozen=True)
class ProblemSet:
    """A data set of reasoning-gym with its settings, and a problem solved in the tags."""

    name: str
    question: str
    reasoning: str
    answer: str
    settings: dict[str, int] = field(default_factory=dict)

    def example(self) -> str:
        return (
            f'\nFor example, for "{self.question}":\n<reasoning>\n{self.reasoning}\n</reasoning>\n'
            f"<answer>\n{self.answer}\n</answer>\n"
        )


SUM = "State the final answer to the following arithmetic problem: "
LEGS = "How many legs are there in total if you have 2 dogs, 1 chicken?"
SETS = {
    "sums of 2 digits": ProblemSet(
        "chain_sum",
        f"{SUM}6 + 3 =",
        "6 + 3 = 9",
        "9",
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    ),
    "sums of 2 to 3 numbers": ProblemSet(
        "chain_sum",
        f"{SUM}6 + 13 - 4 =",
        "6 + 13 = 19, 19 - 4 = 15",
        "15",
        {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
    ),
    "words of 3 to 4 letters backward": ProblemSet(
        "spell_backward",
        "Spell this word backward (example: sun -> nus): map",
        "m a p, backward: p a m",
        "pam",
        {"min_word_len": 3, "max_word_len": 4},
    ),
    "letters of 3 to 5 words": ProblemSet(
        "letter_counting",
        'How many times does the letter "a" appear in the text: "had a plan"?',
        "had: 1, a: 1, plan: 1. 1 + 1 + 1 = 3",
        "3",
        {"min_words": 3, "max_words": 5},
    ),
    "legs of 1 to 2 animals": ProblemSet(
        "leg_counting",
        LEGS,
        "2 dogs have 2 * 4 = 8 legs, 1 chicken has 2 legs. 8 + 2 = 10",
        "10",
        {"min_animals": 1, "max_animals": 2, "max_instances": 3},
    ),
    "products of digits": ProblemSet(
        "products",
        "Solve the following multiplication: 6 * 3. Give only the result as your final answer.",
        "6 * 3 = 18",
        "18",
        {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
    ),
    "greatest common divisors to 20": ProblemSet(
        "gcd",
        "Find the Greatest Common Divisor (GCD) of these numbers: 12, 18. Give only the GCD as "
        "your final answer.",
        "12 = 2 * 6, 18 = 3 * 6",
        "6",
        {"min_value": 1, "max_value": 20},
    ),
    "largest of some numbers": ProblemSet(
        "number_format",
        "Now, pick the smallest number of the following candidates: 12.5 9.25 31.0",
        "9.25 < 12.5 < 31.0",
        "9.25",
        {"max_num_candidates": 3, "max_n": 1000},
    ),
    "who of 3 to 6 people": ProblemSet(
        "needle_haystack",
        "Tom likes tea. Ann hates rain. Who hates rain? Reply only with a name.",
        "Ann hates rain.",
        "Ann",
        {"min_num_statements": 3, "max_num_statements": 6},
    ),
    "families": ProblemSet(
        "family_relationships",
        "Tom is married to Ann. They have a child called Bob. What is Ann to Bob? Respond only "
        "with the word that describes their relationship.",
        "Bob is the child of Ann, and Ann is a woman.",
        "mother",
    ),
}
RECIPE = """\
format = 1

[model]
name = {model}

[data]
name = "gym:{name}"
size = 8
eval_size = {num}

[data.problems]
{settings}

[prompt]
system = ""

[rewards]
gym = 1.0
soft_format = 0.1

[eval]
reward = "gym"
batch_size = 128

[preset.cpu]
max_seq_length = 512
max_completion_length = {tokens}
lora_rank = 8
num_generations = {samples}
prompts_per_step = 4
"""


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("model", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("sets", nargs="*", metavar="SET", help="instead of all")
    options.add_argument("--num", type=int, default=32, help="problems of each set")
    options.add_argument("--samples", type=int, default=8)
    options.add_argument("--tokens", type=int, default=96, help="of a completion, at most")
    args = options.parse_args()
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        backend = None
        for title in args.sets or SETS:
            plan, splits = _prepared(args, SETS[title])
            if backend is None:
                prepare_environment(plan, settings.load().cache_dir)
                backend = create(plan, offline=True)
                stack.callback(backend.close)
                backend.tokenizer()
                backend.load(None, None)
            for prompt, system in {"tags": XML, "example": XML + SETS[title].example()}.items():
                began = time.monotonic()
                row = attempt(backend, splits, system, args.samples, "gym")
                seconds = round(time.monotonic() - began, 1)
                rows.append({"problems": title, "prompt": prompt} | row | {"seconds": seconds})
                print(rows[-1], flush=True)
                result = {"model": args.model.name, "tokens": args.tokens, "rows": rows}
                about.write(args.out, result, "reasoning-gym")


def _prepared(args: argparse.Namespace, problems: ProblemSet) -> tuple[planning.Plan, data.Splits]:
    lines = [f"{key} = {value}" for key, value in problems.settings.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "problems.toml")
        file.write_text(
            RECIPE.format(
                model=json.dumps(str(args.model.absolute())),
                name=problems.name,
                num=args.num,
                settings="\n".join(lines),
                tokens=args.tokens,
                samples=args.samples,
            )
        )
        loaded = recipe.load(file)
        target = planning.Target.here(None, host.cores())
        plan = planning.make(loaded.recipe, target, base_dir=Path(folder))
        return plan, data.load(loaded.recipe, Path(folder))


if __name__ == "__main__":
    main()
