"""Requests that are answered before the application: the operator sees each of them, on every worker class."""

import re
import socket
from contextlib import ExitStack

import pytest

from tests.support.h2client import H2Client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import Server

KINDS = {**WSGI_KINDS, **ASGI_KINDS}
LIMITS = {
    "limit_request_line": 200,
    "limit_request_fields": 20,
    "limit_request_field_size": 500,
    "http2_max_header_list_size": 4096,
    "header_map": "refuse",
    "access_log_format": "ACCESS %(h)s %(r)s %(s)s %(b)s %(a)s",
}
AGENT = ("user-agent", "tests")
URI = "/" + "x" * 300
CONNECT = {"method": "CONNECT", "path": None, "scheme": None}

REFUSALS = {
    # The pseudo-header fields, further fields, the status, the line and the octets in the access log, the warning.
    "line": ({"path": URI}, [], 414, f"GET {URI[:200]}", 17, r"Request Line is too large \(301 > 200\)"),
    "line-head": ({"path": URI, "method": "HEAD"}, [], 414, f"HEAD {URI[:200]}", 0, "Request Line is too large"),
    "fields": ({}, [(f"x-{n}", "") for n in range(30)], 431, "GET /?a=b", 0, "too many header fields"),
    "field": ({}, [("x-large", "v" * 500)], 431, "GET /?a=b", 36, "limit request headers fields size"),
    "list": ({}, [("x-large", "v" * 4096)], 431, "GET /?a=b", 0, "header list too large"),
    "name": ({}, [("x_y", "1")], 400, "GET /?a=b", 16, "Invalid HTTP header name: 'X_Y'"),
    "connect": (CONNECT, [], 501, "CONNECT localhost:1", 0, "CONNECT is not supported"),
}


@pytest.fixture(scope="module")
def statsd():
    """A socket to which counters are sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        yield sock


@pytest.fixture(scope="module", params=KINDS)
def boot(request, certs, tmp_path_factory, statsd):
    """A function that boots a server with limits; whatever is refused must not reach its application."""
    app = f"tests.apps.features:{'asgi' if request.param in ASGI_KINDS else 'wsgi'}"
    with ExitStack() as stack:
        def boot(**options):
            options = {**LIMITS, "statsd_host": f"127.0.0.1:{statsd.getsockname()[1]}", **options}
            server = Server(tmp_path_factory.mktemp("server"), KINDS[request.param], certs, app, **options)
            stack.callback(server.stop)
            return server.start()

        yield boot


@pytest.fixture(scope="module")
def server(boot):
    """A server on a TCP port."""
    return boot()


def send(server, pseudo, fields):
    """Make a request and return its finished stream."""
    pseudo = {":method": "GET", ":scheme": server.scheme, ":path": "/?a=b", ":authority": "localhost:1",
              **{f":{name}": value for name, value in pseudo.items()}}
    with H2Client.connect(server) as client:
        client.wait_settings()
        section = [(name, value) for name, value in pseudo.items() if value is not None]
        return client.response(client.send_fields([*section, AGENT, *fields]))


def counted(sock, name):
    """Whether statsd was sent a counter."""
    while True:
        if sock.recv(4096).decode().startswith(f"{name}:1|c"):
            return True


@pytest.mark.compat
@pytest.mark.parametrize(("pseudo", "fields", "status", "line", "octets", "reason"), REFUSALS.values(),
                         ids=REFUSALS.keys())
def test_a_refused_request_is_logged_as_any_other(server, statsd, pseudo, fields, status, line, octets, reason):
    mark = server.log_mark()
    stream = send(server, pseudo, fields)
    assert (stream.status, stream.received) == (status, octets)
    server.wait_log(rf"\[WARNING\] Invalid request from ip=127\.0\.0\.1: {reason}", after=mark)
    server.wait_log(rf"ACCESS 127\.0\.0\.1 {re.escape(line)} HTTP/2\.0 {status} {octets} tests$", after=mark)
    assert counted(statsd, f"gunicorn.request.status.{status}")


def test_a_refused_request_from_a_unix_socket_is_logged(boot):
    server = boot(tls=False, unix=True)
    assert send(server, {"path": URI}, []).status == 414
    server.wait_log(r"\[WARNING\] Invalid request from ip=: Request Line is too large")
    server.wait_log(rf"ACCESS - GET {URI[:200]} HTTP/2\.0 414 17 tests$")
