"""Text that goes before a chat template and changes what it is given: the system message of a model
that has none, and whether a model thinks.

The template is saved with the adapter, so that training, evaluation, `chat` and exported files all
write the same prompts. Limits: plain Jinja, which llama.cpp reads as well.
"""

SYSTEM_IN_USER = (
    "{% if messages and messages[0]['role'] == 'system' and messages | length > 1 %}"
    "{% set messages = [{'role': messages[1]['role'], "
    "'content': messages[0]['content'] | trim + '\\n\\n' + messages[1]['content']}] "
    "+ messages[2:] %}{% endif %}"
)
"""Puts the system message before the first user message, as Gemma 3's own template does."""
_THINKING = "{{% set enable_thinking = {} %}}"
VARIABLE = "enable_thinking"
"""What the templates of Qwen3 and others ask for whether the model thinks."""


def with_system_in_user(template: str) -> str:
    """A template that takes no system message, as one that gets it in the first user message."""
    return SYSTEM_IN_USER + template


def with_thinking(template: str, thinking: bool) -> str:
    """The template with its `enable_thinking` set, and not also as it was set here before."""
    for before in ("true", "false"):
        template = template.replace(_THINKING.format(before), "")
    return _THINKING.format(str(thinking).lower()) + template
