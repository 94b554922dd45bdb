"""How many requests may begin before the sockets get their turn, where one thread does everything.

A quick request is served before any other call runs. So of a thousand that have come at once most are held back: a few
begin, then the sockets are looked at, and requests that have come meanwhile have their turn with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from .request_queue import Request, RequestQueue

__all__ = ["FEW_REQUESTS", "RequestGate"]

FEW_REQUESTS = 128
"""Requests that may wait in the order in which they came: about a millisecond's work."""
_AT_A_TIME = 32

_T = TypeVar("_T")


class RequestGate(Generic[_T]):
    """Holds requests back, each with an item, until it is their turn; see `RequestQueue`."""

    def __init__(self, begin: Callable[[_T], object], call_after_poll: Callable[[Callable[[], None]], object]) -> None:
        """`begin(item)` has a request begin; `call_after_poll(call)` calls when the sockets have been looked at."""
        self.waiting = 0
        """How many are held back."""
        self._begin = begin
        self._call_after_poll = call_after_poll
        self._queue: RequestQueue[_T] = RequestQueue()

    def hold(self, request: Request, item: _T) -> None:
        """Hold a request back."""
        self._queue.put([(request, item)])
        self.waiting += 1
        if self.waiting == 1:
            self._call_after_poll(self._open)

    def hold_again(self, requests: Sequence[tuple[Request, _T]]) -> None:
        """Hold requests back, with their items, that come before all others; they keep their turns."""
        if requests and not self.waiting:
            self._call_after_poll(self._open)
        self._queue.put_back(requests)
        self.waiting += len(requests)

    def _open(self) -> None:
        count = min(self.waiting, _AT_A_TIME)
        for _ in range(count):
            self._begin(self._queue.take())
        self.waiting -= count
        if self.waiting:
            self._call_after_poll(self._open)
