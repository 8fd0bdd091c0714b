"""`load_in` and its older name `load_in_4bit`: one setting, one fingerprint, one place in files."""

import json

import pytest

from r1recipes import recipe
from r1recipes.algorithms.base import Preset
from r1recipes.config import render
from r1recipes.errors import RecipeError
from r1recipes.planning import auto
from r1recipes.recipe.schema import Recipe
from tests.helpers import in_process

BASE = recipe.find("phi4").read_text()
LINE = 'load_in = "4bit"'


def load(tmp_path, *lines: str, overrides: tuple[str, ...] = ()) -> recipe.Loaded:
    """phi4 with these lines in place of the first preset's."""
    path = tmp_path / "mine.toml"
    path.write_text(BASE.replace(LINE, "\n".join(lines), 1))
    return recipe.load(path, list(overrides))


def first(loaded: recipe.Loaded) -> Preset:
    return loaded.recipe.preset["16GB"]


@pytest.mark.parametrize(
    ("old", "new", "weights"),
    [
        ("load_in_4bit = true", 'load_in = "4bit"', "4bit"),
        ("load_in_4bit = false", 'load_in = "16bit"', "16bit"),
        ("", 'load_in = "16bit"', "16bit"),
        ("load_in_4bit = false", 'load_in = "16bit"\nload_in_4bit = false', "16bit"),
    ],
)
def test_both_names_say_the_same(old, new, weights, tmp_path):
    before, after = load(tmp_path, old), load(tmp_path, new)
    assert first(before) == first(after) and first(after).weights == weights
    assert recipe.fingerprint(before.recipe) == recipe.fingerprint(after.recipe)


def test_auto_has_both_names_too(tmp_path):
    before, after = load(tmp_path, 'load_in_4bit = "auto"'), load(tmp_path, 'load_in = "auto"')
    assert first(before) == first(after) and auto.open_keys(first(after)) == ["load_in_4bit"]


def test_recipes_of_before_keep_their_fingerprint(tmp_path):
    """The shipped one in the words of the version that had the older name alone."""
    older = BASE.replace(LINE, "load_in_4bit = true").replace(
        'load_in = "16bit"', "load_in_4bit = false"
    )
    (tmp_path / "phi4.toml").write_text(older)
    fingerprint = "0d83967b15d63387ea0068b7a0212f90ae4486e8a5b495f30714af3fb87ed4d3"
    for loaded in (recipe.load(tmp_path / "phi4.toml"), recipe.load("phi4")):
        assert recipe.fingerprint(loaded.recipe) == fingerprint
    fp8 = recipe.fingerprint(load(tmp_path, 'load_in = "fp8"').recipe)
    assert fp8 not in (fingerprint, recipe.fingerprint(load(tmp_path, "").recipe))


def test_what_is_kept_of_a_preset_has_the_older_name(tmp_path):
    """Plans, locks and proofs of older versions are compared with it."""
    for line, expected in (('load_in = "4bit"', (None, True)), ('load_in = "fp8"', ("fp8", False))):
        kept = first(load(tmp_path, line)).model_dump()
        assert (kept["load_in"], kept["load_in_4bit"]) == expected
        assert Preset.model_validate(kept) == first(load(tmp_path, line))
        del kept["load_in"]
        assert Preset.model_validate(kept).weights in ("4bit", "16bit")


@pytest.mark.parametrize(
    "lines",
    [
        ('load_in = "16bit"', "load_in_4bit = true"),
        ('load_in = "4bit"', "load_in_4bit = false"),
        ('load_in = "fp8"', "load_in_4bit = true"),
        ('load_in = "fp8"', 'load_in_4bit = "auto"'),
        ('load_in = "auto"', "load_in_4bit = true"),
        ('load_in = "4bit"', 'load_in_4bit = "auto"'),
    ],
)
def test_a_contradiction_is_an_error(lines, tmp_path):
    with pytest.raises(RecipeError, match="contradicts `load_in_4bit = ") as refused:
        load(tmp_path, *lines)
    (problem,) = refused.value.problems
    assert problem.hint == "remove `load_in_4bit`, the older name of the same setting"
    assert (problem.where or "").startswith(f"{tmp_path}/mine.toml:73:")


