"""Completions side by side: held-out problems before and after, training samples first and last."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from r1recipes.report import page
from r1recipes.runs.reading import Reading

MAX_CHARACTERS = 6000
"""Of a prompt or a completion; the rest is in the .jsonl file."""
WANTED = (("became right", 2), ("became wrong", 1), ("stayed wrong", 1), ("stayed right", 1))
"""Which held-out problems are shown, by what training did to their greedy answer."""
MAX_PROBLEMS = 4


def section(run: Reading) -> Markup:
    """The section of a page, empty before there is a sample."""
    blocks = [*_held_out(run), *_training(run)]
    if not blocks:
        return Markup("")
    return page.section("Samples", *blocks)


def _held_out(run: Reading) -> list[Markup]:
    picked = pick(run.before, run.after)
    if not picked:
        return []
    title = page.heading("The same held-out problem, before and after, greedy")
    return [title, *(_problem(kind, b, a) for kind, b, a in picked)]


def pick(
    before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]
) -> list[tuple[str, dict, dict]]:
    """A few problems, those first that tell most: (what became of it, before, after)."""
    kinds: dict[str, list] = {kind: [] for kind, _ in WANTED}
    for old, new in zip(before, after, strict=False):
        was, is_now = old["greedy"]["right"], new["greedy"]["right"]
        verb = "stayed" if was == is_now else "became"
        kinds[f"{verb} {'right' if is_now else 'wrong'}"].append((old, new))
    found = [(kind, *pair) for kind, number in WANTED for pair in kinds[kind][:number]]
    return found[:MAX_PROBLEMS]


def _problem(kind: str, before: dict[str, Any], after: dict[str, Any]) -> Markup:
    sides = []
    for when, item in (("Before", before), ("After", after)):
        shares = [sample["right"] for sample in item["samples"]]
        said = f"{when}; {sum(shares)} of {len(shares)} samples right"
        right = item["greedy"]["right"]
        mark = page.pill("right" if right else "wrong", "good" if right else "bad")
        sides.append(_side(said, mark, item["greedy"]["text"]))
    return _sample(before["question"], before["answer"], sides, kind)


def _training(run: Reading) -> list[Markup]:
    rows = [row for row in run.completions if "step" in row]
    if not rows:
        return []
    first, last = rows[0]["step"], rows[-1]["step"]
    if first == last:
        title = page.heading(f"Training samples of step {first}: best, worst and the first")
    else:
        title = page.heading(f"Training samples of step {first} against step {last}")
    old = [row for row in rows if row["step"] == first]
    new = [row for row in rows if row["step"] == last] if first != last else []
    columns = [
        Markup("<div>{}</div>").format(page.join(_paid(row, run) for row in column))
        for column in (old, new)
        if column
    ]
    return [title, Markup('<div class="pair">{}</div>').format(page.join(columns))]


def _paid(row: dict[str, Any], run: Reading) -> Markup:
    weights = run.recipe.get("rewards", {})
    rewards = {name: value for name, value in row["rewards"].items() if value is not None}
    total = sum(weights.get(name, 1.0) * value for name, value in rewards.items())
    chips = [page.pill(f"{name} {value:g}", _tone(value)) for name, value in rewards.items()]
    said = Markup('<p class="tag chips">{}</p>').format(page.join(chips))
    side = _side(f"Step {row['step']}, reward {total:.2f}", Markup(""), row["completion"])
    return _sample(row["prompt"], row.get("answer"), [side, said], "")


def _tone(value: float) -> str:
    return "good" if value >= 1 else "bad" if value <= 0 else ""


def _side(said: str, mark: Markup, text: str) -> Markup:
    return Markup('<div><p class="tag">{}{}</p><pre>\n{}</pre></div>').format(
        said, mark, _cut(text)
    )


def _cut(text: Any) -> str:
    text = str(text)
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " ..."


def _sample(question: str, answer: Any, sides: Sequence[Markup], kind: str) -> Markup:
    mark = page.pill(kind, "good" if kind.endswith("right") else "bad") if kind else ""
    given = Markup(' <span class="note">answer {}</span>').format(answer) if answer else ""
    body = page.join(sides)
    if kind:
        body = Markup('<div class="pair">{}</div>').format(body)
    return Markup('<div class="card sample"><p class="question">{}{}{}</p>{}</div>').format(
        _cut(question), given, mark, body
    )
