"""Machine-level settings: what belongs to this computer and its user, not to a recipe.

Each can be set as an environment variable `R1RECIPES_<NAME>` or in a file `.env` in the current
folder. Nothing here changes what is computed, only where and within which time.
"""

import os
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from r1recipes.errors import Problem, RecipeError


class Settings(BaseSettings):
    """Settings of this machine."""

    model_config = SettingsConfigDict(
        env_prefix="R1RECIPES_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    runs_dir: Path = Path("runs")
    """Folder that run folders are made in."""
    cache_dir: Path = Path("~/.cache/r1recipes").expanduser()
    """Folder that compiled kernels, and recipes from elsewhere, are kept in between runs."""
    storage: str | None = None
    """Database of studies as an SQLAlchemy URL; without it an SQLite file beside the trials."""
    offline: bool = False
    """Make no request to the Hub; HF_HUB_OFFLINE=1 does the same."""
    answer_limit_s: float = Field(5.0, gt=0, le=3600)
    """Seconds that comparing one answer with its reference may take."""
    reward_limit_s: float = Field(10.0, gt=0, le=3600)
    """Seconds that one call of a reward of your own, or one answer for `gym`, may take."""

    @field_validator("runs_dir", "cache_dir")
    @classmethod
    def _at_home(cls, path: Path) -> Path:
        """In `.env` no shell has read the `~`."""
        return Path(os.path.expanduser(path))


def load() -> Settings:
    """Raises: RecipeError with each setting that is not valid."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            Problem(
                f"R1RECIPES_{str(item['loc'][0]).upper()} is not valid: {item['msg']}",
                "environment or .env",
            )
            for item in error.errors()
        ]
        raise RecipeError(problems=problems) from error
