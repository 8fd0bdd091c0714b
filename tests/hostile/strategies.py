"""Hypothesis strategies for what a stranger may send: bundles, run folders, templates, data."""

import json
from typing import Any

from hypothesis import strategies as st

from r1recipes.recipe import bundle
from tests.system.test_hostile import JSONL, WITH_FILES

HIDDEN = st.sampled_from(["\x1b[2J", "\x00", "\u202e", "\u200b", "\ud800", "\n", "\r", "`", '"'])
WORDS = st.text(max_size=20) | st.lists(HIDDEN, max_size=3).map("".join)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([10**400, -(10**400), 1e308, -1e308, 5e-324, 2**63, 2**53 + 1, -1, 0])
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
"""Any value of JSON."""
PARTS = st.sampled_from(["..", ".", "", "~", "a", "A", "recipe.toml", "C:", "README.md", "\\"])
NAMES = st.lists(PARTS | WORDS, min_size=1, max_size=4).map("/".join)


@st.composite
def flipped(draw: st.DrawFn, content: bytes) -> bytes:
    """Content with a few bytes changed, taken out or put in, or its end cut off."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["change", "remove", "insert", "cut"])):
            case "change" if changed:
                changed[at] = draw(st.integers(0, 255))
            case "remove":
                del changed[at : at + draw(st.integers(1, 40))]
            case "insert":
                changed[at:at] = draw(st.binary(max_size=40))
            case "cut" if at > len(changed) // 2:
                del changed[at:]
    return bytes(changed)


@st.composite
def bundles(draw: st.DrawFn) -> bytes:
    """A bundle with other members, or with some of its bytes changed."""
    files = {"recipe.toml": WITH_FILES.encode(), "shown.jsonl": JSONL}
    for name in draw(st.lists(NAMES, max_size=3)):
        if "\ud800" not in name:
            files[name] = draw(st.binary(max_size=60))
    content = bundle.pack(files)
    return draw(flipped(content)) if draw(st.booleans()) else content


@st.composite
def changed(draw: st.DrawFn, data: Any) -> Any:
    """JSON with one value at any depth replaced or taken out, or with a key more."""
    if not isinstance(data, dict | list) or not data or draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    if isinstance(data, list):
        index = draw(st.integers(0, len(data) - 1))
        return [*data[:index], draw(changed(data[index])), *data[index + 1 :]]
    key = draw(st.sampled_from(sorted(data)))
    match draw(st.integers(0, 6)):
        case 0:
            return {name: value for name, value in data.items() if name != key}
        case 1:
            return data | {draw(WORDS): draw(VALUES)}
    return data | {key: draw(changed(data[key]))}


EXPRESSIONS = st.recursive(
    st.sampled_from(
        ["1", "0", "10 ** 6", "'x'", "[0]", "{}", "none", "messages", "bos_token", "messages[0]"]
        + ["messages[0].content", "range(9999)", "namespace(x=1)", "strftime_now('%Y')", "loop"]
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+ - * ** / // % ~ in and < ==".split()), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        st.tuples(
            inner,
            st.sampled_from(
                ["length", "list", "sort", "tojson", "upper", "wordwrap(1)", "center(10 ** 7)"]
                + ["join('x' * 999)", "batch(2)", "indent(10 ** 5)", "replace('', 'xx')", "random"]
                + ["format(1)", "int", "items", "sum", "map(attribute='x')", "truncate(3)"]
            ),
        ).map("|".join),
        inner.map(lambda one: f"{one}.__class__"),
        inner.map(lambda one: f"{one}[{one}]"),
    ),
    max_leaves=6,
)
TEMPLATES = st.recursive(
    EXPRESSIONS.map(lambda one: "{{ " + one + " }}") | st.sampled_from(["text", "{%", "{{", "{#"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.tuples(EXPRESSIONS, inner).map(
            lambda parts: "{% for a in " + parts[0] + " %}" + parts[1] + "{% endfor %}"
        ),
        st.tuples(EXPRESSIONS, inner).map(
            lambda parts: "{% if " + parts[0] + " %}" + parts[1] + "{% endif %}"
        ),
        st.tuples(EXPRESSIONS, inner).map(
            lambda parts: "{% set a = " + parts[0] + " %}" + parts[1]
        ),
        inner.map(lambda one: "{% macro f() %}" + one + "{{ f() }}{% endmacro %}{{ f() }}"),
    ),
    max_leaves=6,
)

ROWS = st.lists(
    st.dictionaries(st.sampled_from(["question", "answer", "more"]) | WORDS, VALUES, max_size=4)
    | VALUES,
    min_size=1,
    max_size=6,
).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
CSV = st.lists(st.lists(WORDS, max_size=4).map(",".join), max_size=6).map(
    lambda lines: "\n".join(["question,answer", *lines]).encode(errors="replace")
)
