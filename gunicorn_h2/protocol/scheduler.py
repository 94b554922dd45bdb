"""Which stream sends the next frame (RFC 9218 section 10).

The most urgent streams come first. Of those that are equally urgent, incremental ones share by octets; the others are
served one after another, in the order of their requests. Both kinds share as if the others were one incremental stream.
One frame in `_RELIEF` goes to less urgent streams, so that no endless response stops them.

Where a client states no priorities at all, its streams share by the weights of RFC 7540 section 5.3.2.

As long as one stream waits alone, as most do, none of this is looked at.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import islice

from .priority import UNSTATED, Priority
from .stream import DEFAULT_WEIGHT, Stream

__all__ = ["Scheduler"]

_RELIEF = 32


class _Level:
    """The streams of one urgency. A tag is what a stream has sent beside others, in octets by weight."""

    __slots__ = ("in_order", "shared", "_latest", "_order_tag")

    def __init__(self) -> None:
        self.shared: list[tuple[float, int, Stream]] = []
        """Streams that share, with their tags and identifiers; a heap."""
        self.in_order: list[tuple[int, Stream]] = []
        """Streams that are served one after another; a heap."""
        self._latest = self._order_tag = 0.0
        """The tag of the latest turn, behind which no stream that joins may be; and that of those in order."""

    def __bool__(self) -> bool:
        return bool(self.shared or self.in_order)

    def add(self, stream: Stream, shares: bool) -> None:
        if shares:
            stream.turn_tag = max(stream.turn_tag, self._latest)
            heappush(self.shared, (stream.turn_tag, stream.stream_id, stream))
        else:
            if not self.in_order:
                self._order_tag = max(self._order_tag, self._latest)
            heappush(self.in_order, (stream.stream_id, stream))

    def take(self) -> Stream:
        if self.in_order and (not self.shared or self._order_tag <= self.shared[0][0]):
            self._latest = self._order_tag
            return heappop(self.in_order)[1]
        self._latest, _, stream = heappop(self.shared)
        return stream

    def charge(self, stream: Stream, octets: int, shares: bool) -> None:
        if shares:
            stream.turn_tag += octets / stream.weight
        else:
            self._order_tag += octets / DEFAULT_WEIGHT

    def clear(self) -> None:
        self.shared.clear()
        self.in_order.clear()


class Scheduler:
    """The streams that are ready to send."""

    __slots__ = ("changes", "states_priorities", "turns", "_levels", "_number", "_sorted")

    def __init__(self) -> None:
        self.turns: dict[Stream, None] = {}
        """The streams that wait for a turn; the responses of some may have ended meanwhile."""
        self.states_priorities = False
        """Whether the client states priorities of RFC 9218, so that a request without one has the default."""
        self.changes = 0
        """How often a stream has been given another priority."""
        self._levels: dict[int, _Level] = {}
        """By urgency."""
        self._sorted = 0
        """How many streams are in levels: the first so many of `turns`."""
        self._number = 0
        """The number of frames so far that others have waited for."""

    def add(self, stream: Stream) -> None:
        """Have the stream wait for a turn, if it does not yet."""
        self.turns[stream] = None

    def next(self) -> Stream | None:
        """Take the stream whose turn it is; None if no stream waits."""
        turns = self.turns
        while turns:
            if len(turns) == 1:
                stream = turns.popitem()[0]
                if self._sorted:
                    self._forget_order()
            else:
                stream = self._choose()
                self._sorted -= 1
                del turns[stream]
            if not stream.response_ended:
                return stream
        return None

    def charge(self, stream: Stream, octets: int) -> None:
        """Note what a stream has sent in its turn, which `next` has chosen among others.

        A turn that no window let it use is not charged, and counts for nothing.
        """
        self._number += 1
        self._levels[stream.current_priority.urgency].charge(stream, octets, self._shares(stream))

    def reprioritize(self, stream: Stream, priority: Priority) -> None:
        """Give a stream another priority, from its next turn on; looks at all streams that wait."""
        stream.priority = priority
        self.changes += 1
        self.states_priorities = True
        self._forget_order()

    def take_all(self) -> list[Stream]:
        """Take all streams that wait, without those whose response has ended."""
        streams = [stream for stream in self.turns if not stream.response_ended]
        self.turns.clear()
        self._forget_order()
        return streams

    def _forget_order(self) -> None:
        self._sorted = 0
        for level in self._levels.values():
            level.clear()

    def _choose(self) -> Stream:
        levels = self._levels
        new = list(islice(reversed(self.turns), len(self.turns) - self._sorted))
        for stream in reversed(new):
            urgency = stream.current_priority.urgency
            if urgency not in levels:
                levels[urgency] = _Level()
            levels[urgency].add(stream, self._shares(stream))
        self._sorted = len(self.turns)
        waiting = sorted(urgency for urgency, level in levels.items() if level)
        turn, is_late = divmod(self._number + 1, _RELIEF)
        if is_late or len(waiting) == 1:
            return levels[waiting[0]].take()
        return levels[waiting[1 + turn % (len(waiting) - 1)]].take()

    def _shares(self, stream: Stream) -> bool:
        priority = stream.current_priority
        if priority is UNSTATED:
            return not self.states_priorities
        self.states_priorities = True
        return priority.incremental
