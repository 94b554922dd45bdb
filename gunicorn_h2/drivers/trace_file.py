"""The file of `http2_trace`, to which the connections of all workers write."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import count

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.trace import TracedConnection

from .log import Log, address_text
from .private_file import open_private

__all__ = ["TraceFile"]


class TraceFile:
    """One for each worker process, used by the thread that owns the connections.

    A line begins with the worker's process and the number of the connection in it. Lines that belong together are
    appended by one system call, so that those of several workers do not mix.
    """

    def __init__(self, path: str, log: Log) -> None:
        """The file is opened by `open_private`, which makes it if there is none. Raises `OSError`."""
        self._fd = open_private("http2_trace", path)
        self._path = path
        self._log = log
        self._numbers = count(1)
        self._failed = False

    def core(self, peer: object) -> Callable[..., ServerConnection]:
        """What makes the core of a connection from `peer`, with the arguments of `ServerConnection`."""
        name = f"{os.getpid()}.{next(self._numbers)}"
        began = datetime.now().astimezone().isoformat(timespec="milliseconds")
        self._write(name, [f"0.000 connection from {address_text(peer)} at {began}"])
        return partial(TracedConnection, partial(self._write, name))

    def _write(self, name: str, lines: list[str]) -> None:
        if self._failed:
            return
        left = memoryview("".join([f"{name} {line}\n" for line in lines]).encode("ascii", "backslashreplace"))
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            # No connection ends because of its trace.
            self._failed = True
            self._log.warning("http2_trace: %s cannot be written any more: %s", self._path, error)
