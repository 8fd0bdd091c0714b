"""Run folders from elsewhere: damaged, hostile or with links, each answered in one clear line.

Every case is a whole run of version 0.1.0 with one thing changed. Nothing outside is read into an
output or written, no code runs, and `list runs` shows the other runs.
"""

import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import in_process

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "version-0.1.0.tar.xz"
FOLDER = "/home/u/r1"
SECRET = "zq-secret-zq"
Change = Callable[[Path], object]


class Boom:
    def __reduce__(self):
        return os.system, ("touch ran-code",)


def content(name: str, text: str | bytes) -> Change:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda run: (run / name).write_bytes(data)


def keys(name: str, **changes: Any) -> Change:
    """Change keys of a JSON file; a `__` in a name leads into an object."""

    def change(run: Path) -> None:
        data = json.loads((run / name).read_text())
        for path, value in changes.items():
            *folders, last = path.split("__")
            part = data
            for folder in folders:
                part = part[folder]
            if value is DROPPED:
                del part[last]
            else:
                part[last] = value
        (run / name).write_text(json.dumps(data))

    return change


def line(name: str, **changes: Any) -> Change:
    """Change keys of the first line of a file of JSON lines."""

    def change(run: Path) -> None:
        first, *rest = (run / name).read_text().splitlines()
        row = {k: v for k, v in (json.loads(first) | changes).items() if v is not DROPPED}
        (run / name).write_text("\n".join([json.dumps(row), *rest]) + "\n")

    return change


