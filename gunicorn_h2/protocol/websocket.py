"""WebSocket over HTTP/2 (RFC 8441), for applications that know it from HTTP/1.1 (RFC 6455).

An extended CONNECT becomes the GET that asks for an upgrade (`upgrade_request`), the 101 that such an application
writes becomes the response of the stream (`parse_reply`), and all that follows is passed on as it is. `FrameTracker`
knows where the application's frames end, so that a frame of the server's own may stand between them.
"""

from __future__ import annotations

import re
from copy import copy
from typing import NamedTuple

from .errors import InvalidResponse
from .headers import Fields, RequestHead

__all__ = ["WEBSOCKET", "WEBSOCKET_VERSION", "FrameTracker", "Reply", "close_frame", "parse_reply", "upgrade_request"]

WEBSOCKET = b"websocket"
"""The value of `:protocol`."""
WEBSOCKET_VERSION = b"13"
"""The only version of the protocol (RFC 6455 section 4.1)."""
LARGEST_REPLY = 65_536
"""The size up to which a reply's head is read, in octets."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?").fullmatch
# Of HTTP/1.1's handshake alone (RFC 8441 section 5); a 2xx to CONNECT has no content (RFC 9110 section 9.3.6).
_DROPPED_FROM_101 = frozenset((b"connection", b"content-length", b"sec-websocket-accept", b"upgrade"))
_CLOSE = 0x8
_TWO_OCTETS, _EIGHT_OCTETS = 126, 127


def upgrade_request(head: RequestHead, key: bytes) -> RequestHead:
    """Return the GET that a client of HTTP/1.1 would have sent; `key` is for its Sec-WebSocket-Key."""
    request = copy(head)
    request.method, request.protocol = b"GET", b""
    request.fields = [
        (b"connection", b"Upgrade"),
        (b"upgrade", WEBSOCKET),
        (b"sec-websocket-key", key),
        *(field for field in head.fields if field[0] != b"sec-websocket-key"),
    ]
    request.sibling = request.derived = None
    return request


class Reply(NamedTuple):
    """The head with which an application of HTTP/1.1 answers, translated to HTTP/2."""

    status: int
    """200 for a 101."""
    fields: Fields
    """Names in lower case, values without white space around them."""
    rest: bytes
    """What came behind the head."""


def parse_reply(data: bytes) -> Reply | None:
    """Parse what an application has written so far; None while its head is not complete.

    Raises InvalidResponse for what is no head of HTTP/1.1, or one that a stream cannot have.
    """
    text, end, rest = data.partition(b"\r\n\r\n")
    if len(text) > LARGEST_REPLY:
        raise InvalidResponse("the head of the reply is too large")
    if not end:
        return None
    status_line, *lines = text.split(b"\r\n")
    match = _STATUS_LINE(status_line)
    if match is None:
        raise InvalidResponse(f"{status_line[:80]!r} is no status line")
    status = int(match[1])
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    if status == 101:
        return Reply(200, [field for field in fields if field[0] not in _DROPPED_FROM_101], rest)
    if status < 300 or any(name == b"transfer-encoding" for name, _ in fields):
        raise InvalidResponse(f"{status_line!r} cannot answer a WebSocket request over HTTP/2")
    return Reply(status, fields, rest)


def close_frame(code: int) -> bytes:
    """A server's Close frame (RFC 6455 section 5.5.1)."""
    return bytes((0x80 | _CLOSE, 2)) + code.to_bytes(2, "big")


class FrameTracker:
    """Follows a sender's frames (RFC 6455 section 5.2), of which it looks at the headers only."""

    __slots__ = ("closed", "_header", "_left")

    def __init__(self) -> None:
        self.closed = False
        """Whether a Close frame has begun."""
        self._header = bytearray()
        """What is known of an incomplete header."""
        self._left = 0
        """Octets of the payload that are still to come."""

    @property
    def is_between(self) -> bool:
        """Whether no frame is incomplete."""
        return not self._header and not self._left

    def advance(self, data: bytes, to_boundary: bool = False) -> int:
        """Take octets, all of them or up to the end of the first frame; return how many it were."""
        position, size = 0, len(data)
        while position < size and not (to_boundary and position and self.is_between):
            if self._left:
                step = min(self._left, size - position)
                self._left -= step
                position += step
            else:
                self._add_to_header(data[position])
                position += 1
        return position

    def _add_to_header(self, octet: int) -> None:
        header = self._header
        header.append(octet)
        if len(header) < 2:
            return
        length, masked = header[1] & 0x7F, 4 * (header[1] >> 7)
        extended = {_TWO_OCTETS: 2, _EIGHT_OCTETS: 8}.get(length, 0)
        if len(header) == 2 + extended + masked:
            self._left = int.from_bytes(header[2 : 2 + extended], "big") if extended else length
            self.closed = self.closed or header[0] & 0x0F == _CLOSE
            header.clear()
