"""A WebSocket's stream as a socket, on each driver whose applications block: octets, back-pressure, and the end."""

import queue
import threading

import pytest

from gunicorn_h2.drivers.socket_tunnel import SocketTunnel
from gunicorn_h2.protocol.headers import ResponseHead
from tests.support.websocket import connect_fields

from .every_driver import AnyRig
from .rig import TIMEOUT

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
LARGE = 1_048_576


class Echo:
    """An application that sends back what comes, once it may; `pause(seconds)` is how it waits."""

    def __init__(self, pause):
        self.pause, self.ended = pause, queue.SimpleQueue()
        self.may_read = threading.Event()

    def __call__(self, connection, channel):
        """Serve a request."""
        tunnel = SocketTunnel(connection, channel, ResponseHead)
        sock = tunnel.socket
        sock.setblocking(False)
        try:
            self._send(sock, SWITCH)
            while not self.may_read.is_set():
                self.pause(0.001)
            while octets := self._again(sock.recv, 65_536):
                self._send(sock, octets)
            self.ended.put(None)
        except OSError as error:
            self.ended.put(error)
        finally:
            tunnel.close()
            channel.finish()

    def _again(self, call, argument):
        """Call until there is no need to wait."""
        while True:
            try:
                return call(argument)
            except BlockingIOError:
                self.pause(0.001)

    def _send(self, sock, octets):
        while octets:
            octets = octets[self._again(sock.send, octets):]


class Tunnels(AnyRig):
    """A rig with `Echo`."""

    def __init__(self, kind, certs):
        super().__init__(kind, certs, self._make, worker_spool_size=0)

    def _make(self, pause):
        self.echo = Echo(pause)
        return self.echo

    def close(self):
        """End it all."""
        self.echo.may_read.set()
        super().close()


@pytest.fixture(params=["threads", "gevent", "eventlet"])
def tunnels(request, certs):
    """A rig of each driver."""
    tunnels = Tunnels(request.param, certs)
    yield tunnels
    tunnels.close()


def connect(tunnels, **options):
    """Open a connection and a tunnel."""
    client = tunnels.rig.client(False, **options)
    client.wait_settings()
    client.grant(2**30)
    stream = client.open()
    fields = connect_fields("/ws", authority=client.authority, scheme="http")
    client.send_raw(client.header_frames(stream.stream_id, fields))
    client.wait_headers(stream)
    assert stream.status == 200
    return client, stream


def test_octets_come_back(tunnels):
    tunnels.echo.may_read.set()
    client, stream = connect(tunnels)
    client.send_body(stream, bytes(range(256)) * (LARGE // 256), end=True)
    client.response(stream)
    assert stream.body == bytes(range(256)) * (LARGE // 256)
    assert tunnels.echo.ended.get(timeout=TIMEOUT) is None


def test_a_client_waits_for_an_application_that_does_not_read(tunnels):
    client, stream = connect(tunnels)
    sent = 0
    while client.room(stream) >= 16_000:
        client.send_body(stream, bytes(16_000), end=False)
        sent += 16_000
        client.ping()
    assert sent < 1_000_000
    tunnels.echo.may_read.set()
    client.send_body(stream, bytes(LARGE), end=True)
    client.response(stream)
    assert stream.received == sent + LARGE


def test_an_application_waits_for_a_client_that_does_not_read(tunnels):
    tunnels.echo.may_read.set()
    client, stream = connect(tunnels, auto_window=False)
    sent = 0
    while client.room(stream) >= 16_000:
        client.send_body(stream, bytes(16_000), end=False)
        sent += 16_000
        client.ping()
    assert sent < 2_000_000
    client.wait_for(lambda: stream.received == min(sent, 65_535), "what the window allows")
    client.grant(2**30, stream)
    client.send_raw(client.data_frame(stream.stream_id, b"", end_stream=True))
    client.response(stream)
    assert stream.received == sent
    assert tunnels.echo.ended.get(timeout=TIMEOUT) is None


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_client_that_goes(tunnels, how):
    tunnels.echo.may_read.set()
    client, stream = connect(tunnels)
    if how == "reset":
        client.reset(stream)
        client.ping()
    else:
        client.close()
    tunnels.echo.ended.get(timeout=TIMEOUT)