@pytest.mark.parametrize("value", ['"8bit"', "true", "4", '"FP8"', '""'])
def test_other_values_are_errors_at_their_place(value, tmp_path):
    with pytest.raises(RecipeError, match="16GB.load_in") as refused:
        load(tmp_path, f"load_in = {value}")
    assert ":73:" in (refused.value.problems[0].where or "")


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        (("preset.load_in_4bit=false",), "16bit"),
        (("preset.load_in=fp8",), "fp8"),
        (("preset.16GB.load_in=fp8", "preset.16GB.load_in_4bit=true"), "4bit"),
        (("preset.load_in_4bit=true", "preset.load_in=16bit"), "16bit"),
        (("preset={16GB={load_in_4bit=false}}",), "16bit"),
    ],
)
@pytest.mark.parametrize("line", ['load_in = "4bit"', "load_in_4bit = true"])
def test_a_flag_replaces_either_name_and_the_last_one_counts(overrides, weights, line, tmp_path):
    assert first(load(tmp_path, line, overrides=overrides)).weights == weights


def test_one_flag_with_both_is_an_error(tmp_path):
    both = 'preset={16GB={load_in="fp8",load_in_4bit=true}}'
    with pytest.raises(RecipeError, match="contradicts"):
        load(tmp_path, LINE, overrides=(both,))


@pytest.mark.parametrize("line", ['load_in = "4bit"', 'load_in = "fp8"', 'load_in = "auto"'])
def test_the_cpu_loads_neither(line, tmp_path):
    text = recipe.find("tiny").read_text().replace("[preset.cpu]", f"[preset.cpu]\n{line}")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(RecipeError, match="`load_in` needs a GPU"):
        recipe.load(tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["phi4", "tiny", "small"])
@pytest.mark.parametrize("load_in", ["4bit", "fp8", "16bit", "auto"])
def test_what_is_shown_has_the_new_name_and_loads_again(name, load_in, tmp_path):
    loaded = recipe.load(name, [f"preset.load_in={load_in}"] if name != "tiny" else [])
    text = render.render(loaded.recipe)
    assert "load_in_4bit" not in text and "load_in = " in text
    (tmp_path / "mine.toml").write_text(text)
    assert recipe.load(tmp_path / "mine.toml").recipe == loaded.recipe


def test_show_says_where_either_name_came_from(tmp_path):
    load(tmp_path, "load_in_4bit = true")
    shown = in_process("show", tmp_path / "mine.toml", "--set", "preset.24GB.load_in_4bit=true")[1]
    lines = [line for line in shown.splitlines() if line.startswith("load_in")]
    assert lines[0] == LINE and lines[1].startswith(LINE) and lines[1].endswith("# --set")
    tiny = in_process("show", "tiny")[1]
    assert 'load_in = "16bit"                                 # default' in tiny


def test_plan_writes_the_new_name():
    """With `--fit`, which keeps FP8: the planner would not choose it."""
    for load_in in ("4bit", "fp8"):
        flags = ("--gpu", "rtx 4090", "--fit", "--set", f"preset.load_in={load_in}")
        code, out, error = in_process("plan", "phi4", *flags)
        assert code == 0, error
        assert f'\nload_in = "{load_in}"\n' in out and "load_in_4bit" not in out


def test_the_json_of_a_plan_keeps_the_older_name():
    code, out, _ = in_process("plan", "phi4", "--gpu", "rtx 4090", "--json")
    assert code == 0 and json.loads(out)["settings"]["load_in_4bit"] is True


def test_a_recipe_of_another_tool_is_told_the_name(tmp_path):
    with pytest.raises(RecipeError) as refused:
        load(tmp_path, "load_in_fp8 = true")
    assert 'write `load_in = "fp8"` in each preset' in (refused.value.problems[0].hint or "")


def test_copies_with_other_weights_are_valid_presets(tmp_path):
    preset = first(load(tmp_path, LINE))
    for load_in in ("4bit", "fp8", "16bit"):
        other = preset.with_weights(load_in)
        assert other.weights == load_in
        assert Preset.model_validate(other.model_dump()) == other
        assert Preset.model_validate(other.written()) == other
    data = recipe.load("phi4").recipe.model_dump()
    assert Recipe.model_validate(data).preset["16GB"].weights == "4bit"
