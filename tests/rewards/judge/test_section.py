"""[judge] of a recipe: what is valid, what is refused with a way out, and the fingerprint."""

import json

import pytest
import tomli
import tomli_w

from r1recipes import recipe
from r1recipes.recipe import schema
from r1recipes.rewards.judge.section import WHERE_NOT_COMPUTED, Judge
from tests.conftest import SMALL
from tests.helpers import in_process

SECTION = {"url": "http://127.0.0.1:8080/v1", "model": "m", "rubric": "Is it right?"}


def text_of(judge=None, rewards=None, evaluation=None) -> str:
    """The small recipe with a judge."""
    data = tomli.loads(SMALL)
    data["rewards"] |= {"judge": 0.5} if rewards is None else rewards
    data["eval"] |= evaluation or {}
    if judge is not False:
        data["judge"] = {k: v for k, v in (SECTION | (judge or {})).items() if v is not None}
    return tomli_w.dumps(data)


def checked(tmp_path, **keys) -> tuple[int, str]:
    path = tmp_path / "judged.toml"
    path.write_text(text_of(**keys))
    code, out, err = in_process("check", path)
    return code, out + err


def fingerprint(tmp_path, **keys) -> str:
    path = tmp_path / "judged.toml"
    path.write_text(text_of(**keys))
    return recipe.fingerprint(recipe.load(path).recipe)


def test_check_says_where_the_judge_is(tmp_path):
    code, out = checked(tmp_path)
    assert code == 0 and "judge.model m: at http://127.0.0.1:8080/v1, this machine\n" in out
    code, out = checked(tmp_path, judge={"url": "https://api.example.com/v1"})
    assert code == 0
    assert "at https://api.example.com/v1, public; asked with --allow-judge alone" in out


@pytest.mark.parametrize(
    ("judge", "message", "hint"),
    [
        ({"url": "127.0.0.1:8080"}, "not the base URL of an endpoint", "http://127.0.0.1:8080/v1"),
        ({"url": "ftp://host/v1"}, "not the base URL", "http://"),
        ({"url": "http://"}, "not the base URL", "http://"),
        ({"url": "http://[::1"}, "is not a URL", "http://"),
        ({"url": "http://host:99999/v1"}, "is not a URL", "http://"),
        ({"url": "http://me:pass@host/v1"}, "holds a user or a password", "api_key_env"),
        ({"url": "http://host/v1?key=x"}, "without `?` and `#`", "http://"),
        ({"url": "http://h/v1/chat/completions"}, "base of the API", 'url = "http://h/v1"'),
        ({"model": None}, "`judge.model` is missing", "model"),
        ({"rubric": None}, "`judge.rubric` is missing", "rubric"),
        ({"rubric": " \n"}, "`rubric` is empty", "say in a sentence"),
        ({"rubric": "{completon}"}, "`rubric` names {completon}", "did you mean {completion}?"),
        ({"rubric": "{xyz}"}, "may name {question}, {answer}, {completion}", "braces with a space"),
        (
            {"rubric": "{completion}", "compare": "group"},
            'may name {question}, {answer} where `compare = "group"`',
            "as A and B",
        ),
        ({"rubric": "{answer}", "compare": "reference"}, "names {answer}", "as A and B"),
        ({"scale": [10, 1]}, "the first number must be below the second", "scale = [1, 10]"),
        ({"scale": [1]}, "has 1 numbers, not a lowest and a highest", "scale = [1, 10]"),
        ({"right_from": 11}, "11 is not on the scale from 1 to 10", "a score above 1, at most 10"),
        ({"right_from": 1}, "1 is not on the scale", "a score above 1"),
        ({"scale": [1, 5], "compare": "group"}, "`scale` does not apply", "remove this line"),
        ({"opponents": 3}, "`opponents` does not apply to `compare", "remove this line"),
        ({"compare": "pairs"}, '"scale", "reference" or "group"', ""),
        ({"api_key": "sk-x"}, "unknown key `judge.api_key`", "api_key_env"),
        ({"base_url": "x"}, "unknown key `judge.base_url`", "judge.url"),
        ({"api_key_env": "sk-abc def"}, "judge.api_key_env", ""),
        ({"max_failed": 1.0}, "judge.max_failed", ""),
        ({"url": None, "api_key_env": "KEY"}, "`api_key_env` is for an endpoint", "add `url`"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(tmp_path, judge, message, hint):
    code, out = checked(tmp_path, judge=judge)
    assert code == 2 and message in out and hint in out, out
    assert "judged.toml:" in out and "sk-" not in out.replace("sk-abc def", "")


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"judge": False}, "the reward `judge` needs a section [judge]", "add [judge] with"),
        ({"judge": False, "rewards": {}, "evaluation": {"reward": "judge"}}, "needs a section", ""),
        ({"rewards": {}}, "nothing uses [judge]", "add `judge = 0.5` to [rewards]"),
        ({"evaluation": {"reward": "judge"}}, "say from when on", "`right_from = 10` or lower"),
        (
            {"evaluation": {"reward": "judge"}, "judge": {"compare": "group"}},
            'with `compare = "group"` calls nothing right',
            'set `compare = "scale"`',
        ),
    ],
)
def test_judge_and_rewards_go_together(tmp_path, keys, message, hint):
    code, out = checked(tmp_path, **keys)
    assert code == 2 and message in out and hint in out, out


