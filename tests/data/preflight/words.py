"""A tokenizer with a token for each word, and recipes and rows for it."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1recipes.algorithms.base import Preset
from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe

WORDS = "what is 1 2 3 4 plus system user assistant think hello INST".split()


# The shapes of the published templates, cut to what matters here.
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<h> {{ message['role'] }} </h> "
    "{{ message['content'] | trim }} <e> {% endfor %}"
    "{% if add_generation_prompt %}<h> assistant </h> {% endif %}"
)


MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] }} [/INST]{% elif message['role'] == 'assistant' %}"
    " {{ message['content'] }}{{ eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


NO_GENERATION_PROMPT = (
    "{% for message in messages %}<h> {{ message['role'] }} </h> {{ message['content'] }} <e> "
    "{% endfor %}"
)


def tokenizer(template: str | None = LLAMA, *, adds_bos: bool = True) -> PreTrainedTokenizerFast:
    """One token a word; like Llama's, its post-processor puts BOS before every text."""
    special = ["<s>", "<e>", "<pad>", "<unk>", "<h>", "</h>"]
    vocabulary = {word: index for index, word in enumerate(special + WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(special)
    if adds_bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<e>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=template,
    )


def make(system: str = "think", **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "format": 1,
            "model": {"name": "some/model"} | model,
            "data": {"name": "rows.jsonl"},
            "prompt": {"system": system},
            "rewards": {"correctness": 1.0},
            "preset": {"cpu": preset().model_dump()},
        }
    )


def preset(limit: int = 20, prompts_per_step: int = 1) -> Preset:
    return Preset(
        max_seq_length=limit + 40,
        max_completion_length=40,
        lora_rank=8,
        num_generations=4,
        prompts_per_step=prompts_per_step,
    )


def rows(*questions: str, **columns: Any) -> datasets.Dataset:
    made = [
        {"prompt": [{"role": "user", "content": text}], "answer": "3", "question": text} | columns
        for text in questions
    ]
    return datasets.Dataset.from_list(made)


def splits(*questions: str, **columns: Any) -> Splits:
    return Splits(rows(*questions, **columns), rows("what is 2", **columns))


def refused(recipe: Recipe, given: PreTrainedTokenizerFast, folder: Path = Path(".")) -> str:
    with pytest.raises(RecipeError) as caught:
        preflight.set_chat_template(given, recipe, folder)
    return "\n".join(f"{problem.message} {problem.hint}" for problem in caught.value.problems)
