"""The examples do what they say, without Docker."""

import os
import subprocess
import sys

import httpx
import pytest

from tests.support.kinds import WSGI_KINDS
from tests.support.server import ROOT, Server
from tests.support.tools import require_module

EXAMPLE = ROOT / "examples" / "http2_features"


@pytest.fixture(scope="module", params=WSGI_KINDS.values(), ids=WSGI_KINDS.keys())
def kind(request):
    """Each worker class for WSGI that can run here."""
    return request.param


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def server(kind, certs, tmp_path, request):
    """The example's server."""
    server = Server(tmp_path, kind, certs, "app:app", tls=request.param, env={"PYTHONPATH": f"{EXAMPLE}:{ROOT}"})
    try:
        yield server.start()
    finally:
        server.stop()


def check(url, *options):
    """Run the example's script."""
    command = [sys.executable, str(EXAMPLE / "check.py"), *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_script_finds_every_feature(server):
    done = check(f"{server.scheme}://localhost:{server.port}", "--cacert", server.certs.ca)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[:4] for line in done.stdout.splitlines()] == ["ok  "] * 7


def test_the_page_is_the_same_without_the_features(server):
    with httpx.Client(verify=server.certs.client_context(alpn=())) as client:
        response = client.get(server.url)
    assert (response.status_code, response.http_version) == (200, "HTTP/1.1")
    assert "<tr><td>Protocol<td>HTTP/1.1\n" in response.text


def test_the_script_sees_what_is_missing(certs, tmp_path):
    """An application without any of it."""
    server = Server(tmp_path, WSGI_KINDS["thread"], certs, "tests.apps.wsgi_app:app").start()
    try:
        done = check(f"https://localhost:{server.port}", "--insecure")
    finally:
        server.stop()
    assert done.returncode == 1
    assert "FAIL one early hint came first" in done.stdout


# -- Flask and gRPC ----------------------------------------------------------------------------------------------------

GRPC = ROOT / "examples" / "grpc_flask"


def test_flask_and_grpc_on_one_port(kind, certs, tmp_path):
    for name in ("flask", "grpc_health", "grpc_reflection", "grpc_tools"):
        require_module(name)
    # As its README says, but the files go elsewhere.
    generate = ["-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    subprocess.run([sys.executable, *generate, "library.proto"], cwd=GRPC, check=True, timeout=30)
    env = {"PYTHONPATH": f"{GRPC}:{tmp_path}:{ROOT}"}
    for tls in (True, False):
        server = Server(tmp_path, kind, certs, "app:app", tls=tls, threads=8, env=env)
        try:
            server.start()
            command = [sys.executable, str(GRPC / "check.py"), "--cacert", certs.ca,
                       f"{server.scheme}://localhost:{server.port}"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, **env})
        finally:
            server.stop()
        assert done.returncode == 0, done.stdout + done.stderr
        assert [line[:4] for line in done.stdout.splitlines()] == ["ok  "] * 7
