import pytest

from r1recipes import recipe
from r1recipes.errors import RecipeError
from r1recipes.publish import export
from r1recipes.publish.forms import FORMS
from r1recipes.recipe import targets
from r1recipes.recipe.targets import Target, parse


def test_every_form_is_read():
    given = ["lora", "merged_16bit", "gguf:q8_0,Q4_K_M", "ollama:q5_k_m", "hub:me/my-model.v2"]
    targets, problems = parse(given)
    assert problems == []
    assert targets == [
        Target("lora"),
        Target("merged_16bit"),
        Target("gguf", ("q8_0", "q4_k_m")),
        Target("ollama", ("q5_k_m",)),
        Target("hub", repo="me/my-model.v2"),
    ]
    assert parse(["gguf"])[0] == [Target("gguf", ("q8_0",))]


@pytest.mark.parametrize(
    "text",
    ["", "GGUF", "safetensors", "lora:16", "gguf:", "gguf:q3_k", "ollama:q8_0,f16"]
    + ["hub", "hub:", "hub:me", "hub:me/x/y", "hub:../x", "hub:me/..", "hub:me/x y"],
)
def test_anything_else_is_refused_with_what_there_is(text):
    targets, problems = parse([text])
    assert targets == [] and len(problems) == 1
    assert text.split(":")[0] in problems[0].message
    assert "lora" in str(problems[0].hint)


def test_every_form_is_made_in_the_order_of_its_name(tmp_path):
    """A name without a row, or a row without a name, would be an error on import."""
    assert list(FORMS) == [name for name in targets.KINDS if name != "hub"]
    made = [Target(name) for name in reversed(targets.KINDS)]
    assert [form.kind for form in export.Request(made, tmp_path).forms] == list(FORMS)


def test_every_form_is_named_in_the_hint():
    _, (problem,) = parse(["x"])
    assert problem.hint == (
        "one of lora, merged_16bit, merged_4bit, gguf:q8_0,q4_k_m, ollama, hub:user/name"
    )


def test_a_form_is_named_once_and_all_problems_are_told():
    _, problems = parse(["gguf:q8_0", "gguf:f16", "x"])
    assert [p.message for p in problems] == ["`gguf` is named twice", "unknown form `x`"]


def test_a_recipe_may_export_but_not_push(small):
    small.write_text(small.read_text() + '\n[export]\nto = ["lora"]\n')
    assert recipe.load(small).recipe.export.to == ["lora"]
    plain = recipe.load(small, ["export.to=[]"])
    assert recipe.fingerprint(recipe.load(small).recipe) == recipe.fingerprint(plain.recipe)
    for value, said in {'["hub:me/x"]': "pushes nothing", '["q8"]': "unknown form `q8`"}.items():
        with pytest.raises(RecipeError, match=said):
            recipe.load(small, [f"export.to={value}"])
