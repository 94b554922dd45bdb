"""With every worker an urgent response overtakes a bulk one, however slowly the client reads."""

import socket

import pytest

from tests.support.h2client import H2Client
from tests.support.kinds import KINDS, make_server
from tests.support.overtaking import BULK, MOST, SETTINGS, SlowReader


@pytest.fixture(params=KINDS)
def server(request, certs, tls, tmp_path):
    """A server of each kind."""
    server = make_server(request.param, tmp_path, certs, "tests.apps.{}_app:app", tls=tls).start()
    yield server
    server.stop()


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system lacks the option")
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
