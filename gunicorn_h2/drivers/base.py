"""What all drivers share: beginning and ending connections, making room for others, and containing a defect."""

from __future__ import annotations

import heapq
import math
import random
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.counts import Counts
from gunicorn_h2.protocol.errors import Budget, EndReason, ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import RequestRefused
from gunicorn_h2.protocol.outbox import OutputBudget
from gunicorn_h2.protocol.proxy_header import ProxyHeaderError
from gunicorn_h2.protocol.windows import WindowBudget

from .admission import CALM_COST, HANDSHAKE_COST, Admission, reset
from .channel import Channel
from .connection import Http2Connection, TransportConnection
from .connection_log import ConnectionRecord, log_failed
from .handshake_errors import BROKEN, EOF, RESET, HandshakeLog, reason_of
from .histogram import ROUND_TRIP_BOUNDS, Histogram, QueueProbe
from .log import Log, host_text, logs_debug
from .negotiation import Negotiation, NotAdmitted, Terms, adequate_cipher
from .spool import Spool

if TYPE_CHECKING:
    from .trace_file import TraceFile

__all__ = ["Application", "Driver", "HandOver", "Holder", "ROOM_SECONDS", "RefusalHandler"]


Application = Callable[[Http2Connection, Channel], object]
RefusalHandler = Callable[[TransportConnection, RequestRefused], object]
HandOver = Callable[[socket.socket, object, object, bytes, bytes], None]
"""Takes a connection that speaks HTTP/1: its socket, its peer, the local address, the octets read from it, and before
them the PROXY header."""

ROOM_SECONDS = 0.1
"""The shortest time from one look at all connections for those that can make room to the next."""
_LEAST_IDLE = 0.5
"""Seconds: a connection that was busy or new more recently is about to be used."""
_LEAST_NEGOTIATION = 1.0
"""Seconds that every client has for its handshake while the worker has places."""
_MAX_SCANNED_STREAMS = 2000
"""Streams looked at in search of stalled connections, each time."""
_MIN_NEGOTIATIONS = 64
_NEGOTIATIONS_SHARE = 4
"""One in so many of the worker's connections may be negotiating its protocol."""
_MAX_ROUND_TRIPS = 32
"""Connections that are asked for their round trip, each time."""
_GONE = frozenset((BROKEN, EOF, RESET))
"""What is not counted: the server has not ended the connection."""
_NOTABLE_USE = 0.25
"""A connection that has used less of its budgets costs its address nothing."""


class Holder(Protocol):
    """A driver's record of a connection."""

    @property
    def connection(self) -> TransportConnection | Negotiation | None:
        """The negotiation, then the connection."""


_ApplicationT = TypeVar("_ApplicationT")
_HolderT = TypeVar("_HolderT", bound=Holder)


