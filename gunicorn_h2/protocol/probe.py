"""The server's PINGs (RFC 9113 section 6.7), except that of a shutdown.

One measures the round trip of uploads; others wake clients that have not noticed their credit (see `stalls`), or ask
those that have been silent for a sign of life (see `keepalive`). The first two are not sent after a GOAWAY, where
clients built on the h2 library treat any frame as an error. The last one is: they could not take a response either.
"""

from __future__ import annotations

from . import frames
from .guard import Guard
from .lifecycle import Lifecycle
from .outbox import Outbox

__all__ = ["MAX_UNANSWERED", "Probe"]

_MEASURE = b"distance"
_WAKE = b"go ahead"
_ALIVE = b"alive?  "
# The most wake-up PINGs in flight on a long path; a client would read more of them together.
MAX_UNANSWERED = 8


class Probe:
    """The PINGs in flight, and the round trip."""

    __slots__ = ("round_trip", "unanswered", "_guard", "_lifecycle", "_measured_since", "_outbox")

    def __init__(self, outbox: Outbox, guard: Guard, lifecycle: Lifecycle) -> None:
        self.round_trip: float | None = None
        """The shortest one measured, in seconds; None before the first."""
        self.unanswered = 0
        """The number of PINGs from `wake` without an ACK."""
        self._measured_since: float | None = None
        self._outbox = outbox
        self._guard = guard
        self._lifecycle = lifecycle

    def measure(self, now: float) -> None:
        """Send a PING to measure the round trip, unless one is in flight."""
        if self._measured_since is None and self._send(_MEASURE):
            self._measured_since = now

    def wake(self) -> bool:
        """Send a PING for the client to read; return whether another may follow before an ACK."""
        if self.unanswered < MAX_UNANSWERED and self._send(_WAKE):
            self.unanswered += 1
            return self.unanswered < MAX_UNANSWERED
        return False

    def receive_ack(self, payload: bytes, now: float) -> bool:
        """Handle the ACK of a PING; return whether the PING was one of these."""
        if payload == _MEASURE and self._measured_since is not None:
            round_trip = now - self._measured_since
            self._measured_since = None
            # An ACK may be late but never early, and paths seldom get longer.
            if self.round_trip is None or round_trip < self.round_trip:
                self.round_trip = round_trip
            return True
        if payload == _WAKE and self.unanswered:
            self.unanswered -= 1
            return True
        return False

    def ask(self) -> None:
        """Send a PING for a sign of life; any frame is one, so `receive_ack` does not know the ACK."""
        self._put(_ALIVE)

    def _send(self, payload: bytes) -> bool:
        if self._lifecycle.going_away:
            return False
        self._put(payload)
        return True

    def _put(self, payload: bytes) -> None:
        self._outbox.put(frames.ping(payload))
        # We provoke the ACK, so it must not count against the peer.
        self._guard.expected_frames += 1
