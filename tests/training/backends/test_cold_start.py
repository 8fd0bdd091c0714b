"""The cold start in a process of its own: what it is told, and what it says."""

from r1recipes import data, planning, recipe
from r1recipes.data.splits import demonstrations
from r1recipes.training.backends import builtin
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.unsloth import child
from tests.conftest import SMALL
from tests.hub_server import HubServer

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def test_a_base_model_of_the_hub_learns_in_the_chat_template_of_the_recipe(tmp_path, monkeypatch):
    text = SMALL.replace('"builtin:tiny"', '"me/base"').replace("steps = 12", "steps = 2")
    (tmp_path / "recipe.toml").write_text(text)
    found = recipe.load(tmp_path / "recipe.toml").recipe
    made = planning.make(found, planning.Target.here(None, 1), base_dir=tmp_path)
    splits = data.load(found, tmp_path)
    rows = demonstrations(found, tmp_path, 2 * 16, held_out=splits.held_out)
    told = []
    hooks = Hooks(lambda *done: told.append(done), lambda *row: None, print, lambda: False)
    with HubServer() as hub:
        commit = hub.commit("models/me/base", base_model(tmp_path / "source"))
        for name, value in hub.environment(tmp_path).items():
            monkeypatch.setenv(name, value)
        base = tmp_path / "base"
        began_with = child.in_child(made, TEMPLATE, rows, base, hooks, offline=False)
    assert began_with == commit and told == [(1, 2), (2, 2)]
    assert (base / "chat_template.jinja").read_text() == TEMPLATE
    assert (base / "model.safetensors").exists()


def base_model(folder) -> dict[str, bytes]:
    """The files of a model whose tokenizer has no chat template."""
    tokenizer = builtin.build_tokenizer()
    tokenizer.chat_template = None
    builtin.build_model(1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}
