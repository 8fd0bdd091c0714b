"""Every row of the table: its keys are checked, its trainer takes its arguments, and it learns."""

import io
import json
import random
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from rich.console import Console
from transformers import TrainingArguments

from r1recipes import planning, recipe, study, training
from r1recipes.algorithms import ALGORITHMS, GRPO, ONLINE_DPO, PPO, Algorithm
from r1recipes.algorithms.checks import of_batches
from r1recipes.algorithms.ppo import WHOLE
from r1recipes.data import generators
from r1recipes.errors import RecipeError, RunError
from r1recipes.machine import files, settings
from r1recipes.publish import cards
from r1recipes.recipe import schema
from r1recipes.report import curves
from r1recipes.report.charts import Plot
from r1recipes.runs import Run, lock, reading
from r1recipes.training.backends import trainer
from r1recipes.training.evaluation.probe import Probe, refuse_hopeless
from r1recipes.training.view import View
from tests.conftest import SMALL
from tests.helpers import in_process, run_in_process
from tests.training.test_run import comparable

ROWS = [pytest.param(row, id=name) for name, row in ALGORITHMS.items()]
SAMPLING = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
"""Keys of [train] for rollouts and evaluations."""
LEFT_OPEN = {
    "model_init_kwargs",  # the model is loaded here
    "dataset_num_proc",
    "dataset_text_field",  # rows have messages
    "dataset_kwargs",
    "chat_template_path",
    "eos_token",  # the tokenizer's
    "eval_packing",
    "pad_token",
    "precompute_ref_batch_size",  # the reference is not computed beforehand
    "f_alpha_divergence_coef",  # of another divergence
    "discopop_tau",  # of another loss
    "trust_remote_code",
    "router_aux_loss_coef",  # of mixtures of experts
    "num_generations_eval",  # TRL's own evaluation is off
    "pad_to_multiple_of",
    "ds3_gather_for_generation",
    "generation_batch_size",  # follows from steps_per_generation
    "generation_kwargs",
    "chat_template_kwargs",
    "cache_implementation",
    "ref_model_mixup_alpha",  # of a reference that moves
    "ref_model_sync_steps",
    "log_multimodal",
    "num_completions_to_print",
    "log_unique_prompts",
    "log_completions_hub_repo",
    "transformers_continuous_batching_config",
    "use_transformers_paged",
    "max_tool_calling_iterations",
    "sft_model_path",  # of TRL's scripts, as those of Online DPO and PPO below
    "reward_model_path",
    "world_size",  # and what PPO computes from the batches
    "num_total_batches",
    "micro_batch_size",
    "local_batch_size",
    "batch_size",
    "local_mini_batch_size",
    "mini_batch_size",
    "stop_token_id",  # `stop_token` is there
    "model_adapter_name",
    "ref_adapter_name",
}
"""Fields of TRL's configs that decide nothing in a run of text on one device."""


def of(algorithm: Algorithm, folder: Path, **train: object) -> Path:
    """The small recipe with this algorithm and these keys of [train]."""
    lines = [f"{key} = {value}" for key, value in train.items()]
    text = SMALL.replace("seed = 1\n", f'seed = 1\nalgorithm = "{algorithm.name}"\n')
    if algorithm.group_size:
        text = text.replace("num_generations = 4", f"num_generations = {algorithm.group_size}")
    path = folder / "small.toml"
    path.write_text(text.replace("[train]\n", "[train]\n" + "".join(f"{x}\n" for x in lines)))
    return path


