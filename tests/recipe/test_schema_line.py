"""The `#:schema` line of a recipe, wherever its file is put, and what the other lines say."""

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import tomli

from r1recipes import machine, recipe
from r1recipes.recipe import scaffold
from tests.helpers import in_process

CLONE = Path(machine.shipped_folder("recipes")).parent


def schema_of(file: Path) -> Path:
    """The file that the first line of a recipe names, as an editor finds it."""
    first = file.read_text().splitlines()[0]
    assert first.startswith("#:schema ")
    place = first.removeprefix("#:schema ")
    if place.startswith("file://"):
        return Path(unquote(urlsplit(place).path))
    assert place.startswith(("./", "../"))
    return file.parent / place


@pytest.mark.parametrize("inside", [".", "recipes", "mine/deep"])
def test_in_the_clone_it_is_a_path_from_the_file(inside, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    shutil.copytree(CLONE / "recipes", clone / "recipes")
    monkeypatch.setattr("r1recipes.machine.shipped_folder", lambda kind: clone / kind)
    folder = clone / inside
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "new.toml"
    file.write_text(scaffold.schema_line(folder) + "\n")
    assert not file.read_text().startswith("#:schema file:")
    assert schema_of(file).resolve() == clone / "recipes" / "recipe.schema.json"


def test_in_another_folder_it_is_the_url_of_the_file_that_new_and_copy_write(tmp_path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    made, copied = folder / "new.toml", folder / "copy.toml"
    assert in_process("new", made, "--model", "builtin:tiny")[0] == 0
    assert in_process("copy", "tiny", copied)[0] == 0
    for file in (made, copied):
        assert schema_of(file).samefile(CLONE / "recipes" / "recipe.schema.json")
        assert in_process("check", file)[0] == 0
    original = (CLONE / "recipes" / "tiny.toml").read_text().splitlines()
    assert copied.read_text().splitlines()[1:] == original[1:]


def test_an_installed_wheel_names_the_schema_that_it_brings(tmp_path):
    """The package as a wheel installs it: `recipes` and `sweeps` are in `_data`."""
    site = tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CLONE / "r1recipes", site / "r1recipes", ignore=ignored)
    for kind in ("recipes", "sweeps"):
        shutil.copytree(CLONE / kind, site / "r1recipes" / "_data" / kind)
    work = tmp_path / "work"
    work.mkdir()
    start = [sys.executable, "-m", "r1recipes", "new", "mine.toml", "--model", "builtin:tiny"]
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(start, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = site / "r1recipes" / "_data" / "recipes" / "recipe.schema.json"
    assert schema_of(work / "mine.toml") == expected and expected.is_file()


def test_a_study_has_the_line_that_holds_in_its_folder(tmp_path):
    text = (CLONE / "sweeps" / "tiny.toml").read_text()
    file = tmp_path / "study.toml"
    file.write_text(scaffold.with_schema_of(text, tmp_path))
    assert schema_of(file).samefile(CLONE / "sweeps" / "study.schema.json")
    assert file.read_text().splitlines()[1:] == text.splitlines()[1:]


def test_another_schema_line_and_none_stay_as_they_are(tmp_path):
    for text in ("#:schema ./other.schema.json\nformat = 1\n", "format = 1\n", ""):
        assert scaffold.with_schema_of(text, tmp_path) == text


LINES = scaffold.commented(recipe.load("phi4").recipe, "me/mine-3B").splitlines()


def test_each_line_that_is_not_set_says_whether_it_is_the_default_or_an_example():
    off = [n for n, line in enumerate(LINES) if line[:1] == "#" and line[1:2] not in (" ", "[", "")]
    assert len(off) > 60
    for number in off:
        line, above = LINES[number], LINES[number - 1]
        if line.startswith('#algorithm = "sft"'):  # of the stage, below its header
            above = LINES[number - 2]
        ends = (f"  # {scaffold.DEFAULT}", f"  # {scaffold.EXAMPLE}")
        marks = ("(Default:)", f"({scaffold.EXAMPLE.capitalize()}:)")
        is_marked = line.endswith(ends) or above.endswith(marks)
        assert is_marked or _is_inside_a_text(number), line


def _is_inside_a_text(number: int) -> bool:
    """Whether a line continues the value of a key above it."""
    quotes = "\n".join(LINES[:number]).count('"""')
    return quotes % 2 == 1


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("#seed = 3407", scaffold.DEFAULT),
        ('#revision = "main"', scaffold.EXAMPLE),
        ("#beta = 0.0", scaffold.DEFAULT),
        ("#min_p = 0.05", scaffold.EXAMPLE),
    ],
)
def test_default_and_example_are_what_they_are_called(line, end):
    assert f"{line}  # {end}" in LINES


def test_the_text_says_how_to_read_it_and_is_toml():
    assert "Take away the # to set it." in "\n".join(LINES[:4])
    assert tomli.loads("\n".join(LINES))["model"]["name"] == "me/mine-3B"
