"""The passes of a step: each lever leaves its gradient as it is, and what they cost is less."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from r1recipes import planning, recipe
from r1recipes.algorithms import ALGORITHMS
from r1recipes.algorithms.step import PassRules
from r1recipes.errors import RunError
from r1recipes.rewards.reward import Reward
from r1recipes.training.backends import passes, trainer
from r1recipes.training.backends.base import Hooks
from r1recipes.training.backends.trl import TrlBackend
from tests.conftest import SMALL

LOSSES = ("dapo", "dr_grpo", "grpo", "bnpo", "cispo")
ALL = ",".join(passes.LEVERS)
STEP = """
max_seq_length = 128
max_completion_length = 40
lora_rank = 8
num_generations = 4
prompts_per_step = 8
per_device_train_batch_size = 4
num_threads = 1
"""


class Step(NamedTuple):
    """One optimiser step as the trainer has done it."""

    gradient: torch.Tensor
    shapes: list[tuple[int, int]]
    """Rows and width of each forward pass of the training."""
    row: dict[str, Any]
    """Its metrics."""


class Gradients(TrainerCallback):
    """Keeps the gradient of the last step, before the optimiser takes it."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        parameters = [p for p in kwargs["model"].parameters() if p.requires_grad]
        self.all = torch.cat([p.grad.flatten().double() for p in parameters])


def by_length(completions: list[Any], prompts: list[Any], **columns: Any) -> list[float]:
    """No spread in the groups of about half of the prompts; else the share of digits."""
    texts = [completion[0]["content"] for completion in completions]
    groups = [sum(map(ord, prompt[-1]["content"])) for prompt in prompts]
    return [
        0.5 if group % 2 else sum(map(str.isdigit, text)) / (1 + len(text))
        for group, text in zip(groups, texts, strict=True)
    ]


def always(completions: list[Any], **columns: Any) -> list[float]:
    return [0.5] * len(completions)


def shortened(made: Any, end: int) -> Any:
    """Completions of many lengths: the untrained model writes up to the limit. Some end there."""
    generate = made._generate_single_turn

    def of_many_lengths(*arguments: Any, **options: Any) -> Any:
        result = generate(*arguments, **options)
        completions, *rest = result if isinstance(result, tuple) else (result,)
        cut = [ids[: 1 + (11 * n) % 29] for n, ids in enumerate(completions)]
        cut = [ids[:-1] + [end] if n % 4 else ids for n, ids in enumerate(cut)]
        return (cut, *rest) if isinstance(result, tuple) else cut

    return of_many_lengths


def planned(folder: Path, **train: Any) -> planning.Plan:
    """One step of the small recipe, in eight passes of four rows, paid by one reward."""
    algorithm = train.pop("algorithm", "grpo")
    text = SMALL.replace("seed = 1\n", f'seed = 1\nalgorithm = "{algorithm}"\n')
    (folder / "small.toml").write_text(text.partition("[preset.cpu]")[0] + "[preset.cpu]" + STEP)
    flags = [f"train.{key}={value}" for key, value in (train | {"max_steps": 1}).items()]
    loaded = recipe.load(folder / "small.toml", flags).recipe
    loaded = loaded.model_copy(update={"rewards": {"correctness": 1.0}})
    return planning.make(loaded, planning.Target.here(None, 1), base_dir=folder)


