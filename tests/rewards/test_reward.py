"""The built-in rewards, the defects of the notebook's, and the check before a run."""

import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1recipes import rewards
from r1recipes.rewards.answers import Verifier
from r1recipes.rewards.functions import ANSWER_TAGS, REWARDS, TAGS

REPAIRED = ["correctness", "integer", "strict_format", "soft_format", "xml_tags"]
READ_HERE = [name for name in REWARDS if name not in ("gym", "judge")]
"""All but the one whose scorers run in child processes, which test_gym.py is for, and the one that
asks a model, which the tests in `judge` are for."""
NOTEBOOK = [name for name in REWARDS if name.startswith("notebook_")]


def asked(reasoning="Six times seven.", answer="42", end=""):
    """A completion in the format that the system prompt asks for."""
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>{end}"


def pay(name, completion, answer="42", **columns):
    """What a reward of the table pays for one completion, the same as text and as messages."""
    columns = {key: [value] for key, value in ({"answer": answer} | columns).items()}
    paid = REWARDS[name](prompts=["?"], completions=[completion], **columns)
    chat = [[{"role": "assistant", "content": completion}]]
    assert REWARDS[name](prompts=[[]], completions=chat, **columns) == paid
    return paid[0]


def total(names, completion, **columns):
    return sum(pay(name, completion, **columns) for name in names)


# The notebook's defects R1 to R5, on both sets


def test_r1_soft_format_pays_for_the_format_that_was_asked_for():
    one_line = "<reasoning>x</reasoning><answer>42</answer>"
    assert pay("notebook_soft_format", asked()) == 0.0
    assert pay("notebook_soft_format", one_line) == 0.5
    assert pay("soft_format", asked()) == pay("soft_format", one_line) == 1.0


def test_r2_strict_format_takes_reasoning_of_many_lines_and_no_last_line_end():
    cases = {asked(end="\n"): 0.5, asked(): 0.0, asked("one\ntwo", end="\n"): 0.0}
    for completion, notebook in cases.items():
        assert pay("notebook_strict_format", completion) == notebook
        assert pay("strict_format", completion) == 1.0


def test_r3_the_two_formats_do_not_exclude_each_other():
    best_of_notebook = asked(end="\n")
    assert total(NOTEBOOK, best_of_notebook) == 3.5
    assert total(NOTEBOOK, asked("one\ntwo", end="\n")) == 3.0
    assert total(REPAIRED, best_of_notebook) == total(REPAIRED, asked("one\ntwo")) == 5.0


@pytest.mark.parametrize(
    ("length", "notebook"), [(96, 0.405), (546, -0.045), (1046, -0.545), (2046, -1.545)]
)
def test_r4_long_reasoning_costs_nothing(length, notebook):
    completion = asked("x" * (length - len(asked(""))))
    assert len(completion) == length
    assert pay("notebook_xmlcount", completion) == pytest.approx(notebook)
    assert pay("notebook_xmlcount", completion + "\n") == pytest.approx(0.5)
    assert pay("xml_tags", completion) == pay("xml_tags", completion + "\n") == 1.0


@pytest.mark.parametrize(
    ("name", "answer", "reference", "notebook", "repaired"),
    [
        ("int", "1,000", "1000", 0.0, 1.0),
        ("int", "-5", "-5", 0.0, 1.0),
        ("int", "42", "42", 0.5, 1.0),
        ("correctness", "$476.", "476", 0.0, 1.0),
        ("correctness", "1,000", "1000", 0.0, 1.0),
        ("correctness", "476", "476", 2.0, 1.0),
        ("correctness", "477", "476", 0.0, 0.0),
    ],
)
def test_r5_numbers_are_read_as_people_write_them(name, answer, reference, notebook, repaired):
    completion = asked(answer=answer)
    ours = {"int": "integer", "correctness": "correctness"}[name]
    assert pay(f"notebook_{name}", completion, reference) == notebook
    assert pay(ours, completion, reference) == repaired


def test_the_notebook_takes_a_completion_without_tags_as_its_answer():
    assert pay("notebook_correctness", " 42 ") == 2.0 and pay("notebook_int", "42") == 0.5
    assert pay("correctness", "42") == pay("integer", "42") == 0.0


# The repaired set


