"""Loading: what people read when they err, overrides, the fingerprint, what is shown, speed."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from r1recipes import recipe
from r1recipes.config import render
from r1recipes.errors import RecipeError
from r1recipes.recipe import loading, overrides
from r1recipes.recipe.schema import Recipe
from tests.conftest import SMALL

ROOT = Path(__file__).parents[2]


def load(tmp_path, old="", new="", overrides=None):
    """The small recipe with one text replaced."""
    assert old in SMALL
    path = tmp_path / "r.toml"
    path.write_text(SMALL.replace(old, new, 1))
    return recipe.load(path, overrides)


def problems(tmp_path, old="", new="", overrides=None):
    """Each problem as `line:column message (hint)`."""
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, old, new, overrides)
    places = [(p.where or "").replace(f"{tmp_path / 'r.toml'}:", "") for p in caught.value.problems]
    return [
        f"{place} {p.message} ({p.hint})"
        for place, p in zip(places, caught.value.problems, strict=True)
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "max_steps = 6",
            "max_stps = 6",
            "1 unknown key `train.max_stps` (did you mean `train.max_steps`?)",
        ),
        (
            "max_steps = 6",
            'max_steps = "6"',
            '13 `train.max_steps` must be a whole number, not "6" (remove the quotes: `6`)',
        ),
        (
            "max_steps = 6",
            "lora_rank = 6",
            "1 unknown key `train.lora_rank` (`lora_rank` belongs in each [preset.cpu])",
        ),
        (
            "max_steps = 6",
            "num_train_epochs = 6",
            "1 unknown key `train.num_train_epochs` (set `train.max_steps`)",
        ),
        (
            "max_steps = 6",
            "max_steps = nan",
            "13 `train.max_steps` must be a whole number, not nan (such as `max_steps = 300`)",
        ),
        (
            "correctness = 2.0",
            "corectness = 2.0",
            '1 unknown reward "corectness" (did you mean `correctness`?)',
        ),
        (
            '"builtin:arithmetic"',
            '"builtin:arithmetics"',
            '8 unknown built-in data set "builtin:arithmetics" '
            '(did you mean "builtin:arithmetic"?)',
        ),
        (
            "[train]",
            "[training]",
            "2 unknown section [training] (did you mean `[train]`?)",
        ),
        (
            "[rewards]",
            "[[rewards]]",
            "3 `rewards` must be a section, not a list (write `[rewards]` in single brackets)",
        ),
        (
            "[preset.cpu]",
            '[preset."8 GB"]',
            '2 "8 GB" is not a preset\'s name (did you mean `[preset.8GB]`?)',
        ),
        (
            "[preset.cpu]",
            "[preset.RTX-4090]",
            '2 "RTX-4090" is not a preset\'s name (did you mean `[preset.24GB]`?)',
        ),
        (
            "seed = 1",
            "seed = True",
            '8 not valid TOML: invalid value "True" (write `true`)',
        ),
        (
            "seed = 1",
            "seed = 1\nseed = 2",
            "1 `seed` is given twice, first on line 3 (keep one)",
        ),
    ],
)
def test_what_a_person_reads(tmp_path, old, new, said):
    line = SMALL[: SMALL.index(old)].count("\n") + 1 + new.count("\n")
    assert problems(tmp_path, old, new) == [f"{line}:{said}"]


def test_a_key_at_the_top_or_below_the_wrong_header_is_sent_home(tmp_path):
    (said,) = problems(tmp_path, "seed = 1", "learning_rate = 1e-5")
    assert "`learning_rate` belongs in [train] or in [cold_start]" in said
    (said,) = problems(tmp_path, "[train]", "[train]\nseed = 1")
    assert "`seed` belongs at the top of the file, above the first [section]" in said


def test_settings_without_a_card_are_one_mistake(tmp_path):
    (said,) = problems(tmp_path, "[preset.cpu]", "[preset]")
    assert "stands in [preset] itself" in said and "write `[preset.cpu]`" in said


def test_a_missing_key_is_reported_at_its_section(tmp_path):
    line = SMALL[: SMALL.index("[preset.cpu]")].count("\n") + 1
    (said,) = problems(tmp_path, "lora_rank = 8\n", "")
    assert said == f"{line}:2 `preset.cpu.lora_rank` is missing (add `lora_rank = 32`)"


def test_all_errors_of_a_file_at_once_in_its_order(tmp_path):
    path = tmp_path / "r.toml"
    text = SMALL.replace("seed = 1", "sed = 1").replace("size = 64", "size = 0")
    text = text.replace("correctness", "corectness").replace("save_steps = 2", "save_steps = 2.5")
    text = text.replace("steps = 12", "").replace("[preset.cpu]", "[preset.cpu]\nload_in_4bit=true")
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        recipe.load(path, ["nonsense"])
    messages = [problem.message for problem in caught.value.problems]
    assert messages[0] == "is not key=value"
    for part, message in zip(
        ["`sed`", "`data.size`", '"corectness"', "`train.save_steps`", "`cold_start.steps`"]
        + ["`load_in_4bit` needs a GPU"],
        messages[1:],
        strict=True,
    ):
        assert part in message


def test_dotted_keys_and_inline_tables_are_sections_too(tmp_path):
    path = tmp_path / "r.toml"
    inline = SMALL.replace("[eval]\nsamples = 2\n", "").replace("seed = 1", "eval = {samples = 2}")
    path.write_text(inline)
    assert recipe.load(path).recipe.eval.samples == 2
    path.write_text(inline.replace("eval = {samples = 2}", "eval.samples = 3"))
    assert recipe.load(path).recipe.eval.samples == 3
    path.write_text(inline.replace("samples = 2", "samples = 0"))
    with pytest.raises(RecipeError, match="`eval.samples` must be at least 1, not 0") as caught:
        recipe.load(path)
    assert caught.value.problems[0].where == f"{path}:3:19"


def test_overrides_are_toml_or_else_text(tmp_path):
    flags = ["train.max_steps=7", "train.learning_rate=1e-4", "description=two words # all of it"]
    flags += ["rewards.'my.py:f'=1", "eval={samples=3}", "model.revision=main", "seed=0x10"]
    loaded = load(tmp_path, overrides=flags)
    found = loaded.recipe
    assert (found.train.max_steps, found.train.learning_rate, found.seed) == (7, 1e-4, 16)
    assert found.description == "two words # all of it" and found.model.revision == "main"
    assert found.rewards["my.py:f"] == 1.0 and found.eval.samples == 3
    assert loaded.overrides[("eval", "samples")] == "--set eval={samples=3}"
    assert "rewards" in loaded.data and loaded.text == SMALL


def test_the_last_override_of_a_key_counts(tmp_path):
    assert load(tmp_path, overrides=["seed=5", "seed=6"]).recipe.seed == 6


def test_a_setting_without_a_presets_name_is_set_in_every_preset():
    changed = recipe.load("phi4", ["preset.lora_rank=64", "preset.24GB.lora_rank=8"]).recipe
    assert {name: p.lora_rank for name, p in changed.preset.items()} == {
        "16GB": 64,
        "24GB": 8,
        "48GB": 64,
        "80GB": 64,
    }


def test_a_flag_that_breaks_a_valid_file_is_blamed(tmp_path):
    (said,) = problems(tmp_path, overrides=["preset.cpu.max_seq_length=32"])
    assert said.startswith("--set preset.cpu.max_seq_length=32 `max_completion_length` 40 leaves")


def test_one_flag_that_is_wrong_in_every_preset_is_one_problem():
    with pytest.raises(RecipeError) as caught:
        recipe.load("phi4", ["preset.lora_rank=9999"])
    (problem,) = caught.value.problems
    assert problem.where == "--set preset.lora_rank=9999"
    assert problem.message == "`preset.lora_rank` must be at most 512, not 9999"


def test_overrides_leave_the_data_as_they_were():
    given = tomli.loads(SMALL)
    data, origins, problems = overrides.merge(given, ["train.max_steps=9"])
    assert given == tomli.loads(SMALL) and data["train"]["max_steps"] == 9
    assert origins == {("train", "max_steps"): "--set train.max_steps=9"} and problems == []


def test_the_fingerprint_is_of_what_is_computed(tmp_path):
    plain = recipe.fingerprint(load(tmp_path).recipe)
    assert len(plain) == 64
    described = load(tmp_path, "a few steps", "some steps").recipe
    assert recipe.fingerprint(described) == plain
    explicit = load(tmp_path, "max_steps = 6", "max_steps = 6\nbeta = 0").recipe
    assert recipe.fingerprint(explicit) == plain
    other = load(tmp_path, "max_steps = 6", "max_steps = 7").recipe
    assert recipe.fingerprint(other) != plain


def test_what_is_shown_says_where_it_came_from(tmp_path):
    loaded = load(tmp_path, overrides=["train.max_steps=7"])
    text = render.render(loaded.recipe, loading.origin_of(loaded))
    lines = {line.split(" = ")[0]: line for line in text.splitlines() if " = " in line}
    assert lines["max_steps"].endswith("# --set") and lines["beta"].endswith("# default")
    assert lines["save_steps"] == "save_steps = 2"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    description=TEXTS | st.sampled_from(['"""', "'''\n", "a\r\nb", "\x00\x1f\x7f", "#", "\\"]),
    system=TEXTS,
    rate=st.floats(1e-12, 1.0),
    reward=TEXTS.map(lambda text: text.replace("\n", "") + ".py:f"),
)
def test_whatever_is_shown_loads_to_the_same(description, system, rate, reward):
    data = tomli.loads(SMALL)
    data["description"], data["prompt"] = description, {"system": system}
    data["train"]["learning_rate"] = rate
    if len(reward) > 5:
        data["rewards"][reward] = 0.25
    try:
        first = Recipe.model_validate(data)
    except ValueError:
        return  # a name of a file that is none
    for origin in (None, lambda path: "default"):
        assert Recipe.model_validate(tomli.loads(render.render(first, origin))) == first


