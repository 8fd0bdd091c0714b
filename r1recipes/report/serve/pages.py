"""The pages that the server has, by their addresses: which there are, and what is in them.

A page is made again when something that it shows has changed, and is otherwise kept for the others
who ask. Addresses name runs and studies that a look has met; none is ever a path that is opened.
"""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import unquote

from r1recipes.errors import R1RecipesError
from r1recipes.report import page, run, samples
from r1recipes.report.serve import overview
from r1recipes.report.serve.folder import Folder
from r1recipes.report.serve.followed import FollowedReading, FollowedRun, tag
from r1recipes.report.serve.overview import Live
from r1recipes.report.serve.studies import FollowedStudy
from r1recipes.report.serve.summary import address_of
from r1recipes.runs import reading
from r1recipes.runs.record import following

MAX_COMPARED = 20
"""Runs on one page; assumed, more curves over each other cannot be told apart."""
MAX_KEPT = 8
"""Pages that are kept; assumed, those of the tabs that are open."""
NEWEST_STEPS = 5
"""Steps whose samples the page of a run shows, the newest first; assumed."""
LOG_BYTES = 64 * 1024
"""Bytes at the end of train.log that the page of a run shows; assumed, some hundred lines."""


@dataclass(frozen=True)
class Answer:
    """What is sent. `html` is empty where the asker has the page already, or is sent elsewhere."""

    status: int
    html: str = ""
    tag: str = ""
    location: str = ""


class Pages:
    """The pages of a folder of runs."""

    def __init__(self, folder: Folder, place: str):
        self._folder, self._place = folder, place
        self._start = secrets.token_hex(4)
        """Tells the pages of this server from those of one that ran before it."""
        self._kept: OrderedDict[str, Answer] = OrderedDict()
        self._lock = threading.Lock()

    def answer(self, address: str, known_tag: str) -> Answer:
        """The page at an address, unless `known_tag` is that of the page as it is now."""
        encoded, _, query = address.partition("?")
        path = unquote(encoded, errors="surrogateescape")  # as the file system has names
        if path == "/":
            return self._overview(known_tag)
        if path.startswith("/run/"):
            return self._run(path.removeprefix("/run/"), known_tag)
        if path == "/compare":
            return self._compare(_named_runs(query), known_tag)
        if path.startswith("/study/"):
            return self._below_study(path.removeprefix("/study/"), known_tag)
        return self._message(404, "There is no such page.")

    def _overview(self, known_tag: str) -> Answer:
        if not known_tag:
            self._folder.give_way()
        snapshot = self._folder.look()
        make = partial(overview.html, snapshot, place=self._place)
        return self._page("/", tag(self._start, snapshot.number), known_tag, make)

    def _run(self, key: str, known_tag: str) -> Answer:
        followed = self._folder.run(key)
        if followed is None or not followed.run.record.is_file():
            return self._message(404, f"There is no run {key}: it was deleted, or never there.")
        with followed.lock:
            now = tag(self._start, followed.stamps())
            return self._page(f"/run/{key}", now, known_tag, partial(run_html, followed))

    def _compare(self, keys: Sequence[str], known_tag: str) -> Answer:
        keys = list(dict.fromkeys(keys))
        if not 2 <= len(keys) <= MAX_COMPARED:
            text = f"From 2 to {MAX_COMPARED} runs can be compared, not {len(keys)}."
            return self._message(400, text)
        runs = {key: self._folder.run(key) for key in keys}
        present = [one for one in runs.values() if one and one.run.record.is_file()]
        if len(present) < len(keys):
            gone = [key for key, one in runs.items() if one not in present]
            return self._message(404, f"There is no run {', '.join(gone)}.")
        with ExitStack() as stack:
            for one in sorted(present, key=lambda one: one.key):  # in one order: no deadlock
                stack.enter_context(one.lock)
            now = tag(self._start, [one.stamps() for one in present])
            name = "/compare " + " ".join(keys)
            return self._page(name, now, known_tag, partial(comparison_html, present))

    def _below_study(self, path: str, known_tag: str) -> Answer:
        """The page of a study, at `NAME/`: it leads to the reports of its trials, which are beside
        it on the disk, and here are pages of runs."""
        name, slash, rest = path.partition("/")
        study = self._folder.study(name)
        if study is None:
            return self._message(404, f"There is no study {name}: it was deleted, or never there.")
        if not slash:
            return _moved(f"/study/{address_of(name)}/")
        if rest:
            run = rest.removesuffix("/report.html")
            return _moved(f"/run/{address_of(f'{name}/{run}')}")
        return self._study(study, known_tag)

    def _study(self, study: FollowedStudy, known_tag: str) -> Answer:
        from r1recipes.report import study as study_page  # Optuna takes a second to import

        def make(tag: str) -> str:
            with study.opened() as cells:
                return study_page.html(cells, study.file.parent, _renderer(Live(tag)))

        with study.lock:
            now = tag(self._start, study.stamps())
            return self._page(f"/study/{study.name}", now, known_tag, make)

    def _page(self, name: str, now: str, known_tag: str, make: Callable[..., str]) -> Answer:
        """The page `name`, whose tag is `now`; it is made where none is kept with that tag."""
        if now == known_tag:
            return Answer(304, tag=now)
        with self._lock:
            kept = self._kept.get(name)
        if kept is None or kept.tag != now:
            try:
                kept = Answer(200, make(tag=now), now)
            except R1RecipesError as error:
                problem = error.problems[0]
                return self._message(200, f"{problem.where or ''} {problem.message}", now)
        with self._lock:
            self._kept[name] = kept
            self._kept.move_to_end(name)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return kept

    def _message(self, status: int, text: str, now: str = '""') -> Answer:
        title = {404: "Not here", 400: "Not possible"}.get(status, "Damaged")
        html = page.render_live(
            "live_message.html", title=title, kicker="", live=Live(now), message=text.strip()
        )
        return Answer(status, html, now)


def _named_runs(query: str) -> list[str]:
    """The keys in `run=A&run=B`. A plus sign is one: keys are written as in a path."""
    values = [part.removeprefix("run=") for part in query.split("&") if part.startswith("run=")]
    return [unquote(value, errors="surrogateescape") for value in values]


def _moved(location: str) -> Answer:
    return Answer(302, location=location)


def _renderer(live: Live, **more: object) -> Callable[..., str]:
    """What makes a live page of the template of a page that is not."""

    def render(template: str, **names: object) -> str:
        return page.render_live(f"live_{template}", live=live, **names, **more)

    return render


def run_html(followed: FollowedRun, tag: str) -> str:
    """The page of a run, with its newest samples and the end of its log. Raises: RecipeError."""
    with reading.understood(followed.run):
        about = followed.reading()
        newest = samples.newest(about, NEWEST_STEPS)
        return run.html_of([about], _renderer(Live(tag), newest=newest, log=_log(about)))


def _log(about: FollowedReading) -> str:
    """The end of the log; where it cannot be read, that it cannot be."""
    try:
        return following.tail(about.run.folder, about.run.log.name, LOG_BYTES).rstrip()
    except OSError as error:
        return f"{about.run.log.name} cannot be read: {error.strerror or error}"
    except R1RecipesError as error:
        return f"{about.run.log.name} {error.problems[0].message}"


def comparison_html(runs: Sequence[FollowedRun], tag: str) -> str:
    """The page of several runs. Raises: RecipeError."""
    with reading.understood(*(one.run for one in runs)):
        letters = reading.letters(len(runs))
        readings = [replace(one.reading(), label=a) for one, a in zip(runs, letters, strict=True)]
        return run.html_of(readings, _renderer(Live(tag)))
