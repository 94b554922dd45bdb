"""A socket and an event loop for tests of the asyncio driver: a test says when the loop turns and what time it is."""

import asyncio
import importlib.util
import logging
import socket
import ssl
import struct

from hpack import Decoder, Encoder

from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.negotiation import Terms
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.opening import Cleartext
from tests.protocol.peer import Answer, Peer, data, fields

LOOPS = ["asyncio"] + ["uvloop"] * (importlib.util.find_spec("uvloop") is not None)
TURNS = 12
PEER, SERVER = ("192.0.2.1", 1234), ("192.0.2.2", 443)


class Wire(socket.socket):
    """The server's end of a pair of sockets, `client` the other one. `room` limits what it takes until `drain`."""

    def __init__(self, peer=PEER, server=SERVER):
        ours, self.client = socket.socketpair()
        super().__init__(fileno=ours.detach())
        self.client.setblocking(False)
        self.peer, self._server = peer, server
        self.sizes, self.room, self.eof = [], None, False

    @property
    def writes(self):
        """How often something was written."""
        return len(self.sizes)

    @property
    def closed(self):
        """Whether the server has closed it."""
        return self.fileno() < 0

    def getsockname(self):
        """The address of the test's choice."""
        return self._server

    def send(self, octets, flags=0):
        """Take what there is room for."""
        if self.room == 0:
            raise BlockingIOError
        sent = super().send(octets[:self.room], flags)
        self.sizes.append(sent)
        if self.room is not None:
            self.room -= sent
        return sent

    def drain(self, size):
        """Have room for so much more."""
        self.room += size

    def shutdown(self, how):
        """Half-close."""
        self.eof = True
        super().shutdown(how)


def turn(loop, count=TURNS):
    """Run what is ready, and what that makes ready, on any event loop."""
    for _ in range(count):
        loop.call_soon(loop.stop)
        loop.run_forever()


def tcp_pair():
    """The server's and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def reset(client):
    """Close a TCP connection with a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock that a test moves, run a few turns at a time."""

    def __init__(self):
        super().__init__()
        self.now, self.errors = 1000.0, []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self):
        """The test's time."""
        return self.now

    def turns(self, count=TURNS):
        """See `turn`."""
        turn(self, count)

    def wait(self, seconds, step=0.25):
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + step, until)
            self.turns(3)


def make_loop(name):
    """An event loop of the kind; what went wrong in it is in `errors`. Only asyncio's has a clock to be moved."""
    if name == "asyncio":
        return Loop()
    import uvloop

    loop = uvloop.new_event_loop()
    loop.errors = []
    loop.set_exception_handler(lambda loop, context: loop.errors.append(context))
    return loop


class Log(logging.Logger):
    """A log that keeps its messages."""

    def __init__(self):
        super().__init__("test", logging.DEBUG)
        self.lines = []

    def handle(self, record):
        """Keep a message, with its exception."""
        self.lines.append(record.getMessage() + (f" {record.exc_info[1]!r}" if record.exc_info else ""))

    @property
    def text(self):
        """All of it."""
        return "\n".join(self.lines)


class WirePeer(Peer):
    """The client of `tests.protocol.peer` at the client's end of a `Wire`, a driver at the other one.

    `driver` is one that serves other peers as well. With `wrap`, the server wants TLS, and nothing is sent here.
    """

    def __init__(self, loop, application, cut=None, settings=(), setup=True, wire=None, wrap=None, driver=None,
                 on_request=None, **config):
        self.loop, self.cut, self.log, self.on_request = loop, cut, Log(), on_request
        self.requests, self.closes, self.noted, self.handed_over = 0, 0, [], []
        on_refused = getattr(application, "note_refusal", self._note_refusal)
        self.driver = driver or AsyncioDriver(loop, ConnectionConfig(**config), application, self.log, self._count,
                                              on_refused, self._close)
        self.wire = wire or Wire()
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_allowed_table_size = 65_536
        self.frames, self.answers, self.events, self.octets = [], {}, [], b""
        self._section, self._next = b"", 1
        others = set(self.driver._watches)
        terms = Terms(wrap, None if wrap else Cleartext(prior_knowledge=True), 10.0)
        self.driver.negotiate(self.wire, self.wire.peer, terms, self._hand_over)
        self._watches = self.driver._watches - others
        if setup:
            self.setup(settings)

    @property
    def connection(self):
        """The driver's connection, or the negotiation that comes before it."""
        (watch,) = self._watches
        return watch.connection

    @property
    def core(self):
        """The connection's core."""
        return self.connection.core

    def _count(self):
        self.requests += 1
        if self.on_request is not None:
            self.on_request(self)

    def _note_refusal(self, connection, refusal):
        self.noted.append(refusal)

    def _close(self, peer):
        self.closes += 1

    def _hand_over(self, transport, peer, data, header):
        self.handed_over.append((transport, peer, data))

    def send(self, *pieces):
        """Deliver octets, then collect what has been written a few turns later."""
        octets = b"".join(pieces)
        step = self.cut or max(len(octets), 1)
        for position in range(0, len(octets), step):
            self.wire.client.send(octets[position:position + step])
            self.loop.turns(1)
        return self.collect()

    def collect(self):
        """Run the loop and read what it writes, until there is no more."""
        while True:
            self.loop.turns()
            try:
                new = self.wire.client.recv(1 << 20)
            except (BlockingIOError, ssl.SSLWantReadError):
                return self
            if not new:
                return self
            self.octets += new
            self._parse()

    def _parse(self):
        """Read the frames that are complete."""
        whole = 0
        while len(self.octets) - whole >= 9:
            end = whole + 9 + int.from_bytes(self.octets[whole:whole + 3], "big")
            if end > len(self.octets):
                break
            whole = end
        self.octets, rest = self.octets[:whole], self.octets[whole:]
        super()._parse()
        self.octets = rest

    def start_tls(self, context):
        """Do the client's part of the handshake."""
        client = context.wrap_socket(self.wire.client, server_hostname="localhost", do_handshake_on_connect=False)
        self.wire.client = client
        while True:
            try:
                client.do_handshake()
            except ssl.SSLWantReadError:
                self.loop.turns(1)
            else:
                self.loop.turns()
                return

    def gone(self):
        """Close the client's end, as a client does that is gone."""
        self.wire.client.close()
        self.loop.turns()

    def request(self, *extra, end=True, body=b"", **pseudo):
        """Send a request, with a body where there is one; return what comes back, now and later."""
        stream_id = self.next_id()
        frames = [self.headers(stream_id, fields(*extra, **pseudo), end and not body)]
        if body:
            frames.append(data(stream_id, body, end))
        self.send(*frames)
        answer = self.answers.setdefault(stream_id, Answer())
        answer.stream_id = stream_id
        return answer
