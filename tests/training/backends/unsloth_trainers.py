"""The command line of r1recipes on a CPU with TRL's trainers as Unsloth rewrites them, each made of
a model that seems to have an engine: `python -m tests.training.backends.unsloth_trainers run ...`.

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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
