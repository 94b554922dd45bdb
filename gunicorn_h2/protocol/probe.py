"""PINGs of ours (RFC 9113 section 6.7), sent while bodies come in.

One measures the round trip; others wake clients up that do not notice their credit (see `stalls`). None
follows a GOAWAY: clients built on the h2 library take any frame there for an error.
"""

from __future__ import annotations

from . import frames
from .guard import Guard
from .lifecycle import Lifecycle
from .outbox import Outbox

__all__ = ["MAX_UNANSWERED", "Probe"]

_MEASURE = b"distance"
_WAKE = b"go ahead"
# On a long path, as many as may be on their way at a time; more would only be read together.
MAX_UNANSWERED = 8


class Probe:
    """The PINGs that are out, and the round trip."""

    __slots__ = ("round_trip", "unanswered", "_guard", "_lifecycle", "_measured_since", "_outbox")

    def __init__(self, outbox: Outbox, guard: Guard, lifecycle: Lifecycle) -> None:
        self.round_trip: float | None = None
        """The shortest one seen, in seconds; None before the first."""
        self.unanswered = 0
        """How many PINGs of `wake` have not come back."""
        self._measured_since: float | None = None
        self._outbox = outbox
        self._guard = guard
        self._lifecycle = lifecycle

    def measure(self, now: float) -> None:
        """Measure the round trip, unless that is under way."""
        if self._measured_since is None and self._send(_MEASURE):
            self._measured_since = now

    def wake(self) -> bool:
        """Give the client something to read; return whether more of it may follow before an answer comes."""
        if self.unanswered < MAX_UNANSWERED and self._send(_WAKE):
            self.unanswered += 1
            return self.unanswered < MAX_UNANSWERED
        return False

    def receive_ack(self, payload: bytes, now: float) -> bool:
        """A PING came back; return whether it was one of these."""
        if payload == _MEASURE and self._measured_since is not None:
            round_trip = now - self._measured_since
            self._measured_since = None
            # Clients are late with their answers rather than early, and paths seldom get longer.
            if self.round_trip is None or round_trip < self.round_trip:
                self.round_trip = round_trip
            return True
        if payload == _WAKE and self.unanswered:
            self.unanswered -= 1
            return True
        return False

    def _send(self, payload: bytes) -> bool:
        if self._lifecycle.going_away:
            return False
        self._outbox.put(frames.ping(payload))
        # The answer is none of the peer's own doing.
        self._guard.expected_frames += 1
        return True
