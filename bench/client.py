"""A small blocking HTTP/2 client over TLS, for what h2load cannot do.

It checks responses, holds idle connections and half-open streams, and uploads or downloads for a given time. One
connection belongs to one thread. Every wait ends with `ClientError` after the connection's timeout.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 2, 4, 5
DEFAULT_WINDOW = 65_535
OUR_WINDOW = 2**30
"""What we let a server send: enough that it never waits for us."""
READ_SIZE = 256 * 1024
TIMEOUT = 10.0

Header = tuple[str, str]
CALL_FIELDS = (("content-type", "application/grpc"), ("te", "trailers"))
"""What a call of gRPC needs."""
EMPTY_CALL = bytes(5)
"""A message without content."""


class ClientError(Exception):
    """The server refused, closed, reset, was silent for too long, or speaks another protocol."""


class StreamError(ClientError):
    """A stream was reset before its response was complete; the connection goes on."""


class ProtocolError(ClientError):
    """The server does not choose HTTP/2 where it is offered."""


@dataclass
class Response:
    """What has come back on a stream. `reset` is the error code of RST_STREAM, or None."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    ended: bool = False
    reset: int | None = None
    keep_body: bool = True

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.reset is not None


def client_context() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate and asks for HTTP/2 alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


CONTEXT = client_context()


