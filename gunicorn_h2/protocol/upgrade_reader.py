"""A strict reader of the HTTP/1.1 request that may ask for an upgrade (RFC 9112, RFC 7540 section 3.2).

It accepts only the plain form of a request. Anything else (a bare line feed, a folded line, two lengths, chunk
extensions, trailers) is left to the HTTP/1 parser, which receives every octet and knows how to answer. So the
two parsers never disagree about a request that is served.

The work is linear in the octets received, however they are split: nothing is searched or parsed twice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .upgrade import Upgrade, validate_upgrade

__all__ = ["MAX_BODY_SIZE", "MAX_HEAD_SIZE", "NotAnUpgrade", "RequestLimits", "UpgradeReader"]

MAX_BODY_SIZE = 65_536
"""The largest body of an upgrade request, in octets with its chunk framing: it is held in memory."""
MAX_HEAD_SIZE = 1_048_576
"""The largest head of an upgrade request, in octets, whatever the limits allow."""

_END_OF_HEAD = b"\r\n\r\n"
_SETTINGS = b"http2-settings"
_REQUEST_LINE = re.compile(rb"([^ ]+) ([^ ]+) HTTP/1\.1").fullmatch
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_LENGTH = re.compile(rb"[0-9]{1,19}").fullmatch
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}").fullmatch
_MAX_CHUNK_LINE = 10


class NotAnUpgrade(Exception):
    """The request asks for no upgrade, or not in the plain form: the connection goes on with HTTP/1."""


class RequestLimits(NamedTuple):
    """Limits on the head of an HTTP/1.1 request; a larger one is left to HTTP/1."""

    line: int
    """Octets of the request line."""
    fields: int
    """Number of fields."""
    field_size: int
    """Octets of one field line, CRLF included."""

    @property
    def head_size(self) -> int:
        """Octets of the whole head, MAX_HEAD_SIZE at most."""
        return min(self.line + self.fields * (self.field_size + 2), MAX_HEAD_SIZE)


class UpgradeReader:
    """Reads one request from a buffer that its owner fills."""

    def __init__(self, limits: RequestLimits) -> None:
        self.end = 0
        """The position after the request, once it is complete."""
        self._limits = limits
        self._max_head_size = limits.head_size
        self._searched = 0
        self._upgrade: Upgrade | None = None
        """The validated head, while the body is still to come."""
        self._body: _SizedBody | _ChunkedBody

    def read(self, octets: bytearray) -> Upgrade | None:
        """Continue with `octets`, all that has been read so far; return None while the request is incomplete.

        Raises NotAnUpgrade.
        """
        if self._upgrade is None:
            end = octets.find(_END_OF_HEAD, self._searched)
            if end < 0:
                # The last three octets may begin the empty line.
                self._searched = max(len(octets) - 3, 0)
                if len(octets) > self._max_head_size:
                    raise NotAnUpgrade
                return None
            self._upgrade = self._read_head(bytes(octets[:end]), end + len(_END_OF_HEAD))
        if not self._body.is_complete(octets):
            return None
        self.end = self._body.end
        return self._upgrade._replace(body=self._body.content(octets))

    def _read_head(self, head: bytes, end: int) -> Upgrade:
        if _SETTINGS not in head.lower() or _FORBIDDEN(head.replace(b"\r\n", b"")):
            raise NotAnUpgrade
        line, *lines = head.split(b"\r\n")
        request = _REQUEST_LINE(line)
        limits = self._limits
        if request is None or len(line) > limits.line or len(lines) > limits.fields:
            raise NotAnUpgrade
        fields = [self._read_field(line) for line in lines]
        upgrade = validate_upgrade(request[1], request[2], fields, b"")
        if upgrade is None:
            raise NotAnUpgrade
        self._body = _body(fields, end)
        return upgrade

    def _read_field(self, line: bytes) -> tuple[bytes, bytes]:
        """A field line's name, in lower case, and its value, neither of them validated."""
        name, colon, value = line.partition(b":")
        if not colon or len(line) + 2 > self._limits.field_size:
            raise NotAnUpgrade
        return name.lower(), value.strip(b" \t")


class _SizedBody:
    """A body of a known size."""

    def __init__(self, start: int, size: int) -> None:
        if size > MAX_BODY_SIZE:
            raise NotAnUpgrade
        self.end = start + size
        self._start = start

    def is_complete(self, octets: bytearray) -> bool:
        """Whether `octets` hold the whole body."""
        return len(octets) >= self.end

    def content(self, octets: bytearray) -> bytes:
        """The body without its framing."""
        return bytes(octets[self._start : self.end])


class _ChunkedBody:
    """A body in chunks (RFC 9112 section 7.1)."""

    def __init__(self, start: int) -> None:
        self.end = start
        """The position of the next chunk; after the last chunk, the end of the body."""
        self._limit = start + MAX_BODY_SIZE
        self._chunks: list[bytes] = []

    def is_complete(self, octets: bytearray) -> bool:
        """Whether `octets` hold the whole body. Raises NotAnUpgrade."""
        while (line_end := octets.find(b"\r\n", self.end, self.end + _MAX_CHUNK_LINE)) >= 0:
            line = octets[self.end : line_end]
            if not _CHUNK_SIZE(line):
                raise NotAnUpgrade
            start = line_end + 2
            size = int(line, 16)
            end = start + size
            if end + 2 > self._limit:
                raise NotAnUpgrade
            if len(octets) < end + 2:
                return False
            # After the last chunk, trailers may stand here instead.
            if octets[end : end + 2] != b"\r\n":
                raise NotAnUpgrade
            self.end = end + 2
            if not size:
                return True
            self._chunks.append(bytes(octets[start:end]))
        if len(octets) - self.end >= _MAX_CHUNK_LINE:
            raise NotAnUpgrade
        return False

    def content(self, octets: bytearray) -> bytes:
        """The body without its framing."""
        return b"".join(self._chunks)


def _body(fields: list[tuple[bytes, bytes]], start: int) -> _SizedBody | _ChunkedBody:
    """The reader of the body at `start`, by its framing (RFC 9112 section 6.3)."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings == [b"chunked"] and not lengths:
        return _ChunkedBody(start)
    # `validate_upgrade` has refused repeated lengths.
    if codings or not all(map(_LENGTH, lengths)):
        raise NotAnUpgrade
    return _SizedBody(start, int(lengths[0]) if lengths else 0)
