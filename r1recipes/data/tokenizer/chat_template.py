"""Give a tokenizer the recipe's chat template, and check that the template works.

Limits: the check renders a probe and does not read the template. Text messages only; tools and
documents are not looked at.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1recipes.config.suggest import nearest
from r1recipes.data.splits import rename_hint
from r1recipes.data.tokenizer import prefixes, rendering
from r1recipes.errors import Problem, RecipeError, shorten, visible
from r1recipes.machine import files
from r1recipes.machine.files import foreign
from r1recipes.recipe.references import HUB_ID
from r1recipes.recipe.schema import BUILTIN_MODELS, Recipe

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

MAX_CONFIG_BYTES = 8 * 2**20
"""Bytes of a tokenizer's configuration, as in `data.local.model`."""
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Words that no template contains.
QUESTION, ANSWER = "zq1 what is six times seven", "zq2 forty-two"


def set_chat_template(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, base_dir: Path
) -> list[str]:
    """Give the tokenizer the recipe's chat template, if any, and check that it works.

    Where the template takes no system message, it gets `prompt.system` in the first user message.
    Gives lines on what was changed. Raises: RecipeError.
    """
    if recipe.model.chat_template is not None:
        tokenizer.chat_template = template_text(recipe.model.chat_template, base_dir)
    elif not tokenizer.chat_template:
        raise RecipeError(
            f"the tokenizer of `{recipe.model.name}` has no chat template: it is a base model",
            hint="name its Instruct variant, or set `model.chat_template`, such as ChatML: "
            + (("{{ bos_token }}" if adds_bos(tokenizer) else "") + CHATML),
        )
    if is_foreign(recipe):
        attempt(tokenizer.get_chat_template(), recipe.prompt.system, tokenizer.special_tokens_map)
    user = {"role": "user", "content": QUESTION}
    if recipe.prompt.thinking is not None:
        _set_thinking(tokenizer, user, recipe, recipe.prompt.thinking)
    prompt = render(tokenizer, [user], "a user message")
    if QUESTION not in prompt:
        raise RecipeError(
            "the chat template leaves out the user's message",
            hint="it must write `message['content']` of every message",
        )
    _check_generation_prompt(tokenizer, user, prompt)
    if not recipe.prompt.system:
        return []
    notes = _take_system(tokenizer, user, recipe)
    _check_system(tokenizer, user, recipe.prompt.system)
    return notes


def is_foreign(recipe: Recipe) -> bool:
    """Whether a recipe's chat template may be a stranger's: any but that of a built-in model."""
    return recipe.model.name not in BUILTIN_MODELS or recipe.model.chat_template is not None