def handshake(port: int, timeout: float = TIMEOUT) -> ssl.SSLSocket:
    """Open a TLS connection that offers h2. Raises `ClientError`."""
    try:
        raw = socket.create_connection(("127.0.0.1", port), timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return CONTEXT.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
    except OSError as error:
        raise ClientError(f"no TLS connection: {error}") from error


class Connection:
    """One HTTP/2 connection. Raises `ClientError` wherever the server does not do its part."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self._socket = handshake(port, timeout)
        self._authority = f"localhost:{port}"
        self._timeout = timeout
        self._readable = select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._input = bytearray()
        self._block, self._block_ends_stream = b"", False
        self._responses: dict[int, Response] = {}
        self._next_stream = 1
        self._frame_size, self._initial_window, self._window = 16_384, DEFAULT_WINDOW, DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        self._settings_seen = False
        self._pings = 0
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        protocol = self._socket.selected_alpn_protocol()
        if protocol != "h2":
            raise ProtocolError(f"the server chose {protocol or 'no protocol'} where h2 was offered")
        settings = {ENABLE_PUSH: 0, INITIAL_WINDOW_SIZE: OUR_WINDOW}
        payload = b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings.items())
        grant = (OUR_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")
        self._write(PREFACE + frame(SETTINGS, 0, 0, payload) + frame(WINDOW_UPDATE, 0, 0, grant))
        self._read_until(lambda: self._settings_seen, "SETTINGS")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self._socket.close()

    # Requests

    def request(
        self, path: str, method: str = "GET", headers: Iterable[Header] = (), end: bool = True, keep_body: bool = True
    ) -> int:
        """Begin a request; return its stream. Without `end` a body is to follow."""
        stream_id, self._next_stream = self._next_stream, self._next_stream + 2
        pseudo = [(":method", method), (":scheme", "https"), (":authority", self._authority), (":path", path)]
        block = self._encoder.encode([*pseudo, *headers])
        self._responses[stream_id] = Response(keep_body=keep_body)
        self._windows[stream_id] = self._initial_window
        self._write(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block))
        return stream_id

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Send part of a body, as fast as the server's windows allow; what no one waits for any more is left out."""
        view = memoryview(data)
        while view:
            self._read_until(lambda: self._room(stream_id) > 0, "credit for the body")
            if self._responses[stream_id].done:
                return
            piece = view[: min(self._room(stream_id), self._frame_size)]
            view = view[len(piece) :]
            self._window -= len(piece)
            self._windows[stream_id] -= len(piece)
            self._write(frame(DATA, END_STREAM if end and not view else 0, stream_id, bytes(piece)))
        if end and not data and not self._responses[stream_id].done:
            self._write(frame(DATA, END_STREAM, stream_id))

    def response(self, stream_id: int) -> Response:
        """Wait for the end of a response. Raises `StreamError` when the stream was reset before."""
        response = self._responses[stream_id]
        self._read_until(lambda: response.done, "a response")
        del self._responses[stream_id], self._windows[stream_id]
        if not response.ended:
            raise StreamError(f"the stream was reset with error code {response.reset}")
        return response

    def fetch(self, path: str, method: str = "GET", body: bytes = b"", headers: Iterable[Header] = ()) -> Response:
        """Make one request and wait for its response."""
        stream_id = self.request(path, method, headers, end=not body)
        if body:
            self.send(stream_id, body, end=True)
        return self.response(stream_id)

    def ping(self) -> None:
        """Wait until the server has read everything that was sent so far."""
        target = self._pings + 1
        self._write(frame(PING, 0, 0, b"settled?"))
        self._read_until(lambda: self._pings >= target, "the acknowledgement of a PING")

    # Requests that are answered some time

    def receive(self, seconds: float) -> None:
        """Take in what is there, or what comes within so many seconds."""
        if self._socket.pending() or self._readable.poll(max(0, seconds * 1000)):
            self._read_some("a response")

    def take_done(self) -> dict[int, Response]:
        """Return the responses that are done, by stream, and forget them."""
        done = {stream_id: response for stream_id, response in self._responses.items() if response.done}
        for stream_id in done:
            del self._responses[stream_id], self._windows[stream_id]
        return done

    # Responses under way, on a link that is never idle

    def progress(self, stream_id: int) -> Response:
        """Return a response that may have only begun."""
        return self._responses[stream_id]

    def receive_some(self) -> None:
        """Wait for something, and read once. Reading all that comes meanwhile would have no end."""
        self._read_some("more of a response")

    # For a given time

    def upload_for(self, path: str, seconds: float) -> tuple[int, float, Response]:
        """Upload for so long; return the octets sent, the time until they were answered, and the answer."""
        started = time.monotonic()
        stream_id, sent, piece = self.request(path, "POST", end=False), 0, bytes(16_384)
        while time.monotonic() - started < seconds:
            self.send(stream_id, piece)
            sent += len(piece)
        self.send(stream_id, b"", end=True)
        response = self.response(stream_id)
        return sent, time.monotonic() - started, response

    def download_for(self, path: str, seconds: float) -> tuple[int, float]:
        """Read an endless response for so long; return the octets read and the time since the request."""
        started = time.monotonic()
        response = self._responses[stream_id := self.request(path, keep_body=False)]
        while time.monotonic() - started < seconds and not response.done:
            self._read_some("data")
            self._return_credit(stream_id, response.size)
        if response.reset is not None or response.status != 200:
            raise ClientError(f"the download ended with status {response.status}, reset {response.reset}")
        return response.size, time.monotonic() - started

    def _return_credit(self, stream_id: int, size: int) -> None:
        """Keep the windows of a long download open: half a window at a time."""
        if size > self._credited + OUR_WINDOW // 2:
            increment = (size - self._credited).to_bytes(4, "big")
            self._write(frame(WINDOW_UPDATE, 0, 0, increment) + frame(WINDOW_UPDATE, 0, stream_id, increment))
            self._credited = size

    _credited = 0

    # Frames

    def _room(self, stream_id: int) -> int:
        """Return what may be sent now; a stream that is done lets the caller through, to see so."""
        if self._responses[stream_id].done:
            return 1
        return min(self._window, self._windows[stream_id])

    def _read_until(self, done: Callable[[], bool], what: str) -> None:
        """Take in frames until `done()`; also those that have come meanwhile, so that no one waits for us."""
        while self._socket.pending() or self._readable.poll(0):
            self._read_some(what)
        while not done():
            self._read_some(what)

    def _read_some(self, what: str) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except TimeoutError:
            raise ClientError(f"no {what} within {self._timeout:.0f} s") from None
        except OSError as error:
            raise ClientError(f"{error} while waiting for {what}") from error
        if not data:
            raise ClientError(f"the server closed the connection, {what} was awaited")
        self._input += data
        self._take_frames()

    def _take_frames(self) -> None:
        position, available = 0, len(self._input)
        while available - position >= 9:
            length = int.from_bytes(self._input[position : position + 3], "big")
            end = position + 9 + length
            if end > available:
                break
            kind, flags = self._input[position + 3], self._input[position + 4]
            stream_id = int.from_bytes(self._input[position + 5 : position + 9], "big") & 0x7FFFFFFF
            self._takeframe(kind, flags, stream_id, bytes(self._input[position + 9 : end]))
            position = end
        del self._input[:position]

    def _takeframe(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == DATA:
            self._take_data(flags, stream_id, payload)
        elif kind in (HEADERS, CONTINUATION):
            self._take_headers(kind, flags, stream_id, payload)
        elif kind == RST_STREAM and stream_id in self._responses:
            self._responses[stream_id].reset = int.from_bytes(payload, "big")
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and flags & ACK:
            self._pings += 1
        elif kind == PING:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._take_credit(stream_id, int.from_bytes(payload, "big"))
        elif kind == GOAWAY and int.from_bytes(payload[4:8], "big"):
            raise ClientError(f"GOAWAY with error code {int.from_bytes(payload[4:8], 'big')}")

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        response = self._responses.get(stream_id)
        if response is None:
            return
        if flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        response.size += len(payload)
        if response.keep_body:
            response.body += payload
        response.ended = bool(flags & END_STREAM)

    def _take_headers(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == HEADERS:
            if flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            if flags & PRIORITY:
                payload = payload[5:]
            self._block, self._block_ends_stream = b"", bool(flags & END_STREAM)
        self._block += payload
        if not flags & END_HEADERS:
            return
        fields = dict(self._decoder.decode(self._block, raw=True))
        response = self._responses.get(stream_id)
        if response is not None:
            response.status = int(fields.get(b":status", response.status))
            response.ended = self._block_ends_stream

    def _take_settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            name, value = int.from_bytes(payload[start : start + 2], "big"), payload[start + 2 : start + 6]
            if name == INITIAL_WINDOW_SIZE:
                change = int.from_bytes(value, "big") - self._initial_window
                self._initial_window += change
                self._windows = {stream: window + change for stream, window in self._windows.items()}
            elif name == MAX_FRAME_SIZE:
                self._frame_size = min(int.from_bytes(value, "big"), 16_384)
        self._settings_seen = True
        self._write(frame(SETTINGS, ACK, 0))

    def _take_credit(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self._window += increment
        elif stream_id in self._windows:
            self._windows[stream_id] += increment

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ClientError(f"the connection broke: {error}") from error


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return the octets of a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload
