"""`wsgi.input` over a stream: what is read gives its flow-control credit back."""

from __future__ import annotations

from collections.abc import Iterator

from gunicorn_h2.drivers.channel import Channel
from gunicorn_h2.protocol.headers import FORBIDDEN_TRAILERS

__all__ = ["StreamInput"]


class StreamInput:
    """The file-like object of PEP 3333. Every read may raise `StreamAborted`, an OSError."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._rest = b""
        self._closed = False
        self.trailers: list[tuple[str, str]] = []
        """The request's trailers (RFC 9113 section 8.1), from when the end of the body is read."""

    def read(self, size: int | None = None) -> bytes:
        """Return `size` octets, fewer only at the end of the body; all of it without a size."""
        if size is None or size < 0:
            return b"".join(iter(self._take, b""))
        return self._read_up_to(size, b"")

    def readline(self, size: int | None = None) -> bytes:
        """Return a line with its line feed, or its first `size` octets."""
        return self._read_up_to(-1 if size is None else size, b"\n")

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Return lines until the end, or until they hold `hint` octets."""
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def close(self) -> None:
        """Further reads raise ValueError."""
        self._closed = True
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _take(self) -> bytes:
        """Return what is left of a piece, or the next one; b"" at the end."""
        if self._closed:
            raise ValueError("I/O operation on closed file.")
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        data = self._channel.read()
        if not data and not self.trailers:
            self.trailers += [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in self._channel.trailers
                if name not in FORBIDDEN_TRAILERS
            ]
        return data

    def _read_up_to(self, size: int, separator: bytes) -> bytes:
        """Collect pieces until `size` octets (negative: no limit), the separator, or the end."""
        parts: list[bytes] = []
        missing = size
        while missing:
            piece = self._take()
            if not piece:
                break
            end = piece.find(separator) + len(separator) if separator else 0
            if not end:
                end = len(piece)
            found = bool(separator) and piece[end - 1 : end] == separator
            if 0 <= missing < end:
                end, found = missing, True
            parts.append(piece[:end])
            self._rest = piece[end:]
            missing -= end
            if found:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)
