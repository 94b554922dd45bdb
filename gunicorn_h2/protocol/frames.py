"""Frames on the wire (RFC 9113 sections 4 and 6): the constants, the splitter, the small frames.

A frame is nine octets of header (length, type, flags, stream id) and a payload. Frames that carry
neither fields nor data are so small that the core reads and writes them itself, whatever the engine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from .errors import ConnectionFailure, ErrorCode

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_SIZE = 9
DEFAULT_WINDOW_SIZE = 65_535
DEFAULT_MAX_FRAME_SIZE = 16_384
MAX_SETTINGS_SIZE = 32 * 6
"""The largest SETTINGS payload we act on: each value may move the window of every stream."""
LARGEST_WINDOW = LARGEST_STREAM_ID = 2**31 - 1

_STREAM_ID_MASK = 0x7FFF_FFFF
_header = struct.Struct(">HBBBL")
_setting = struct.Struct(">HL")
_two_words = struct.Struct(">LL")
_word = struct.Struct(">L")
_priority = struct.Struct(">LB")

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream id, and the whole frame with its nine octets of header."""


class FrameSplitter:
    """Cuts what arrives into whole frames; holds at most one unfinished frame."""

    def __init__(self, max_frame_size: int) -> None:
        self._max_frame_size = max_frame_size
        self._rest = bytearray()
        self._wanted = FRAME_HEADER_SIZE

    def split(self, data: bytes) -> Iterator[Frame]:
        """Yield each frame that `data` completes.

        Raises ConnectionFailure(FRAME_SIZE_ERROR) as soon as a frame's header announces more than
        SETTINGS_MAX_FRAME_SIZE (RFC 9113 section 4.2), before its payload is buffered.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            data = bytes(self._rest)
            self._rest.clear()
        position, end = 0, len(data)
        while end - position >= FRAME_HEADER_SIZE:
            high, low, kind, flags, stream_id = _header.unpack_from(data, position)
            length = high << 8 | low
            if length > self._max_frame_size:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} octets")
            stop = position + FRAME_HEADER_SIZE + length
            if stop > end:
                self._wanted = FRAME_HEADER_SIZE + length
                break
            yield kind, flags, stream_id & _STREAM_ID_MASK, data[position:stop]
            position = stop
        else:
            self._wanted = FRAME_HEADER_SIZE
        self._rest += data[position:]


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> bytes:
    """One whole frame."""
    length = len(payload)
    return b"".join((_header.pack(length >> 8, length & 0xFF, kind, flags, stream_id), payload))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame (section 6.5) of (identifier, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*pair) for pair in values))


def goaway(last_stream_id: int, code: ErrorCode) -> bytes:
    """A GOAWAY frame (section 6.8) without debug data: nothing about us goes to the peer."""
    return frame(GOAWAY, 0, 0, _two_words.pack(last_stream_id, code))


def ping(payload: bytes, flags: int = 0) -> bytes:
    """A PING frame (section 6.7) of eight octets."""
    return frame(PING, flags, 0, payload)


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame (section 6.9)."""
    return frame(WINDOW_UPDATE, 0, stream_id, _word.pack(increment))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame (section 6.4)."""
    return frame(RST_STREAM, 0, stream_id, _word.pack(code))


def parse_settings(payload: bytes) -> dict[int, int]:
    """The values of a SETTINGS payload by identifier, checked; the last one counts (section 6.5.2).

    Raises ConnectionFailure with the code that the RFC gives for each wrong value.
    """
    if len(payload) % _setting.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    pairs = list(_setting.iter_unpack(payload))
    for identifier, value in pairs:
        if identifier == ENABLE_PUSH and value > 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
        if identifier == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
        if identifier == MAX_FRAME_SIZE and not DEFAULT_MAX_FRAME_SIZE <= value <= 2**24 - 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
    return dict(pairs)


def parse_word(frame_: bytes, what: str) -> int:
    """The 32 bits of a RST_STREAM or WINDOW_UPDATE payload, the latter's reserved bit included."""
    if len(frame_) != FRAME_HEADER_SIZE + _word.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"{what} of a broken length")
    word: int = _word.unpack_from(frame_, FRAME_HEADER_SIZE)[0]
    return word


def parse_goaway(payload: bytes) -> int:
    """The error code of a GOAWAY payload."""
    if len(payload) < _two_words.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a broken length")
    code: int = _two_words.unpack_from(payload)[1]
    return code


def parse_priority(payload: bytes) -> tuple[int, int]:
    """The stream depended on and the weight (1 to 256) of five octets (RFC 7540 section 6.3)."""
    depends_on, weight = _priority.unpack_from(payload)
    return depends_on & _STREAM_ID_MASK, weight + 1


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding (section 6.1)."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    if payload[0] >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
