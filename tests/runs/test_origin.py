"""`model.name` as a run or an adapter: what is found, what is refused, what a run makes of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1recipes import recipe, training
from r1recipes.errors import RecipeError
from r1recipes.machine import files, settings
from r1recipes.runs import origin
from r1recipes.runs.record import Run
from r1recipes.runs.record.checkpoints import CHECKPOINT_DONE
from tests.conftest import SMALL
from tests.helpers import command, in_process, quiet_view
from tests.hub_server import HubServer

PLAIN = SMALL[: SMALL.index("[cold_start]")] + SMALL[SMALL.index("[eval]") :]
CONFIG = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "task_type": "CAUSAL_LM"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("R1RECIPES_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "next.toml").write_text(PLAIN)
    return tmp_path / "runs"


@pytest.fixture
def source(finished: Run, runs: Path) -> Run:
    """A complete run whose short name is `small/first`."""
    return Run(Path(shutil.copytree(finished.folder, runs / "small" / "first")))


def found(name: object, runs: Path, **model: Any) -> Any:
    text = PLAIN.replace('name = "builtin:tiny"', f"name = {json.dumps(str(name))}")
    Path("named.toml").write_text(text)
    loaded = recipe.load("named.toml", [f"model.{key}={value}" for key, value in model.items()])
    return origin.of_recipe(loaded, runs)


def adapter(folder: Path, base: str, **changes: Any) -> Path:
    """An adapter in PEFT's format whose weights nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"base_model_name_or_path": base} | changes
    (folder / origin.CONFIG).write_text(json.dumps(config))
    save_file({"w": torch.zeros(1)}, folder / origin.WEIGHTS)
    return folder


def newest(runs: Path, name: str) -> Run:
    (path,) = runs.glob(f"{name}/*/record.json")
    return Run(path.parent)


def greedy(run: Run, when: str) -> list[str]:
    return [row["greedy"]["text"] for row in files.read_lines(run.evaluation(when))]


def test_a_run_starts_from_another_and_needs_it_no_more(source, runs, capfd):
    code, out, err = in_process("check", "next.toml", "--set", "model.name=small/first")
    starts = "starts from run small/first at step 6 of 6, merged into builtin:tiny"
    assert (code, err) == (0, "") and f"ok\n  model.name small/first: {starts}" in out
    code, _, err = in_process("run", "next.toml", "--set", "model.name=small/first")
    assert code == 0, err
    out = capfd.readouterr().out
    assert "starts from run small/first at step 6 of 6, merged into builtin:tiny" in out
    run = newest(runs, "next")
    lock = run.read_lock()["origin"]
    assert (lock["run"], lock["step"], lock["max_steps"]) == ("small/first", 6, 6)
    assert lock["sha256"] == origin.sha256(source.adapter)
    assert run.read_lock()["inputs"]["the adapter that it starts from"] == lock["sha256"]
    assert greedy(run, "before") == greedy(source, "after") != greedy(source, "before")
    assert merged_differs_by_adapter(source, run)
    shutil.rmtree(source.folder)
    shutil.rmtree("cache")
    code, out, err = in_process("ask", run.folder, "12 + 34 = ?", "--max-tokens", "5")
    assert code == 0, err
    assert in_process("eval", run.folder)[0] == 0
    code, _, err = in_process("export", run.folder, "--to", "lora", "--to", "merged_16bit")
    assert code == 0, err
    card = (run.folder / "export" / "lora" / "README.md").read_text()
    assert "base: `builtin:tiny`; starts from run small/first at step 6 of 6" in card
    assert str(runs) not in card and "THIS_FOLDER/base" in card
    code, _, err = in_process("share", run.folder)
    assert code == 2 and "which nobody else has" in err
    code, _, err = in_process("run", "next.toml", "--set", f"model.name={run.folder}")
    assert code == 0, err  # a third one, on the second