def test_a_recipe_is_found_by_name_even_beside_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi4").mkdir()
    assert recipe.find("phi4") == loading.shipped_folder() / "phi4.toml"
    with pytest.raises(RecipeError) as caught:
        recipe.find("phi5")
    assert "did you mean `phi4`" in str(caught.value.problems[0].hint)


def test_loading_is_fast_and_light():
    """All recipes in half a second of CPU time, with nothing imported that is not needed."""
    code = (
        "import time; start = time.process_time()\n"
        "from r1recipes import recipe\n"
        "for path in recipe.shipped(): recipe.load(path)\n"
        "import sys\n"
        "heavy = 'torch datasets transformers numpy rich tree_sitter tree_sitter_toml tomli_w'\n"
        "assert not [name for name in heavy.split() if name in sys.modules]\n"
        "print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    assert min(float(run.stdout) for run in runs) < 0.5  # 0.12 s on a quiet machine


@pytest.mark.parametrize("place", ["top", "train", "one line", "rewards", "sections"])
def test_twenty_thousand_unknown_keys_are_counted(tmp_path, place):
    """In at most two seconds of CPU time; it took 18 s when each was compared with all keys."""
    names = [f"k{number:05}" for number in range(20_000)]
    lines = "".join(f"{name} = 1\n" for name in names)
    text = {
        "top": lines + SMALL,
        "train": SMALL.replace("[train]\n", f"[train]\n{lines}"),
        "one line": SMALL.replace("[train]\n", "[train]\n")
        + "[lora]\nx = 1\n[lora.y]\n"
        + f"z = {{ {', '.join(f'{name} = 1' for name in names)} }}\n"
        + "[track]\nwandb = { "
        + ", ".join(f"{name} = 1" for name in names)
        + " }\n",
        "rewards": SMALL.replace("[rewards]\n", f"[rewards]\n{lines}"),
        "sections": SMALL + "".join(f"[{name}]\n" for name in names),
    }[place]
    path = tmp_path / "r.toml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    assert time.process_time() - began < 2
    messages = [problem.message for problem in caught.value.problems]
    assert len(messages) <= 13 and sum("unknown" in message for message in messages) <= 13
    assert [message for message in messages if re.search(r"and 19,99\d more unknown", message)]


@pytest.mark.parametrize(
    "line", ["{} = 1", "[{}]", '[rewards]\n"{}" = 1', "[preset.{}]", 'description = "{}', "x = {}"]
)
def test_a_message_shows_three_hundred_characters_of_what_is_long(tmp_path, line):
    path = tmp_path / "r.toml"
    path.write_text(line.format("a" * 900_000))
    with pytest.raises(RecipeError) as caught:
        recipe.load(path)
    for problem in caught.value.problems:
        assert "a" * 301 not in problem.message + (problem.hint or "")
        assert len(problem.message) < 600
    with pytest.raises(RecipeError) as caught:
        recipe.load("tiny", [f"train.{'a' * 100_000}=1", f"data.name={'b/' * 50_000}.jsonl"])
    assert "a" * 301 not in caught.value.problems[0].message


def test_a_text_that_is_deep_and_wrong_gives_its_first_mistake(tmp_path):
    path = tmp_path / "r.toml"
    deep = ".".join("a" * 50_000)
    path.write_text(f"x = 1\nx = 2\n{deep} = 1\n[{deep}]\ny = " + "[" * 3000 + "]" * 3000)
    with pytest.raises(RecipeError, match="`x` is given twice, first on line 1"):
        recipe.load(path)


def test_a_number_too_long_is_found_at_once(tmp_path):
    path = tmp_path / "r.toml"
    numbers = ["1" * 4299] * 200 + ["1" * 4301]
    path.write_text("x = [" + ",\n".join(numbers) + "]")
    began = time.process_time()
    with pytest.raises(RecipeError, match="too many digits") as caught:
        recipe.load(path)
    assert caught.value.problems[0].where == f"{path}:201:1"
    assert time.process_time() - began < 2
