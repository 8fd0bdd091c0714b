"""The Modelfile of an export: chat template, stop tokens, system message, sampling.

Ollama's templates are Go templates, a model's are Jinja. A template that writes each message
between fixed texts (ChatML, Llama 3, Phi-4, ...) is translated: the texts are read from rendered
conversations, and longer conversations must come out the same. For other templates, such as
Mistral's with a system message, the Modelfile has none: Ollama compares the one in the GGUF file
with those that it knows.
"""

from typing import Any

from r1recipes.data.tokenizer.chat_template import adds_bos
from r1recipes.errors import RunError

Messages = list[dict[str, str]]
OWN = "the Modelfile's template writes conversations as the model's own template does"
NONE = (
    "the Modelfile has no template, since the model's cannot be written as one of Ollama's, which "
    "picks one by comparing the template in the GGUF file with those that it knows"
)
DEFAULT_CONTEXT = 4096
"""Tokens of Ollama's context without `num_ctx` (its FAQ, 2026)."""
SYSTEM, FIRST, REPLY, SECOND = "zq0 be brief", "zq1 six by seven", "zq2 forty-two", "zq3 and eight"
"""Messages that no template contains, so that the texts around them can be told apart."""


class Texts(dict[str, tuple[str, ...]]):
    """The texts around a message: role -> (before, after); `generation` -> (text,)."""


def modelfile(tokenizer: Any, system: str, file: str, max_seq_length: int) -> tuple[str, bool]:
    """The Modelfile for the GGUF file beside it, and whether it has a template.

    Raises: RunError when the system message cannot be written into one.
    """
    if '"""' in system:
        raise RunError(
            'the system message holds `"""`, which ends a text in a Modelfile',
            hint="export to gguf, and write the Modelfile yourself",
        )
    texts = message_texts(tokenizer, bool(system))
    lines = [f"FROM ./{file}"]
    if texts:
        lines.append(f'TEMPLATE """{go_template(texts)}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops(tokenizer, texts)]
    lines += ["PARAMETER temperature 0.8", "PARAMETER top_p 0.95", "PARAMETER num_predict 1024"]
    if max_seq_length > DEFAULT_CONTEXT:
        lines.append(f"PARAMETER num_ctx {max_seq_length}")
    return "\n".join(lines) + "\n", texts is not None


def message_texts(tokenizer: Any, has_system: bool) -> Texts | None:
    """The fixed texts around each message, or None where they are not fixed.

    The beginning-of-sequence token is left out where llama.cpp adds it.
    """
    try:
        texts = _read_off(tokenizer, has_system)
        for messages in _conversations(has_system):
            if _written(texts, messages) != _rendered(tokenizer, messages, True):
                return None
    except Exception:  # of Jinja or raise_exception: the template refuses a role or an order
        return None
    constants = [text for value in texts.values() for text in value]
    return None if any("{{" in text or '"""' in text for text in constants) else texts


def _read_off(tokenizer: Any, has_system: bool) -> Texts:
    start = [_message("system", SYSTEM)] if has_system else []
    asked = [*start, _message("user", FIRST)]
    answered = [*asked, _message("assistant", REPLY)]
    long = _rendered(tokenizer, [*answered, _message("user", SECOND)], False)
    head, rest = long.split(FIRST)
    between, rest = rest.split(REPLY)
    joint, after_user = rest.split(SECOND)
    after_reply = _rendered(tokenizer, answered, False).split(REPLY)[1]
    generation = _rendered(tokenizer, asked, True).split(FIRST)[1]
    before_user = _without(joint, after_reply)
    texts = Texts(
        user=(before_user, after_user),
        assistant=(_without(between, after_user), after_reply),
        generation=(_without(generation, after_user),),
    )
    if has_system:
        before, after = head.split(SYSTEM)
        texts["system"] = (before, after[: len(after) - len(before_user)])
    return texts


def _without(text: str, prefix: str) -> str:
    """Raises: ValueError where the text does not begin with the prefix."""
    if not text.startswith(prefix):
        raise ValueError("the texts around messages are not fixed")
    return text[len(prefix) :]


def _conversations(has_system: bool) -> list[Messages]:
    """Other conversations than the one that the texts are read from."""
    start = [_message("system", "Think first.\nThen answer.")] if has_system else []
    conversations = [[*start, _message("user", "one")]]
    for number in ("two", "three"):
        turn = [_message("assistant", f"re {number}"), _message("user", f"and {number}?")]
        conversations.append([*conversations[-1], *turn])
    return conversations


def _rendered(tokenizer: Any, messages: Messages, generation: bool) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    return text.removeprefix(tokenizer.bos_token) if adds_bos(tokenizer) else text


def _written(texts: Texts, messages: Messages) -> str:
    """A conversation as `go_template` writes it."""
    parts = [f"{texts[m['role']][0]}{m['content']}{texts[m['role']][1]}" for m in messages]
    return "".join(parts) + texts["generation"][0]


def go_template(texts: Texts) -> str:
    """The Go template that writes each message between its texts."""
    branches: list[str] = []
    for role in ("system", "user", "assistant"):
        if role in texts:
            word = "else if" if branches else "if"
            before, after = texts[role]
            condition = f'{{{{ {word} eq .Role "{role}" }}}}'
            branches.append(f"{condition}{before}{{{{ .Content }}}}{after}")
    inner = "".join(branches)
    return f"{{{{ range .Messages }}}}{inner}{{{{ end }}}}{{{{ end }}}}{texts['generation'][0]}"


def stops(tokenizer: Any, texts: Texts | None) -> list[str]:
    """The end token, and the special token with which the template ends a reply."""
    tokens = [tokenizer.eos_token]
    end = texts["assistant"][1].strip() if texts else ""
    if end and end in tokenizer.all_special_tokens:
        tokens.append(end)
    return list(dict.fromkeys(tokens))


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
