"""Detection of uploads that stall although the client has credit (RFC 9113 section 5.2).

In httpcore, which httpx uses, a task without credit takes its turn to read the socket and waits for a frame,
even if another task has already read its WINDOW_UPDATE. Any frame lets the next task read. If the server has
nothing more to send, client and server wait for each other.

Such an upload has stopped exactly at an earlier right edge of its window, and has been granted more since. If
it is still there when the client should have used that credit, the server sends PINGs, one after another,
until every task of the client has read.
"""

from __future__ import annotations

import math

from .probe import MAX_UNANSWERED, Probe
from .stream import Stream
from .streams import StreamTable
from .windows import ReceiveWindow

__all__ = ["StallWatch"]

# Seconds that a client may take to use new credit, in addition to two round trips.
_PATIENCE = 0.01
_INTERVAL = 0.002
_GIVEN_UP_SECONDS = 1.0
# A task may read twice before another reads once, and tasks of streams that have just ended may read as well.
_READS_PER_STREAM = 2
_SPARE_READS = 2


class StallWatch:
    """Watches the uploads of one connection, and sends PINGs if they stall."""

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
        """When to call `check`; infinite: never."""
        self.had_stall = False
        """Whether this client has ever stalled."""
        self._position = 0
        """The position of the connection's window at the last check."""
        self._moved_at = 0.0
        """When a check last found that it had changed."""
        self._reads = 0
        """How many reads the client is known to have made since then."""
        self._answered_at = 0.0
        self._was_exhausted = False
        """Whether the connection's window ran out, and uploads may still be stopped because of it."""
        self._window = window
        self._streams = streams
        self._probe = probe

    def note_edge(self, window: ReceiveWindow, now: float) -> None:
        """Note that the peer stands at an earlier right edge of `window`, and schedule a check."""
        if window is self._window:
            self._was_exhausted = True
        if self._probe.round_trip is not None:
            self.deadline = min(self.deadline, now + _PATIENCE + 2 * self._probe.round_trip)

    def receive_ack(self, now: float) -> None:
        """Note the ACK of one of our PINGs, and check if it is time for the next one."""
        # ACKs that arrive together answer PINGs that were read together.
        if now != self._answered_at:
            self._answered_at = now
            self._reads += 1
        if self._probe.unanswered in (0, MAX_UNANSWERED - 1):
            self.check(now)

    def check(self, now: float) -> None:
        """Send a PING if an upload has stalled, and set the deadline of the next check."""
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
        """When the client should have used the stream's credit; infinite if the stream cannot have stalled."""
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
        # On a slow path an upload also waits for others of the client; the connection is not silent then.
        return max(due, self._moved_at + _PATIENCE + round_trip / 2)

    def _wake(self) -> float:
        """Send a PING, unless the client has read often enough; return the seconds until the next check."""
        self.had_stall = True
        if self._reads >= len(self._streams.open) * _READS_PER_STREAM + _SPARE_READS:
            return _GIVEN_UP_SECONDS
        return _INTERVAL if self._probe.wake() else _GIVEN_UP_SECONDS
