"""Pages of the documentation, as far as tests ask: their links, anchors, code and commands."""

import re
import shlex
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    line: int
    language: str
    code: str

    def __str__(self):
        return f"{self.page}:{self.line}"


class Page:
    """One page in Markdown."""

    def __init__(self, path):
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")

    def __str__(self):
        return self.name

    @cached_property
    def prose(self):
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def blocks(self):
        """The fenced blocks."""
        return [Block(self.name, self.text.count("\n", 0, match.start()) + 2, *match.groups())
                for match in _FENCE.finditer(self.text)]

    @cached_property
    def inline_code(self):
        """What stands between backticks."""
        return _INLINE.findall(self.prose)

    @cached_property
    def indented(self):
        """The lines that are indented as code is."""
        return re.findall(r"^ {4,}(\S.*)$", self.prose, re.M)

    @cached_property
    def links(self):
        """The targets of links and images within the repository."""
        targets = _LINK.findall(_INLINE.sub("", self.prose))
        return [target for target in targets if not re.match(r"\w+:", target)]

    @cached_property
    def anchors(self):
        """The anchors of the headings, as GitHub and mkdocs.yml make them."""
        anchors, seen = set(), {}
        for heading in _HEADING.findall(self.prose):
            words = re.sub(r"\]\([^)]*\)", "", heading).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            number = seen.setdefault(slug, 0)
            seen[slug] += 1
            anchors.add(f"{slug}-{number}" if number else slug)
        return anchors

    @cached_property
    def commands(self):
        """The command lines of the page, each a list of words: in blocks, indented, and between backticks."""
        lines = [line for block in self.blocks if block.language == "sh" for line in block.code.splitlines()]
        lines += self.indented + self.inline_code
        programs = r"(gunicorn|gunicorn-h2|make|pip install) \S"
        return [shlex.split(re.sub(r" +# .*", "", line)) for line in lines if re.match(programs, line)]


PAGES = [Page(path) for path in (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
)]
