"""Builds the built-in models and their character tokenizer from configuration, without a download.

Limits: the weights are random, so the model knows nothing before a cold start. Text outside
printable ASCII and newline becomes `<unk>` and does not round-trip.
"""

from __future__ import annotations

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from r1recipes.planning.models import BUILTIN

PAD, UNK, END = "<pad>", "<unk>", "<|end|>"
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
# One token each: on this model a token costs Python overhead, not arithmetic.
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

MAX_POSITIONS = 1024  # assumed: far above the longest built-in problem and completion


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per character and one per tag; decoding is exact."""
    words = (PAD, UNK, END, *TURNS, *TAGS, *CHARACTERS)
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()  # without it, decoding puts a space between tokens
    special = (PAD, UNK, END, *TURNS)
    core.add_special_tokens([AddedToken(word, normalized=False) for word in special])
    # Not special: a trainer decodes with skip_special_tokens, and the rewards must see the tags.
    core.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        extra_special_tokens=list(TURNS),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def is_own(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has the vocabulary of the built-in models."""
    return tokenizer.get_vocab() == build_tokenizer().get_vocab()


def build_model(seed: int, name: str = "builtin:tiny") -> Qwen2ForCausalLM:
    """Return a Qwen2 model in fp32 with random weights; the same seed gives the same weights."""
    tokenizer, shape = build_tokenizer(), BUILTIN[name]
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it was
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)