def step(
    folder: Path, levers: str, reward: Any = by_length, backend_row: str = "trl", **train: Any
) -> Step:
    """What a step does with these levers, with an adapter that is not fresh; `backend_row`: whose
    row of the algorithm is trained, by TRL in any case."""
    plan, metrics, shapes = planned(folder, **train), [], []
    plan = plan.model_copy(update={"backend": backend_row})
    backend, seen = TrlBackend(plan, offline=True), Gradients()
    backend.load(None, None)
    for name, parameter in backend.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    problems = [f"{n}{n}+{'1' * (1 + n % 9)}=" for n in range(40)]
    rows = [{"prompt": [{"role": "user", "content": text}], "answer": "1"} for text in problems]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(passes.VARIABLE, levers)
        made = trainer.make(
            plan,
            model=backend.model,
            tokenizer=backend.tokenizer(),
            rows=Dataset.from_list(rows),
            rewards={"correctness": Reward("correctness", reward)},
            config_arguments=trainer.arguments(plan, folder / "out"),
            hooks=Hooks(on_step=lambda row, samples: metrics.append(row)),
        )
    made.add_callback(seen)
    made._generate_single_turn = shortened(made, backend.tokenizer().eos_token_id)
    backend.model.register_forward_pre_hook(
        lambda model, arguments, options: (
            shapes.append(tuple(options["input_ids"].shape)) if torch.is_grad_enabled() else None
        ),
        with_kwargs=True,
    )
    made.train()
    return Step(seen.all, shapes, metrics[0])


