"""What the templates do with text: it stays text, whatever it holds."""

import re
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError, nodes

from r1recipes.errors import visible
from r1recipes.report import page, samples, several, study
from r1recipes.report.charts import Axis, Bar, Bars, Line, Parallel, Plot, Series
from r1recipes.report.page import Command, Figures, Headline, Key, Link, Pill, Table

HOSTILE = [
    "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&",
    "</title></style></svg></text><svg/onload=alert(1)>--><!--]]>",
    "{{ 7 * 7 }}{% raw %}{# not closed",
    "\u202egnp.exe\u2066\u2067 \u200fa\u0301\u2028b",
    'a" onpointermove="alert(1)',
]


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and its texts and values."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.texts += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("!--", ()))


def charts_of(text: str) -> list[Plot | Bars | Parallel]:
    lines = [Series(text, [1, 2], [1.0, 2.0], [0.0, 0.0], [3.0, 3.0]), Series(text, [1], [1.0])]
    points = [Series(text, [1, 2], [1.0, 2.0], labels=[text, text], points=True)]
    axes = [Axis(text, (text, text), choices=[text, "other"]), Axis(text, (text, text))]
    return [
        Plot(text, text, lines, text, x_label=text),
        Plot(text, text, points, text, x_label=text),
        Bars(text, text, [Bar(text, 1.0, 0.5, 1.5)], text),
        Parallel(text, text, axes, [Line(text, [text, 1.0], is_bold=True), Line(text, [None, 0])]),
    ]


def everything(text: str) -> dict[str, object]:
    """Every name that a template uses, with `text` wherever a string can be."""
    *charts, parallel = charts_of(text)
    assert isinstance(parallel, Parallel)
    command = Command(text, text)
    verdict = Headline(text, [text] * 2, "better", label=text, before=text, command=command)
    table = Table([text, text], [[text, Pill(text, "good")], [Key(text, 1), None]])
    side = samples.Side(text, True, text)
    problem = samples.Problem(text, text, "became right", (side, side))
    completion = samples.Completion(text, text, [Pill(text)])
    column = samples.Column(text, [samples.Prompt(text, text, [completion] * 3)] * 3)
    return {
        "title": text,
        "kicker": text,
        "status": Pill(text),
        "verdict": verdict,
        "facts": [(text, text)],
        "figures": [Figures(text, charts, text), Figures(text, charts, text, is_folded=True)],
        "chosen": samples.Samples(text, [problem] * 6, text, [column, column]),
        "reproduce": command,
        "recipe": text,
        "plan": text,
        "lock": table,
        "stages": table,
        "now": text,
        "overview": table,
        "recipes": several.Differences(table, text),
        "pairs": table,
        "environments": several.Differences(table, text),
        "matrix": table,
        "searches": [study.Search(text, charts, charts, parallel)],
        "trials": table,
    }


def rendered(template: str, text: str) -> str:
    return page.render(template, **everything(text))


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("template", ["run.html", "runs.html", "study.html"])
def test_text_stays_text_wherever_it_goes(template, text):
    hostile, plain = Outline(rendered(template, text)), Outline(rendered(template, "p" * len(text)))
    assert hostile.elements == plain.elements
    shown = visible(text, lines=True)
    assert sum(shown in one for one in hostile.texts) > 25  # elsewhere shortened, as JSON or CSV


def test_a_template_that_lacks_a_name_is_an_error():
    with pytest.raises(UndefinedError, match="verdict"):
        page.render("run.html", title="t", kicker="k", status=Pill("complete"))


