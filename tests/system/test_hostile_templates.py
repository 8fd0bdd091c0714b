"""Chat templates from elsewhere: whatever they do, one clear line, within seconds.

Each is tried in a recipe that came as a bundle, and some in the folder of a model.
"""

import json
import re
from pathlib import Path

import pytest

from r1recipes.data.tokenizer import rendering
from r1recipes.recipe import bundle
from tests.helpers import answered_in_time
from tests.system.test_hostile import DATA, WITH_FILES, assert_refused

TEMPLATE = "the chat template|model.chat_template"
HEAD = "{{ messages[0]['content'] }}"
DOUBLED = "{% set ns = namespace(x=[0]) %}" + "{% set ns.x = ns.x + ns.x %}" * 40
TEMPLATES = {
    "a loop of 10^15": "{% for a in range(99999) %}{% for b in range(99999) %}"
    "{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a loop that writes": "{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxx"
    "{% endfor %}{% endfor %}",
    "a power": "{{ 10 ** (10 ** 8) }}",
    "a power of a variable": "{% set n = messages|length * 10 %}{{ n ** (n ** 9) }}",
    "a product of powers": "{% set n = 9 ** 99999 %}{% for a in range(9999) %}{% set x = n * n %}"
    "{% endfor %}{{ n * n * n * n }}",
    "a text of 10^11": "{{ 'x' * 10 ** 11 }}",
    "a list of 10^11": "{{ [0] * 10 ** 11 }}",
    "a text of 10^8": "{{ 'x' * 10 ** 8 }}",
    "a list that doubles": DOUBLED + "{{ ns.x|length }}",
    "a text that doubles": DOUBLED.replace("[0]", "'x'") + "{{ ns.x }}",
    "wordwrap": "{{ ('x' * 10 ** 7)|wordwrap(1, wrapstring='yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') }}",
    "lipsum": "{{ lipsum(n=99999999) }}",
    "a choice by chance": "{{ ['a', 'b']|random }}",
    "a date of a huge format": "{{ strftime_now('%A' * 10 ** 8) }}",
    "a huge field": "{{ '%0999999999d' % 1 }}",
    "a huge format": "{{ '{:>999999999}'.format(1) }}",
    "centred": "{{ 'x'|center(9999999999) }}",
    "indented": "{{ ('\\n' * 9999999)|indent(99999) }}",
    "a join": "{{ range(99999)|join('x' * 999999) }}",
    "a replacement": "{{ ('x' * 99999)|replace('x', 'y' * 99999) }}",
    "sorted often": "{% for a in range(99999) %}{% set x = range(99999)|sort %}{% endfor %}",
    "JSON of a doubled list": DOUBLED + "{{ ns.x|tojson }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursion that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "division by zero": "{{ 1 / 0 }}",
    "remainder of zero": "{{ 1 % 0 }}",
    "nested deeply": "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
    "brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "lists in lists": "{{ " + "[" * 3000 + "]" * 3000 + " }}",
    "a long sum": "{{ " + "1 + " * 50_000 + "1 }}",
    "many filters": "{{ 'x'" + "|upper" * 30_000 + " }}",
    "a number of 10^6 digits": "{{ " + "9" * 200_000 + " }}",
    "a template of 300 kB": "x" * 300_000,
    "no Jinja": "{% for %}",
    "an unknown tag": "{% run 'touch ran-code' %}",
    "an unknown filter": "{{ messages|execute }}",
    "an import": "{% include '/etc/passwd' %}",
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'].system('touch ran-code') }}",
    "a change of the messages": "{{ messages.clear() }}",
    "no such variable": "{{ messages[99]['content'].x.y }}",
    "a macro that doubles": "{% macro f(x, n) %}{% if n %}{{ f(x + x, n - 1) }}{% endif %}"
    "{% endmacro %}{{ f('ab', 60) }}",
    "macros that call one another": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}"
    "{% endmacro %}{{ a() }}",
    "a macro in a namespace": "{% set n = namespace() %}{% macro f() %}{{ n.f() }}{% endmacro %}"
    "{% set n.f = f %}{{ n.f() }}",
    "a caller that calls": "{% macro f() %}{{ caller() }}{% endmacro %}{% macro g() %}"
    "{% call f() %}{{ g() }}{% endcall %}{% endmacro %}{{ g() }}",
    "ranges in ranges": "{% for a in range(99999) %}{% set x = range(99999)|list %}{% endfor %}",
    "filled on the left": "{{ 'x'.rjust(10 ** 10, 'y') }}",
    "tabs of 10^9": "{{ ('\\t' * 1000).expandtabs(10 ** 9) }}",
    "a width that is given": "{{ '%*d' % (10 ** 9, 1) }}",
    "a precision of 10^9": "{{ '%.999999999f' % 1.5 }}",
    "a format in a format": "{{ '{0:{1}}'.format(1, 10 ** 10) }}",
    "a format of names": "{{ '{a:>9999999999}'.format_map({'a': 1}) }}",
    "JSON of 10^9 spaces": "{{ [[[[1]]]]|tojson(indent=10 ** 9) }}",
    "lists in lists as text": "{% set ns = namespace(x=1) %}{% for i in range(99999) %}"
    "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|string }}",
    "a number shifted": "{{ 1.__lshift__(10 ** 10) }}",
    "a translation": "{{ ('a' * 10 ** 6).translate({97: 'b' * 10 ** 6}) }}",
    "an encoding": "{{ ('x' * 10 ** 8).encode('utf-32') }}",
    "a format of a class": "{{ '{0.__class__.__base__.__subclasses__}'.format('') }}",
    "a mapped attribute": "{{ messages|map(attribute='__class__.__mro__')|list }}{{ x.y.z }}",
    "globals of a macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "a frame": "{{ (messages|map('string')).gi_frame.f_back.f_globals }}",
    "messages that grow": "{% for m in messages %}{{ messages.append(m) }}{% endfor %}",
    "calls of calls": "{{ a" + "()" * 20_000 + " }}",
    "filters in filters": "{% filter upper %}" * 900 + "x" + "{% endfilter %}" * 900,
    "a long if": "{{ " + "1 if 1 else " * 20_000 + "1 }}",
    "many words": "{{ dict(" + ",".join(f"a{i}=1" for i in range(20_000)) + ").x.y.z }}",
    "groups without end": "{% for a in range(9999) %}{% set x = (['a'] * 99999)|groupby('x') %}"
    "{% endfor %}",
    "an exception of many numbers": "{{ raise_exception(range(99999)|list) }}",
    "an exception": "{{ raise_exception('\x1b[2J' * 9) }}",
}
ONLY_LONG = (
    "{% if messages[-1]['content']|length > 60 %}{{ 10 ** (messages|length * 10 ** 8) }}{% endif %}"
    + HEAD
    + "{% if add_generation_prompt %}A:{% endif %}"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("R1RECIPES_CACHE_DIR", str(tmp_path / "cache"))
    return place


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_template_is_refused(here, name):
    template = HEAD + TEMPLATES[name]
    text = WITH_FILES.replace(DATA, 'name = "rows.jsonl"').replace(
        'name = "builtin:tiny"', f'name = "builtin:tiny"\nchat_template = {json.dumps(template)}'
    )
    path = here.parent / "evil.r1.zip"
    files = {"recipe.toml": text.encode(), "shown.jsonl": SHOWN, "rows.jsonl": ROWS}
    path.write_bytes(bundle.pack(files))
    with answered_in_time():
        line = assert_refused(here, str(path), commands=[["check"]])
        rendering.close()  # its time counts when it has ended
    assert re.search(TEMPLATE, line) and not (here / "ran-code").exists()


ROWS = b"".join(b'{"question": "What is %d?", "answer": "%d"}\n' % (i, i) for i in range(99))
SHOWN = ROWS.replace(b'"answer"', b'"completion"')


@pytest.mark.parametrize("name", ["a power", "recursion", "a text of 10^11"])
@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_hostile_template_in_the_folder_of_a_model_is_refused(here, name, file):
    from r1recipes.training.backends import builtin

    folder = here / "model"
    builtin.build_model(1, "builtin:tiny").save_pretrained(folder)
    builtin.build_tokenizer().save_pretrained(folder)
    template = HEAD + TEMPLATES[name]
    (folder / "chat_template.jinja").unlink()
    if file == "chat_template.jinja":
        (folder / file).write_text(template)
    else:
        config = json.loads((folder / file).read_text()) | {"chat_template": template}
        (folder / file).write_text(json.dumps(config))
    text = WITH_FILES.replace(DATA, 'name = "rows.jsonl"').replace("builtin:tiny", "model")
    (here / "mine.toml").write_text(text)
    (here / "rows.jsonl").write_bytes(ROWS)
    (here / "shown.jsonl").write_bytes(SHOWN)
    line = assert_refused(here, "mine.toml", commands=[["check"], ["run"]])
    assert re.search(TEMPLATE, line)


def test_a_template_that_bides_its_time_is_stopped_by_the_prompt_that_it_waits_for():
    short, long = [[{"role": "user", "content": "x" * n}] for n in (3, 300)]
    rendering.attempt(ONLY_LONG, [short] * 500, {})
    with pytest.raises(Exception, match="takes more than . s|MiB of memory|ended its process"):
        rendering.attempt(ONLY_LONG, [*[short] * 300, long], {})
    rendering.attempt(ONLY_LONG, [short], {})  # the next one has a process again
    rendering.close()