def test_a_judge_decides_where_it_is_asked_for_in_so_many_words(tmp_path):
    keys = {"evaluation": {"reward": "judge"}, "judge": {"right_from": 8}, "rewards": {}}
    assert checked(tmp_path, **keys)[0] == 0
    assert recipe.load(tmp_path / "judged.toml").recipe.eval.reward == "judge"


def test_a_broken_section_brings_no_echo(tmp_path):
    code, out = checked(tmp_path, judge={"scale": [3, 2]}, rewards={"judge": -1.0})
    assert code == 2 and "2 errors" in out and "nothing uses" not in out


def test_a_key_that_is_not_set_and_a_line_that_is_not_encrypted_are_warnings(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    code, out = checked(tmp_path, judge={"api_key_env": "MY_KEY", "url": "http://example.com/v1"})
    assert code == 0
    assert "`judge.api_key_env` names MY_KEY, which is not set here" in out
    assert "http://example.com/v1 is not encrypted" in out


def test_a_folder_that_is_not_there(tmp_path):
    (tmp_path / "my-judge").mkdir()
    (tmp_path / "my-judge" / "config.json").write_text("{}")
    code, out = checked(tmp_path, judge={"url": None, "model": "my-jugde"})
    assert code == 2 and "`judge.model`: there is no folder" in out
    assert "did you mean `my-judge`?" in out


def test_other_recipes_keep_their_fingerprint(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    loaded = recipe.load(path).recipe
    assert recipe.fingerprint(loaded) == FINGERPRINT_OF_SMALL


FINGERPRINT_OF_SMALL = "cb85b9b0a6dc73f5c008323a3379f30312ac81dd2ca16dfdf5eab9d8e641c1b9"
"""As it was before [judge] existed."""


@pytest.mark.parametrize(
    ("change", "is_the_same"),
    [
        ({"url": "http://10.0.0.5/v1"}, True),
        ({"api_key_env": "K"}, True),
        ({"concurrency": 2}, True),
        ({"retries": 0}, True),
        ({"time_limit_s": 5}, True),
        ({"model": "n"}, False),
        ({"rubric": "Is it wrong?"}, False),
        ({"scale": [1, 5]}, False),
        ({"temperature": 1}, False),
        ({"max_tokens": 100}, False),
        ({"right_from": 9}, False),
        ({"max_failed": 0.5}, False),
        ({"response_format": "text"}, False),
        ({"compare": "group"}, False),
    ],
)
def test_where_a_judge_is_asked_is_no_part_of_the_fingerprint(tmp_path, change, is_the_same):
    assert (fingerprint(tmp_path) == fingerprint(tmp_path, judge=change)) is is_the_same


def test_the_keys_left_out_exist():
    assert WHERE_NOT_COMPUTED <= set(Judge.model_fields)


def test_an_editor_knows_the_section():
    keys = schema.for_editors()["properties"]["judge"]["properties"]
    assert keys["compare"]["enum"] == ["scale", "reference", "group"]
    assert all(key["description"] for key in keys.values())
    assert json.dumps(keys)


def test_show_prints_it_and_reads_it_back(tmp_path):
    path = tmp_path / "judged.toml"
    path.write_text(text_of())
    code, out, _ = in_process("show", path)
    assert code == 0 and "[judge]" in out and 'model = "m"' in out
    path.write_text(out)
    assert in_process("check", path)[0] == 0


def test_plan_is_unaffected(tmp_path):
    plain, judged = tmp_path / "small.toml", tmp_path / "judged.toml"
    plain.write_text(SMALL)
    judged.write_text(text_of())
    lines = [in_process("plan", path)[1].splitlines() for path in (plain, judged)]
    assert lines[0] == lines[1]
