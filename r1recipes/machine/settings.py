"""Settings that belong to this computer and its user, not to a recipe.

Each can be set as an environment variable `R1RECIPES_<NAME>` or in a file `.env` in the current
folder. None of them changes what is computed, only where it is kept and how long it may take.
"""

import os
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from r1recipes.errors import Problem, RecipeError
from r1recipes.machine import RUNS_DIR


class Settings(BaseSettings):
    """Settings of this machine."""

    model_config = SettingsConfigDict(
        env_prefix="R1RECIPES_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    runs_dir: Path = RUNS_DIR
    """Folder of the run folders."""
    cache_dir: Path = Path("~/.cache/r1recipes").expanduser()
    """Folder of what is kept between runs: compiled kernels, recipes from elsewhere."""
    storage: str | None = None
    """Database of studies, as an SQLAlchemy URL; by default an SQLite file beside the trials."""
    offline: bool = False
    """No request is made to the Hub; HF_HUB_OFFLINE=1 does the same."""
    answer_limit_s: float = Field(5.0, gt=0, le=3600)
    """Seconds that comparing one answer with its reference may take at most."""
    limits: float = Field(1.0, ge=1, le=10_000)
    """What every limit of bytes, rows, keys and seconds for foreign files is multiplied by."""
    reward_limit_s: float = Field(10.0, gt=0, le=3600)
    """Seconds that a call of a user's reward, or one answer for `gym`, may take at most."""

    @field_validator("runs_dir", "cache_dir")
    @classmethod
    def _at_home(cls, path: Path) -> Path:
        """Expand `~`, which no shell has done in `.env`."""
        return Path(os.path.expanduser(path))


def load() -> Settings:
    """Read the settings. Raises: RecipeError with each one that is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [_problem(str(item["loc"][0]), item["msg"]) for item in error.errors()]
        raise RecipeError(problems=problems) from error


def _problem(name: str, reason: str) -> Problem:
    """The problem with the value of a setting."""
    variable, default = f"R1RECIPES_{name.upper()}", Settings.model_fields[name].default
    hint = f"such as {variable}={default}, which holds without it"
    return Problem(f"{variable} is not valid: {reason}", "environment or .env", hint)
