"""One GET as a client, over HTTP/2 or HTTP/1.1, without I/O: octets in, octets out, and what was learnt.

HTTP/2 is spoken by the h2 library, which knows nothing of our server. It is given one frame at a time, because a
diagnosis needs what the library keeps to itself: SETTINGS as they were sent, and the response after a GOAWAY that lets
it finish (RFC 9113 section 6.8). What an exchange reads is bounded: `MAX_OCTETS` in all, `MAX_HEAD` for an HTTP/1 head.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.errors import ConnectionFailure

__all__ = ["Answer", "Goaway", "Http1Exchange", "Http2Exchange", "Request", "Response", "recognize"]

MAX_OCTETS = 2_097_152
"""What is read of one connection, in octets; a longer response is cancelled."""
MAX_HEAD = 65_536
MAX_FIELDS = 200
_MAX_FRAMES = 20_000
_STREAM_ID = 1
_TLS_RECORD_TYPES = (0x15, 0x16)


class Answer(Enum):
    """What the first octets of an answer to HTTP/2's preface are."""

    HTTP2 = "HTTP/2"
    HTTP1 = "HTTP/1"
    TLS = "a TLS record"
    OTHER = "neither HTTP/2 nor HTTP/1"


class Request(NamedTuple):
    """The request: a GET without a body."""

    scheme: str
    authority: str
    path: str


@dataclass
class Response:
    """The head of a response, and how much of its body came."""

    status: int
    fields: list[tuple[bytes, bytes]]
    """Names in lower case, and values."""

    version: str
    """The version in the status line of HTTP/1; HTTP/2 for HTTP/2."""

    size: int = 0
    """Octets of the body that were read."""

    complete: bool = False

    def field(self, name: bytes) -> bytes | None:
        """The values of a field, joined by commas; None if there is none."""
        values = [value for known, value in self.fields if known == name]
        return b", ".join(values) if values else None


class Goaway(NamedTuple):
    """A GOAWAY frame."""

    code: int
    last_stream_id: int
    debug_data: bytes


def recognize(octets: bytes) -> Answer | None:
    """Say what the answer to HTTP/2's preface is, by its first octets; None if there are too few.

    A server's preface is a SETTINGS frame (RFC 9113 section 3.4).
    """
    if octets.startswith(b"HTTP/"):
        return Answer.HTTP1
    if len(octets) >= 2 and octets[0] in _TLS_RECORD_TYPES and octets[1] == 3:
        return Answer.TLS
    if len(octets) < frames.FRAME_HEADER_SIZE:
        return None
    high, low, kind, flags, stream_id = frames.unpack_header(octets)
    is_preface = kind == frames.SETTINGS and not flags & frames.ACK and stream_id == 0
    is_small = (high << 8 | low) <= frames.DEFAULT_MAX_FRAME_SIZE
    return Answer.HTTP2 if is_preface and is_small else Answer.OTHER


class Http2Exchange:
    """One GET over an HTTP/2 connection.

    Call `start` or `start_upgrade`, then `receive_data` with whatever comes until `done`; after each call, send
    `data_to_send`.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            },
        )
        self._buffer = bytearray()
        self._octets = self._frames = 0
        self._requested = False
        self.answer: Answer | None = None
        """What the peer speaks, once it is known."""

        self.settings: list[tuple[int, int]] | None = None
        """The peer's first SETTINGS, in its order; None until they have come."""

        self.goaway: Goaway | None = None
        self.reset: int | None = None
        """The code of the RST_STREAM that ended the request; None if there was none."""

        self.response: Response | None = None
        self.error: str | None = None
        """What the peer did against the protocol, or why there is no response; None if nothing."""

        self.done = False

    def start(self) -> None:
        """Send the preface. The request follows the peer's SETTINGS."""
        self._h2.initiate_connection()

    def start_upgrade(self) -> bytes:
        """Begin by an upgrade from HTTP/1.1 (RFC 7540 section 3.2); return the value of HTTP2-Settings.

        The request is stream 1 already. `data_to_send` is what must follow the 101.
        """
        self._requested = True
        return self._h2.initiate_upgrade_connection() or b""

    @property
    def requested(self) -> bool:
        """Whether the request has been sent."""
        return self._requested

    @property
    def first_octets(self) -> bytes:
        """What has come, as long as it is not HTTP/2."""
        return bytes(self._buffer)

    def data_to_send(self) -> bytes:
        """The octets to send now."""
        return self._h2.data_to_send()

    def receive_data(self, data: bytes) -> None:
        """Take octets from the peer."""
        self._octets += len(data)
        self._buffer += data
        if self.answer is None:
            self.answer = recognize(bytes(self._buffer[:16]))
        if self.answer is Answer.HTTP2:
            try:
                self._read_frames()
            except (h2.exceptions.ProtocolError, ConnectionFailure) as error:
                self._fail(f"{type(error).__name__}: {error}")
        elif self.answer is not None:
            self.done = True
        if self._octets > MAX_OCTETS and not self.done:
            self._give_up()

    def receive_eof(self) -> None:
        """Learn that the peer has closed the connection."""
        if not self.done:
            self._fail("the server closed the connection before it had answered")

    def _fail(self, reason: str) -> None:
        self.error = self.error or reason
        self.done = True

    def _give_up(self) -> None:
        if self.response is None:
            self._fail(f"no response in {MAX_OCTETS} octets")
            return
        self._h2.reset_stream(_STREAM_ID, h2.errors.ErrorCodes.CANCEL)
        self.done = True

    def _read_frames(self) -> None:
        for kind, flags, _, frame in frames.split(bytes(self._buffer), max_size=frames.DEFAULT_MAX_FRAME_SIZE):
            del self._buffer[: len(frame)]
            self._frames += 1
            if self._frames > _MAX_FRAMES:
                self._fail(f"no end of the response in {_MAX_FRAMES} frames")
            else:
                self._take_frame(kind, flags, frame)
            if self.done:
                return

    def _take_frame(self, kind: int, flags: int, frame: bytes) -> None:
        payload = frame[frames.FRAME_HEADER_SIZE :]
        if kind == frames.GOAWAY:
            # The library would refuse the response that may follow.
            self._take_goaway(payload)
            return
        if kind == frames.SETTINGS and self.settings is None and not flags & frames.ACK:
            self.settings = frames.parse_settings(payload)
        for event in self._h2.receive_data(frame):
            self._take_event(event)
        if self.settings is not None and not self._requested and self.goaway is None:
            self._requested = True
            self._h2.send_headers(_STREAM_ID, _fields(self._request), end_stream=True)

    def _take_goaway(self, payload: bytes) -> None:
        code = frames.parse_goaway(payload)
        last_stream_id = int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MASK
        self.goaway = Goaway(code, last_stream_id, payload[8:])
        if code or last_stream_id < _STREAM_ID or not self._requested:
            self._fail("the server ended the connection (GOAWAY)")

    def _take_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            status = dict(fields)[b":status"]
            if not _is_status(status):
                self._fail("a response whose :status is no number of three digits")
                return
            self.response = Response(int(status), fields, "HTTP/2")
        elif isinstance(event, h2.events.DataReceived) and self.response is not None:
            self.response.size += len(event.data)
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and self.response is not None:
            self.response.complete = self.done = True
        elif isinstance(event, h2.events.StreamReset):
            self.reset = int(event.error_code)
            self._fail("the server reset the request's stream (RST_STREAM)")


