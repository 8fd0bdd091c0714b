"""Prompts: their tokens, BOS, and lengths."""

from typing import Any

import pytest

from r1recipes.data import preflight
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer.chat_template import render
from r1recipes.errors import RecipeError
from r1recipes.training.backends import builtin
from tests.data.preflight.words import LLAMA, preset, rows, splits, tokenizer


def test_prompts_are_tokenised_as_the_trainer_does(monkeypatch):
    """The real method of TRL, on an object that has only what it reads."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer = GRPOTrainer.__new__(GRPOTrainer)
    given = tokenizer()
    attributes: dict[str, Any] = {
        "processing_class": given,
        "chat_template": None,
        "chat_template_kwargs": {},
        "tools": [],
        "environment_factories": None,
        "_is_vlm": False,
    }
    for name, value in attributes.items():
        monkeypatch.setattr(trainer, name, value, raising=False)
    made = splits("what is 1", "hello what is 1 plus 2")
    theirs, *_ = trainer._tokenize_prompts(made.train["prompt"][:])
    assert list(preflight._prompt_ids(made.train["prompt"], given)) == theirs


def test_the_report():
    made, report = preflight.check_prompts(
        splits("what is 1", "hello what is 1 plus 2"), tokenizer(), preset(), "drop"
    )
    assert len(made.train) == report.num_train == 2 and report.num_held_out == 1
    # BOS, 3 of the header, the question, end, 3 of the generation prompt.
    assert report.longest == 14 and report.mean == pytest.approx((11 + 14 + 11) / 3)
    assert report.example == "<s><h> user </h> what is 1 <e> <h> assistant </h> "
    assert report.lines() == [
        "2 training and 1 held-out prompts, 12 tokens on average, 14 at most (limit 20)",
        "BOS: one `<s>`, from the chat template; the tokenizer would add a second to a text",
    ]


def test_long_prompts_are_dropped_and_counted():
    long = "what is " + "1 plus " * 20
    made, report = preflight.check_prompts(
        splits("what is 1", long, "what is 2", long), tokenizer(), preset(), "drop"
    )
    assert made.train["question"][:] == ["what is 1", "what is 2"]
    assert report.num_dropped == {"train": 2, "held_out": 0} and report.longest == 11
    line = "2 of 4 training prompts have more than 20 tokens (longest 50): dropped"
    assert line in report.lines() and line in report.warnings


def test_a_prompt_of_exactly_the_limit_stays():
    made, _ = preflight.check_prompts(splits("what is 1"), tokenizer(), preset(11), "refuse")
    assert len(made.train) == 1
    with pytest.raises(RecipeError, match="1 of 1 training prompts have more than 10 tokens"):
        preflight.check_prompts(splits("what is 1"), tokenizer(), preset(10), "drop")


def test_long_prompts_are_refused_with_a_length_that_works():
    made = splits("what is 1", "what is " + "1 plus " * 20)
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(made, tokenizer(), preset(), "refuse")
    problem = caught.value.problems[0]
    assert problem.message.endswith("1 of 2 training prompts have more than 20 tokens (longest 50)")
    hint = str(problem.hint)
    assert "`max_seq_length = 90`" in hint and 'data.overlong = "drop"' in hint
    preflight.check_prompts(made, tokenizer(), preset(90 - 40), "refuse")


def test_a_step_must_be_filled():
    """The trainer leaves out an incomplete step; with nothing else it would train on nothing."""
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(splits("what is 1"), tokenizer(), preset(20, 2), "drop")
    assert "1 training prompts do not fill a step of 2" in caught.value.problems[0].message
    assert "`prompts_per_step = 1`" in str(caught.value.problems[0].hint)


def test_two_bos_tokens_are_refused():
    double = "{{ bos_token }}" + LLAMA
    with pytest.raises(RecipeError, match="2 of 2 prompts begin with two BOS tokens `<s>`"):
        preflight.check_prompts(splits("what is 1"), tokenizer(double), preset(), "drop")
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(splits("<s> what is 1"), tokenizer(), preset(), "drop")
    assert "remove the text `<s>` from these questions" in str(caught.value.problems[0].hint)


def test_template_and_tokenizer_may_both_have_bos_since_ids_are_passed():
    """The case of Llama 3: as a text the prompt would get two, as the trainer's ids it has one."""
    given = tokenizer()
    made = splits("what is 1")
    text = render(given, made.train[0]["prompt"], "")
    assert given(text)["input_ids"][:2] == [given.bos_token_id] * 2
    ids = next(preflight._prompt_ids(made.train["prompt"], given))
    assert ids.count(given.bos_token_id) == 1 and ids[0] == given.bos_token_id


def test_a_missing_bos_is_explained():
    template = LLAMA.removeprefix("{{ bos_token }}")
    _, report = preflight.check_prompts(splits("hello"), tokenizer(template), preset(), "drop")
    assert "begin `model.chat_template` with {{ bos_token }}" in report.warnings[0]
    given = tokenizer(template, adds_bos=False)
    _, report = preflight.check_prompts(splits("hello"), given, preset(), "drop")
    assert report.bos.startswith("none, neither") and not report.warnings
    given = builtin.build_tokenizer()
    _, report = preflight.check_prompts(splits("hello"), given, preset(90), "drop")
    assert report.bos == "none, this tokenizer has no such token" and not report.warnings


def test_characters_that_the_tokenizer_does_not_know_and_dates():
    _, report = preflight.check_prompts(
        splits("hello", "h\u00e9llo"), builtin.build_tokenizer(), preset(90), "drop"
    )
    assert report.warnings[0].startswith("1 of 3 prompts have characters that the tokenizer")
    dated = LLAMA.replace("{{ bos_token }}", "{{ bos_token }}{{ strftime_now('%Y') }} ")
    _, report = preflight.check_prompts(splits("hello"), tokenizer(dated), preset(), "drop")
    assert any("other prompts tomorrow" in line for line in report.warnings)


def test_columns_that_are_variables_of_the_template_are_refused():
    thinking = LLAMA + "{% if enable_thinking %}think{% endif %}{% generation %}{% endgeneration %}"
    made = splits("hello", enable_thinking="no", role="x", level="y")
    with pytest.raises(RecipeError) as caught:
        preflight.check_prompts(made, tokenizer(thinking), preset(), "drop")
    assert len(caught.value.problems) == 1
    assert "column `enable_thinking`" in caught.value.problems[0].message
    assert "rename_column" in str(caught.value.problems[0].hint)
    preflight.check_prompts(made, tokenizer(), preset(), "drop")


def test_8000_prompts_take_seconds():
    made = Splits(rows(*(f"what is {i} plus 1" for i in range(8000))), rows("hello"))
    _, report = preflight.check_prompts(made, tokenizer(), preset(), "drop")
    assert report.num_train == 8000
