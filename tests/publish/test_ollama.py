"""Modelfiles: which chat templates are translated, and what is left to Ollama."""

import pytest

from r1recipes.errors import RunError
from r1recipes.publish import ollama
from r1recipes.training.backends.builtin import build_tokenizer

CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)
LLAMA3 = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|h|>' + m['role'] + '<|/h|>\n\n' }}"
    "{% if m['role'] == 'system' %}{{ 'Cutting Knowledge Date: December 2023\n\n' }}{% endif %}"
    "{{ m['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>\n\n' }}{% endif %}"
)
MISTRAL = (  # v0.3: the system message goes into the last question
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set system = '' %}"
    "{% set loop_messages = messages %}{% endif %}{% for m in loop_messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + (system if loop.last else '') + m['content'] + "
    "'[/INST]' }}{% else %}{{ ' ' + m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
)
DATED = CHATML.replace("You help.", "It is {{ n }}.").replace(
    "m['content'] +", "m['content'] + (loop.index | string) +"
)


@pytest.fixture
def tokenizer():
    return build_tokenizer()


def fixed_texts(tokenizer, has_system: bool) -> ollama.Texts:
    texts = ollama.message_texts(tokenizer, has_system)
    assert texts is not None
    return texts


def test_the_built_in_template(tokenizer):
    text, has_template = ollama.modelfile(tokenizer, "", "m.gguf", 96)
    assert has_template
    assert text.startswith(
        'FROM ./m.gguf\nTEMPLATE """{{ range .Messages }}'
        '{{ if eq .Role "user" }}<|user|>{{ .Content }}<|end|>'
        '{{ else if eq .Role "assistant" }}<|assistant|>{{ .Content }}<|end|>'
        '{{ end }}{{ end }}<|assistant|>"""\n'
    )
    assert 'PARAMETER stop "<|end|>"\n' in text and "SYSTEM" not in text
    for line in ("temperature 0.8", "top_p 0.95", "num_predict 1024"):
        assert f"PARAMETER {line}\n" in text
    assert "num_ctx" not in text
    assert "PARAMETER num_ctx 8192\n" in ollama.modelfile(tokenizer, "", "m.gguf", 8192)[0]


@pytest.mark.parametrize("template", [CHATML, LLAMA3])
def test_a_template_of_fixed_texts_is_carried_over(tokenizer, template):
    tokenizer.chat_template = template
    texts = fixed_texts(tokenizer, True)
    messages = [
        {"role": "system", "content": "Be {brief}."},
        {"role": "user", "content": "one\n\ntwo"},
        {"role": "assistant", "content": "<answer>3</answer>"},
        {"role": "user", "content": "and?"},
    ]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ollama._written(texts, messages) == expected


def test_the_system_message_is_written_as_it_is(tokenizer):
    tokenizer.chat_template = CHATML
    text, has_template = ollama.modelfile(tokenizer, "Think.\nAnswer.\n", "m.gguf", 96)
    assert has_template and 'SYSTEM """Think.\nAnswer.\n"""\n' in text
    with pytest.raises(RunError, match="ends a text"):
        ollama.modelfile(tokenizer, 'say """', "m.gguf", 96)


@pytest.mark.parametrize(
    ("template", "system"), [(MISTRAL, "s"), (DATED, "s"), (CHATML, ""), (MISTRAL[:-12], "")]
)
def test_other_templates_are_left_to_the_file(tokenizer, template, system):
    # ChatML as Qwen2.5 has it writes a system message of its own before the first user.
    tokenizer.chat_template = template
    text, has_template = ollama.modelfile(tokenizer, system, "m.gguf", 96)
    assert not has_template and "TEMPLATE" not in text and 'PARAMETER stop "<|end|>"' in text


def test_mistral_without_a_system_message_is_carried_over(tokenizer):
    tokenizer.chat_template = MISTRAL
    template = ollama.go_template(fixed_texts(tokenizer, False))
    assert '{{ if eq .Role "user" }}[INST] {{ .Content }}[/INST]' in template
    assert '"assistant" }} {{ .Content }}<|end|>{{ end }}{{ end }}' in template


def test_a_beginning_that_llama_cpp_adds_is_left_out(tokenizer, tmp_path):
    from tokenizers import processors

    tokenizer.add_special_tokens({"bos_token": "<|begin|>"})
    bos = (("<|begin|>", tokenizer.bos_token_id),)
    tokenizer.chat_template = LLAMA3
    assert fixed_texts(tokenizer, True)["system"][0].startswith("<|begin|>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=list(bos)
    )
    assert tokenizer("1")["input_ids"][0] == tokenizer.bos_token_id
    assert fixed_texts(tokenizer, True)["system"][0].startswith("<|h|>system")
