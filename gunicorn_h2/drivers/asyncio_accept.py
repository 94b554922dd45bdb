"""Accepting connections in an event loop: one by one, while there is room for them and a file descriptor."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from .admission import ACCEPT_RETRY_SECONDS, HARMLESS_ACCEPT_ERRORS
from .log import Log

__all__ = ["Acceptor"]


class Acceptor:
    """Accepts connections on one listening socket.

    It accepts one at a time, so that connections that arrive together are spread over the workers that share the
    socket. It has `close` and `wait_closed` of `asyncio.Server`, which Gunicorn calls.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        take: Callable[[socket.socket, Any], None],
        is_busy: Callable[[], bool],
        log: Log,
    ) -> None:
        """`take(sock, peer)` is called with each connection; none is accepted in a turn of the loop that `is_busy`."""
        self._loop = loop
        self._sock = sock
        self._take = take
        self._is_busy = is_busy
        self._log = log
        self._wanted = self._accepting = False
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        sock.setblocking(False)
        self.resume()

    def resume(self) -> None:
        """Accept connections."""
        self._wanted = True
        self._update()

    def pause(self) -> None:
        """Leave connections to the other workers, or waiting in the backlog."""
        self._wanted = False
        self._update()

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        self._cancel_retry()
        self._update()

    async def wait_closed(self) -> None:
        """Return at once: nothing is accepted after `close`."""

    def _update(self) -> None:
        accepting = self._wanted and not self._closed and self._retry is None
        if accepting and not self._accepting:
            self._loop.add_reader(self._sock.fileno(), self._accept)
        elif self._accepting and not accepting:
            self._loop.remove_reader(self._sock.fileno())
        self._accepting = accepting

    def _accept(self) -> None:
        if self._is_busy():
            return
        try:
            sock, peer = self._sock.accept()
        except OSError as error:
            if error.errno not in HARMLESS_ACCEPT_ERRORS:
                # File descriptors may have run out, for instance; retry later.
                self._log.warning("Cannot accept connections: %s", error)
                self._retry = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._try_again)
                self._update()
            return
        self._take(sock, peer)

    def _try_again(self) -> None:
        self._retry = None
        self._update()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
