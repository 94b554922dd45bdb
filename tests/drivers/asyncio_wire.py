"""A transport and an event loop for tests of the asyncio driver: nothing is sent, and no time passes by itself."""

import asyncio
import logging
import socket

from hpack import Decoder, Encoder

from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.protocol.config import ConnectionConfig
from tests.protocol.peer import Answer, Peer, data, fields

TURNS = 12
# What the kernel says of a socket to which nothing was written.
SOCKETS = socket.socketpair()


class Wire(asyncio.Transport):
    """A transport that keeps what is written. `stuck` lets it hold octets, as when the peer does not read."""

    def __init__(self, half_closes=True, **extra):
        addresses = {"peername": ("192.0.2.1", 1234), "sockname": ("192.0.2.2", 443)}
        super().__init__({"socket": SOCKETS[0], **addresses, **extra})
        self.written, self.writes, self.protocol = b"", 0, None
        self.half_closes, self.eof, self.closing, self.aborted = half_closes, False, False, False
        self.stuck, self.high, self.paused = None, None, False

    def set_protocol(self, protocol):
        """Keep the protocol."""
        self.protocol = protocol

    def set_write_buffer_limits(self, high=None, low=None):
        """Keep the high mark."""
        self.high = high

    def get_write_buffer_size(self):
        """What is stuck."""
        return self.stuck or 0

    def write(self, data):
        """Take octets; above the high mark ask for a pause."""
        assert not self.closing
        self.written += data
        self.writes += 1
        if self.stuck is not None:
            self.stuck += len(data)
            if self.stuck > self.high and not self.paused:
                self.paused = True
                self.protocol.pause_writing()

    def drain(self, size):
        """The peer reads so much."""
        self.stuck -= size
        if self.paused and not self.stuck:
            self.paused = False
            self.protocol.resume_writing()

    def can_write_eof(self):
        """As of a socket without TLS."""
        return self.half_closes

    def write_eof(self):
        """Half-close."""
        self.eof = True

    def is_closing(self):
        """Whether it was closed."""
        return self.closing

    def close(self):
        """Close; what is stuck may still go."""
        self.closing = True

    def abort(self):
        """Close at once."""
        if not self.aborted:
            self.closing = self.aborted = True
            self.protocol.connection_lost(None)


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
        """Run what is ready, and what that makes ready."""
        for _ in range(count):
            self.call_soon(self.stop)
            self.run_forever()

    def wait(self, seconds, step=0.25):
        """Let time pass."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(self.now + step, until)
            self.turns(3)


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
    """The client of `tests.protocol.peer`, with a driver, its connection and a `Wire` at the other end."""

    def __init__(self, loop, application, cut=None, settings=(), setup=True, wire=None, opening=None, **config):
        self.loop, self.cut, self.log = loop, cut, Log()
        self.requests, self.closes, self.noted = 0, 0, []
        on_refused = getattr(application, "note_refusal", self._note_refusal)
        self.driver = AsyncioDriver(loop, ConnectionConfig(**config), application, self.log, self._count, on_refused,
                                    self._close)
        self.wire = wire or Wire()
        self.driver.adopt(self.wire, opening)
        self.connection = self.wire.protocol
        self.core, self.events = self.connection.core, []
        self.encoder, self.decoder = Encoder(), Decoder()
        self.frames, self.answers, self.octets, self._taken = [], {}, b"", 0
        self._section, self._next = b"", 1
        if setup:
            self.setup(settings)

    def _count(self):
        self.requests += 1

    def _note_refusal(self, connection, refusal):
        self.noted.append(refusal)

    def _close(self):
        self.closes += 1

    def send(self, *pieces):
        """Deliver octets, then collect what has been written a few turns later."""
        octets = b"".join(pieces)
        step = self.cut or max(len(octets), 1)
        for position in range(0, len(octets), step):
            self.connection.data_received(octets[position:position + step])
        return self.collect()

    def collect(self):
        """Run the loop, and read what has been written."""
        self.loop.turns()
        new = self.wire.written[self._taken:]
        self._taken += len(new)
        self.octets += new
        self._parse()
        return self

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
