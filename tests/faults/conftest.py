"""A server for each worker class, in the clear and with TLS, with a bystander; and servers for a single test."""

import pytest

from tests.support.gate import Gate
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS, make_server

from .site import THREADS, Site

APP = "tests.apps.faults:{}"
# Only the Gunicorns of `make compat` have an eventlet worker.
KINDS = [pytest.param(name, marks=[pytest.mark.compat] * (name == "eventlet")) for name in (*WSGI_KINDS, *ASGI_KINDS)]


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    """Each worker class, by name."""
    return request.param


@pytest.fixture(scope="session")
def site(kind, certs, tmp_path_factory):
    """A server in the clear with a bystander."""
    yield from serve(kind, certs, tmp_path_factory.mktemp("server"), tls=False)


@pytest.fixture(scope="session")
def tls_site(kind, certs, tmp_path_factory):
    """A server with TLS, and a bystander."""
    yield from serve(kind, certs, tmp_path_factory.mktemp("server"), tls=True)


def serve(kind, certs, folder, **settings):
    """Run a server while a test uses it."""
    server = make_server(kind, folder, certs, APP, threads=THREADS, keepalive=60, **settings).start()
    site = Site(server)
    yield site
    site.close()
    server.stop()


@pytest.fixture
def boot(kind, certs, tmp_path):
    """A function that starts a server for one test."""
    servers = []

    def boot(**settings):
        server = make_server(kind, tmp_path, certs, APP, **{"threads": 4, "tls": False, "keepalive": 60, **settings})
        servers.append(server.start())
        return server

    yield boot
    for server in servers:
        server.stop()


@pytest.fixture
def gate():
    """A place where application calls wait for the test."""
    with Gate() as gate:
        yield gate
