"""Which run a name stands for: a folder, a recipe, a piece of an id."""

import json
from pathlib import Path

import pytest

from r1recipes.errors import RecipeError
from r1recipes.runs.record import names
from tests.helpers import hint, in_process

IDS = ("20261124T080000Z-aaaa1111", "20261125T080000Z-aaaa1111", "20261126T080000Z-bbbb2222")
NEWEST = f"runs/tiny/{IDS[2]}"


def run_folder(parent: Path, recipe: str, run_id: str, **record: object) -> Path:
    folder = parent / run_id
    folder.mkdir(parents=True)
    written = {"status": "complete", "recipe": recipe, "started": run_id[:15], **record}
    (folder / "record.json").write_text(json.dumps(written))
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """Three runs of `tiny`, one of `small`, and a trial of a study of `tiny`, newer than all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", "runs")
    for run_id in IDS:
        run_folder(Path("runs/tiny"), "tiny", run_id)
    run_folder(Path("runs/small"), "small", "20261123T080000Z-cccc3333")
    run_folder(Path("runs/rates"), "tiny", "0001-dddd4444", started="2027", study={"name": "rates"})
    (tmp_path / "runs/rates/study.db").touch()
    return Path("runs")


@pytest.mark.parametrize(
    ("name", "folder", "reason"),
    [
        (f"runs/tiny/{IDS[0]}", f"tiny/{IDS[0]}", None),
        (f"tiny/{IDS[0]}", f"tiny/{IDS[0]}", None),
        ("tiny", f"tiny/{IDS[2]}", "the newest of 3 runs of tiny"),
        ("runs/tiny/", f"tiny/{IDS[2]}", "the newest of 3 runs of tiny"),
        ("recipes/tiny.toml", f"tiny/{IDS[2]}", "the newest of 3 runs of tiny"),
        ("small", "small/20261123T080000Z-cccc3333", "the only run of small"),
        ("bbbb", f"tiny/{IDS[2]}", "the only run with `bbbb` in its name"),
        ("20261125T", f"tiny/{IDS[1]}", "the only run with `20261125T` in its name"),
        ("tiny/20261124", f"tiny/{IDS[0]}", "the only run with `tiny/20261124` in its name"),
        ("dddd4444", "rates/0001-dddd4444", "the only run with `dddd4444` in its name"),
    ],
)
def test_a_name_stands_for_one_run(runs, name, folder, reason):
    named = names.look_up(runs, name)
    assert named.run.folder == runs / folder and named.reason == reason
    assert names.find(runs, name).folder == runs / folder


@pytest.mark.parametrize(
    ("name", "message", "help_with"),
    [
        ("aaaa1111", "is in the names of 2 runs", f"runs/tiny/{IDS[1]}, runs/tiny/{IDS[0]}"),
        ("bbb", "no run folder `bbb`", "the last runs"),  # shorter than a piece may be
        (
            "tyni",
            "no run folder `tyni`",
            f"did you mean `tiny`? Its newest run is runs/tiny/{IDS[2]}",
        ),
        ("phi4", "there is no run of `phi4`", "`r1recipes run phi4` makes one"),
        ("mine.toml", "there is no run of `mine`", "`r1recipes run mine.toml` makes one"),
        ("rates", "holds runs and is none itself", "`r1recipes study rates` shows this study"),
        ("runs", "holds runs and is none itself", "name one of its recipes"),
        ("", "no run folder ``", "the last runs"),
    ],
)
def test_what_stands_for_no_single_run_is_said_with_what_comes_close(
    runs, name, message, help_with
):
    with pytest.raises(RecipeError) as raised:
        names.look_up(runs, name)
    assert message in str(raised.value) and help_with in hint(raised)


def test_a_damaged_folder_hides_no_other(runs):
    (runs / "tiny" / IDS[2] / "record.json").write_text("{")
    assert names.find(runs, "tiny").folder == runs / "tiny" / IDS[1]


@pytest.mark.parametrize(
    "command_line",
    [
        ["ask", "tiny", "1+1"],
        ["chat", "tiny"],
        ["eval", "tiny"],
        ["export", "tiny", "--to", "lora"],
        ["report", "tiny", "--out", "x.html"],
        ["compare", "tiny", "small"],
        ["clean", "tiny"],
        ["grade", "tiny", "tiny"],
        ["share", "tiny"],
    ],
)
def test_every_command_on_a_run_takes_a_recipes_name_and_says_which_run_that_is(runs, command_line):
    """These runs are only records, so most commands then say what is missing."""
    *_, err = in_process(*command_line)
    assert f"tiny: runs/tiny/{IDS[2]}, the newest of 3 runs of tiny\n" in err


def test_resume_of_a_recipe_is_its_newest_run_that_is_not_complete(runs):
    folder = run_folder(runs / "tiny", "tiny", "20261120T080000Z-eeee5555", status="stopped")
    *_, err = in_process("run", "--resume", "tiny")
    assert f"tiny: {folder}, the newest unfinished run" in err


def test_share_takes_a_recipe_where_no_run_has_that_name(runs, tmp_path):
    code, out, _ = in_process("share", "phi4", "--to", "x.r1.zip")
    assert code == 0 and "record.json" not in out
    code, _, err = in_process("share", "aaaa1111")
    assert code == 2 and "is in the names of 2 runs" in err
    code, _, err = in_process("share", "phi5")
    assert code == 2 and "did you mean `phi4`?" in err
