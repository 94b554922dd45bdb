"""The README is short, its links work in the source distribution, and its worker classes are those of the package."""

import importlib
import re

import pytest

from tests.support.pages import ROOT, Page

README = Page(ROOT / "README.md")
WORKERS = Page(ROOT / "docs" / "workers.md")


def test_it_is_a_screen_and_a_half():
    assert README.text.count("\n") <= 120
    assert len(README.text.split()) <= 600


def test_it_has_one_chart():
    assert re.findall(r"!\[[^\]]+\]\((.*?)\)", README.text) == ["docs/benchmarks/hello-10x10.svg"]


def test_what_it_links_to_is_in_the_source_distribution():
    # LICENSE is there by license_files.
    manifest = {"LICENSE", *re.findall(r"[\w.]+", "\n".join(
        line for line in (ROOT / "MANIFEST.in").read_text().splitlines() if line.startswith(("include", "graft"))))}
    linked = {link.partition("#")[0].partition("/")[0] for link in README.links} - {""}
    assert linked <= manifest


@pytest.mark.parametrize("page", [README, WORKERS], ids=str)
def test_worker_classes_are_those_of_the_package(page):
    package = importlib.import_module("gunicorn_h2")
    named = re.findall(r"^\| `gunicorn_h2\.(\w+)` \|", page.text, re.M)
    assert sorted(named) == sorted(name for name in package.__all__ if name.endswith("Worker"))


def test_entry_points_are_those_of_the_package():
    named = re.findall(r"`egg:gunicorn-h2#(\w+)` \|", WORKERS.text)
    assert named == re.findall(r"^\s+(\w+) = gunicorn_h2\.workers", (ROOT / "setup.cfg").read_text(), re.M)
