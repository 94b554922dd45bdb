"""The phases of a connection, the triggers that lead from one to the next, and the deadline of each.

Setup ends with the client's first SETTINGS (RFC 9113 section 3.4). A graceful shutdown (section 6.8) sends two
GOAWAY frames, a PING's round trip apart: the first names stream 2^31-1, the final one the last stream that will
be served. Clients built on the h2 library treat any frame after a GOAWAY as an error, and lose the responses
they wait for. So the first GOAWAY is sent with the end of a response, when no other stream is open, or on a
connection that has been idle; if there is no such moment, `drain_timeout` seconds after the shutdown began.
"""

from __future__ import annotations

import math
from enum import Enum, auto

from . import frames
from .config import ConnectionConfig
from .errors import EndReason, ErrorCode
from .outbox import Outbox
from .streams import StreamTable

__all__ = ["Lifecycle", "Phase", "Trigger"]

_SHUTDOWN_PING = b"shutdown"


class Phase(Enum):
    """The phase of a connection."""

    SETUP = auto()
    """The client's preface or its first SETTINGS frame is still to come."""
    OPEN = auto()
    AWAITING_IDLE = auto()
    """Shutting down: waiting for a moment without open streams to send the first GOAWAY."""
    GOING_AWAY = auto()
    """The first GOAWAY has been sent; streams that crossed it in flight are still accepted."""
    DRAINING = auto()
    """The final GOAWAY has been sent; streams up to the last one it names may finish."""
    CLOSED = auto()


class Trigger(Enum):
    """An event that may lead from one phase to another."""

    SETTINGS = auto()
    """The client's first SETTINGS frame has arrived."""
    SHUTDOWN = auto()
    """The driver has begun a graceful shutdown."""
    IDLE = auto()
    """The last stream has ended."""
    DEADLINE = auto()
    """The phase's deadline has passed."""
    PING_ACK = auto()
    """The ACK of the shutdown's PING has arrived."""


# `ServerConnection` ends connections: those that fail, in any phase (a deadline in SETUP or OPEN is a failure),
# and those that are DRAINING without streams.
_TRANSITIONS: dict[tuple[Phase, Trigger], Phase] = {
    (Phase.SETUP, Trigger.SETTINGS): Phase.OPEN,
    (Phase.OPEN, Trigger.SHUTDOWN): Phase.AWAITING_IDLE,
    (Phase.AWAITING_IDLE, Trigger.IDLE): Phase.GOING_AWAY,
    (Phase.AWAITING_IDLE, Trigger.DEADLINE): Phase.GOING_AWAY,
    (Phase.GOING_AWAY, Trigger.PING_ACK): Phase.DRAINING,
    (Phase.GOING_AWAY, Trigger.DEADLINE): Phase.DRAINING,
}


_GOING_AWAY = (Phase.GOING_AWAY, Phase.DRAINING, Phase.CLOSED)
# Read by every request: CPython 3.11 takes ten times as long to look a member up in its class.
_OPEN, _DRAINING = Phase.OPEN, Phase.DRAINING


