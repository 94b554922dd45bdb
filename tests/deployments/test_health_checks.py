"""Health checks as load balancers make them, by TCP, HTTP/1.1 and HTTP/2, on each worker class."""

import socket
from functools import partial

import pytest

from tests.support.h1client import exchange, request_bytes
from tests.support.h2client import H2Client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS, make_server

STRANGER = "127.0.0.2"
"""An address of this machine that is not in Gunicorn's default of forwarded_allow_ips."""


@pytest.fixture(params=[*WSGI_KINDS, *ASGI_KINDS])
def start(request, running, tmp_path, certs):
    """A function that starts a server of each class; its log has a line for each request."""
    app = "tests.apps.deployed:" + ("app" if request.param in WSGI_KINDS else "asgi")

    def start(**settings):
        return running(make_server(request.param, tmp_path, certs, app, keepalive=60, **settings))

    return start


def check_by_http1(server, path="/health", source=None):
    """Return the response to a check by HTTP/1.1, on a connection that is closed then."""
    return exchange(server, request_bytes(server, path=path, headers=[("Connection", "close")]), source=source)


def assert_quiet(server, get, source=""):
    """Checks by TCP, which connect and close, leave no line in the log: there are only those of requests."""
    get(f"/health?begin{source}")
    mark = server.wait_log(f"begin{source} ").line_number
    for _ in range(3):
        socket.create_connection((server.host, server.port), 10, (source, 0)).close()
    get(f"/health?end{source}")
    end = server.wait_log(f"end{source} ").line_number
    assert all("ACCESS" in line for line in server.log.splitlines()[mark:end])


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "both"])
def test_one_port_for_all(start, tls):
    """With TLS, and with http2_cleartext = "both": HTTP/1.1 for the check, HTTP/2 for the balancer's requests."""
    server = start(tls=tls)
    with H2Client.connect(server) as client:
        assert client.get("/health").status == 200
        response = check_by_http1(server)
        assert (response.status, response.text) == (200, "ok\n")
        assert client.get("/health").status == 200
        assert_quiet(server, client.get)


def test_prior_knowledge(start):
    """HTTP/1.1 of a trusted peer is a mistake, which the answer and the log name; HTTP/2 and TCP are fine.

    Peers that are not trusted get HTTP/1.1: checks that come from elsewhere than the requests.
    """
    server = start(tls=False, http2_cleartext="prior-knowledge")
    with H2Client.connect(server) as client:
        assert client.get("/health").text == "ok\n"
        assert_quiet(server, client.get)
    response = check_by_http1(server)
    assert response.status == 400
    assert "HTTP/2 connection preface expected" in response.text
    server.wait_log("Invalid request from ip=127.0.0.1: no HTTP/2 connection preface; if it is a health check by "
                    "HTTP/1.1, set http2_cleartext = 'both'")
    assert check_by_http1(server, source=STRANGER).status == 200
    assert_quiet(server, partial(check_by_http1, server, source=STRANGER), STRANGER)
