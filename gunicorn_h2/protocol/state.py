"""What both directions of a connection share: its streams, its windows, its output, its end."""

from __future__ import annotations

from collections import deque
from enum import Enum, auto

from . import frames
from .config import ConnectionConfig
from .engine import Engine
from .errors import ErrorCode
from .events import ConnectionTerminated, Event, StreamReset
from .guard import Guard
from .scheduler import Scheduler
from .stall import StallProbe
from .stream import ReceiveWindow, Stream

__all__ = ["ConnectionState", "Phase"]

_RESET_DELAY = 0.1
_MAX_DISCARDED = 2**30

# Frames that were on their way when we reset a stream are ignored for this many streams.
_REMEMBERED_RESETS = 512


class Phase(Enum):
    """Where a connection stands in its life."""

    SETUP = auto()
    """The client's preface or its first SETTINGS are still to come."""
    OPEN = auto()
    QUIETING = auto()
    """Shutting down: waiting for a moment without streams before the first GOAWAY."""
    GOING_AWAY = auto()
    """The first GOAWAY is out; streams that crossed it on the way are still accepted."""
    DRAINING = auto()
    """The final GOAWAY is out; its last stream and those before it may finish."""
    CLOSED = auto()


class ConnectionState:
    """The state behind a `ServerConnection`."""

    def __init__(self, config: ConnectionConfig, engine: Engine, now: float) -> None:
        self.config = config
        self.engine = engine
        self.phase = Phase.SETUP
        self.streams: dict[int, Stream] = {}
        self.last_stream_id = 0
        """The highest stream the client has opened."""
        self.last_accepted_stream_id = frames.LARGEST_STREAM_ID
        """What the final GOAWAY named."""
        self.orphaned_calls = 0
        """Application calls that have not returned although their stream was reset."""
        self.send_window = frames.DEFAULT_WINDOW_SIZE
        self.peer_initial_window_size = frames.DEFAULT_WINDOW_SIZE
        self.peer_max_frame_size = frames.DEFAULT_MAX_FRAME_SIZE
        self.initial_window_size = frames.DEFAULT_WINDOW_SIZE
        """Of a new stream's receive window: ours only when the client has acknowledged it."""
        self.settings_acknowledged = False
        self.receive_window = ReceiveWindow(config.connection_window_size, config.connection_window_size)
        self.scheduler = Scheduler()
        self.blocked: dict[int, float] = {}
        """Streams with data to send and no window for it, by the time of their last progress."""
        self.abandoned: dict[int, float] = {}
        """Streams whose response is out and whose request is not all in, by when they are reset."""
        self.quiet_since: float | None = now
        """Since when there has been no open stream."""
        self.served = False
        """Whether there ever was one."""
        self.deadline: float | None = now + config.setup_timeout if config.setup_timeout else None
        """Of the setup, and later of the shutdown's current phase."""
        self.peer_going_away = False
        self._shutdown_requested = False
        self._now = now
        """The time of the current call."""
        self._guard = Guard(config, now)
        self._stall = StallProbe()
        self._output: list[bytes] = []
        self._output_size = 0
        self._events: list[Event] = []
        self._reset_streams: dict[int, None] = {}
        """In the order in which they were reset."""
        self._skipped: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED_RESETS)
        """First and last of the streams that the client passed over."""

    def events(self) -> list[Event]:
        """Take what has happened since the last call, oldest first."""
        events, self._events = self._events, []
        return events

    @property
    def closed(self) -> bool:
        """Whether the connection is over; what `data_to_send` still holds may be sent."""
        return self.phase is Phase.CLOSED

    def _put(self, data: bytes) -> None:
        if data:
            self._output.append(data)
            self._output_size += len(data)

    def _reset(self, stream: Stream, code: ErrorCode) -> None:
        """Send RST_STREAM and forget the stream."""
        self._put(self.engine.send_reset(stream.stream_id, code))
        self._remember_reset(stream.stream_id)
        self._orphan(stream)
        self._forget(stream)

    def _reset_and_tell(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        """Reset a stream whose application does not know yet that it is gone."""
        self._reset(stream, code)
        self._events.append(StreamReset(stream, code, reason))

    def _remember_reset(self, stream_id: int) -> None:
        self._reset_streams[stream_id] = None
        if len(self._reset_streams) > _REMEMBERED_RESETS:
            del self._reset_streams[next(iter(self._reset_streams))]

    def _forget(self, stream: Stream) -> None:
        """The stream is closed, in whichever way."""
        stream.local_closed = stream.remote_closed = True
        stream.queue.clear()
        stream.queued = 0
        self.blocked.pop(stream.stream_id, None)
        self.abandoned.pop(stream.stream_id, None)
        self.streams.pop(stream.stream_id, None)

    def _forget_and_tell(self, stream: Stream, code: int, reason: str) -> None:
        """The stream ended without its application's doing."""
        self._orphan(stream)
        self._forget(stream)
        self._events.append(StreamReset(stream, code, reason))

    def _orphan(self, stream: Stream) -> None:
        """Count the application call of a stream that ends by a reset, until it returns.

        A client must not make room for its next request by a reset that leaves the work of this one
        going (rapid reset). A response that is complete does make room, whether or not its call has
        returned: to the client the stream is closed (RFC 9113 section 5.1.2), and it may open the next.
        """
        if stream.running:
            stream.orphaned = True
            self.orphaned_calls += 1

    def _before_end(self, stream: Stream) -> None:
        """The response is about to end; where the request has not, nobody will read the rest of it.

        RFC 9113 section 8.1: the client is then told to stop by RST_STREAM(NO_ERROR). But there are
        clients that drop the response with the reset (httpx, curl) or read nothing more once they
        have the response and would wait for credit for ever (curl 7.88). So credit for the rest
        comes before the response's end, and the reset a moment after it; what arrives is dropped.
        """
        if stream.remote_closed:
            return
        declared = stream.head.content_length
        rest = _MAX_DISCARDED if declared is None else min(declared - stream.received, _MAX_DISCARDED)
        for stream_id, window in ((0, self.receive_window), (stream.stream_id, stream.receive_window)):
            self._announce_credit(stream_id, window.grant(rest))

    def _ended(self, stream: Stream) -> None:
        """The response has ended."""
        stream.local_closed = True
        if stream.remote_closed:
            self._forget(stream)
        else:
            self.abandoned[stream.stream_id] = self._now + _RESET_DELAY

    def _give_credit(self, window: ReceiveWindow, stream_id: int, octets: int) -> None:
        self._announce_credit(stream_id, window.acknowledge(octets))

    def _announce_credit(self, stream_id: int, increment: int) -> None:
        if increment:
            self._put(self.engine.send_window_update(stream_id, increment))
            self._stall.arm(self._now)

    def _terminate(self, code: ErrorCode, reason: str) -> None:
        """Enter CLOSED: every stream's application is told, and the driver last."""
        self.phase = Phase.CLOSED
        self.deadline = self.quiet_since = None
        for stream in list(self.streams.values()):
            self._forget_and_tell(stream, code or ErrorCode.CANCEL, reason or "the connection closed")
        self._events.append(ConnectionTerminated(code, reason))
