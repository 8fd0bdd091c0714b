"""Names that no file can have, special files anywhere in a run, links in a cache, long lists."""

import os
import re
import shutil
from pathlib import Path

import pytest

from r1recipes import data, recipe
from r1recipes.data import preflight
from r1recipes.errors import MAX_PROBLEMS, RecipeError
from r1recipes.recipe import bundle, fetch
from tests.data.test_special_files import a_socket
from tests.helpers import answered_in_time, in_process
from tests.system import test_hostile_runs
from tests.system.test_hostile import DATA, WITH_FILES
from tests.system.test_hostile_runs import assert_refused

run, unpacked = test_hostile_runs.run, test_hostile_runs.unpacked
LONG = ("x" * 300, "x" * 5000, "a/" * 3000 + "x")
COMMANDS = {
    "check": ["check", "NAME"],
    "show": ["show", "NAME"],
    "run": ["run", "NAME"],
    "resume": ["run", "--resume", "NAME"],
    "finish": ["run", "--finish", "NAME"],
    "a folder for a run": ["run", "tiny", "--run-dir", "NAME"],
    "report": ["report", "NAME"],
    "a page": ["report", "RUN", "--out", "NAME"],
    "compare": ["compare", "NAME", "RUN"],
    "clean": ["clean", "NAME", "--yes"],
    "share": ["share", "NAME"],
    "a bundle": ["share", "RUN", "--to", "NAME.r1.zip"],
    "export": ["export", "NAME", "--to", "lora"],
    "a folder for an export": ["export", "RUN", "--to", "lora", "--out", "NAME", "--offline"],
    "ask": ["ask", "NAME", "hi"],
    "eval": ["eval", "NAME"],
    "grade": ["grade", "tiny", "NAME"],
    "study": ["study", "NAME"],
    "sweep": ["sweep", "NAME"],
    "copy": ["copy", "tiny", "NAME"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", LONG, ids=["300", "5000", "path"])
def test_a_name_that_is_too_long_is_one_line(run, command, name):
    words = [word.replace("NAME", name) for word in COMMANDS[command]]
    words = [str(run) if word == "RUN" else word for word in words]
    with answered_in_time():
        code, _, err = in_process(*words)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and len(lines[0]) < 700, (code, err)
    assert "Traceback" not in err


SPECIAL = ("recipe.toml", "report.html", "adapter/README.md", "adapter/x", "base/x", "stages")


@pytest.mark.parametrize("kind", ["pipe", "socket"])
@pytest.mark.parametrize("place", SPECIAL)
@pytest.mark.parametrize("command", ["export", "share", "ask", "resume"])
def test_a_special_file_anywhere_in_a_run_is_refused(run, place, kind, command):
    path = run / place
    path.unlink(missing_ok=True)
    os.mkfifo(path) if kind == "pipe" else a_socket(path)
    words = {
        "export": ["export", run, "--to", "lora", "--out", "out", "--offline"],
        "share": ["share", run, "--to", "out.r1.zip"],
        "ask": ["ask", run, "hi", "--offline"],
        "resume": ["run", "--resume", run, "--offline"],
    }
    assert place in assert_refused(*words[command])


@pytest.mark.parametrize("name", ["checkpoints", "adapter", "base"])
def test_a_file_in_place_of_a_folder_of_a_run_is_refused(run, name):
    shutil.rmtree(run / name)
    (run / name).write_text("x")
    assert name in assert_refused("ask", run, "hi", "--offline")
    code, out, _ = in_process("list", "runs")
    assert code == 0 and "old/complete" in out


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    text = WITH_FILES.replace(DATA, 'name = "rows.jsonl"').encode()
    rows = b'{"question": "1+1", "answer": "2", "completion": "2"}\n' * 9
    files = {"recipe.toml": text, "shown.jsonl": rows, "rows.jsonl": rows}
    Path("good.r1.zip").write_bytes(bundle.pack(files))
    (tmp_path / "outside").mkdir()
    return tmp_path / "cache"


def test_no_link_in_the_cache_is_followed_and_those_to_it_are(cache, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    cache.symlink_to("elsewhere")  # the user's own: a larger disk, say
    source = fetch.get("good.r1.zip")
    folder = tmp_path / "elsewhere" / "recipes" / source.sha256
    assert folder.is_dir()
    before = (folder / "rows.jsonl").read_bytes()
    (tmp_path / "outside" / "rows.jsonl").write_bytes(before)
    (folder / "rows.jsonl").unlink()
    (folder / "rows.jsonl").symlink_to(tmp_path / "outside" / "rows.jsonl")
    again = fetch.get("good.r1.zip")  # it is not whole, so it is written anew
    assert not (again.folder / "rows.jsonl").is_symlink()
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path / "outside")
    again = fetch.get("good.r1.zip")
    assert not folder.is_symlink() and (again.folder / "recipe.toml").is_file()
    assert os.listdir(tmp_path / "outside") == ["rows.jsonl"]


@pytest.mark.parametrize("kind", ["pipe", "link", "socket", "text"])
def test_a_note_in_the_cache_that_is_no_plain_file_is_not_read(cache, kind):
    path = cache / "note"
    cache.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/dev/zero")
        case "socket":
            a_socket(path)
        case "text":
            path.write_text("[" * 100_000)
    with answered_in_time(1.0):
        assert fetch._read_entry(path) is None


def test_of_nine_thousand_presets_ten_get_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    presets = "".join(f"[preset.p{number}]\nx = 1\n" for number in range(9000))
    Path("r.toml").write_text(WITH_FILES.replace(DATA, 'name = "rows.jsonl"') + presets)
    with answered_in_time():
        code, out, err = in_process("check", "r.toml")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and not out and len(lines) == MAX_PROBLEMS + 1
    assert "more problems" in lines[-1] and all(len(line) < 700 for line in lines)


def rows(tmp_path: Path, lines: str, **prompt: str) -> recipe.Loaded:
    (tmp_path / "rows.jsonl").write_text(lines)
    text = WITH_FILES.replace(DATA, 'name = "rows.jsonl"')
    if prompt:
        text = re.sub(r"(?m)^system = .*$", f'system = "{prompt["system"]}"', text)
    (tmp_path / "r.toml").write_text(text)
    return recipe.load(tmp_path / "r.toml")


def test_long_answers_are_counted_and_not_read(tmp_path):
    lines = [f'{{"question": "q{n}", "answer": "{"9" * 3_900_000}"}}\n' for n in range(16)]
    loaded = rows(tmp_path, "".join(lines))
    with answered_in_time(), pytest.raises(RecipeError, match="more than 100,000 char.* in 16 of"):
        data.load(loaded.recipe, tmp_path)


@pytest.mark.parametrize("form", ["words", "9, 9", "x + 9", "\\\\boxed{9} "])
def test_many_long_answers_are_read_in_time(tmp_path, form):
    """Their form is known by some of them; the others are read when they are compared."""
    lines = [
        f'{{"question": "q{n}", "answer": "{n}{form * (1000 // len(form))}"}}\n'
        for n in range(9999)
    ]
    loaded = rows(tmp_path, "".join(lines))
    with answered_in_time():
        column = preflight.answer_column(data.load(loaded.recipe, tmp_path))
        assert "references" in column.summary


def test_equal_rows_are_refused_at_once(tmp_path):
    loaded = rows(tmp_path, '{"question": "q", "answer": "1"}\n' * 290_000)
    with answered_in_time(), pytest.raises(RecipeError, match="1 different question"):
        data.load(loaded.recipe, tmp_path)


def test_a_long_system_message_is_refused_and_one_in_many_prompts_too(tmp_path):
    with pytest.raises(RecipeError, match=r"prompt.system|`system`"):
        rows(tmp_path, "", system="x" * 900_000)
    lines = "".join(f'{{"question": "q{n}", "answer": "1"}}\n' for n in range(20_000))
    (tmp_path / "r.toml").unlink()
    loaded = rows(tmp_path, lines, system="x" * 19_000)
    whole = loaded.recipe.model_copy(
        update={"data": loaded.recipe.data.model_copy(update={"size": None})}
    )
    with answered_in_time(), pytest.raises(RecipeError, match="most of them `prompt.system`"):
        data.load(whole, tmp_path)
