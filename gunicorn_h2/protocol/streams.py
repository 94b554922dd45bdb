"""The streams of a connection: those that are open, and what is remembered of closed ones.

Whether a frame on a closed stream is ignored or a connection error depends on how the stream was closed
(RFC 9113 section 5.1). The number of resets remembered is bounded.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from . import frames
from .errors import ConnectionFailure, ErrorCode
from .events import Event, RequestRefused, StreamReset
from .held import HeldRequests
from .outbox import Outbox
from .stream import CLOSED, HELD, RUNNING, Stream

__all__ = ["StreamTable"]

# The number of streams reset by us whose frames in flight are ignored.
_REMEMBERED_RESETS = 512
# From the end of a response to the RST_STREAM that stops the rest of its request; see `Sender.end_response`.
_RESET_DELAY = 0.1


class StreamTable:
    """The streams of one connection, and the ways in which they end."""

    __slots__ = (
        "final_stream_id",
        "last_stream_id",
        "open",
        "orphaned_calls",
        "reset_deadlines",
        "_events",
        "_held",
        "_outbox",
        "_resets",
        "_skipped",
    )

    def __init__(self, outbox: Outbox, events: list[Event], held: HeldRequests) -> None:
        self.open: dict[int, Stream] = {}
        """The streams that are not closed, by identifier."""
        self.reset_deadlines: dict[int, float] = {}
        """When to reset half-closed (local) streams, by identifier (section 8.1); the soonest first.

        Infinite until the end of the response has been taken from the outbox: see `schedule_resets`.
        """
        self.orphaned_calls: set[int] = set()
        """Streams that were reset while their application call was running, until it returns.

        They count as concurrent streams; otherwise a peer could start any number of calls.
        """
        self.last_stream_id = 0
        """The highest stream the client has opened."""
        self.final_stream_id = frames.LARGEST_STREAM_ID
        """The last stream of the final GOAWAY; frames on streams beyond it are ignored (section 6.8)."""
        self._outbox = outbox
        self._events = events
        self._held = held
        self._resets: dict[int, None] = {}
        self._skipped: deque[tuple[int, int]] | None = None

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self.open.values()))

    def skip_to(self, stream_id: int) -> None:
        """Note that the client skipped the identifiers below this one, which closes those streams (section 5.1.1)."""
        if self._skipped is None:
            self._skipped = deque(maxlen=_REMEMBERED_RESETS)
        self._skipped.append((self.last_stream_id + 1, stream_id - 1))

    # Frames on streams that are not open

    def is_after_goaway(self, stream_id: int) -> bool:
        """Whether the stream is beyond the last one of the final GOAWAY."""
        return stream_id > self.final_stream_id

    def is_idle(self, stream_id: int) -> bool:
        """Whether the stream is idle (section 5.1): its identifier is unused, or even and so not the client's."""
        return stream_id > self.last_stream_id or not stream_id & 1

    def check_used(self, stream_id: int, what: str) -> None:
        """Raise ConnectionFailure for a frame on an idle stream (section 5.1); `what` names the frame."""
        if self.is_idle(stream_id) and not self.is_after_goaway(stream_id):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")

    def check_not_skipped(self, stream_id: int) -> None:
        """Raise ConnectionFailure for HEADERS on a stream that the client has skipped (section 5.1.1)."""
        if self._skipped is not None and any(first <= stream_id <= last for first, last in self._skipped):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} was passed over")

    def was_reset(self, stream_id: int) -> bool:
        """Whether we have reset the stream, as far as is remembered."""
        return stream_id in self._resets

    def check_late_frame(self, stream_id: int, what: str) -> None:
        """Raise ConnectionFailure for a frame on a closed stream, unless it crossed our RST_STREAM or final GOAWAY."""
        if stream_id not in self._resets and not self.is_after_goaway(stream_id):
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"{what} on closed stream {stream_id}")

    # Closing streams

    def reset_unopened(self, stream_id: int, code: ErrorCode) -> None:
        """Send RST_STREAM on a stream that is not open."""
        self._outbox.put_rst_stream(stream_id, code)
        self._resets[stream_id] = None
        if len(self._resets) > _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]

    def schedule_resets(self, now: float) -> None:
        """Set the deadlines of the streams whose responses have ended since the last call."""
        deadlines = self.reset_deadlines
        for stream_id in reversed(deadlines):
            if deadlines[stream_id] != math.inf:
                return
            deadlines[stream_id] = now + _RESET_DELAY

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Send RST_STREAM and close the stream."""
        self.reset_unopened(stream.stream_id, code)
        if stream.call is RUNNING:
            self.orphaned_calls.add(stream.stream_id)
        self.forget(stream)

    def reset_and_notify(self, stream: Stream, code: ErrorCode, reason: str) -> None:
        """Reset a stream, with a StreamReset event for its application, or RequestRefused if none knows of it."""
        self.reset(stream, code)
        self._notify(stream, code, reason)

    def forget_and_notify(self, stream: Stream, code: int, reason: str) -> None:
        """Close a stream that the peer or the connection ended, with an event as `reset_and_notify`."""
        if stream.call is RUNNING:
            self.orphaned_calls.add(stream.stream_id)
        self.forget(stream)
        self._notify(stream, code, reason)

    def _notify(self, stream: Stream, code: int, reason: str) -> None:
        if stream.call is HELD:
            self._events.append(RequestRefused(stream.stream_id, reason))
        else:
            self._events.append(StreamReset(stream, code, reason))

    def forget(self, stream: Stream) -> None:
        """Close a stream: drop its queue and remove it from the tables."""
        stream_id = stream.stream_id
        if stream.queued:
            self._outbox.drop(stream)
        if stream.call is HELD:
            self._held.drop(stream)
        stream.state = CLOSED
        del self.open[stream_id]
        self.reset_deadlines.pop(stream_id, None)
