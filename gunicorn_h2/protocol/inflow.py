"""Inbound flow control (RFC 9113 section 5.2): the receive windows of a connection and its streams.

The connection's credit is returned when data arrives; the stream windows limit what is buffered unread. If it
were returned when applications read, the bodies of requests that have not started could use up the window,
and those that are running would wait for it forever. A stream's credit is returned as its application reads.

A window that is used up too fast for the round trip grows; otherwise a sender on a long path would wait for
credit most of the time. So an application that reads earns its stream a larger window, within the budgets of
the connection and the worker, until the stream is closed and its application call has returned.
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
from .stream import CLOSED, OPEN, Stream
from .streams import StreamTable
from .windows import ReceiveWindow, WindowBudget

__all__ = ["Inflow"]

_MAX_DISCARDED = 2**30
_RECLAIM_SECONDS = 1.0


class Inflow:
    """The receive windows of one connection; sends WINDOW_UPDATE frames by the outbox."""

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
        """The connection's receive window."""
        self.stream_window_size = frames.DEFAULT_WINDOW_SIZE
        """Initial receive window of a stream; the configured size applies after the SETTINGS ACK."""
        self.settings_acknowledged = False
        """Whether the client has acknowledged our SETTINGS."""
        self.deadline = math.inf
        """When to call `handle_timeout`; infinite: never."""
        self._configured_size = config.initial_window_size
        self._max_size = max(config.connection_window_size, config.max_window_size)
        self._budget = WindowBudget(max(0, config.max_window_size - config.initial_window_size))
        self._worker_budget = worker_budget
        self._grown: dict[Stream, int] = {}
        """Streams whose windows have grown, with the growth in octets."""
        self._largest_size = 0
        """The largest size to which a stream window has grown."""
        self._reclaim_at = math.inf
        self._stalls = StallWatch(self.window, streams, probe)
        self._outbox = outbox
        self._probe = probe
        self._streams = streams

    def announce(self, stream_id: int, increment: int) -> None:
        """Send a WINDOW_UPDATE, unless the increment is 0; stream 0 is the connection."""
        if increment:
            self._outbox.put(frames.window_update(stream_id, increment))

    def renew_connection(self, now: float) -> None:
        """Return the connection's credit, and let its window grow if the round trip wants it."""
        window = self.window
        growth = window.wanted_growth(now, self._probe.round_trip)
        self._renew(0, window, min(growth, self._max_size - window.size), now)

    def consume_stream(self, stream: Stream, octets: int, now: float) -> None:
        """Count octets of DATA against their stream's window. Raises ConnectionFailure."""
        window = stream.receive_window
        window.consume(octets)
        if window.edges:
            self.note_edge(window, now)

    def acknowledge(self, stream: Stream, octets: int, now: float) -> None:
        """Note that octets of a stream's data no longer need buffer space; return their credit if it is time to."""
        window = stream.receive_window
        if window.acknowledge(octets):
            self._renew(stream.stream_id, window, self._grow(stream, window, now), now)

    def discard(self, stream: Stream, octets: int, now: float) -> None:
        """Return the credit for octets that no application will read.

        Their client may read nothing before it has sent all of its body.
        """
        window = stream.receive_window
        if window.acknowledge(octets):
            self._renew(stream.stream_id, window, 0, now)

    def grant_rest(self, stream: Stream) -> None:
        """Grant credit for the rest of a body that no application will read."""
        declared = stream.head.content_length
        rest = _MAX_DISCARDED if declared is None else min(declared - stream.received, _MAX_DISCARDED)
        self.announce(0, self.window.grant(rest))
        # The SETTINGS ACK may still enlarge the window, and must not overflow it (section 6.9.2).
        room = frames.LARGEST_WINDOW - max(0, self._configured_size - self.stream_window_size)
        window = stream.receive_window
        self.announce(stream.stream_id, window.grant(min(rest, room - window.available)))

    def receive_settings_ack(self, streams: Iterable[Stream], now: float) -> None:
        """Apply our settings, as the client does from here on (section 6.5.3). Raises ConnectionFailure."""
        if self.settings_acknowledged:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK without SETTINGS")
        self.settings_acknowledged = True
        change = self._configured_size - self.stream_window_size
        self.stream_window_size = self._configured_size
        for stream in streams:
            stream.receive_window.resize(change)
            # Credit that was a small part of the larger window may be all that there is of the smaller one.
            if stream.state is OPEN:
                self.acknowledge(stream, 0, now)

    # Growth

    def _renew(self, stream_id: int, window: ReceiveWindow, growth: int, now: float) -> None:
        self.announce(stream_id, window.renew(growth, now))
        if growth or self._probe.round_trip is None:
            self._probe.measure(now)
        self.note_edge(window, now)

    def _wanted_growth(self, stream: Stream, window: ReceiveWindow, now: float) -> int:
        declared = stream.head.content_length
        if self._stalls.had_stall and declared is not None:
            # Make room for the whole rest: such a client may stall whenever it waits for credit.
            return declared - stream.received - window.available - window.owed
        if window.renewed_at is None:
            # Begin with a share of the largest size that other streams have needed.
            return self._largest_size // len(self._streams.open) - window.size
        return window.wanted_growth(now, self._probe.round_trip)

    def _grow(self, stream: Stream, window: ReceiveWindow, now: float) -> int:
        """Take the growth of a stream's window from the budgets; return it in octets, or 0."""
        wanted = self._wanted_growth(stream, window, now)
        if wanted <= 0:
            return 0
        self.reclaim_growth()
        # A stream takes at most half of what is left, so that others find something. A connection holds no
        # more of the worker's budget than is left for all others.
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
        """Return the growth of closed streams to the budgets, unless an application may still hold their data."""
        running = self._streams.orphaned_calls
        for stream in [stream for stream in self._grown if stream.state is CLOSED and stream.stream_id not in running]:
            growth = self._grown.pop(stream)
            self._budget.give_back(growth)
            self._worker_budget.give_back(growth)

    # Timers, PINGs and stalls

    def handle_timeout(self, now: float) -> None:
        """Act where `deadline` has passed."""
        if self._reclaim_at <= now:
            self.reclaim_growth()
            self._reclaim_at = now + _RECLAIM_SECONDS if self._grown else math.inf
        if self._stalls.deadline <= now:
            self._stalls.check(now)
        self.deadline = min(self._reclaim_at, self._stalls.deadline)

    def receive_ping_ack(self, payload: bytes, now: float) -> bool:
        """Handle the ACK of a PING; return whether the PING was one of the probe's."""
        if not self._probe.receive_ack(payload, now):
            return False
        self._stalls.receive_ack(now)
        self.deadline = min(self.deadline, self._stalls.deadline)
        return True

    def note_edge(self, window: ReceiveWindow, now: float) -> None:
        """Watch for a stall if the peer stands at an earlier right edge of `window`."""
        if window.is_at_edge:
            self._stalls.note_edge(window, now)
            self.deadline = min(self.deadline, self._stalls.deadline)
