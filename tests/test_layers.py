"""The architecture: imports point downwards, and each layer keeps to what it may know."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gunicorn_h2

PACKAGE = Path(gunicorn_h2.__file__).parent
LAYERS = ("protocol", "drivers", "apps", "workers")
TOP = len(LAYERS)

IMPURE = {"socket", "ssl", "selectors", "select", "threading", "queue", "asyncio", "gevent", "eventlet", "time", "os",
          "subprocess", "logging", "gunicorn"}
HTTP2_LIBRARY = {"h2", "hpack", "hyperframe"}
KNOW_HTTP2_LIBRARY = {
    "gunicorn_h2.protocol.codec_hpack": {"hpack"},
    "gunicorn_h2.protocol.referee": {"h2"},
    "gunicorn_h2.doctor.exchange": {"h2"},
}
KNOW_GUNICORN = {"apps", "workers", "check", "cli"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(name):
    """Return the layer of a dotted module name in the package: its index, or `TOP` for what stands above."""
    part = name.split(".")[1] if "." in name else ""
    return LAYERS.index(part) if part in LAYERS else TOP


def imports_of(source, name, is_package=False):
    """Yield the absolute dotted name of every import, wherever it stands; of each name, if it could be a module."""
    here = name.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = here[: len(here) - node.level + is_package] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source, name, is_package=False):
    """Yield what is wrong with the imports of a module."""
    layer = layer_of(name)
    for target in imports_of(source, name, is_package):
        root = target.split(".")[0]
        if root == "gunicorn_h2" and layer_of(target) > layer:
            yield f"{name} imports {target}, which is above it"
        if layer == 0 and root in IMPURE:
            yield f"{name}, of the sans-IO core, imports {target}"
        if root == "gunicorn" and not KNOW_GUNICORN & set(name.split(".")):
            yield f"{name} imports {target}, but does not know Gunicorn"
        if root in HTTP2_LIBRARY - KNOW_HTTP2_LIBRARY.get(name, set()):
            yield f"{name} imports {target}, but does not know the library"


def dotted_name(path):
    """Return the dotted name of a file of the package."""
    parts = ("gunicorn_h2", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=[dotted_name(path) for path in MODULES])
def test_imports_point_downwards(path):
    source = path.read_text(encoding="utf-8")
    assert list(violations(source, dotted_name(path), path.name == "__init__.py")) == []


@pytest.mark.parametrize(("name", "source"), [
    ("gunicorn_h2.protocol.frames", "import time"),
    ("gunicorn_h2.protocol.frames", "from os.path import join"),
    ("gunicorn_h2.protocol.frames", "def f():\n    import socket"),
    ("gunicorn_h2.protocol.frames", "import hpack"),
    ("gunicorn_h2.protocol.codec_fast", "import hpack"),
    ("gunicorn_h2.protocol.codec_hpack", "import h2.connection"),
    ("gunicorn_h2.protocol.referee", "import hpack"),
    ("gunicorn_h2.protocol.engine", "import h2.connection"),
    ("gunicorn_h2.protocol.frames", "from h2.events import Event"),
    ("gunicorn_h2.protocol.frames", "from ..drivers import channel"),
    ("gunicorn_h2.protocol.frames", "from .. import drivers"),
    ("gunicorn_h2.protocol.frames", "import gunicorn_h2"),
    ("gunicorn_h2.drivers.threads", "from gunicorn import util"),
    ("gunicorn_h2.drivers.threads", "from gunicorn_h2.apps.wsgi import environ"),
    ("gunicorn_h2.apps.wsgi", "from gunicorn_h2 import workers"),
    ("gunicorn_h2.apps.wsgi", "import gunicorn_h2.workers.thread"),
    ("gunicorn_h2.workers.thread", "import h2.connection"),
    ("gunicorn_h2.workers.thread", "from gunicorn_h2.cli import main"),
    ("gunicorn_h2.devcert", "import gunicorn.config"),
])
def test_a_violation_is_found(name, source):
    assert len(list(violations(source, name))) == 1


@pytest.mark.parametrize(("name", "source"), [
    ("gunicorn_h2.protocol.connection", "from .frames import Frame\nfrom . import guard\nimport struct"),
    ("gunicorn_h2.protocol.referee", "import h2.connection\nfrom h2.config import H2Configuration"),
    ("gunicorn_h2.protocol.codec_hpack", "from hpack import Decoder"),
    ("gunicorn_h2.drivers.threads", "import socket\nfrom ..protocol import connection"),
    ("gunicorn_h2.apps.wsgi", "from gunicorn.http.wsgi import Response\nfrom ..drivers.channel import StreamAborted"),
    ("gunicorn_h2.workers.thread", "import gunicorn_h2.apps.wsgi\nfrom gunicorn.workers.base import Worker"),
    ("gunicorn_h2.cli", "import gunicorn.config\nfrom .workers import settings\nfrom gunicorn_h2.devcert import NAMES"),
])
def test_what_is_allowed_is_no_violation(name, source):
    assert list(violations(source, name)) == []


def test_relative_imports_of_a_package_start_at_itself():
    assert list(imports_of("from .frames import Frame", "gunicorn_h2.protocol", is_package=True)) == [
        "gunicorn_h2.protocol.frames.Frame"]


# -- the public names ------------------------------------------------------------------------------------------------


def run(code):
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import gunicorn_h2; print(*(set(sys.modules) - before))"
    imported = {name.split(".")[0] for name in run(code)}
    assert not imported & {"gevent", "eventlet", "gunicorn", "h2", "ssl", "asyncio"}


def test_the_worker_class_brings_no_other_workers_libraries():
    imported = run("import sys, gunicorn_h2; gunicorn_h2.ThreadWorker; print(*sys.modules)")
    assert "gunicorn_h2.workers.thread" in imported
    assert not {name.split(".")[0] for name in imported} & {"gevent", "eventlet", "tornado"}


@pytest.mark.parametrize(("engine", "expected"), [("fast", set()), ("h2", {"h2", "hpack", "hyperframe"})])
def test_only_who_chooses_the_h2_engine_imports_the_library(engine, expected):
    imported = run(f"""if True:
        import sys
        from gunicorn_h2.protocol.config import ConnectionConfig
        from gunicorn_h2.protocol.connection import ServerConnection
        ServerConnection(ConnectionConfig(engine="{engine}"), 0.0)
        print(*sys.modules)""")
    assert {name.split(".")[0] for name in imported} & HTTP2_LIBRARY == expected


def test_the_public_names():
    assert set(gunicorn_h2.__all__) <= set(dir(gunicorn_h2))
    assert issubclass(gunicorn_h2.StreamAborted, OSError)
    assert gunicorn_h2.ThreadWorker is gunicorn_h2.ThreadWorker
    with pytest.raises(AttributeError, match="gunicorn_h2"):
        gunicorn_h2.no_such_name  # noqa: B018
