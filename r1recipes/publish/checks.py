"""What a written form must show before it counts: it loads, splits text into the same tokens, and
answers as base + adapter does, not as the base.

Judged by its probabilities on recorded answers, which rounding moves little; not by greedy answers,
where one rounding can change a token and with it all that follow. Those are counted and told.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1recipes.errors import RunError
from r1recipes.publish import llama_cpp
from r1recipes.training.backends import merge

NUM_TOKENS = 64
"""Of each greedy answer that is compared; assumed enough to tell models apart, and quick."""
JUDGED_TOKENS = 32
"""Of each recorded answer in llama.cpp, which keeps the logits of all positions in memory."""
MIN_LIKELIEST = 0.7
"""Share of the recorded greedy tokens that must be found the likeliest where 4 bits are in play, in
training or in the form; assumed. Where nothing was rounded it is all."""
SHARE = 0.5
"""Of the base's divergence that a form may have; 0 is base + adapter itself."""


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
        """Raises: RunError when this is not the model that gave the examples' answers."""
        found = trained.likelihoods(examples, adapter=True)
        likeliest = merge.share_likeliest(found, trained.tokenizer, examples)
        if likeliest < MIN_LIKELIEST:
            raise RunError(
                f"base + adapter give {likeliest:.0%} of the greedy tokens that the run recorded: "
                "this is not the model that was trained",
                hint="`--base` must be the model that was trained, in 16 bits",
            )
        without = trained.likelihoods(examples, adapter=False)
        return cls(trained.tokenizer, examples, found, merge.divergence(found, without))

    def check_weights(self, model: Any, tokenizer: Any, *, in_4bit: bool = False) -> str:
        """What was found of a reloaded model, as a sentence for the card.

        Raises: RunError unless it is nearer to base + adapter than to the base. Four bits may blur
        more than a short training moved: there it must find most recorded tokens the likeliest.
        """
        for messages, answer in self.examples:
            if _ids(tokenizer, messages, answer) != _ids(self.tokenizer, messages, answer):
                raise RunError("the tokenizer that was written splits text into other tokens")
        found = merge.log_probabilities(model, tokenizer, self.examples)
        distance = merge.divergence(self.likelihoods, found)
        likeliest = merge.share_likeliest(found, tokenizer, self.examples)
        if likeliest < MIN_LIKELIEST if in_4bit else not self._is_near(distance):
            raise RunError(
                "what was written does not answer as the trained model does: its divergence is "
                f"{distance:.2g} nats a token, and that of the base {self.effect:.2g}",
                hint="is the base the one that was trained? `--base` names another",
            )
        messages, recorded = self.examples[0]
        ids = merge.greedy(model, tokenizer, messages, NUM_TOKENS)
        if recorded.strip() and not tokenizer.decode(ids, skip_special_tokens=True).strip():
            raise RunError("what was written gives an empty answer")
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
        """What llama.cpp makes of a file, as a sentence; `greedy` is what the merged model answers.

        Raises: RunError when it splits prompts otherwise, or with 8 or 16 bits is not nearer to
        base + adapter than to the base. Fewer bits may blur more than the adapter moved.
        """
        if not llama_cpp.has_runtime():
            return f"{kind}: not loaded by llama.cpp, since llama-cpp-python is not installed"
        prompts = [messages for messages, _ in self.examples]
        texts = [
            self.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
            for m in prompts
        ]
        ids = [_ids(self.tokenizer, *example) for example in self.examples]
        given = [answer[:JUDGED_TOKENS] for _, answer in ids]
        context = max(len(prompt) for prompt, _ in ids) + NUM_TOKENS + 1
        found = llama_cpp.answers(file, texts, given, NUM_TOKENS, context)
        if [row.prompt for row in found] != [prompt for prompt, _ in ids]:
            raise RunError(f"llama.cpp splits the prompts into other tokens ({kind})")
        distance = merge.divergence(
            [p[: len(g) + 1] for p, g in zip(self.likelihoods, given, strict=True)],
            [merge.log_softmax(row.logits) for row in found],
        )
        if not llama_cpp.is_small(kind) and not self._is_near(distance):
            raise RunError(
                f"in llama.cpp the {kind} file does not answer as the trained model does: its "
                f"divergence is {distance:.2g} nats a token, and that of the base {self.effect:.2g}"
            )
        same = sum(row.greedy == other for row, other in zip(found, greedy, strict=True))
        return (
            f"{kind}: llama.cpp splits the prompts into the same tokens; divergence from base + "
            f"adapter {distance:.2g} nats a token, the base without adapter has {self.effect:.2g}; "
            f"{same} of {len(found)} greedy answers are the merged model's in each of the first "
            f"{NUM_TOKENS} tokens"
        )


def _ids(tokenizer: Any, messages: list[dict[str, str]], answer: str) -> tuple[list, list]:
    prompt = merge.prompt_ids(tokenizer, messages)
    return prompt, tokenizer(answer, add_special_tokens=False)["input_ids"]
