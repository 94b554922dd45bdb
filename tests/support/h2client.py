"""A small HTTP/2 client for tests: it sends whatever it is told to and remembers whatever comes back.

It knows just enough to be useful (header compression, flow control, acknowledging SETTINGS and PING), and each of these
can be switched off. Every wait has a deadline. Reads go on while a send is blocked, so neither side can wait for the
other for ever. One client belongs to one thread.
"""

import functools
import hashlib
import select
import socket
import ssl
import time

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

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TIMEOUT = 15
BIG_WINDOW = 2**31 - 1 - 65_535

# Error codes, RFC 9113 section 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 0x4, 0x5, 0x6, 0x7
CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x8, 0x9, 0xB

# Frame types and flags, for frames that no library would agree to build.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY_FLAG = 0x1, 0x1, 0x4, 0x8, 0x20


def raw_frame(kind, flags=0, stream_id=0, payload=b"", length=None):
    """Return the bytes of a frame, with any type, flags and (false) length."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


class Stream:
    """What came back on one stream."""

    def __init__(self, client, stream_id, window, sink=None):
        self.client, self.stream_id, self.window, self.sink = client, stream_id, window, sink
        self.headers, self.informational, self.trailers = None, [], None
        self.body, self.received, self.chunks = bytearray(), 0, 0
        self.ended, self.reset, self.credit = False, None, 0

    @property
    def status(self):
        """The final status, or None while there is none."""
        return int(self.header(":status")) if self.headers is not None else None

    @property
    def done(self):
        """Whether nothing more will come."""
        return self.ended or self.reset is not None

    def header(self, name, default=None):
        """Return the value of a response field, repeated ones joined with a comma."""
        values = [value for key, value in self.headers or () if key == name]
        return ", ".join(values) if values else default

    @property
    def text(self):
        """The body received so far as text."""
        return self.body.decode("utf-8")

    def receive_data(self, data):
        """Take a piece of the body: keep it, or hand it to the sink."""
        self.received += len(data)
        self.chunks += 1
        if self.sink is None:
            self.body += data
        else:
            self.sink(data)

    def receive_headers(self, fields, end_stream):
        """Take a header section: informational, final or trailers."""
        status = dict(fields).get(":status")
        if self.headers is not None:
            self.trailers = fields
        elif status is not None and status.startswith("1"):
            self.informational.append(fields)
        else:
            self.headers = fields
        self.ended = self.ended or end_stream


class H2Client:
    """One connection, driven frame by frame. Everything received is kept in ``frames``, unless ``keep_frames`` is off.

    ``auto_settings``, ``auto_ping`` and ``auto_window`` say whether it acknowledges SETTINGS, answers PING and gives
    back flow-control credit on its own. A ``deaf`` client never reads while it sends.
    """

    def __init__(self, sock, authority="localhost", scheme="https", auto_settings=True, auto_ping=True,
                 auto_window=True, deaf=False):
        sock.setblocking(False)
        self.deaf = deaf
        self.sock, self.authority, self.scheme = sock, authority, scheme
        self.auto_settings, self.auto_ping, self.auto_window = auto_settings, auto_ping, auto_window
        self.encoder, self.decoder = Encoder(), Decoder()
        self.frames, self.keep_frames = [], True
        self.streams, self.next_stream_id = {}, 1
        self.peer_settings, self.settings_frames, self.settings_acks = {}, 0, 0
        self.goaways, self.pings, self.ping_acks = [], [], []
        self.closed, self.error = False, None
        self.send_window, self.peer_initial_window, self.peer_frame_size = 65_535, 65_535, 16_384
        self.initial_window = 65_535
        self._buffer, self._block = bytearray(), None
        self._replies, self._sending = bytearray(), False
        self._ping_count, self.credit = 0, 0

    @classmethod
    def connect(cls, server, settings=None, preface=True, client_cert=False, timeout=TIMEOUT, source=None, **options):
        """Connect to a server of these tests and, unless told otherwise, send preface and SETTINGS."""
        sock = open_socket(server, alpn=("h2",), client_cert=client_cert, timeout=timeout, source=source)
        client = cls(sock, server.authority, server.scheme, **options)
        if preface:
            client.send_preface(settings)
        return client

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        """Close the socket at once."""
        self.sock.close()

    # -- sending ---------------------------------------------------------------------------------------------------

    def send_raw(self, data, timeout=TIMEOUT):
        """Send bytes as they are. What arrives is read only if the send has to wait, and answered after it."""
        view, deadline = memoryview(data), time.monotonic() + timeout
        self._sending = True
        try:
            while view:
                try:
                    view = view[self.sock.send(view):]
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    self._wait_to_send(deadline)
        finally:
            self._sending = False
        if self._replies:
            self._send_replies()

    def _wait_to_send(self, deadline):
        ready = self._poll(select.POLLOUT if self.deaf else select.POLLIN | select.POLLOUT, deadline)
        if not ready:
            raise TimeoutError("the server takes no more data")
        if ready & select.POLLIN and not self.deaf:
            self._receive()
        if self.closed:
            raise ConnectionResetError("the server closed the connection")

    def send_frame(self, *frames):
        """Send hyperframe frames in one piece."""
        self.send_raw(b"".join(frame.serialize() for frame in frames))

    def send_preface(self, settings=None):
        """Send the connection preface with a SETTINGS frame."""
        settings = dict(settings or {})
        self._note_settings(settings)
        self.send_raw(PREFACE + SettingsFrame(0, settings=settings).serialize())

    def send_settings(self, settings):
        """Send a SETTINGS frame; a new initial window counts for the streams that are open, too."""
        self._note_settings(settings)
        self.send_frame(SettingsFrame(0, settings=settings))

    def _note_settings(self, settings):
        self.initial_window = settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self.initial_window)
        self.decoder.max_allowed_table_size = settings.get(SettingsFrame.HEADER_TABLE_SIZE,
                                                           self.decoder.max_allowed_table_size)

    def fields(self, method="GET", path="/", headers=(), authority=None, scheme=None):
        """Return a request's header list, the pseudo-header fields first."""
        pseudo = [(":method", method), (":scheme", scheme or self.scheme), (":path", path)]
        pseudo.append((":authority", authority or self.authority))
        return pseudo + list(headers)

    def open(self, sink=None):
        """Take the next stream identifier and return its stream."""
        stream = Stream(self, self.next_stream_id, self.peer_initial_window, sink)
        self.streams[stream.stream_id] = stream
        self.next_stream_id += 2
        return stream

    def header_frames(self, stream_id, fields, end_stream=False, end_headers=True):
        """Return the bytes of a header block on a stream, in one HEADERS frame."""
        flags = END_STREAM * end_stream | END_HEADERS * end_headers
        return raw_frame(HEADERS, flags, stream_id, self.encoder.encode(fields))

    def data_frame(self, stream_id, data, end_stream=False):
        """Return the bytes of a DATA frame."""
        return raw_frame(DATA, END_STREAM * end_stream, stream_id, data)

    def request(self, method="GET", path="/", headers=(), body=None, end=True, sink=None, **pseudo):
        """Open a stream with a request; a body is sent within the peer's windows."""
        stream = self.open(sink)
        fields = self.fields(method, path, headers, **pseudo)
        self.send_raw(self.header_frames(stream.stream_id, fields, end_stream=end and body is None))
        if body is not None:
            self.send_body(stream, body, end=end)
        return stream

    def send_fields(self, fields, end_stream=True):
        """Open a stream with exactly these fields, right or wrong."""
        stream = self.open()
        self.send_raw(self.header_frames(stream.stream_id, fields, end_stream=end_stream))
        return stream

    def send_body(self, stream, body, end=True, timeout=TIMEOUT):
        """Send a body (bytes, or an iterable of bytes) obeying the peer's flow control; stop if the stream ends."""
        for piece in [body] if isinstance(body, bytes) else body:
            view = memoryview(piece)
            while view and not stream.done:
                self.wait_for(lambda: self.room(stream) > 0 or stream.done, "room to send", timeout)
                size = min(len(view), self.room(stream), self.peer_frame_size)
                if size > 0:
                    self.send_raw(raw_frame(DATA, 0, stream.stream_id, bytes(view[:size])))
                    stream.window -= size
                    self.send_window -= size
                    view = view[size:]
        if end and not stream.done:
            self.send_raw(self.data_frame(stream.stream_id, b"", end_stream=True))

    def room(self, stream):
        """How many bytes may be sent on a stream now."""
        return min(stream.window, self.send_window)

    def reset(self, stream, code=CANCEL):
        """Send RST_STREAM."""
        self.send_frame(RstStreamFrame(stream.stream_id, error_code=code))

    def grant(self, size, stream=None):
        """Send WINDOW_UPDATE for a stream or, without one, for the connection."""
        self.send_frame(WindowUpdateFrame(stream.stream_id if stream else 0, window_increment=size))

    def wait_broken(self, seconds):
        """Wait for the end of the connection without reading anything; return whether it came."""
        return bool(self._poll(0, time.monotonic() + seconds))

    def flood(self, pieces):
        """Send pieces until they are used up or the server has said GOAWAY or gone; return how many went out."""
        count = 0
        try:
            for piece in pieces:
                self.send_raw(piece)
                count += 1
                self.receive_pending()
                if self.goaways or self.closed:
                    break
        except OSError:
            self._receive_rest()
        return count

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait_for(self, condition, what, timeout=TIMEOUT):
        """Read until the condition holds; fail after the timeout, or if the server is gone first."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.closed:
                raise AssertionError(f"connection closed ({self.error or 'EOF'}) waiting for {what}; {self.summary()}")
            if not self._poll(select.POLLIN, deadline):
                raise AssertionError(f"timeout waiting for {what}; {self.summary()}")
            self._receive()

    def receive_pending(self):
        """Read what has already arrived, without waiting."""
        while not self.closed and self._poll(select.POLLIN, 0):
            self._receive()

    def wait_settings(self):
        """Wait for the server's first SETTINGS and its acknowledgement of ours."""
        self.wait_for(lambda: self.settings_frames and self.settings_acks, "SETTINGS and its acknowledgement")
        return self.peer_settings

    def response(self, stream, timeout=TIMEOUT):
        """Wait until a stream has ended or been reset, and return it."""
        self.wait_for(lambda: stream.done, f"the end of stream {stream.stream_id}", timeout)
        return stream

    def wait_headers(self, stream, timeout=TIMEOUT):
        """Wait for the header section of the response."""
        self.wait_for(lambda: stream.headers is not None or stream.done, "response headers", timeout)
        return stream

    def get(self, path, headers=(), **kwargs):
        """Make a GET request and return its finished stream."""
        return self.response(self.request("GET", path, headers, **kwargs))

    def post(self, path, body, headers=(), **kwargs):
        """Make a POST request and return its finished stream."""
        return self.response(self.request("POST", path, headers, body=body, **kwargs))

    def ping(self, timeout=TIMEOUT):
        """Send a PING and wait for its answer: everything sent before has been processed by then."""
        self._ping_count += 1
        payload = b"t%07d" % self._ping_count
        self.send_frame(PingFrame(0, opaque_data=payload))
        self.wait_for(lambda: payload in self.ping_acks, "PING acknowledgement", timeout)

    def wait_goaway(self, count=1, timeout=TIMEOUT):
        """Wait for the GOAWAY number ``count`` and return it as (last stream, error code)."""
        self.wait_for(lambda: len(self.goaways) >= count, f"GOAWAY number {count}", timeout)
        return self.goaways[count - 1]

    def wait_closed(self, timeout=TIMEOUT):
        """Wait until the server has closed the connection."""
        self.wait_for(lambda: self.closed, "the end of the connection", timeout)

    def summary(self):
        """Describe what has been received, for messages."""
        streams = {key: (s.status, s.received, s.ended, s.reset) for key, s in self.streams.items()}
        if len(streams) > 20:
            streams = f"{len(streams)} streams, {sum(s.done for s in self.streams.values())} done"
        return f"goaways={self.goaways} streams={streams}"

    # -- receiving -------------------------------------------------------------------------------------------------

    def _poll(self, events, deadline):
        """Wait until the socket is ready for one of the events; return those that are, or 0 at the deadline."""
        if events & select.POLLIN and isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return select.POLLIN
        poll = select.poll()
        poll.register(self.sock, events)
        ready = poll.poll(max(0, (deadline - time.monotonic()) * 1000))
        if not ready:
            return 0
        event = ready[0][1]
        return event | select.POLLIN if event & (select.POLLHUP | select.POLLERR) else event

    def _receive(self):
        """Read once from the socket and process every complete frame."""
        try:
            data = self.sock.recv(262_144)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.closed, self.error = True, error
            return
        if not data:
            self.closed = True
        self._buffer += data
        self._parse()

    def _receive_rest(self):
        """Read what the server sent before the connection broke."""
        deadline = time.monotonic() + TIMEOUT
        while not self.closed and self._poll(select.POLLIN, deadline):
            self._receive()

    def _parse(self):
        position, replies = 0, []
        while len(self._buffer) - position >= 9:
            end = position + 9 + int.from_bytes(self._buffer[position:position + 3], "big")
            if end > len(self._buffer):
                break
            replies.append(self._take_frame(memoryview(bytes(self._buffer[position:end]))))
            position = end
        del self._buffer[:position]
        self._replies += b"".join(filter(None, replies))
        # Not in the middle of a frame, nor of a TLS record.
        if self._replies and not self.closed and not self._sending:
            self._send_replies()

    def _send_replies(self):
        replies, self._replies = self._replies, bytearray()
        try:
            self.send_raw(replies)
        except OSError as error:
            self.error = error

    def _take_frame(self, data):
        """Process one frame; return the bytes it is to be answered with."""
        if data[3] == DATA and not data[4] & PADDED and not self.keep_frames:
            stream_id = int.from_bytes(data[5:9], "big")
            return self._take_piece(stream_id, data[9:], len(data) - 9, data[4] & END_STREAM)
        frame, _ = Frame.parse_frame_header(data[:9])
        frame.parse_body(data[9:])
        if self.keep_frames:
            self.frames.append(frame)
        handler = HANDLERS.get(type(frame))
        return handler(self, frame) if handler else None

    def _take_settings(self, frame):
        if "ACK" in frame.flags:
            self.settings_acks += 1
            return None
        self.settings_frames += 1
        self.peer_settings.update(frame.settings)
        self.peer_frame_size = frame.settings.get(SettingsFrame.MAX_FRAME_SIZE, self.peer_frame_size)
        self._change_window(frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self.peer_initial_window))
        return SettingsFrame(0, flags=["ACK"]).serialize() if self.auto_settings else None

    def _change_window(self, size):
        change, self.peer_initial_window = size - self.peer_initial_window, size
        for stream in self.streams.values():
            stream.window += change

    def _take_ping(self, frame):
        if "ACK" in frame.flags:
            self.ping_acks.append(frame.opaque_data)
            return None
        self.pings.append(frame.opaque_data)
        return PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize() if self.auto_ping else None

    def _take_goaway(self, frame):
        self.goaways.append((frame.last_stream_id, frame.error_code))

    def _take_reset(self, frame):
        self._stream(frame.stream_id).reset = frame.error_code

    def _take_window(self, frame):
        if frame.stream_id:
            self._stream(frame.stream_id).window += frame.window_increment
        else:
            self.send_window += frame.window_increment

    def _take_data(self, frame):
        return self._take_piece(frame.stream_id, frame.data, frame.flow_controlled_length, "END_STREAM" in frame.flags)

    def _take_piece(self, stream_id, data, size, end_stream):
        """Take a piece of a body; give credit back once half a window is used up."""
        stream = self._stream(stream_id)
        stream.receive_data(data)
        stream.ended = stream.ended or bool(end_stream)
        if not self.auto_window:
            return None
        replies, self.credit, stream.credit = [], self.credit + size, stream.credit + size
        if self.credit > 32_767:
            replies.append(WindowUpdateFrame(0, window_increment=self.credit).serialize())
            self.credit = 0
        if stream.credit > self.initial_window // 2 and not stream.done:
            replies.append(WindowUpdateFrame(stream_id, window_increment=stream.credit).serialize())
            stream.credit = 0
        return b"".join(replies)

    def _take_headers(self, frame):
        if isinstance(frame, ContinuationFrame):
            stream_id, data, end_stream = self._block
            self._block = (stream_id, data + frame.data, end_stream)
        else:
            self._block = (frame.stream_id, frame.data, "END_STREAM" in frame.flags)
        if "END_HEADERS" in frame.flags:
            _, data, end_stream = self._block
            fields = [(_text(name), _text(value)) for name, value in self.decoder.decode(data, raw=True)]
            self._stream(frame.stream_id).receive_headers(fields, end_stream)

    def _stream(self, stream_id):
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = Stream(self, stream_id, self.peer_initial_window)
        return stream


