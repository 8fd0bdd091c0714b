"""Examples that an algorithm learns from: read from any kind of file, checked, and made to fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from r1recipes import data
from r1recipes.data import examples
from r1recipes.data.examples import reading
from r1recipes.errors import RecipeError
from r1recipes.recipe.schema import Recipe
from r1recipes.training.backends import builtin
from tests.rows import PRESET, numbered, write

PAIR = {"prompt": "1 + 1 = ?", "chosen": "2", "rejected": "3"}


def make(algorithm: str, name: str, **section: Any) -> Recipe:
    """A recipe that learns from this file."""
    return Recipe.model_validate(
        {
            "format": 1,
            "algorithm": algorithm,
            "model": {"name": "some/model"},
            "data": {"name": "rows.jsonl", "eval_size": 2},
            "prompt": {"system": "Think."},
            "examples": {"name": name} | section,
            "preset": {"cpu": PRESET},
        }
    )


def load(recipe: Recipe, folder: Path) -> examples.Examples:
    write(folder / "rows.jsonl", numbered(10))
    held_out = data.load(recipe, folder).held_out
    return examples.load(recipe, folder, held_out, offline=True)


def refused(recipe: Recipe, folder: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load(recipe, folder)
    return "\n".join(f"{p.where} {p.message} {p.hint}" for p in caught.value.problems)


def conversation(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize(
    "row",
    [
        PAIR,
        {"question": "1 + 1 = ?", "chosen": "2", "rejected": "3", "prompt": "not this"},
        PAIR | {"prompt": conversation(("user", "1 + 1 = ?"))},
        PAIR | {"prompt": conversation(("system", "Be kind."), ("user", "1 + 1 = ?"))},
        {
            "prompt": "1 + 1 = ?",
            "chosen": conversation(("user", "1 + 1 = ?"), ("assistant", "2")),
            "rejected": conversation(("assistant", "3")),
        },
    ],
    ids=["texts", "question first", "messages", "with a system message", "whole conversations"],
)
def test_pairs_in_all_usual_forms(tmp_path, row):
    write(tmp_path / "pairs.jsonl", [row, row])
    loaded = load(make("dpo", "pairs.jsonl"), tmp_path)
    assert loaded.rows == [{"question": "1 + 1 = ?", "chosen": "2", "rejected": "3"}] * 2
    assert loaded.notes == () and loaded.revision is None


def test_a_named_column_and_another_kind_of_file(tmp_path):
    (tmp_path / "d.csv").write_text("task,completion\n1 + 1 = ?,2\n2 + 2 = ?,4\n")
    loaded = load(make("sft", "d.csv", question="task"), tmp_path)
    assert loaded.rows[1] == {"question": "2 + 2 = ?", "completion": "4"}


@pytest.mark.parametrize(
    ("algorithm", "rows", "words"),
    [
        ("dpo", [{"prompt": "a", "chosen": "b"}], "no column `rejected`; it has prompt, chosen"),
        ("dpo", [{"q": "a", "chosen": "b", "rejected": "c"}], '`examples.question = "q"`'),
        ("sft", [PAIR], "demonstrations need the columns prompt, completion"),
        ("dpo", [PAIR, PAIR | {"chosen": ""}], "`chosen` is empty in 1 of 2 rows"),
        ("dpo", [PAIR | {"rejected": None}], "`rejected` is null in 1 of 1"),
        ("dpo", [PAIR | {"rejected": 3}], "`rejected` is a int, not a text"),
        ("dpo", [PAIR | {"chosen": []}], "`chosen` is not one message of the assistant"),
        (
            "dpo",
            [PAIR | {"chosen": conversation(*[("user", "a"), ("assistant", "b")] * 2)}],
            "`chosen` is not one message of the assistant",
        ),
        ("dpo", [PAIR | {"prompt": conversation(("assistant", "a"))}], "one message of the user"),
    ],
)
def test_faults_are_counted_for_each_column(tmp_path, algorithm, rows, words):
    write(tmp_path / "x.jsonl", rows)
    assert words in refused(make(algorithm, "x.jsonl"), tmp_path)


@pytest.mark.parametrize("name", ["nothing.jsonl", "x.txt", "empty.jsonl"])
def test_a_file_that_is_none_is_called_by_its_key(tmp_path, name):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "x.txt").write_text("a")
    assert "`examples.name`" in refused(make("dpo", name), tmp_path)


def test_a_data_set_that_is_not_in_the_cache_is_called_by_its_key(tmp_path):
    text = refused(make("dpo", "nobody/pairs", split="train_prefs"), tmp_path)
    assert "`nobody/pairs` is not in the local cache" in text and "`examples.name`" in text


def test_held_out_questions_are_left_out_and_counted(tmp_path):
    rows = [{"question": row["question"], "completion": "So it is."} for row in numbered(10)]
    write(tmp_path / "d.jsonl", rows)
    recipe = make("sft", "d.jsonl")
    loaded = load(recipe, tmp_path)
    assert len(loaded.rows) == 8
    assert loaded.notes == ("2 demonstrations left out: their question is held out",)
    held_out = data.load(recipe, tmp_path).held_out["question"]
    assert not set(held_out) & {row["question"] for row in loaded.rows}
    write(tmp_path / "d.jsonl", [{"question": q, "completion": "x"} for q in held_out])
    assert "every demonstration is on a held-out question" in refused(recipe, tmp_path)


def fitted(recipe: Recipe, rows: list[examples.Row], template: str | None = None) -> Any:
    tokenizer = builtin.build_tokenizer()
    if template:
        tokenizer.chat_template = template
    return examples.fitting(rows, recipe, tokenizer, recipe.preset["cpu"])


def test_examples_become_messages_and_long_ones_are_left_out():
    recipe = make("dpo", "pairs.jsonl")
    short = {"question": "1 + 1 = ?", "chosen": "2", "rejected": "3"}
    rows, notes = fitted(recipe, [short] * 4 + [short | {"rejected": "3" * 200}])
    assert len(rows) == 4 and rows.column_names == ["prompt", "chosen", "rejected"]
    assert rows[0]["prompt"][-1] == {"role": "user", "content": "1 + 1 = ?"}
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "2"}]
    (note,) = notes
    assert note.startswith("1 pair of 5 have more than max_seq_length 128 tokens")
    with pytest.raises(RecipeError, match="3 pairs do not fill a step of 4"):
        fitted(recipe, [short] * 3)
    with pytest.raises(RecipeError, match="more than max_seq_length") as caught:
        fitted(recipe, [short | {"chosen": "2" * 200}] * 9)
    assert "max_seq_length = " in (caught.value.problems[0].hint or "")


def test_a_template_that_does_not_continue_the_prompt_is_refused():
    """Else the trainer would take a part of the prompt for the completion, with a warning only."""
    template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:<think>{% endif %}"
    )
    recipe = make("sft", "d.jsonl")
    rows = [{"question": "1 + 1 = ?", "completion": "2"}] * 4
    with pytest.raises(RecipeError, match="in 4 of 4 demonstrations the chat template") as caught:
        fitted(recipe, rows, template)
    assert "`<think>`" in (caught.value.problems[0].hint or "")
    begun = [row | {"completion": "<think>2"} for row in rows]
    assert len(fitted(recipe, begun, template)[0]) == 4


def test_a_flag_is_a_column_of_true_and_false():
    """As an algorithm needs that learns from single completions, each good or bad."""
    form = ALGORITHM_WITH_A_FLAG
    values: dict[str, list[Any]] = {
        "question": ["a", "b"],
        "completion": ["c", "d"],
        "label": [True, False],
    }
    section = make("sft", "x.jsonl").examples
    assert section is not None
    assert not reading.column_problems(list(values), values, section, form, "`x`")
    assert reading.read_rows(values, "question", form)[1]["label"] is False
    values["label"] = [1, None]
    (problem,) = reading.column_problems(list(values), values, section, form, "`x`")
    assert "`label` is not true or false in 2 of 2 rows" in problem.message


ALGORITHM_WITH_A_FLAG = examples.learned(make("sft", "x.jsonl")).__class__(
    noun="judgement",
    columns={"completion": "text", "label": "flag"},
    choose=lambda samples: [],
    by_rewards=False,
    teaches="anything",
    facts=(),
)


def test_the_rows_of_a_file_can_be_written_as_they_are_read(tmp_path):
    rows = [{"question": "a", "completion": json.dumps({"b": "\u2028"})}]
    write(tmp_path / "d.jsonl", rows)
    assert load(make("sft", "d.jsonl"), tmp_path).rows == rows
