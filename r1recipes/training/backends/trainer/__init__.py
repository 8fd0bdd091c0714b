"""Plan -> TRL trainer, for every backend: `build` its arguments and the trainer, `watch` what is
called while it trains.

Where Unsloth is used it must be imported before this package, which imports trl.
"""

from r1recipes.training.backends.trainer.build import (
    REFERENCE,
    arguments,
    make,
    sampling,
    sft_config,
    stop_at,
    stop_ids,
)
from r1recipes.training.backends.trainer.watch import (
    SAMPLES_PER_STEP,
    Collector,
    Progress,
)

__all__ = [
    "REFERENCE",
    "SAMPLES_PER_STEP",
    "Collector",
    "Progress",
    "arguments",
    "make",
    "sampling",
    "sft_config",
    "stop_at",
    "stop_ids",
]
