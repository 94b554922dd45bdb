"""One server for each worker class, engine and transport, of one worker process, for all the rules."""

from typing import NamedTuple

import pytest

from tests.support.kinds import WSGI_KINDS
from tests.support.server import REFERENCE_WORKERS, Server, WorkerKind

from .rules import rules_of

KINDS = {**WSGI_KINDS, "asgi": REFERENCE_WORKERS["asgi"]}
SETTINGS = {
    "http2_max_concurrent_streams": 10,
    "http2_initial_window_size": 32_768,
    "keepalive": 30,
    "threads": 16,
}
"""What is not the default stands for a rule: few streams, and a window that is smaller than a client's first guess."""


class Setup(NamedTuple):
    """One way to serve."""

    name: str
    kind: WorkerKind
    engine: str
    tls: bool


# Of the two workers on greenlets, eventlet's differs in how it waits: one engine is enough for that.
SETUPS = [
    Setup(f"{name}-{engine}-{'tls' if tls else 'clear'}", kind, engine, tls)
    for name, kind in KINDS.items()
    for engine in (("fast",) if name == "eventlet" else ("fast", "h2"))
    for tls in (True, False)
]


def pytest_collection_modifyitems(items):
    """Leave out sections on TLS where there is none."""
    items[:] = [item for item in items if _applies(getattr(item, "callspec", None))]


def _applies(callspec):
    """Whether a section has rules for the server that it is to be played with."""
    params = {} if callspec is None else callspec.params
    return not isinstance(params.get("server"), Setup) or bool(rules_of(params["section"], params["server"].tls))


@pytest.fixture(scope="session", params=SETUPS, ids=lambda setup: setup.name)
def server(request, certs, tmp_path_factory):
    """A running server, of each kind in turn; its log is examined when it is no longer needed."""
    setup = request.param
    server = Server(tmp_path_factory.mktemp("server"), setup.kind, certs, "wsgi", tls=setup.tls,
                    **SETTINGS, http2_engine=setup.engine, http2_cleartext="both")
    server.start()
    # Of an application that answers 101.
    server.expect("is no status of a final response")
    yield server
    server.stop()