def attempt(template: str, system: str, tokens: Mapping[str, Any] | None = None) -> None:
    """Try a template on short messages, where it can be stopped. Raises: RecipeError."""
    user = {"role": "user", "content": QUESTION}
    conversations = [[user], [user, {"role": "assistant", "content": ANSWER}]]
    if system:
        conversations.append([{"role": "system", "content": system}, user])
    rendering.attempt(template, conversations, tokens or {"bos_token": "<s>", "eos_token": "</s>"})


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a BOS token before every text."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def refuse_template_columns(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: RecipeError for text columns that would change the prompts.

    Unsloth (models/rl_replacements.py) passes each text column whose name occurs in the
    template to `apply_chat_template` as an argument; TRL does not. A recipe must mean the same on
    both. A name that occurs in the template's text only, such as a role, does no harm.
    """
    import jinja2.meta

    template = tokenizer.get_chat_template()
    # The environment of transformers: a plain one does not have the tags that it adds.
    environment = rendering.compiled(template).environment
    used = jinja2.meta.find_undeclared_variables(environment.parse(template))
    used |= set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"conversation"}
    problems = [
        Problem(
            f"column `{name}` of the data is also a variable of the chat template: with Unsloth "
            "its text would change the prompts",
            hint=rename_hint(name),
        )
        for name, feature in rows.features.items()
        if getattr(feature, "dtype", None) in ("string", "large_string")
        and name in used
        and name in template
    ]
    if problems:
        raise RecipeError(problems=problems)


def template_text(template: str, base_dir: Path) -> str:
    """The template itself, or the text of the file that it names."""
    if "{{" in template or "{%" in template:
        return template
    path = base_dir / files.named(template)
    try:
        size = foreign.plain_size(path)
        foreign.refuse_beyond(size, rendering.MAX_BYTES, "bytes, for a chat template", path)
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # no UTF-8, or a NUL in the name
        names = [file.name for file in path.parent.glob("*")] if os.path.isdir(path.parent) else []
        meant = nearest(path.name, names, 0.5)
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(
            f"`model.chat_template` is neither Jinja (it has no `{{{{`) nor a file that can be "
            f"read: `{path}`: {reason}",
            hint=f"did you mean `{meant}`?" if meant else "a relative path starts at the recipe",
        ) from error
    if "{{" not in text:
        message = f"`{path}` is not a Jinja template: it has no `{{{{`"
        hint = "name the file of a template, such as the chat_template.jinja of a model's folder"
        raise RecipeError(message, hint=hint)
    return text


def read_file(path: Path) -> str:
    """The text of a template's file, which may be a stranger's. Raises: RecipeError."""
    try:
        size = foreign.plain_size(path)
        foreign.refuse_beyond(size, rendering.MAX_BYTES, "bytes, for a chat template", path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise RecipeError.at(str(path), f"cannot be read: {reason}", "put back a copy") from error


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    subject: str,
    *,
    generation_prompt: bool = True,
) -> str:
    """The text of a conversation. Raises: RecipeError when the template does not take `subject`."""
    import jinja2

    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt
        )
        assert isinstance(text, str)  # it is for a single conversation, not tokenized
        return text
    except jinja2.TemplateSyntaxError as error:
        message = f"the chat template is not valid Jinja: {error.message}, line {error.lineno}"
        raise RecipeError(message, hint="correct `model.chat_template`") from error
    except (jinja2.TemplateError, *rendering.FAULTS) as error:
        message = f"the chat template does not take {subject}: {shorten(visible(str(error)))}"
        raise RecipeError(message, hint="set `model.chat_template` to one that does") from error


def opened_tag(prompt: str) -> str | None:
    """The tag that a prompt ends with, such as "think" where the template begins the answer itself.

    A header such as <assistant> is none.
    """
    tag = re.search(r"<([A-Za-z][\w-]*)>\s*\Z", prompt)
    return tag[1] if tag and not re.search("assistant|model|bot|start|bos", tag[1], re.I) else None


def opened_by_template(recipe: Recipe, base_dir: Path) -> str | None:
    """The tag that the chat template of a recipe opens, read without a tokenizer and without the
    network. None also where the template is not on this machine, or does not take a question.

    Raises: RecipeError for a file of a template that cannot be read.
    """
    template = template_here(recipe, base_dir)
    if template is None or not re.search(r"<[A-Za-z][\w-]*>", template):
        return None
    import jinja2

    messages = [{"role": "user", "content": QUESTION}]
    try:
        attempt(template, "")
        prompt = rendering.compiled(template).render(
            messages=messages, add_generation_prompt=True, bos_token="", eos_token=""
        )
    except (jinja2.TemplateError, RecipeError, *rendering.FAULTS):
        return None  # `set_chat_template` refuses it, with the reason
    return opened_tag(prompt)


def template_here(recipe: Recipe, base_dir: Path) -> str | None:
    """The text of the recipe's chat template, of the model's folder, or of the Hub's cache."""
    if recipe.model.chat_template is not None:
        return template_text(recipe.model.chat_template, base_dir)
    name, revision = recipe.model.name, recipe.model.revision
    if name in BUILTIN_MODELS:
        return None
    folder = base_dir / name
    files = {file: folder / file for file in ("chat_template.jinja", "tokenizer_config.json")}
    if not folder.is_dir() and (".." in name or not HUB_ID.fullmatch(name)):
        return None
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = {f: try_to_load_from_cache(name, f, revision=revision) for f in files}
        files = {file: Path(path) for file, path in cached.items() if isinstance(path, str)}
    for file, path in files.items():
        if path.is_file():
            limit = rendering.MAX_BYTES if file == "chat_template.jinja" else MAX_CONFIG_BYTES
            foreign.refuse_beyond(foreign.plain_size(path), limit, "bytes", path)
            text = path.read_text(encoding="utf-8", errors="replace")
            if file == "chat_template.jinja":
                return text
            return _of_config(text)
    return None