class Driver(ABC, Generic[_ApplicationT, _HolderT]):
    """The base of the drivers; one for each worker."""

    def __init__(
        self,
        config: ConnectionConfig,
        application: _ApplicationT,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
        admission: Admission | None = None,
        trace: TraceFile | None = None,
    ) -> None:
        """`application` serves one request; drivers whose applications block call it in another thread or greenlet.

        `on_request` is called for each request; `on_refused`, in the place where applications run, for each
        request that the core has answered itself. `admission` learns what connections have cost,
        and connections write their frames to `trace`.
        """
        self.config = config
        self.log = log
        self.window_budget = WindowBudget(config.worker_window_size)
        self.output_budget = OutputBudget(config.worker_buffer_size or math.inf)
        self.spool = Spool(config.worker_spool_size, log)
        self.trace = trace
        self.counts = Counts()
        self.connections_begun = 0
        """HTTP/2 connections so far."""
        self.round_trips = Histogram(ROUND_TRIP_BOUNDS)
        """Of open connections, a few at each `gauges`."""
        self.application = application
        self.on_request = on_request
        self.on_refused = on_refused
        self.admission = admission or Admission(log)
        self.closings = self.admission.closings
        self._handshakes = HandshakeLog(log)
        self._logs_debug = logs_debug(log)
        self._negotiating: dict[Negotiation, _HolderT] = {}
        """The negotiations under way, the oldest first."""
        self._max_negotiations = max(_MIN_NEGOTIATIONS, self.admission.max_connections // _NEGOTIATIONS_SHARE)
        self._next_room = 0.0
        self._shutting_down = False

    # Beginning

    def begin_negotiation(self, sock: socket.socket, peer: object, terms: Terms) -> Negotiation | None:
        """Make a `Negotiation`; close the socket and return None if the client is gone already."""
        try:
            return Negotiation(sock, peer, terms)
        except OSError as error:
            self.log.debug("connection from %s failed: %s", peer, error)
            sock.close()
            return None

    def hold_negotiation(self, negotiation: Negotiation, holder: _HolderT) -> None:
        """Count a negotiation among those under way; if there are too many, the oldest one has to go.

        Unless it is young: many clients may come at once, and none of them is slow then.
        """
        self._negotiating[negotiation] = holder
        if len(self._negotiating) > self._max_negotiations:
            oldest = next(iter(self._negotiating))
            if negotiation.began - oldest.began > _LEAST_NEGOTIATION:
                self._make_way(self._negotiating.pop(oldest))

    def end_negotiation(self, negotiation: Negotiation) -> None:
        """Note that a negotiation is over, however it ended."""
        self._negotiating.pop(negotiation, None)
        transport, error = negotiation.transport, negotiation.error
        if not transport.tls:
            return
        if error is None:
            self.admission.charge(negotiation.peer, -HANDSHAKE_COST)
        elif transport.handshake_begun or reason_of(error) not in _GONE:
            self.admission.charge(negotiation.peer, HANDSHAKE_COST)

    def end_failed(self, negotiation: Negotiation) -> None:
        """Close a connection that ended before its protocol was known, and log why."""
        error = negotiation.error
        assert error is not None
        if isinstance(error, NotAdmitted):
            reset(negotiation.transport.sock)
            return
        reason = reason_of(error)
        if isinstance(error, ProxyHeaderError):
            self.closings.warn(reason, "Invalid PROXY header from %s: %s", host_text(negotiation.peer), error)
        elif reason not in _GONE:
            self.closings.count(reason)
        if negotiation.transport.tls:
            self._handshakes.failed(negotiation.peer, error)
        if self._logs_debug:
            log_failed(self.log, negotiation, error)
        negotiation.transport.close()

    def begin(self, connection: TransportConnection, negotiation: Negotiation) -> None:
        """Give a new connection the data read during negotiation."""
        self.connections_begun += 1
        connection.transport.limit_unsent()
        if self._logs_debug:
            counts = connection.transport.count_octets()
            counts.received += len(negotiation.data)
            connection.record = ConnectionRecord(negotiation.began, counts)
        if not adequate_cipher(connection.transport.session):
            connection.fail(ErrorCode.INADEQUATE_SECURITY, "cipher suite")
            return
        connection.core.refusals.names = negotiation.certificate_names()
        if negotiation.upgrade is not None:
            connection.core.receive_upgrade(negotiation.upgrade)
        if connection.transport.tls:
            # Data that the client sent after its handshake has often arrived: one write then answers all of it.
            connection.handle_readable()
            connection.schedule_flush()
        else:
            connection.receive(negotiation.data)
        if self._shutting_down and not connection.closed:
            connection.shutdown()

    # Ending

    def note_closed(self, connection: TransportConnection, code: ErrorCode, reason: str) -> None:
        """See `EventDispatcher.note_closed`: log it, count it, and charge the address for what it has cost."""
        if connection.record is not None:
            connection.record.note_terminated(connection, code, reason)
        if reason is EndReason.KEEPALIVE_TIMEOUT:
            self.closings.warn(reason.counter, "HTTP/2 connection from %s closed: %s", connection.peer, reason)
        elif isinstance(reason, EndReason):
            self.closings.count(reason.counter)
        elif code:
            message = "HTTP/2 connection from %s closed with %s: %s"
            self.closings.warn(code.name.lower(), message, connection.peer, code.name, reason)
        used = connection.core.guard.used(connection.now())
        if code is ErrorCode.ENHANCE_YOUR_CALM:
            used = 1.0
            if isinstance(reason, Budget):
                self.closings.budgets.count(reason.counter)
        if used >= _NOTABLE_USE:
            self.admission.charge(connection.peer, used * CALM_COST)

    def note_limit(self, connection: TransportConnection, limit: StreamLimit, stream_id: int | None) -> None:
        """See `EventDispatcher.note_limit`."""
        if stream_id is None:
            self.closings.resets.count(limit.counter)
        else:
            message = "HTTP/2 stream %d of %s was reset: %s"
            self.closings.resets.warn(limit.counter, message, stream_id, connection.peer, limit)

    def contain(self, connection: TransportConnection | Negotiation) -> None:
        """Handle an exception from a connection: a defect costs one connection, never the worker."""
        self.log.exception("HTTP/2 connection from %s ended by an internal error", connection.peer)
        if isinstance(connection, TransportConnection):
            connection.abandon(EndReason.INTERNAL_ERROR)
        else:
            connection.abandon()

    # Statistics

    def gauges(self) -> dict[str, int]:
        """How many there are now of what, by name; adds some to `round_trips`."""
        connections: list[TransportConnection] = []
        streams = orphaned = blocked_streams = blocked = 0
        for holder in self._holders():
            connection = holder.connection
            if connection is None or type(connection) is Negotiation:
                continue
            assert isinstance(connection, TransportConnection)
            connections.append(connection)
            core = connection.core
            streams += len(core.streams)
            orphaned += core.orphaned_calls
            if core.blocked:
                blocked_streams += len(core.blocked)
                # Its stream has a window: the connection has none.
                blocked += any(core.streams[stream_id].send_window > 0 for stream_id in core.blocked)
        for connection in random.sample(connections, min(len(connections), _MAX_ROUND_TRIPS)):
            round_trip = connection.transport.round_trip()
            if round_trip is not None:
                self.round_trips.observe(round_trip)
        return {
            "connections/h2": len(connections),
            "connections/negotiating": len(self._negotiating),
            "streams": streams,
            "orphaned": orphaned,
            "blocked/streams": blocked_streams,
            "blocked/connections": blocked,
            "octets/buffered": self.output_budget.used,
            "octets/spooled": self.spool.octets,
            "octets/windows": self.window_budget.taken,
            **self.load(),
        }

    @abstractmethod
    def load(self) -> dict[str, int]:
        """How many requests wait to begin, and where there are any, how many threads do what; by name."""

    @abstractmethod
    def probe_queue(self, probe: QueueProbe, late: float) -> None:
        """Have a probe wait as a request would that came `late` seconds ago."""

    # Making room

    def _now(self) -> float:
        """The time on the clock of the connections."""
        return time.monotonic()

    def make_room(self, count: int) -> int:
        """Have up to `count` connections end that serve nobody, besides those that end already; return how many.

        First those without a stream, the longest idle one first; then those whose streams all wait for their client;
        then negotiations, the oldest first. Does nothing within a tenth of a second of the last time.
        """
        now = self._now()
        if now < self._next_room:
            return 0
        self._next_room = now + ROOM_SECONDS
        chosen = self._choose(count, now - _LEAST_IDLE)
        for holder in chosen:
            self._make_way(holder)
        if chosen:
            self.closings.inform("worker_connections is nearly reached: %d connections make room", len(chosen))
        return len(chosen)

    def _choose(self, count: int, idle_before: float) -> list[_HolderT]:
        idle: list[tuple[float, int, _HolderT]] = []
        busy: list[tuple[TransportConnection, _HolderT]] = []
        for holder in self._holders():
            connection = holder.connection
            if not isinstance(connection, TransportConnection):
                continue
            if connection.ending:
                count -= 1
                continue
            since = connection.idle_since
            if since is None:
                busy.append((connection, holder))
            elif since <= idle_before:
                idle.append((since, id(holder), holder))
        chosen = [holder for _, _, holder in heapq.nsmallest(max(count, 0), idle)]
        if len(chosen) < count:
            chosen += _stalled(busy, count - len(chosen), self._now())
        if len(chosen) < count:
            oldest = list(islice(self._negotiating, count - len(chosen)))
            slow = [negotiation for negotiation in oldest if negotiation.began <= idle_before]
            chosen += [self._negotiating.pop(negotiation) for negotiation in slow]
        return chosen

    @abstractmethod
    def _holders(self) -> Iterable[_HolderT]:
        """All connections and negotiations."""

    @abstractmethod
    def _make_way(self, holder: _HolderT) -> None:
        """Call `make_way` of a connection or negotiation."""


def _stalled(busy: list[tuple[TransportConnection, _HolderT]], count: int, now: float) -> list[_HolderT]:
    """Return up to `count` connections that are stalled."""
    found: list[_HolderT] = []
    scanned = 0
    for connection, holder in busy:
        scanned += len(connection.core.streams)
        if len(found) == count or scanned > _MAX_SCANNED_STREAMS:
            break
        if connection.waits_for_client(now):
            found.append(holder)
    return found