@pytest.fixture(scope="module")
def as_trl(tmp_path_factory):
    """Steps as TRL does them, each made once."""
    made: dict[str, Step] = {}

    def of(**train: Any) -> Step:
        key = repr(train)
        if key not in made:
            made[key] = step(tmp_path_factory.mktemp("trl"), "", **train)
        return made[key]

    return of


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Up to the rounding of sums in 32 bits: the gradients of passes cancel to a part of theirs."""
    return bool((one - other).abs().max() <= 2e-5 * other.abs().max())


CASES = [
    *({"loss_type": f"'{loss}'"} for loss in LOSSES),
    *({"loss_type": f"'{loss}'", "beta": 0.5} for loss in LOSSES),
    {"loss_type": "'dapo'", "mask_truncated_completions": "true"},
    {"loss_type": "'grpo'", "mask_truncated_completions": "true"},
    {"algorithm": "rloo", "beta": 0.05},
    {"algorithm": "rloo", "normalize_advantages": "true"},
]


def train_keys(case: dict[str, Any]) -> dict[str, Any]:
    """Keys that a recipe accepts together."""
    spread = {"scale_rewards": "'none'"} if "dr_grpo" in str(case) else {}
    return {"epsilon_high": 5.0 if "cispo" in str(case) else 0.2} | spread | case


@pytest.mark.slow
@pytest.mark.parametrize("levers", [ALL, "drop", "sort,trim", "sort,resize,trim", "drop,trim"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_no_lever_changes_the_gradient_of_a_step(tmp_path, as_trl, case, levers):
    plain, cut = as_trl(**train_keys(case)), step(tmp_path, levers, **train_keys(case))
    assert plain.gradient.abs().max() > 1e-4
    has_kl_reward = case == {"algorithm": "rloo", "beta": 0.05}  # by which each completion differs
    share = plain.row["frac_reward_zero_std"]
    assert share == 0 if has_kl_reward else 0 < share < 1
    assert same(cut.gradient, plain.gradient)
    for name in ("loss", "grad_norm", "reward", "completions/mean_length", "frac_reward_zero_std"):
        assert cut.row[name] == pytest.approx(plain.row[name], rel=1e-4, abs=1e-5), name
    assert cut.row.keys() == plain.row.keys()


@pytest.mark.slow
@pytest.mark.parametrize("levers", ["", ALL])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"normalize_advantages": "true"},
        {"mask_truncated_completions": "true"},
    ],
    ids=lambda keys: "-".join(keys) or "plain",
)
def test_rloo_has_one_gradient_with_both_trainers(tmp_path, as_trl, keys, levers):
    """That of Unsloth is GRPOTrainer: no rule of the advantages and no factor is missing."""
    by_rloo = as_trl(algorithm="rloo", **keys)
    by_grpo = step(tmp_path, levers, backend_row="unsloth", algorithm="rloo", **keys)
    assert by_rloo.gradient.abs().max() > 1e-4
    assert same(by_grpo.gradient, by_rloo.gradient)
    assert by_grpo.row["grad_norm"] == pytest.approx(by_rloo.row["grad_norm"], rel=1e-4)
    assert by_grpo.row["reward"] == pytest.approx(by_rloo.row["reward"])


@pytest.mark.slow
def test_a_pass_counts_by_its_rows(tmp_path, as_trl, monkeypatch):
    """Without the weights the gradient is another: the test above would see it."""
    keys = train_keys({"loss_type": "'grpo'"})
    plain = as_trl(**keys)
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=False)
    monkeypatch.setattr(passes, "allowed", lambda *_: rules)
    assert not same(step(tmp_path, ALL, **keys).gradient, plain.gradient)


@pytest.mark.slow
def test_a_step_without_any_spread_has_a_gradient_of_zero(tmp_path):
    """As before, and not none: the moments of the optimiser decay, and the weights with them."""
    done = step(tmp_path, ALL, reward=always)
    assert len(done.shapes) == 1 and torch.count_nonzero(done.gradient) == 0
    assert done.row["grad_norm"] == 0 and done.row["frac_reward_zero_std"] == 1
    assert math.isfinite(done.row["entropy"])


@pytest.mark.slow
def test_passes_without_rows_cost_no_forward_and_others_have_less_padding(tmp_path, as_trl):
    plain = as_trl(**train_keys({"loss_type": "'dapo'"}))
    full = sum(rows * width for rows, width in plain.shapes)
    cut, dropped, trimmed = (
        step(tmp_path, levers).shapes for levers in (ALL, "drop", "sort,resize,trim")
    )
    rows = sum(rows for rows, _ in plain.shapes)
    idle = plain.row["frac_reward_zero_std"] * rows
    assert len(plain.shapes) == 8 and len({width for _, width in plain.shapes}) == 1
    assert sum(n for n, _ in cut) == sum(n for n, _ in dropped) < rows - idle + 4
    assert {width for _, width in dropped} == {plain.shapes[0][1]}
    assert sum(n for n, _ in trimmed) == rows and len(trimmed) < 8 and max(trimmed)[0] > 4
    assert sum(a * b for a, b in cut) < sum(a * b for a, b in trimmed) < 0.8 * full


@pytest.mark.parametrize("name", ["drop,shorten", "all"])
def test_an_unknown_lever_is_refused(monkeypatch, name):
    monkeypatch.setenv(passes.VARIABLE, name)
    with pytest.raises(RunError, match="which is no lever"):
        passes.levers()


@pytest.mark.parametrize(("value", "names"), [(None, passes.LEVERS), ("", ()), ("trim", ["trim"])])
def test_levers_are_chosen_by_an_environment_variable(monkeypatch, value, names):
    monkeypatch.setenv(passes.VARIABLE, value) if value is not None else None
    assert passes.levers() == set(names)


@pytest.mark.parametrize("size", [2, 6, 8, 16])
def test_what_rounding_leaves_of_no_spread_is_no_advantage(size):
    """As TRL computes it. A group with spread stays, also where a row is at the mean."""
    groups = [[0.7] * size, [1.1] * size, [0.0, 1.1] * (size // 2), [0.0] + [1.0] * (size - 1)]
    groups.append([1.0, 3.0] + [2.0] * (size - 2))
    rewards = torch.tensor(groups)
    spread = rewards.std(1, keepdim=True) + 1e-4
    advantages = ((rewards - rewards.nanmean(1, keepdim=True)) / spread).view(-1)
    clean = passes.without_rounding(advantages, size)
    assert not clean[: 2 * size].any() and torch.equal(clean[2 * size :], advantages[2 * size :])
    if size > 2:
        assert clean[-1] == 0 and clean[-size:].any()


def test_rows_are_not_put_together_where_they_are_not_trimmed():
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=True)
    assert not passes.allowed(rules, {"drop", "sort", "resize"}).resizes
    assert passes.allowed(rules, {"resize", "trim"}).resizes


DROPS = {
    ("grpo", 0.0): True,
    ("grpo", 0.1): False,
    ("rloo", 0.0): True,
    ("rloo", 0.1): True,
    ("online_dpo", 0.1): False,
    ("ppo", None): False,
}
"""(algorithm, `beta` if it has one) -> whether rows without an advantage have no gradient."""


@pytest.mark.parametrize(("name", "beta"), DROPS)
def test_rows_without_an_advantage_stay_where_they_have_a_gradient(name, beta):
    algorithm = ALGORITHMS[name]
    train = algorithm.train.model_validate({} if beta is None else {"beta": beta})
    assert algorithm.pass_rules(train).drops == DROPS[name, beta]


def test_each_algorithm_that_samples_is_among_those():
    assert {name for name, _ in DROPS} == {a.name for a in ALGORITHMS.values() if a.samples}


def limits(**changes: int) -> passes.Limits:
    settings = dict(passes=8, rows=8, tokens=8 * 300, completion_tokens=8 * 200)
    return passes.Limits(**(settings | {"multiple": 1, "launch_tokens": 100} | changes))


def lengths(seed: int, count: int = 64) -> list[tuple[int, int]]:
    random = torch.Generator().manual_seed(seed)
    prompts = torch.randint(20, 101, (count,), generator=random)
    completions = torch.randint(1, 201, (count,), generator=random) ** 2 // 200
    return list(zip(prompts.tolist(), completions.tolist(), strict=True))


def cost(sizes: list[tuple[int, int]], bounds: passes.Limits) -> float:
    widths = [
        passes.rounded_up(max(column), bounds.multiple) for column in zip(*sizes, strict=True)
    ]
    return len(sizes) * sum(widths) + bounds.launch_tokens


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("multiple", [1, 32])
def test_every_row_is_in_one_pass_and_no_pass_is_larger_than_the_plan(seed, multiple):
    bounds, sizes = limits(multiple=multiple), lengths(seed)
    rules = PassRules(drops=True, sorts=True, resizes=True, weighs=True)
    active = [n % 3 > 0 for n in range(len(sizes))]
    cut = passes.cut_rows(sizes, active, rules, bounds)
    rows = [row for each in cut for row in each]
    assert len(set(rows)) == len(rows) and 1 <= len(cut) <= bounds.passes
    used = {row for row in range(64) if active[row] and sizes[row][1]}
    assert set(rows) >= used and len(rows) == passes.rounded_up(len(used), bounds.unit)
    for each in cut:
        widest = [max(column) for column in zip(*(sizes[row] for row in each), strict=True)]
        if len(each) > bounds.rows:
            assert len(each) * sum(widest) <= bounds.tokens
            assert len(each) * widest[1] <= bounds.completion_tokens
        assert len(each) % bounds.unit == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [2, 3, 8])
def test_no_other_cut_costs_less(seed, most):
    """Against all cuts of 32 sorted rows into passes of whole units."""
    bounds = limits(rows=4, passes=most, tokens=16 * 300, completion_tokens=16 * 200)
    sizes = sorted(lengths(seed, 32), key=lambda size: size[1], reverse=True)
    every = {}
    for pattern in range(2**7):
        ends = [4 * (n + 1) for n in range(7) if pattern >> n & 1] + [32]
        parts = [sizes[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        fits = all(
            len(part) <= 4
            or len(part) * sum(map(max, zip(*part, strict=True))) <= bounds.tokens
            and len(part) * max(c for _, c in part) <= bounds.completion_tokens
            for part in parts
        )
        if fits and len(parts) <= most:
            every[tuple(ends)] = sum(cost(part, bounds) for part in parts)
    chosen = passes.boundaries(sizes, bounds)
    assert len(chosen) <= most and every[tuple(chosen)] <= (1.0 if most == 8 else 1.1) * min(
        every.values()
    )


@pytest.mark.parametrize(
    ("card", "hidden", "least", "most"),
    [
        ("NVIDIA H100 80GB HBM3", 896, 17_300, 17_600),
        ("NVIDIA H100 80GB HBM3", 4096, 825, 845),
        ("NVIDIA L4", 896, 500, 2500),
        ("an unlisted one", 896, 2000, 3000),
    ],
)
def test_a_pass_costs_what_its_launch_does_on_this_card(monkeypatch, card, hidden, least, most):
    """More of the time of small models and of fast cards."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card)
    assert least < passes._launch_tokens(hidden) < most


