"""Requests that wait in the core for their bodies, so that no application has to.

An application that blocks holds a thread while it reads, and a client may send an octet a second. So the
application is called once a body of declared length is complete. One that is larger than the buffer cannot be complete
before it is read: its application is called when half of the buffer is filled, early enough to return credit
before the client runs out of it.

Not held are bodies whose end the client may put off until it is answered: those without a declared length, gRPC's,
and those behind `Expect: 100-continue`.
"""

from __future__ import annotations

from .config import ConnectionConfig
from .events import DataReceived, Event, RequestReceived
from .stream import HELD, OPEN, RUNNING, Stream
from .windows import WindowBudget

__all__ = ["HeldRequests"]


class HeldRequests:
    """The requests of one connection that are held, with what has arrived of their bodies.

    No credit is returned for that, so each holds at most the receive window of its stream. All of a worker draw on the
    budget for the growth of windows; where a connection has used up its share, it holds requests no longer.
    """

    __slots__ = ("pending", "_budget", "_events", "_limit", "_octets", "_requests")

    def __init__(self, config: ConnectionConfig, events: list[Event], worker_budget: WindowBudget) -> None:
        self.pending: dict[int, RequestReceived] = {}
        """Requests with a body whose event is not yet taken, by stream; a body of one frame joins its event."""
        self._limit = config.request_buffer_size
        self._events = events
        self._budget = worker_budget
        self._octets = 0
        """Octets held by this connection."""
        self._requests: dict[int, RequestReceived] = {}
        """The events of the requests that are held, by stream."""

    def try_hold(self, stream: Stream) -> bool:
        """Hold the request of a body that is not complete; return False if its application must be called at once."""
        request = self.pending.get(stream.stream_id)
        return request is not None and self._hold(request)

    def sift(self, events: list[Event]) -> list[Event]:
        """Return the events that were taken, without those of requests that are held."""
        for request in self.pending.values():
            if request.stream.state is OPEN:
                self._hold(request)
        self.pending.clear()
        return [event for event in events if type(event) is not RequestReceived or event.stream.call is not HELD]

    def _hold(self, request: RequestReceived) -> bool:
        stream = request.stream
        head = stream.head
        if not self._limit or not head.declares_body or head.expects_continue:
            return False
        if stream.stream_id not in self._requests:
            stream.call = HELD
            self._requests[stream.stream_id] = request
        return True

    def receive(self, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Add to the body of a request that is held; release the request if that is enough of it."""
        if stream.held is None:
            stream.held = bytearray()
        stream.held += data
        self._octets += len(data)
        self._budget.take(len(data))
        if end_stream or self._octets > self._budget.left or self._is_full(stream):
            self.release(stream, end_stream)

    def _is_full(self, stream: Stream) -> bool:
        declared, window = stream.head.content_length, stream.receive_window
        assert declared is not None
        if declared <= self._limit and declared - stream.received <= window.available:
            return False
        return stream.received * 2 >= min(self._limit, window.size)

    def release(self, stream: Stream, end_stream: bool) -> None:
        """Have the application called, with what has arrived of the body; `end_stream`: it is complete."""
        stream_id = stream.stream_id
        request = self._requests[stream_id]
        body = bytes(stream.held or b"")
        self.drop(stream)
        stream.call = RUNNING
        if self.pending.pop(stream_id, None) is None:
            self._events.append(request)
        if end_stream:
            request.end_stream, request.body = True, body
        elif body:
            self._events.append(DataReceived(stream, body, False))

    def drop(self, stream: Stream) -> None:
        """Forget a request that is held, and its body."""
        del self._requests[stream.stream_id]
        if stream.held is not None:
            self._octets -= len(stream.held)
            self._budget.give_back(len(stream.held))
            stream.held = None
