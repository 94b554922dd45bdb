"""Fixtures that run servers."""

import pytest

from tests.support.server import stop_all


@pytest.fixture
def running():
    """A function that starts a server and returns it; the last one is stopped first, and each log examined."""
    servers = []

    def start(server):
        servers.append(server)
        return server.start()

    yield start
    for server in reversed(servers):
        stop_all([server])
