"""The answer column: final answers, or whole solutions from which the final answer is taken."""

import pytest
from pydantic import ValidationError

from r1recipes import data
from r1recipes.data import answer_column
from r1recipes.recipe.schema import Recipe
from tests.rows import GSM8K, make, refused, write

WORK = (
    "First we add the eggs of both days, which gives 16 + 9 = {0} of them.\n"
    "Then she sells each of these for $2 at the market, so we multiply by 2.\n"
)
PROSE = (
    "The war began in 1914 with {0} divisions on both sides. It ended in 1918 after {0} battles. "
    "The treaty was signed in 1919 by the powers."
)


def rows(template: str, count: int = 20) -> list[dict[str, str]]:
    return [{"question": f"q{i}", "answer": template.format(i)} for i in range(count)]


def judged_by(reward: str) -> Recipe:
    recipe = make()
    evaluation = recipe.eval.model_copy(update={"reward": reward})
    return recipe.model_copy(update={"rewards": {reward: 1.0}, "eval": evaluation})


@pytest.mark.parametrize(
    ("template", "marker"),
    [
        (GSM8K.replace("{:03d}", "{}"), "####"),
        (WORK + "#### {0}", "####"),
        (WORK + "The answer is {0}.", "The answer is"),
        (WORK + "The answer is: {0}", "The answer is:"),
        (WORK + "So the answer is {0}.", "the answer is"),
        (WORK + "Final Answer: {0}", "Final Answer:"),
        ("16 + {0}\nAnswer: {0}", "Answer:"),
    ],
)
def test_a_marker_that_the_recipe_does_not_name_is_found(template, marker, tmp_path):
    write(tmp_path / "rows.jsonl", rows(template))
    text = refused(make(), tmp_path)
    assert "`answer` of" in text and f"in 20 of 20 rows `{marker}` stands before" in text
    assert f'set `data.answer_after = "{marker}"`' in text
    assert len(data.load(make(answer_after=marker), tmp_path).train) == 18


def test_a_marker_in_nearly_all_rows_is_found_and_the_others_are_counted(tmp_path):
    given = rows(WORK + "#### {0}")
    given[4]["answer"] = "12"
    write(tmp_path / "rows.jsonl", given)
    assert "in 19 of 20 rows `####` stands before" in refused(make(), tmp_path)
    assert "has no `####`" in refused(make(answer_after="####"), tmp_path)


def test_an_answer_with_a_phrase_before_it_is_no_solution(tmp_path):
    write(tmp_path / "rows.jsonl", rows("The answer is {0}."))
    assert len(data.load(make(), tmp_path).train) == 18


@pytest.mark.parametrize(
    ("template", "content"),
    [
        (WORK + "So it is $\\boxed{{{0}}}$.", "{0}"),
        ("\\boxed{{\\frac{{{0}}}{{7}}}}", "\\frac{{{0}}}{{7}}"),
        (
            "\\boxed{{1}} no, \\boxed{{\\text{{it is }}\\sqrt{{{0}}}}}",
            "\\text{{it is }}\\sqrt{{{0}}}",
        ),
    ],
)
def test_the_content_of_the_last_box_is_the_reference(template, content, tmp_path):
    write(tmp_path / "rows.jsonl", rows(template))
    splits = data.load(make(), tmp_path)
    expected = {content.format(i) for i in range(20)}
    assert {*splits.train["answer"], *splits.held_out["answer"]} == expected
    (note,) = splits.notes
    assert "what the last \\boxed{} holds, in all 20 rows" in note


def test_rows_without_a_box_are_counted(tmp_path):
    given = rows(WORK + "\\boxed{{{0}}}")
    given[4]["answer"] = "12"
    write(tmp_path / "rows.jsonl", given)
    text = refused(make(), tmp_path)
    assert "has no \\boxed{}, as the others have, in 1 of 20 rows" in text and "row 5" in text


def test_a_box_as_marker_is_refused_by_the_schema():
    for marker in ("\\boxed", "\\boxed{"):
        with pytest.raises(ValidationError) as caught:
            make(answer_after=marker)
        assert "the brace that closes" in str(caught.value.errors())


@pytest.mark.parametrize(
    ("template", "hint"),
    [
        (WORK + "Total earned: ${0}", "`Total earned:` stands before the last thing in them"),
        (WORK + "{0}", "put the final answers into a column of their own"),
        (PROSE, 'if the texts themselves are the references, set `data.answer_kind = "text"`'),
    ],
)
def test_a_column_of_solutions_is_refused_with_the_way(template, hint, tmp_path):
    write(tmp_path / "rows.jsonl", rows(template))
    text = refused(make(), tmp_path)
    assert "holds whole solutions in 20 of 20 rows" in text and hint in text


