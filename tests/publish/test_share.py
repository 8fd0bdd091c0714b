"""Sharing a run and repeating it with --locked, and kills while a bundle is written."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from r1recipes import recipe
from r1recipes.machine.files import DRAFT
from r1recipes.publish import share
from r1recipes.recipe import bundle
from r1recipes.runs import lock, record
from r1recipes.runs.record import Run
from tests.conftest import SMALL
from tests.helpers import in_process
from tests.training.test_run import comparable

REWARD = """\
def short(completion):
    open("ran-code", "a").close()
    return 1.0 if len(completion) < 40 else 0.0
"""


def rows(count: int, first: int) -> str:
    items = [{"question": f"{n} + {first} = ?", "answer": str(n + first)} for n in range(count)]
    return "".join(json.dumps(item) + "\n" for item in items)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe with data, demonstrations, a template and code of its own."""
    folder = tmp_path / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "train.jsonl").write_text(rows(40, 3))
    demos = [{"question": f"{n} + 1", "completion": f"<answer>{n + 1}</answer>"} for n in range(9)]
    (folder / "shown.jsonl").write_text("".join(json.dumps(demo) + "\n" for demo in demos))
    (folder / "pay.py").write_text(REWARD)
    text = SMALL.replace('"builtin:arithmetic"', '"data/train.jsonl"').replace("size = 64\n", "")
    text = text.replace("[data.problems]\ndigits = 2\n", "").replace("integer", '"pay.py:short"')
    path = folder / "own.toml"
    path.write_text(text.replace("wrong = 0.3", f'data = "{folder}/shown.jsonl"'))
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    return path


def as_bundle(finished: Run, tmp_path: Path) -> Path:
    target = tmp_path / "small.r1.zip"
    share.write(share.of_run(finished).files, target)
    return target