def write_examples(path: Path, algorithm: Algorithm) -> None:
    """Let the recipe learn from a file of examples, which gives each text its own column."""
    assert algorithm.learned is not None
    rng, kind = random.Random(1), generators.KINDS["builtin:arithmetic"]
    rows = [
        {"question": row["question"]}
        | {
            name: kind.demonstrate(row, rng, float(number)) if form == "text" else True
            for number, (name, form) in enumerate(algorithm.learned.columns.items())
        }
        for row in kind.make("train", 20, seed=5)
    ]
    (path.parent / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.write_text(path.read_text() + '\n[examples]\nname = "examples.jsonl"\n')


def planned(path: Path) -> planning.Plan:
    loaded = recipe.load(path)
    return planning.make(loaded.recipe, planning.Target.here(None, 1), base_dir=path.parent)


@pytest.mark.parametrize("algorithm", ROWS)
def test_no_field_of_the_algorithm_is_left_to_a_default(tmp_path, algorithm):
    trainer_class, config_class = algorithm.trainer()
    arguments = trainer.arguments(planned(of(algorithm, tmp_path)), tmp_path / "out")
    config_class(**arguments)
    own = {field.name for field in fields(config_class)}
    own -= {field.name for field in fields(TrainingArguments)}
    open_fields = {name for name in own - arguments.keys() if not name.startswith("vllm_")}
    spare = {"sapo_", "vespo_", "entropy_coef_", "entropy_target"}
    open_fields = {name for name in open_fields if not name.startswith(tuple(spare))}
    assert open_fields <= LEFT_OPEN
    for method in algorithm.timed:
        assert callable(getattr(trainer_class, method))


@pytest.mark.parametrize("algorithm", ROWS)
def test_every_key_of_train_reaches_the_trainer(tmp_path, algorithm):
    """A key that nobody reads is a defect: each other value changes what the trainer is told."""
    other = {"beta": 0.3, "epsilon": 0.1, "epsilon_high": 0.5, "warmup_ratio": 0.5}
    other |= {"label_smoothing": 0.2}
    plain = trainer.arguments(planned(of(algorithm, tmp_path)), tmp_path)
    for key in algorithm.train.model_fields:
        changed = recipe.load(of(algorithm, tmp_path)).recipe
        value = other.get(key, _another(getattr(changed.train, key), key))
        train = changed.train.model_copy(update={key: value})
        new = planned(of(algorithm, tmp_path)).model_copy(
            update={"recipe": changed.model_copy(update={"train": train})}
        )
        if key == "warmup_ratio" or (key in SAMPLING and not algorithm.samples):
            continue  # a plan has its steps, which `planning.make` counts; nothing is sampled
        if algorithm is PPO and key in WHOLE:
            assert {problem[0] for problem in train.problems()} == {key}
            continue
        assert trainer.arguments(new, tmp_path) != plain, key


def _another(value: object, key: str) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case None:
            return 0.5
    return f"another {key}"


@pytest.mark.parametrize("algorithm", ROWS)
def test_what_is_shown_of_a_run_names_its_algorithm(tmp_path, algorithm):
    """A recipe's card, the live view, the chart of the loss and the refusal of a hopeless run."""
    loaded, plan = recipe.load(of(algorithm, tmp_path)), planned(of(algorithm, tmp_path))
    card = cards.of_recipe("mine", loaded.recipe, lock.of_recipe(loaded), None, {})
    assert set(ModelCard(card).data.to_dict()["tags"]) == {"r1recipes", algorithm.name}
    (tmp_path / "record.json").write_text('{"status": "complete"}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.1}\n{"step": 2, "loss": 0.2}\n')
    (tmp_path / "resolved.json").write_text(plan.model_dump_json())
    (loss,) = curves.optimiser([reading.read(Run(tmp_path))])
    hopeless = Probe(0.0, 0.0, 0.0, num_problems=50, num_samples=4)
    with pytest.raises(RunError) as refused:
        refuse_hopeless(hopeless, plan)
    out = io.StringIO()
    view = View(Console(file=out, width=200), live=True)
    view.begin(Run(tmp_path), plan)
    view.phase("Training")
    view.step({"step": 1, "reward": 1.0, "loss": 0.5})
    view.console.print(view.render())
    assert isinstance(loss, Plot)
    for text in (card, loss.note, str(refused.value), out.getvalue()):
        assert algorithm.title in text
        rest = text.replace(algorithm.title, "")  # "Online DPO" has another title in it
        assert not any(row.title in rest for row in ALGORITHMS.values())


def test_the_loss_of_several_algorithms_has_the_note_of_each(tmp_path):
    readings = []
    for name, algorithm in ALGORITHMS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "record.json").write_text('{"status": "complete"}')
        (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.1}\n')
        (folder / "resolved.json").write_text(planned(of(algorithm, folder)).model_dump_json())
        readings.append(reading.read(Run(folder), name))
    (loss,) = curves.optimiser(readings)
    assert isinstance(loss, Plot)
    assert all(row.note_on_loss.lower() in loss.note.lower() for row in ALGORITHMS.values())
    (tmp_path / "grpo" / "resolved.json").unlink()
    assert curves._loss_note([reading.read(Run(tmp_path / "grpo"))]) == ""


@pytest.mark.parametrize("algorithm", ROWS)
def test_keys_of_another_algorithm_are_refused_by_its_name(tmp_path, algorithm):
    others = [row for row in ALGORITHMS.values() if row is not algorithm]
    for other in others:
        for key in other.train.model_fields.keys() - algorithm.train.model_fields.keys():
            with pytest.raises(RecipeError) as refused:
                recipe.load(of(algorithm, tmp_path, **{key: 1}))
            (problem,) = refused.value.problems
            assert problem.message == f"unknown key `train.{key}`"
            assert f'`algorithm = "{other.name}"`' in (problem.hint or "")
            assert f'"{algorithm.name}"' not in (problem.hint or "")


