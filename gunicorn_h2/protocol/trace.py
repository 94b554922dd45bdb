"""A connection that writes down its frames, for developers (`http2_trace`).

A line for each frame, with what its payload says, and behind a field block a line for each of its fields:

    0.001 recv SETTINGS stream=0 length=12 flags=- ENABLE_PUSH=0 INITIAL_WINDOW_SIZE=65535
    0.001 recv HEADERS stream=1 length=41 flags=END_STREAM,END_HEADERS
    0.001      :method: GET
    0.001      :path: /search?(9 octets)
    0.001      cookie: (42 octets)

`TracedConnection` is a `ServerConnection` that sees the octets of both directions where they enter and leave the core,
after everything is decided: nothing else differs. What a peer has sent is shown as visible ASCII, and cut.

Only the length is shown of

- the values of fields whose names sound like credentials: those that contain one of `SECRET_WORDS`, in either case,
  and sec-websocket-protocol, in which browsers send tokens; but not `:authority`;
- the query or fragment in the fields of `URI_FIELDS`, from the first `?` or `#` on;
- the payloads of DATA.

Everything else is shown: paths themselves, all other fields, trailers, the debug data of GOAWAY, the payload of PING,
and the first octets of a connection that does not begin with the preface.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from . import frames
from .codec import Field
from .codec_hpack import MAX_TABLE_SIZE, HpackCodec
from .connection import ServerConnection
from .errors import ConnectionFailure, ErrorCode, code_name
from .text import printable
from .upgrade import SWITCHING_PROTOCOLS, Upgrade

__all__ = ["SECRET_WORDS", "URI_FIELDS", "FrameReport", "TracedConnection", "Write"]

Write = Callable[[list[str]], None]
"""Writes lines."""

MAX_FIELDS = 128
"""How many fields of a section are shown."""
MAX_SETTINGS = 32
"""How many settings of a SETTINGS frame are shown."""
_MAX_BLOCK = 1_048_576
"""Octets of a field block that is decoded; the decoded section may be as large."""
_MAX_VALUE = 256
_MAX_GOAWAY_TEXT = 128
_INDENT = "    "

SECRET_WORDS = (
    "assertion",
    "auth",
    "cert",
    "cookie",
    "credential",
    "csrf",
    "dpop",
    "jwt",
    "key",
    "oidc",
    "passw",
    "principal",
    "secret",
    "session",
    "signature",
    "token",
    "xsrf",
)
"""What the names of fields contain whose values are not shown: rather one too many than a credential in a file."""
URI_FIELDS = (
    ":path",
    "content-location",
    "location",
    "referer",
    "x-forwarded-uri",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
)
"""Fields with the URI of a request or a page, whose query or fragment is not shown."""
_sounds_secret = re.compile("|".join((*SECRET_WORDS, "^sec-websocket-protocol$")).encode()).search
_uri_fields = frozenset(name.encode() for name in URI_FIELDS)
_find_query = re.compile(rb"[?#]").search
_STREAM = ((frames.END_STREAM, "END_STREAM"),)
_BLOCK = ((frames.END_HEADERS, "END_HEADERS"),)
_PADDED = ((frames.PADDED, "PADDED"),)
_ACK = ((frames.ACK, "ACK"),)
_FLAGS = {
    frames.DATA: _STREAM + _PADDED,
    frames.HEADERS: _STREAM + _BLOCK + _PADDED + ((frames.HAS_PRIORITY, "PRIORITY"),),
    frames.SETTINGS: _ACK,
    frames.PUSH_PROMISE: _BLOCK + _PADDED,
    frames.PING: _ACK,
    frames.CONTINUATION: _BLOCK,
}
"""The names of flags, by the type of the frame."""


class FrameReport:
    """Puts the frames of one direction into words.

    A frame is kept until it is whole: the caller stops at one that is larger than it accepts.
    """

    def __init__(self, preface: bytes) -> None:
        """`preface` is what must come before the first frame."""
        self._preface = preface
        self._rest = bytearray()
        self._wanted = frames.FRAME_HEADER_SIZE
        """The length that `_rest` must reach before there is anything to report."""
        self._codec: HpackCodec | None = HpackCodec(_MAX_BLOCK, max_table_size=MAX_TABLE_SIZE)
        """None once a field block could not be decoded: those that follow depend on it."""
        self._block: bytearray | None = None

    def feed(self, octets: bytes) -> Iterator[str]:
        """Yield the lines about all frames that these octets complete."""
        if self._preface:
            size = min(len(self._preface), len(octets))
            if octets[:size] != self._preface[:size]:
                yield f"(not the preface of HTTP/2) {printable(octets, 64)}"
                return
            self._preface, octets = self._preface[size:], octets[size:]
            if self._preface:
                return
            yield "(the preface)"
        self._rest += octets
        if len(self._rest) >= self._wanted:
            octets = bytes(self._rest)
            for kind, flags, stream_id, frame in frames.split(octets):
                del self._rest[: len(frame)]
                yield from self._report(kind, flags, stream_id, frame[frames.FRAME_HEADER_SIZE :])
            self._wanted = frames.FRAME_HEADER_SIZE
            if len(self._rest) >= self._wanted:
                self._wanted += int.from_bytes(self._rest[:3], "big")

    def _report(self, kind: int, flags: int, stream_id: int, payload: bytes) -> Iterator[str]:
        name = frames.TYPE_NAMES.get(kind, f"0x{kind:x}")
        details = ""
        fields: list[Field] = []
        try:
            if kind in (frames.HEADERS, frames.CONTINUATION):
                details, fields = self._describe_block(kind, flags, payload)
            elif kind in _DESCRIPTIONS and not (kind == frames.SETTINGS and flags & frames.ACK):
                details = _DESCRIPTIONS[kind](payload)
        except ConnectionFailure as failure:
            details = f" (malformed: {printable(failure.reason)})"
        yield f"{name} stream={stream_id} length={len(payload)} flags={_flag_names(kind, flags)}{details}"
        for field, value in fields[:MAX_FIELDS]:
            yield f"{_INDENT}{printable(field, _MAX_VALUE)}: {_shown(field, value)}"
        if len(fields) > MAX_FIELDS:
            yield f"{_INDENT}(and {len(fields) - MAX_FIELDS} more fields)"

    def _describe_block(self, kind: int, flags: int, payload: bytes) -> tuple[str, list[Field]]:
        """What a frame says itself, and the fields of the block that it ends. Raises ConnectionFailure."""
        details = ""
        if kind == frames.HEADERS:
            payload = frames.unpadded(payload, flags)
            if flags & frames.HAS_PRIORITY:
                details, payload = _describe_priority(payload), payload[5:]
            self._block = bytearray()
        if self._block is None or self._codec is None:
            return f"{details} (not decoded)", []
        self._block += payload
        if len(self._block) > _MAX_BLOCK:
            self._block = self._codec = None
        elif flags & frames.END_HEADERS:
            block, self._block = self._block, None
            return details, self._decode(self._codec, bytes(block))
        return details, []

    def _decode(self, codec: HpackCodec, block: bytes) -> list[Field]:
        try:
            return codec.decode(block)
        except ConnectionFailure:
            self._codec = None
            raise


class TracedConnection(ServerConnection):
    """A `ServerConnection` whose frames are written down."""

    __slots__ = ("_began", "_last", "_received", "_sent", "_write")

    def __init__(self, write: Write, config: Any, now: float, *arguments: Any) -> None:
        """See `ServerConnection`; `write` is called with the lines of what has just been received, or is to be sent."""
        super().__init__(config, now, *arguments)
        self._write = write
        self._began = self._last = now
        self._received = FrameReport(frames.PREFACE)
        self._sent = FrameReport(b"")

    def receive_data(self, data: bytes, now: float) -> None:
        """See `ServerConnection.receive_data`."""
        self._last = now
        # Before they are acted on: what fails is to be seen as well.
        if not self.closed:
            self._tell("recv", self._received.feed(data))
        super().receive_data(data, now)

    def receive_upgrade(self, upgrade: Upgrade) -> None:
        """See `ServerConnection.receive_upgrade`."""
        settings = _describe_settings(upgrade.settings)
        self._tell("recv", iter([f"(an upgrade from HTTP/1.1, with the request of stream 1){settings}"]))
        super().receive_upgrade(upgrade)

    def data_to_send(self, now: float) -> bytes:
        """See `ServerConnection.data_to_send`."""
        self._last = now
        data = super().data_to_send(now)
        if data:
            self._tell("send", self._report_sent(data))
        return data

    def _report_sent(self, data: bytes) -> Iterator[str]:
        if data.startswith(SWITCHING_PROTOCOLS):
            yield "(101 Switching Protocols)"
            data = data[len(SWITCHING_PROTOCOLS) :]
        yield from self._sent.feed(data)

    def _terminate(self, code: ErrorCode, reason: str) -> None:
        self._tell("end ", iter([f"{code.name} {printable(reason)}".rstrip()]))
        super()._terminate(code, reason)

    def _tell(self, what: str, lines: Iterator[str]) -> None:
        start = f"{self._last - self._began:.3f} "
        told = []
        for line in lines:
            told.append(f"{start}{'' if line.startswith(_INDENT) else what} {line}")
        if told:
            self._write(told)


def _flag_names(kind: int, flags: int) -> str:
    names = []
    for bit, name in _FLAGS.get(kind, ()):
        if flags & bit:
            names.append(name)
            flags &= ~bit
    if flags:
        names.append(f"0x{flags:x}")
    return ",".join(names) or "-"


def _shown(name: bytes, value: bytes) -> str:
    """A field's value; of what may be a credential, its length."""
    name = name.lower()
    if name != b":authority" and _sounds_secret(name):
        return f"({len(value)} octets)"
    query = _find_query(value) if name in _uri_fields else None
    if query is None:
        return printable(value, _MAX_VALUE)
    shown = printable(value[: query.start()], _MAX_VALUE)
    return f"{shown}{query[0].decode()}({len(value) - query.end()} octets)"


