"""Every extra, installed alone from the wheel into an empty environment, gives what it promises.

Other tests run where all libraries are installed, so they cannot miss one.
"""

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import NamedTuple

import pytest

from tests.support.command import CONF, Command, fetch
from tests.support.h2client import H2Client
from tests.support.server import ROOT

# Once for each Python: .ci/compat leaves this module out where only Gunicorn differs. The time is for downloads.
pytestmark = [pytest.mark.compat, pytest.mark.timeout(300)]

SOURCES = ("gunicorn_h2", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")

APPLICATION = '''\
import asyncio
import json

import gunicorn_h2


def answer(loop):
    return json.dumps({"package": gunicorn_h2.__file__, "loop": loop}).encode()


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer("")]


def __getattr__(name):
    # Only with the extra.
    from gunicorn_h2.grpc import GrpcWSGI

    return GrpcWSGI(wsgi)


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer(type(asyncio.get_running_loop()).__module__)})
'''


class Promise(NamedTuple):
    """What an extra is there for: a command line, and the module of the event loop it brings."""

    extra: str
    arguments: tuple
    application: str = "hello:wsgi"
    loop: str = ""
    module: str = "gunicorn"

    @property
    def has_websockets(self):
        """Whether clients are offered WebSockets: for ASGI they need a library."""
        return "ASGI" not in str(self.arguments) or self.extra == "websocket"


PROMISES = {
    "thread": Promise("", ("-k", "gunicorn_h2.ThreadWorker")),
    "asgi": Promise("", ("-k", "gunicorn_h2.ASGIWorker"), "hello:asgi", "asyncio.unix_events"),
    "gevent": Promise("gevent", ("-k", "gunicorn_h2.GeventWorker")),
    "eventlet": Promise("eventlet", ("-k", "gunicorn_h2.EventletWorker")),
    "grpc": Promise("grpc", ("-k", "gunicorn_h2.ThreadWorker"), "hello:services"),
    "uvloop": Promise("uvloop", ("-k", "gunicorn_h2.ASGIWorker"), "hello:asgi", "uvloop"),
    "websocket": Promise("websocket", ("-k", "gunicorn_h2.ASGIWorker"), "hello:asgi", "asyncio.unix_events"),
    "devcert": Promise("devcert", (), module="gunicorn_h2.cli"),
}


class Installed(Command):
    """A command run in an environment of its own: nothing of this repository can be imported there."""

    def __init__(self, environment, *arguments, **options):
        super().__init__(*arguments, **options)
        self.python = environment / "bin" / "python"

    @property
    def working_directory(self):
        """Where the application is."""
        return self.directory

    @property
    def environ(self):
        """See `foreign_environ`."""
        return {**foreign_environ(), "PYTHONUNBUFFERED": "1", **self.env}


def foreign_environ():
    """Return the variables of the test run, without those that lead to its own packages."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COVERAGE"))}


def pip(*arguments):
    """Run pip; what it says is shown where it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, env=foreign_environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package's wheel, built from a copy of the sources: setuptools leaves its own files beside them."""
    directory = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, directory / name)
    pip("wheel", "--no-deps", "--wheel-dir", directory, directory)
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A function that returns an environment with the wheel and one extra, "" for none."""
    made = {}

    def environment(extra):
        if extra not in made:
            directory = tmp_path_factory.mktemp("venv")
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
            pip("--python", directory / "bin" / "python", "install", "--no-compile",
                f"{wheel}[{extra}]" if extra else wheel)
            made[extra] = directory
        return made[extra]

    return environment


@pytest.mark.parametrize("name", PROMISES)
def test_an_extra_alone_boots_its_worker(environment, tmp_path, certs, name):
    promise = PROMISES[name]
    (tmp_path / "hello.py").write_text(APPLICATION, encoding="utf-8")
    tls = () if promise.extra == "devcert" else ("--certfile", certs.server_cert, "--keyfile", certs.server_key)
    installed = environment(promise.extra)
    server = Installed(installed, tmp_path, certs, *promise.arguments, *tls, conf=CONF, module=promise.module,
                       app=promise.application)
    try:
        server.start()
        ca = server.wait_log(r"Clients can trust it by (\S+)")[1] if promise.extra == "devcert" else None
        answer = json.loads(fetch(server, ca=ca).text)
        if ca is None:
            with H2Client.connect(server) as client:
                assert client.wait_settings().get(8, 0) == promise.has_websockets
    finally:
        server.stop()
    assert answer["package"].startswith(str(installed))
    assert answer["loop"] == promise.loop


def test_every_extra_is_tested(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    extras = set(metadata.get_all("Provides-Extra")) - {"bench", "dev", "docs", "fuzz", "test"}
    assert extras == {promise.extra for promise in PROMISES.values()} - {""}


@pytest.mark.parametrize(("extra", "library", "public"), [
    ("gevent", "gevent", "gunicorn_h2.GeventWorker"), ("grpc", "grpc", "gunicorn_h2.grpc.GrpcWSGI")])
def test_without_an_extra_an_error_names_it(extra, library, public):
    module, _, name = public.rpartition(".")
    program = f"import sys; sys.modules[{library!r}] = None; from {module} import {name}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr.endswith(f"{public.removesuffix('.GrpcWSGI')} needs {'grpcio' if extra == 'grpc' else extra}: "
                                f"pip install 'gunicorn-h2[{extra}]'\n")
