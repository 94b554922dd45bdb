"""Frames on the wire (RFC 9113 sections 4 and 6): the constants, and the payloads of the small frames.

A frame is nine octets of header (length, type, flags, stream id) and a payload. Frames that carry
neither fields nor data are read and written here; `reader` splits octets into frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from .errors import ConnectionFailure, ErrorCode

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0x0, 0x1, 0x2, 0x3, 0x4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x5, 0x6, 0x7, 0x8, 0x9
PRIORITY_UPDATE = 0x10

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
HAS_PRIORITY = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6
ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 0x8, 0x9

TYPE_NAMES = {
    DATA: "DATA",
    HEADERS: "HEADERS",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PUSH_PROMISE: "PUSH_PROMISE",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    CONTINUATION: "CONTINUATION",
    PRIORITY_UPDATE: "PRIORITY_UPDATE",
}
_SETTING_NAMES = {
    HEADER_TABLE_SIZE: "HEADER_TABLE_SIZE",
    ENABLE_PUSH: "ENABLE_PUSH",
    MAX_CONCURRENT_STREAMS: "MAX_CONCURRENT_STREAMS",
    INITIAL_WINDOW_SIZE: "INITIAL_WINDOW_SIZE",
    MAX_FRAME_SIZE: "MAX_FRAME_SIZE",
    MAX_HEADER_LIST_SIZE: "MAX_HEADER_LIST_SIZE",
    ENABLE_CONNECT_PROTOCOL: "ENABLE_CONNECT_PROTOCOL",
    NO_RFC7540_PRIORITIES: "NO_RFC7540_PRIORITIES",
}
# The settings with values 0 and 1; RFC 8441 section 3 adds the second.
_FLAGS = frozenset((ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES))

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_SIZE = 9
DEFAULT_WINDOW_SIZE = 65_535
DEFAULT_MAX_FRAME_SIZE = 16_384
MAX_SETTINGS_SIZE = 32 * 6
"""The largest SETTINGS payload accepted: each value may change the window of every stream."""
LARGEST_WINDOW = LARGEST_STREAM_ID = 2**31 - 1

STREAM_ID_MASK = 0x7FFF_FFFF
_header = struct.Struct(">HBBBL")
pack_header = _header.pack
"""Packs a frame header: the length's upper 16 and lower 8 bits, type, flags, stream id."""
unpack_header = _header.unpack_from
_setting = struct.Struct(">HL")
_two_words = struct.Struct(">LL")
_word = struct.Struct(">L")
_priority = struct.Struct(">LB")


def frame(kind: int, flags: int, stream_id: int, payload: bytes | memoryview) -> bytes:
    """One whole frame."""
    length = len(payload)
    return b"".join((_header.pack(length >> 8, length & 0xFF, kind, flags, stream_id), payload))


def split(octets: bytes, position: int = 0, max_size: int = 2**24) -> Iterator[tuple[int, int, int, bytes]]:
    """The complete frames in `octets` from a position on: type, flags, stream and all octets of each.

    Raises ConnectionFailure(FRAME_SIZE_ERROR) for one whose payload, complete or not, is larger than `max_size`.
    """
    while len(octets) - position >= FRAME_HEADER_SIZE:
        high, low, kind, flags, stream_id = unpack_header(octets, position)
        length = high << 8 | low
        if length > max_size:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} octets, beyond MAX_FRAME_SIZE")
        stop = position + FRAME_HEADER_SIZE + length
        if stop > len(octets):
            return
        yield kind, flags, stream_id & STREAM_ID_MASK, octets[position:stop]
        position = stop


def setting_name(identifier: int) -> str:
    """The name of a setting (section 6.5.2), or its number."""
    return _SETTING_NAMES.get(identifier, f"0x{identifier:x}")


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame (section 6.5) of (identifier, value) pairs."""
    return frame(SETTINGS, 0, 0, b"".join(_setting.pack(*pair) for pair in values))


def goaway(last_stream_id: int, code: ErrorCode) -> bytes:
    """A GOAWAY frame (section 6.8) without debug data, which would tell the peer about the server."""
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


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS payload in order, validated (section 6.5.2).

    Raises ConnectionFailure with the code that the RFC gives for each invalid value.
    """
    if len(payload) % _setting.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a broken length")
    pairs = list(_setting.iter_unpack(payload))
    for identifier, value in pairs:
        if identifier in _FLAGS and value > 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{setting_name(identifier)} of {value}")
        if identifier == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
        if identifier == MAX_FRAME_SIZE and not DEFAULT_MAX_FRAME_SIZE <= value <= 2**24 - 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
    return pairs


def parse_word(payload: bytes, what: str) -> int:
    """The 32 bits of a RST_STREAM or WINDOW_UPDATE payload, the latter's reserved bit included.

    Raises ConnectionFailure(FRAME_SIZE_ERROR) for another length; `what` names the frame.
    """
    if len(payload) != _word.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"{what} of a broken length")
    word: int = _word.unpack(payload)[0]
    return word


def parse_goaway(payload: bytes) -> int:
    """The error code of a GOAWAY payload. Raises ConnectionFailure(FRAME_SIZE_ERROR)."""
    if len(payload) < _two_words.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a broken length")
    code: int = _two_words.unpack_from(payload)[1]
    return code


def parse_priority_update(payload: bytes) -> tuple[int, bytes]:
    """The stream and the field value of a PRIORITY_UPDATE payload (RFC 9218 section 7.1).

    Raises ConnectionFailure(FRAME_SIZE_ERROR).
    """
    if len(payload) < _word.size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY_UPDATE of a broken length")
    return _word.unpack_from(payload)[0] & STREAM_ID_MASK, payload[_word.size :]


def parse_dependency(payload: bytes) -> tuple[int, int]:
    """The stream depended on and the weight, 1 to 256, in five octets (RFC 7540 section 6.3)."""
    depends_on, weight = _priority.unpack_from(payload)
    return depends_on & STREAM_ID_MASK, weight + 1


def unpadded(payload: bytes, flags: int) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding (section 6.1). Raises ConnectionFailure."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without a pad length")
    if payload[0] >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
