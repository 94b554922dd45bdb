"""Turns of what takes long, in a share of the owner's time: handshakes, and connections that cost too much.

A TLS handshake takes a millisecond, and some of what a client can send takes longer than that. If a hundred of them
are ready at once, all other connections wait for them. So what takes long waits in a queue of its own. In each round
the owner serves all others, and then from the queue for `_SLICE` seconds, and at least one. While only new connections
are served, nobody is kept waiting: longer rounds then save changes of threads. While the queue is long, new connections
stay in the backlog of the listening socket.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LONG_TURN", "RECENT", "SlowLane"]

_SLICE = 0.004
"""Seconds: the longest that others wait for this queue, but for its last turn."""
_LONG_SLICE = 0.1
_LONG_QUEUE = 64
RECENT = 2.0
"""Seconds: rounds are short for so long after a connection was served that is older than this."""
LONG_TURN = 0.001
"""Seconds: a connection whose turn takes longer has its next one here."""

_T = TypeVar("_T")


class SlowLane(Generic[_T]):
    """A queue of what waits for a turn; one for each worker, used by the thread that owns its connections."""

    def __init__(self, take_turn: Callable[[_T], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`take_turn(item)` is called for each item in its turn, and must not raise."""
        self._take_turn = take_turn
        self._clock = clock
        self.queue: deque[_T] = deque()
        """What waits for a turn, each item once."""
        self.served_at = -math.inf
        """When the owner has last served a connection that is older than `RECENT`."""

    @property
    def is_long(self) -> bool:
        """Whether so many wait that no more connections should be accepted."""
        return len(self.queue) >= _LONG_QUEUE

    def run(self) -> None:
        """Take turns until the queue is empty or the round's time is used up."""
        queue, now = self.queue, self._clock()
        until = now + (_SLICE if now - self.served_at < RECENT else _LONG_SLICE)
        turns = len(queue)
        # In a turn that waits for a log, another greenlet may empty the queue.
        while turns and queue:
            turns -= 1
            self._take_turn(queue.popleft())
            if self._clock() >= until:
                return
