"""The probe: what can be learned, by the samples of the untrained model on the held-out problems.

Learning needs differences within a group. Where only the format differs, only the format is
learned, however far the reward rises. Limits: groups of the size of the evaluation, which are
smaller than those of the training; a handful of completions proves nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1recipes.errors import RunError, command
from r1recipes.planning import Plan
from r1recipes.rewards.answers import extract_answer, final_answer
from r1recipes.runs.reading import Row
from r1recipes.training.evaluation import Score, reward_arguments

MIN_CUT = 8
"""Completions before a run is refused for cuts; derived. More than 0.9 of 8 completions means all
8, and if half of all completions were cut, chance would cut all 8 once in 256."""
MIN_GROUPS = 16
"""Groups before a run is refused because no group has spread; derived. If a fifth of the groups had
spread, chance would show none in 16 groups once in 35."""
MIN_SINGLES = 20
"""Completions before a run is refused for no spread where each problem has one, so that all of them
are judged as one group; derived. If one completion in seven earned something else, chance would
show none in 20 once in 22."""
KNOWN_ELSEWHERE = 2.0
"""Right answers anywhere for each one in the tags, from which on the format is what is missing;
assumed."""

MANY_SAME = 0.5
"""Share of the groups that are all right or all wrong from which on the filter is named; assumed.
"""

Judge = Callable[[list[tuple[str | None, Any]]], list[bool]]
"""(answer, reference) pairs -> whether each is right."""


@dataclass(frozen=True)
class Probe:
    """What the samples of the untrained model say about whether anything can be learned.

    A share of groups counts those whose completions do not all earn the same. With one completion
    for each problem, all completions are one group.
    """

    share_cut: float
    share_rewarded: float
    share_spread: float
    """Share of the groups whose weighted sums of rewards differ."""
    num_problems: int
    num_samples: int
    """Completions for each problem."""
    share_right: float = 0.0
    """Share of the completions that the decisive reward calls right."""
    share_decisive_spread: float = 0.0
    """Share of the groups whose completions differ in the decisive reward."""
    share_tagged: float = 0.0
    """Share of the completions that hold an answer in its tags."""
    share_right_anywhere: float | None = None
    """Share of the completions whose final answer is right, in the tags or not; None where answers
    are not judged."""
    unpaid: str = ""
    """Names of the rewards with a weight above 0 that paid 0 for every completion: `a, b`."""


def probe(
    items: list[dict[str, Any]],
    rows: Sequence[Row],
    rewards: Mapping[str, tuple[Score, float]],
    judge: Judge | None = None,
) -> Probe:
    """Pay the samples of an evaluation as training would pay them. `rewards`: name of each ->
    (reward, weight)."""
    samples = [sample for item in items for sample in item["samples"]]
    texts = [[sample["text"] for sample in item["samples"]] for item in items]
    arguments = reward_arguments(rows, texts)
    totals, unpaid = [0.0] * len(samples), []
    for name, (reward, weight) in rewards.items():
        paid = reward(**arguments)
        if weight > 0 and not any(paid):
            unpaid.append(name)
        totals = [t + weight * (value or 0.0) for t, value in zip(totals, paid, strict=True)]
    right = [float(sample["right"]) for sample in samples]
    anywhere = None
    if judge:
        pairs = [
            (final_answer(sample["text"]), item["answer"])
            for item in items
            for sample in item["samples"]
        ]
        rights = [a or bool(b) for a, b in zip(judge(pairs), right, strict=True)]
        anywhere = _share(rights)
    return Probe(
        share_cut=_share([sample["cut"] for sample in samples]),
        share_rewarded=_share([total > 0 for total in totals]),
        share_spread=_spread(totals, len(texts[0])),
        num_problems=len(texts),
        num_samples=len(texts[0]),
        share_right=_share([bool(value) for value in right]),
        share_decisive_spread=_spread(right, len(texts[0])),
        share_tagged=_share([extract_answer(sample["text"]) is not None for sample in samples]),
        share_right_anywhere=anywhere,
        unpaid=", ".join(unpaid),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)


def _spread(paid: Sequence[float], size: int) -> float:
    """Share of the groups of `size` that are not all paid the same."""
    width = size if size > 1 else len(paid)
    groups = [paid[i : i + width] for i in range(0, len(paid), width)]
    return _share([max(group) - min(group) > 1e-6 for group in groups])


def outlook(result: Probe, decisive: str, *, is_filtered: bool = False) -> str:
    """What training will be able to teach, in a sentence; begins with "warning: " where that is not
    the answers. `decisive` is the name of the reward that decides; `is_filtered` says that the
    recipe leaves out problems by `data.keep` already."""
    sentence = _outlook(result, decisive)
    return sentence if is_filtered else sentence + _filter(result)


def unpaid(result: Probe, decisive: str) -> str:
    """A warning of rewards that paid nothing before training; empty where there are none. Of the
    decisive reward the outlook speaks."""
    names = [f"`{name}`" for name in result.unpaid.split(", ") if name and name != decisive]
    if not names:
        return ""
    return (
        f"warning: {', '.join(names)} paid 0 for all {result.num_problems * result.num_samples} "
        f"completions before training: `{command('grade', 'RECIPE', '--sample', '8')}` shows why"
    )


def _outlook(result: Probe, decisive: str) -> str:
    right = f"{result.share_right:.0%} of the completions are right"
    if result.share_decisive_spread > 0:
        groups = "completions" if result.num_samples == 1 else "groups"
        share = f"{result.share_decisive_spread:.0%} of the {groups} differ in `{decisive}`"
        share = f"`{decisive}` differs" if result.num_samples == 1 else share
        return f"Answers can be learned: {share}, and {right}"
    where = f"no group of {result.num_samples} differs in `{decisive}`"
    if result.share_right > 0.5:
        return f"warning: little is left to learn: {where}, and {right}; use harder problems"
    lesson = "only the format can be learned" if result.share_spread else "nothing can be learned"
    return f"warning: {lesson}: {where}, and {right}; {_help(result)}"


def _filter(result: Probe) -> str:
    """The key that leaves out the groups that teach nothing, where they are many and not all."""
    same = 1 - result.share_decisive_spread
    is_mixed = 0 < result.share_right < 1
    if result.num_samples == 1 or same < MANY_SAME or not is_mixed:
        return ""
    return (
        f"; in {same:.0%} of the groups all are right or all wrong: `data.keep = [0.1, 0.9]` "
        "trains on problems in between"
    )


def _help(result: Probe) -> str:
    anywhere = result.share_right_anywhere or 0.0
    if anywhere > 0.02 and anywhere > KNOWN_ELSEWHERE * result.share_right:
        return (
            f"{anywhere:.0%} are right outside the tags, so the format is what is missing: change "
            "[prompt], or add a [cold_start]"
        )
    return "use easier problems, another [prompt] or a stronger model"


def refuse_hopeless(result: Probe, plan: Plan) -> None:
    """Refuse to train when the probe shows that nothing can be learned. Raises: RunError (reward).

    A handful of completions proves nothing and is let through.
    """
    if result.share_cut > 0.9 and result.num_problems * result.num_samples >= MIN_CUT:
        raise RunError(
            f"{result.share_cut:.0%} of the completions are cut at max_completion_length = "
            f"{plan.preset.max_completion_length} before they end, so hardly any can be right",
            kind="reward",
            hint="raise `max_completion_length`, or train anyway with `--force`",
        )
    is_single = result.num_samples == 1
    if result.share_spread == 0 and result.num_problems >= (
        MIN_SINGLES if is_single else MIN_GROUPS
    ):
        if result.share_rewarded == 0:
            why, hint = "no completion earns any reward", "start from a model that knows the format"
        else:
            group = "all completions" if is_single else "all completions of each prompt"
            why = f"{group} earn the same"
            temperature = plan.recipe.train.temperature
            hint = f"raise `train.temperature` ({temperature}), or use harder problems"
        raise RunError(
            f"nothing can be learned: {why}, and {plan.algorithm.title} learns from differences "
            "within a group",
            kind="reward",
            hint=f"{hint}, or train anyway with `--force`",
        )
