"""Read one split of a data set: from a local file, a local folder, or the Hub.

Limits: a local file is read whole into memory and leaves nothing on the disk. Folders and the Hub
go through `datasets` and its cache. Values are not changed, except that a JSON column that mixes
texts with numbers becomes text; other mixed values stay as they are in each row (`json_column`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from r1recipes.config.suggest import nearest
from r1recipes.data import csv_file
from r1recipes.data.sources import json_lines, limits
from r1recipes.errors import Problem, RecipeError, listed, shorten, unreadable
from r1recipes.machine import hub
from r1recipes.recipe.references import FILE_SUFFIXES

if TYPE_CHECKING:
    import datasets
    import pyarrow

logger = logging.getLogger(__name__)
HUB_LIMIT_S = 10.0
"""Seconds in which the Hub must answer; assumed."""


def read_file(path: Path, key: str, texts: Sequence[str] = ()) -> datasets.Dataset:
    """The rows of a file of one of `FILES`; CSV columns in `texts` are not read as numbers.

    `key` is the recipe's key that named the file. Raises: RecipeError.
    """
    import pyarrow

    from r1recipes.data.sources import json_column, values

    check_file(path, key)
    try:
        table = FILES[path.suffix.lower()].read(path, texts)
    except OSError as error:
        raise unreadable(path, error) from error
    except pyarrow.ArrowException as error:
        message = f"is not a valid {path.suffix} file: {shorten(str(error))}"
        hint = "correct it; text must be UTF-8, and the suffix must say what the file is"
        raise RecipeError.at(str(path), message, hint) from error
    limits.refuse_names(table.schema, path)
    if not table.num_rows:
        raise RecipeError.at(
            str(path), "has no rows", f"`{key}` must name a file with at least one row"
        )
    if path.suffix.lower() != ".jsonl":  # a row of JSON is Python's already
        values.refuse_unreadable(table, path)
    # Features that a file names for `datasets`, such as images by their path, are not taken.
    return json_column.dataset(table.replace_schema_metadata(None))


class Repository(Protocol):
    """The keys of a section that name a data set: those of [data], or of [examples]."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...


def read_repository(
    path: Path | None, data: Repository, split: str, *, split_key: str, offline: bool
) -> tuple[datasets.Dataset, str | None]:
    """A split of the folder `path`, or of the Hub data set `data.name` where `path` is None.

    Returns the rows and the commit on the Hub, None where it is not known. Raises: RecipeError.
    """
    import datasets
    import httpx

    name = str(path.resolve()) if path else data.name
    # RuntimeError: a data set that is a script. Anything else is a defect and keeps its traceback.
    datasets_error = datasets.exceptions.DatasetsError
    failures = (OSError, ValueError, RuntimeError, httpx.HTTPError, datasets_error)
    offline = offline or datasets.config.HF_HUB_OFFLINE
    try:
        with _no_requests(path is not None or offline or not _hub_answers()):
            if path:
                limits.refuse_folder(path)
                rows = datasets.load_dataset(name, data.config, split=split, revision=data.revision)
            else:
                builder = datasets.load_dataset_builder(name, data.config, revision=data.revision)
                _refuse_files_elsewhere(builder.config.data_files or {}, data)
                builder.download_and_prepare()
                rows = builder.as_dataset(split=split)
    except failures as e:
        raise RecipeError(problems=[_explain(e, data, split, split_key, path, offline)]) from e
    if not len(rows):
        message = f"split `{split}` of `{data.name}` has no rows"
        raise RecipeError(message, hint=f"set `{split_key}` to another split")
    return rows, None if path else _commit(rows, data)