def _of_config(text: str) -> str | None:
    """The template in a tokenizer_config.json: a text, or of several the default one."""
    try:
        template = json.loads(text).get("chat_template")
    except (ValueError, AttributeError, RecursionError):
        return None
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _check_generation_prompt(
    tokenizer: PreTrainedTokenizerBase, user: dict[str, str], prompt: str
) -> None:
    """Raises: RecipeError for a template whose prompt stops before the assistant's header.

    Mistral's template has no header and rightly ignores `add_generation_prompt`: a template is fine
    if nothing stands between the prompt and an answer.
    """
    if prompt != render(tokenizer, [user], "a user message", generation_prompt=False):
        return
    answered = [user, {"role": "assistant", "content": ANSWER}]
    whole = render(tokenizer, answered, "an assistant message", generation_prompt=False)
    before, answer, _ = whole.partition(ANSWER)
    header = before.removeprefix(prompt)
    if not answer or header.strip():
        header = header if answer and before.startswith(prompt) else "assistant:"
        raise RecipeError(
            "the chat template ignores `add_generation_prompt`: the model would have to write "
            f"the header `{header.strip()}` before it answers",
            hint="set `model.chat_template` to it with this at the end: "
            f"{{% if add_generation_prompt %}}{{{{ {header!r} }}}}{{% endif %}}",
        )


def _set_thinking(
    tokenizer: PreTrainedTokenizerBase, user: dict[str, str], recipe: Recipe, thinking: bool
) -> None:
    """Raises: RecipeError for a template that writes the same whether the model thinks or not."""
    template = tokenizer.get_chat_template()
    prompts = []
    for value in (not thinking, thinking):  # the last one stays
        _change(tokenizer, prefixes.with_thinking(template, value), recipe)
        prompts.append(render(tokenizer, [user], "a user message"))
    if prompts[0] == prompts[1]:
        raise RecipeError(
            f"`prompt.thinking = {str(thinking).lower()}` changes nothing: the chat template of "
            f"`{recipe.model.name}` has no `{prefixes.VARIABLE}`",
            hint="remove it; a model such as Qwen3-4B-Instruct-2507 never thinks",
        )


def _take_system(
    tokenizer: PreTrainedTokenizerBase, user: dict[str, str], recipe: Recipe
) -> list[str]:
    """Change a template that takes a user message and refuses a system message, as Gemma 2's does.

    Gives a line where it was changed.
    """
    try:
        messages = [{"role": "system", "content": recipe.prompt.system}, user]
        render(tokenizer, messages, "a system message")
        return []
    except RecipeError:
        own = tokenizer.get_chat_template()
    _change(tokenizer, prefixes.with_system_in_user(own), recipe)
    return [
        "the chat template takes no system message: `prompt.system` begins the first user message"
    ]


def _change(tokenizer: PreTrainedTokenizerBase, template: str, recipe: Recipe) -> None:
    """Give the tokenizer a template made of its own, tried first where that is a stranger's."""
    if is_foreign(recipe):
        attempt(template, recipe.prompt.system, tokenizer.special_tokens_map)
    tokenizer.chat_template = template


def _check_system(tokenizer: PreTrainedTokenizerBase, user: dict[str, str], system: str) -> None:
    hint = 'set `prompt.system = ""` and ask for the format in the questions'
    messages = [{"role": "system", "content": system}, user]
    try:
        prompt = render(tokenizer, messages, "a system message")
    except RecipeError as error:
        raise RecipeError(str(error), hint=hint) from error
    if system.strip() not in prompt:
        raise RecipeError("the chat template leaves out the system message", hint=hint)
    if QUESTION not in prompt:
        message = "the chat template leaves out the user's message after a system message"
        raise RecipeError(message, hint=hint)
