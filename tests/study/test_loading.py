"""Study files: what is refused and where, what the cells are."""

import time
from pathlib import Path

import pytest

from r1recipes import recipe
from r1recipes.errors import RecipeError
from r1recipes.study import loading
from r1recipes.study.cell import Cell, cell_name, differences
from r1recipes.study.loading import MAX_PROBLEMS
from r1recipes.study.schema import METRICS
from tests.helpers import in_process

SEARCH = """\
format = 1
recipe = "small.toml"

[study]
n_trials = 5

[search]
"train.learning_rate" = { low = 1e-4, high = 1e-2, log = true }
"preset.lora_rank" = { choices = [4, 8] }
"train.max_steps" = { low = 4, high = 6 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def problems(small: Path, text: str) -> list[tuple[str, str, str]]:
    """(line:column, message, hint) of everything that is wrong with a study of `small`."""
    with pytest.raises(RecipeError) as caught:
        loading.load(write(small.parent, text))
    found = caught.value.problems
    return [((p.where or "").partition("study.toml:")[2], p.message, p.hint or "") for p in found]


def test_a_study_without_a_matrix_is_one_cell(small):
    loaded = loading.load(write(small.parent, SEARCH))
    (cell,) = loaded.cells
    assert (cell.full_name, cell.num_trials) == ("study", 5)
    trial = cell.load({"train.learning_rate": 2e-3, "preset.lora_rank": 4})
    assert trial.recipe.train.learning_rate == 2e-3
    assert trial.recipe.preset["cpu"].lora_rank == 4


def test_a_cell_travels_through_json(small):
    (cell,) = loading.load(write(small.parent, SEARCH)).cells
    again = Cell.model_validate(cell.model_dump(mode="json", exclude_unset=True))
    assert again == cell and again.load().recipe == cell.load().recipe


def test_the_recipes_own_values_are_known_where_they_are_within_the_ranges(small):
    (cell,) = loading.load(write(small.parent, SEARCH)).cells
    expected = {"train.learning_rate": 1e-3, "preset.lora_rank": 8, "train.max_steps": 6}
    assert cell.own_values() == expected
    (cell,) = loading.load(write(small.parent, SEARCH.replace("high = 6", "high = 5"))).cells
    assert "train.max_steps" not in cell.own_values()


def test_every_value_of_a_search_must_be_valid_in_the_recipe(small):
    text = """\
