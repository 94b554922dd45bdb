"""Files as responses: the connection's owner reads them piece by piece, and no thread waits for the client."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from .log import Log

__all__ = ["FilePart", "FileSource"]

# Not classes derived from them, whose `read` may be another.
_BUFFERED = (io.BufferedReader, io.BufferedRandom)


class FilePart(NamedTuple):
    """Octets of a regular file, from a position on."""

    file: io.IOBase
    position: int
    octets: int

    @classmethod
    def of(cls, filelike: object, length: int | None) -> FilePart | None:
        """Take the next `length` octets that `filelike.read` would return; None: up to the end.

        Return None if it does not simply read from a regular file. There may be fewer octets than `length`.
        """
        file = _file_behind(filelike)
        if file is None:
            return None
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return None
            if file.writable():
                file.flush()
                status = os.fstat(file.fileno())
            position = file.tell()
        except (OSError, ValueError):
            # A closed file is one: reading it says so to the application's face.
            return None
        octets = max(status.st_size - position, 0)
        return cls(file, position, octets if length is None else min(length, octets))


def _file_behind(filelike: object) -> io.IOBase | None:
    """Return the file whose `read` is that of `filelike`.

    `filelike` may be a wrapper that passes `read` on, such as Django's File or tempfile's. To have a descriptor is not
    enough: that of a `GzipFile` is the compressed file's.
    """
    read = getattr(filelike, "read", None)
    file = getattr(getattr(read, "__wrapped__", read), "__self__", None)
    if isinstance(file, io.FileIO):
        return file if type(file) is io.FileIO else None
    if isinstance(file, (io.BufferedReader, io.BufferedRandom)):
        return file if type(file) in _BUFFERED and type(file.raw) is io.FileIO else None
    return None


class FileSource:
    """A part of a file as a `Source`. The position of the file does not move."""

    def __init__(self, part: FilePart, on_close: Callable[[int], object], log: Log) -> None:
        """The connection's owner calls `on_close` once, with the number of octets that were not read."""
        self._file, self._position, self._left = part
        self._on_close: Callable[[int], object] | None = on_close
        self._log = log

    def __len__(self) -> int:
        """See `Source.__len__`."""
        return self._left

    def read(self, octets: int) -> bytes:
        """See `Source.read`."""
        try:
            # Asked each time: the descriptor of a file that the application has closed may be another file's by now.
            data = os.pread(self._file.fileno(), octets, self._position)
        except (OSError, ValueError) as error:
            self._log.warning("The file of a response cannot be read: %s", error)
            return b""
        if len(data) < octets:
            self._log.warning("The file of a response has shrunk: %d octets are missing", self._left - len(data))
        self._position += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        """See `Source.close`."""
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close(self._left)