def _refuse_files_elsewhere(files: Mapping[str, Sequence[str]], data: Repository) -> None:
    """Raises: RecipeError when the card of a Hub data set names files outside of its repository.

    `datasets` (4.8.5, data_files.py, resolve_pattern) also takes absolute names, which are those of
    this machine, and URLs.
    """
    inside = f"hf://datasets/{data.name}@"
    for name in (name for names in files.values() for name in names):
        *archives, last = name.split("::")  # such as zip://a.csv::hf://datasets/...
        is_inside = last.lower().startswith(inside.lower()) and ".." not in last
        if not is_inside or any(hop.startswith("file:") for hop in archives):
            raise RecipeError(
                f"`{data.name}` names a file outside of its repository: `{name[:100]}`",
                hint="it could be a file of yours: take another data set",
            )


def check_file(path: Path, key: str) -> None:
    """Raises: RecipeError unless it is a data file with something in it. `key` named it."""
    if not path.is_file():
        if path.parent.is_dir():
            message = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise RecipeError.at(str(path), f"{message} (`{key}`)", _nearest_file(path))
        message = f"does not exist (`{key}`): there is no folder `{path.parent}`"
        raise RecipeError.at(str(path), message, "a relative path starts at the recipe's folder")
    if path.suffix.lower() not in FILE_SUFFIXES:
        hint = f"save the rows as one of {', '.join(FILE_SUFFIXES)}"
        if path.suffix.lower() == ".json":
            hint = f"write one JSON object on each line and name it `{path.stem}.jsonl`"
        raise RecipeError.at(str(path), f"is not a {', '.join(FILE_SUFFIXES)} file (`{key}`)", hint)
    if path.stat().st_size == 0:
        hint = f"`{key}` must name a file with at least one row"
        raise RecipeError.at(str(path), f"is empty (`{key}`)", hint)
    limits.refuse_large(path)


def _nearest_file(path: Path) -> str:
    names = sorted(
        file.name for file in path.parent.iterdir() if file.suffix.lower() in FILE_SUFFIXES
    )
    if meant := nearest(path.name, names, 0.5):
        return f"did you mean `{meant}`?"
    content = f"it has {listed(names)}" if names else "it has no data files"
    return f"a relative path starts at the recipe's folder; {content}"


def _read_parquet(path: Path, texts: Sequence[str]) -> pyarrow.Table:
    from pyarrow import parquet

    limits.refuse_parquet(path)
    limits.close()  # its memory is needed for the table
    return parquet.ParquetFile(path).read()


def _read_csv(path: Path, texts: Sequence[str]) -> pyarrow.Table:
    limits.refuse_lines(path)
    header = csv_file.header_line(path)
    limits.refuse_columns(csv_file.names(header, csv_file.separator(path, texts)), path)
    return csv_file.read(path, texts)


class FileKind(NamedTuple):
    """How one kind of data file is read."""

    read: Callable[[Path, Sequence[str]], pyarrow.Table]
    """(file, columns that are texts) -> all rows."""
    first_rows: Literal["jsonl", "csv", "parquet", "whole"] = "whole"
    """How `local.rows` reads the first rows alone: as of such a file, or by reading all rows."""


FILES = {
    ".jsonl": FileKind(json_lines.read, "jsonl"),
    ".csv": FileKind(_read_csv, "csv"),
    ".parquet": FileKind(_read_parquet, "parquet"),
}
"""Suffix -> kind. A recipe knows the suffixes by `references.FILE_SUFFIXES`."""


def _hub_answers() -> bool:
    """Whether the Hub can be reached; `datasets` alone would try for half a minute (measured)."""
    import httpx
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_LIMIT_S)
    except httpx.TransportError as error:
        logger.warning("the Hub cannot be reached (%s): looking in the local cache", error)
        return False
    return True