@pytest.mark.parametrize("algorithm", ROWS)
def test_a_plan_is_read_again_with_the_keys_of_its_algorithm(tmp_path, algorithm):
    plan = planned(of(algorithm, tmp_path))
    again = planning.Plan.model_validate_json(plan.model_dump_json())
    assert again == plan and type(again.recipe.train) is algorithm.train


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("dr_grpo", "is a loss of GRPO", 'loss_type = "dr_grpo"'),
        ("rlo", 'unknown algorithm "rlo"', 'did you mean "rloo"?'),
        ("a2c", 'unknown algorithm "a2c"', "known: "),
    ],
)
def test_an_unknown_algorithm_is_one_problem(tmp_path, name, message, hint):
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace("seed = 1\n", f'seed = 1\nalgorithm = "{name}"\n'))
    code, _, err = in_process("check", path)
    assert code == 2 and message in err and hint in err and err.count("error:") == 1


def test_an_editor_sees_the_keys_of_all_algorithms():
    properties = schema.for_editors()["properties"]
    assert properties["algorithm"]["enum"] == list(ALGORITHMS)
    for algorithm in ALGORITHMS.values():
        assert algorithm.train.model_fields.keys() <= properties["train"]["properties"].keys()
    loss = properties["train"]["properties"]["loss_type"]
    assert loss["description"].startswith("grpo, online_dpo, dpo: ") and "default" not in loss
    assert {"dapo", "sigmoid"} <= set(loss["enum"])
    beta = properties["train"]["properties"]["beta"]
    assert beta["description"].startswith("grpo, rloo, online_dpo, dpo: ") and "default" not in beta
    assert "0.0 for grpo, 0.0 for rloo, 0.1 for online_dpo, 0.1 for dpo" in beta["description"]
    scale = properties["train"]["properties"]["scale_rewards"]
    assert scale["default"] == "group" and scale["description"].startswith("grpo: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "train"), [*((name, {}) for name in ALGORITHMS), ("grpo", {"beta": 0.05})]
)
def test_a_run_is_complete_and_goes_on_after_a_kill_to_the_bit(tmp_path, name, train):
    algorithm = ALGORITHMS[name]
    path = of(algorithm, tmp_path, **train)
    if algorithm.learned:
        write_examples(path, algorithm)
    steps = 6 if algorithm.resumes else 2  # what has no checkpoints is trained twice, PPO slowly
    run = run_in_process(path, tmp_path / "runs", f"train.max_steps={steps}")
    evaluation = run.read()["evaluation"]
    assert run.read()["status"] == "complete" and evaluation.keys() >= {"before", "after"}
    rows = comparable(run)
    assert len(rows) == steps
    if algorithm.learned:
        assert {key for key, _, _ in algorithm.learned.facts} <= rows[0].keys()
        assert "time/generation_s" not in files.read_lines(run.metrics)[0]
    else:
        assert rows[0].keys() >= {"reward", "accuracy"}
        assert ("kl" in rows[0]) == algorithm.reference(run.plan().recipe.train)

    killed = Run(shutil.copytree(run.folder, tmp_path / "killed"))
    shutil.rmtree(killed.adapter)
    assert (killed.last_checkpoint() is not None) == algorithm.resumes
    shutil.rmtree(killed.checkpoints / "checkpoint-6", ignore_errors=not algorithm.resumes)
    killed.evaluation("after").unlink()
    before = {"before": evaluation["before"]}
    killed.update(status="running", evaluation=before, finished=None)
    view = View(Console(file=io.StringIO()), live=False)
    resumed = training.resume(killed, [view], settings.Settings(runs_dir=tmp_path, offline=True))
    assert resumed.read()["status"] == "complete"
    for old, new in zip(rows, comparable(resumed), strict=True):
        assert {k: (v, new[k]) for k, v in old.items() if new[k] != v} == {}
    assert resumed.read()["evaluation"] == evaluation


def test_a_matrix_runs_one_problem_with_each_algorithm(tmp_path):
    of(ONLINE_DPO, tmp_path)  # whose number of completions of a prompt all others take too
    text = (tmp_path / "small.toml").read_text().replace('algorithm = "online_dpo"\n', "")
    (tmp_path / "small.toml").write_text(text)
    names = ", ".join(f'"{name}"' for name in ALGORITHMS)
    path = tmp_path / "study.toml"
    path.write_text(f'format = 1\nrecipe = "small.toml"\n\n[matrix]\nalgorithm = [{names}]\n')
    cells = study.load(str(path)).cells
    trains = [cell.load({}).recipe.train for cell in cells]
    assert [type(train) for train in trains] == [row.train for row in ALGORITHMS.values()]


@pytest.mark.parametrize("number", [65537, 2**63, 10**300])
@pytest.mark.parametrize("key", ["prompts_per_step", "per_device_train_batch_size"])
def test_a_count_without_bounds_is_left_to_the_schema(key, number):
    """Its divisors would take hours."""
    table = {"prompts_per_step": 7, "num_generations": 7, "per_device_train_batch_size": 4}
    assert of_batches(GRPO, table)
    assert of_batches(GRPO, table | {key: number}) == []
