"""The credit that the peer has (RFC 9113 section 5.2): the connection's window and those of its streams.

The connection's credit comes back at once: what is held unread is limited by the streams' windows. Were
it to wait for the applications, the bodies of requests whose turn to run has not come could use the
window up, and those that run would wait for them for ever. A stream's credit comes back as its
application reads.

A window that is used up too fast for the round trip grows: a sender on a long path would wait for credit
most of the time. So an application that reads earns its stream a larger window, within what the
connection and the worker have for all of them, until the stream ends and its application has returned.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from . import frames
from .config import ConnectionConfig
from .errors import ConnectionFailure, ErrorCode
from .outbox import Outbox
from .probe import Probe
from .stalls import StallWatch
from .stream import CLOSED, Stream
from .streams import StreamTable
from .windows import ReceiveWindow, WindowBudget

__all__ = ["Inflow"]

_MAX_DISCARDED = 2**30
_RECLAIM_SECONDS = 1.0


class Inflow:
    """The receive windows of one connection; announces credit by the outbox."""

    __slots__ = (
        "deadline",
        "settings_acknowledged",
        "stream_window_size",
        "window",
        "_budget",
        "_configured_size",
        "_grown",
        "_largest_size",
        "_max_size",
        "_outbox",
        "_probe",
        "_reclaim_at",
        "_stalls",
        "_streams",
        "_worker_budget",
    )

    def __init__(
        self, config: ConnectionConfig, outbox: Outbox, streams: StreamTable, probe: Probe, worker_budget: WindowBudget
    ) -> None:
        self.window = ReceiveWindow(config.connection_window_size)
        """The connection's."""
        self.stream_window_size = frames.DEFAULT_WINDOW_SIZE
        """Initial receive window of a stream; the configured size applies after the SETTINGS ACK."""
        self.settings_acknowledged = False
        """Whether the client knows our limits."""
        self.deadline = math.inf
        """When to call `handle_timeout`; infinite for never."""
        self._configured_size = config.initial_window_size
        self._max_size = max(config.connection_window_size, config.max_window_size)
        self._budget = WindowBudget(max(0, config.max_window_size - config.initial_window_size))
        self._worker_budget = worker_budget
        self._grown: dict[Stream, int] = {}
        """The streams whose windows have grown, and by how much."""
        self._largest_size = 0
        """Of a window that has grown."""
        self._reclaim_at = math.inf
        self._stalls = StallWatch(self.window, streams, probe)
        self._outbox = outbox
        self._probe = probe
        self._streams = streams

    def announce(self, stream_id: int, increment: int) -> None:
        """Send a WINDOW_UPDATE; stream 0 is the connection."""
        if increment:
            self._outbox.put(frames.window_update(stream_id, increment))

    def renew_connection(self, now: float) -> None:
        """Give the connection's credit back: it is time to."""
        window = self.window
        growth = window.wanted_growth(now, self._probe.round_trip)
        self._renew(0, window, min(growth, self._max_size - window.size), now)

    def consume_stream(self, stream: Stream, octets: int, now: float) -> None:
        """So much of it was a stream's. Raises ConnectionFailure."""
        window = stream.receive_window
        window.consume(octets)
        if window.edges:
            self.note_edge(window, now)

    def acknowledge(self, stream: Stream, octets: int, now: float) -> None:
        """So much of a stream's data needs no room any more."""
        window = stream.receive_window
        if window.acknowledge(octets):
            self._renew(stream.stream_id, window, self._grow(stream, window, now), now)

    def grant_rest(self, stream: Stream) -> None:
        """Let the peer send the rest of a body that nobody reads."""
        declared = stream.head.content_length
        rest = _MAX_DISCARDED if declared is None else min(declared - stream.received, _MAX_DISCARDED)
        self.announce(0, self.window.grant(rest))
        # The SETTINGS ACK may still move the window, which must not overflow then (section 6.9.2).
        room = frames.LARGEST_WINDOW - max(0, self._configured_size - self.stream_window_size)
        window = stream.receive_window
        self.announce(stream.stream_id, window.grant(min(rest, room - window.available)))

    def receive_settings_ack(self, streams: Iterable[Stream]) -> None:
        """The client applies our settings from here on (section 6.5.3)."""
        if self.settings_acknowledged:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK without SETTINGS")
        self.settings_acknowledged = True
        change = self._configured_size - self.stream_window_size
        self.stream_window_size = self._configured_size
        for stream in streams:
            stream.receive_window.resize(change)

    # Growth

    def _renew(self, stream_id: int, window: ReceiveWindow, growth: int, now: float) -> None:
        self.announce(stream_id, window.renew(growth, now))
        if growth or self._probe.round_trip is None:
            self._probe.measure(now)
        self.note_edge(window, now)

    def _wanted_growth(self, stream: Stream, window: ReceiveWindow, now: float) -> int:
        declared = stream.head.content_length
        if self._stalls.had_stall and declared is not None:
            # Room for the rest: the less often such a client has to wait for credit, the better.
            return declared - stream.received - window.available - window.owed
        if window.renewed_at is None:
            # Where others have needed it, a part of that at once.
            return self._largest_size // len(self._streams.open) - window.size
        return window.wanted_growth(now, self._probe.round_trip)

    def _grow(self, stream: Stream, window: ReceiveWindow, now: float) -> int:
        """Take from the budgets what a stream's window is to grow by."""
        wanted = self._wanted_growth(stream, window, now)
        if wanted <= 0:
            return 0
        self.reclaim_growth()
        # A stream gets half of what is left at a time, so that others find something meanwhile; a connection
        # holds no more of the worker's than is left for all others.
        budget, worker_budget = self._budget, self._worker_budget
        growth = min(wanted, budget.left // 2, (worker_budget.left - budget.taken) // 2)
        if growth <= 0:
            return 0
        budget.take(growth)
        worker_budget.take(growth)
        self._grown[stream] = self._grown.get(stream, 0) + growth
        self._largest_size = max(self._largest_size, window.size + growth)
        self._reclaim_at = min(self._reclaim_at, now + _RECLAIM_SECONDS)
        self.deadline = min(self.deadline, self._reclaim_at)
        return growth

    def reclaim_growth(self) -> None:
        """Give back what streams have grown by that are no more, unless an application may still hold their data."""
        running = self._streams.orphaned_calls
        for stream in [stream for stream in self._grown if stream.state is CLOSED and stream.stream_id not in running]:
            growth = self._grown.pop(stream)
            self._budget.give_back(growth)
            self._worker_budget.give_back(growth)

    # What comes later

    def handle_timeout(self, now: float) -> None:
        """Act where `deadline` has passed."""
        if self._reclaim_at <= now:
            self.reclaim_growth()
            self._reclaim_at = now + _RECLAIM_SECONDS if self._grown else math.inf
        if self._stalls.deadline <= now:
            self._stalls.check(now)
        self.deadline = min(self._reclaim_at, self._stalls.deadline)

    def receive_ping_ack(self, payload: bytes, now: float) -> bool:
        """A PING came back; return whether it was one of the probe's."""
        if not self._probe.receive_ack(payload, now):
            return False
        self._stalls.receive_ack(now)
        self.deadline = min(self.deadline, self._stalls.deadline)
        return True

    def note_edge(self, window: ReceiveWindow, now: float) -> None:
        """Where a window stands at an edge, see to it that its client is not forgotten there."""
        if window.is_at_edge:
            self._stalls.note_edge(window, now)
            self.deadline = min(self.deadline, self._stalls.deadline)
