"""GRPO: each completion against the mean of its group, clipped (arXiv 2402.03300).

Its variants are values of `loss_type` and `scale_rewards`: DAPO (2503.14476), Dr. GRPO
(2503.20783), CISPO (2506.13585).
"""

from typing import Any, Literal

from r1recipes.algorithms import group
from r1recipes.algorithms.base import Algorithm, Preset
from r1recipes.algorithms.step import PassRules, Step
from r1recipes.config.section import KeyProblems


class GrpoTrain(group.GroupTrain):
    """The algorithm and the optimiser. trl: GRPOConfig, spelled as there."""

    loss_type: Literal["dapo", "dr_grpo", "grpo", "bnpo", "cispo"] = "dapo"
    """How token losses are averaged (arXiv 2402.03300, 2503.14476, 2503.20783)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Which standard deviation the advantages are divided by."""

    def problems(self) -> KeyProblems:
        """Refuses also a scaling that Unsloth turns off (unsloth, models/rl.py, check_dr_grpo)."""
        problems = super().problems()
        if self.loss_type == "cispo" and self.epsilon_high < 1:
            message = (
                f'"cispo" caps the weight of a token at `epsilon_high`, and {self.epsilon_high} is '
                "below 1, the weight of an unchanged token"
            )
            problems.append(("epsilon_high", message, "set `epsilon_high = 5.0`"))
        if self.loss_type == "dr_grpo" and self.scale_rewards == "group":
            message = '"dr_grpo" is GRPO without the scaling by a group, and Unsloth turns it off'
            problems.append(("scale_rewards", message, 'set `scale_rewards = "none"`'))
        return problems


def arguments(train: GrpoTrain, preset: Preset, step: Step) -> dict[str, Any]:
    """Arguments of a GRPOConfig. Every field of the algorithm is explicit, since TRL, Unsloth and
    their versions have different defaults (loss_type, beta, epsilon_high, ...)."""
    return group.arguments(train, preset, step) | {
        "loss_type": train.loss_type,
        "scale_rewards": train.scale_rewards,
        "importance_sampling_level": "token",
        "multi_objective_aggregation": "sum_then_normalize",
        "delta": None,
        "cast_lm_head_to_fp32": False,
        "top_entropy_quantile": 1.0,
        "entropy_coef": 0.0,
        "use_adaptive_entropy": False,
        "off_policy_mask_threshold": None,
        "use_bias_correction_kl": True,
    }


def pass_rules(train: GrpoTrain) -> PassRules:
    """What each loss allows, by how it divides (trl, grpo_trainer.py, `_compute_loss`; unsloth_zoo,
    rl_replacements.py, `grpo_compute_loss`).

    "dapo" and "cispo" divide by the tokens of the step. "grpo" and "dr_grpo" divide by the rows of
    the pass. "bnpo" divides by the tokens of the pass, so its passes stay as they are; Unsloth
    2026.10.7 divides it by the tokens of the step, as "dapo", and 2026.10.9 as TRL does. With a KL
    term a row has a gradient without an advantage, and the loss is not linear in the advantages.
    """
    has_kl, by_rows = train.beta > 0, train.loss_type in ("grpo", "dr_grpo")
    may_move = train.loss_type != "bnpo"
    return PassRules(
        drops=may_move and not has_kl,
        sorts=may_move,
        resizes=may_move and not (by_rows and has_kl),
        weighs=by_rows,
    )


def trainer() -> tuple[type, type]:
    from trl import GRPOConfig, GRPOTrainer

    return GRPOTrainer, GRPOConfig


GRPO = Algorithm(
    name="grpo",
    title="GRPO",
    description="Group relative policy optimisation",
    source="arXiv 2402.03300",
    learns_from="rewards",
    train=GrpoTrain,
    arguments=arguments,
    trainer=trainer,
    step=group.step_of,
    reference=group.reference,
    pass_rules=pass_rules,
    timed=group.TIMED,
    loss_note=group.LOSS_NOTE,
    backends=("unsloth", "trl"),
)
