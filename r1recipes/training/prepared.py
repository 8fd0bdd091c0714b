"""What a run begins with: what the user allowed, and a plan with everything loaded but the weights.

`prepare` loads data, tokenizer, rewards and examples, before a folder is made or a weight is
loaded. The hashes of what was loaded go into the lock (`inputs`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from r1recipes import data
from r1recipes.data import preflight
from r1recipes.data.examples import demonstrations
from r1recipes.data.examples.demonstrations import Lengths
from r1recipes.data.splits import Splits
from r1recipes.data.tokenizer import chat_template, special_tokens
from r1recipes.machine.meter import Stopwatch
from r1recipes.machine.settings import Settings
from r1recipes.planning.architectures import num_embeddings
from r1recipes.planning.plan import Plan
from r1recipes.rewards import answers
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import create, prepare_environment
from r1recipes.training.backends.base import Backend
from r1recipes.training.evaluation.probe import Judge
from r1recipes.training.observers import Observer
from r1recipes.training.warm import Warm

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Options:
    """What the user allowed or asked for on the command line."""

    allow_code: bool = False
    """Run rewards from the recipe's own Python files."""
    allow_judge: bool = False
    """Send completions to a judge that is not on this machine."""
    force: bool = False
    """Train even if the probe sees nothing to learn from."""
    finish: bool = False
    """Train no further than the last whole checkpoint: evaluate it, and close the run."""

    def flags(self) -> str:
        """The permissions as they were typed, each after a space."""
        allowed = [name for name, is_given in self.allowed().items() if is_given]
        return "".join(f" --{name.replace('_', '-')}" for name in allowed)

    def allowed(self) -> dict[str, bool]:
        """What rewards may do, by the names of `preflight.load_rewards`."""
        return {"allow_code": self.allow_code, "allow_judge": self.allow_judge}


@dataclass(frozen=True)
class Prepared:
    """A plan with everything that can be loaded and checked before the weights."""

    plan: Plan
    splits: Splits
    backend: Backend
    rewards: dict[str, Reward]
    """The rewards that training pays, by their name in the recipe."""
    decisive: Reward
    """The reward that decides whether a completion is right."""
    inputs: dict[str, str]
    """Each thing that the run reads beside its recipe -> its sha256."""
    examples: datasets.Dataset | None = None
    """What the algorithm learns from, as its trainer takes it; None before own samples are chosen,
    and where it learns from `splits.train`."""
    examples_revision: str | None = None
    """The commit of the examples on the Hub."""
    settings: Settings | None = None
    """The settings of this machine; needed where an adapter is merged."""
    judge: Judge | None = None
    """Judges answers wherever they stand in a completion, if it is answers that decide."""
    warm: Warm = field(default_factory=Warm)
    """What earlier runs in this process have loaded and computed."""
    earlier: tuple[Prepared, ...] = ()
    """The same for each stage before the training."""

    @property
    def training_rows(self) -> datasets.Dataset:
        """What the algorithm trains on: its examples, or problems to sample."""
        return self.splits.train if self.examples is None else self.examples

    def for_lock(self) -> dict[str, object]:
        """What the lock says of the inputs: their hashes, and their commits on the Hub."""
        read: dict[str, object] = {"inputs": self.inputs, "data_revision": self.splits.revision}
        read |= {"examples_revision": commit} if (commit := self.examples_revision) else {}
        stages = zip(self.plan.recipe.stage_names, self.earlier, strict=True)
        commits = {name: s.examples_revision for name, s in stages if s.examples_revision}
        return read | ({"stage_revisions": commits} if commits else {})

    def demonstration_notes(self) -> list[str]:
        """Lines on demonstrations of the cold start that are left out. Raises: RecipeError."""
        recipe, held_out = self.plan.recipe, self.splits.held_out
        lengths = self.demonstration_lengths()
        return demonstrations.check(recipe, self.plan.base_dir, held_out, lengths)

    def demonstration_lengths(self) -> Lengths:
        """Tells which demonstrations fit into the sequences of this plan."""
        return Lengths(self.backend.tokenizer(), self.plan.preset.max_seq_length)