class Lifecycle:
    """The phase of one connection, and its deadline in seconds on the driver's clock."""

    __slots__ = (
        "cut_off",
        "deadline",
        "end_reason",
        "had_streams",
        "idle_since",
        "peer_code",
        "peer_going_away",
        "phase",
        "_config",
        "_outbox",
        "_ping_pending",
        "_streams",
    )

    def __init__(self, config: ConnectionConfig, outbox: Outbox, streams: StreamTable, now: float) -> None:
        self.phase = Phase.SETUP
        self.deadline = now + (config.setup_timeout or math.inf)
        """When `Trigger.DEADLINE` is due; infinite: never."""
        self.idle_since: float | None = now
        """Since when no stream has been open; None while one is."""
        self.had_streams = False
        """Whether a stream has ever been opened."""
        self.peer_going_away = False
        """Whether the client has sent GOAWAY, and will open no more streams."""
        self.peer_code = 0
        """The error code of the last one."""
        self.end_reason: EndReason | None = None
        """Why the connection has ended, or is about to, without an error; None: it is not, or the client has left."""
        self.cut_off = 0
        """How many streams the end of the connection has ended."""
        self._config = config
        self._outbox = outbox
        self._streams = streams
        self._ping_pending = False

    @property
    def going_away(self) -> bool:
        """Whether a GOAWAY has been sent."""
        return self.phase in _GOING_AWAY

    @property
    def stream_count(self) -> int:
        """How many streams the client has used, those that were refused or skipped included."""
        return (self._streams.last_stream_id + 1) // 2

    @property
    def ends(self) -> bool:
        """Whether a graceful shutdown has begun, or the connection is over."""
        return self._shutdown_requested if self.phase is Phase.SETUP else self.phase is not _OPEN

    @property
    def _shutdown_requested(self) -> bool:
        """In SETUP: whether a graceful shutdown is to follow it."""
        return self.end_reason is not None

    def move(self, trigger: Trigger, now: float) -> None:
        """Enter the phase that a trigger leads to, if any, and send the frames that begin it."""
        phase = _TRANSITIONS.get((self.phase, trigger))
        if phase is None:
            return
        self.phase = phase
        self.deadline = self._deadline_of(phase, now)
        if phase is Phase.AWAITING_IDLE and self.deadline <= now:
            self.move(Trigger.DEADLINE, now)
        elif phase is Phase.GOING_AWAY:
            self._ping_pending = True
            # The PING goes first: clients built on the h2 library would treat it as an error after the GOAWAY.
            self._outbox.put(frames.ping(_SHUTDOWN_PING))
            self._outbox.put_goaway(frames.LARGEST_STREAM_ID, ErrorCode.NO_ERROR)
        elif phase is Phase.DRAINING:
            self._streams.final_stream_id = self._streams.last_stream_id
            self._outbox.put_goaway(self._streams.last_stream_id, ErrorCode.NO_ERROR)

    def complete_setup(self, now: float) -> None:
        """Leave SETUP, at the client's first SETTINGS frame."""
        # An upgrade may have opened stream 1 already.
        self.idle_since = None if self._streams.open else now
        self.move(Trigger.SETTINGS, now)
        if self._shutdown_requested:
            self.move(Trigger.SHUTDOWN, now)

    def shutdown(self, now: float, reason: EndReason) -> None:
        """Begin a graceful shutdown; of several reasons, the first one counts."""
        self.end_reason = self.end_reason or reason
        if self.phase is Phase.SETUP:
            # A client that stays silent until the deadline has no request to lose.
            self.deadline = min(self.deadline, now + self._config.drain_timeout)
        else:
            self.move(Trigger.SHUTDOWN, now)

    def receive_goaway(self, code: int) -> None:
        """Note that the client will open no more streams."""
        self.peer_going_away = True
        self.peer_code = code
        self.end_reason = self.end_reason or EndReason.GOAWAY

    def receive_ping_ack(self, payload: bytes, now: float) -> None:
        """Handle the ACK of a PING."""
        if self._ping_pending and payload == _SHUTDOWN_PING:
            self._ping_pending = False
            self.move(Trigger.PING_ACK, now)

    def note_busy(self) -> None:
        """Note that a stream was opened."""
        self.idle_since = None
        self.had_streams = True
        if self.phase is _OPEN:
            self.deadline = math.inf

    def note_idle(self, now: float) -> Phase | None:
        """Note that no stream is open; return the phase if that ends the connection, else None."""
        if self.idle_since is None:
            self.idle_since = now
            if self.phase is _OPEN:
                self.deadline = self._idle_deadline()
            else:
                self.move(Trigger.IDLE, now)
        if self.phase is _OPEN:
            ends = self.peer_going_away or (self.had_streams and not self._config.idle_timeout)
            return _OPEN if ends else None
        return _DRAINING if self.phase is _DRAINING else None

    def close(self) -> None:
        """Enter CLOSED; the streams that are open end."""
        self.cut_off = len(self._streams.open)
        self.phase = Phase.CLOSED
        self.deadline = math.inf

    def _deadline_of(self, phase: Phase, now: float) -> float:
        config = self._config
        if phase is Phase.OPEN:
            return self._idle_deadline()
        if phase is Phase.AWAITING_IDLE:
            return (now if self.idle_since is None else self.idle_since) + config.drain_timeout
        return now + config.drain_timeout if phase is Phase.GOING_AWAY else math.inf

    def _idle_deadline(self) -> float:
        if self.idle_since is None:
            return math.inf
        timeout = self._config.idle_timeout
        if not timeout and not self.had_streams:
            timeout = self._config.setup_timeout or math.inf
        return self.idle_since + timeout
