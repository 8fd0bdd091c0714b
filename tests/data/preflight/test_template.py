"""The chat template: which are taken, and what is done where one refuses a message."""

from pathlib import Path

import pytest

from r1recipes.data import preflight
from r1recipes.data.tokenizer.chat_template import CHATML, render
from r1recipes.training.backends import builtin
from tests.data.preflight.words import (
    MISTRAL,
    NO_GENERATION_PROMPT,
    make,
    preset,
    refused,
    splits,
    tokenizer,
)


@pytest.mark.parametrize("given", [tokenizer(), builtin.build_tokenizer()], ids=["llama", "tiny"])
def test_a_good_template_is_left_as_it_is(given):
    before = given.chat_template
    preflight.set_chat_template(given, make(), Path("."))
    assert given.chat_template == before


def test_the_template_of_the_recipe_is_set_inline_or_from_a_file(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML)
    for name in (CHATML, "chat.jinja"):
        given = tokenizer()
        preflight.set_chat_template(given, make(chat_template=name), tmp_path)
        assert given.chat_template == CHATML


def test_a_missing_template_file_names_the_nearest(tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML)
    text = refused(make(chat_template="chta.jinja"), tokenizer(), tmp_path)
    assert "No such file" in text and "did you mean `chat.jinja`" in text
    (tmp_path / "chat.jinja").write_text("hello")
    text = refused(make(chat_template="chat.jinja"), tokenizer(), tmp_path)
    assert "not a Jinja template" in text


def test_a_base_model_needs_a_template_and_the_offered_one_works():
    text = refused(make(), tokenizer(None))
    assert "no chat template: it is a base model" in text and "Instruct variant" in text
    offered = text.partition("such as ChatML: ")[2]
    given = tokenizer(None)
    preflight.set_chat_template(given, make(chat_template=offered), Path("."))
    _, report = preflight.check_prompts(splits("what is 1"), given, preset(), "drop")
    assert report.bos.startswith("one `<s>`")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content }}", "not valid Jinja"),
        ("{{ messages[0]['content'] + 1 }}", "does not take a user message"),
        ("{{ 'x' }}{% if add_generation_prompt %}!{% endif %}", "leaves out the user's message"),
        (NO_GENERATION_PROMPT, "ignores `add_generation_prompt`"),
        (
            MISTRAL.replace(
                "[INST] {{ message['content'] }}", "[INST] {{ message['content'][-28:] }}"
            ),
            "leaves out the system message",
        ),
        (
            "{{ messages[-1]['content'] }}{% if add_generation_prompt %}!{% endif %}",
            "leaves out the system message",
        ),
        (
            "{{ messages[0]['content'] }}{% if add_generation_prompt %}!{% endif %}",
            "leaves out the user's message after a system message",
        ),
    ],
)
def test_templates_that_are_refused(template, words):
    assert words in refused(make(), tokenizer(template))


def test_hints_name_a_change_that_works():
    text = refused(make(), tokenizer("{{ messages[-1]['content'] }}{{ add_generation_prompt }}"))
    assert 'prompt.system = ""' in text
    text = refused(make(), tokenizer(NO_GENERATION_PROMPT))
    addition = text.partition("with this at the end: ")[2]
    assert addition == "{% if add_generation_prompt %}{{ '<h> assistant </h> ' }}{% endif %}"
    preflight.set_chat_template(tokenizer(NO_GENERATION_PROMPT + addition), make(), Path("."))


def test_mistral_needs_no_generation_prompt():
    """Its prompt ends where the answer begins, whatever `add_generation_prompt` says."""
    preflight.set_chat_template(tokenizer(MISTRAL), make(system=""), Path("."))


GEMMA = (  # Gemma 2; that of Gemma 3 puts the system message before the first user message itself
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}{% endif %}"
    "{{ '<h> ' + (message['role'] if message['role'] == 'user' else 'model') + ' ' "
    "+ message['content'] | trim + ' <e> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<h> model ' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "prompt", "answered"),
    [
        (GEMMA, "<s><h> user S\n\nwhat is 1 <e> <h> model ", "<h> model 3 <e> <h> user 2 <e> "),
        (MISTRAL, "<s>[INST] S\n\nwhat is 1 [/INST]", " 3<e>[INST] 2 [/INST]"),
    ],
    ids=["gemma 2", "mistral"],
)
def test_a_system_message_that_a_template_refuses_begins_the_first_user_message(
    template, prompt, answered
):
    given = tokenizer(template)
    (note,) = preflight.set_chat_template(given, make("S"), Path("."))
    assert "takes no system message" in note and "first user message" in note
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "what is 1"}]
    assert render(given, messages, "it") == prompt
    longer = [*messages, {"role": "assistant", "content": "3"}, {"role": "user", "content": "2"}]
    assert answered in render(given, longer, "it") and render(given, longer, "it").count("S\n") == 1
    alone = render(given, messages[1:], "it")
    assert alone == prompt.replace("S\n\n", "")  # without a system message nothing changes
    changed = given.chat_template
    assert preflight.set_chat_template(given, make("S"), Path(".")) == []  # of a run's folder
    assert given.chat_template == changed


QWEN3 = (  # the published template, cut to what matters here
    "{% for message in messages %}"
    "{{ '<h> ' + message['role'] + ' ' + message['content'] + ' <e> ' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<h> assistant ' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize(
    ("thinking", "end"),
    [(None, "assistant "), (True, "assistant "), (False, "assistant <think>\n\n</think>\n\n")],
)
def test_thinking_is_that_of_the_recipe(thinking, end):
    recipe = make()
    recipe = recipe.model_copy(
        update={"prompt": recipe.prompt.model_copy(update={"thinking": thinking})}
    )
    for given in (tokenizer(QWEN3), tokenizer(GEMMA + QWEN3[QWEN3.index("{% if add") :])):
        preflight.set_chat_template(given, recipe, Path("."))
        messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "what is 1"}]
        assert render(given, messages, "it").endswith(end)
        size = len(given.chat_template)
        preflight.set_chat_template(given, recipe, Path("."))  # of a run's folder
        assert render(given, messages, "it").endswith(end) and len(given.chat_template) == size


def test_thinking_that_changes_nothing_is_refused():
    recipe = make()
    prompt = recipe.prompt.model_copy(update={"thinking": False})
    text = refused(recipe.model_copy(update={"prompt": prompt}), tokenizer())
    assert "`prompt.thinking = false` changes nothing" in text and "enable_thinking" in text