def prepare(
    plan: Plan,
    observer: Observer,
    settings: Settings,
    options: Options,
    stack: ExitStack,
    warm: Warm | None = None,
    watch: Stopwatch | None = None,
) -> Prepared:
    """Load and check data, tokenizer and rewards.

    `stack` closes them, apart from a backend that `warm` keeps for the next run. The imports of the
    backend are a part of `watch`.
    Raises: RecipeError or PlanError with everything that is wrong.
    """
    prepare_environment(plan, settings.cache_dir)
    recipe, offline = plan.recipe, settings.offline
    observer.phase("Loading data")
    splits = data.load(recipe, plan.base_dir, offline=offline)
    with (watch or Stopwatch()).part("imports"):
        if warm:
            backend = warm.take(plan, offline=offline)
        else:
            backend = create(plan, offline=offline)
            stack.callback(backend.close)
    tokenizer = backend.tokenizer()
    notes = preflight.set_chat_template(tokenizer, recipe, plan.base_dir)
    rows = num_embeddings(recipe.model, plan.base_dir, offline=offline)
    needs_pad = plan.backend == "unsloth"
    notes += special_tokens.settle(tokenizer, recipe, num_embeddings=rows, needs_pad=needs_pad)
    is_foreign = chat_template.is_foreign(recipe)
    splits, prompts = preflight.check_prompts(
        splits, tokenizer, plan.preset, recipe.data.overlong, rows, is_foreign=is_foreign
    )
    read, revision, lines = preflight.read_examples(
        recipe, plan.base_dir, splits.held_out, tokenizer, plan.preset, offline=offline
    )
    for line in [*prompts.lines(), *notes, *lines]:
        observer.note(line)
    loaded, verifier = _load_rewards(
        plan, splits, observer, settings, options, stack, chat_template.opened_tag(prompts.example)
    )
    prepared = Prepared(
        plan=plan,
        splits=splits,
        backend=backend,
        rewards={name: loaded[name] for name in recipe.rewards},
        decisive=loaded[recipe.eval.reward],
        inputs=input_hashes(plan, splits, tokenizer.chat_template, loaded.values(), read),
        examples=read,
        examples_revision=revision,
        settings=settings,
        judge=verifier.verify if recipe.eval.reward == "correctness" else None,
        warm=warm or Warm(),
    )
    return _with_stages(prepared, loaded, observer)


def _with_stages(prepared: Prepared, loaded: dict[str, Reward], observer: Observer) -> Prepared:
    """The same with what the stages before the training begin with. Raises: RecipeError."""
    plan, offline = prepared.plan, prepared.settings is not None and prepared.settings.offline
    held_out, tokenizer = prepared.splits.held_out, prepared.backend.tokenizer()
    earlier, inputs = [], dict(prepared.inputs)
    for name, stage in zip(plan.recipe.stage_names, plan.earlier, strict=True):
        preflight.refuse_too_few(len(prepared.splits.train), stage.preset)
        read, revision, lines = preflight.read_examples(
            stage.recipe, plan.base_dir, held_out, tokenizer, stage.preset, offline=offline
        )
        for line in lines:
            observer.note(f"stage {name}: {line}")
        if read is not None:
            inputs[f"the examples of stage {name}"] = _rows_sha256(read)
        rewards = {reward: loaded[reward] for reward in stage.recipe.rewards}
        own = replace(prepared, plan=stage, rewards=rewards)
        earlier.append(replace(own, examples=read, examples_revision=revision))
    return replace(prepared, inputs=inputs, earlier=tuple(earlier))


def _load_rewards(
    plan: Plan,
    splits: data.Splits,
    observer: Observer,
    settings: Settings,
    options: Options,
    stack: ExitStack,
    opened: str | None,
) -> tuple[dict[str, Reward], answers.Verifier]:
    """The rewards of a plan and the one that decides, by name, called once on made-up completions;
    and what judges answers.

    `stack` closes them; `opened` is the tag that the chat template opens. Raises: RecipeError.
    """
    recipe = plan.recipe
    observer.phase("Checking rewards")
    column = preflight.answer_column(splits, recipe.data.answer_kind)
    if "correctness" in recipe.reward_names:
        observer.note(column.summary)
    loaded, verifier = preflight.load_rewards(
        recipe, column, plan.base_dir, settings, stack, **options.allowed()
    )
    called, decisive = list(loaded.values()), recipe.eval.reward
    warnings = preflight.check_rewards(called, splits, decisive=decisive, opened=opened)
    for line in [*(f"warning: {w}" for w in warnings), *preflight.try_judge(called, splits)]:
        observer.note(line)
    for reward in called:
        reward.watch(observer.note)
    return loaded, verifier


def input_hashes(
    plan: Plan,
    splits: data.Splits,
    template: str,
    loaded: Iterable[Reward],
    examples: datasets.Dataset | None = None,
) -> dict[str, str]:
    """sha256 of each thing that a run reads beside its recipe, under its name in plain words."""
    rows = (splits.train, splits.held_out)
    hashes = {"the data": _rows_sha256(*rows), "the chat template": _sha256(template.encode())}
    if examples is not None:
        hashes["the examples"] = _rows_sha256(examples)
    start = plan.recipe.cold_start
    if start and start.data:
        hashes["the demonstrations"] = _sha256((plan.base_dir / start.data).read_bytes())
    if plan.origin:
        hashes["the adapter that it starts from"] = plan.origin.sha256
    for reward in loaded:
        if reward.judge and reward.judge.weights_sha256:
            hashes["the model that judges"] = reward.judge.weights_sha256
        if reward.code_sha256:
            hashes[f"the code of reward `{reward.name}`"] = reward.code_sha256
    return hashes


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _rows_sha256(*splits: datasets.Dataset) -> str:
    digest = hashlib.sha256()
    for rows in splits:
        for row in rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
    return digest.hexdigest()
