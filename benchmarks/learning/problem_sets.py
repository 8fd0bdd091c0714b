"""Which problems of reasoning-gym a small model can learn from: right answers and groups with
spread, before training.

    python -m benchmarks.learning.problem_sets MODEL OUT.json [--sets SET...] [--prompts PROMPT...]

MODEL is a local folder. Each set of `SETS` is tried on the CPU under three prompts: the tags alone
as a system message, with a solved problem in that message, and with three as earlier turns. A group
has spread when right and wrong answers are in it. Limits: a few problems for each row, so a share
of 20 % is known to about 10 points; the shared part of a group's prompt is read once, and nothing
of it is trained.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import about
from r1recipes.recipe.schema import SYSTEM_PROMPT
from r1recipes.rewards.answers import extract_answer

Messages = list[dict[str, str]]
SEED = 5


@dataclass(frozen=True)
class ProblemSet:
    """A data set of reasoning-gym with its settings, and solved problems of its kind."""

    name: str
    settings: dict[str, int]
    solved: list[tuple[str, str, str]]
    """(question, reasoning, answer)"""


SUM = "State the final answer to the following arithmetic problem: {} ="
BACKWARD = "Spell this word backward (example: sun -> nus): {}"
LETTERS = 'How many times does the letter "{}" appear in the text: "{}"?'


def sums(terms: int, digits: int) -> ProblemSet:
    """Sums and differences of `terms` numbers with `digits` digits each."""
    solved = {
        2: [
            ("3 + 5", "3 + 5 = 8", "8"),
            ("9 - 2", "9 - 2 = 7", "7"),
            ("6 + 4", "6 + 4 = 10", "10"),
        ],
        3: [
            ("3 + 5 - 2", "3 + 5 = 8, 8 - 2 = 6", "6"),
            ("9 - 2 - 1", "9 - 2 = 7, 7 - 1 = 6", "6"),
            ("6 + 4 + 7", "6 + 4 = 10, 10 + 7 = 17", "17"),
        ],
    }[terms]
    limits = {"min_terms": terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
    return ProblemSet("chain_sum", limits, [(SUM.format(q), r, a) for q, r, a in solved])


SETS = {
    "sums-2x1": sums(2, 1),
    "sums-2x2": sums(2, 2),
    "sums-3x1": sums(3, 1),
    "backward": ProblemSet(
        "spell_backward",
        {"min_word_len": 3, "max_word_len": 4},
        [
            (BACKWARD.format("map"), "m a p -> p a m", "pam"),
            (BACKWARD.format("Top"), "T o p -> p o T", "poT"),
            (BACKWARD.format("lid"), "l i d -> d i l", "dil"),
        ],
    ),
    "letters": ProblemSet(
        "letter_counting",
        {"min_words": 3, "max_words": 5},
        [
            (LETTERS.format("a", "had a plan"), "had 1, a 1, plan 1: 1 + 1 + 1 = 3", "3"),
            (LETTERS.format("t", "it is better"), "it 1, is 0, better 2: 1 + 0 + 2 = 3", "3"),
            (LETTERS.format("o", "go on now"), "go 1, on 1, now 1: 1 + 1 + 1 = 3", "3"),
        ],
    ),
}


def tagged(reasoning: str, answer: str) -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>"


def before(prompt: str, problems: ProblemSet) -> Messages:
    """The messages before the question under the prompt `tags`, `example` or `turns`."""
    system = SYSTEM_PROMPT
    turns: Messages = []
    if prompt == "example":
        question, reasoning, answer = problems.solved[0]
        system += f'\nFor example, for "{question}":\n{tagged(reasoning, answer)}\n'
    if prompt == "turns":
        for question, reasoning, answer in problems.solved:
            turns.append({"role": "user", "content": question})
            turns.append({"role": "assistant", "content": tagged(reasoning, answer)})
    return [{"role": "system", "content": system}, *turns]


PROMPTS = ("tags", "example", "turns")


class Sampler:
    """A causal language model on the CPU in 32 bits, and samples of it."""

    def __init__(self, folder: Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    def sample(
        self, prompts: list[Messages], num_samples: int, max_tokens: int, temperature: float
    ) -> list[tuple[str, int]]:
        """(text, tokens) of `num_samples` completions for each prompt, in the prompts' order."""
        import torch

        inputs = self._tokenizer.apply_chat_template(
            prompts,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            padding=True,
        )
        torch.manual_seed(SEED)
        with torch.no_grad():
            tokens = torch.cat(
                list(self._tokens(inputs, num_samples, max_tokens, temperature)), dim=1
            )
        end = self._tokenizer.eos_token_id
        lengths = [row.index(end) + 1 if end in row else len(row) for row in tokens.tolist()]
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return list(zip(texts, lengths, strict=True))

    def _tokens(
        self, inputs: Any, num_samples: int, max_tokens: int, temperature: float
    ) -> Iterator[Any]:
        """One token of every completion at a time; after the end token, only that."""
        import torch

        end = self._tokenizer.eos_token_id
        first = self._model(**inputs, use_cache=True, logits_to_keep=1)
        cache = first.past_key_values
        cache.batch_repeat_interleave(num_samples)
        mask = inputs["attention_mask"].repeat_interleave(num_samples, 0)
        positions = mask.sum(1, keepdim=True)
        logits = first.logits[:, -1].repeat_interleave(num_samples, 0)
        done = torch.zeros(len(logits), dtype=torch.bool)
        for _ in range(max_tokens):
            tokens = torch.multinomial((logits / temperature).softmax(-1), 1)
            tokens[done] = end
            yield tokens
            done |= tokens[:, 0] == end
            if done.all():
                return
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            output = self._model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            logits, positions = output.logits[:, -1], positions + 1


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("model", type=Path)
    options.add_argument("out", type=Path)
    options.add_argument("--sets", nargs="*", choices=SETS, default=list(SETS))
    options.add_argument("--prompts", nargs="*", choices=PROMPTS, default=list(PROMPTS))
    options.add_argument("--num", type=int, default=20, help="problems of each set")
    options.add_argument("--samples", type=int, default=8, help="completions of a group")
    options.add_argument("--tokens", type=int, default=48, help="of a completion, at most")
    options.add_argument("--temperature", type=float, default=1.0)
    args = options.parse_args()
    sampler = Sampler(args.model)
    rows: list[dict[str, Any]] = []
    for name in args.sets:
        for prompt in args.prompts:
            began = time.monotonic()
            row = attempt(sampler, SETS[name], prompt, args)
            row |= {"seconds": round(time.monotonic() - began)}
            rows.append({"set": name, "prompt": prompt} | row)
            print(rows[-1], flush=True)
            asked = {key: getattr(args, key) for key in ("num", "samples", "tokens", "temperature")}
            about.write(
                args.out, {"model": args.model.name} | asked | {"rows": rows}, "reasoning-gym"
            )


