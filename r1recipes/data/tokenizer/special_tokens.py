"""Special tokens of a tokenizer: what begins a prompt, ends a completion, pads, and hides a tag.

All of it is known before a weight is loaded. `check_bos` judges prompts; `settle` corrects the
tokenizer where there is one way to do it, and refuses what would waste a run. Limits: what a model
writes at the end of an answer is taken from its chat template, not from its samples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1recipes.algorithms import ALGORITHMS
from r1recipes.data.tokenizer.chat_template import ANSWER, QUESTION, adds_bos, render
from r1recipes.errors import RecipeError, listed
from r1recipes.recipe.schema import BUILTIN_MODELS, Recipe
from r1recipes.rewards import SHIPPED
from r1recipes.rewards.functions import TAGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

PAD_FAMILIES = (
    "<|finetune_right_pad_id|>", "<|finetune_right_pad|>", "<pad>", "[PAD]", "<PAD>",
    "<|endoftext|>", "<fim_pad>", "<\uff5c\u2581pad\u2581\uff5c>", "[MASK]", "<|reserved",
    "<|placeholder", "<|dummy_", "[control", "|<EXTRA_TOKENS_", "<SPECIAL_", "<unused", "<|EOT|>",
    "<|reject-unknown|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
"""Tokens that are there to pad, or for nothing else, by preference: names, or beginnings of names.
Unsloth looks for one in the same order (unsloth_zoo 2026.10.7, pad_token.py)."""
_CLOSERS = (">", "]", ")")
_TAG = re.compile(r"</?[A-Za-z_]+>")
OTHER_TOKENIZER = "the tokenizer does not belong to these weights: take both from one place"
NOT_SPECIAL = (
    'in a local copy of the model set `"special": false` for them in tokenizer.json, and in '
    "tokenizer_config.json where it lists them, and name its folder in `model.name`"
)


def check_bos(
    prompts: Sequence[Messages],
    counts: Sequence[int],
    begins: Sequence[bool],
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[str, list[str]]:
    """Where the BOS token of the prompts comes from, and warnings.

    The prompts have the same roles. `counts` has the number of BOS tokens in each, `begins` whether
    it begins with one. A chat template may write the token in every turn, as ChatML does where it
    is `<|im_start|>`. Raises: RecipeError where prompts begin with two, or where a message contains
    the token's text.
    """
    bos = tokenizer.bos_token
    if bos is None:
        return "none, this tokenizer has no such token", []
    own_text, own_ids = _without_messages(prompts[0], tokenizer)
    if own_ids[:2] == [tokenizer.bos_token_id] * 2:
        is_written = own_text.lstrip().removeprefix(bos).lstrip().startswith(bos)
        raise RecipeError(
            f"{len(counts)} of {len(counts)} prompts begin with two BOS tokens `{bos}`",
            hint="remove it from `model.chat_template`, which writes it twice"
            if is_written
            else "remove it from `model.chat_template`: this tokenizer adds it to every text",
        )
    template = own_ids.count(tokenizer.bos_token_id)
    if several := sum(number > template for number in counts):
        is_system = any(bos in message["content"] for message in prompts[0][:-1])
        place = "`prompt.system`" if is_system else "these questions"
        raise RecipeError(
            f"{several} of {len(counts)} prompts have the BOS token `{bos}` in their text",
            hint=f"remove the text `{bos}` from {place}",
        )
    adds = adds_bos(tokenizer)
    if all(begins):
        text = f"one `{bos}`, from the chat template"
        if template > 1:
            text = f"`{bos}`, with which the chat template begins every turn"
        # This is so for Llama: TRL passes ids with one BOS token; from the text vLLM would get two.
        return text + ("; the tokenizer would add a second to a text" if adds else ""), []
    if not adds:
        return "none, neither the chat template nor the tokenizer adds it", []
    warning = (
        f"no prompt begins with `{bos}`, which this tokenizer puts before every text: the model "
        "has not seen such prompts; begin `model.chat_template` with {{ bos_token }}"
    )
    return "none, although the tokenizer adds it to other texts", [warning]


def _without_messages(
    prompt: Messages, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, list[int]]:
    """Text and token ids of a prompt with the same roles, whose messages contain no token."""
    neutral = [message | {"content": QUESTION} for message in prompt]
    text = render(tokenizer, neutral, "these roles")
    return text, tokenizer(text, add_special_tokens=False)["input_ids"]


def in_questions(prompts: Sequence[Messages], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A warning on questions that contain the text of a special token: it ends a turn or more."""
    special = re.compile("|".join(map(re.escape, _special_tokens(tokenizer))) or r"\Z.")
    matches = [special.search(prompt[-1]["content"]) for prompt in prompts]
    tokens = dict.fromkeys(match[0] for match in matches if match)
    if not tokens:
        return []
    return [
        f"warning: {sum(map(bool, matches))} of {len(matches)} questions contain special tokens, "
        f"{listed(tokens)}: the model does not see their text but what they stand for"
    ]


def settle(
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    *,
    num_embeddings: int | None,
    needs_pad: bool,
) -> list[str]:
    """Give the tokenizer the end token of its chat template and a token to pad with. Returns what
    to tell the user, one thing a line.

    `num_embeddings` are the rows of the model's embedding, where known. With `needs_pad` the token
    to pad with must be another than the end token, as in Unsloth, which takes every one of them for
    padding. Raises: RecipeError.
    """
    notes = settle_end(tokenizer)
    if recipe.model.name not in BUILTIN_MODELS:
        notes += _settle_pad(tokenizer, recipe.model.name, num_embeddings, needs_pad)
    _refuse_end_as_padding(tokenizer, recipe)
    _refuse_without_embedding(tokenizer, recipe.model.name, num_embeddings)
    return notes + _check_tags(tokenizer, recipe)


