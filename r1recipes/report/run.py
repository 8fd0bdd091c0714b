"""Run folders -> one self-contained HTML page: verdict, curves, samples, recipe, how to reproduce.

Of several runs: overlaid curves, what differs in their recipes, and a paired comparison. `Live`
writes the page of a run while it trains, and never stops or slows it.
"""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from r1recipes.machine import files
from r1recipes.machine.units import duration
from r1recipes.report import charts, curves, page, samples, scales
from r1recipes.report.charts import Chart
from r1recipes.runs import health, reading
from r1recipes.runs.reading import Reading
from r1recipes.runs.record import Run

EVERY_S = 180.0
"""Seconds between two pages of a run that trains."""
MAX_SHARE = 0.005
"""Share of the training time that writing pages may take."""
TONES = {"complete": "good", "failed": "bad", "killed": "bad"}


def html(runs: Sequence[Run]) -> str:
    """The page of one run, or of several that are compared.

    Raises: RecipeError when a file of a run is damaged.
    """
    with reading.understood(*runs):
        readings = _labelled(runs)
        return _single(readings[0]) if len(runs) == 1 else _several(readings)


def _labelled(runs: Sequence[Run]) -> list[Reading]:
    names = reading.letters(len(runs)) if len(runs) > 1 else [""]
    return [reading.read(run, name) for run, name in zip(runs, names, strict=True)]


