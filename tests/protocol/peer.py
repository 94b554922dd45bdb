"""A client in a test's hand: it says exactly what it is told to a `ServerConnection`, and reads all that comes back.

Nothing in here judges what is right. Octets are delivered whole or cut into pieces; the clock, `now`, only moves when a
test moves it.
"""

import struct

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.counts import Counts
from gunicorn_h2.protocol.errors import Budget, ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated, RequestReceived, RequestRefused, StreamReset
from gunicorn_h2.protocol.headers import ResponseHead

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7))
ENABLE_CONNECT_PROTOCOL = 8


def raw(kind, flags=0, stream_id=0, payload=b"", length=None):
    """A frame of any type, flags and (false) length."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def data(stream_id, payload=b"", end=False, padding=None):
    """A DATA frame; `padding` is a number of octets."""
    if padding is None:
        return raw(DATA, END_STREAM * end, stream_id, payload)
    return raw(DATA, END_STREAM * end | PADDED, stream_id, bytes([padding]) + payload + bytes(padding))


def settings(*pairs):
    """A SETTINGS frame of (identifier, value) pairs."""
    return raw(SETTINGS, payload=b"".join(struct.pack(">HL", *pair) for pair in pairs))


def settings_ack():
    """The acknowledgement of the server's SETTINGS."""
    return raw(SETTINGS, ACK)


def ping(payload=b"12345678", ack=False):
    """A PING frame."""
    return raw(PING, ACK * ack, 0, payload)