def test_some_solutions_among_answers_are_a_warning(tmp_path):
    given = rows("{0}")
    given[7]["answer"] = WORK.format(7)
    write(tmp_path / "rows.jsonl", given)
    (note,) = data.load(make(), tmp_path).notes
    assert note.startswith("warning: 1 of 20 references") and "row 8" in note


@pytest.mark.parametrize(
    "text",
    [
        "72",
        "$\\begin{pmatrix} 1 & 2 & 3 \\\\ 4 & 5 & 6 \\\\ 7 & 8 & 9 \\end{pmatrix}$\n" * 3,
        "1, 2, 3, " * 40,
        '{"steps": ["add 16 and 9. Then take 3 away. Then sell each of the eggs at the market"],\n'
        '"total": 44, "days": 2, "per day": [20, 24], "name of the seller": "Janet of the farm"}',
        "Marie Curie, who won the prize twice, for physics and for chemistry, was born in Warsaw. "
        "She worked in Paris. She is well known.",
    ],
    ids=["a number", "a matrix", "a list", "JSON", "a text without numbers"],
)
def test_what_is_no_solution(text):
    assert not answer_column.is_solution(text)


def test_the_user_has_the_last_word(tmp_path):
    write(tmp_path / "rows.jsonl", rows(WORK + "#### {0}"))
    kept = data.load(make(answer_kind="text"), tmp_path).train["answer"]
    assert all("####" in text for text in kept)
    other = data.load(judged_by("mine.py:f"), tmp_path).train["answer"]
    assert all("####" in text for text in other)
    assert "whole solutions" in refused(judged_by("notebook_correctness"), tmp_path)


SHORT = "First we add {0} and 3. Then we carry, and get 1{0} in total."


@pytest.mark.parametrize(
    ("template", "hint"),
    [
        (SHORT, "name in `data.answer_after` what stands before it"),
        ("Tom has {0} apples. He buys 2 bags. Final: 1{0}", 'set `data.answer_after = "Final:"`'),
        ("We add {0} and 3\nthat makes 1{0}", "name in `data.answer_after`"),
    ],
)
def test_short_worked_solutions_are_doubted(tmp_path, template, hint):
    write(tmp_path / "rows.jsonl", rows(template))
    notes = data.load(make(), tmp_path).notes
    assert len(notes) == 1
    assert notes[0].startswith("warning: 20 of 20 references of")
    assert hint in notes[0] and 'data.answer_kind = "text"' in notes[0]
    assert data.load(make(answer_kind="text"), tmp_path).notes == ()
    assert data.load(judged_by("soft_format"), tmp_path).notes == ()


@pytest.mark.parametrize(
    "template",
    [
        "{0}",
        "{0} apples",
        "Battle of Hastings in 10{0}",
        "The capital of France is Paris, and that of Spain is Madrid.",
        "January 5, 20{0}",
        '{{"first": {0}, "second name": "a of b", "third": [1, 2]}}',
        "[{0}, 2, 3]",
        "\\frac{{{0}}}{{7}} + \\sqrt{{3}}",
        "3 hours and {0} minutes",
    ],
)
def test_final_answers_are_not_doubted(tmp_path, template):
    write(tmp_path / "rows.jsonl", rows(template))
    assert data.load(make(), tmp_path).notes == ()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("So it is 12", "has no \\boxed{}, as the others have,"),
        ("So \\boxed{12", "has a \\boxed{ that is not closed"),
        ("So \\boxed{ }.", "has an empty \\boxed{}"),
    ],
)
def test_rows_without_a_whole_box_are_named_and_not_counted_as_boxed(answer, fault):
    values = [f"So \\boxed{{{n}}}." for n in range(19)] + [answer]
    finals = answer_column.final_answers(values, make().data, "rows")
    assert finals.faults == [""] * 19 + [fault]
    assert "what the last \\boxed{} holds, in 19 of 20 rows" in finals.notes[0]
    whole = answer_column.final_answers(values[:19], make().data, "rows")
    assert "in all 19 rows" in whole.notes[0]


def test_broken_boxes_are_named_where_few_rows_have_any():
    values = ["12"] * 17 + ["\\boxed{12}", "\\boxed{12", "\\boxed{}"]
    finals = answer_column.final_answers(values, make().data, "rows")
    assert finals.notes == (
        "warning: 2 of 20 references of rows have a \\boxed{} that is empty or not closed, which "
        "no answer matches; the first is row 19",
    )
    broken = answer_column.final_answers(["\\boxed{12", "\\boxed{}"], make().data, "rows")
    assert all("\\boxed{" in fault for fault in broken.faults) and not broken.notes
