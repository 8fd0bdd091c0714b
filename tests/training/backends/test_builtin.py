"""The built-in models: their tokenizer is exact, and their weights follow from the seed."""

import random
import string
from typing import Any

import pytest
import torch

from r1recipes.data.generators import KINDS, arithmetic
from r1recipes.recipe.schema import Model
from r1recipes.training.backends.builtin import TAGS, build_model, build_tokenizer

PRINTABLE = "".join(chr(code) for code in range(32, 127))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize(
    "text",
    [
        PRINTABLE,
        string.ascii_letters * 3,
        "<reasoning>\n7+8=15 4+3+1=8\n</reasoning>\n<answer>\n85\n</answer>",
        "4<answer>2</answer>7</answer>",
        "  <answer>  4 2\n\n </answer> .",
        "<answer <reasoning>> </ answer>",
        " 's , . ! ? n't\n",
        "\n\n",
        "",
    ],
)
@pytest.mark.parametrize("skip", [True, False])
def test_text_round_trips_exactly(tokenizer, text, skip):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=skip) == text
    assert tokenizer.unk_token_id not in ids


def test_a_tag_is_one_token_and_a_character_is_one_token(tokenizer):
    for tag in TAGS:
        assert len(tokenizer(f"1{tag} 2")["input_ids"]) == 4
    assert len(tokenizer(PRINTABLE)["input_ids"]) == len(PRINTABLE)


def test_other_text_becomes_unknown(tokenizer):
    assert tokenizer("\u00e9")["input_ids"] == [tokenizer.unk_token_id]


def test_padding_is_on_the_left_and_differs_from_the_end(tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    ids = tokenizer(["1", "12"], padding=True)["input_ids"]
    assert ids[0][0] == tokenizer.pad_token_id and ids[0][1] == ids[1][0]


def test_chat_template_has_a_generation_prompt_that_starts_the_completion(tokenizer):
    prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 2 = ?"}]
    answer = {"role": "assistant", "content": "3"}
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    full = tokenizer.apply_chat_template([*prompt, answer], tokenize=False)
    assert asked == "<|system|>Add.<|end|><|user|>1 + 2 = ?<|end|><|assistant|>"
    assert full == asked + "3<|end|>"
    assert not tokenizer.apply_chat_template(prompt, tokenize=False).endswith("<|assistant|>")


def test_turns_are_special_and_tags_are_not(tokenizer):
    ids = tokenizer("<|user|><|end|><reasoning>")["input_ids"]
    assert len(ids) == 3
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<reasoning>"


def test_the_tokenizer_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = KINDS["builtin:arithmetic"].demonstrate(arithmetic("train", 1)[0], random.Random(0))
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.padding_side == "left"
    assert loaded.eos_token_id == tokenizer.eos_token_id


def test_the_tokenizer_of_a_saved_base_keeps_spaces_and_newlines(tokenizer, tmp_path):
    from r1recipes.training.backends.weights import load_tokenizer

    build_model(1).save_pretrained(tmp_path / "base")  # whose config says qwen2
    tokenizer.save_pretrained(tmp_path / "base")
    loaded = load_tokenizer(Model(name="base"), tmp_path, offline=True)
    text = " 12  + 3\n\n<reasoning>\n 15 </reasoning> "
    ids = loaded(text)["input_ids"]
    assert ids == tokenizer(text)["input_ids"]
    assert loaded.decode(ids, skip_special_tokens=True) == text
    assert (loaded.padding_side, loaded.pad_token) == ("left", tokenizer.pad_token)
    assert loaded.chat_template == tokenizer.chat_template


def test_the_model_has_about_a_million_parameters_in_fp32(tokenizer):
    model = build_model(1)
    assert 700_000 < model.num_parameters() < 1_300_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


def test_a_seed_fixes_the_weights_and_leaves_the_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = build_model(1), build_model(1), build_model(2)
    assert torch.equal(torch.rand(3), expected)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_the_model_generates_a_batch(tokenizer):
    model: Any = build_model(1)  # transformers annotates `generate` for another class
    batch = tokenizer(["1 + 2 = ?", "11 + 22 = ?"], return_tensors="pt", padding=True)
    with torch.no_grad():
        output = model.generate(**batch, max_new_tokens=4, do_sample=False)
    assert output.shape[0] == 2 and output.shape[1] <= batch["input_ids"].shape[1] + 4