@contextmanager
def _no_requests(is_offline: bool) -> Iterator[None]:
    """Make no request to the Hub if `is_offline`; libraries read HF_HUB_OFFLINE on import only."""
    import datasets
    import huggingface_hub

    places = (datasets.config, huggingface_hub.constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value or is_offline
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _commit(rows: datasets.Dataset, data: Repository) -> str | None:
    """The commit of the rows, which is the name of their folder in the cache.

    Raises: RecipeError if it is not the commit that the recipe names: without a connection
    `datasets` takes the newest cached commit, whatever revision was asked for.
    """
    folders = [Path(file["filename"]).parent.name for file in rows.cache_files]
    commits = [folder for folder in folders if re.fullmatch(r"[0-9a-f]{40}", folder)]
    cached = commits[0] if commits else None
    pinned = data.revision if re.fullmatch(r"[0-9a-f]{40}", data.revision or "") else None
    if cached and pinned and cached != pinned:
        raise RecipeError(
            f"`{data.name}` is in the local cache at commit {cached[:8]}, not at "
            f"`data.revision` {pinned[:8]}",
            hint="load it once with a connection, or set `data.revision` to the cached commit "
            f"{cached}",
        )
    return cached or pinned


def _explain(
    error: Exception, data: Repository, split: str, split_key: str, path: Path | None, offline: bool
) -> Problem:
    """An error of `datasets.load_dataset` as a problem with a change that works."""
    import datasets
    import httpx

    text, name, section = str(error), f"`{data.name}`", split_key.partition(".")[0]
    if match := re.search(r'Unknown split "(.*?)". Should be one of \[(.*?)\]', text):
        return _unknown_part("split", match[1], match[2], split_key, data)
    if match := re.search(r"BuilderConfig '(.*?)' not found. Available: \[(.*?)\]", text):
        return _unknown_part("config", match[1], match[2], f"{section}.config", data)
    if match := re.search(r"(?:available configs|configs in the cache): \[(.*?)\]", text):
        return _unknown_part("config", data.config, match[1], f"{section}.config", data)
    if match := re.search(r"configurations in the cache: (.*)", text):
        return _unknown_part("config", data.config, match[1], f"{section}.config", data)
    if isinstance(error, datasets.exceptions.DatasetNotFoundError):
        return _not_found(text, data)
    if path is None and isinstance(error, ConnectionError | httpx.TransportError):
        reason = "may not be asked (offline)" if offline else "cannot be reached"
        return Problem(
            f"{name} is not in the local cache, and the Hub {reason}",
            hint="load it once with a connection, or copy a "
            f"{', '.join(FILE_SUFFIXES)} file here and set `{section}.name` to it",
        )
    if isinstance(error, datasets.exceptions.DataFilesNotFoundError) or "data files" in text:
        return Problem(f"{name} has no data files", hint=f"{', '.join(FILE_SUFFIXES)} are read")
    is_data = isinstance(error, datasets.exceptions.DatasetsError)  # or else a full disk, rights
    cause = error.__cause__ or error
    hint = "make room for the Hub's cache (HF_HOME), or allow that it is written; then try again"
    if is_data:
        hint = f"name a single {', '.join(FILE_SUFFIXES)} file in `{section}.name`"
    return Problem(
        f"split `{split}` of {name} cannot be loaded: {type(cause).__name__}: {cause}", hint=hint
    )


def _unknown_part(kind: str, name: str | None, choices: str, key: str, data: Repository) -> Problem:
    """A split or config that a data set does not have; `choices` is the list in the error."""
    names = [item.strip(" '\"") for item in choices.split(",")]
    meant = nearest(name or "", names, 0.5) or names[0]
    missing = f"has no {kind} `{name}`" if name else f"needs a {kind}"
    message = f"`{data.name}` {missing}; it has {listed(names)}"
    return Problem(message, hint=f'set `{key} = "{meant}"`')


def _not_found(text: str, data: Repository) -> Problem:
    name = data.name
    if "gated" in text:
        return Problem(
            f"`{name}` {hub.GATED}",
            hint=f"ask for access at https://huggingface.co/datasets/{name}, then set HF_TOKEN",
        )
    if "Revision" in text:
        return Problem(
            f"`{name}` has no revision `{data.revision}`",
            hint=f"the commits are at https://huggingface.co/datasets/{name}/commits/main",
        )
    return Problem(
        f"there is no data set `{name}` on the Hub, or it is private",
        hint="check the name on https://huggingface.co/datasets, set HF_TOKEN if it is private, or "
        f"name a local {', '.join(FILE_SUFFIXES)} file",
    )
