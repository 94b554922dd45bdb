"""One stream: its two halves, its windows, its queue of response data."""

from __future__ import annotations

from collections import deque
from typing import Any

from .errors import ConnectionFailure, ErrorCode
from .frames import LARGEST_WINDOW
from .headers import Fields, RequestHead

__all__ = ["ReceiveWindow", "Stream"]

DEFAULT_WEIGHT = 16


class ReceiveWindow:
    """What a peer may still send (RFC 9113 section 5.2), in octets.

    Credit is handed back in halves of the window, which keeps a sender going without a
    WINDOW_UPDATE for each frame.
    """

    __slots__ = ("available", "size", "_owed")

    def __init__(self, available: int, size: int) -> None:
        self.available = available
        self.size = size
        self._owed = 0

    def consume(self, octets: int) -> None:
        """The peer sent so much. Raises ConnectionFailure(FLOW_CONTROL_ERROR) where it was too much."""
        self.available -= octets
        # An empty frame needs no window, and our SETTINGS may have taken it below zero.
        if self.available < 0 and octets:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the window allows")

    def acknowledge(self, octets: int) -> int:
        """So much was taken from the buffer: the increment to announce now, or 0."""
        self._owed += octets
        if self._owed * 2 < self.size:
            return 0
        # Where more than a window was granted once, that is used up first.
        increment = max(0, min(self._owed, self.size - self.available))
        self._owed = 0
        self.available += increment
        return increment

    def grant(self, octets: int) -> int:
        """Open the window beyond its size: the increment to announce."""
        increment = max(0, min(octets, LARGEST_WINDOW - self.available))
        self.available += increment
        return increment


class Stream:
    """The state of one request and its response (RFC 9113 section 5.1).

    Drivers read `stream_id`, `head`, `weight`, `depends_on` and `queued`, and keep what is theirs in
    `context`; the rest belongs to the core.
    """

    __slots__ = (
        "above_high_mark",
        "context",
        "depends_on",
        "end_queued",
        "finished",
        "head",
        "headers_sent",
        "local_closed",
        "orphaned",
        "queue",
        "queued",
        "receive_window",
        "received",
        "remote_closed",
        "running",
        "scheduled",
        "send_window",
        "stream_id",
        "trailers",
        "weight",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: ReceiveWindow) -> None:
        self.stream_id = stream_id
        self.send_window = send_window
        self.receive_window = receive_window
        self.head: RequestHead
        self.weight = DEFAULT_WEIGHT
        self.depends_on = 0
        self.context: Any = None
        self.received = 0
        self.remote_closed = False
        self.local_closed = False
        self.running = False
        self.orphaned = False
        self.finished = False
        self.headers_sent = False
        self.queue: deque[memoryview | bytes] = deque()
        self.queued = 0
        self.above_high_mark = False
        self.end_queued = False
        self.trailers: Fields | None = None
        self.scheduled = False

    @property
    def sendable(self) -> bool:
        """Whether a frame could go out now, the connection's window left aside."""
        if self.queued:
            return self.send_window > 0
        return self.end_queued and not self.local_closed
