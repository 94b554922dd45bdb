"""A worker, and a bystander: a connection of somebody else's, served all the while, that sees what is left behind."""

import contextlib
import json
import math
import socket
import ssl
import struct
import time

from tests.support.gate import Gate
from tests.support.h2client import BIG_WINDOW, H2Client, open_tcp

TIMEOUT = 15
THREADS = 8
GREENLETS = 150
"""More requests at a time than a worker keeps idle greenlets for."""
MOST_GROWTH = 24 * 1024 * 1024


class Site:
    """A server of one worker, and what it holds when nothing is wrong."""

    def __init__(self, server, warm_up=THREADS):
        self.server = server
        self.bystander = H2Client.connect(server)
        self.bystander.wait_settings()
        self._warm_up(GREENLETS if server.kind.has_greenlets else warm_up)
        self.usual = self.held()
        self.memory = server.rss()

    def _warm_up(self, count):
        """Have every thread and some greenlets made that are kept for the next request."""
        with Gate() as gate, H2Client.connect(self.server) as one, H2Client.connect(self.server) as another:
            streams = [client.request("GET", gate.path("/gate")) for client in (one, another)
                       for _ in range(count // 2)]
            gate.wait_inside(count)
            gate.release()
            assert [stream.client.response(stream).status for stream in streams] == [200] * count
        for _ in range(3):
            self.held()

    def held(self):
        """What the worker holds now, as the bystander is told: so the bystander is served, too.

        A worker without a descriptor to look them up by has none left to count.
        """
        answer = self.bystander.get("/held")
        return json.loads(answer.text) if answer.status == 200 else {"descriptors": math.inf}

    def check(self):
        """The bystander is served, and sees that nothing is left behind of the others."""
        deadline = time.monotonic() + TIMEOUT
        while left := {name: (count, self.usual[name]) for name, count in self.held().items()
                       if count > self.usual[name]}:
            assert time.monotonic() < deadline, f"left behind (now, usually): {left}"
            assert not self.bystander.wait_broken(0.05)
        growth = self.server.rss() - self.memory
        assert growth < MOST_GROWTH, f"grew by {growth} octets"

    def serve_newcomer(self):
        """A client that comes now is served."""
        with H2Client.connect(self.server) as client:
            assert client.get("/hello").status == 200

    def close(self):
        """Let the bystander go."""
        self.bystander.close()


# -- how a client goes -------------------------------------------------------------------------------------------------


def leave(sock):
    """Close the connection."""
    sock.close()


def break_off(sock):
    """Reset the connection: RST where FIN would be."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def end_sending(sock):
    """Half-close: send FIN, and read to the end."""
    with sock, contextlib.suppress(ConnectionError, ssl.SSLError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(TIMEOUT)
        while sock.recv(65_536):
            pass


WAYS = {"close": leave, "reset": break_off, "half-close": end_sending}


# -- the states of a stream (RFC 9113 section 5.1) ---------------------------------------------------------------------


def be_idle(client, gate):
    """No stream at all."""
    client.wait_settings()


def begin_upload(client, gate):
    """Open: the application reads the body, most of which is still to come."""
    stream = client.request("POST", "/count", [("content-length", "1000000")], end=False)
    client.send_body(stream, bytes(60_000), end=False)
    client.wait_for(lambda: client.room(stream) > 30_000, "credit for what was read")


def upload_unread(client, gate):
    """Open: the application does something else, the window is full."""
    stream = client.request("POST", gate.path("/gate"), end=False)
    gate.wait_inside()
    client.wait_settings()
    client.send_body(stream, bytes(65_535), end=False)


def await_answer(client, gate):
    """Half-closed (remote): the application is at work."""
    client.request("GET", gate.path("/gate"))
    gate.wait_inside()


def block_window(client, gate):
    """Half-closed (remote): the response waits for a window."""
    client.auto_window = False
    stream = client.request("GET", "/bytes?n=100")
    client.wait_for(lambda: stream.received == 65_535, "a window full of data")


def block_socket(client, gate):
    """Half-closed (remote): the windows are open, the client does not read."""
    client.send_settings({4: 2**31 - 1})
    client.grant(BIG_WINDOW)
    stream = client.request("GET", "/bytes?n=1000")
    client.wait_for(lambda: stream.received > 100_000, "the response")


def get_answer_early(client, gate):
    """Half-closed (local): the response is complete, the request is not."""
    stream = client.request("POST", "/hello", end=False)
    client.wait_for(lambda: stream.ended, "the response")


def be_reset(client, gate):
    """Closed by a reset, while the application is at work."""
    stream = client.request("GET", gate.path("/gate"))
    gate.wait_inside()
    client.reset(stream)


def do_it_all(client, gate):
    """Several streams, in every state."""
    for state in (get_answer_early, await_answer, upload_unread, be_reset):
        state(client, gate)
    client.request("GET", "/bytes?n=100")
    client.ping()


STATES = {"idle": be_idle, "open": begin_upload, "open-unread": upload_unread, "half-closed-remote": await_answer,
          "blocked-by-window": block_window, "blocked-by-socket": block_socket, "half-closed-local": get_answer_early,
          "closed": be_reset, "all": do_it_all}


# -- TLS, record by record ---------------------------------------------------------------------------------------------


class TlsWire:
    """A TLS connection whose records a test can break: what is written is only sent by the test."""

    def __init__(self, server):
        self.sock = open_tcp(server, TIMEOUT)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server.certs.client_context(("h2",))
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    def shake_hands(self):
        """Complete the handshake; return this."""
        while True:
            try:
                self._tls.do_handshake()
                self.sock.sendall(self._out.read())
                return self
            except ssl.SSLWantReadError:
                self.sock.sendall(self._out.read())
                self._in.write(self.sock.recv(65_536))

    def hello(self):
        """The octets of the ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    def records(self, octets):
        """What these octets are on the wire."""
        self._tls.write(octets)
        return self._out.read()

    def close_notify(self):
        """The alert with which a client says that it sends no more."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._out.read()

    def wait_closed(self):
        """Read until the server has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65_536):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.sock.close()
