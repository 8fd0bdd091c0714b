"""The cold start in a process of its own: its arguments, its progress, and how it fails."""

from pathlib import Path

from r1recipes import data, planning, recipe
from r1recipes.data.examples import demonstrations
from r1recipes.runs.record.checkpoints import mark_checkpoint, newest_whole
from r1recipes.training.backends import builtin
from r1recipes.training.backends.base import ColdStarted, Hooks
from r1recipes.training.backends.unsloth import cold_start
from tests.conftest import SMALL
from tests.hub_server import HubServer

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def test_a_base_model_of_the_hub_learns_in_the_chat_template_of_the_recipe(tmp_path, monkeypatch):
    text = SMALL.replace('"builtin:tiny"', '"me/base"').replace("steps = 12", "steps = 2")
    (tmp_path / "recipe.toml").write_text(text)
    loaded = recipe.load(tmp_path / "recipe.toml").recipe
    plan = planning.make(loaded, planning.Target.here(None, 1), base_dir=tmp_path)
    splits = data.load(loaded, tmp_path)
    rows = demonstrations.make(loaded, tmp_path, 2 * 16, held_out=splits.held_out)
    progress: list[tuple[int, int]] = []
    hooks = Hooks(on_progress=lambda done, total: progress.append((done, total)))
    with HubServer() as hub:
        commit = hub.commit("models/me/base", base_model(tmp_path / "source"))
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        base = tmp_path / "base"
        end = cold_start.in_child(
            plan, TEMPLATE, rows, base, None, tmp_path / "cold-start", None, hooks, offline=False
        )
    assert end == ColdStarted(commit, True) and progress == [(1, 2), (2, 2)]
    assert (base / "chat_template.jinja").read_text() == TEMPLATE
    assert (base / "model.safetensors").exists()


def test_a_stop_in_the_child_goes_on_to_the_bit(tmp_path):
    """Also where the demonstrations are seen more than once."""
    (tmp_path / "recipe.toml").write_text(SMALL)
    found = recipe.load(tmp_path / "recipe.toml").recipe
    plan = planning.make(found, planning.Target.here(None, 1), base_dir=tmp_path)
    splits = data.load(found, tmp_path)
    rows = demonstrations.make(found, tmp_path, 3 * 16, held_out=splits.held_out)
    template = builtin.CHAT_TEMPLATE
    steps: list[int] = []

    def run(name: str, resume_from: Path | None, stop_at: int) -> ColdStarted:
        steps.clear()
        hooks = Hooks(
            on_progress=lambda done, total: steps.append(done),
            on_step=lambda row, samples: None,
            on_checkpoint=mark_checkpoint,
            should_stop=lambda: bool(steps) and steps[-1] >= stop_at,
        )
        folder, checkpoints = tmp_path / name, tmp_path / f"{name}-checkpoints"
        return cold_start.in_child(
            plan, template, rows, folder, None, checkpoints, resume_from, hooks, offline=True
        )

    assert run("whole", None, 99).is_complete
    assert not run("parts", None, 5).is_complete and not (tmp_path / "parts").exists()
    checkpoint = newest_whole(tmp_path / "parts-checkpoints")
    assert checkpoint is not None and 5 <= checkpoint[1] < 12 and steps[-1] == checkpoint[1]
    assert run("parts", checkpoint[0], 99).is_complete and steps[0] == checkpoint[1] + 1
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def base_model(folder) -> dict[str, bytes]:
    """The files of a model whose tokenizer has no chat template."""
    tokenizer = builtin.build_tokenizer()
    tokenizer.chat_template = None
    builtin.build_model(1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}
