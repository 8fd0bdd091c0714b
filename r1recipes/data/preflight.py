"""Check template, prompts and rewards on the real data before any weight is loaded.

Limits: text prompts only. Prompts are tokenised as TRL's GRPOTrainer does (trl,
`_tokenize_prompts`: the chat template with a generation prompt, no special tokens added). The
backends must see to it that generation gets these token ids too, and not a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from r1recipes import rewards
from r1recipes.algorithms.base import Preset
from r1recipes.data import examples
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer import rendering, special_tokens
from r1recipes.data.tokenizer.chat_template import (
    refuse_template_columns,
    render,
    set_chat_template,
)
from r1recipes.errors import Problem, RecipeError
from r1recipes.rewards import doubts
from r1recipes.rewards.answers import AnswerColumn, Verifier
from r1recipes.rewards.judge import consent, trial
from r1recipes.rewards.judge.judge import ModelJudge

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

    from r1recipes.machine.settings import Settings
    from r1recipes.recipe.schema import Recipe

__all__ = [
    "PromptReport",
    "answer_column",
    "check_prompts",
    "check_rewards",
    "load_rewards",
    "read_examples",
    "set_chat_template",
]

BATCH = 1000
"""Prompts that are tokenised at once; assumed, enough for the tokenizer's threads."""


