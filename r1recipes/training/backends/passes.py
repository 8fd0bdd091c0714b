"""The rows of an optimiser step, cut into forward and backward passes that do less work.

TRL pads all completions of a step to one length and cuts them, shuffled, into passes of equal
numbers of rows. Here rows without an advantage are left out, the others are sorted by length, cut
into passes of about equal numbers of tokens, and each pass is trimmed to its own longest prompt and
completion. The gradient of the step stays the same up to the order of sums: what a loss allows is
in `PassRules`, and no pass has more tokens than the plan has memory for. Limits: text models, one
update for each generation (`algorithms.group`), one process.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from r1recipes.algorithms.step import PassRules
from r1recipes.errors import RunError
from r1recipes.machine import cards
from r1recipes.planning.plan import Plan
from r1recipes.planning.speed.step import UTILIZATION

VARIABLE = "R1RECIPES_PASSES"
"""Environment variable with the levers that are used, such as "sort,trim", to compare them; none
where it is empty, and all of them without it."""
LEVERS = ("drop", "sort", "resize", "trim", "score")
"""The last one is of Unsloth alone (`unsloth.patches.score_completions_only`)."""
MOST_UNIT_ROWS = 8
"""A pass has a multiple of this number of rows, or of the next smaller one that divides the planned
rows: kernels are chosen, and memory is cached, for few shapes (assumed)."""
GPU_MULTIPLE = 32
"""Widths are rounded up to a multiple of this many tokens on a GPU, for the same reason."""
LAUNCH_S = 0.002
"""Seconds that launching the kernels of a layer takes in a pass (assumed)."""
LAYER_WEIGHTS = 12
"""Weights of a layer by the square of its hidden size (derived, for a layer of Llama's form)."""
CPU_TOKENS = 256
"""What a pass costs on a CPU beside its tokens, in tokens (assumed)."""
TOKEN_MEANS = (
    "entropy",
    "kl",
    "clip_ratio/low_mean",
    "clip_ratio/high_mean",
    "clip_ratio/region_mean",
    "cispo_clip_ratio",
)
"""Metrics that a trainer computes as a mean over the tokens of a pass, and then averages over the
passes."""

Rows = dict[str, Any]
"""Tensors by TRL's name, with one row for each completion; those without dimensions are of the
step."""
Size = tuple[int, int]
"""Tokens of a prompt and of its completion."""


@dataclass(frozen=True)
class Limits:
    """What bounds the passes of a step."""

    passes: int
    """Forward and backward passes of a step at most."""
    rows: int
    """Rows of a pass as planned; as many always fit."""
    tokens: int
    """Tokens of a pass at most, with padding, where it has more rows than planned."""
    completion_tokens: int
    """The same for the completions alone, whose logits are computed."""
    multiple: int
    """Widths are rounded up to a multiple of this."""
    launch_tokens: int
    """What a pass costs beside its tokens, in tokens."""

    @property
    def unit(self) -> int:
        """Rows of a pass are a multiple of this."""
        return max(n for n in range(1, MOST_UNIT_ROWS + 1) if self.rows % n == 0)


def limits_of(plan: Plan, hidden_size: int) -> Limits:
    """The limits of a plan's passes, whose memory is that of `rows` rows of full length."""
    rows, preset, on_gpu = plan.per_device_train_batch_size, plan.preset, plan.device == "cuda"
    return Limits(
        passes=plan.gradient_accumulation_steps,
        rows=rows,
        tokens=rows * preset.max_seq_length,
        completion_tokens=rows * preset.max_completion_length,
        multiple=GPU_MULTIPLE if on_gpu else 1,
        launch_tokens=_launch_tokens(hidden_size) if on_gpu else CPU_TOKENS,
    )


def _launch_tokens(hidden_size: int) -> int:
    """Tokens that this card trains on in the time that launching the kernels of a pass takes."""
    peak = cards.peak_of(torch.cuda.get_device_name())
    return round(LAUNCH_S * peak.operations * UTILIZATION / (6 * LAYER_WEIGHTS * hidden_size**2))


def levers() -> set[str]:
    """The levers that are on. Raises: RunError for a name that is none."""
    text = os.environ.get(VARIABLE, ",".join(LEVERS))
    names = {name.strip() for name in text.split(",")} - {""}
    if unknown := names - set(LEVERS):
        raise RunError(
            f"{VARIABLE} names {', '.join(sorted(unknown))}, which is no lever",
            hint=f"set {VARIABLE} to some of {','.join(LEVERS)}, or unset it",
        )
    return names


def allowed(rules: PassRules, names: set[str]) -> PassRules:
    """What of a loss's rules is used when only the levers `names` are on."""
    return PassRules(
        drops=rules.drops and "drop" in names,
        sorts=rules.sorts and "sort" in names,
        resizes=rules.resizes and {"resize", "trim"} <= names,  # more rows fit if they are short
        weighs=rules.weighs,
    )


def install(trainer: Any, plan: Plan) -> None:
    """Let a trainer of TRL, or of Unsloth, cut the rows of each step anew, where a lever is on."""
    names = levers()
    if not names:
        return
    rules = allowed(plan.algorithm.pass_rules(plan.recipe.train), names)
    limits = limits_of(plan, trainer.model.config.get_text_config().hidden_size)
    Cutter(trainer, rules, limits, trims="trim" in names).install()


class Cutter:
    """Cuts the rows of each step of a trainer, and skips the passes that are left without any."""

    def __init__(self, trainer: Any, rules: PassRules, limits: Limits, *, trims: bool):
        self.trainer, self.rules, self.limits, self.trims = trainer, rules, limits, trims
        self._prepare, self._compute = trainer._prepare_inputs, trainer.compute_loss
        self._score = trainer._generate_and_score_completions
        self._shares: list[float] = []
        """The share of each pass in the step's tokens, times the number of passes with rows."""

    def install(self) -> None:
        """Replace the methods of the trainer."""
        self.trainer._prepare_inputs = self.prepare
        self.trainer.compute_loss = self.compute
        if self.rules.drops:
            self.trainer._generate_and_score_completions = self.score

    def score(self, batch: Any) -> Rows:
        """The rows of a step, whose advantages are 0 in each group without spread."""
        rows: Rows = self._score(batch)
        group_size = self.trainer.args.num_generations
        return rows | {"advantages": without_rounding(rows["advantages"], group_size)}

    def prepare(self, batch: Any) -> Rows:
        """The rows of the pass that is next; no entries where it has none."""
        before = self.trainer._buffered_inputs
        inputs: Rows = self._prepare(batch)
        if self.trainer._buffered_inputs is before:
            return inputs
        passes = self.cut(joined(self.trainer._buffered_inputs))
        self.trainer._buffered_inputs = passes
        return passes[self.trainer._step % len(passes)]

    def cut(self, rows: Rows) -> list[Rows]:
        """The passes of a step, as many as planned: the last ones may be empty."""
        prompts, completions = (rows[f"{part}_mask"].sum(1) for part in ("prompt", "completion"))
        sizes = list(zip(prompts.tolist(), completions.tolist(), strict=True))
        active = (rows["advantages"] != 0).tolist()
        indices = cut_rows(sizes, active, self.rules, self.limits)
        tokens = [sum(sizes[row][1] for row in index) for index in indices]
        total = max(1, sum(tokens))
        self._shares = [len(indices) * n / total for n in tokens]
        passes = [self._taken(rows, index, sizes) for index in indices]
        return passes + [{}] * (self.limits.passes - len(passes))

    def _taken(self, rows: Rows, index: list[int], sizes: list[Size]) -> Rows:
        taken = selected(rows, index)
        if self.rules.weighs and len(index) != self.limits.rows:
            # A pass counts by the mean over its rows. The loss is linear in the advantages, and
            # Unsloth's backward pass ignores a factor of the loss (UnslothEfficientGRPO).
            taken["advantages"] = taken["advantages"] * (len(index) / self.limits.rows)
        if not self.trims:
            return taken
        return trimmed(taken, [sizes[row] for row in index], self.limits.multiple)

    def compute(self, model: Any, inputs: Rows, *arguments: Any, **options: Any) -> Any:
        """The loss of a pass; 0, without a forward pass, for one without rows."""
        if not inputs:
            return torch.zeros((), device=self.trainer.accelerator.device, requires_grad=True)
        loss = self._compute(model, inputs, *arguments, **options)
        if model.training and self._shares:
            self._weigh_metrics(self._shares[self.trainer._step % self.limits.passes])
        return loss

    def _weigh_metrics(self, share: float) -> None:
        """Let the mean of what the passes of a step report be the mean over its tokens."""
        metrics = self.trainer._metrics["train"]
        for name in TOKEN_MEANS:
            if values := metrics.get(name):
                values[-1] *= share


def without_rounding(advantages: torch.Tensor, group_size: int) -> torch.Tensor:
    """Advantages [rows] with 0 for groups in which all are the same.

    The advantages of a group have the sum 0, so these are what rounding has left of it: with 8
    completions the mean of equal rewards is another number than each for 47 % of the rewards from 0
    to 4 (float32), and divided by a standard deviation of 0 + 1e-4 the difference grows to 0.005.
    """
    groups = advantages.view(-1, group_size)
    has_spread = groups.amax(1, keepdim=True) != groups.amin(1, keepdim=True)
    return (groups * has_spread).view(-1)


def cut_rows(
    sizes: Sequence[Size], active: Sequence[bool], rules: PassRules, limits: Limits
) -> list[list[int]]:
    """The rows of each pass, by their numbers in `sizes`; `active`: which have an advantage."""
    rows = list(range(len(sizes)))
    if rules.drops:
        rows = _without_idle(rows, sizes, active, limits.unit)
    if rules.sorts:
        rows.sort(key=lambda row: _order(sizes[row], limits.multiple), reverse=True)
    if rules.resizes:
        ends = boundaries([sizes[row] for row in rows], limits)
    else:
        ends = [*range(limits.rows, len(rows), limits.rows), len(rows)]
    return [rows[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _without_idle(
    rows: list[int], sizes: Sequence[Size], active: Sequence[bool], unit: int
) -> list[int]:
    """Rows with an advantage and a completion, filled up with the shortest others to a multiple of
    `unit`, and to one unit at least: a step without any gradient would leave the optimiser's
    moments as they are."""
    used = [row for row in rows if active[row] and sizes[row][1]]
    idle = sorted(set(rows) - set(used), key=lambda row: (sum(sizes[row]), row))
    count = max(unit, unit * math.ceil(len(used) / unit))
    return sorted(used + idle[: count - len(used)])


def _order(size: Size, multiple: int) -> Size:
    """By completion, and by prompt among those that are padded to the same length."""
    prompt, completion = size
    return rounded_up(completion, multiple), prompt


def rounded_up(tokens: int, multiple: int) -> int:
    return multiple * math.ceil(tokens / multiple)


def boundaries(sizes: Sequence[Size], limits: Limits) -> list[int]:
    """Where passes end, so that all of them together take the least time that `limits` allow.

    `sizes` are those of sorted rows, a multiple of `limits.unit`. Where there are more passes than
    a step has, launching one is made dearer until there are not.
    """
    cost = _costs(sizes, limits)
    ends = _cheapest(cost)
    while len(ends) > limits.passes:
        cost += 16 + limits.launch_tokens / 4
        ends = _cheapest(cost)
    return [limits.unit * end for end in ends]


def _cheapest(cost: torch.Tensor) -> list[int]:
    """Ends of the cheapest passes, however many: the best cut up to j is one up to some i, and a
    pass from there."""
    best, origins = cost.new_full((len(cost),), math.inf), [0] * len(cost)
    best[0] = 0
    for end in range(1, len(cost)):
        total, origin = (best[:end] + cost[:end, end]).min(0)
        best[end], origins[end] = total, int(origin)
    ends = [len(cost) - 1]
    while origins[ends[0]]:
        ends.insert(0, origins[ends[0]])
    return ends


def _costs(sizes: Sequence[Size], limits: Limits) -> torch.Tensor:
    """Cost of a pass from unit i up to unit j at [i, j], in tokens; infinite where it is no pass or
    does not fit."""
    prompts, completions = (
        torch.tensor(column).view(-1, limits.unit).amax(1) for column in zip(*sizes, strict=True)
    )
    units = torch.arange(len(prompts))
    is_pass = units[None, :] >= units[:, None]
    prompt, completion = (
        limits.multiple * ((part * is_pass).cummax(1).values / limits.multiple).ceil()
        for part in (prompts, completions)
    )
    rows = limits.unit * (units[None, :] - units[:, None] + 1)
    tokens = (rows * (prompt + completion)).double()
    fits = (tokens <= limits.tokens) & (rows * completion <= limits.completion_tokens)
    is_pass &= fits | (rows <= limits.rows)
    cost = tokens.new_full((len(units) + 1, len(units) + 1), math.inf)
    cost[:-1, 1:] = (tokens + limits.launch_tokens).masked_fill(~is_pass, math.inf)
    return cost


def joined(batches: Sequence[Rows]) -> Rows:
    """The rows of all passes of a step as TRL has cut them."""

    def together(name: str) -> Any:
        values = [batch[name] for batch in batches]
        if torch.is_tensor(values[0]) and values[0].ndim:
            return torch.cat(values)
        return sum(values, []) if isinstance(values[0], list) else values[0]

    return {name: together(name) for name in batches[0]}


def selected(rows: Rows, index: list[int]) -> Rows:
    """Some of the rows, in the order of `index`."""

    def of(value: Any) -> Any:
        if torch.is_tensor(value) and value.ndim:
            return value[torch.tensor(index, device=value.device)]
        return [value[row] for row in index] if isinstance(value, list) else value

    return {name: of(value) for name, value in rows.items()}


def trimmed(rows: Rows, sizes: Iterable[Size], multiple: int) -> Rows:
    """Rows without the columns of padding that all of them have.

    Prompts are padded on the left and completions on the right. Log-probs of Unsloth are wider than
    completions: its rows begin with their first token, and the columns reach from the end of the
    shortest prompt to the end of the row (unsloth/models/rl_replacements.py, left_pack_padding), so
    all that is cut comes off their end.
    """
    longest = [max(1, rounded_up(max(column), multiple)) for column in zip(*sizes, strict=True)]
    widths = [rows[f"{part}_ids"].shape[1] for part in ("prompt", "completion")]
    cut = [max(0, width - most) for width, most in zip(widths, longest, strict=True)]

    def of(name: str, value: Any) -> Any:
        if not torch.is_tensor(value) or value.ndim < 2:
            return value
        if name.startswith("prompt_"):
            return value[:, cut[0] :]
        if value.shape[1] < widths[1]:
            return value  # one number for each row
        surplus = cut[0] if value.shape[1] > widths[1] else 0
        return value[:, : value.shape[1] - cut[1] - surplus]

    return {name: of(name, value) for name, value in rows.items()}
