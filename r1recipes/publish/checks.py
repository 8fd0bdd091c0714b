"""Checks of a written form: it loads, splits text into the same tokens, and answers as base +
adapter do, not as the base does.

A form is judged by its probabilities on recorded answers, which rounding changes little. It is not
judged by greedy answers, where one rounding can change a token and all tokens after it; those are
counted and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.errors import RunError
from r1recipes.publish import llama_cpp
from r1recipes.training.backends import merge

if TYPE_CHECKING:
    import torch

NUM_TOKENS = 64
"""Tokens of a greedy answer that are compared; assumed to tell models apart, and to be quick."""
JUDGED_TOKENS = 32
"""Tokens of a recorded answer that llama.cpp judges; it keeps the logits of all in memory."""
MIN_LIKELIEST = 0.7
"""Share of the recorded greedy tokens that must be the likeliest ones where weights have 4 bits, in
training or in the form; assumed. Without rounding it is 1."""
SHARE = 0.5
"""Divergence that a form may have, as a share of the base's; base + adapter has 0. Assumed."""


@dataclass(frozen=True)
class Reference:
    """How base + adapter judge the recorded answers, before they are merged."""

    tokenizer: Any
    examples: list[merge.Example]
    likelihoods: list[torch.Tensor]
    effect: float
    """Divergence of the base without adapter, nats a token."""

    @classmethod
    def of(
        cls, trained: merge.Trained, examples: list[merge.Example], *, by_base: bool = False
    ) -> Reference:
        """Raises: RunError when this is not the model that gave the recorded answers.

        `by_base`: the base gave them, as in a run whose adapter was not evaluated. Then the forms
        are compared on the answers that base + adapter give now.
        """
        likelihoods = trained.likelihoods(examples, adapter=not by_base)
        likeliest = merge.share_likeliest(likelihoods, trained.tokenizer, examples)
        if likeliest < MIN_LIKELIEST:
            model = "the base gives" if by_base else "base + adapter give"
            raise RunError(
                f"{model} {likeliest:.0%} of the greedy tokens that the run recorded: "
                "this is not the model that was trained",
                hint="`--base` must be the model that was trained, in 16 bits",
            )
        if by_base:
            examples = [
                (messages, trained.answer(messages, NUM_TOKENS)) for messages, _ in examples
            ]
            likelihoods = trained.likelihoods(examples, adapter=True)
        without = trained.likelihoods(examples, adapter=False)
        effect = merge.divergence(likelihoods, without)
        return cls(trained.tokenizer, examples, likelihoods, effect)

    def check_weights(self, model: Any, tokenizer: Any, *, in_4bit: bool = False) -> str:
        """Check a model that was loaded again. Returns a sentence for the card.

        Raises: RunError unless it is nearer to base + adapter than to the base. Four bits may
        change more than a short training did, so there most recorded tokens must be the likeliest.
        """
        for messages, answer in self.examples:
            if _ids(tokenizer, messages, answer) != _ids(self.tokenizer, messages, answer):
                raise RunError(
                    "the tokenizer that was written splits text into other tokens",
                    hint=merge.SAME_RELEASES,
                )
        likelihoods = merge.log_probabilities(model, tokenizer, self.examples)
        distance = merge.divergence(self.likelihoods, likelihoods)
        likeliest = merge.share_likeliest(likelihoods, tokenizer, self.examples)
        if likeliest < MIN_LIKELIEST if in_4bit else not self._is_near(distance):
            raise RunError(
                "what was written does not answer as the trained model does: its divergence is "
                f"{distance:.2g} nats a token, and that of the base {self.effect:.2g}",
                hint="`--base` names another base, if this is not the one that was trained",
            )
        messages, recorded = self.examples[0]
        ids = merge.greedy(model, tokenizer, messages, NUM_TOKENS)
        if recorded.strip() and not tokenizer.decode(ids, skip_special_tokens=True).strip():
            raise RunError("what was written gives an empty answer", hint=merge.SAME_RELEASES)
        if self.effect == 0.0:
            return "loaded again; the adapter changes nothing, as if no step had been trained"
        return (
            f"loaded again, divergence from base + adapter {distance:.2g} nats a token on "
            f"{len(self.examples)} answers; the base without adapter has {self.effect:.2g}"
        )

    def _is_near(self, distance: float) -> bool:
        # NaN is not below anything, so a model that answers with it is refused as well.
        return distance < SHARE * self.effect or self.effect == 0.0

    def check_gguf(self, file: Path, kind: str, greedy: list[list[int]]) -> str:
        """Check a file in llama.cpp. Returns a sentence for the card.

        `greedy` has the tokens of the merged model's answers. Fewer than 8 bits may change more
        than the adapter did, so such a file is not judged by its divergence.

        Raises: RunError when llama.cpp splits the prompts into other tokens, or a file of 8 or 16
        bits is not nearer to base + adapter than to the base.
        """
        if not llama_cpp.has_runtime():
            return f"{kind}: not loaded by llama.cpp, since llama-cpp-python is not installed"
        prompts = [messages for messages, _ in self.examples]
        texts = [
            self.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
            for m in prompts
        ]
        ids = [_ids(self.tokenizer, *example) for example in self.examples]
        judged = [answer[:JUDGED_TOKENS] for _, answer in ids]
        context = max(len(prompt) for prompt, _ in ids) + NUM_TOKENS + 1
        answers = llama_cpp.answers(file, texts, judged, NUM_TOKENS, context)
        if [answer.prompt for answer in answers] != [prompt for prompt, _ in ids]:
            message = f"llama.cpp splits the prompts into other tokens ({kind})"
            raise RunError(message, hint=llama_cpp.ANOTHER)
        distance = merge.divergence(
            [p[: len(tokens) + 1] for p, tokens in zip(self.likelihoods, judged, strict=True)],
            [merge.log_softmax(answer.logits) for answer in answers],
        )
        if not llama_cpp.is_small(kind) and not self._is_near(distance):
            raise RunError(
                f"in llama.cpp the {kind} file does not answer as the trained model does: its "
                f"divergence is {distance:.2g} nats a token, and that of the base "
                f"{self.effect:.2g}",
                hint=llama_cpp.ANOTHER,
            )
        same = sum(a.greedy == tokens for a, tokens in zip(answers, greedy, strict=True))
        return (
            f"{kind}: llama.cpp splits the prompts into the same tokens; divergence from base + "
            f"adapter {distance:.2g} nats a token, the base without adapter has {self.effect:.2g}; "
            f"{same} of {len(answers)} greedy answers are the merged model's in each of the first "
            f"{NUM_TOKENS} tokens"
        )


def _ids(
    tokenizer: Any, messages: list[dict[str, str]], answer: str
) -> tuple[list[int], list[int]]:
    """Tokens of the prompt and of the answer."""
    prompt = merge.prompt_ids(tokenizer, messages)
    return prompt, tokenizer(answer, add_special_tokens=False)["input_ids"]
