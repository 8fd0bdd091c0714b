"""Chat with a trained run: the same answers as in its evaluation, and what it refuses."""

import pytest

from r1recipes.errors import RecipeError
from r1recipes.machine.files import read_lines
from r1recipes.runs import trained
from tests.helpers import command, in_process


@pytest.fixture(scope="module")
def chat(request):
    run = request.getfixturevalue("finished")
    trained_run = trained.find(run.folder, str(run.folder))
    from r1recipes.training.backends.chat import Chat

    plan, template = trained.for_answers(trained_run.plan, None), trained_run.chat_template()
    return Chat(plan, trained_run.base, run.adapter, template, offline=True)


def sampling(**changes):
    from r1recipes.training.backends.chat import Sampling

    return Sampling(**changes)


def asked(text):
    return [{"role": "user", "content": text}]


def test_the_defaults_are_those_of_the_notebooks():
    assert (sampling().temperature, sampling().top_p, sampling().max_tokens) == (0.8, 0.95, 1024)


@pytest.mark.parametrize(("adapter", "when"), [(False, "before"), (True, "after")])
def test_greedy_answers_are_those_of_the_evaluation(chat, finished, adapter, when):
    rows = read_lines(finished.evaluation(when))
    for row in rows[:3]:
        parts: list[str] = []
        limit = sampling(temperature=0.0, max_tokens=40)
        sample = chat.answer(asked(row["question"]), limit, adapter, parts.append)
        expected = row["greedy"]
        assert (sample.text, sample.cut) == (expected["text"], expected["cut"])
        assert sample.num_tokens == expected["num_tokens"]
        assert "".join(parts).strip() == sample.text.strip()


def test_a_seed_fixes_what_is_drawn(chat):
    texts = [
        chat.answer(asked("12 + 34 = ?"), sampling(seed=seed), True, lambda part: None).text
        for seed in (1, 1, 2, 3, 4)
    ]
    assert texts[0] == texts[1] and len(set(texts)) > 1


def test_a_conversation_that_is_too_long_is_refused(chat):
    with pytest.raises(RecipeError, match="this model holds 1024"):
        chat.answer(asked("1" * 1100), sampling(), True, lambda part: None)
    near = chat.answer(asked("1" * 1010), sampling(), True, lambda part: None)
    assert near.num_tokens <= 1024 - 1010


@pytest.mark.slow
def test_ask_and_chat_as_a_user_types_them(finished, tmp_path):
    done = command("ask", finished.folder, "12 + 34 = ?", "--max-tokens", "9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("base:\n") and "\ntrained:\n" in done.stdout
    assert done.stdout.count(" tokens") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [""],
        ["  "],
        ["1", "--temperature", "-1"],
        ["1", "--temperature", "nan"],
        ["1", "--top-p", "0"],
        ["1", "--max-tokens", "0"],
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(finished, arguments):
    code, out, _ = in_process("ask", finished.folder, *arguments)
    assert code == 2 and out == ""
