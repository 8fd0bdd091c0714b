"""DPO: a completion that is preferred over another one, without a reward model (arXiv 2305.18290).

The reference is the base model, that is, the model with its adapter switched off: no second model
is held. Limits: pairs are not made anew while it trains, so it moves away from samples that it
once had.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from r1recipes.algorithms.base import Algorithm, Preset, Train
from r1recipes.algorithms.examples import TIMED, Learned, Scored
from r1recipes.algorithms.step import Step
from r1recipes.config.section import KeyProblems


class DpoTrain(Train):
    """The algorithm and the optimiser. trl: DPOConfig, spelled as there."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-6
    """Peak learning rate; preferences need less than demonstrations."""
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the model is held near the base model; less lets it move further."""
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "sigmoid_norm"] = "sigmoid"
    """Loss of a pair (arXiv 2305.18290, 2305.10425, 2310.12036, 2403.00409, 2408.06266)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """"robust": probability that chosen and rejected are swapped in the data."""
    rpo_alpha: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Weight of the log-likelihood of the chosen completion, which keeps it likely (2404.19733)."""

    def problems(self) -> KeyProblems:
        problems = super().problems()
        if self.label_smoothing and self.loss_type != "robust":
            message = f'`label_smoothing` is for `loss_type = "robust"`, not "{self.loss_type}"'
            problems.append(("label_smoothing", message, "remove this line"))
        if self.loss_type == "robust" and not self.label_smoothing:
            message = '"robust" without `label_smoothing` is "sigmoid"'
            problems.append(("loss_type", message, "add `label_smoothing = 0.1`"))
        return problems


def arguments(train: DpoTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of a DPOConfig; its batches are counted in pairs."""
    losses = [train.loss_type, "sft"] if train.rpo_alpha else [train.loss_type]
    return {
        "per_device_train_batch_size": step.batch // 2,
        "max_length": preset.max_seq_length,
        "truncation_mode": "keep_start",
        "beta": train.beta,
        "loss_type": losses,
        "loss_weights": [1.0, train.rpo_alpha] if train.rpo_alpha else None,
        "label_smoothing": train.label_smoothing,
        "use_weighting": False,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
        "disable_dropout": False,
        "padding_free": False,
        "activation_offloading": False,
        "remove_unused_columns": True,
    }


def trainer() -> tuple[type, type]:
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer, DPOConfig


def choose(samples: Sequence[Scored]) -> list[dict[str, str | bool]]:
    """The best and the worst of the samples of a question, by [rewards]; the first ones of equal
    ones. None where all earn the same."""
    if not samples:
        return []
    best, worst = (end(samples, key=lambda sample: sample.total) for end in (max, min))
    if best.total == worst.total:
        return []
    return [{"chosen": best.text, "rejected": worst.text}]


LEARNED = Learned(
    noun="pair",
    columns={"chosen": "text", "rejected": "text"},
    choose=choose,
    by_rewards=True,
    teaches="questions whose samples do not all earn the same",
    facts=(
        ("rewards/accuracies", "pairs told apart", "%"),
        ("rewards/margins", "margin", ""),
    ),
)

DPO = Algorithm(
    name="dpo",
    title="DPO",
    description="Direct preference optimisation on pairs",
    source="arXiv 2305.18290",
    learns_from="preferences",
    train=DpoTrain,
    arguments=arguments,
    trainer=trainer,
    step=LEARNED.step,
    reference=lambda train: True,
    timed=TIMED,
    loss_note="falls as the pairs are told apart, whatever the answers",
    backends=("unsloth", "trl"),
    learned=LEARNED,
    logit_bytes=12.0,
)
