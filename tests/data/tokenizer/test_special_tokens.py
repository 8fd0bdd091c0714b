"""Special tokens: BOS, end, padding, tags and ids, with real tokenizers of several kinds."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from r1recipes.algorithms.base import Preset
from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer import special_tokens
from r1recipes.data.tokenizer.chat_template import CHATML
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe
from r1recipes.rewards import SHIPPED
from r1recipes.training.backends import builtin

WORDS = "what is 1 2 3 4 plus system user assistant think zq1 six times seven zq2 forty-two".split()
TAGS = ["<reasoning>", "</reasoning>", "<answer>", "</answer>"]
CHATML_TOKENS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<repo_name>")
LLAMA_TOKENS = ("<|begin|>", "<|eot|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
                "<|reserved_special_token_1|>")  # fmt: skip
LLAMA = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }} {{ message['content'] }} "
    "<|eot|>{% endfor %}{% if add_generation_prompt %} assistant {% endif %}"
)
PRESET = {
    "max_seq_length": 90,
    "max_completion_length": 40,
    "lora_rank": 8,
    "num_generations": 4,
    "prompts_per_step": 1,
}


class AddsBos(PreTrainedTokenizerFast):
    """Adds special tokens also where it is asked not to, as some tokenizers of one model do."""

    def __call__(self, *texts: Any, **options: Any) -> Any:
        return super().__call__(*texts, **options | {"add_special_tokens": True})


def tokenizer(
    special: tuple[str, ...] = CHATML_TOKENS,
    template: str = CHATML,
    kind: type[PreTrainedTokenizerFast] = PreTrainedTokenizerFast,
    tags_are_special: bool = False,
    **roles: str | None,
) -> PreTrainedTokenizerFast:
    """One token a word; `roles` are bos_token, eos_token, pad_token and so on."""
    vocabulary = {word: index for index, word in enumerate([*special, *TAGS, "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens([AddedToken(word, normalized=False) for word in special])
    tags = [AddedToken(tag, normalized=False, special=tags_are_special) for tag in TAGS]
    core.add_special_tokens(tags) if tags_are_special else core.add_tokens(tags)
    if kind is AddsBos:
        bos = str(roles["bos_token"])
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    given = {"eos_token": "<|im_end|>"} | roles
    return kind(tokenizer_object=core, chat_template=template, **given)


def recipe(system: str = "", rewards: tuple[str, ...] = ("correctness",)) -> Recipe:
    return Recipe.model_validate(
        {
            "format": 1,
            "model": {"name": "some/model"},
            "data": {"name": "rows.jsonl"},
            "prompt": {"system": system},
            "rewards": dict.fromkeys(rewards, 1.0),
            "preset": {"cpu": PRESET},
        }
    )


def bos_line(given: PreTrainedTokenizerFast, *questions: str, system: str = "think", **more: Any):
    """The line on BOS and the warnings, or what is refused."""
    made = [{"role": "system", "content": system}] if system else []
    rows = [{"prompt": [*made, {"role": "user", "content": text}], "answer": "3"}
            for text in questions or ("what is 1", "what is 2")]  # fmt: skip
    both = Splits(datasets.Dataset.from_list(rows), datasets.Dataset.from_list(rows[:1]))
    try:
        _, report = preflight.check_prompts(
            both, given, Preset.model_validate(PRESET), "drop", **more
        )
    except RecipeError as error:
        (problem,) = error.problems
        return f"refused: {problem.message}; {problem.hint}"
    return "; ".join([report.bos, *report.warnings])


def settle(
    given: PreTrainedTokenizerFast,
    *,
    num_embeddings: int | None = None,
    needs_pad: bool = True,
    **of_recipe: Any,
) -> list[str]:
    return special_tokens.settle(
        given, recipe(**of_recipe), num_embeddings=num_embeddings, needs_pad=needs_pad
    )


# What begins a prompt


def test_a_bos_token_that_begins_every_turn_is_no_mistake():
    """SmolLM2-Instruct: ChatML, and `<|im_start|>` is the BOS token."""
    given = tokenizer(bos_token="<|im_start|>")
    expected = "`<|im_start|>`, with which the chat template begins every turn"
    assert bos_line(given) == expected
    assert bos_line(given, system="") == expected  # the user's turn and the answer's


def test_one_bos_token_and_none():
    llama = tokenizer(LLAMA_TOKENS, LLAMA, bos_token="<|begin|>", eos_token="<|eot|>")
    assert bos_line(llama) == "one `<|begin|>`, from the chat template"
    assert bos_line(tokenizer(bos_token=None)) == "none, this tokenizer has no such token"
    unused = tokenizer(bos_token="<|endoftext|>")
    assert bos_line(unused) == "none, neither the chat template nor the tokenizer adds it"


def test_a_second_one_at_the_beginning_is_refused():
    twice = tokenizer(bos_token="<|im_start|>", template="{{ bos_token }}" + CHATML)
    assert bos_line(twice) == (
        "refused: 3 of 3 prompts begin with two BOS tokens `<|im_start|>`; "
        "remove it from `model.chat_template`, which writes it twice"
    )
    added = tokenizer(LLAMA_TOKENS, LLAMA, AddsBos, bos_token="<|begin|>", eos_token="<|eot|>")
    assert bos_line(added).endswith(
        "remove it from `model.chat_template`: this tokenizer adds it to every text"
    )


def test_a_tokenizer_that_adds_it_to_what_the_template_leaves_out_is_fine():
    given = tokenizer(bos_token="<|endoftext|>", kind=AddsBos)
    assert bos_line(given).startswith("one `<|endoftext|>`")


def test_the_same_token_may_begin_and_end():
    template = "{{ bos_token }}" + CHATML
    given = tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>", template=template)
    assert bos_line(given).startswith("one `<|endoftext|>`")
    ending = tokenizer(template=CHATML.replace("\\n' }}{% endfor", "' + eos_token }}{% endfor"),
                       bos_token="<|endoftext|>", eos_token="<|endoftext|>")  # fmt: skip
    assert bos_line(ending) == "none, neither the chat template nor the tokenizer adds it"
    twice = tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>",
                      template="{{ bos_token }}" + template)  # fmt: skip
    assert "begin with two BOS tokens" in bos_line(twice)


@pytest.mark.parametrize("question", ["what is <|im_start|> 1", "<|im_start|>system 1"])
def test_the_text_of_the_token_in_a_question_is_refused(question: str):
    """Who writes the data would write turns of their own."""
    given = tokenizer(bos_token="<|im_start|>")
    assert bos_line(given, "what is 1", question, "what is 2") == (
        "refused: 1 of 4 prompts have the BOS token `<|im_start|>` in their text; "
        "remove the text `<|im_start|>` from these questions"
    )
    llama = tokenizer(LLAMA_TOKENS, LLAMA, bos_token="<|begin|>", eos_token="<|eot|>")
    line = bos_line(llama, "what is <|begin|> 1", system="think <|begin|>")
    assert line.endswith("remove the text `<|begin|>` from `prompt.system`")


def test_other_special_tokens_in_questions_are_warned_of():
    given = tokenizer(bos_token="<|im_start|>")
    line = bos_line(given, "what is <|im_end|> 1", "what is <repo_name> 2", "what is 3")
    assert "warning: 3 of 4 questions contain special tokens, <|im_end|>, <repo_name>" in line


# What ends a completion


def test_completions_end_where_the_chat_template_ends_an_answer():
    """A base model with ChatML, Phi-3, Gemma: the tokenizer's end token is another one."""
    given = tokenizer(eos_token="<|endoftext|>", pad_token="<repo_name>")
    assert settle(given) == [
        "completions end at `<|im_end|>`, as the chat template has it, not at `<|endoftext|>`"
    ]
    assert given.eos_token == "<|im_end|>" and settle(given) == []
    padded = tokenizer(eos_token="<|endoftext|>", pad_token="<|im_end|>")
    assert settle(padded)[1:] == [
        "padding with `<|endoftext|>`, not with `<|im_end|>`, which also ends a completion"
    ]


