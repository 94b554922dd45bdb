"""How a thread of an application waits for its client, while another one takes its place among those that work."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["ThreadCount", "wait"]

_MOMENT = 0.001
"""Seconds that a thread waits before it has another one take its place."""


class ThreadCount(Protocol):
    """Counts the threads at work; see `RequestPool`."""

    @property
    def is_short(self) -> bool:
        """Whether requests wait for a thread."""

    def begin_wait(self) -> bool:
        """Note that the calling thread waits for a client; return False if it is to `stand_aside` when that lasts."""

    def stand_aside(self) -> None:
        """Do not count the calling thread: there is no other that is idle."""

    def end_wait(self) -> None:
        """Count it again; the end of each `begin_wait`."""


def wait(
    threads: ThreadCount | None,
    waiter: threading.Event,
    ready: Callable[[], bool],
    timeout: float | None,
    moment: float = 0.0,
) -> bool:
    """Wait until `ready()`, which `waiter` announces; return False if `timeout` seconds pass first.

    Another thread takes the place of this one, but only after a `moment`, in seconds, and a millisecond more.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    if threads is None:
        return _wait_until(waiter, ready, deadline)
    if moment:
        until = min(deadline, time.monotonic() + moment)
        if _wait_until(waiter, ready, until) or until == deadline:
            return ready()
    try:
        if not threads.begin_wait():
            # Most waits end within a moment, for which it is not worth having another thread.
            if _wait_until(waiter, ready, time.monotonic() + _MOMENT):
                return True
            threads.stand_aside()
        return _wait_until(waiter, ready, deadline)
    finally:
        threads.end_wait()


def _wait_until(waiter: threading.Event, ready: Callable[[], bool], deadline: float) -> bool:
    while not ready():
        if not waiter.wait(None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)):
            return ready()
        waiter.clear()
    return True
