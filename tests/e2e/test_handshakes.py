"""TLS handshakes that fail leave a line for the operator, on every worker class: what happened, and what to do."""

import contextlib
import ssl
import time

import pytest

from tests.support.h2client import H2Client, open_tcp
from tests.support.kinds import KINDS, make_server

LINE = r"\[INFO\] TLS handshake with 127\.0\.0\.1 failed: "
PLAIN_HTTP = "the client sent plain HTTP to a TLS port; it must use https"


@contextlib.contextmanager
def serving(request, certs, tmp_path, **settings):
    """A server with TLS, fresh for each test: a line within the same second would be held back."""
    server = make_server(request.param, tmp_path, certs, "tests.apps.features:{}", **settings).start()
    yield server
    with H2Client.connect(server) as client:
        client.wait_settings()
    server.stop()


@pytest.fixture(params=KINDS)
def server(request, certs, tmp_path):
    """A server of each kind, which waits for a client as long as servers do."""
    with serving(request, certs, tmp_path) as server:
        yield server


@pytest.fixture(params=KINDS)
def impatient(request, certs, tmp_path):
    """A server of each kind that hardly waits."""
    with serving(request, certs, tmp_path, http2_handshake_timeout=0.5) as server:
        yield server


def plain_http(server):
    """Send an HTTP/1.1 request without TLS, and see the connection closed."""
    with open_tcp(server) as sock, contextlib.suppress(ConnectionResetError):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not sock.recv(1)


@pytest.mark.compat
def test_plain_http(server):
    plain_http(server)
    server.wait_log(LINE + PLAIN_HTTP)


def test_a_client_that_does_not_trust_the_certificate(server):
    with open_tcp(server) as sock, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(sock, server_hostname="localhost")
    server.wait_log(LINE + "the client does not trust the server's certificate")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_with_an_old_version(server):
    context = server.certs.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with open_tcp(server) as sock, pytest.raises(ssl.SSLError):
        context.wrap_socket(sock, server_hostname="localhost")
    server.wait_log(LINE + "client and server have no TLS version or cipher suite in common")


def test_a_client_that_stops_in_the_middle(impatient):
    with open_tcp(impatient) as sock:
        sock.sendall(b"\x16\x03\x01")
        impatient.wait_log(LINE + "the client did not finish it within http2_handshake_timeout")


def test_many_failures_are_one_line_a_second(server):
    started, more = time.monotonic(), "more since the last such line"
    while not server.has_log(more, timeout=0.02):
        assert time.monotonic() - started < 20, server.log_tail()
        plain_http(server)
    lines = server.log.count(PLAIN_HTTP)
    assert 2 <= lines <= 1 + (time.monotonic() - started)
    server.wait_log(rf"{LINE}{PLAIN_HTTP} \(\d+ more since the last such line\)")


def test_a_client_that_goes_without_a_word_is_no_news(server):
    open_tcp(server).close()
    plain_http(server)
    server.wait_log(LINE + PLAIN_HTTP)
    assert server.log.count("TLS handshake") == 1
