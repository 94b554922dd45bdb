"""With every worker an urgent response overtakes a bulk one, however slowly the client reads, and over a slow link."""

import socket
from itertools import islice

import pytest

from bench.client import Connection
from bench.link import QUEUE_SECONDS, READ_SIZE, delayed
from bench.overtaking import BUFFER, SLOW_LINK, waits
from tests.support.h2client import H2Client
from tests.support.kinds import KINDS, make_server
from tests.support.overtaking import BULK, MOST, SETTINGS, SlowReader

LINK_HOLDS = SLOW_LINK.rate * (SLOW_LINK.round_trip + QUEUE_SECONDS) + READ_SIZE + 2 * BUFFER
"""Octets of bulk that are on the way when the server has the urgent request, and come while that is on its way.

The kernel accounts for a buffer by twice its size.
"""
SERVER_HOLDS = 100_000
"""What the server's kernel holds unsent, with a segment that it fills, and what the connection has gathered."""

needs_option = pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system lacks the option")


@pytest.fixture(params=KINDS)
def server(request, certs, tls, tmp_path):
    """A server of each kind."""
    server = make_server(request.param, tmp_path, certs, "tests.apps.{}_app:app", tls=tls).start()
    yield server
    server.stop()


@needs_option
@pytest.mark.thorough
def test_an_urgent_response_overtakes_a_bulk_one(server, gate):
    """What stands before it is what is on the way, not the megabytes that the kernel would take."""
    def wait_inside():
        gate.wait_inside()
        gate.release()

    with H2Client.connect(server, settings=SETTINGS) as client:
        reader = SlowReader(client)
        assert reader.octets_before(f"/bytes?n={BULK}", gate.path("/gate"), wait_inside) < MOST
        # The server records what is wrong with the rest, which the client does not wait for.
        client.reset(client.streams[1])
        client.ping()


@needs_option
@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["thread", "gevent", "asgi"])
def test_an_urgent_response_waits_for_what_is_on_the_way_alone(kind, certs, tmp_path):
    """The link is the bottleneck, and both windows are open. Its octets count the time, whatever the machine does."""
    server = make_server(kind, tmp_path, certs, "tests.apps.priorities:{}").start()
    try:
        with delayed(server.port, SLOW_LINK) as port, Connection(port) as connection:
            found = list(islice(waits(connection, f"/filler?n={BULK}", "/filler?n=1000", 200_000), 3))
    finally:
        server.stop()
    # On a busy machine the application may come late to one of them.
    best = min(octets for _, octets in found)
    assert SLOW_LINK.rate * SLOW_LINK.round_trip / 2 < best < LINK_HOLDS + SERVER_HOLDS, found