def attempt(
    sampler: Sampler, problems: ProblemSet, prompt: str, args: argparse.Namespace
) -> dict[str, Any]:
    """Shares of completions in the tags, of right ones, and of groups with spread."""
    import reasoning_gym

    made = reasoning_gym.create_dataset(
        problems.name, size=args.num, seed=SEED, **problems.settings
    )
    entries = [made[index] for index in range(args.num)]
    start = before(prompt, problems)
    prompts = [[*start, {"role": "user", "content": entry["question"]}] for entry in entries]
    samples = sampler.sample(prompts, args.samples, args.tokens, args.temperature)
    answers = [extract_answer(text) for text, _ in samples]
    right = [
        answer is not None and made.score_answer(answer, entries[index // args.samples]) == 1
        for index, answer in enumerate(answers)
    ]
    groups = [sum(right[i : i + args.samples]) for i in range(0, len(right), args.samples)]
    return {
        "tagged": round(sum(answer is not None for answer in answers) / len(answers), 3),
        "right": round(sum(right) / len(right), 3),
        "spread": round(sum(0 < group < args.samples for group in groups) / len(groups), 3),
        "groups": groups,
        "mean_tokens": round(sum(length for _, length in samples) / len(samples), 1),
        "example": samples[0][0],
    }


if __name__ == "__main__":
    main()
