"""`wsgi.input` over a stream; reading returns flow-control credit."""

from __future__ import annotations

from collections.abc import Iterator

from gunicorn_h2.drivers.channel import Channel
from gunicorn_h2.protocol.headers import FORBIDDEN_TRAILERS

__all__ = ["StreamInput"]


class StreamInput:
    """The file-like object of PEP 3333. Every read may raise `StreamAborted`, an OSError.

    A piece of the body is kept as it arrived until it is used up; a read copies only what it returns.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._piece = b""
        self._position = 0
        self._closed = False
        self.trailers: list[tuple[str, str]] = []
        """The request's trailers (RFC 9113 section 8.1), filled in when the end of the body is read."""

    def read(self, size: int | None = None) -> bytes:
        """Return `size` octets, fewer only at the end of the body; without a size, the whole rest."""
        return self._read_up_to(-1 if size is None else size, b"")

    def readline(self, size: int | None = None) -> bytes:
        """Return a line with its line feed, `size` octets at most."""
        return self._read_up_to(-1 if size is None else size, b"\n")

    def readlines(self, hint: int | None = None) -> list[bytes]:
        """Return lines up to the end, or until they have `hint` octets in total."""
        lines, total = [], 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def close(self) -> None:
        """Close the input: further reads raise ValueError."""
        self._closed = True
        self._piece, self._position = b"", 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _has_more(self) -> bool:
        """Fetch the next piece if the last one is used up; return False at the end of the body."""
        if self._piece:
            return True
        if self._closed:
            raise ValueError("I/O operation on closed file.")
        self._piece = self._channel.read()
        if self._piece:
            return True
        if not self.trailers:
            self.trailers += [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in self._channel.trailers or ()
                if name not in FORBIDDEN_TRAILERS
            ]
        return False

    def _read_up_to(self, size: int, separator: bytes) -> bytes:
        """Read until `size` octets (negative: no limit), the separator, or the end of the body."""
        parts: list[bytes] = []
        missing = size
        while missing and self._has_more():
            piece, start = self._piece, self._position
            end = len(piece) if missing < 0 else min(start + missing, len(piece))
            found = piece.find(separator, start, end) if separator else -1
            if found >= 0:
                end = found + len(separator)
            parts.append(piece[start:end])
            missing = 0 if found >= 0 else missing - (end - start)
            self._position = end
            if end == len(piece):
                self._piece, self._position = b"", 0
        return parts[0] if len(parts) == 1 else b"".join(parts)
