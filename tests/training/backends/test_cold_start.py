"""The cold start in a process of its own: its arguments, its progress, and how it fails."""

from r1recipes import data, planning, recipe
from r1recipes.data.splits import demonstrations
from r1recipes.training.backends import builtin
from r1recipes.training.backends.base import Hooks
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
    rows = demonstrations(loaded, tmp_path, 2 * 16, held_out=splits.held_out)
    progress: list[tuple[int, int]] = []
    hooks = Hooks(on_progress=lambda done, total: progress.append((done, total)))
    with HubServer() as hub:
        commit = hub.commit("models/me/base", base_model(tmp_path / "source"))
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        base = tmp_path / "base"
        began_with = cold_start.in_child(plan, TEMPLATE, rows, base, hooks, offline=False)
    assert began_with == commit and progress == [(1, 2), (2, 2)]
    assert (base / "chat_template.jinja").read_text() == TEMPLATE
    assert (base / "model.safetensors").exists()


def base_model(folder) -> dict[str, bytes]:
    """The files of a model whose tokenizer has no chat template."""
    tokenizer = builtin.build_tokenizer()
    tokenizer.chat_template = None
    builtin.build_model(1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}
