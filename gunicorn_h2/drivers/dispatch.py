"""The dispatch of the core's events to channels, for all kinds of applications."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.counts import Counts
from gunicorn_h2.protocol.errors import ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    RequestRefused,
    StreamReset,
    StreamWritable,
    TrailersReceived,
)
from gunicorn_h2.protocol.outbox import OutputBudget
from gunicorn_h2.protocol.windows import WindowBudget

from .log import Log
from .spool import Spool

if TYPE_CHECKING:
    from .trace_file import TraceFile

__all__ = ["EventDispatcher", "Shared"]


class Shared(Protocol):
    """What all connections of a worker share."""

    config: ConnectionConfig
    counts: Counts
    log: Log
    output_budget: OutputBudget
    spool: Spool
    trace: TraceFile | None
    window_budget: WindowBudget

    def requests_wait(self) -> bool:
        """Whether requests wait to be run, so that it takes long until a connection has its next turn."""


class EventDispatcher(ABC):
    """The base of a driver's connections: a core, and a channel in `stream.context` for each request."""

    def __init__(self, peer: object, clock: Callable[[], float], shared: Shared) -> None:
        """`clock` returns the time in seconds, for deadlines."""
        self.now = clock
        jitter = random.uniform(-1, 1)
        self._counts = shared.counts
        make = ServerConnection if shared.trace is None else shared.trace.core(peer)
        self.core = make(shared.config, clock(), shared.window_budget, shared.output_budget, jitter, shared.counts)
        self.core.refusals.date = _date
        self.peer = peer
        self.read_timeout = shared.config.stream_timeout or None
        """Seconds that an application waits for the next piece of a body; None: no limit."""
        self._log = shared.log

    @abstractmethod
    def start(self, request: RequestReceived) -> None:
        """Run the application for a new request."""

    @abstractmethod
    def note_refusal(self, refusal: RequestRefused) -> None:
        """Have the application layer log a request that the core has answered itself."""

    @abstractmethod
    def note_closed(self, code: ErrorCode, reason: str) -> None:
        """Note that the connection is over, for a reason as in `ConnectionTerminated`."""

    @abstractmethod
    def note_limit(self, limit: StreamLimit, stream_id: int | None) -> None:
        """Note that a limit has ended a stream; None: the log has a line about that already, or needs none."""

    def dispatch(self) -> None:
        """Take the core's events and pass them to the channels."""
        for event in self.core.events():
            if type(event) is RequestReceived:
                self.start(event)
            elif type(event) is DataReceived:
                event.stream.context.deliver(event.data, event.end_stream)
            else:
                _REACTIONS[type(event)](self, event)

    def _on_trailers(self, event: TrailersReceived) -> None:
        event.stream.context.deliver_trailers(event.fields)

    def _on_reset(self, event: StreamReset) -> None:
        stream = event.stream
        if isinstance(event.reason, StreamLimit):
            self.note_limit(event.reason, stream.stream_id)
        else:
            self._log.debug("HTTP/2 stream %d was reset: %s", stream.stream_id, event.reason)
        channel = stream.context
        if channel is None or channel.abort(event.code, event.reason):
            self.core.finish(stream, self.now())
            stream.context = None

    def _on_writable(self, event: StreamWritable) -> None:
        # Data may still be queued after the application call has returned.
        channel = event.stream.context
        if channel is not None:
            channel.wake()

    def _on_refused(self, event: RequestRefused) -> None:
        self._log.debug("HTTP/2 request %d from %s refused: %s", event.stream_id, self.peer, event.reason)
        self._counts.refused += 1
        if isinstance(event.reason, StreamLimit):
            self.note_limit(event.reason, None)
        if event.status:
            self.note_refusal(event)

    def _on_terminated(self, event: ConnectionTerminated) -> None:
        self.note_closed(event.code, event.reason)


def _date() -> bytes:
    """The value of a Date field (RFC 9110 section 6.6.1)."""
    return formatdate(usegmt=True).encode("ascii")


_REACTIONS: dict[type[Event], Callable[[EventDispatcher, Any], None]] = {
    TrailersReceived: EventDispatcher._on_trailers,
    StreamReset: EventDispatcher._on_reset,
    StreamWritable: EventDispatcher._on_writable,
    RequestRefused: EventDispatcher._on_refused,
    ConnectionTerminated: EventDispatcher._on_terminated,
}
