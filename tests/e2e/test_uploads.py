"""An upload over a long path: windows grow with what the application reads and the round trip."""

import time

import pytest

from bench.client import Connection
from bench.link import Link, delayed

LINK = Link(round_trip=0.05, rate=25e6)


def rate(server, size):
    """Upload over the link; return how many octets went up in a second."""
    with delayed(server.port, LINK) as port, Connection(port, timeout=60) as connection:
        started = time.monotonic()
        response = connection.fetch("/count", "POST", bytes(size))
        assert bytes(response.body) == b'{"length": %d}' % size
        return size / (time.monotonic() - started)


@pytest.mark.alone
@pytest.mark.thorough
def test_an_upload_over_a_long_path(boot):
    """A window that does not grow goes there once a round trip."""
    fixed = rate(boot(http2_max_window_size=0), 1_500_000)
    assert fixed < 65_535 / LINK.round_trip
    assert rate(boot(), 20_000_000) > 5 * fixed
