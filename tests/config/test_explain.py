"""Messages on a file of any kind: what is counted, what is cut, and that the time is linear."""

import time
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from pydantic import Field, ValidationError

from r1recipes.config import Section, explain
from r1recipes.config.render import Loc
from r1recipes.config.section import NamedSections
from r1recipes.config.suggest import nearest
from r1recipes.errors import MAX_GIVEN, MAX_LISTED, Problem, RecipeError, listed, shorten


class Server(Section):
    """A section with a free name."""

    port: Annotated[int, Field(examples=[80])]
    words: list[str] = []


class Config(Section):
    """A file that has nothing to do with recipes."""

    named_sections: ClassVar = {
        "server": NamedSections("berlin", "a section for each machine", "by its town")
    }
    foreign_keys: ClassVar = {"proxy": "remove it: there is none", "named": "it is a table here"}
    foreign_values: ClassVar = {"all": "remove this line: all words are the default"}
    name: str = ""
    weights: dict[str, float] = {}
    server: dict[str, Server] = {}


def problems(data: dict[str, object]) -> list[Problem]:
    """The problems of a file of this data, in which each key of the top has a line."""
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(data)
    lines = {key: number for number, key in enumerate(data, 1)}

    def where(loc: Loc, at_key: bool) -> str:
        return f"file:{lines.get(str(loc[0]), 1) if loc else 1}:1"

    return explain.explain(caught.value, Config, where)


def test_the_words_are_those_of_the_files_model() -> None:
    def only(data: dict[str, object]) -> tuple[str, str | None]:
        (problem,) = problems(data)
        return problem.message, problem.hint

    assert only({"xyz": 1, "name": "x"}) == ("unknown key `xyz`", "remove it; known here: " + KEYS)
    assert only({"nam": "x"})[1] == "did you mean `name`?"
    assert only({"prt": 1})[1] == "did you mean `port`? It belongs in each [server.berlin]"
    assert only({"port": 1}) == ("unknown key `port`", "`port` belongs in each [server.berlin]")
    assert only({"proxy": 1}) == ("unknown key `proxy`", "remove it: there is none")
    assert only({"named": 1})[1] == "it is a table here", "not the key `name`, which is like it"
    message, hint = only({"server": {"a": {"port": 1, "words": "all"}}})
    assert message == '`server.a.words` must be a list in brackets, not "all"'
    assert hint == "remove this line: all words are the default"
    assert only({"weights": {"a": "0.5"}})[1] == "remove the quotes: `0.5`"
    assert only({"weights": {"a": "x"}})[1] == "such as `a = 1.0`"


KEYS = "name, weights, server"


def test_of_many_unknown_keys_the_first_ten_get_a_message() -> None:
    data: dict[str, object] = {f"k{number:05}": 1 for number in range(20_000)}
    *first, rest = problems(data | {"name": 3})
    assert [problem.message for problem in first[:10]] == [
        f"unknown key `k{number:05}`" for number in range(10)
    ]
    assert [p.where for p in first[:10]] == [f"file:{number + 1}:1" for number in range(10)]
    assert first[10] == Problem("and 19,990 more unknown keys", "file:11:1", first[10].hint)
    assert len(first) == 11 and "`name` must be a text in quotes" in rest.message


def test_of_many_problems_that_are_alike_the_first_hundred_get_a_message() -> None:
    found = problems({"weights": dict.fromkeys(map(str, range(5000)), "x")})
    assert len(found) == explain.MAX_ALIKE + 1
    assert found[-1].message == "and 4,900 more problems like this"


def test_a_few_problems_of_each_kind_are_all_shown() -> None:
    servers = {f"s{number}": {"port": "x"} for number in range(30)}
    assert len(problems({"server": servers})) == 30


@pytest.mark.parametrize("size", [20_000, 80_000])
def test_the_time_is_linear(size: int) -> None:
    """20,000 unknown keys, of which none is compared with 20,000 others: a second is plenty."""
    data: dict[str, object] = {f"server{number}": {"port": 1} for number in range(size)}
    data["server"] = {f"s{number}": {"prt": 1} for number in range(1000)}
    began = time.process_time()
    problems(data)
    assert time.process_time() - began < 1.5 * size / 20_000


def test_what_is_long_is_cut_and_never_compared() -> None:
    long = "k" * 900_000
    began = time.process_time()
    data: dict[str, object] = {long: 1, "weights": {long: "x"}, "server": {long: {long: 1}}}
    for problem in problems(data):
        assert len(problem.message) < 2 * MAX_GIVEN and len(problem.hint or "") < 2 * MAX_GIVEN
    assert nearest(long, ["k", long], 0.1) is None and nearest("k", [long], 0.1) is None
    assert time.process_time() - began < 2


def test_shorten_keeps_both_ends() -> None:
    assert shorten("a" * MAX_GIVEN) == "a" * MAX_GIVEN
    cut = shorten("<" + "a" * 1000 + ">")
    assert len(cut) == MAX_GIVEN and cut[0] == "<" and cut[-1] == ">" and " ... " in cut
    message = f'`{"b" * 400}` is not "{"c" * 400}", ' + "but words of our own " * 30
    problem = Problem(message, hint=message)
    assert problem.message == problem.hint
    assert "b" * 198 not in problem.message and problem.message.endswith("our own " * 1)
    assert str(RecipeError(message)) == problem.message


def test_of_many_names_the_first_are_listed() -> None:
    assert listed(["a", "b"]) == "a, b" and listed([]) == ""
    names = [f"n{number}" for number in range(MAX_LISTED + 3)]
    assert listed(names).endswith(f"n{MAX_LISTED - 1} and 3 more")


def test_config_knows_no_recipe() -> None:
    """Words of recipes come from the model of the file."""
    for path in Path(explain.__file__).parent.glob("*.py"):
        text = path.read_text().replace("It knows no recipe", "").replace("RecipeError", "")
        for word in ("recipe", "preset.", "[preset", "24GB", "8GB", "all-linear", "phi4"):
            assert word not in text.replace("r1recipes", ""), f"{path.name}: {word}"