@dataclass(frozen=True)
class PromptReport:
    """The prompts of a recipe as the model sees them, without dropped ones; lengths in tokens."""

    num_train: int
    num_held_out: int
    num_dropped: dict[str, int]
    """Prompts that were too long, by split: train, held_out."""
    num_leaked: int
    longest: int
    mean: float
    limit: int
    """max_seq_length - max_completion_length."""
    bos: str
    """Where the one BOS token comes from, or why there is none."""
    example: str
    """The first training prompt as text, as the model sees it."""
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for people, one fact a line; the example is left out."""
        lines = [
            f"{self.num_train} training and {self.num_held_out} held-out prompts, "
            f"{self.mean:.0f} tokens on average, {self.longest} at most (limit {self.limit})",
            f"BOS: {self.bos}",
        ]
        if self.num_leaked:
            lines.append(f"{self.num_leaked} training rows left out: their question is held out")
        return [*lines, *self.warnings]


@dataclass(frozen=True)
class _Tokens:
    """The numbers of tokens, BOS tokens and unknown tokens in each prompt of a split."""

    lengths: list[int]
    bos: list[int]
    begins: list[bool]
    """Whether each prompt begins with the BOS token."""
    unknown: list[int]
    largest: list[int]
    """The largest token id of each prompt."""


def check_prompts(
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    preset: Preset,
    overlong: Literal["drop", "refuse"],
    num_embeddings: int | None = None,
    *,
    is_foreign: bool = False,
) -> tuple[Splits, PromptReport]:
    """Tokenise every prompt; drop or refuse those that do not fit beside a completion.

    `num_embeddings` are the tokens that the model has embeddings for, if known; a template that
    `is_foreign` is tried first. Returns the splits without the dropped rows. Raises: RecipeError.
    """
    if is_foreign:
        rendering.attempt_all(tokenizer, splits.train["prompt"], splits.held_out["prompt"])
    refuse_template_columns(splits.train, tokenizer)
    limit = preset.max_seq_length - preset.max_completion_length
    rows = {"train": splits.train, "held_out": splits.held_out}
    tokens = {name: _tokenise(split, tokenizer) for name, split in rows.items()}
    _refuse_beyond(tokens, tokenizer, num_embeddings)
    prompts = [*rows["train"]["prompt"][:], *rows["held_out"]["prompt"][:]]
    bos, warnings = special_tokens.check_bos(
        prompts,
        [n for split in tokens.values() for n in split.bos],
        [begins for split in tokens.values() for begins in split.begins],
        tokenizer,
    )
    num_dropped: dict[str, int] = {}
    lengths: list[int] = []
    for name, split in rows.items():
        fits = [index for index, n in enumerate(tokens[name].lengths) if n <= limit]
        num_dropped[name] = len(split) - len(fits)
        if num_dropped[name]:
            warnings.append(_overlong(name, tokens[name].lengths, preset, overlong))
            rows[name] = split.select(fits, keep_in_memory=True)
        lengths += [tokens[name].lengths[index] for index in fits]
    refuse_too_few(len(rows["train"]), preset)
    warnings += special_tokens.in_questions(prompts, tokenizer)
    warnings += _unknown_tokens(tokens, tokenizer) + _dated(tokenizer)
    report = PromptReport(
        num_train=len(rows["train"]),
        num_held_out=len(rows["held_out"]),
        num_dropped=num_dropped,
        num_leaked=splits.num_leaked,
        longest=max(lengths),
        mean=fmean(lengths),
        limit=limit,
        bos=bos,
        example=render(tokenizer, rows["train"][0]["prompt"], "the first prompt"),
        warnings=(*splits.notes, *warnings),
    )
    return replace(splits, train=rows["train"], held_out=rows["held_out"]), report


def refuse_too_few(num_train: int, preset: Preset) -> None:
    """Raises: RecipeError. TRL leaves out an incomplete step, so it would train on nothing
    (RepeatSampler)."""
    if num_train < preset.prompts_per_step:
        raise RecipeError(
            f"{num_train} training prompts do not fill a step of {preset.prompts_per_step} "
            "(`prompts_per_step`)",
            hint=f"add rows or set `prompts_per_step = {num_train}` in the preset",
        )


def read_examples(
    recipe: Recipe,
    base_dir: Path,
    held_out: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    preset: Preset,
    *,
    offline: bool,
) -> tuple[datasets.Dataset | None, str | None, list[str]]:
    """The examples of [examples] as the trainer takes them, their commit on the Hub, and lines on
    those that are left out; (None, None, []) for a recipe without the section. Raises: RecipeError.
    """
    if recipe.examples is None:
        return None, None, []
    source = examples.load(recipe, base_dir, held_out, offline=offline)
    rows, lines = examples.fitting(source.rows, recipe, tokenizer, preset)
    return rows, source.revision, [*source.notes, *lines]


def answer_column(splits: Splits, kind: str | None = None) -> AnswerColumn:
    """The references of both splits by their kinds, for `Verifier.column`.

    `kind` is the user's word on all of them. Raises: ValueError for none of `answers.Kind`.
    """
    references = [*splits.train["answer"][:], *splits.held_out["answer"][:]]  # not row by row
    return AnswerColumn.from_references(references, kind)


def load_rewards(
    recipe: Recipe,
    column: AnswerColumn,
    base_dir: Path,
    settings: Settings,
    stack: ExitStack,
    *,
    allow_code: bool,
    allow_judge: bool,
) -> tuple[dict[str, rewards.Reward], Verifier]:
    """The rewards of a recipe and the one that decides, by name, and what judges answers.

    `column` has the references of the data (`answer_column`); `stack` closes what is loaded.
    Raises: RecipeError for a reward that cannot be loaded, and for a judge that may not be asked.
    """
    verifier = stack.enter_context(Verifier(time_limit_s=settings.answer_limit_s))
    verifier.column = column
    names = recipe.reward_names
    judge = None
    if recipe.judge and "judge" in names:
        consent.refuse_unallowed(recipe.judge, allowed=allow_judge, offline=settings.offline)
        judge = ModelJudge(recipe.judge, base_dir=base_dir, cache_dir=settings.cache_dir)
    loaded = rewards.load(
        names,
        base_dir=base_dir,
        allow_code=allow_code,
        verifier=verifier,
        judge=judge,
        time_limit_s=settings.reward_limit_s,
    )
    for reward in loaded:
        stack.callback(reward.close)
    return dict(zip(names, loaded, strict=True)), verifier


def check_rewards(
    loaded: Sequence[rewards.Reward],
    splits: Splits,
    *,
    decisive: str | None = None,
    opened: str | None = None,
) -> list[str]:
    """Call every reward with made-up completions for real rows. Returns warnings, one a line.

    `decisive` is `eval.reward`; `opened` is the tag that the chat template has written when a
    completion begins (`chat_template.opened_tag`). Raises: RecipeError with every problem of every
    reward.
    """
    samples = [varied_rows(splits.train)]
    if set(splits.held_out.column_names) != set(splits.train.column_names):
        samples.append(varied_rows(splits.held_out))
    problems = [
        problem for reward in loaded for rows in samples for problem in rewards.check(reward, rows)
    ]
    warnings = [problem.message for problem in problems if problem.is_warning]
    errors = dict.fromkeys(problem.message for problem in problems if not problem.is_warning)
    if errors:
        hint = "correct the reward or remove it from [rewards]"
        raise RecipeError(problems=[Problem(message, hint=hint) for message in errors])
    for reward in loaded:
        decides = reward.name == decisive
        warnings += doubts.of_reward(reward, samples[0], decides=decides, opened=opened)
    return list(dict.fromkeys(warnings))


def try_judge(
    loaded: Sequence[rewards.Reward], splits: Splits, *, strict: bool = True
) -> list[str]:
    """Try the judge among the rewards, if there is one, on real rows. Returns what it shows, a line
    each, of which some begin with "warning: ". Raises: RecipeError where it fails too often and
    this is `strict`."""
    judges, rows = [reward.judge for reward in loaded if reward.judge], varied_rows(splits.train)
    return [line for judge in judges for line in trial.run(judge, rows, strict=strict)]


def varied_rows(rows: datasets.Dataset) -> list[dict[str, Any]]:
    """The first two rows, and the ones with the shortest and the longest answer."""
    lengths = [len(str(answer)) for answer in rows["answer"][:]]
    chosen = [0, lengths.index(min(lengths)), lengths.index(max(lengths)), min(1, len(rows) - 1)]
    return [rows[index] for index in dict.fromkeys(chosen)]


def _tokenise(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> _Tokens:
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    counts = _Tokens([], [], [], [], [])
    for ids in _prompt_ids(rows["prompt"], tokenizer):
        counts.lengths.append(len(ids))
        counts.largest.append(max(ids, default=0))
        counts.bos.append(0 if bos is None else ids.count(bos))
        counts.begins.append(bos is not None and ids[:1] == [bos])
        counts.unknown.append(0 if unknown is None else ids.count(unknown))
    return counts


def _prompt_ids(prompts: Sequence[Any], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """The token ids of each prompt."""
    for start in range(0, len(prompts), BATCH):
        batch = tokenizer.apply_chat_template(
            conversation=list(prompts[start : start + BATCH]),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        assert isinstance(batch, Mapping)  # by return_dict
        yield from batch["input_ids"]


def _refuse_beyond(
    tokens: dict[str, _Tokens], tokenizer: PreTrainedTokenizerBase, num_embeddings: int | None
) -> None:
    """Raises: RecipeError for prompts with tokens that the model has no embedding for."""
    largest = [n for split in tokens.values() for n in split.largest]
    beyond = [n for n in largest if num_embeddings is not None and n >= num_embeddings]
    if beyond:
        token = tokenizer.convert_ids_to_tokens(max(beyond))
        raise RecipeError(
            f"{len(beyond)} of {len(largest)} prompts have tokens that the model has no embedding "
            f"for, such as `{token}`: {max(beyond)}, of {num_embeddings:,}",
            hint=special_tokens.OTHER_TOKENIZER,
        )


def _overlong(name: str, lengths: list[int], preset: Preset, overlong: str) -> str:
    """The line on dropped prompts. Raises: RecipeError if none may be dropped, or none is left."""
    limit = preset.max_seq_length - preset.max_completion_length
    too_long = [length for length in lengths if length > limit]
    kind = {"train": "training", "held_out": "held-out"}[name]
    fact = (
        f"{len(too_long)} of {len(lengths)} {kind} prompts have more than {limit} tokens "
        f"(longest {max(too_long)})"
    )
    if overlong == "drop" and len(too_long) < len(lengths):
        return fact + ": dropped"
    # The one length that is known to work: every prompt fits.
    enough = max(too_long) + preset.max_completion_length
    hint = f"set `max_seq_length = {enough}` in the preset, or lower `max_completion_length`"
    if len(too_long) == len(lengths):
        raise RecipeError(f"{fact}: none is left", hint=hint)
    raise RecipeError(fact, hint=f'{hint}, or set `data.overlong = "drop"`')


def _unknown_tokens(tokens: dict[str, _Tokens], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    counts = [n for split in tokens.values() for n in split.unknown]
    some = sum(n > 0 for n in counts)
    if not some or tokenizer.unk_token in (tokenizer.bos_token, tokenizer.eos_token):
        return []
    return [
        f"{some} of {len(counts)} prompts have characters that the tokenizer does not know: the "
        f"model sees `{tokenizer.unk_token}` there"
    ]


def _dated(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if "strftime_now" not in tokenizer.get_chat_template():
        return []
    return [
        "the chat template writes today's date: the same recipe has other prompts tomorrow; "
        "`model.chat_template` can fix the date"
    ]
