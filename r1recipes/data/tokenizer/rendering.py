"""Tries foreign chat templates in a process that can be stopped, before this one renders them.

A template is a program: its loops, powers and repetitions have no end of their own. It is tried on
short messages first, and then on every prompt that it will be given; what it writes is thrown away.
Time is limited for each conversation and for each batch, and so is memory. Limits: a template can
know the date (`strftime_now`), so it may do something else another day; one that draws by chance
is refused.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1recipes.errors import RecipeError, first_line, shorten, visible
from r1recipes.machine.files import foreign
from r1recipes.machine.processes import Stoppable

MAX_BYTES = 256 * 2**10
"""Bytes of a chat template; the longest of a widely used model has about 20,000. Assumed."""
PROMPT_LIMIT_S = 1.0
"""Seconds of CPU time for one conversation; a widely used template takes 0.1 ms (measured)."""
BATCH_LIMIT_S = 2.0
"""Seconds for a batch, which end what counts no CPU time or cannot be interrupted."""
BATCH = 200
"""Conversations that are rendered at once; assumed."""
START_LIMIT_S = 60.0
"""Seconds for the start of the process, beside its calls; it takes one or two (measured)."""
MEMORY_BYTES = 512 * 2**20
"""Bytes that rendering may take; assumed, a thousand times what a template takes."""
MAX_TEXT = 1_000_000
"""Characters that a template may write for one conversation, beside the messages themselves."""
Conversation = Sequence[Mapping[str, Any]]
HINT = "set `model.chat_template` to another"
FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template raises beside the errors of Jinja."""
_RANDOM = ("random", "lipsum")
_renderer = Stoppable(("transformers.utils.chat_template_utils",), MEMORY_BYTES)


def refuse_large(template: str) -> None:
    """Raises: RecipeError for a template that is longer than any real one."""
    size = len(template)
    if foreign.is_beyond(size, MAX_BYTES):
        message = f"the chat template has {size:,} characters; {MAX_BYTES:,} are allowed"
        raise RecipeError(message, hint=foreign.RAISE)


def attempt(
    template: str, conversations: Sequence[Conversation], tokens: Mapping[str, Any]
) -> None:
    """Render conversations, each with a generation prompt, in the process that can be stopped.

    `tokens` are the special tokens that the template may name. Raises: RecipeError when it takes
    too long or too much memory, writes too much, or does not take the first conversation, which is
    to be a user's message alone; who renders the others finds what it does not take.
    """
    refuse_large(template)
    factor = foreign.factor()
    for start in range(0, len(conversations), BATCH):
        part = [list(one) for one in conversations[start : start + BATCH]]
        arguments = (template, part, dict(tokens), PROMPT_LIMIT_S * factor)
        limit_s = BATCH_LIMIT_S * factor
        outcome = _renderer.call(_render, *arguments, limit_s=limit_s, start_s=START_LIMIT_S)
        if isinstance(outcome, TimeoutError):
            outcome = f"takes more than {limit_s:g} s"
        elif isinstance(outcome, BaseException):
            outcome = f"ended its process ({shorten(first_line(outcome))})"
        if outcome:
            raise RecipeError(f"the chat template {shorten(visible(outcome))}", hint=HINT)


def compiled(template: str) -> Any:
    """The template as transformers compiles it. Raises: jinja2.TemplateError and others."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return _compile_jinja_template(template)


def attempt_all(tokenizer: Any, *splits: Iterable[Conversation]) -> None:
    """Try the chat template of a tokenizer on all prompts of a run, and end the process.

    Raises: RecipeError, as `attempt`.
    """
    every = [conversation for split in splits for conversation in split]
    attempt(tokenizer.get_chat_template(), every, tokenizer.special_tokens_map)
    close()


def close() -> None:
    """End the process, if there is one. The next template starts another."""
    _renderer.close()


class _TooLong(BaseException):
    """Raised by the timer; no handler of a library takes it for an error."""


def _render(
    template: str, conversations: list[Any], tokens: dict[str, Any], limit_s: float
) -> str | None:
    """In the child: what is wrong with the template, None where nothing is."""
    import jinja2

    plain = (jinja2.TemplateError, *(one for one in FAULTS if one is not RecursionError))
    signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
    try:
        program = compiled(template)
        if name := _chance(program.environment.parse(template)):
            return f"draws by chance (`{name}`), so no run could be repeated"
        for index, messages in enumerate(conversations):
            signal.setitimer(signal.ITIMER_VIRTUAL, limit_s)
            try:
                text = program.render(messages=messages, add_generation_prompt=True, **tokens)
            except plain as error:
                if index == 0:
                    return f"does not take a user message: {first_line(error)}"
                continue
            room = MAX_TEXT + 10 * sum(len(str(message)) for message in messages)
            if len(text) > room:
                return f"writes {len(text):,} characters for one conversation"
    except _TooLong:
        return f"takes more than {limit_s:g} s for one conversation"
    except MemoryError:
        return f"takes more than {MEMORY_BYTES // 2**20} MiB of memory"
    except jinja2.TemplateSyntaxError as error:
        return f"is not valid Jinja: {error.message}, line {error.lineno}"
    except (RecursionError, SyntaxError):  # Python's own, of what Jinja has made of it
        return "is nested too deeply"
    except plain as error:  # while it was compiled
        return f"fails: {first_line(error)}"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return None


def _stop(number: int, frame: object) -> None:
    raise _TooLong


def _chance(tree: Any) -> str | None:
    """The first thing in a template whose value is drawn by chance."""
    from jinja2 import nodes

    filters = [node.name for node in tree.find_all(nodes.Filter)]
    names = [node.name for node in tree.find_all(nodes.Name)]
    return next((name for name in [*filters, *names] if name in _RANDOM), None)