def merged_differs_by_adapter(source: Run, run: Run) -> bool:
    base = load_file(source.base / "model.safetensors")
    merged = load_file(run.base / "model.safetensors")
    trained = load_file(source.adapter / origin.WEIGHTS)
    config = json.loads((source.adapter / origin.CONFIG).read_text())
    name = "model.layers.0.self_attn.q_proj"
    a, b = (trained[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    expected = base[f"{name}.weight"] + config["lora_alpha"] / config["r"] * b @ a
    weight = merged[f"{name}.weight"]
    return weight.dtype == torch.float32 and torch.allclose(weight, expected, atol=1e-6)


def test_a_cold_start_begins_with_the_merged_model(source, runs, capfd):
    Path("cold.toml").write_text(SMALL.replace("steps = 12", "steps = 2"))
    warning = "warning: the cold start trains all weights of the merged model"
    assert (
        "trains all weights"
        in in_process("check", "cold.toml", "--set", "model.name=small/first")[2]
    )
    code, _, err = in_process("run", "cold.toml", "--set", "model.name=small/first", "--force")
    assert code == 0 and warning in capfd.readouterr().out, err
    run = newest(runs, "cold")
    (merged,) = Path("cache/merged").glob("base-*")
    started, trained = (load_file(f / "model.safetensors") for f in (merged, run.base))
    moved = max(float((started[n] - trained[n]).abs().max()) for n in started)
    assert 0 < moved < 0.1  # two steps at 3e-3, and not another model


def test_a_run_that_was_stopped_is_taken_at_its_checkpoint(source, runs):
    shutil.rmtree(source.adapter)
    source.update(status="stopped")
    for step in (5, 6):
        shutil.rmtree(source.checkpoints / f"checkpoint-{step}", ignore_errors=True)
    result = found("small/first", runs)
    assert (result.run, result.step, result.max_steps) == ("small/first", 4, 6)
    assert result.adapter == source.checkpoints / "checkpoint-4"
    inner = found(source.checkpoints / "checkpoint-4", runs)
    assert inner == result


def test_an_adapter_is_found_with_its_base(source, runs, tmp_path):
    assert found(source.adapter, runs) == found(source.folder, runs)
    assert in_process("export", source.folder, "--to", "lora", "--out", "out")[0] == 0
    exported = found("out/lora", runs)
    assert exported.base == (tmp_path / "out" / "lora" / "base").absolute()
    assert exported.run is None and exported.tokenizer == str(tmp_path / "out" / "lora")
    assert "starts from adapter lora, merged into base" in exported.sentence()
    on_hub = found(adapter(tmp_path / "mine", "me/base", revision="v1"), runs)
    assert (on_hub.model, on_hub.base, on_hub.revision) == ("me/base", None, "v1")
    assert on_hub.tokenizer == "me/base"
    assert found(tmp_path / "mine", runs, revision="v2").revision == "v2"
    code, _, err = in_process("run", "next.toml", "--set", "model.name=out/lora")
    assert code == 0, err
    assert greedy(newest(runs, "next"), "before") == greedy(source, "after")


def test_the_memory_is_that_of_the_base(runs, tmp_path):
    adapter(tmp_path / "mine", "unsloth/Qwen2.5-1.5B-Instruct")
    line = ("plan", "qwen2.5-1.5b", "--gpu", "t4")
    _, of_base, _ = in_process(*line)
    code, out, err = in_process(*line, "--set", f"model.name={tmp_path}/mine")
    assert code == 0, err
    assert out.splitlines()[2:] == of_base.splitlines()[1:]
    assert "starts from adapter mine, merged into unsloth/Qwen2.5-1.5B-Instruct" in out
    _, text, _ = in_process(*line, "--json", "--set", f"model.name={tmp_path}/mine")
    assert json.loads(text)["origin"]["model"] == "unsloth/Qwen2.5-1.5B-Instruct"


def refused(name: object, runs: Path, **model: Any) -> str:
    with pytest.raises(RecipeError) as raised:
        found(name, runs, **model)
    (problem,) = raised.value.problems
    assert problem.where == "named.toml:6:8" or str(problem.where).startswith("--set ")
    assert problem.hint
    return f"{problem.message} | {problem.hint}"


def test_what_is_no_start_is_refused_with_the_way(source, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "model.gguf").write_text("x")
    assert "neither a model, nor an adapter, nor a run" in refused("empty", runs)
    assert "is a file" in refused("model.gguf", runs)
    assert "of the kind IA3" in refused(adapter(tmp_path / "a", "me/b", peft_type="IA3"), runs)
    (adapter(tmp_path / "b", "me/b") / origin.WEIGHTS).unlink()
    assert f"and no {origin.WEIGHTS}" in refused("b", runs)
    assert "does not name its base" in refused(adapter(tmp_path / "c", ""), runs)
    gone = adapter(tmp_path / "moved", "base")  # an export that was moved without its base
    assert "is not on this machine: `base`" in refused(gone, runs)
    assert "is not on this machine: `/gone/base`" in refused(
        adapter(tmp_path / "d", "/gone/base"), runs
    )
    assert "is an adapter itself" in refused(adapter(tmp_path / "e", str(tmp_path / "d")), runs)
    said = refused(adapter(tmp_path / "f", "unsloth/x-unsloth-bnb-4bit"), runs)
    assert "is quantised" in said and "--base unsloth/x`" in said
    assert "remove `model.revision`" in refused("small/first", runs, revision="main")
    (adapter(tmp_path / "g", "me/b") / origin.CONFIG).write_text("{")
    assert "is damaged" in refused("g", runs)


def test_runs_that_cannot_be_started_from_are_refused(source, runs):
    (source.checkpoints / "checkpoint-4" / CHECKPOINT_DONE).unlink()
    assert "not a whole checkpoint" in refused(source.checkpoints / "checkpoint-4", runs)
    assert in_process("share", source.folder, "--to", "shared")[0] == 0
    assert "a shared run" in refused("shared", runs)
    source.update(status="running")
    shutil.rmtree(source.adapter)
    with source.owned():
        assert "no trained adapter yet" in refused("small/first", runs)
    shutil.rmtree(source.checkpoints)
    assert "no checkpoint" in refused("small/first", runs)
    code, _, err = in_process("plan", "phi4", "--gpu", "t4", "--set", "model.name=small/first")
    assert code == 2 and "no checkpoint" in err and "--set model.name" in err


def test_a_model_stays_a_model(runs, tmp_path, small):
    for name in ("builtin:tiny", "Qwen/Qwen2.5-0.5B-Instruct"):
        assert origin.of_recipe(recipe.load(small, [f"model.name={name}"]), runs) is None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert found("mine", runs) is None
    (runs / "gpt2" / "of-a-recipe").mkdir(parents=True)
    assert found("gpt2", runs) is None


def test_a_recipe_from_elsewhere_starts_from_no_run_of_mine(source, runs, tmp_path):
    (tmp_path / "theirs").mkdir()
    text = PLAIN.replace('"builtin:tiny"', '"small/first"')
    (tmp_path / "theirs" / "recipe.toml").write_text(text)
    assert origin.of_recipe(recipe.load("theirs"), runs) is None
    by_flag = recipe.load("theirs", ["model.name=small/first"])
    assert origin.of_recipe(by_flag, runs) is not None


def test_an_adapter_that_changed_is_not_merged(source, runs, monkeypatch):
    def die(*arguments: object, **options: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("r1recipes.training.stages.run.merged", die)
        with pytest.raises(SystemExit):
            in_process("run", "next.toml", "--set", "model.name=small/first")
    run = newest(runs, "next")
    assert not run.base.exists()
    weights = load_file(source.adapter / origin.WEIGHTS)
    old = (source.adapter / origin.WEIGHTS).read_bytes()
    save_file(
        {name: 2 * weight for name, weight in weights.items()}, source.adapter / origin.WEIGHTS
    )
    machine = settings.load().model_copy(update={"offline": True})
    with pytest.raises(RecipeError, match="changed since this run began"):
        training.resume(run, [quiet_view()], machine)
    (source.adapter / origin.WEIGHTS).write_bytes(old)
    assert training.resume(run, [quiet_view()], machine).read()["status"] == "complete"


def test_another_process_merges_the_same(source, runs, tmp_path):
    from r1recipes.training.backends import merge
    from r1recipes.training.backends.unsloth import cold_start

    start = found("small/first", runs)
    merge.write_origin(start, start.base, tmp_path / "here")
    cold_start.merge_in_child(start, start.base, tmp_path / "there")
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    wrong = start.model_copy(update={"adapter": adapter(tmp_path / "other", "x")})
    with pytest.raises(RuntimeError, match="Error: "):
        cold_start.merge_in_child(wrong, tmp_path / "nowhere", tmp_path / "not")


@pytest.mark.slow
def test_an_adapter_on_the_hub_is_refused_with_the_way(runs, tmp_path):
    made = adapter(tmp_path / "made", "me/base")
    contents = {path.name: path.read_bytes() for path in made.iterdir()}
    with HubServer() as hub:
        hub.commit("models/me/adder", contents)
        environment = hub.environment(tmp_path) | {"R1RECIPES_CACHE_DIR": str(tmp_path / "cache")}
        line = ("--set", "model.name=me/adder")
        for command_line in (("run", "next.toml"), ("plan", "phi4", "--gpu", "t4")):
            done = command(*command_line, *line, cwd=tmp_path, **environment)
            assert done.returncode == 2, done.stderr
            assert "`me/adder` on the Hub is an adapter, not a model" in done.stderr
            assert "hf download me/adder --local-dir adder" in done.stderr
    cached = Path(hub.environment(tmp_path)["HF_HOME"]) / "hub/models--me--adder/snapshots/1"
    cached.mkdir(parents=True)
    (cached / origin.CONFIG).write_text("{}")
    done = command("check", "next.toml", *line, cwd=tmp_path, **environment)
    assert done.returncode == 2 and "hf download me/adder" in done.stderr


def test_what_was_merged_is_cleaned_and_made_again(source, runs):
    assert in_process("run", "next.toml", "--set", "model.name=small/first")[0] == 0
    run = newest(runs, "next")
    code, out, _ = in_process("clean", "--cache", "--yes")
    assert code == 0 and "models with an adapter merged" in out
    assert not list(Path("cache").glob("merged")) and (run.base / "model.safetensors").exists()
