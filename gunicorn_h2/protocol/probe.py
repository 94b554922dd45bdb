"""PINGs of ours (RFC 9113 section 6.7): how long a round trip takes.

They are sent while bodies come in, one at a time, and never behind a GOAWAY: clients built on the h2
library take any frame there for an error.
"""

from __future__ import annotations

from . import frames
from .guard import Guard
from .lifecycle import Lifecycle
from .outbox import Outbox

__all__ = ["Probe"]

_PAYLOAD = b"dataflow"


class Probe:
    """The PING that is out, and what the ones before it have told."""

    __slots__ = ("pending", "round_trip", "_guard", "_lifecycle", "_outbox", "_sent_at")

    def __init__(self, outbox: Outbox, guard: Guard, lifecycle: Lifecycle) -> None:
        self.pending = False
        """Whether a PING has not come back yet."""
        self.round_trip: float | None = None
        """The shortest one seen, in seconds; None before the first."""
        self._sent_at = 0.0
        self._outbox = outbox
        self._guard = guard
        self._lifecycle = lifecycle

    def send(self, now: float) -> None:
        """Send a PING where one may be sent."""
        if self.pending or self._lifecycle.going_away:
            return
        self.pending = True
        self._sent_at = now
        self._outbox.put(frames.ping(_PAYLOAD))
        # The answer is none of the peer's own doing.
        self._guard.expected_frames += 1

    def receive_ack(self, payload: bytes, now: float) -> bool:
        """A PING came back; return whether it was this one."""
        if not self.pending or payload != _PAYLOAD:
            return False
        self.pending = False
        # Clients are late with their answers rather than early, and paths seldom get longer.
        round_trip = now - self._sent_at
        if self.round_trip is None or round_trip < self.round_trip:
            self.round_trip = round_trip
        return True
