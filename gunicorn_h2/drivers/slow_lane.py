"""Turns of what takes long, in a share of the owner's time: handshakes, closings, connections that cost too much.

A TLS handshake takes a millisecond, and some of what a client can send takes longer than that. If a hundred of them
are ready at once, all other connections wait for them; likewise if thousands of clients leave at once. So what takes
long waits in a queue of its own. When nothing else is ready, the owner serves from the queue for `_SLICE` seconds, and
at least one. While other connections are ready, or requests wait to be run, the queue has only a share of the time:
`_SHARE` seconds, and then a `_PAUSE`. While only new connections are served, nobody is kept waiting: longer rounds
then save changes of threads. While many new connections wait, more stay in the backlog of the listening socket.

A connection that has had a long turn stays in the queue for a while, because not each turn of those that cost much is
long: some only write what an application has answered. So does a connection that is opened in a crowd: clients that
connect together send their first requests together.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["LONG_TURN", "RECENT", "Paced", "SlowLane"]

_SLICE = 0.004
"""Seconds: the longest that others wait for this queue, but for its last turn."""
_SHARE, _PAUSE = 0.001, 0.003
"""Seconds that the queue has while others wait as well, and that they have then."""
_LONG_SLICE = 0.1
_LONG_QUEUE = 64
RECENT = 2.0
"""Seconds: rounds are short for so long after a connection was served that is older than this."""
LONG_TURN = 0.001
"""Seconds: a connection whose turn takes longer has its next one here, and reads no more in this one."""
_STAY = 0.1
"""Seconds after the last long turn for which it stays."""
_CROWD = 200
"""Connections: once so many have been opened within `RECENT`, each further one has its turns here for as long."""


class Paced:
    """The base of what takes turns: whether it does so in the slow lane, as each handshake does."""

    __slots__ = ("is_new", "since", "slow", "_slow_until")

    def __init__(self) -> None:
        self.since = time.monotonic()
        """When it was accepted."""
        self.is_new = True
        """Whether it negotiates, or its first turn as an HTTP/2 connection is to come in the lane."""
        self.slow = True
        """Whether its next turn is in the slow lane, and during one there.

        The owner sets it after a turn that has taken long elsewhere.
        """
        self._slow_until = 0.0

    def enter_lane(self) -> bool:
        """Have the next turns in the lane; return whether this one is there."""
        was_slow, self.slow = self.slow, True
        return was_slow

    def stay(self, until: float) -> None:
        """Have all turns until then in the lane."""
        self._slow_until = until

    def note_slow_turn(self, seconds: float, now: float) -> None:
        """Note how much of the processor's time a turn in the slow lane has taken in which something was read.

        Not the time that has passed: the thread may have waited for the interpreter, and the process for the system.
        """
        self.is_new = False
        if seconds > LONG_TURN:
            self._slow_until = max(self._slow_until, now + _STAY)
        else:
            self.slow = now < self._slow_until


_T = TypeVar("_T", bound=Paced)


class SlowLane(Generic[_T]):
    """A queue of what waits for a turn; one for each worker, used by the thread that owns its connections."""

    def __init__(self, take_turn: Callable[[_T], object], clock: Callable[[], float] = time.monotonic) -> None:
        """`take_turn(item)` is called for each item in its turn, and must not raise."""
        self._take_turn = take_turn
        self._clock = clock
        self.queue: deque[_T] = deque()
        """What waits for a turn, each item once."""
        self.served_at = -math.inf
        """When the owner has last served a connection elsewhere that is older than `RECENT`."""
        self.due = -math.inf
        """When the next round is due, whether or not others wait."""
        self._looked_at = -math.inf
        """The time of the last `run`, whether or not it has taken turns."""
        self._opened: deque[float] = deque(maxlen=_CROWD)
        """When the last connections were opened."""

    @property
    def is_long(self) -> bool:
        """Whether so many new ones wait that no more connections should be accepted.

        Others do not count: however much they ask for, newcomers have their turns among them.
        """
        queue = self.queue
        return len(queue) >= _LONG_QUEUE and sum([item.is_new for item in queue]) >= _LONG_QUEUE

    def leave(self, connection: Paced) -> None:
        """Have a connection whose negotiation is over take its turns elsewhere, unless it is one of a crowd."""
        now, opened = self._clock(), self._opened
        opened.append(now)
        if len(opened) == _CROWD and now - opened[0] < RECENT:
            connection.stay(now + RECENT)
        else:
            connection.slow = connection.is_new = False

    def run(self, requests_wait: bool = False) -> None:
        """Take turns until the queue is empty or the round's time is used up; none if others come first.

        Others are connections that were served since the last time, and requests that wait to be run.
        """
        queue, now = self.queue, self._clock()
        others_wait = requests_wait or self.served_at > self._looked_at
        self._looked_at = now
        if now - self.served_at >= RECENT:
            until = now + _LONG_SLICE
        elif not others_wait:
            until = now + _SLICE
        elif now < self.due:
            return
        else:
            until = now + _SHARE
        turns = len(queue)
        # In a turn that waits for a log, another greenlet may empty the queue.
        while turns and queue:
            turns -= 1
            self._take_turn(queue.popleft())
            now = self._clock()
            if now >= until:
                break
        self.due = now + _PAUSE
