"""`report --serve`: all runs and studies of a folder as one local page that follows them live.

    followed   one run folder: what changed in it     studies    the databases of studies
    summary    what the overview says of a run        folder     all of them, looked at on demand
    overview   the page of all                        pages      which pages there are
    server     HTTP on 127.0.0.1                      templates  what is added to those of `report`

Pages are those of `report` with a script that asks for what is new (`live.js`). An idle server does
nothing: folders are looked at when a page asks.
"""

import webbrowser
from collections.abc import Sequence
from pathlib import Path

from r1recipes.errors import visible
from r1recipes.report.serve.folder import Folder
from r1recipes.report.serve.pages import Pages
from r1recipes.report.serve.server import MAX_PORTS, PORT, listen
from r1recipes.runs.record import names as names_of_runs

__all__ = ["MAX_PORTS", "PORT", "serve"]


def serve(names: Sequence[str], runs_dir: Path, port: int = PORT, *, is_opened: bool) -> int:
    """Serve a folder of runs, or the runs that `names` mean, until Ctrl-C; without names, all of
    `runs_dir`. Returns the exit code. Raises: RecipeError, OSError."""
    folder, place = _folder(names, runs_dir)
    folder.start()
    server = listen(port, Pages(folder, place))
    try:
        print(f"{visible(place)} at {server.url} (Ctrl-C ends it)", flush=True)
        if is_opened and not webbrowser.open(server.url):
            print("no browser could be opened: open the address yourself", flush=True)
        server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0


def _folder(names: Sequence[str], runs_dir: Path) -> tuple[Folder, str]:
    """What is served, and what the page says it is."""
    if not names:
        return Folder(runs_dir), str(runs_dir)
    path = Path(names[0])
    if len(names) == 1 and path.is_dir() and not (path / "record.json").is_file():
        return Folder(path), str(path)
    runs = [names_of_runs.find(runs_dir, name) for name in names]
    return Folder(runs_dir, runs), f"{len(runs)} run{'s' * (len(runs) != 1)}"
