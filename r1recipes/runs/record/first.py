"""What the record of a run says before its first stage. Limits: `schema` checks it."""

from typing import Any

from r1recipes.machine.files import now
from r1recipes.planning.plan import Plan
from r1recipes.recipe.loading import Loaded


def first_record(loaded: Loaded, plan: Plan, fingerprint: str) -> dict[str, Any]:
    """The record of a run before its first stage."""
    return {
        "format": 1,
        "status": "running",
        "recipe": loaded.name,
        "description": plan.recipe.description,
        "fingerprint": fingerprint,
        "preset": plan.preset_name,
        "started": now(),
        "updated": now(),
        "attempts": 0,
        "duration_s": {},
        "evaluation": {},
        "vram": {
            "predicted_bytes": plan.predicted.peak_bytes if plan.predicted else None,
            "measured_bytes": None,
        },
        "error": None,
    }
