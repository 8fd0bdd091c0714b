"""The pages of a folder of runs: which there are, what they say, and what nobody gets."""

import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from jinja2 import nodes

from r1recipes.report import page
from r1recipes.report.serve import overview
from r1recipes.report.serve.folder import Folder, Snapshot
from r1recipes.report.serve.pages import MAX_COMPARED, Pages
from r1recipes.report.serve.studies import StudySummary
from r1recipes.report.serve.summary import Summary
from tests.report.serve.conftest import RUN, settled
from tests.report.test_page import HOSTILE, Outline
from tests.system.test_hostile_runs import REPORTED, SECRET, TRAINED


class Links(HTMLParser):
    """Where the links of a page lead."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name == "href" and tag == "a" and value
        ]


def test_the_overview_leads_to_a_page_of_each_run(pages, followed):
    settled(followed)
    answer = pages.answer("/", "")
    links = [one for one in Links(answer.html).addresses if one.startswith("/run/")]
    assert sorted(links) == ["/run/old/complete", "/run/old/stopped"]
    for link in links:
        run = pages.answer(link, "")
        assert run.status == 200 and "← all runs" in run.html and "Log" in run.html


def test_the_page_of_a_run_is_that_of_report_with_the_newest_samples_first(pages):
    text = pages.answer(f"/run/{RUN}", "").html
    for title in ("Before and after", "Learning", "Newest training samples", "Reproduce", "Log"):
        assert f"<h2>{title}" in text
    steps = [int(step) for step in re.findall(r'data-key="Step (\d+)"', text)]
    assert steps == sorted(steps, reverse=True) and steps


def test_runs_are_compared(pages):
    text = pages.answer("/compare?run=old/complete&run=old/stopped", "").html
    assert "2 runs compared" in text and "What differs" in text


def test_a_page_is_made_again_only_when_something_has_changed(pages, followed, monkeypatch):
    first = pages.answer(f"/run/{RUN}", "")
    made: list[str] = []
    real = page.render_live

    def noted(template: str, **data: object) -> str:
        made.append(template)
        return real(template, **data)

    monkeypatch.setattr(page, "render_live", noted)
    assert pages.answer(f"/run/{RUN}", "") is first and not made
    assert pages.answer(f"/run/{RUN}", first.tag).status == 304 and not made
    with open(followed.runs_dir / RUN / "train.log", "a") as file:
        file.write("another line of the log\n")
    assert "another line of the log" in pages.answer(f"/run/{RUN}", first.tag).html
    assert len(made) == 1


@pytest.mark.parametrize(
    "address",
    [
        "/run/",
        "/run/old",
        "/run/../../secret",
        "/run/old/complete/../complete",
        "/run/%2e%2e/%2e%2e/etc/passwd",
        "/run//etc/passwd",
        "/run/old/complete%00",
        "/run/old/complete/record.json",
        "/run/old/complete/report.html",
        "/study/../",
        "/study/old/",
        "/study/%2e%2e%2fruns/",
        "/page.css",
        "/favicon.ico",
        "/record.json",
        "/\udc80",
        "/run/%ff%fe",
        "//evil.example/",
    ],
)
def test_no_address_leads_to_a_file(pages, followed, address):
    (followed.runs_dir.parent / "secret").mkdir()
    shutil.copy(followed.runs_dir / RUN / "record.json", followed.runs_dir.parent / "secret")
    answer = pages.answer(address, "")
    assert answer.status == 404 and "<h1>Not here" in answer.html


@pytest.mark.parametrize("number", [0, 1, MAX_COMPARED + 1])
def test_too_few_or_too_many_runs_are_not_compared(pages, number):
    query = "&".join(f"run=r{i}" for i in range(number))
    assert pages.answer(f"/compare?{query}", "").status == 400


def test_a_run_that_is_not_there_is_not_compared(pages):
    answer = pages.answer(f"/compare?run={RUN}&run=old/other", "")
    assert answer.status == 404 and "old/other" in answer.html and "There is no run" in answer.html


def test_a_run_that_is_deleted_is_gone(pages, followed):
    settled(followed)
    assert pages.answer(f"/run/{RUN}", "").status == 200
    shutil.rmtree(followed.runs_dir / RUN)
    assert pages.answer(f"/run/{RUN}", "").status == 404
    assert [run.key for run in settled(followed).runs] == ["old/stopped"]


@pytest.mark.parametrize("name", ["a b&c=d+e", "a\u202eb\u200b", "100%", "a?b#c", "ä"])
def test_a_folder_may_have_any_name(pages, followed, name):
    os.rename(followed.runs_dir / RUN, followed.runs_dir / "old" / name)
    assert_served(pages, followed, f"old/{name}")


def test_a_folder_may_have_a_name_that_is_no_text(pages, followed):
    name = os.fsdecode(b"a\xff\x80b")
    os.rename(followed.runs_dir / RUN, followed.runs_dir / "old" / name)
    assert_served(pages, followed, f"old/{name}")


def assert_served(pages: Pages, followed: Folder, key: str) -> None:
    settled(followed)
    answer = pages.answer("/", "")
    answer.html.encode()
    links = [one for one in Links(answer.html).addresses if one.startswith("/run/")]
    named = [one for one in links if unquote(one, errors="surrogateescape") == f"/run/{key}"]
    assert len(named) == 1 and named[0].isascii()
    assert pages.answer(named[0], "").status == 200
    query = named[0].replace("/run/", "run=")
    assert "2 runs compared" in pages.answer(f"/compare?{query}&run=old/stopped", "").html


@pytest.fixture
def hostile(runs_dir, monkeypatch) -> Path:
    """A run for the cases, with what they lead to outside of it."""
    (runs_dir.parent / "secret").write_text(SECRET)
    (runs_dir.parent / "elsewhere").mkdir()
    monkeypatch.chdir(runs_dir.parent)
    return runs_dir / RUN


@pytest.mark.parametrize("name", [*REPORTED, "a log that is a link", "an owner that is a link"])
def test_a_hostile_run_is_shown_as_damaged_and_hides_no_other(hostile, name):
    (REPORTED | TRAINED)[name](hostile)
    folder = Folder(hostile.parents[1])
    folder.start()
    snapshot = settled(folder)
    states = {run.key: run.state for run in snapshot.runs}
    assert states["old/stopped"] == "stopped" and set(states) <= {RUN, "old/stopped"}
    pages = Pages(folder, "the runs")
    for address in ("/", f"/run/{RUN}", f"/compare?run={RUN}&run=old/stopped"):
        answer = pages.answer(address, "")
        assert (
            answer.status in (200, 404) and SECRET not in answer.html and "\x1b" not in answer.html
        )
        answer.html.encode()
        assert pages.answer(address, answer.tag).status in (304, 404)


def test_a_run_that_was_damaged_is_read_again_when_it_is_whole(pages, followed):
    path = followed.runs_dir / RUN / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"step": 1,', '"step": "one",', 1))
    assert {run.state for run in settled(followed).runs} == {"damaged", "stopped"}
    assert "<h1>Damaged" in pages.answer(f"/run/{RUN}", "").html
    path.write_text(whole + "\n")
    assert {run.state for run in settled(followed).runs} == {"complete", "stopped"}
    assert "<h1>Damaged" not in pages.answer(f"/run/{RUN}", "").html


def snapshot_of(text: str) -> Snapshot:
    """A run and a study with `text` wherever a string can be."""
    names = "key started state problem recipe model algorithm study phase measure verdict sentence"
    texts: dict[str, Any] = dict.fromkeys(names.split(), text)
    numbers: dict[str, Any] = {"step": 1, "max_steps": 2, "value": 1.0, "curve": (1.0, 2.0)}
    numbers |= {"seconds_a_step": 1.0, "seconds_left": 1.0, "before": 0.1, "latest": (1, 0.5)}
    of_study: dict[str, Any] = dict.fromkeys(
        "name progress metric best params problem".split(), text
    )
    return Snapshot(1, (Summary(**texts, **numbers),), (StudySummary(**of_study),))


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text_in_the_overview(text):
    hostile = Outline(overview.html(snapshot_of(text), '"t"', text))
    parts = "plain" + "/part" * text.count("/")  # a model's name may break after each slash
    plain = Outline(overview.html(snapshot_of(parts), '"t"', parts))
    assert hostile.elements == plain.elements


@pytest.mark.parametrize(
    "path", sorted(page.LIVE_TEMPLATES.glob("*.html")), ids=lambda path: path.name
)
def test_no_template_turns_escaping_off(path):
    source = path.read_text()
    tree = page.environment().parse(source)
    assert {node.name for node in tree.find_all(nodes.Filter)} <= {"length"}
    turned_off = (nodes.ScopedEvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)
    assert not list(tree.find_all(turned_off))
    assert not re.search(r"=\s*\{[{%]", re.sub(r"\{%.*?%\}", "", source)), "a value without quotes"


def test_an_empty_folder_says_how_to_begin(tmp_path):
    for runs_dir in (tmp_path, tmp_path / "none"):
        folder = Folder(runs_dir)
        folder.start()
        assert "There is no run yet" in Pages(folder, "nothing").answer("/", "").html
