"""Fixtures for the end-to-end tests: shared servers and HTTP clients for each way to reach them."""

from typing import NamedTuple

import httpx
import pytest

from tests.support.gate import Gate
from tests.support.h2client import H2Client


class Transport(NamedTuple):
    """One way to talk to a server."""

    tls: bool
    http2: bool

    @property
    def version(self):
        """The HTTP version that must be spoken."""
        return "HTTP/2" if self.http2 else "HTTP/1.1"

    @property
    def curl_option(self):
        """What makes curl speak this protocol, and no other."""
        if not self.http2:
            return "--http1.1"
        return "--http2" if self.tls else "--http2-prior-knowledge"


TRANSPORTS = {
    "h2-tls": Transport(True, True),
    "h2-clear": Transport(False, True),
    "h1-tls": Transport(True, False),
    "h1-clear": Transport(False, False),
}


def http_client(server, http2=True, **options):
    """Return an httpx client for a server that speaks exactly one protocol and checks that it does."""
    version = "HTTP/2" if http2 else "HTTP/1.1"

    def check(response):
        assert response.http_version == version

    options.setdefault("timeout", 30)
    return httpx.Client(base_url=server.url, http1=not http2, http2=http2, event_hooks={"response": [check]},
                        verify=server.certs.client_context(alpn=()), **options)


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS.keys())
def transport(request):
    """Every way to talk to a server."""
    return request.param


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def tls(request):
    """With TLS and without."""
    return request.param


@pytest.fixture
def flask(shared, transport):
    """The Flask application's server for the transport."""
    return shared("flask", tls=transport.tls, threads=16)


@pytest.fixture
def http(flask, transport):
    """An httpx client of the Flask application over the transport."""
    with http_client(flask, transport.http2) as client:
        yield client


@pytest.fixture
def wsgi(shared, tls):
    """The plain WSGI application's server, with 4 threads."""
    return shared("wsgi", tls=tls, threads=4)


@pytest.fixture
def wsgi_tls(shared):
    """The plain WSGI application's server, with 4 threads and TLS."""
    return shared("wsgi", tls=True, threads=4)


@pytest.fixture
def h2(wsgi):
    """A raw HTTP/2 connection to the plain WSGI application."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        yield client


@pytest.fixture
def gate():
    """A place where application calls wait for the test."""
    with Gate() as gate:
        yield gate


@pytest.fixture
def key(request):
    """A key for the application's records that no other test uses."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
