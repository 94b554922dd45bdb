"""What the README says of tests, files and worker classes is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"tests/\w+/test_\w+\.py(?:::\w+)?", README))))
def test_named_tests_exist(reference):
    path, _, name = reference.partition("::")
    functions = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert not name or name in functions


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([a-z][\w./-]*)\)", README))))
def test_linked_files_exist(link):
    assert (ROOT / link).exists()


def test_worker_classes_are_those_of_the_package():
    package = importlib.import_module("gunicorn_h2")
    named = set(re.findall(r"`gunicorn_h2\.(\w+Worker)` \|", README))
    assert named == {name for name in package.__all__ if name.endswith("Worker")}
    entry_points = set(re.findall(r"`egg:gunicorn-h2#(\w+)` \|", README))
    assert entry_points == set(re.findall(r"^    (\w+) = gunicorn_h2\.workers", (ROOT / "setup.cfg").read_text(), re.M))