format = 1
recipe = "small.toml"
[search]
"train.learning_rat" = { low = 1e-4, high = 1e-2 }
"preset.lora_rank" = { choices = [4, 100000] }
"train.warmup_ratio" = { low = 0.5, high = 1.5 }
"rewards.corectness" = { low = 0.1, high = 0.2 }
"preset.num_generations" = { low = 2.5, high = 4 }
"""
    found = problems(small, text)
    assert [place for place, _, _ in found] == ["4:1", "5:38", "6:44", "7:1", "8:36"]
    assert found[0][1:] == (
        "unknown key `train.learning_rat`",
        "did you mean `train.learning_rate`?",
    )
    assert "at most 512" in found[1][1] and "below 1" in found[2][1]
    assert "`correctness`" in found[3][2] and "whole number" in found[4][1]


@pytest.mark.parametrize(
    "old, new, place, said",
    [
        ("n_trials = 5", "n_trial = 5", "5:1", "unknown key `study.n_trial`"),
        ("n_trials = 5", 'metric = "reward"', "5:10", "moves with what is searched"),
        ("n_trials = 5", 'metric = "eval/acuracy"', "5:10", "unknown metric"),
        ("n_trials = 5", 'metric = ["eval/accuracy", "eval/greedy"]\npruner = "median"', "6:10",
         "nothing can be pruned"),
        ("low = 1e-4", "low = 1e-1", "8:46", "is not above `low`"),
        ("low = 1e-4", "low = 0.0", "8:33", "has no logarithm"),
        ("[4, 8]", "[4, 4]", "9:34", "given twice"),
        ('"train.max_steps"', "train.max_steps", "10:19", "is a section of the recipe"),
        ("small.toml", "smal.toml", "2:10", "there is no file"),
        ("[study]", '[set]\n"train.max_steps" = 3\n[study]', "12:21", "is in [set] too"),
        ("[study]", '[set]\n"train.beta" = -1\n[study]', "5:16", "at least 0"),
        ("[study]", '[set]\n"preset.cpu.lora_rank" = 8\n[study]', "11:1", "are one key"),
        ('"train.max_steps" = { low = 4', "seed = { low = 4", "10:1", "finds luck"),
        ('"train.max_steps" = { low = 4', '"eval.samples" = { low = 4', "10:1", "is measured"),
        ('"train.max_steps" = { low = 4', '"data.eval_size" = { low = 4', "10:1", "is measured"),
        ('"train.max_steps" = { low = 4', '"train.top_k" = { low = 4', "10:1", "without learning"),
        ("high = 6", "high = 6, step = 0.5", "10:49", "so must its `step`"),
        ("n_trials = 5", 'direction = "up"', "5:13", "is neither"),
        ("n_trials = 5", "metric = 3", "5:10", "unknown metric"),
        ("n_trials = 5", "metric = []", "5:10", "unknown metric"),
        ("n_trials = 5", 'metric = "eval/mean_length"\npruner = "median"', "6:10",
         "pruned by their accuracy"),
        ("{ choices = [4, 8] }", "8", "9:22", "needs a range or choices"),
        ("[search]", "[matrix]\nseed = 3\n[search]", "8:8", "needs a list"),
        ("[search]", "[matrix]\nseed = []\n[search]", "8:8", "needs a list"),
        ("high = 6", "high = 6, step = 3", "10:49", "wider than the range"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_where_it_stands(small, old, new, place, said):
    (found,) = problems(small, SEARCH.replace(old, new))
    assert found[0] == place and said in found[1] and found[2]


def test_nothing_varies(small):
    (found,) = problems(small, 'format = 1\nrecipe = "small.toml"\n')
    assert "nothing varies" in found[1]


def test_a_matrix_is_every_combination_in_order(small):
    text = 'format = 1\n[matrix]\nrecipe = ["small.toml", "tiny"]\n"train.beta" = [0.0, 0.1]\n'
    text += "seed = [1, 2, 3]\n"
    cells = loading.load(write(small.parent, text)).cells
    assert len(cells) == 12 and len({cell.name for cell in cells}) == 12
    assert all(cell.num_trials == 1 and not cell.search for cell in cells)
    assert cells[0].name == "small,beta=0.0,seed=1"
    assert cells[-1].load().recipe.seed == 3 and cells[-1].load().data["train"]["beta"] == 0.1
    assert cells[-1].load().recipe.train.max_steps == recipe.load("tiny").recipe.train.max_steps


def test_a_key_that_is_varied_has_no_one_value(small):
    with pytest.raises(RecipeError, match="`preset.lora_rank` is varied here"):
        loading.load(write(small.parent, SEARCH), ["preset.cpu.lora_rank=4"])


def test_the_sampling_may_be_searched_where_nothing_is_sampled(small):
    text = SEARCH.replace("n_trials = 5", 'n_trials = 5\nmetric = "eval/greedy"')
    text += '"train.temperature" = { low = 0.5, high = 1.5 }\n'
    assert "train.temperature" in loading.load(write(small.parent, text)).cells[0].search


def test_the_cells_of_a_matrix_are_told_apart(small):
    text = 'format = 1\nrecipe = "small.toml"\n[matrix]\nseed = [1, 2, 1]\n'
    (found,) = problems(small, text)
    assert found[0] == "4:15" and "given twice" in found[1]
    text = 'format = 1\n[matrix]\nrecipe = ["small.toml", "./small.toml"]\n'
    (found,) = problems(small, text)
    assert "two cells are called `small`" in found[1]
    prompts = ["a" * 300, "a" * 301]
    text = f'format = 1\nrecipe = "small.toml"\n[matrix]\n"prompt.system" = {prompts}\n'
    names = [cell.name for cell in loading.load(write(small.parent, text)).cells]
    assert len(set(names)) == 2 and max(map(len, names)) == 40


def test_only_an_accuracy_is_pruned_by(small):
    """What trials report is the accuracy in training; the shortest answers may have the lowest."""
    for metric, pruner in (("eval/greedy", "noise"), ("eval/mean_length", "none")):
        text = SEARCH.replace("n_trials = 5", f'metric = "{metric}"')
        (cell,) = loading.load(write(small.parent, text)).cells
        assert cell.settings.pruner_name == pruner


def test_a_cells_name_fits_a_file_name():
    axes = {f"train.some_long_key_{n}": "\u4f60" * 30 for n in range(9)}
    names = [cell_name(axes | {"seed": seed}) for seed in (1, 2)]
    assert len(set(names)) == 2 and all(len(name.encode()) <= 200 for name in names)


def test_a_recipe_is_told_from_a_study(small):
    code, _, err = in_process("sweep", small)
    assert code == 2 and "is a recipe, not a study" in err
    code, _, err = in_process("run", write(small.parent, SEARCH))
    assert code == 2 and "it is a study, not a recipe" in err


def test_a_study_can_be_checked_without_a_start(small):
    path = write(small.parent, SEARCH)
    assert in_process("check", small, path) == (0, f"{small}: ok\n{path}: ok\n", "")
    path.write_text(SEARCH.replace("learning_rate", "learning_rat"))
    code, _, err = in_process("check", path)
    assert code == 2 and "study.toml:8:1: unknown key `train.learning_rat`" in err


def test_a_change_of_what_is_searched_is_named(small):
    (old,) = loading.load(write(small.parent, SEARCH)).cells
    more = SEARCH.replace("[4, 8]", "[4, 8, 16]").replace("n_trials = 5", "n_trials = 9")
    (new,) = loading.load(write(small.parent, more)).cells
    (line,) = differences(old, new)
    assert "preset.lora_rank" in line and "16" in line
    (new,) = loading.load(write(small.parent, SEARCH), ["train.beta=0.1"]).cells
    assert differences(old, new) == ["recipe `train.beta`: 0.0 -> 0.1"]
    other = small.read_text().replace("learning_rate = 1e-3", "learning_rate = 5e-3")
    small.write_text(other)
    (new,) = loading.load(write(small.parent, SEARCH)).cells
    assert differences(old, new) == []


@pytest.mark.parametrize("path", loading.shipped(), ids=lambda path: path.stem)
def test_a_shipped_study_loads(path):
    loaded = loading.load(path)
    assert path.read_text().startswith("#:schema ./study.schema.json\n")
    assert len(loaded.cells[0].own_values()) == len(loaded.file.search)
    assert set(loaded.cells[0].settings.metrics) <= set(METRICS)


def test_the_shipped_schema_is_the_models():
    """`r1recipes schema --study sweeps/study.schema.json` writes it."""
    path = loading.shipped()[0].parent / "study.schema.json"
    code, out, _ = in_process("schema", "--study")
    assert code == 0 and path.read_text() == out


def test_there_are_shipped_studies():
    assert {path.stem for path in loading.shipped()} >= {"tiny", "qwen2.5-1.5b", "phi4-rewards"}


def test_of_many_wrong_values_the_first_ten_are_shown(small):
    """Each value is tried in a whole recipe, so that 5,000 of them would take minutes."""
    keys = "".join(f'"train.k{number}" = [1, 2]\n' for number in range(5000))
    began = time.process_time()
    found = problems(small, f'format = 1\nrecipe = "small.toml"\n[matrix]\n{keys}')
    assert time.process_time() - began < 10
    assert len(found) <= MAX_PROBLEMS + 2
    assert "more values were not checked" in found[-1][1] or "more than" in found[-1][1]
    keys = "".join(f'"train.k{number}" = {{ low = 1.0, high = 2.0 }}\n' for number in range(5000))
    found = problems(small, f'format = 1\nrecipe = "small.toml"\n[search]\n{keys}')
    assert found[0] == ("4:1", "unknown key `train.k0`", "remove it")
    assert found[-1][1] == "9,981 more values were not checked"


def test_a_preset_key_is_the_same_in_every_preset(small):
    text = """\
format = 1
recipe = "small.toml"
[set]
"preset.lora_rank" = 8
"preset.cpu.num_generations" = 4
[search]
"preset.cpu.lora_rank" = { choices = [4, 8] }
"preset.num_generations" = { choices = [4, 8] }
"train . max_steps" = { low = 4, high = 6 }
[matrix]
"train.max_steps" = [4, 5]
"""
    messages = [message for _, message, _ in problems(small, text)]
    assert messages == [
        "`preset.cpu.lora_rank` and `preset.lora_rank` of [set] are one key",
        "`preset.num_generations` and `preset.cpu.num_generations` of [set] are one key",
        "`train.max_steps` and `train . max_steps` of [search] are one key",
    ]
