"""The green driver's interface to gevent."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.monkey import get_original

from .green_hub import Library, Watch

__all__ = ["GEVENT", "GeventWatch"]

_READ, _WRITE = 1, 2


class GeventWatch(Watch):
    """Has watchers of its own, beside those of a gevent socket."""

    def __init__(self, fd: int, notify: Callable[[], object]) -> None:
        super().__init__(notify)
        self._loop = gevent.get_hub().loop
        self._fd = fd
        self._reader = self._loop.io(fd, _READ)
        self._writer: Any = None
        """Created on first use: few connections ever need it."""
        self._timer: Any = None

    def _watch(self, wants_write: bool) -> None:
        if not self._reader.active:
            self._reader.start(self._on_readable)
        if wants_write:
            self._watch_writes()
        elif self._writer is not None:
            self._writer.stop()

    def _watch_writes(self) -> None:
        if self._writer is None:
            self._writer = self._loop.io(self._fd, _WRITE)
        self._writer.start(self._on_writable)

    def _unwatch(self) -> None:
        self._reader.stop()
        if self._writer is not None:
            self._writer.stop()

    def _close(self) -> None:
        for watcher in (self._reader, self._writer, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def _set_alarm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._timer = self._loop.timer(seconds)
        self._timer.start(self._on_alarm, update=True)


def _call_soon(call: Callable[[], object]) -> None:
    gevent.get_hub().loop.run_callback(call)


def _call_after_poll(call: Callable[[], object]) -> None:
    # The loop runs callbacks before it polls, and those that they add as well, but timers after it.
    timer = gevent.get_hub().loop.timer(0)

    def expire() -> None:
        timer.close()
        call()

    timer.start(expire)


def _is_waited_for(listeners: Sequence[socket.socket]) -> bool:
    select = get_original("select", "select")
    return bool(select(listeners, (), (), 0)[0])


def _switch_to_hub() -> None:
    gevent.get_hub().switch()


GEVENT = Library(GeventWatch, gevent.spawn, gevent.kill, _call_soon, _call_after_poll, _is_waited_for, _switch_to_hub)