def test_a_shared_run_is_repeated_to_the_bit(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    target, clean = as_bundle(finished, tmp_path), tmp_path / "clean"
    clean.mkdir()
    monkeypatch.chdir(clean)
    code, _, err = in_process("run", target, "--locked")
    assert code == 0, err
    (again,) = record.all_runs(Path("runs"))
    assert comparable(again) == comparable(finished)
    assert again.read()["evaluation"] == finished.read()["evaluation"]
    assert again.read()["fingerprint"] == finished.read()["fingerprint"]
    for when in ("before", "after"):
        assert again.evaluation(when).read_bytes() == finished.evaluation(when).read_bytes()
    source = again.read_lock()["source"]
    assert source["reference"] == "small.r1.zip" and f"sha256 {source['sha256'][:16]}" in err
    assert sorted(path.name for path in clean.iterdir()) == ["runs"]


def test_files_and_code_travel_and_run_only_when_allowed(own, tmp_path, monkeypatch):
    monkeypatch.chdir(own.parent)
    code, _, err = in_process("run", own, "--allow-code", "--force")
    assert code == 0, err
    assert "--allow-code lets this run" in err and "| def short" not in err
    (run,) = record.all_runs(Path("runs").absolute())
    code, _, err = in_process("share", run.folder, "--to", tmp_path / "own")
    assert code == 0, err
    clean = tmp_path / "clean"
    clean.mkdir()
    monkeypatch.chdir(clean)
    code, _, err = in_process("run", tmp_path / "own", "--locked")
    assert code == 2 and "runs only with --allow-code" in err and list(clean.iterdir()) == []
    code, _, err = in_process("run", tmp_path / "own", "--locked", "--allow-code", "--force")
    assert code == 0 and "| def short" in err and "sha256" in err, err
    (again,) = record.all_runs(Path("runs"))
    assert comparable(again) == comparable(run)
    assert again.read_lock()["files"].keys() == {"data/train.jsonl", "shown.jsonl", "pay.py"}


def test_every_difference_from_the_lock_is_listed(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    files = share.of_run(finished).files
    locked = json.loads(files["lock.json"])
    locked["versions"] |= {"torch": "1.0", "vllm": "0.1"}
    locked["machine"]["gpu"] = "NVIDIA X"
    files["lock.json"] = json.dumps(locked).encode()
    share.write(files, tmp_path / "x.r1.zip")
    code, _, err = in_process("run", "x.r1.zip", "--locked", "--set", "seed=2")
    assert code == 2
    for line in ("torch: 1.0 in the lock", "vllm: 0.1 in the lock, absent here", "NVIDIA X"):
        assert line in err
    assert "fingerprint: " in err and "the seed: 1 in the lock, 2 here" in err and "5 errors" in err


def test_revisions_data_and_code_are_compared(finished):
    locked = lock.read(share.of_run(finished).files["lock.json"], "")
    today = lock.Lock.model_dump(locked)
    assert lock.differences(locked, today) == []
    changed = locked.model_copy(update={"files": {"pay.py": "a" * 64}})
    (line,) = lock.differences(changed, today)
    assert line == f"file pay.py: {'a' * 12} in the lock, absent here"
    assert lock.input_differences(locked, locked.inputs, None) == []
    moved = locked.model_copy(update={"data_revision": "b" * 40})
    lines = lock.input_differences(moved, locked.inputs | {"the data": "c" * 64}, "d" * 40)
    assert [line.split(":")[0] for line in lines] == ["the data", "the data's commit"]


def test_a_bundle_is_the_same_bytes_each_time(finished, tmp_path):
    files = share.of_run(finished).files
    assert bundle.pack(files) == bundle.pack(dict(reversed(files.items())))
    assert bundle.unpack(bundle.pack(files), "") == files
    proof = {"lock.json", "metrics.jsonl", "record.json", "report.html"}
    assert set(files) == proof | {"README.md", "recipe.toml"}


def test_what_cannot_be_shared(finished, own, tmp_path):
    (tmp_path / "model").mkdir()
    own.write_text(own.read_text().replace("builtin:tiny", f"{tmp_path}/model"))
    code, _, err = in_process("share", own, "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "`model.name` names" in err and "put them on the Hub" in err
    (tmp_path / "x.r1.zip").write_text("notes of mine")
    code, _, err = in_process("share", "tiny", "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "exists and is not a bundle" in err
    assert (tmp_path / "x.r1.zip").read_text() == "notes of mine"
    for target, reason in ((tmp_path / "model", "exists"), ("x.zip", "it ends in .r1.zip")):
        code, _, err = in_process("share", "tiny", "--to", target)
        assert code == 2 and reason in err
    code, _, err = in_process("share", "tiny", "--to", "/proc/nowhere/x.r1.zip")
    assert code == 2 and "cannot be written" in err and "--to" in err


def test_a_bundle_is_replaced_only_when_that_is_meant(small, tmp_path):
    target = tmp_path / "x.r1.zip"
    share.write({"recipe.toml": b"x"}, target)
    old = target.read_bytes()
    code, _, err = in_process("share", small, "--to", target)
    assert code == 2 and "exists" in err and "`--force` replaces it" in err
    assert target.read_bytes() == old
    assert in_process("share", small, "--to", target, "--force")[0] == 0
    assert target.read_bytes() != old


def test_a_run_folder_cannot_name_files_of_this_machine(finished, tmp_path):
    """A run folder from elsewhere, whose plan would take a file along that is nobody's business."""
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "secret.jsonl").write_text(rows(9, 1))
    name = str(tmp_path / "secret.jsonl")
    for path in (finished.lock, finished.record, finished.recipe):
        (folder / path.name).write_bytes(path.read_bytes())
    plan = json.loads(finished.resolved.read_text())
    plan["recipe"]["data"] |= {"name": name, "size": None, "problems": None}
    plan["recipe"]["cold_start"] |= {"data": name, "wrong": 0.0}
    (folder / "resolved.json").write_text(json.dumps(plan))
    text = SMALL.replace("builtin:arithmetic", name).replace("[data.problems]\ndigits = 2\n", "")
    (folder / "recipe.toml").write_text(text.replace("wrong = 0.3", f'data = "{name}"'))
    code, _, err = in_process("share", folder, "--to", tmp_path / "x.r1.zip")
    assert code == 2 and "is not what this run read" in err
    assert not (tmp_path / "x.r1.zip").exists()


def test_files_of_the_same_name_stay_apart(own, tmp_path):
    (tmp_path / "train.jsonl").write_text(rows(9, 5))
    (own.parent / "train.jsonl").write_text(rows(9, 7))
    text = own.read_text().replace('"data/train.jsonl"', f'"{tmp_path}/train.jsonl"')
    own.write_text(text.replace("eval_size", 'eval_split = "train.jsonl"\neval_size'))
    files = share.of_recipe(recipe.load(own)).files
    assert files["train.jsonl"] == rows(9, 5).encode()
    assert files["train-2.jsonl"] == rows(9, 7).encode()
    share.write(files, tmp_path / "x.r1.zip")
    data = recipe.load(tmp_path / "x.r1.zip").recipe.data
    assert (data.name, data.eval_split) == ("train.jsonl", "train-2.jsonl")


def test_a_recipe_is_shared_and_copied(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = in_process("share", own, "--to", "own.r1.zip")
    assert code == 0 and "pay.py" in out
    assert str(tmp_path).encode() not in Path("own.r1.zip").read_bytes()
    code, _, err = in_process("copy", "own.r1.zip", "other/copy.toml")
    assert code == 2 and "only with --allow-code" in err and not Path("other").exists()
    code, out, err = in_process("copy", "own.r1.zip", "other/copy.toml", "--allow-code")
    assert code == 0 and "| def short(completion):" in err, err
    assert Path("other/pay.py").read_text() == REWARD
    assert Path("other/data/train.jsonl").read_text() == rows(40, 3)
    assert in_process("check", "other/copy.toml")[0] == 0
    code, _, err = in_process("copy", "own.r1.zip", "other/copy.toml", "--allow-code")
    assert code == 2 and "exists" in err
    assert in_process("copy", "tiny", "mine/tiny.toml")[0] == 0
    assert not Path("ran-code").exists()


def test_trackers_and_exports_are_the_sharers_own(small, tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    section = '\n[track]\ntensorboard = true\nwandb = { project = "x", entity = "mine" }\n'
    small.write_text(f'{SMALL}{section}\n[export]\nto = ["gguf:q8_0"]\n')
    target = tmp_path / "small.r1.zip"
    assert in_process("share", small, "--to", target)[0] == 0
    taken = recipe.load(target)
    assert taken.recipe.track.names() == [] and "mine" not in taken.text
    assert taken.recipe.export.to == [] and "gguf" not in taken.text
    assert recipe.fingerprint(taken.recipe) == recipe.fingerprint(recipe.load(small).recipe)


def test_a_recipe_from_elsewhere_has_only_the_trackers_of_the_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    for name, asked in {"project": '{ entity = "theirs" }', "empty": "{}"}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.toml").write_text(f"{SMALL}\n[track]\nwandb = {asked}\n")
        flags = ["--set", 'track.wandb.mode="offline"', "--set", "track.tensorboard=true"]
        for overrides in ([], flags if name == "project" else flags[2:]):
            code, _, err = in_process("show", folder, *overrides)
            assert code == 2 and "may not ask for [track]" in err and "track={}" in err
        assert in_process("show", folder, "--set", "track={}")[0] == 0
        code, out, _ = in_process("show", folder, "--set", "track={}", *flags[2:])
        assert code == 0 and "theirs" not in out and "tensorboard = true" in out


def test_a_recipe_from_elsewhere_exports_only_what_the_flags_say(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "recipe.toml").write_text(f'{SMALL}\n[export]\nto = ["lora"]\n')
    code, _, err = in_process("check", tmp_path / "theirs")
    assert code == 2 and "may not ask for [export]" in err
    code, out, _ = in_process("show", tmp_path / "theirs", "--set", 'export.to=["ollama"]')
    assert code == 0 and "ollama" in out and 'lora"' not in out


def test_the_name_in_a_lock_stays_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("../../x", "/etc/x", "a/b", ".hidden", "x" * 300, 5, "a\n"):
        files = {"recipe.toml": SMALL.encode(), "lock.json": json.dumps({"recipe": name}).encode()}
        share.write(files, tmp_path / "good.r1.zip", overwrite=True)
        assert recipe.load(tmp_path / "good.r1.zip").name == "good"


def test_code_is_shown_without_its_tricks(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (own.parent / "pay.py").write_text(REWARD + "# \x1b[8mhidden\x1b[0m \u202egnihton\n")
    assert in_process("share", own, "--to", "own.r1.zip")[0] == 0
    _, _, err = in_process("copy", "own.r1.zip", "other/copy.toml", "--allow-code")
    assert "\\U0000001b[8mhidden" in err and "\x1b" not in err and "\u202e" not in err


def test_a_changed_cache_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    share.write({"recipe.toml": SMALL.encode()}, tmp_path / "x.r1.zip")
    first = recipe.load(tmp_path / "x.r1.zip")
    first.path.write_text(SMALL.replace("seed = 1", "seed = 2"))
    assert recipe.load(tmp_path / "x.r1.zip").recipe.seed == 1


@pytest.mark.parametrize("kind", ["file", "new folder"])
def test_a_kill_leaves_the_old_or_the_new(kind, tmp_path):
    """SIGKILL at 6 moments of a loop that writes a bundle over an older one."""
    target = tmp_path / ("x.r1.zip" if kind == "file" else "x")
    script = (
        "import itertools, sys; from pathlib import Path; from r1recipes.publish import share\n"
        "for n in itertools.count():\n"
        "    name = sys.argv[1] + ('' if sys.argv[1].endswith('.zip') else str(n))\n"
        "    files = {'recipe.toml': b'x%d' % n, 'metrics.jsonl': b'%d' % n * 10**6}\n"
        "    share.write(files, Path(name), overwrite=True)\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, env=os.environ
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        names = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
        assert names
        for path in names:
            if kind == "file":
                files = bundle.unpack(path.read_bytes(), "")
            else:
                files = {file.name: file.read_bytes() for file in path.iterdir()}
            number = files["recipe.toml"][1:]
            assert files["metrics.jsonl"] == number * 10**6
        if kind == "new folder":
            for path in names:
                path.rename(tmp_path / f".seen{time.monotonic_ns()}")
    share.write({"recipe.toml": b"x"}, target, overwrite=True)
    assert not list(tmp_path.glob(f"{DRAFT}*"))