def link(name: str, to: str = "../../../secret") -> Change:
    def change(run: Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(to)

    return change


def pipe(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return change


def folder(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return change


def pickled(place: str, name: str, gone: str) -> Change:
    """Pickled weights that run code, in place of the safetensors."""

    def change(run: Path) -> None:
        (run / place / gone).unlink()
        (run / place / name).write_bytes(pickle.dumps(Boom()))

    return change


DROPPED = object()
DEEP = "[" * 100_000
HUGE = "1" + "0" * 400
LONG = "9" * 5000
RECORD, LOCK, PLAN, METRICS = "record.json", "lock.json", "resolved.json", "metrics.jsonl"
AFTER, SHOWN = "evaluation-after.jsonl", "completions.jsonl"

REPORTED: dict[str, Change] = {
    "an empty record": content(RECORD, ""),
    "a record that is a list": content(RECORD, "[]"),
    "a record that is a number": content(RECORD, "5"),
    "a deep record": content(RECORD, DEEP),
    "a record deep within": content(RECORD, '{"status": ' + "[" * 900 + "]" * 900 + "}"),
    "a record of bytes": content(RECORD, b"\xff\xfe\x00" * 99),
    "a record with a long number": content(
        RECORD, '{"status": "complete", "attempts": ' + LONG + "}"
    ),
    "a record with half a character": keys(RECORD, recipe="a\ud800b"),
    "a large record": content(RECORD, '{"status": "' + "x" * 20_000_000 + '"}'),
    "a record of millions of values": content(RECORD, '{"a": [' + "0," * 5_000_000 + "0]}"),
    "no status": keys(RECORD, status=DROPPED),
    "an unknown status": keys(RECORD, status="\x1b[2Jdone"),
    "a status that is a list": keys(RECORD, status=["complete"]),
    "a recipe that is a number": keys(RECORD, recipe=5),
    "a fingerprint that is a path": keys(RECORD, fingerprint="../../x"),
    "times that are a text": keys(RECORD, duration_s="long"),
    "a time that is a text": keys(RECORD, duration_s={"train": "long"}),
    "a time below zero": keys(RECORD, duration_s={"train": -5}),
    "a time of 10^400": content(
        RECORD, '{"status": "complete", "duration_s": {"a": ' + HUGE + "}}"
    ),
    "a time that is no number": keys(RECORD, duration_s={"train": float("nan")}),
    "an endless time": keys(RECORD, duration_s={"train": float("inf")}),
    "an evaluation that is a list": keys(RECORD, evaluation=[]),
    "an evaluation that is a number": keys(RECORD, evaluation__before=1),
    "an accuracy that is a text": keys(RECORD, evaluation__after__accuracy="all"),
    "an accuracy of 1000 %": keys(RECORD, evaluation__after__accuracy=10.0),
    "an accuracy that is true": keys(RECORD, evaluation__after__accuracy=True),
    "an accuracy of 10^300": keys(RECORD, evaluation__before__accuracy=1e300),
    "an interval of three": keys(RECORD, evaluation__after__interval=[0, 0, 1]),
    "an interval of texts": keys(RECORD, evaluation__after__interval=["a", "b"]),
    "no difference": keys(RECORD, evaluation__difference=DROPPED),
    "a difference that is null": keys(RECORD, evaluation__difference={"mean": None, "interval": 0}),
    "no problems": keys(RECORD, evaluation__after__num_problems=0),
    "a part of the time that is a list": keys(RECORD, time={"total": [1]}),
    "no whole time": keys(RECORD, time={"imports": 1.0}),
    "memory that is a text": keys(RECORD, vram={"measured_bytes": "all"}),
    "an error that is a list": keys(RECORD, status="failed", error=["x"]),
    "pass rates without a rate": keys(RECORD, pass_rates={"num_kept": 1}),
    "pass rates with a text": keys(RECORD, pass_rates={"low": "a", "high": 1, "num_kept": 2}),
    "a step that is a text": keys(RECORD, stopped_at_step="five"),
    "a plan that is a list": content(PLAN, "[]"),
    "a deep plan": content(PLAN, DEEP),
    "a recipe in the plan that is a text": keys(PLAN, recipe="x"),
    "steps in the plan that are a list": keys(PLAN, recipe__train__max_steps=[1]),
    "weights in the plan that are texts": keys(PLAN, recipe__rewards={"correctness": "all"}),
    "a preset that is a list": keys(PLAN, preset=[1]),
    "a lock that is a list": content(LOCK, "[]"),
    "versions that are a list": keys(LOCK, versions=["torch"]),
    "overrides that are numbers": keys(LOCK, overrides=[1]),
    "a machine that is a text": keys(LOCK, machine="mine"),
    "metrics that are a list": content(METRICS, "[]\n"),
    "deep metrics": content(METRICS, DEEP + "\n"),
    "metrics without a step": line(METRICS, step=DROPPED),
    "a step in the metrics that is a text": line(METRICS, step="one"),
    "a reward that is a text": line(METRICS, reward="high"),
    "a reward that is a list": line(METRICS, reward=[1]),
    "a reward of 10^400": content(METRICS, '{"step": 1, "reward": ' + HUGE + "}\n"),
    "a reward of 10^308": line(METRICS, reward=1e308),
    "failures that are a list": line(METRICS, reward_failures=["x"]),
    "a line of 5 MB": content(METRICS, '{"step": 1, "x": "' + "x" * 5_000_000 + '"}\n'),
    "millions of lines": content(METRICS, '{"step": 1}\n' * 2_000_000),
    "metrics of 70 MB": content(METRICS, b"\n" * 70_000_000),
    "answers without samples": line(AFTER, samples=DROPPED),
    "samples that are a text": line(AFTER, samples="none"),
    "a sample that is null": line(AFTER, samples=[None]),
    "a greedy answer that is a list": line(AFTER, greedy=[]),
    "a question that is a number": line(AFTER, question=5),
    "a completion without rewards": line(SHOWN, rewards=DROPPED),
    "rewards that are texts": line(SHOWN, rewards={"correctness": "all"}),
    "a report that is a link": link("report.html"),
    "a record that is a link": link(RECORD),
    "a lock that is a link": link(LOCK),
    "a plan that is a link": link(PLAN),
    "metrics that are a link": link(METRICS),
    "answers that are a link": link(AFTER),
    "a recipe that is a link": link("recipe.toml"),
    "metrics that are a pipe": pipe(METRICS),
    "metrics that are a folder": folder(METRICS),
    "metrics that are a device": link(METRICS, "/dev/zero"),
}
"""Things that the page of a run is made from."""

TRAINED: dict[str, Change] = {
    "a pickled adapter": pickled("adapter", "adapter_model.bin", "adapter_model.safetensors"),
    "a pickled base": pickled("base", "pytorch_model.bin", "model.safetensors"),
    "code beside the base": keys("base/config.json", auto_map={"AutoModel": "evil.Model"}),
    "code beside the tokenizer": keys(
        "adapter/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}
    ),
    "a module in the adapter": keys("adapter/adapter_config.json", megatron_core="evil"),
    "a module of Megatron": keys("adapter/adapter_config.json", megatron_config={"a": 1}),
    "an adapter's configuration that is a list": content("adapter/adapter_config.json", "[]"),
    "a deep configuration of the base": content("base/config.json", DEEP),
    "a log that is a link": link("train.log"),
    "an owner that is a link": link(".owner"),
    "an adapter that is a link": link("adapter", "../../../elsewhere"),
    "a base that is a link": link("base", "../../../elsewhere"),
    "weights that are a link": link("adapter/adapter_model.safetensors"),
    "a template that is a link": link("adapter/chat_template.jinja"),
    "a template of 20 MB": content(
        "adapter/chat_template.jinja", "{{ messages }}" + "x" * 20_000_000
    ),
    "checkpoints that are a link": link("checkpoints", "../../../elsewhere"),
    "a plan of another version": keys(PLAN, backend="gpu"),
    "a plan without a preset": keys(PLAN, preset=DROPPED),
    "a plan with a wrong recipe": keys(PLAN, recipe__seed="x"),
    "no fingerprint": keys(RECORD, fingerprint=DROPPED),
    "no recipe's name": keys(RECORD, recipe=DROPPED),
    "no evaluation": keys(RECORD, evaluation=DROPPED),
    "an empty lock": content(LOCK, "{}"),
    "a commit that is a path": keys(LOCK, model_revision="../../x"),
}
"""Things that only commands on the weights, or that share a run, look at."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder)  # no `filter`: Python 3.11.3 and older do not know it
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".toml", ".jsonl", ".log"):
            path.write_text(path.read_text().replace(FOLDER, str(folder)))
    return folder / "runs" / "old"


@pytest.fixture
def run(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole run, and another one beside it, below the current folder."""
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text(SECRET)
    for name in ("complete", "stopped"):
        shutil.copytree(unpacked / name, tmp_path / "runs" / "old" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "runs" / "old" / "complete"


def outside(place: Path) -> dict[str, bytes]:
    """Every file that is not of the run, with its content."""
    paths = [p for p in place.rglob("*") if p.is_file() and not p.is_symlink()]
    return {str(p): p.read_bytes() for p in paths if "complete" not in p.parts}


def assert_refused(*command: object) -> str:
    before = outside(Path.cwd())
    code, out, err = in_process(*command)
    lines = [text for text in err.splitlines() if not text.startswith("  hint:")]
    assert code == 2 and not out, (command, code, out, err)
    assert len(lines) == 1 and lines[0].startswith("error: "), err
    assert len(lines[0]) < 700 and lines[0].isprintable() and SECRET not in err
    assert outside(Path.cwd()) == before
    return lines[0]


@pytest.mark.parametrize("name", REPORTED)
def test_no_page_of_a_hostile_run(run, name):
    REPORTED[name](run)
    text = assert_refused("report", run)
    assert run.name in text
    code, out, err = in_process("list", "runs")
    assert code == 0 and "old/stopped" in out and "\x1b" not in out + err
    assert all(len(one) < 900 and one.isprintable() for one in (out + err).splitlines())


OF_WEIGHTS = ("a pickled", "code", "a module", "an adapter's", "a deep", "a template of")
"""How the names of cases begin that `share` is free of: it takes nothing of the weights."""
SHARED = [name for name in TRAINED if not name.startswith(OF_WEIGHTS)]


@pytest.mark.parametrize(
    ("command", "name"),
    [*(("export", name) for name in TRAINED), *(("share", name) for name in SHARED)],
)
def test_no_weights_of_a_hostile_run_are_loaded(run, name, command):
    TRAINED[name](run)
    if command == "share":
        assert_refused("share", run, "--to", "out.r1.zip")
    else:
        assert_refused("export", run, "--to", "lora", "--out", "out", "--offline")
    assert not Path("ran-code").exists() and not Path("out").exists()


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\u202eb", "a\u200bb", "a\nb", "x" * 250])
def test_the_name_of_a_folder_reaches_no_terminal(run, name):
    os.rename(run, run.parent / name)
    code, out, err = in_process("list", "runs")
    assert code == 0 and not err
    assert len(out.splitlines()) == 3 and all(one.isprintable() for one in out.splitlines())


def test_an_untouched_run_is_fine(run):
    assert in_process("report", run)[0] == 0
    assert in_process("share", run, "--to", "out.r1.zip")[0] == 0
    code, _, err = in_process("export", run, "--to", "lora", "--out", "out", "--offline")
    assert code == 0, err
