"""PRIORITY_UPDATE (RFC 9218 section 7.1): priorities of streams, also of those that are still to come.

Applications learn of a request's priority when they are called, so that only the scheduler sees later ones.
"""

from __future__ import annotations

from . import frames
from .errors import ConnectionFailure, ErrorCode
from .guard import Guard
from .headers import RequestHead
from .inflow import Inflow
from .outbox import Outbox
from .priority import Priority, parse_priority
from .streams import StreamTable

__all__ = ["PriorityUpdates"]

_COST_OF_SEARCH = 4.0
# For each stream that waits to send: it is put in order again.
_COST_OF_WAITING = 0.5


class PriorityUpdates:
    """What the client has said of idle streams; of no more than may be open."""

    __slots__ = ("_guard", "_inflow", "_limit", "_outbox", "_priorities", "_streams")

    def __init__(self, limit: int, streams: StreamTable, guard: Guard, inflow: Inflow, outbox: Outbox) -> None:
        """`limit` is the number of streams that may be open."""
        self._limit = limit
        self._streams = streams
        self._guard = guard
        self._inflow = inflow
        self._outbox = outbox
        self._priorities: dict[int, Priority] = {}
        """By stream; some may have been opened or skipped since."""

    def receive(self, stream_id: int, payload: bytes, now: float) -> None:
        """Take a frame. Raises ConnectionFailure."""
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE on a stream")
        target, value = frames.parse_priority_update(payload)
        if not target & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"PRIORITY_UPDATE of stream {target}")
        stream = self._streams.open.get(target)
        if stream is not None:
            self._guard.charge_control(now, 1.0 + _COST_OF_WAITING * len(self._outbox.turns))
            self._outbox.reprioritize(stream, parse_priority(value))
        elif target > self._streams.last_stream_id and (target in self._priorities or self._has_room(now)):
            self._priorities[target] = parse_priority(value)

    def apply(self, stream_id: int, head: RequestHead) -> RequestHead:
        """Return the head of a stream that opens, with the priority that was said of it."""
        priority = self._priorities.pop(stream_id, None)
        return head if priority is None else head.with_priority(priority)

    def _has_room(self, now: float) -> bool:
        """Whether one more idle stream may have a priority; an error if the client knows how many may."""
        priorities, room = self._priorities, self._limit - len(self._streams.open)
        if len(priorities) < room:
            return True
        for stream_id in [stream_id for stream_id in priorities if stream_id <= self._streams.last_stream_id]:
            del priorities[stream_id]
        if len(priorities) < room:
            return True
        if self._inflow.settings_acknowledged:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY_UPDATE of too many streams")
        self._guard.charge_control(now, _COST_OF_SEARCH)
        return False