def settle_end(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Make the token that the chat template writes after an answer the tokenizer's end token, so
    that completions end there. Returns what to tell the user.

    Base models with ChatML, Phi-3 and Gemma have another: `<|endoftext|>` for `<|im_end|>`.
    """
    turn = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    try:
        text = render(tokenizer, turn, "an assistant message", generation_prompt=False)
    except RecipeError:  # a template for prompts alone
        return []
    answer, end = text.partition(ANSWER)[1:]
    if not answer:
        return []
    before, end = tokenizer.eos_token, end.lstrip()
    token = max((t for t in _special_tokens(tokenizer) if end.startswith(t)), key=len, default=None)
    if token is None and before not in end:
        return [
            f"the chat template ends an answer with no token: completions end at `{before}` if the "
            "model has learned to write it there"
        ]
    if token is None or token == before:
        return []
    tokenizer.eos_token = token
    return [f"completions end at `{token}`, as the chat template has it, not at `{before}`"]


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Special tokens and those with a role, the newest last."""
    added = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    return list(dict.fromkeys([*added, *tokenizer.all_special_tokens]))


def _settle_pad(
    tokenizer: PreTrainedTokenizerBase, name: str, num_embeddings: int | None, needs_pad: bool
) -> list[str]:
    prompt = render(tokenizer, [{"role": "user", "content": QUESTION}], "a user message")

    def can_pad(token: str | None) -> bool:
        if not token or token in (tokenizer.eos_token, tokenizer.bos_token) or token in prompt:
            return False
        ids = tokenizer(token, add_special_tokens=False)["input_ids"]
        return len(ids) == 1 and (num_embeddings is None or ids[0] < num_embeddings)

    before = tokenizer.pad_token
    if can_pad(before):
        return []
    special = _special_tokens(tokenizer)[::-1]
    for family in PAD_FAMILIES:
        named = [token for token in special if token.startswith(family)]
        named.sort(key=lambda token: not token.endswith(_CLOSERS))  # a whole name before a part
        if token := next(filter(can_pad, named), None):
            break
    else:
        token = tokenizer.unk_token if can_pad(tokenizer.unk_token) else None
    if token:
        tokenizer.pad_token = token
        reason = "which also ends a completion" if before == tokenizer.eos_token else "as it was"
        return [f"padding with `{token}`, not with `{before}`, {reason}"] if before else []
    if needs_pad and (num_embeddings is None or len(tokenizer) >= num_embeddings):
        others = [t for t in special if can_pad(t) and t not in TAGS]
        raise RecipeError(
            f"the tokenizer of `{name}` has no token to pad with but `{before}`, which also ends a "
            "completion",
            hint="in a local copy of the model set `pad_token` in tokenizer_config.json to a token "
            "that is never written" + (f", such as `{others[0]}`" if others else ""),
        )
    tokenizer.pad_token = tokenizer.eos_token
    return []


def _refuse_end_as_padding(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
    """Raises: RecipeError where the token to pad with also ends a completion, for an algorithm that
    takes each of them for padding."""
    takes_pad = [ALGORITHMS[name] for name in recipe.algorithms if ALGORITHMS[name].needs_pad]
    if takes_pad and tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise RecipeError(
            f"{takes_pad[0].title} needs a token to pad with that ends no completion, and the "
            f"tokenizer of `{recipe.model.name}` has only `{tokenizer.eos_token}`",
            hint='set another `algorithm`, such as `algorithm = "grpo"`, or in a local copy of the '
            "model set `pad_token` in tokenizer_config.json to a token that is never written",
        )


def _refuse_without_embedding(
    tokenizer: PreTrainedTokenizerBase, name: str, num_embeddings: int | None
) -> None:
    """Raises: RecipeError where completions would have to end with a token beyond the embedding."""
    if num_embeddings is not None and (tokenizer.eos_token_id or 0) >= num_embeddings:
        raise RecipeError(
            f"the end token `{tokenizer.eos_token}` has the id {tokenizer.eos_token_id}, and "
            f"`{name}` has embeddings for {num_embeddings:,} tokens",
            hint=OTHER_TOKENIZER,
        )


def _check_tags(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> list[str]:
    """A warning on tags of the system prompt that rewards do not see. Raises: RecipeError for tags
    that a reward reads."""
    in_prompt = _TAG.findall(recipe.prompt.system)
    hidden = [t for t in dict.fromkeys([*TAGS, *in_prompt]) if _is_hidden(t, tokenizer)]
    names = recipe.reward_names
    blind = [n for n in names if n in SHIPPED and set(hidden) & set(SHIPPED[n].tags)]
    if blind:
        raise RecipeError(
            f"{listed(hidden)} are special tokens of this tokenizer: completions are decoded "
            f"without them, so {listed(blind)} would never pay",
            hint=NOT_SPECIAL,
        )
    shown = [tag for tag in hidden if tag in in_prompt]
    if not shown:
        return []
    return [
        f"warning: {listed(shown)} of `prompt.system` are special tokens of this tokenizer: "
        "rewards get completions without them"
    ]


def _is_hidden(tag: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    ids = tokenizer(tag, add_special_tokens=False)["input_ids"]
    seen, all_of_it = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False))
    return tag in all_of_it and tag not in seen
