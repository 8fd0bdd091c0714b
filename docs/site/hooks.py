"""What the site has beside the files of docs/: README.md as its front page, generated references,
the project's own pages, and each file of the repository that a page links to.

Limits: a link to a folder becomes plain text, since a site has no page for it.
"""

import os
import re
import sys
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
import reference  # noqa: E402

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
"""A link or picture: mark of a picture, text, target."""
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
FOLDERS = ("benchmarks",)
"""Folders whose .md files are pages of their own."""
TOP = ("CONTRIBUTING.md", "CHANGELOG.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that are outside of docs/."""
    for name, text in reference.pages().items():
        _add(files, config, name, text)
    for source, path in _outside().items():
        _add(files, config, source, path.read_text(encoding="utf-8"))
    linked = {
        target
        for file in files.documentation_pages()
        for _, _, link in LINK.findall(FENCE.sub("", file.content_string))
        if (target := _target(_place(file.src_uri), link)) and target.is_file()
    }
    for target in sorted(linked):
        if files.get_file_from_path(_source(target)) is None:
            file = File.generated(config, _source(target), abs_src_path=str(target))
            files.append(file)
    return files


def _add(files: Files, config: MkDocsConfig, name: str, text: str) -> None:
    """Add a page, in place of the file of that name in docs/."""
    old = files.get_file_from_path(name)
    if old:
        files.remove(old)
    files.append(File.generated(config, name, content=text))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page, which are those of the repository, for the site."""
    place = _place(page.file.src_uri)
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [_linked(markdown[end : fence.start()], place, page), fence.group()]
        end = fence.end()
    return "".join([*parts, _linked(markdown[end:], place, page)])


def _linked(text: str, place: Path, page: Page) -> str:
    def link(match: re.Match[str]) -> str:
        mark, label, url = match.groups()
        target = _target(place, url)
        if target is None:
            return match.group()
        if target.is_dir():
            return label
        source = os.path.relpath(_source(target), PurePosixPath(page.file.src_uri).parent)
        anchor = url.partition("#")[2]
        return f"{mark}[{label}]({source}{f'#{anchor}' if anchor else ''})"

    return LINK.sub(link, text)


def _outside() -> dict[str, Path]:
    """Name on the site -> file, of the pages that are outside of docs/."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.md"))]
    return {_source(path): path for path in [ROOT / "README.md", *(ROOT / t for t in TOP), *paths]}


def _place(source: str) -> Path:
    """The file of the repository that a page of the site is made from."""
    if source == "index.md":
        return ROOT / "README.md"
    in_docs = ROOT / "docs" / source
    return ROOT / source if source in TOP or source.startswith(FOLDERS) else in_docs


def _source(target: Path) -> str:
    """The name on the site of a file of the repository."""
    path = target.relative_to(ROOT).as_posix()
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in TOP or (path.endswith(".md") and path.startswith(FOLDERS)):
        return path
    return f"files/{path}"


def _target(place: Path, url: str) -> Path | None:
    """The file of the repository that a link leads to; None for other hosts and the page itself."""
    path = url.partition("#")[0]
    if not path or re.match(r"[a-z]+:", url):
        return None
    return Path(os.path.normpath(place.parent / path))
