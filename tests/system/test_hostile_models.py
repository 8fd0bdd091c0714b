"""A local model with damaged or hostile files, which a recipe names: `run` answers in one line.

Each case is a whole model of which one file is changed; the changes are those of a run's folder.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import answered_in_time
from tests.system.test_hostile import DATA, WITH_FILES, assert_refused
from tests.system.test_hostile_runs import Change
from tests.system.test_hostile_templates import ROWS, SHOWN
from tests.system.test_hostile_weights import FILES, WEIGHTS

NO_FAULTS = ("a side that is none",)
"""Cases of an adapter that a run does not see: it pads on the left, whatever a file says."""


def of_model() -> Iterator[tuple[str, str, Change]]:
    """Name, what the line must name, and change of each case that a model can have."""
    for name, (file, change) in FILES.items():
        is_of_model = file.startswith(("base", "config.json")) or "tokenizer" in file
        if is_of_model and name not in NO_FAULTS:
            yield name, file.rpartition("/")[2].replace("base", "config.json"), change
    for name, make in WEIGHTS.items():
        yield f"weights: {name}", "model/", make("base/model.safetensors")


CASES = {name: (named, change) for name, named, change in of_model()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model, under the names of the folders of a run."""
    from r1recipes.training.backends import builtin

    folder = tmp_path_factory.mktemp("whole") / "model"
    builtin.build_model(1, "builtin:tiny").save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def here(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    shutil.copytree(whole, place / "model")
    for name in ("base", "adapter"):  # where the changes look for their files
        (tmp_path / name).symlink_to(place / "model")
    monkeypatch.chdir(place)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    text = WITH_FILES.replace(DATA, 'name = "rows.jsonl"').replace("builtin:tiny", "model")
    (place / "mine.toml").write_text(text)
    (place / "rows.jsonl").write_bytes(ROWS)
    (place / "shown.jsonl").write_bytes(SHOWN)
    return place


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_model_of_a_recipe_is_refused(here, name):
    named, change = CASES[name]
    change(here.parent)
    with answered_in_time():
        line = assert_refused(here, "mine.toml", "--offline", commands=[["run"]])
    assert named in line and not (here.parent / "runs").exists()
