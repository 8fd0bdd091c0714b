"""The command line of r1recipes on a CPU with TRL's trainers as Unsloth rewrites them, each made of
a model that seems to have an engine: `python -m tests.training.backends.unsloth_trainers run ...`.
With `score` in place of a command: whether its function scores the tokens of completions alone.

For a process of its own with `ENVIRONMENT`, since Unsloth patches TRL for good. Limits: the model
is transformers' own, so its forward pass gives logits, not hidden states; nothing is compiled.
"""

import os
import sys
from typing import Any

ENVIRONMENT = {
    "UNSLOTH_ALLOW_CPU": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TORCHDYNAMO_DISABLE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
}
MARK = "made with"
"""Begins the line with the trainer's module and whether it would generate with the engine."""


def main(arguments: list[str]) -> int:
    import unsloth  # isort: skip
    from unsloth.models import rl

    assert unsloth  # imported for its patches
    rl.patch_trl_rl_trainers()
    # As Unsloth's own forward pass is not there: without it the loss asks for hidden states.
    os.environ["UNSLOTH_RETURN_LOGITS"] = "1"
    from transformers import PreTrainedModel

    from r1recipes.cli import main as command
    from r1recipes.training.backends import trainer
    from r1recipes.training.backends.unsloth import patches

    make = trainer.make
    # Which Unsloth gives the models that it has loaded.
    models: Any = PreTrainedModel
    models.for_training = lambda self, *_, **__: self.train()
    models.for_inference = lambda self, *_, **__: self.eval()

    def without_engine(plan: Any, *, model: Any, **parts: Any) -> Any:
        model.vllm_engine = object()
        with patches.without_engine(model):
            made = make(plan, model=model, **parts)
        assert vars(model)["vllm_engine"]
        print(MARK, type(made).__module__, made.args.use_vllm, flush=True)
        return made

    vars(trainer)["make"] = without_engine
    return command(arguments)


def score() -> int:
    """0 where the loss and its gradient stay the same as with all columns, and a call from outside
    of a loss, as for a reference, scores them all."""
    import unsloth  # isort: skip
    import torch
    from unsloth_zoo import rl_replacements as zoo

    from r1recipes.training.backends.unsloth import patches
    from tests.training.backends import test_scoring as stand_in

    assert unsloth
    rows = stand_in.padded([3, 9, 5], [20, 2, 7])
    rows["completion_mask"][1] = 0
    whole, alone = stand_in.ScoringTrainer(zoo), stand_in.ScoringTrainer(zoo)
    loss = whole.compute_loss(None, rows)
    patches.score_completions_only(alone)
    other = alone.compute_loss(None, rows)
    for value in (loss, other):
        value.backward()
    one, two = whole.weights.grad, alone.weights.grad
    assert one is not None and two is not None
    hidden, index = torch.zeros(2, 6, stand_in.HIDDEN), torch.ones(2, 6, dtype=torch.long)
    scored = getattr(zoo, patches.SCORE)(hidden, stand_in.HEAD, index, chunks=2, lm_head_bias=None)
    print("losses", loss.item(), other.item(), "gradients", one, two)
    is_same = torch.allclose(loss, other) and torch.allclose(one, two, 1e-4, 1e-5)
    return 0 if is_same and scored.shape == index.shape else 1


if __name__ == "__main__":
    sys.exit(score() if sys.argv[1:] == ["score"] else main(sys.argv[1:]))