@pytest.mark.parametrize(("rows", "unit"), [(32, 8), (12, 6), (6, 6), (10, 5), (7, 7), (11, 1)])
def test_passes_have_few_shapes(rows, unit):
    assert limits(rows=rows).unit == unit


def rows_of(prompts: list[int], completions: list[int], wide: bool) -> passes.Rows:
    """Padded as TRL pads; each token tells its row and place. `wide`: log-probs as Unsloth's."""
    count, p, c = len(prompts), max(prompts), max(completions)
    rows: passes.Rows = {"advantages": torch.arange(count), "num_items_in_batch": torch.tensor(9)}
    for name, sizes, width in (("prompt", prompts, p), ("completion", completions, c)):
        ids, mask = torch.zeros(count, width), torch.zeros(count, width)
        for row, size in enumerate(sizes):
            place = slice(width - size, width) if name == "prompt" else slice(0, size)
            ids[row, place] = 100 * (row + 1) + torch.arange(1, size + 1)
            mask[row, place] = 1
        rows |= {f"{name}_ids": ids, f"{name}_mask": mask}
    pad = p - min(prompts) if wide else 0
    logps = torch.zeros(count, c + pad)
    for row, size in enumerate(completions):
        start = prompts[row] - min(prompts) if wide else 0
        logps[row, start : start + size] = rows["completion_ids"][row, :size]
    return rows | {"ref_per_token_logps": logps, "max_left_pad": torch.zeros(count, 1)}


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_trimming_takes_padding_alone(wide, multiple):
    prompts, completions = [3, 9, 12, 5, 4], [20, 7, 2, 9, 1]
    rows = rows_of(prompts, completions, wide)
    index = [3, 0, 4] if multiple == 4 else [4, 3]
    sizes = [(prompts[row], completions[row]) for row in index]
    cut = passes.trimmed(passes.selected(rows, index), sizes, multiple)
    for name in ("prompt", "completion"):
        ids, mask = cut[f"{name}_ids"], cut[f"{name}_mask"]
        whole = rows[f"{name}_ids"][index]
        longest = max(size[name == "completion"] for size in sizes)
        assert ids.shape[1] == min(whole.shape[1], passes.rounded_up(longest, multiple))
        assert mask.sum() == rows[f"{name}_mask"][index].sum() and ids.sum() == whole.sum()
    # Unsloth reads the start of a completion in its log-probs off the padding of the prompt.
    prompt, logps = cut["prompt_ids"], cut["ref_per_token_logps"]
    surplus = logps.shape[1] - cut["completion_ids"].shape[1]
    assert surplus >= 0
    for n, row in enumerate(index):
        start = surplus - int((prompt[n] == 0).sum()) if wide else 0
        own = logps[n, start : start + completions[row]]
        assert torch.equal(own, rows["completion_ids"][row, : completions[row]])
    assert cut["advantages"].tolist() == index and cut["num_items_in_batch"] == 9


def test_rows_that_were_cut_apart_are_put_together_again():
    rows = rows_of([3, 2, 1, 4], [1, 2, 3, 4], False) | {"images": [1, 2, 3, 4], "none": None}
    halves = [passes.selected(rows, index) for index in ([0, 1], [2, 3])]
    whole = passes.joined(halves)
    assert whole.keys() == rows.keys()
    for name, value in rows.items():
        same_value = torch.equal(whole[name], value) if torch.is_tensor(value) else None
        assert same_value or whole[name] == value
