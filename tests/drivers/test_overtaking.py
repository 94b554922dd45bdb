"""An urgent response overtakes a bulk one: real TCP, each driver, a client that reads slowly."""

import socket
from queue import SimpleQueue

import pytest

from gunicorn_h2.protocol.headers import ResponseHead
from tests.support.h2client import H2Client
from tests.support.overtaking import BULK, MOST, SETTINGS, SlowReader

from .asyncio_wire import tcp_pair
from .every_driver import DRIVERS, AnyRig
from .rig import TIMEOUT

needs_option = pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system lacks the option")
HEAD = ResponseHead(200, [])
# No application waits for its client: in the hubs of these tests it would keep the others from running.
CONFIG = {"stream_buffer_size": 2 * BULK}


def unsent_limit(sock):
    """What the option is set to; 0 means the system's default."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)


class Application:
    """Answers with bulk or with little; `answered` tells of the latter."""

    def __init__(self):
        self.answered = SimpleQueue()

    def __call__(self, connection, channel):
        """Serve a request, in a thread or a greenlet."""
        bulk = channel.stream.head.path == b"/bulk"
        channel.respond(HEAD, bytes(BULK) if bulk else b"urgent", True)
        if not bulk:
            self.answered.put(True)
        channel.finish()

    async def serve(self, connection, channel):
        """Serve a request, in a task."""
        self(connection, channel)


@pytest.fixture
def application():
    """The application of the server."""
    return Application()


@pytest.fixture(params=DRIVERS)
def rig(request, certs, application):
    """A rig of each driver."""
    any_rig = AnyRig(request.param, certs, lambda pause: application, **CONFIG)
    yield any_rig.rig
    any_rig.close()


@pytest.fixture
def connect(certs, rig, tls):
    """A function that opens a TCP connection; it returns the server's descriptor, as a socket, and the client's."""
    sockets = []

    def connect(alpn="h2"):
        ours, theirs = tcp_pair()
        theirs.settimeout(TIMEOUT)
        watched = ours.dup()
        sockets.extend((theirs, watched))
        rig.serve(ours, tls)
        if tls:
            theirs = certs.client_context((alpn,)).wrap_socket(theirs, server_hostname="localhost")
            sockets.append(theirs)
        return watched, theirs

    yield connect
    for sock in sockets:
        sock.close()


@needs_option
def test_an_urgent_response_overtakes_a_bulk_one(connect, application):
    _, sock = connect()
    with H2Client(sock) as client:
        client.send_preface(SETTINGS)
        reader = SlowReader(client)
        assert reader.octets_before("/bulk", "/urgent", lambda: application.answered.get(timeout=TIMEOUT)) < MOST


@needs_option
def test_what_is_unsent_is_limited_over_http2_only(connect, rig):
    watched, sock = connect()
    default = unsent_limit(sock)
    with H2Client(sock) as client:
        client.send_preface()
        client.ping()
        assert 0 < unsent_limit(watched) <= 131_072
    watched, sock = connect("http/1.1")
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    handed_over, _ = rig.handed_over.get(timeout=TIMEOUT)
    assert unsent_limit(watched) == default
    handed_over.close()