@pytest.mark.parametrize("path", sorted(page.TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_no_template_turns_escaping_off(path):
    source = path.read_text()
    tree = page.environment().parse(source)
    filters = {node.name for node in tree.find_all(nodes.Filter)}
    assert filters <= {"svg", "wide", "csv", "attributes", "placed", "xmlattr", "length"}
    turned_off = (nodes.ScopedEvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)
    assert not list(tree.find_all(turned_off))
    assert not re.search(r"=\s*\{[{%]", re.sub(r"\{%.*?%\}", "", source)), "a value without quotes"


def test_a_page_allows_no_request_and_no_foreign_script():
    text = rendered("run.html", "plain")
    assert text.count("<script") == 1
    policy = next(value for value in Outline(text).texts if "default-src" in value)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy
    addresses = set(re.findall(r"https?://[\w./]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name space, not a request


def test_a_lone_surrogate_is_escaped():
    assert "a\\U0000d800b" in rendered("run.html", "a\ud800b")


def macro(name: str, *arguments: object) -> str:
    return getattr(page.environment().get_template("parts.html").module, name)(*arguments)


def test_a_column_of_numbers_is_set_to_the_right():
    text = macro("table", Table(["name", "n", "mixed"], [["a", 1, 1], ["b", None, Pill("best")]]))
    header = '<th scope="col">name</th><th scope="col" class="n">n</th><th scope="col">mixed</th>'
    assert header in text
    assert '<td>b</td><td class="n"></td><td><span class="pill ">best</span></td>' in text
    assert not any(Table(["empty"], []).numeric)


def test_a_link_leads_to_a_file_beside_the_page_whatever_its_name():
    hostile = ("javascript:alert(1)/report.html", '"><b>/r', "//x.invalid")
    for path in ("0001-ab/report.html", *hostile):
        outline = Outline(macro("table", Table(["run"], [[Link("0001-ab", path)]])))
        (address,) = [text for text in outline.texts if text.startswith("./")]
        assert not re.search(r'[<>" ]|^\w+:', address)
        tags = [tag for tag, _ in outline.elements if not tag.startswith("/")]
        assert tags == ["div", "table", "thead", "tr", "th", "tbody", "tr", "td", "a"]


def test_back_quotes_are_code_and_what_they_hold_is_text():
    text = macro("prose", "lower `<b>`, then `x`")
    assert text == "lower <code>&lt;b&gt;</code>, then <code>x</code>"
    assert macro("prose", "one ` alone") == "one ` alone"


def test_a_long_text_can_be_opened_and_a_short_one_is_whole():
    assert "<details>" not in macro("clamped", "a line\nand another", 4, "question")
    for text in ("a line\n" * 9, "words " * 100):
        clamped = macro("clamped", text, 4, "question")
        assert text in clamped, "all of it is in the page"
        assert clamped.count("<details>") == 1


@pytest.mark.parametrize("count", range(1, 14))
def test_no_card_is_left_alone_in_its_row(count):
    """In three columns each row is filled, and in two."""
    chart = Plot("k", "t", [Series("a", [1, 2], [1.0, 2.0])])
    cards = page.placed([chart] * count)
    widths = {"third": 2, "half": 3, "whole": 6}
    three = [widths[card.kind.split()[0]] for card in cards]
    two = [2 if "row" in card.kind else 1 for card in cards]
    for row, spans in ((6, three), (2, two)):
        taken = 0
        for span in spans:
            assert taken % row + span <= row
            taken += span
        assert taken % row == 0
    assert [card.is_wide for card in cards] == [
        wide > 2 or row == 2 for wide, row in zip(three, two, strict=True)
    ]


def test_facts_that_are_not_known_are_left_out():
    text = macro("facts", [("none", None), ("empty", ""), ("zero", 0)])
    assert "zero" in text and "none" not in text and "empty" not in text


def test_text_in_a_block_of_code_keeps_its_first_line_break():
    assert '<pre class="code">\n\nfirst' in macro("code", "\nfirst")  # a browser drops one


def test_charts_without_data_are_left_out():
    assert "<figure" not in macro("charts", [Plot("k", "t", [Series("a", [1], [None])])])
    axes = [Axis("a", ("0", "1")), Axis("b", ("0", "1"))]
    alone = Parallel("k", "Parallel coordinates", axes, [Line("trial 1", [0.0, 1.0])])
    names = everything("plain") | {"searches": [study.Search("s", [], [], alone)]}
    assert "Parallel coordinates" not in page.render("study.html", **names)
