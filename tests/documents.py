"""The documents taken apart: their blocks, commands, links and headings.

A block of commands that a test runs has a line before it: `<!-- docs-test: run -->`, or
`<!-- docs-test: run in FOLDER -->` with a folder of the repository that is copied first. Each
other command of a document is only parsed. Limits: Markdown as these documents use it.
"""

import itertools
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
"""The documents for readers; CHANGELOG.md and the pages of benchmarks name what was."""
FENCE = re.compile(
    r"(?:^<!-- docs-test: run(?: in (?P<folder>\S+))? -->\n(?P<mark>))?"
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
PROGRAM = re.compile(r"^(?:\$ )?(?:python -m )?r1recipes (?P<arguments>.*)$")
OPERATORS = (">", ">>", "|", "||", "&&", ";")
INLINE = re.compile(r"`(?:python -m )?r1recipes ([^`]+)`")
"""A command within a sentence."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    is_run: bool
    """Whether its commands are run by a test."""
    folder: str | None
    """The folder of the repository in which they are run; None of an empty one."""

    @property
    def commands(self) -> list[list[str]]:
        """The arguments of each command of r1recipes in it; none of a form (`text`)."""
        if self.language == "text":
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        matches = [PROGRAM.match(line.strip()) for line in lines]
        return [words(match["arguments"]) for match in matches if match]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    return [
        Block(m["language"], m["text"], m["mark"] is not None, m["folder"])
        for m in FENCE.finditer(path.read_text())
    ]


def inline_commands(path: Path) -> list[list[str]]:
    """The arguments of each command in a sentence. Left out are those with a placeholder for the
    command itself, and those that only name a command, such as `r1recipes study`."""
    text = FENCE.sub("", path.read_text())
    texts = [" ".join(match.split()) for match in INLINE.findall(text)]
    return [words(text) for text in texts if " " in text and not text.startswith("COMMAND")]


def words(text: str) -> list[str]:
    """The arguments of a command, up to what the shell does with its output."""
    split = shlex.split(text, comments=True)
    return list(itertools.takewhile(lambda word: word not in OPERATORS, split))


def links(path: Path) -> list[str]:
    """The targets of the links and pictures of a document that lead to no other host."""
    text = FENCE.sub("", path.read_text())
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a document, as GitHub and the site make them."""
    headings = re.findall(r"^#{1,6} (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {slug(heading) for heading in headings}


def slug(heading: str) -> str:
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip())
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
