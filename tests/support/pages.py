"""Pages of the documentation, as far as tests ask: their links, anchors, code and commands."""

import re
import shlex
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block of code: the `number`th under the heading with the anchor `section`."""

    page: str
    section: str
    number: int
    line: int
    language: str
    code: str

    def __str__(self):
        return f"{self.page}#{self.section}/{self.number}"

    @property
    def lines(self):
        """The lines, without the empty ones."""
        return list(filter(None, self.code.splitlines()))


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
        blocks, numbers = [], Counter()
        for match in _FENCE.finditer(self.text):
            section = [anchor for offset, anchor in self.headings if offset < match.start()][-1]
            numbers[section] += 1
            line = self.text.count("\n", 0, match.start()) + 2
            blocks.append(Block(self.name, section, numbers[section], line, *match.groups()))
        return blocks

    @cached_property
    def inline_code(self):
        """What stands between backticks."""
        return _INLINE.findall(self.prose)

    @cached_property
    def indented(self):
        """The lines that are indented as code is, without a fence."""
        return re.findall(r"^\n {4,}(\S.*)$", self.prose, re.M)

    @cached_property
    def links(self):
        """The targets of links and images within the repository."""
        targets = _LINK.findall(_INLINE.sub("", self.prose))
        return [target for target in targets if not re.match(r"\w+:", target)]

    @cached_property
    def headings(self):
        """The offsets of the headings, and their anchors, as GitHub and mkdocs.yml make them."""
        headings, seen = [], Counter()
        text = _FENCE.sub(lambda match: re.sub(r".", " ", match[0]), self.text)
        for match in _HEADING.finditer(text):
            words = re.sub(r"\]\([^)]*\)", "", match[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            headings.append((match.start(), f"{slug}-{seen[slug]}" if seen[slug] else slug))
            seen[slug] += 1
        return headings

    @cached_property
    def anchors(self):
        """The anchors of the headings."""
        return {anchor for _, anchor in self.headings}

    @cached_property
    def commands(self):
        """The command lines of the page, each a list of words: in blocks, and between backticks."""
        lines = [line for block in self.blocks if block.language == "sh" for line in block.lines]
        lines += self.inline_code
        programs = r"(gunicorn|gunicorn-h2|make|pip install) \S"
        return [split(line) for line in lines if re.match(programs, line)]


def split(line):
    """Return the words of a command line, without the comment behind it."""
    return shlex.split(re.sub(r" +# .*", "", line))


PAGES = [Page(path) for path in (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
)]


def tables(text):
    """The tables of a page: of each the rows, with its head as the first, and of each row the cells."""
    found = re.findall(r"^(?:\|.*\|\n)+", text, re.M)
    # A bar within backticks would be a bar in the table as well.
    rows = [[[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()] for table in found]
    return [[table[0], *table[2:]] for table in rows]


def codes(cell):
    """What stands between backticks in a cell."""
    return _INLINE.findall(cell)