def write_csv(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write the data of every chart into `folder`, made if need be. Returns the files."""
    with reading.understood(*runs):
        drawn = curves.every(_labelled(runs))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in drawn:
        written.append(folder / f"{chart.key}.csv")
        files.write_text(written[-1], charts.csv(chart))
    return written


class Live:
    """Writes report.html beside a run that trains; what goes wrong is said once and forgotten."""

    def __init__(self, run: Run, say: Callable[[str], None]):
        self._run = run
        self._say = say
        self._said = False
        self._next = time.monotonic()  # the first step is worth a page

    def step(self) -> None:
        """A step is done; write the page if it is time."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write the page now."""
        began = time.monotonic()
        try:
            files.write_text(self._run.report, html([self._run]))
        except Exception as error:  # a page is worth less than the run that it is about
            if not self._said:
                self._said = True
                self._say(f"warning: no report was written: {error}")
        now = time.monotonic()
        self._next = now + max(EVERY_S, (now - began) / MAX_SHARE)


def _single(run: Reading) -> str:
    blocks = [
        _verdict(run),
        page.facts(_facts(run)),
        _figures("Before and after", curves.results([run]), _held_out_note(run)),
        _figures("Learning", curves.learning([run])),
        _figures("Optimiser", curves.optimiser([run]), _kl_note(run)),
        _figures("Time and memory", curves.cost([run])),
        samples.section(run),
        _reproduce(run),
        _footer(),
    ]
    title = run.record.get("description") or run.record.get("recipe", run.name)
    pill = page.pill(run.status, TONES.get(run.status, ""))
    return page.document(title, blocks, kicker=run.name, pill=pill)


def _figures(title: str, drawn: Sequence[Chart], note: str = "") -> Markup:
    return page.section(title, page.figures(drawn), note=note) if drawn else Markup("")


def _verdict(run: Reading) -> Markup:
    before, after, status = run.evaluated("before"), run.evaluated("after"), run.status
    if status == "complete" and before and after:
        headline = Markup('<span class="from">{} →</span> {}').format(
            percent(before["accuracy"]), percent(after["accuracy"])
        )
        found = run.record["evaluation"]["difference"]
        sentence, tone = difference_sentence(found["mean"], found["interval"])
        where = f"{after['num_problems']} held-out problems, {after['num_samples']} samples each"
        greedy = f"Greedy {percent(before['greedy'])} → {percent(after['greedy'])}."
        return page.verdict(headline, f"{sentence} on {where}. {greedy}", tone=tone)
    done = f"step {run.steps} of {run.max_steps}" if run.max_steps else f"step {run.steps}"
    start = f"Accuracy before training: {percent(before['accuracy'])}." if before else ""
    if status == "failed":
        message = (run.record.get("error") or {}).get("message", "the record does not say why")
        return page.verdict(
            f"Failed at {done}", message, _sentence(run), start, tone="worse", words=True
        )
    return page.verdict(f"{status.capitalize()}: {done}", _sentence(run), start, words=True)


def difference_sentence(mean: float, interval: Sequence[float]) -> tuple[str, str]:
    """What a difference of accuracies says, and its tone: better, worse or nothing."""
    low, high = interval
    said = f"{100 * mean:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    if low > 0:
        return f"Better: {said}", "better"
    if high < 0:
        return f"Worse: {said}", "worse"
    return f"No clear difference: {said}", ""


def _sentence(run: Reading) -> str:
    """Whether it learned, as the live view says it."""
    limit = run.resolved.get("preset", {}).get("max_completion_length")
    weights = run.recipe.get("rewards", {})
    if not (run.metrics and limit and weights):
        return ""
    found = health.sentence(
        run.metrics, max_completion_length=limit, max_reward=sum(weights.values())
    )
    return f"{found}."


def _facts(run: Reading) -> list[tuple[str, Any]]:
    resolved, machine = run.resolved, run.lock.get("machine") or {}
    preset, threads = resolved.get("preset", {}), machine.get("num_threads")
    group = preset.get("num_generations")
    cpu = f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else None
    last = run.metrics[-1] if run.metrics else {}
    vram = (run.record.get("vram") or {}).get("measured_bytes")
    return [
        ("Model", run.recipe.get("model", {}).get("name")),
        ("Data", run.recipe.get("data", {}).get("name")),
        ("Preset", run.record.get("preset")),
        ("Machine", machine.get("gpu") or cpu),
        ("Steps", f"{run.steps} of {run.max_steps}" if run.max_steps else run.steps or None),
        ("Completions a step", f"{preset['prompts_per_step']} x {group}" if group else None),
        ("Time", duration(run.duration_s)),
        ("Peak memory", f"{vram / 2**30:.2f} GiB" if vram else None),
        ("Reward failures", sum((last.get("reward_failures") or {}).values()) or None),
        ("Started", str(run.record.get("started", "")).replace("T", " ").replace("Z", " UTC")),
        ("Fingerprint", str(run.record.get("fingerprint", ""))[:8]),
    ]


def _held_out_note(run: Reading) -> str:
    found = run.evaluated("after") or run.evaluated("before")
    return f"On {found['num_problems']} problems that are in no training set." if found else ""


def _kl_note(run: Reading) -> str:
    beta = run.recipe.get("train", {}).get("beta")
    return "The KL divergence is not measured at beta = 0." if beta == 0 else ""


def _reproduce(run: Reading) -> Markup:
    command = ["r1recipes run", f"{run.record.get('recipe', 'recipe')}.toml"]
    if run.record.get("preset"):
        command.append(f"--preset {run.record['preset']}")
    for flag in run.lock.get("overrides", []):
        command.append(f"--set {shlex.quote(flag.removeprefix('--set ').strip())}")
    versions = run.lock.get("versions", {})
    blocks = [page.code(" ".join(command))]
    if run.recipe_text:
        blocks.append(page.details("The recipe, as given", page.code(run.recipe_text)))
    if run.resolved:
        plan = {key: value for key, value in run.resolved.items() if key != "base_dir"}
        shown = json.dumps(plan, indent=1, ensure_ascii=False)
        blocks.append(page.details("The plan, with nothing left open", page.code(shown)))
    if run.lock:
        rows = [(name, _shown(value)) for name, value in run.environment.items()]
        blocks.append(page.details("The lock", page.table(["what", "value"], rows)))
    note = f"With r1recipes {versions.get('r1recipes', '')} and the recipe below; the lock has the "
    return page.section("Reproduce", *blocks, note=note + "versions and hashes that made it.")


def _several(runs: list[Reading]) -> str:
    blocks = [
        _ranking(runs),
        page.table(*_overview(runs)),
        page.section("What differs in the recipes", _differences([r.settings for r in runs], runs)),
        page.section("Paired comparison", _pairs(runs), note=_PAIRED),
        _figures("Before and after", curves.results(runs)),
        _figures("Learning", curves.learning(runs)),
        _figures("Optimiser", curves.optimiser(runs)),
        _figures("Time and memory", curves.cost(runs)),
    ]
    others = reading.differing([r.environment for r in runs])
    if others:
        table = _differences([r.environment for r in runs], runs)
        blocks.append(page.details("What else differs: versions, machine, inputs", table))
    return page.document(f"{len(runs)} runs compared", [*blocks, _footer()])


_PAIRED = (
    "Accuracy after training on the problems that both answered; their difference has a narrower "
    "interval than the two apart."
)


def _ranking(runs: list[Reading]) -> Markup:
    ranked = reading.best(runs)
    if not ranked:
        return page.verdict("No run has been evaluated after training yet", words=True)
    best = ranked[0]
    said = f"{best.label} has the highest accuracy: {percent(best.evaluated('after')['accuracy'])}"
    if len(ranked) == 1:
        return page.verdict(said, "No other run has been evaluated yet.", words=True)
    found = reading.paired(ranked[1], best)
    if found is None:
        return page.verdict(said, "The runs answered different problems.", words=True)
    sentence, tone = difference_sentence(found.mean, found.interval)
    where = f"against {ranked[1].label}, the next, on the same {found.num_problems} problems"
    headline = said if found.is_clear else f"{said}, but it is no clear winner"
    if found.mean == 0:
        headline = (
            f"{best.label} and {ranked[1].label} are equal on the problems that both answered"
        )
    return page.verdict(headline, f"{sentence}, {where}.", tone=tone, words=True)


def _overview(runs: list[Reading]) -> tuple[list[str], list[list[Any]]]:
    rows = []
    for run in runs:
        steps = f"{run.steps} of {run.max_steps}" if run.max_steps else run.steps
        cells = [run.label, run.name, run.status, steps, duration(run.duration_s)]
        rows.append([*cells, *(_accuracy(run.evaluated(when)) for when in ("before", "after"))])
    return ["", "run", "status", "steps", "time", "before", "after"], rows


def _accuracy(found: dict[str, Any]) -> str:
    if not found:
        return ""
    low, high = found["interval"]
    return f"{percent(found['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


def _differences(tables: list[dict[str, Any]], runs: list[Reading]) -> Markup:
    found = reading.differing(tables)
    unknown = reading.unknown(runs, tables)
    note = Markup("<p>Not known of {}.</p>").format(unknown) if unknown else Markup("")
    if not found:
        return note or Markup("<p>Nothing: the recipes are the same.</p>")
    header = ["key", *(run.label for run in runs)]
    rows = [[key, *map(_shown, values)] for key, values in found.items()]
    return note + page.table(header, rows)


def _pairs(runs: list[Reading]) -> Markup:
    """Each run against the first."""
    rows = []
    for run in runs[1:]:
        found = reading.paired(runs[0], run)
        if found is None:
            rows.append([f"{run.label} - {runs[0].label}", "no common problems", None])
            continue
        said, _ = difference_sentence(found.mean, found.interval)
        rows.append([f"{run.label} - {runs[0].label}", said, found.num_problems])
    return page.table(["", "difference", "problems"], rows)


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def percent(share: float) -> str:
    return scales.text(share, "%").replace(" ", "\u00a0")


def _footer() -> Markup:
    return Markup("<footer>Made by r1recipes, {}.</footer>").format(
        files.now().replace("T", " ").replace("Z", " UTC")
    )
