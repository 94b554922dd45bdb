"""Every framework on every worker class that fits: one server for each, with TLS and without."""

from contextlib import ExitStack
from typing import NamedTuple

import pytest
from gunicorn import version_info

from tests.e2e.conftest import TRANSPORTS, http_client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import Server, WorkerKind


class Combination(NamedTuple):
    """An application on a worker class."""

    app: str
    kind: WorkerKind
    is_asgi: bool


WSGI_APPS = {"flask": "tests.apps.flask_suite:app", "django": "tests.apps.django_app:wsgi()"}
ASGI_APPS = {"fastapi": "tests.apps.fastapi_app:app", "quart": "tests.apps.quart_app:app",
             "django-asgi": "tests.apps.django_app:asgi()"}
COMBINATIONS = {
    **{f"{name}-{kind}": Combination(app, WSGI_KINDS[kind], False) for name, app in WSGI_APPS.items()
       for kind in WSGI_KINDS},
    **{f"{name}-{kind}": Combination(app, ASGI_KINDS[kind], True) for name, app in ASGI_APPS.items()
       for kind in ASGI_KINDS},
}


@pytest.fixture(scope="module", params=COMBINATIONS.values(), ids=COMBINATIONS.keys())
def combination(request):
    """Each framework on each worker class that fits."""
    return request.param


@pytest.fixture(scope="module")
def servers(combination, certs, tmp_path_factory):
    """A function that returns the application's server with TLS or without, booted when it is first asked for."""
    running = {}
    with ExitStack() as stack:
        def get(tls):
            if tls not in running:
                directory = tmp_path_factory.mktemp("frameworks")
                running[tls] = Server(directory, combination.kind, certs, combination.app, tls=tls, threads=8).start()
                running[tls].expect("deliberate failure with a secret")
                stack.callback(running[tls].stop)
            return running[tls]

        yield get


@pytest.fixture(params=TRANSPORTS.values(), ids=TRANSPORTS.keys())
def transport(request):
    """Every way to talk to a server."""
    return request.param


@pytest.fixture(params=[TRANSPORTS["h2-tls"], TRANSPORTS["h2-clear"]], ids=["h2-tls", "h2-clear"])
def http2(request):
    """The two ways that are HTTP/2."""
    return request.param


def works(combination, transport):
    """Whether Gunicorn's own code does its part: before version 27, ASGI over a kept HTTP/1.1 connection does not."""
    return transport.http2 or not combination.is_asgi or version_info >= (27,)


@pytest.fixture
def server(servers, transport, combination):
    """The application's server for the transport."""
    if not works(combination, transport):
        pytest.skip("HTTP/1.1 for ASGI of Gunicorn before 27, whose own worker leaves requests unanswered")
    return servers(transport.tls)


@pytest.fixture
def http(server, transport):
    """An httpx client for the transport."""
    with http_client(server, transport.http2) as client:
        yield client


@pytest.fixture
def key(request):
    """A key that no other test uses."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