@pytest.mark.parametrize(
    ("completion", "strict", "soft", "tags"),
    [
        (asked(), 1, 1, 1),
        (asked("a\n\nb"), 1, 1, 1),
        ("\n" + asked(), 0, 1, 1),
        (asked().replace("\n", ""), 0, 1, 1),
        (asked(end="\n\n"), 0, 1, 1),
        (asked(end=" Bye."), 0, 1, 0.996),
        (asked(end="x" * 5000), 0, 1, 0.75),
        (asked(answer=" "), 0, 0, 1),
        (asked(reasoning=""), 0, 0, 1),
        ("Well: " + asked(), 0, 0, 1),
        (asked() + asked(), 0, 0, 0),
        (asked("<answer>1</answer>"), 0, 0, 0.5),
        (asked().replace("</answer>", ""), 0, 0, 0.75),
        ("<answer>42</answer>", 0, 0, 0.5),
        ("<answer>42</answer><reasoning>x</reasoning>", 0, 0, 0.476),
        ("</answer>" + "x" * 500, 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_formats(completion, strict, soft, tags):
    assert pay("strict_format", completion) == strict
    assert pay("soft_format", completion) == soft
    assert pay("xml_tags", completion) == pytest.approx(tags)


@pytest.mark.parametrize(
    ("answer", "paid"),
    [
        ("7", 1),
        ("-7", 1),
        ("7.0", 1),
        ("$1,000", 1),
        ("7.5", 0),
        ("seven", 1),
        ("6 + 1", 0),
        ("", 0),
    ],
)
def test_integer(answer, paid):
    assert pay("integer", asked(answer=answer)) == paid


@pytest.mark.parametrize(
    ("expression", "numbers", "target", "paid"),
    [
        ("(3 + 4) * 5", [3, 4, 5], 35, 1),
        ("3 + 4 * 5", [5, 4, 3], 23, 1),
        ("8 / (3 - 8 / 3)", [8, 8, 3, 3], 24, 1),
        ("(1 / 3) * 3", [1, 3, 3], 1, 1),
        ("3 \u00d7 4 \u2212 5", [3, 4, 5], 7, 1),
        ("-3 + 10", [3, 10], 7, 1),
        ("3 + 4", [3, 4], "7", 1),
        ("3 + 4", [3, 4, 5], 7, 0),
        ("3 + 3", [3], 6, 0),
        ("35", [3, 5], 35, 0),
        ("3 - 4", [3, 4], 1, 0),
        ("3 / (4 - 4)", [3, 4, 4], 0, 0),
        ("3 ** 4", [3, 4], 81, 0),
        ("7 // 2", [7, 2], 3, 0),
        ("3.0 + 4", [3, 4], 7, 0),
        ("3 + 4 = 7", [3, 4], 7, 0),
        ("3, 4", [3, 4], 7, 0),
        ("3 if 4 else 4", [3, 4, 4], 3, 0),
        ("__import__('os')", [3, 4], 7, 0),
        ("9**9**9**9", [9, 9, 9, 9], 7, 0),
        ("(" * 99 + ")" * 99, [3], 3, 0),
        ("-" * 190 + "3", [3], 3, 1),
        ("(" * 1_000_000, [3], 3, 0),
        ("3 +", [3], 3, 0),
        ("", [3], 3, 0),
    ],
    ids=lambda value: str(value)[:20],
)
def test_countdown(expression, numbers, target, paid):
    start = time.perf_counter()
    assert pay("countdown", asked(answer=expression), numbers=numbers, target=target) == paid
    assert time.perf_counter() - start < 0.2


def test_correctness_asks_the_verifier_for_mathematics(tmp_path):
    with Verifier() as verifier:
        (reward,) = rewards.load(["correctness"], base_dir=tmp_path, verifier=verifier)
        completions = [asked(answer=text) for text in ("\\frac{1}{2}", "0.50", "0.5001", "")]
        columns = {"answer": ["0.5"] * 4, "verifier": ["a column"] * 4, "time_limit_s": [0] * 4}
        paid = reward(prompts=["?"] * 4, completions=completions, **columns)
    assert paid == [1.0, 1.0, 0.0, 0.0] and not reward.failures


TEXT = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ["<reasoning>", "</reasoning>", "<answer>", "</answer>", "\n", "7", "-", "1,000", "(", "+"]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_every_reward_is_finite_and_the_repaired_ones_pay_0_to_1(text):
    for name in READ_HERE:
        paid = pay(name, text, numbers=[1, 7], target=8)
        assert isinstance(paid, float) and math.isfinite(paid)
        assert 0 <= paid <= 1 or name.startswith("notebook_")
    assert pay("strict_format", text) <= pay("soft_format", text)


@given(st.text(st.characters(exclude_characters="<>"), max_size=3000))
def test_the_length_of_the_reasoning_does_not_change_xml_tags(reasoning):
    assert pay("xml_tags", asked(reasoning)) == 1.0
    assert pay("xml_tags", asked(reasoning, end=" tail")) == pay("xml_tags", asked(end=" tail"))


@pytest.mark.parametrize("name", REPAIRED + ["countdown"])
@pytest.mark.parametrize(
    "text",
    ["<answer>" * 125_000, "<reasoning>\n\n</reasoning>\n<answer>\n" * 25_000, "7" * 1_000_000,
     "<answer>" + "(" * 1_000_000 + "</answer>", "\n" * 1_000_000],
    ids=["answers", "tags", "digits", "brackets", "line ends"],
)  # fmt: skip
def test_a_megabyte_takes_no_time(name, text):
    start = time.perf_counter()
    REWARDS[name](prompts=["?"], completions=[text], answer=["7"], numbers=[[7]], target=[7])
    assert time.perf_counter() - start < 0.2


def test_completions_may_be_parts_or_empty():
    parts = [{"role": "assistant", "content": [{"type": "text", "text": asked()}]}]
    empty = [{"role": "assistant", "content": None}]
    assert REWARDS["soft_format"](prompts=[""] * 3, completions=[parts, empty, []]) == [1, 0, 0]


def test_names_are_those_that_trl_logs(tmp_path):
    for name, function in REWARDS.items():
        assert function.__name__ == name and function.__doc__
    loaded = rewards.load(list(REWARDS), base_dir=tmp_path)
    assert [reward.__name__ for reward in loaded] == list(REWARDS)


def best_of(name, answer):
    """The completion with this answer that a reward pays the most for."""
    forms = [asked("x", answer, end="\n"), f"<reasoning>x</reasoning><answer>{answer}</answer>"]
    return max(forms, key=lambda text: pay(name, text, "42", numbers=[42], target=42))


@pytest.mark.parametrize("name", READ_HERE)
def test_the_table_says_what_each_reward_pays_for(name):
    """A right form with a wrong answer earns what a right answer does, or nothing."""
    columns = {"numbers": [42], "target": 42}
    right, wrong = (pay(name, best_of(name, text), "42", **columns) for text in ("42", "41"))
    assert right > 0
    assert wrong == {"form": right, "answer": 0.0}[rewards.SHIPPED[name].pays_for]


@pytest.mark.parametrize("name", READ_HERE)
def test_the_table_says_which_tags_each_reward_reads(name):
    columns, text = {"numbers": [42], "target": 42}, best_of(name, "42")
    full = pay(name, text, "42", **columns)
    without = {tag: pay(name, text.replace(tag, ""), "42", **columns) for tag in TAGS}
    matters = {tag for tag, paid in without.items() if paid != full}
    assert matters and matters <= set(rewards.SHIPPED[name].tags)
    assert rewards.SHIPPED[name].tags in (TAGS, ANSWER_TAGS)
    assert (rewards.SHIPPED[name].tags == TAGS) == ("<reasoning>" in matters)


# The check before a run


ROWS = [
    {"prompt": [{"role": "user", "content": "6 * 7?"}], "answer": "42"},
    {"prompt": [{"role": "user", "content": "1 + 1?"}], "answer": "2"},
]


@pytest.mark.parametrize("name", REPAIRED + ["notebook_correctness", "notebook_int"])
def test_check_is_silent_when_all_is_well(name, tmp_path):
    (reward,) = rewards.load([name], base_dir=tmp_path)
    assert rewards.check(reward, ROWS) == []


def test_check_names_a_column_that_a_built_in_reward_misses(tmp_path):
    (reward,) = rewards.load(["countdown"], base_dir=tmp_path)
    (problem,) = rewards.check(reward, ROWS)
    assert "needs the columns `numbers`, `target`" in problem.message
    solvable = {"prompt": "3, 4 -> 7", "answer": "3 + 4", "numbers": [3, 4], "target": 7}
    assert rewards.check(reward, [solvable]) == []


@pytest.mark.parametrize("name", ["notebook_soft_format", "notebook_strict_format"])
def test_check_finds_that_the_notebooks_formats_never_pay_what_the_prompt_asks(name, tmp_path):
    (reward,) = rewards.load([name], base_dir=tmp_path)
    assert [problem.kind for problem in rewards.check(reward, ROWS)] == ["constant"]


def test_a_column_may_be_called_self():
    (reward,) = rewards.load(["integer"], base_dir=Path("."))
    columns = {"self": ["mine"], "answer": ["42"]}
    assert reward(prompts=["?"], completions=[asked()], **columns) == [1.0]
    assert reward.code_sha256 is None and not reward.failures