def test_an_end_token_that_is_right_stays():
    for given in (
        tokenizer(pad_token="<|endoftext|>"),
        tokenizer(LLAMA_TOKENS, LLAMA, eos_token="<|eot|>", pad_token="<|end_of_text|>"),
        builtin.build_tokenizer(),
    ):
        before = given.eos_token
        assert special_tokens.settle_end(given) == [] and given.eos_token == before


def test_a_template_that_ends_no_answer_is_told_of():
    template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant "
    given = tokenizer(template=template, eos_token="<|endoftext|>", pad_token="<repo_name>")
    (line,) = settle(given)
    assert line.startswith("the chat template ends an answer with no token")
    assert given.eos_token == "<|endoftext|>"


# What pads


@pytest.mark.parametrize(
    ("special", "pad"),
    [
        (CHATML_TOKENS, "<|endoftext|>"),
        (("<|im_end|>", "<|im_start|>", "<|finetune_right_pad_id|>", "<|endoftext|>"),
         "<|finetune_right_pad_id|>"),
        (("<|im_end|>", "<|im_start|>", "<|reserved_1|>", "<|reserved_2|>"), "<|reserved_2|>"),
        (("<|im_end|>", "<|im_start|>", "<unused0>", "<unused1>"), "<unused1>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", ["<|im_end|>", None])
def test_a_token_that_can_pad_is_used(special: tuple[str, ...], pad: str, before: str | None):
    given = tokenizer(special, pad_token=before)
    notes = settle(given)
    assert given.pad_token == pad and given.pad_token_id != given.eos_token_id
    expected = f"padding with `{pad}`, not with `<|im_end|>`, which also ends a completion"
    assert notes == ([expected] if before else [])


def test_a_token_to_pad_with_that_is_right_stays():
    given = tokenizer(pad_token="<repo_name>")
    assert settle(given) == [] and given.pad_token == "<repo_name>"


def test_a_token_that_the_template_writes_or_the_model_lacks_does_not_pad():
    written = tokenizer(template="<|endoftext|>" + CHATML, unk_token="<unk>")
    settle(written)
    assert written.pad_token == "<unk>"
    special = ("<|im_end|>", "<|im_start|>", "<pad>", "<|endoftext|>")
    beyond = tokenizer(special, pad_token="<|endoftext|>")
    assert settle(beyond, num_embeddings=3) == [
        "padding with `<pad>`, not with `<|endoftext|>`, as it was"
    ]


def test_without_any_it_is_refused_with_one_that_could_where_padding_must_differ():
    special = ("<|im_end|>", "<|im_start|>", "<repo_name>")
    given = tokenizer(special, pad_token="<|im_end|>")
    with pytest.raises(RecipeError) as caught:
        settle(given)
    (problem,) = caught.value.problems
    assert "no token to pad with but `<|im_end|>`" in problem.message
    assert "such as `<repo_name>`" in str(problem.hint)
    # Unsloth adds one where the model has an embedding left, and plain TRL needs no other.
    assert settle(tokenizer(special), num_embeddings=100) == []
    plain = tokenizer(special)
    assert settle(plain, needs_pad=False) == [] and plain.pad_token == "<|im_end|>"


# Ids and tags


def test_ids_beyond_the_embedding_are_refused():
    given = tokenizer(bos_token="<|im_start|>")
    assert "one" not in bos_line(given, num_embeddings=len(given))
    largest = max(given.get_vocab().values())
    assert bos_line(given, num_embeddings=12).startswith("refused: 3 of 3 prompts have tokens that")
    with pytest.raises(RecipeError, match="the end token `<repo_name>` has the id 3"):
        settle(tokenizer(template=CHATML.replace("im_end", "x"), eos_token="<repo_name>"),
               num_embeddings=3)  # fmt: skip
    assert settle(tokenizer(pad_token="<|endoftext|>"), num_embeddings=largest + 1) == []


ALL = tuple(name for name in SHIPPED if name not in ("gym", "judge"))


@pytest.mark.parametrize("reward", [name for name in ALL if name != "countdown"])
def test_tags_that_are_special_tokens_are_refused_where_a_reward_reads_them(reward: str):
    given = tokenizer(tags_are_special=True, pad_token="<|endoftext|>")
    with pytest.raises(RecipeError) as caught:
        settle(given, rewards=(reward,))
    (problem,) = caught.value.problems
    assert "<answer>, </answer> are special tokens of this tokenizer" in problem.message
    assert f"{reward}" in problem.message and "tokenizer_config.json" in str(problem.hint)


def test_the_way_out_works(tmp_path: Path):
    """The hint, on files as transformers writes them and as it did, with tokens in both."""
    given = tokenizer(tags_are_special=True, pad_token="<|endoftext|>")
    given.save_pretrained(tmp_path)
    tokens, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    content, config = json.loads(tokens.read_text()), json.loads(settings.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    config["added_tokens_decoder"] = {str(t.pop("id")): t for t in content["added_tokens"]}
    settings.write_text(json.dumps(config))
    content = json.loads(tokens.read_text())
    for token in content["added_tokens"]:
        token["special"] = token["content"] not in TAGS
    tokens.write_text(json.dumps(content))
    mended = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert settle(mended) == []
    ids = mended("<answer> 3 </answer>", add_special_tokens=False)["input_ids"]
    assert mended.decode(ids, skip_special_tokens=True).split() == ["<answer>", "3", "</answer>"]


def test_other_tags_of_the_system_prompt_are_warned_of():
    special = (*CHATML_TOKENS, "<think>", "</think>")
    given = tokenizer(special, pad_token="<|endoftext|>")
    (line,) = settle(given, system="<think> ... </think> <answer> ... </answer>")
    assert line.startswith("warning: <think>, </think> of `prompt.system` are special tokens")
    assert settle(given, system="think") == []


def test_the_built_in_tokenizer_needs_nothing():
    given = builtin.build_tokenizer()
    assert settle(given, system="<reasoning> <answer>", rewards=ALL[:5]) == []
