"""Clients that do not notice that they have credit (RFC 9113 section 5.2).

In httpcore, below httpx, each task that waits for credit waits for its turn to read, and then until
something comes, although another task may have read its WINDOW_UPDATE by then. Whatever comes passes the
turn on; where the server has nothing more to say, both sides wait for each other.

Such a body stands exactly where its credit ended once, and has more. If it still does when the client
could have made use of that, PINGs give the client something to read, one after another, until every task
has had its turn.
"""

from __future__ import annotations

import math

from .probe import MAX_UNANSWERED, Probe
from .stream import Stream
from .streams import StreamTable
from .windows import ReceiveWindow

__all__ = ["StallWatch"]

# What a client that notices its credit may take to make use of it, beside two round trips.
_PATIENCE = 0.01
_INTERVAL = 0.002
_GIVEN_UP_SECONDS = 1.0
# A task may have more than one turn before another has its first, and tasks may wait whose stream has just ended.
_READS_PER_STREAM = 2
_SPARE_READS = 2


class StallWatch:
    """Looks after the bodies of one connection."""

    __slots__ = (
        "deadline",
        "had_stall",
        "_answered_at",
        "_moved_at",
        "_position",
        "_probe",
        "_reads",
        "_streams",
        "_was_exhausted",
        "_window",
    )

    def __init__(self, window: ReceiveWindow, streams: StreamTable, probe: Probe) -> None:
        """`window` is the connection's."""
        self.deadline = math.inf
        """When to call `check`; infinite for never."""
        self.had_stall = False
        """Whether there has been a stall."""
        self._position = 0
        """Where the connection's window stood when it was looked at last."""
        self._moved_at = 0.0
        """When it was found to have moved."""
        self._reads = 0
        """How many turns to read the client has had since then."""
        self._answered_at = 0.0
        self._was_exhausted = False
        """Whether the connection's window has stopped bodies that may still not go on."""
        self._window = window
        self._streams = streams
        self._probe = probe

    def note_edge(self, window: ReceiveWindow, now: float) -> None:
        """A window stands where credit ended once."""
        if window is self._window:
            self._was_exhausted = True
        if self._probe.round_trip is not None:
            self.deadline = min(self.deadline, now + _PATIENCE + 2 * self._probe.round_trip)

    def receive_ack(self, now: float) -> None:
        """A PING came back: the round trip is known, or it may be time for the next one."""
        # What comes back together was read together, and was one turn.
        if now != self._answered_at:
            self._answered_at = now
            self._reads += 1
        if self._probe.unanswered in (0, MAX_UNANSWERED - 1):
            self.check(now)

    def check(self, now: float) -> None:
        """Send a PING where a body has stood still for too long; look again later where one may."""
        if self._position != self._window.position:
            self._position = self._window.position
            self._moved_at = now
            self._reads = 0
        due = min(map(self._due, self._streams.open.values()), default=math.inf)
        if due == math.inf:
            self._was_exhausted = False
        elif due <= now:
            due = now + self._wake()
        self.deadline = due

    def _due(self, stream: Stream) -> float:
        """When a stream's client should have made use of its credit; infinite where it may take its time."""
        round_trip = self._probe.round_trip
        if round_trip is None or not stream.has_reader or stream.request_ended:
            return math.inf
        window = stream.receive_window
        is_at_edge = window.is_at_edge
        if window.available <= 0 or not (is_at_edge or self._was_exhausted):
            return math.inf
        renewed_at = window.renewed_at if is_at_edge else self._window.renewed_at
        assert renewed_at is not None
        due = renewed_at + _PATIENCE + 2 * round_trip
        if is_at_edge and self.had_stall:
            return due
        # On a slow path, a body also waits for others to have their turn. Then there is no silence.
        return max(due, self._moved_at + _PATIENCE + round_trip / 2)

    def _wake(self) -> float:
        """Send a PING, unless nobody seems to listen; return the seconds after which to look again."""
        self.had_stall = True
        if self._reads >= len(self._streams.open) * _READS_PER_STREAM + _SPARE_READS:
            return _GIVEN_UP_SECONDS
        return _INTERVAL if self._probe.wake() else _GIVEN_UP_SECONDS