def rst_stream(stream_id, code=8):
    """A RST_STREAM frame, by default CANCEL."""
    return raw(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def window_update(stream_id, increment):
    """A WINDOW_UPDATE frame."""
    return raw(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def priority(stream_id, depends_on=0, weight=15):
    """A PRIORITY frame; the weight is the octet on the wire."""
    return raw(PRIORITY, 0, stream_id, depends_on.to_bytes(4, "big") + bytes([weight]))


def goaway(last_stream_id=0, code=0):
    """A GOAWAY frame."""
    return raw(GOAWAY, 0, 0, struct.pack(">LL", last_stream_id, code))


def fields(*extra, method=b"GET", path=b"/", scheme=b"https", authority=b"example.org"):
    """A request's field section; a pseudo-header field of None is left out."""
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return [(name, value) for name, value in pseudo if value is not None] + list(extra)


class Answer:
    """What came back on one stream."""

    def __init__(self):
        self.interim, self.head, self.trailers = [], None, None
        self.body, self.ended, self.reset = b"", False, None

    @property
    def status(self):
        """The final status."""
        return int(dict(self.head)[b":status"]) if self.head else None


class Peer:
    """A client's end of a `ServerConnection`.

    `frames` holds what came back since the last `take`, as hyperframe's frames; those that open or end a field section
    carry its `fields`. `answers` puts the same together by stream. `events` holds what the core told its driver.
    """

    make_core = staticmethod(ServerConnection)

    def __init__(self, engine, cut=None, settings=(), setup=True, **config):
        self.now, self.cut = 1000.0, cut
        self.config = ConnectionConfig(engine=engine, **config)
        self.counts = Counts()
        self.core = self.make_core(self.config, self.now, None, None, 0.0, self.counts)
        self.encoder, self.decoder = Encoder(), Decoder()
        # Whatever table size a test announces, the server may make use of it.
        self.decoder.max_allowed_table_size = 65_536
        self.frames, self.events, self.answers, self.octets, self.written = [], [], {}, b"", b""
        self._section, self._next = b"", 1
        if setup:
            self.setup(settings)

    def setup(self, pairs=()):
        """Send the preface and SETTINGS, acknowledge the server's."""
        self.send(PREFACE, settings(*pairs), settings_ack())
        self.take()

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, *pieces):
        """Deliver octets, then collect what comes back."""
        octets = b"".join(pieces)
        step = self.cut or max(len(octets), 1)
        for position in range(0, len(octets), step):
            self.core.receive_data(octets[position:position + step], self.now)
        return self.collect()

    def headers(self, stream_id, section=None, end=True, flags=END_HEADERS, before=b"", after=b""):
        """A HEADERS frame; `before` and `after` surround the block (padding, priority)."""
        block = self.encoder.encode(fields() if section is None else section)
        return raw(HEADERS, flags | END_STREAM * end, stream_id, before + block + after)

    def open(self, *extra, end=True, **pseudo):
        """Open the next stream with a request; return it as the core knows it, or None where it was refused."""
        stream_id = self.next_id()
        self.send(self.headers(stream_id, fields(*extra, **pseudo), end))
        return next((request.stream for request in self.of(RequestReceived)
                     if request.stream.stream_id == stream_id), None)

    def next_id(self):
        """The identifier of the next stream."""
        self._next += 2
        return self._next - 2

    # -- the application ---------------------------------------------------------------------------------------------

    def respond(self, stream, body=b"", extra=(), status=200, end=True, finish=True):
        """Send a response, in one step where it is whole; then have the application call return."""
        if end:
            self.core.send_response(stream, ResponseHead(status, extra), body)
        else:
            self.core.send_headers(stream, ResponseHead(status, extra), False)
            self.core.send_data(stream, body, False)
        if finish:
            self.core.finish(stream, self.now)
        return self.collect()

    # -- time --------------------------------------------------------------------------------------------------------

    def wait(self, seconds):
        """Let time pass, and deadlines come."""
        until = self.now + seconds
        for _ in range(1000):
            deadline = self.core.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(deadline, self.now)
            self.core.handle_timeout(self.now)
            self.collect()
        else:
            raise AssertionError("a deadline that handle_timeout does not move")
        self.now = until
        return self.collect()

    # -- what comes back ---------------------------------------------------------------------------------------------

    def collect(self):
        """Read all output and events; return this peer."""
        while octets := self.core.data_to_send(self.now):
            self.octets += octets
            self.written += octets
            self._parse()
        self.events += self.core.events()
        return self

    def take(self, kind=None):
        """Return the frames (of one class) that came, and forget all of them."""
        frames, self.frames = self.frames, []
        return frames if kind is None else [frame for frame in frames if isinstance(frame, kind)]

    def of(self, kind):
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def take_events(self):
        """Return the events and forget them."""
        events, self.events = self.events, []
        return events

    @property
    def goaways(self):
        """The GOAWAY frames among `frames`, as (last stream, code)."""
        return [(frame.last_stream_id, frame.error_code) for frame in self.frames if isinstance(frame, GoAwayFrame)]

    @property
    def resets(self):
        """The RST_STREAM frames among `frames`, as (stream, code)."""
        return [(frame.stream_id, frame.error_code) for frame in self.frames if isinstance(frame, RstStreamFrame)]

    @property
    def updates(self):
        """The WINDOW_UPDATE frames among `frames`, as (stream, increment)."""
        return [(frame.stream_id, frame.window_increment) for frame in self.frames
                if isinstance(frame, WindowUpdateFrame)]

    @property
    def pings(self):
        """The PING frames among `frames`, as (acknowledgement, payload)."""
        return [("ACK" in frame.flags, frame.opaque_data) for frame in self.frames if isinstance(frame, PingFrame)]

    @property
    def terminated(self):
        """The code with which the connection ended, or None."""
        return next((event.code for event in self.of(ConnectionTerminated)), None)

    @property
    def refused(self):
        """The streams that no application saw."""
        return [event.stream_id for event in self.of(RequestRefused)]

    @property
    def aborted(self):
        """The streams whose application was told that they are gone, as (stream, code)."""
        return [(event.stream.stream_id, event.code) for event in self.of(StreamReset)]

    def assert_goaway(self, code, last_stream_id=None, budget=None):
        """The connection has ended, with one GOAWAY of this code, and if given for this budget."""
        assert [sent for _, sent in self.goaways] == [code], (self.goaways, self.events)
        assert last_stream_id is None or self.goaways[0][0] == last_stream_id
        assert isinstance(self.frames[-1], GoAwayFrame)
        assert self.core.closed
        assert self.terminated == code
        end = self.events[-1]
        assert isinstance(end, ConnectionTerminated)
        assert isinstance(end.reason, Budget) == (code == ErrorCode.ENHANCE_YOUR_CALM)
        assert budget in (None, end.reason)

    def assert_alive(self):
        """The connection goes on: it answers a PING."""
        self.take()
        self.send(ping(b"alive???"))
        assert (True, b"alive???") in self.pings, (self.frames, self.events)
        assert not self.core.closed

    def _parse(self):
        while len(self.octets) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.octets[:9]))
            assert len(self.octets) >= 9 + length, "half a frame went out"
            frame.parse_body(memoryview(self.octets[9:9 + length]))
            self.octets = self.octets[9 + length:]
            self._note(frame)
            self.frames.append(frame)

    def _note(self, frame):
        answer = self.answers.setdefault(frame.stream_id, Answer())
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            self._section += frame.data
            if "END_HEADERS" in frame.flags:
                block, self._section = self._section, b""
                self._note_section(answer, frame, [tuple(field) for field in self.decoder.decode(block, raw=True)])
        elif isinstance(frame, DataFrame):
            answer.body += frame.data
        elif isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self.server_settings = dict(frame.settings)
        if "END_STREAM" in frame.flags:
            assert not answer.ended, "a stream ended twice"
            answer.ended = True

    def _note_section(self, answer, frame, section):
        frame.fields = section
        if answer.head is not None:
            answer.trailers = section
        elif dict(section)[b":status"].startswith(b"1"):
            answer.interim.append(section)
        else:
            answer.head = section