def _describe_priority(payload: bytes) -> str:
    if len(payload) < 5:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "too short for its priority")
    depends_on, weight = frames.parse_dependency(payload)
    return f" depends_on={depends_on} weight={weight}"


def _describe_settings(payload: bytes) -> str:
    pairs = frames.parse_settings(payload)
    shown = [f" {frames.setting_name(identifier)}={value}" for identifier, value in pairs[:MAX_SETTINGS]]
    return "".join(shown) + (f" (and {len(pairs) - MAX_SETTINGS} more)" if len(pairs) > MAX_SETTINGS else "")


def _describe_reset(payload: bytes) -> str:
    return f" code={code_name(frames.parse_word(payload, 'RST_STREAM'))}"


def _describe_ping(payload: bytes) -> str:
    return f" payload={payload[:8].hex()}"


def _describe_goaway(payload: bytes) -> str:
    code = frames.parse_goaway(payload)
    last_stream_id = int.from_bytes(payload[:4], "big") & frames.STREAM_ID_MASK
    text = f" text={printable(payload[8:], _MAX_GOAWAY_TEXT)}" if payload[8:] else ""
    return f" last_stream={last_stream_id} code={code_name(code)}{text}"


def _describe_window_update(payload: bytes) -> str:
    return f" increment={frames.parse_word(payload, 'WINDOW_UPDATE') & frames.LARGEST_WINDOW}"


def _describe_priority_update(payload: bytes) -> str:
    stream_id, value = frames.parse_priority_update(payload)
    return f" prioritized_stream={stream_id} value={printable(value, _MAX_VALUE)}"


_DESCRIPTIONS: dict[int, Callable[[bytes], str]] = {
    frames.PRIORITY: _describe_priority,
    frames.RST_STREAM: _describe_reset,
    frames.SETTINGS: _describe_settings,
    frames.PING: _describe_ping,
    frames.GOAWAY: _describe_goaway,
    frames.WINDOW_UPDATE: _describe_window_update,
    frames.PRIORITY_UPDATE: _describe_priority_update,
}
