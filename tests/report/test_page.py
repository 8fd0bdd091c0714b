from markupsafe import Markup

from r1recipes.report import page
from r1recipes.report.charts import Plot, Series

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


def test_text_is_escaped_wherever_it_goes():
    plot = Plot("k", HOSTILE, [Series(HOSTILE, [1, 2], [1.0, 2.0]), Series("b", [1], [1.0])])
    text = page.document(
        HOSTILE,
        [
            page.verdict(HOSTILE, HOSTILE),
            page.facts([(HOSTILE, HOSTILE)]),
            page.section(HOSTILE, page.figures([plot]), note=HOSTILE),
            page.table([HOSTILE], [[HOSTILE]]),
            page.details(HOSTILE, page.code(HOSTILE)),
        ],
        kicker=HOSTILE,
        pill=page.pill(HOSTILE),
    )
    assert text.count("<script>") == 1 and "<img" not in text
    assert text.count("&lt;img src=x") > 10


def test_a_page_allows_no_request_and_no_foreign_script():
    text = page.document("t", [Markup("<p>hi</p>")])
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "script-src &#39;sha256-" in text or "script-src 'sha256-" in text
    assert "http://" not in text and "https://" not in text


def test_a_column_of_numbers_is_set_to_the_right():
    text = page.table(["name", "n"], [["a", 1], ["b", None]])
    assert '<th class="n">n</th>' in text and "<th>name</th>" in text


def test_charts_without_data_are_left_out():
    assert "<figure" not in page.figures([Plot("k", "t", [Series("a", [1], [None])])])
