"""The thread that ends calls at their deadlines, and runs the callbacks of calls that ended early."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from gunicorn_h2.drivers.timers import Timers

from .call import log

__all__ = ["DeadlineThread", "Expiring"]


class Expiring(Protocol):
    """What ends at a deadline."""

    timer: list[Any] | None
    """Its entry in the heap; see `Timed`."""

    def expire(self) -> None:
        """Called at the deadline, which must not wait."""


class DeadlineThread:
    """One daemon thread, a greenlet where Gunicorn has patched threads. Any thread may call any method."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._timers: Timers[Expiring] = Timers()
        self._calls: list[Callable[[], object]] = []
        self._started = False
        self._wakes_at = -math.inf

    def start(self) -> None:
        """Start the thread, before the first call is served: so it runs in the worker, not in Gunicorn's master.

        Where an aborted stream is announced there is no time to start one. Idempotent.
        """
        if self._started:
            return
        with self._changed:
            if self._started:
                return
            self._started = True
        # A greenlet waits here, and must not hold the lock meanwhile.
        threading.Thread(target=self._work, name="gunicorn_h2-grpc", daemon=True).start()

    def set(self, expiring: Expiring, deadline: float) -> None:
        """Have `expiring.expire()` called at `deadline`, on the monotonic clock."""
        with self._changed:
            self._timers.set(expiring, deadline)
            if deadline < self._wakes_at:
                self._changed.notify()

    def cancel(self, expiring: Expiring) -> None:
        """Forget the deadline."""
        with self._changed:
            self._timers.cancel(expiring)

    def run(self, call: Callable[[], object]) -> None:
        """Have the thread call `call()` soon; exceptions are logged."""
        with self._changed:
            self._calls.append(call)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            for call in self._due():
                try:
                    call()
                except Exception:  # Callbacks are application code.
                    log.exception("Exception in a callback of a call")
                del call

    def _due(self) -> list[Callable[[], object]]:
        """Wait until there is something to do, and take it."""
        with self._changed:
            while True:
                now = time.monotonic()
                due: list[Callable[[], object]] = [expiring.expire for expiring in self._timers.expired(now)]
                due += self._calls
                self._calls.clear()
                if due:
                    self._wakes_at = -math.inf
                    return due
                self._wakes_at = self._timers.next()
                self._changed.wait(min(self._wakes_at - now, threading.TIMEOUT_MAX))