HANDLERS = {
    SettingsFrame: H2Client._take_settings,
    PingFrame: H2Client._take_ping,
    GoAwayFrame: H2Client._take_goaway,
    RstStreamFrame: H2Client._take_reset,
    WindowUpdateFrame: H2Client._take_window,
    DataFrame: H2Client._take_data,
    HeadersFrame: H2Client._take_headers,
    ContinuationFrame: H2Client._take_headers,
}


def _text(octets):
    return octets.decode("latin-1")


def open_socket(server, alpn=("h2",), client_cert=False, timeout=TIMEOUT, source=None):
    """Connect to a server, with TLS if it has TLS, and return the blocking socket."""
    sock = open_tcp(server, timeout, source)
    if not server.tls:
        return sock
    context = server.certs.client_context(alpn, client_cert)
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def open_tcp(server, timeout=TIMEOUT, source=None):
    """Connect to a server without any TLS, from the address `source` if one is given."""
    if server.socket_path:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(server.socket_path)
        return sock
    sock = socket.create_connection((server.host, server.port), timeout, source and (source, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


PATTERN = bytes(range(256)) * 256


def pattern(size):
    """Yield ``size`` bytes of the test pattern in pieces of at most 64 KiB."""
    for _ in range(size // len(PATTERN)):
        yield PATTERN
    if size % len(PATTERN):
        yield PATTERN[:size % len(PATTERN)]


@functools.cache
def pattern_digest(size):
    """Return the SHA-256 of the pattern, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in pattern(size):
        digest.update(piece)
    return digest.hexdigest()
