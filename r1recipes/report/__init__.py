"""Pages and charts of runs and studies; one file each that asks for nothing from the network.

`show` displays the page of a run in a notebook. Limits: a page in a notebook is as it was when the
cell ran, and does not follow a run that trains.
"""

from dataclasses import dataclass
from html import escape

HEIGHT = 900
"""Pixels of a page in a notebook: headline, facts and the first curves; assumed."""


@dataclass(frozen=True)
class Inline:
    """A page in a frame of its own, where its style and script touch nothing else."""

    page: str
    """The whole page, as HTML."""
    height: int = HEIGHT
    """Pixels; what is longer scrolls in the frame."""

    def _repr_html_(self) -> str:
        """What IPython displays."""
        source = escape(self.page, quote=True)
        return (
            f'<iframe srcdoc="{source}" sandbox="allow-scripts allow-downloads" '
            f'title="report" style="width: 100%; height: {self.height}px; border: 0"></iframe>'
        )


def show(*names: str, height: int = HEIGHT) -> Inline:
    """The page of the runs with these names or folders, to be displayed by a notebook; without a
    name that of the newest run.

    Raises: RecipeError when there is no such run, or a file of it is damaged.
    """
    from r1recipes import runs
    from r1recipes.errors import RecipeError
    from r1recipes.machine import settings
    from r1recipes.report import run

    folder = settings.load().runs_dir
    chosen = [runs.find(folder, name) for name in names] or runs.all_runs(folder)[-1:]
    if not chosen:
        raise RecipeError("there is no run yet", hint="`r1recipes run tiny` makes one in minutes")
    return Inline(run.html(chosen), height)
