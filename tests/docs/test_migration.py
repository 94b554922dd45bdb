"""The tables of docs/migration.md: what is named is there, on both sides, and has the defaults that the tables say."""

import re
from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config

from gunicorn_h2.workers.settings import TABLE
from tests.support.pages import ROOT, Page, codes, tables
from tests.support.tools import require_module, require_tool

MIGRATION = Page(ROOT / "docs" / "migration.md")
BUILT_IN, HYPERCORN, NGINX = tables(MIGRATION.text)
SETTINGS = {setting.name for setting in KNOWN_SETTINGS} | {spec.name for spec in TABLE}
DEFAULTS = {name: setting.get() for name, setting in Config().settings.items()} | {
    spec.name: spec.default for spec in TABLE}
UNITS = {"s": 1, "KiB": 2**10, "MiB": 2**20}
NO_SETTINGS = {"uvloop", "wsgi.file_wrapper"}
"""Lower-case names in the columns of our settings that are something else: an extra, a key of the environ."""


def default(cell):
    """What a cell says of a default: a number in the setting's unit, or a word."""
    number = re.match(r"(\d+)(?: (s|KiB|MiB)\b)?", cell)
    return int(number[1]) * UNITS.get(number[2], 1) if number else cell


def is_default(cell, value):
    """Whether a cell's default is a setting's."""
    meanings = {"none": (None,), "off": (False, "off"), "no limit": (0,), "any": ([],)}
    if isinstance(value, list | tuple):
        return cell.replace(" ", "") == ",".join(value) or value in meanings.get(cell, ())
    return value in meanings.get(cell, (default(cell),))


def named(cell):
    """The settings that a cell names: not what has capitals, as the settings of frameworks do."""
    return {code.partition(" ")[0] for code in codes(cell) if re.match(r"[a-z]", code)} - NO_SETTINGS


@pytest.mark.parametrize("row", HYPERCORN[1:], ids=lambda row: row[0])
def test_hypercorns_settings(row):
    theirs, their_default, ours, our_default = row
    config = require_module("hypercorn.config").Config()
    assert all(hasattr(config, name) for name in named(theirs))
    assert named(ours) <= SETTINGS
    if their_default:
        assert is_default(their_default, getattr(config, *named(theirs)))
    if our_default:
        assert any(is_default(our_default, DEFAULTS[name]) for name in named(ours))


def test_settings_that_are_the_same_in_hypercorn():
    text = re.search(r"the same name in both: (.*?)\. The\nothers", MIGRATION.text, re.S)[1]
    config = require_module("hypercorn.config").Config()
    assert len(codes(text)) == 14
    assert [name for name in codes(text) if name not in SETTINGS or not hasattr(config, name)] == []


def test_what_hypercorn_has_and_is_not_here():
    text = MIGRATION.text.partition("What differs:")[2]
    config = require_module("hypercorn.config").Config
    assert all(hasattr(config, name) for name in re.findall(r"`(\w+_bind)`", text))


@pytest.fixture(scope="module")
def nginx():
    """nginx's program, which has the names of its directives in it."""
    return Path(require_tool("nginx")).read_bytes()


@pytest.mark.parametrize("row", NGINX[1:], ids=lambda row: row[0])
def test_nginxs_directives(row, nginx):
    theirs, ours = row
    # `http2` alone came with 1.25.1, which is newer than the tests' nginx.
    assert [name for name in named(theirs) if name.encode() not in nginx] == []
    assert named(ours) <= SETTINGS


def test_the_readme_counts_the_differences():
    words = {15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen"}
    assert f"[{words[len(BUILT_IN) - 1]} differences](docs/migration.md)" in (ROOT / "README.md").read_text()