class Http1Exchange:
    """One GET over HTTP/1.1, without its body; `start` may ask for an upgrade to HTTP/2."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._buffer = bytearray()
        self._octets = 0
        self._output = b""
        self.response: Response | None = None
        self.rest = b""
        """What has come after a head of 101."""

        self.error: str | None = None
        self.done = False

    def start(self, http2_settings: bytes | None = None) -> None:
        """Send the request; with `http2_settings`, the value of HTTP2-Settings, it asks for HTTP/2."""
        upgrade = b""
        if http2_settings is not None:
            upgrade = b"Upgrade: h2c\r\nHTTP2-Settings: %s\r\n" % http2_settings
        connection = b"close" if http2_settings is None else b"Upgrade, HTTP2-Settings"
        head = f"GET {self._request.path} HTTP/1.1\r\nHost: {self._request.authority}\r\n".encode("ascii")
        fields = b"User-Agent: gunicorn-h2-doctor\r\nAccept: */*\r\nConnection: %s\r\n" % connection
        self._output = head + fields + upgrade + b"\r\n"

    @property
    def requested(self) -> bool:
        """Whether the request has been sent."""
        return True

    def data_to_send(self) -> bytes:
        """The octets to send now."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes) -> None:
        """Take octets from the peer."""
        self._buffer += data
        self._octets += len(data)
        if self._octets > MAX_OCTETS:
            self._fail(f"no response in {MAX_OCTETS} octets")
        octets, start = bytes(self._buffer), 0
        while not self.done:
            end = octets.find(b"\r\n\r\n", start)
            head = octets[start : end if end >= 0 else start + MAX_HEAD + 1]
            if not _may_be_head(head) or len(head) > MAX_HEAD:
                self._fail("the answer is not HTTP/1")
            elif end < 0:
                break
            else:
                start = end + 4
                self._take_head(head, octets[start:] if head[9:12] == b"101" else b"")
        del self._buffer[:start]

    def receive_eof(self) -> None:
        """Learn that the peer has closed the connection."""
        if not self.done:
            self._fail("the server closed the connection before it had answered")

    @property
    def first_octets(self) -> bytes:
        """What has come and is not understood."""
        return bytes(self._buffer)

    def _fail(self, reason: str) -> None:
        self.error = reason
        self.done = True

    def _take_head(self, head: bytes, rest: bytes) -> None:
        response = _parse_head(head)
        if response is None:
            self._fail("the head of the response is malformed")
        elif not 100 <= response.status < 200 or response.status == 101:
            self.response, self.rest, self.done = response, rest, True


def _may_be_head(octets: bytes) -> bool:
    return octets[:5] == b"HTTP/"[: len(octets)]


def _is_status(text: bytes) -> bool:
    return len(text) == 3 and text.isdigit()


def _parse_head(head: bytes) -> Response | None:
    """The response of a whole HTTP/1 head (RFC 9112 section 4); None if it is malformed."""
    status_line, *lines = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    status = rest[:3]
    if not _is_status(status) or rest[3:4] not in (b"", b" ") or len(lines) > MAX_FIELDS:
        return None
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        fields.append((name.lower(), value.strip(b" \t")))
    return Response(int(status), fields, version.decode("latin-1"))


def _fields(request: Request) -> list[tuple[str, str]]:
    return [
        (":method", "GET"),
        (":scheme", request.scheme),
        (":authority", request.authority),
        (":path", request.path),
        ("user-agent", "gunicorn-h2-doctor"),
        ("accept", "*/*"),
    ]
