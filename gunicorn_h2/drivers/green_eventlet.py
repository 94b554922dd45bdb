"""The green driver's interface to eventlet."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import eventlet
from eventlet import hubs

from .green_hub import Library, Watch

__all__ = ["EVENTLET", "EventletWatch"]


class EventletWatch(Watch):
    """Has listeners of its own. While it watches, the socket must not wait by itself."""

    def __init__(self, fd: int, notify: Callable[[], object]) -> None:
        super().__init__(notify)
        self._fd = fd
        self._hub = hubs.get_hub()
        self._reader: Any = None
        self._writer: Any = None
        self._timer: Any = None

    def _watch(self, wants_write: bool) -> None:
        if self._reader is None:
            self._reader = self._listen(self._hub.READ, self._on_readable)
        if wants_write:
            self._watch_writes()
        elif self._writer is not None:
            self._writer = self._hub.remove(self._writer)

    def _watch_writes(self) -> None:
        self._writer = self._listen(self._hub.WRITE, self._on_writable)

    def _listen(self, event: str, call: Callable[[], None]) -> Any:
        # The second callback is for a descriptor that was closed and reused; the next read notices.
        return self._hub.add(event, self._fd, lambda _: call(), lambda _: call(), None)

    def _unwatch(self) -> None:
        if self._reader is not None:
            self._reader = self._hub.remove(self._reader)
        if self._writer is not None:
            self._writer = self._hub.remove(self._writer)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_alarm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._hub.schedule_call_global(seconds, self._on_alarm)


def _call_soon(call: Callable[[], object]) -> None:
    hubs.get_hub().schedule_call_global(0, call)


def _is_waited_for(listeners: Sequence[socket.socket]) -> bool:
    # Gunicorn's loop accepts one connection more than it has room for, which nobody sees.
    return True


def _switch_to_hub() -> None:
    hubs.get_hub().switch()


EVENTLET = Library(EventletWatch, eventlet.spawn, eventlet.kill, _call_soon, _call_soon, _is_waited_for, _switch_to_hub)
