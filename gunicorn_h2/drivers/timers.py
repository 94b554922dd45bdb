"""Deadlines of many connections, in a heap."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Timed", "Timers"]

_MIN_CANCELLED_TIMERS = 64


class Timed(Protocol):
    """What has a deadline."""

    timer: list[Any] | None
    """Its entry in the heap."""


_TimedT = TypeVar("_TimedT", bound=Timed)


class Timers(Generic[_TimedT]):
    """What is due by deadline, at most one entry each.

    A cancelled entry stays in the heap, empty, until half of the heap is such entries.
    """

    def __init__(self) -> None:
        self._heap: list[list[Any]] = []
        """Lists of a deadline, a number that no other entry has, and what is due or None."""
        self._tie_breaker = count()
        self._cancelled = 0

    def set(self, timed: _TimedT, deadline: float) -> None:
        """Have `timed` be due at `deadline`, instead of whenever it was."""
        self.cancel(timed)
        timed.timer = [deadline, next(self._tie_breaker), timed]
        heapq.heappush(self._heap, timed.timer)

    def cancel(self, timed: _TimedT) -> None:
        """Forget the deadline of `timed`, if it has one."""
        if timed.timer is None:
            return
        timed.timer[2] = None
        timed.timer = None
        self._cancelled += 1
        if self._cancelled >= _MIN_CANCELLED_TIMERS and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float:
        """Return the earliest deadline, which may be a cancelled one, or infinity."""
        return self._heap[0][0] if self._heap else math.inf

    def expired(self, now: float) -> list[_TimedT]:
        """Remove and return what is due."""
        due: list[_TimedT] = []
        while self._heap and self._heap[0][0] <= now:
            timed = heapq.heappop(self._heap)[2]
            if timed is None:
                self._cancelled -= 1
            else:
                timed.timer = None
                due.append(timed)
        return due
