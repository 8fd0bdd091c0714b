"""Sampling through vLLM: what is asked of the engine for each token, and what comes back.

By default vLLM makes the text of each token, and for TRL also an object with its log-prob and the
text again, in the thread that schedules the next step. TRL decodes whole completions itself and
throws the rest away, so only token ids are asked for. Imports neither Unsloth nor vLLM. Limits:
facts about TRL and vLLM hold for the versions in `packages.READ_IN`.
"""

import functools
import io
import os
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from r1recipes.errors import RunError
from r1recipes.planning.plan import Plan
from r1recipes.training.backends.base import Hooks, Sample

PROMPTS_PER_CALL = 4096
"""Prompts of an evaluation that the engine gets in one call. It works on as many sequences as it
was made for and has a queue for the others; between two calls it waits for the last ones. Assumed:
more than most evaluations have, and little host memory."""
COMPLETIONS_PER_BLOCK = 4096
"""Completions of a block when all training problems are sampled. Blocks of 512 waited for their
longest ones most of the time: 24,000 of a 0.5B model took 174 to 200 s (two runs on one H100), of
which 57 s are decoding with all slots taken. Assumed: about ten seconds of a small model."""
VARIABLE = "R1RECIPES_ROLLOUTS"
"""Environment variable, to compare: with "all" rollouts ask for what TRL asks for, with "ids", as
without it, for token ids alone where nothing reads more."""
WITHOUT_TEXT: dict[str, Any] = {"detokenize": False}
WITHOUT_LOGPROBS: dict[str, Any] = {"logprobs": None}
"""vLLM's names; TRL's `GRPOTrainer` asks for `logprobs=0`, the one of the sampled token."""


def of_plan(plan: Plan) -> dict[str, Any]:
    """Sampling settings of the recipe under vLLM's names; there, top_k is off at -1."""
    train = plan.recipe.train
    return {
        "temperature": train.temperature,
        "top_p": train.top_p,
        "top_k": train.top_k or -1,
        "min_p": train.min_p or 0.0,
    }


def ids_alone() -> bool:
    """Whether rollouts ask for token ids alone. Raises: RunError for a value that is none."""
    value = os.environ.get(VARIABLE, "ids")
    if value not in ("ids", "all"):
        raise RunError(f"{VARIABLE} is `{value}`", hint=f"set {VARIABLE}=all, or unset it")
    return value == "ids"


def rollout_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`generation_kwargs` for a trainer's config with these arguments: token ids alone, where
    nothing reads text or log-probs.

    Text is read by stop strings. Log-probs are read by the correction for what the engine's kernels
    round otherwise and by the mask of off-policy completions (trl, grpo_trainer.py). They are also
    asked for with top_p or top_k: without them vLLM would sample with FlashInfer, which compiles
    itself first and has not been measured (vllm, v1/worker/gpu/sample/sampler.py).
    """
    asked = dict(arguments.get("generation_kwargs") or {})
    reads_text = bool(asked.get("stop"))
    reads_logprobs = (
        arguments["vllm_importance_sampling_correction"]
        or arguments.get("off_policy_mask_threshold") is not None
    )
    is_cut = arguments.get("top_p", 1.0) < 1 or (arguments.get("top_k") or 0) > 0
    without = {} if reads_text else WITHOUT_TEXT
    without = without if reads_logprobs or is_cut else without | WITHOUT_LOGPROBS
    return without | asked


def let_train_without_logprobs(trainer: Any) -> None:
    """Let a trainer whose `generation_kwargs` ask for no log-probs have none.

    TRL's `_generate_single_turn` takes the first log-prob of each token without looking whether
    there are any. It gets an empty list, and what it makes of that becomes None, which the rest of
    TRL and Unsloth understand as "none": what would read them fails instead of reading zeros.
    """
    generation = trainer.vllm_generation
    if generation.generation_kwargs.get("logprobs", generation.logprobs) is not None:
        return
    generate, single_turn = generation.generate, trainer._generate_single_turn

    def without_logprobs(*args: Any, **kwargs: Any) -> Any:
        prompt_ids, completion_ids, _, token_ids = generate(*args, **kwargs)
        return prompt_ids, completion_ids, [], token_ids

    def completions_alone(*args: Any, **kwargs: Any) -> Any:
        made = single_turn(*args, **kwargs)
        return (made[0], None) if isinstance(made, tuple) else made

    generation.generate, trainer._generate_single_turn = without_logprobs, completions_alone


class _Progress(tqdm):
    """The progress bar of vLLM's `generate`, which reports the completions and shows nothing.

    vLLM makes a first one for preparing the prompts, over which it iterates; that is not reported.
    One that is disabled has no `elapsed`, by which vLLM divides.
    """

    monitor_interval = 0  # no thread that watches it

    def __init__(self, *args: Any, report: Callable[[int], None], **options: Any):
        self._report = report
        super().__init__(*args, **options | {"file": io.StringIO(), "disable": False})

    def update(self, n: float | None = 1) -> bool | None:
        is_shown = super().update(n)
        if self.iterable is None:
            self._report(int(self.n))
        return is_shown

    def display(self, *args: Any, **options: Any) -> None:
        """Shows nothing."""


def progress(hooks: Hooks, before: int, total: int, num_samples: int) -> Callable[..., Any]:
    """What `generate` takes as `use_tqdm`: it tells `hooks` how many of `total` prompts are done.

    `before` were done in earlier calls; each prompt has `num_samples` completions.
    """
    return functools.partial(
        _Progress, report=lambda done: hooks.on_progress(before + done // num_samples, total)
    )


def sample(output: Any, tokenizer: Any) -> Sample:
    """One completion of vLLM's, decoded at once."""
    text = tokenizer.decode(output.token_ids, skip_special_tokens=True)
    return Sample(text, len(output.token_ids), output.finish_reason == "length")
