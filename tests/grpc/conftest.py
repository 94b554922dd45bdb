"""Servers of tests/apps/grpc_app.py for each way to serve it, and clients of grpcio."""

import importlib.util
from typing import NamedTuple

import pytest

from tests.support.kinds import WSGI_KINDS
from tests.support.server import REFERENCE_WORKERS, Server, WorkerKind

# A Python for which there is no grpcio has none of this.
collect_ignore_glob = [] if all(map(importlib.util.find_spec, ("grpc_health", "grpc_tools"))) else ["test_*.py"]

APP = "tests.apps.grpc_app:"


class Setup(NamedTuple):
    """One way to serve: a worker class, the application, and whether there is TLS."""

    name: str
    kind: WorkerKind
    app: str
    tls: bool

    @property
    def has_threads(self):
        """Whether a servicer is synchronous, and cannot be interrupted."""
        return self.app != APP + "asgi"


KINDS = {
    **{name: (kind, APP + "wsgi") for name, kind in WSGI_KINDS.items()},
    "asgi": (REFERENCE_WORKERS["asgi"], APP + "asgi"),
    "asgi-threads": (REFERENCE_WORKERS["asgi"], APP + "asgi_threads"),
}
EVENTLET = WSGI_KINDS.get("eventlet")
SETUPS = [Setup(f"{name}-{'tls' if tls else 'clear'}", *kind, tls) for name, kind in KINDS.items()
          for tls in (True, False)]


class Client:
    """A channel of grpcio to a server, and the stub of its service."""

    def __init__(self, server, **options):
        import grpc

        from tests.grpc.interop import rpc

        target = f"localhost:{server.port}"
        arguments = {"options": list(options.pop("arguments", {}).items()), **options}
        if server.tls:
            with open(server.certs.ca, "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
            self.channel = grpc.secure_channel(target, credentials, **arguments)
        else:
            self.channel = grpc.insecure_channel(target, **arguments)
        self.server = server
        self.stub = rpc.InteropStub(self.channel)
        self.absent = rpc.AbsentStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


# Only the Gunicorns of `make compat` have an eventlet worker.
@pytest.fixture(params=[pytest.param(setup, id=setup.name, marks=[pytest.mark.compat] * (setup.kind is EVENTLET))
                        for setup in SETUPS])
def setup(request):
    """Each way to serve."""
    return request.param


@pytest.fixture
def server(setup, certs, tmp_path):
    """A running server; its log is examined at the end."""
    # On a slow machine, many calls that the client has ended go on for a moment, and count as streams.
    server = Server(tmp_path, setup.kind, certs, setup.app, tls=setup.tls, threads=16,
                    http2_max_concurrent_streams=1000)
    try:
        yield server.start()
    finally:
        server.stop()
