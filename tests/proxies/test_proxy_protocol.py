"""HAProxy passes connections on as they are, and says by the PROXY protocol whose they are."""

import json
import socket
import subprocess
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.h2client import H2Client
from tests.support.kinds import KINDS, make_server
from tests.support.server import stop_all
from tests.support.tools import require_tool

from .conftest import running

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
listen v1
    bind fd@{v1}
    server worker 127.0.0.1:{port} send-proxy
listen v2
    bind fd@{v2}
    server worker 127.0.0.1:{port} send-proxy-v2
"""
# Not the address that HAProxy itself connects from.
CLIENT = "127.0.0.2"
WORKERS = [pytest.param((name, tls), id=f"{name}-{'tls' if tls else 'h2c'}") for name in KINDS for tls in (True, False)]


@pytest.fixture(scope="module", params=WORKERS)
def server(request, certs, tmp_path_factory):
    """Each worker class, with TLS and without."""
    name, tls = request.param
    server = make_server(name, tmp_path_factory.mktemp("w"), certs, "tests.apps.{}_app:app", tls=tls,
                         proxy_protocol="auto", keepalive=60).start()
    server.path = "/scope" if server.kind.worker_class.endswith("ASGIWorker") else "/environ"
    yield server
    stop_all([server])


@pytest.fixture(scope="module")
def ports(server, tmp_path_factory):
    """A running HAProxy before the server: its ports, by the version that it sends."""
    with run_haproxy(tmp_path_factory.mktemp("h"), server) as ports:
        yield ports


@contextmanager
def run_haproxy(folder, server):
    """Run HAProxy before a server; return its ports."""
    with ExitStack() as stack:
        # It inherits the sockets, which can be connected to before it runs.
        listeners = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ("v1", "v2")}
        numbers = {name: listener.fileno() for name, listener in listeners.items()}
        (folder / "haproxy.cfg").write_text(HAPROXY.format(port=server.port, **numbers))
        stack.enter_context(running("haproxy", "-db", "-f", f"{folder}/haproxy.cfg", pass_fds=tuple(numbers.values())))
        yield {name: listener.getsockname()[1] for name, listener in listeners.items()}


def client_of(learnt):
    """The client's address and port, of an environ or a scope."""
    return learnt["client"] if "client" in learnt else [learnt["REMOTE_ADDR"], int(learnt["REMOTE_PORT"])]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_client_behind_haproxy(server, ports, version):
    sock = socket.create_connection(("127.0.0.1", ports[version]), 10, (CLIENT, 0))
    address = list(sock.getsockname())
    if server.tls:
        sock = server.certs.client_context().wrap_socket(sock, server_hostname="localhost")
    with H2Client(sock, server.authority, server.scheme) as client:
        client.send_preface()
        for _ in range(2):
            learnt = json.loads(client.get(server.path).body)
            assert client_of(learnt) == address
            if "client" not in learnt:
                assert (learnt["PROXY_PROTOCOL"], learnt["PROXY_PORT"]) == ("TCP4", str(ports[version]))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_curl_behind_haproxy(server, ports, version):
    http2 = "--http2" if server.tls else "--http2-prior-knowledge"
    done = subprocess.run(
        [require_tool("curl"), "--silent", "--show-error", http2, "--interface", CLIENT, "--cacert", server.certs.ca,
         "--write-out", "\n%{http_version} %{local_port}", f"{server.scheme}://127.0.0.1:{ports[version]}{server.path}"],
        capture_output=True, text=True, timeout=30, check=True)
    body, _, told = done.stdout.rpartition("\n")
    http_version, port = told.split()
    assert (http_version, client_of(json.loads(body))) == ("2", [CLIENT, int(port)])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_an_upload_behind_haproxy(server, ports, version):
    """What follows the header arrives whole, however it is cut."""
    sock = socket.create_connection(("127.0.0.1", ports[version]), 10, (CLIENT, 0))
    if server.tls:
        sock = server.certs.client_context().wrap_socket(sock, server_hostname="localhost")
    with H2Client(sock, server.authority, server.scheme) as client:
        client.send_preface()
        body = bytes(range(256)) * 4096
        assert client.post("/echo", body).body == body
