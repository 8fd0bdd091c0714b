"""What a written form must show before it counts: it loads, splits text into the same tokens, and
answers as base + adapter does, not as the base.

Weights are judged by their probabilities on recorded answers, which rounding hardly moves;
llama.cpp by its greedy answers, where rounding may change a late token.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.backends import merge
from r1recipes.errors import RunError
from r1recipes.export import llama

NUM_TOKENS = 64
"""Of each greedy answer that is compared; assumed enough to tell models apart, and quick."""
BEGINNING = 16
"""Tokens that are the beginning of an answer."""
MIN_SAME = 0.5
"""Share of answers of llama.cpp in f16 and q8_0 that must begin as the merged model's; assumed.
Rounding changes some answers; a wrong tokenizer or a wrong tensor changes all."""


@dataclass(frozen=True)
class Reference:
    """What base + adapter say on the examples, before they are merged."""

    tokenizer: Any
    examples: list[merge.Example]
    likelihoods: list[Any]
    effect: float
    """Divergence of the base without adapter, nats a token."""

    @classmethod
    def of(cls, trained: merge.Trained, examples: list[merge.Example]) -> "Reference":
        found = trained.likelihoods(examples, adapter=True)
        without = trained.likelihoods(examples, adapter=False)
        return cls(trained.tokenizer, examples, found, merge.divergence(found, without))

    def check_weights(self, model: Any, tokenizer: Any) -> str:
        """What was found of a reloaded model, as a sentence for the card.

        Raises: RunError unless it is nearer to base + adapter than to the base.
        """
        for messages, answer in self.examples:
            if _ids(tokenizer, messages, answer) != _ids(self.tokenizer, messages, answer):
                raise RunError("the tokenizer that was written splits text into other tokens")
        found = merge.log_probabilities(model, tokenizer, self.examples)
        distance = merge.divergence(self.likelihoods, found)
        # NaN is not below anything, so a model that answers with it is refused as well.
        if not (distance < 0.5 * self.effect or distance == self.effect == 0.0):
            raise RunError(
                "what was written does not answer as the trained model does: its divergence is "
                f"{distance:.2g} nats a token, and that of the base {self.effect:.2g}",
                hint="is the base the one that was trained? `--base` names another",
            )
        ids = merge.greedy(model, tokenizer, self.examples[0][0], NUM_TOKENS)
        if not tokenizer.decode(ids, skip_special_tokens=True).strip():
            raise RunError("what was written gives an empty answer")
        return (
            f"loaded again, divergence from base + adapter {distance:.2g} nats a token on "
            f"{len(self.examples)} answers; the base without adapter has {self.effect:.2g}"
        )

    def check_gguf(self, file: Path, kind: str, greedy: list[list[int]]) -> str:
        """What llama.cpp makes of a file, as a sentence; `greedy` is what the merged model answers.

        Raises: RunError when it splits prompts or begins answers in another way.
        """
        if not llama.has_runtime():
            return f"{kind}: not loaded by llama.cpp, since llama-cpp-python is not installed"
        prompts = [messages for messages, _ in self.examples]
        texts = [
            self.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
            for m in prompts
        ]
        expected = [merge.prompt_ids(self.tokenizer, m) for m in prompts]
        context = max(map(len, expected)) + NUM_TOKENS + 1
        found = llama.answers(file, texts, NUM_TOKENS, context)
        if [row["prompt"] for row in found] != expected:
            raise RunError(f"llama.cpp splits the prompts into other tokens ({kind})")
        given = [row["answer"] for row in found]
        same = sum(ids == other for ids, other in zip(given, greedy, strict=True))
        begin = sum(
            ids[:BEGINNING] == other[:BEGINNING] for ids, other in zip(given, greedy, strict=True)
        )
        if kind in ("f16", "q8_0") and begin < MIN_SAME * len(found):
            raise RunError(
                f"llama.cpp begins {begin} of {len(found)} answers as the merged model ({kind})"
            )
        return (
            f"{kind}: llama.cpp splits the prompts into the same tokens; {same} of {len(found)} "
            f"greedy answers are the merged model's, token for token up to {NUM_TOKENS}"
        )


def _ids(tokenizer: Any, messages: list[dict[str, str]], answer: str) -> tuple[list, list]:
    prompt = merge.prompt_ids(tokenizer, messages)
    return prompt, tokenizer(answer, add_special_tokens=False)["input_ids"]
