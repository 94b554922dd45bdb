"""The green driver's view of gevent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from .green import Library, Waiter

__all__ = ["GEVENT", "GeventWaiter"]

_READ, _WRITE = 1, 2


class GeventWaiter(Waiter):
    """Waits with watchers of its own, beside those that a gevent socket has."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._hub = gevent.get_hub()
        self._fd = fd
        self._reader = self._hub.loop.io(fd, _READ)
        self._writer: Any = None
        """Made when it is first wanted, as few connections ever do."""
        self._timer: Any = None
        self._closed = False

    def _watch(self, wants_write: bool) -> None:
        if not self._reader.active:
            self._reader.start(self._on_readable)
        if self._writer is None:
            if not wants_write:
                return
            self._writer = self._hub.loop.io(self._fd, _WRITE)
        if wants_write == self._writer.active:
            return
        if wants_write:
            self._writer.start(self._on_writable)
        else:
            self._writer.stop()

    def unwatch(self) -> None:
        """See `Waiter.unwatch`."""
        if not self._closed:
            self._reader.stop()
            if self._writer is not None:
                self._writer.stop()

    def close(self) -> None:
        """See `Waiter.close`."""
        self._closed = True
        for watcher in (self._reader, self._writer, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def _set_alarm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._timer = self._hub.loop.timer(seconds)
        self._timer.start(self._on_alarm, update=True)

    def _call_soon(self, call: Callable[[], None]) -> None:
        self._hub.loop.run_callback(call)

    def _switch_to_hub(self) -> None:
        self._hub.switch()


def _call_soon(call: Callable[[], None]) -> None:
    gevent.get_hub().loop.run_callback(call)


def _switch_to_hub() -> None:
    gevent.get_hub().switch()


GEVENT = Library(GeventWaiter, gevent.spawn, gevent.kill, _call_soon, _switch_to_hub)
