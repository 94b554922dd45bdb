"""One stream: its state, its windows, its queue of response data, and the buffer for its request's body."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, Final

from .errors import ErrorCode, StreamFailure
from .headers import Fields, RequestHead
from .windows import ReceiveWindow

__all__ = ["BodyBuffer", "State", "Stream"]

DEFAULT_WEIGHT: Final = 16
_SMALL_PIECE = 1024


class State(IntEnum):
    """A stream's state (RFC 9113 section 5.1); idle and reserved streams have no `Stream`.

    The states in which the request has ended are the two highest.
    """

    OPEN = 0
    HALF_CLOSED_LOCAL = 1
    """The response has ended; octets of the request may still come."""
    HALF_CLOSED_REMOTE = 2
    """The request has ended; the response is still to come."""
    CLOSED = 3


OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED = State

AFTER_REQUEST = (HALF_CLOSED_REMOTE, CLOSED, HALF_CLOSED_REMOTE, CLOSED)
"""The state that follows each state when the peer ends the stream."""
AFTER_RESPONSE = (HALF_CLOSED_LOCAL, HALF_CLOSED_LOCAL, CLOSED, CLOSED)
"""The state that follows each state when we end the stream."""


class Call(IntEnum):
    """How far the application's call for a stream is."""

    NO_CALL = 0
    """No application sees this request."""
    RUNNING = 1
    RETURNED = 2


NO_CALL, RUNNING, RETURNED = Call


class Stream:
    """One request and its response.

    Drivers read `stream_id`, `head`, `weight`, `depends_on` and `queued`, and keep what is theirs in
    `context`; the rest belongs to the core. Most streams are a request without a body and a response
    of one frame, so what those do not need is a default of the class, or made when it is first asked for.
    """

    weight: int = DEFAULT_WEIGHT
    """1 to 256 (RFC 7540 section 5.3.2)."""
    depends_on = 0
    context: Any = None
    received = 0
    """Octets of the body that have come."""
    call: Call = RUNNING
    head_sent = False
    """Whether the final response's head is out."""
    end_queued = False
    """Whether nothing more will be queued."""
    queued = 0
    """Octets of response data that are not yet in frames."""
    above_high_mark = False
    """Whether the application has to wait before it queues more."""
    scheduled = False
    """Whether the stream has a turn to come."""
    trailers: Fields | None = None

    _queue: deque[memoryview | bytes] | None = None
    _receive_window: ReceiveWindow | None = None

    def __init__(self, stream_id: int, head: RequestHead, state: State, send_window: int, receive_size: int) -> None:
        """`receive_size` is the initial size of the receive window."""
        self.stream_id = stream_id
        self.head = head
        self.state = state
        self.send_window = send_window
        self._receive_size = receive_size

    @property
    def queue(self) -> deque[memoryview | bytes]:
        """Response data in its order."""
        if self._queue is None:
            self._queue = deque()
        return self._queue

    @property
    def receive_window(self) -> ReceiveWindow:
        """What of the body may still come."""
        if self._receive_window is None:
            self._receive_window = ReceiveWindow(self._receive_size)
        return self._receive_window

    def receive_whole_body(self, octets: int, length: int) -> bool:
        """A body came in one frame of `length`; False, and nothing done, where it is not that simple.

        Its window is of no more use, and is not made.
        """
        declared = self.head.content_length
        if self.received or self._receive_window is not None or length > self._receive_size:
            return False
        if declared is not None and declared != octets:
            return False
        self.received = octets
        return True

    def receive(self, octets: int, end_stream: bool) -> None:
        """So much of the body came. Raises StreamFailure where it is not as long as content-length (section 8.1.1)."""
        self.received = received = self.received + octets
        declared = self.head.content_length
        if declared is not None and (received > declared or (end_stream and received != declared)):
            raise StreamFailure(self.stream_id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as content-length")

    @property
    def request_ended(self) -> bool:
        """Whether the peer has ended the stream."""
        return self.state >= HALF_CLOSED_REMOTE

    @property
    def response_ended(self) -> bool:
        """Whether we have ended the stream."""
        return self.state in (HALF_CLOSED_LOCAL, CLOSED)

    @property
    def sendable(self) -> bool:
        """Whether a frame could go out now, the connection's window left aside."""
        if self.queued:
            return self.send_window > 0
        return self.end_queued and not self.response_ended

    @property
    def has_reader(self) -> bool:
        """Whether there is an application that may read the body."""
        return self.call is RUNNING and not self.response_ended

    def drop_queue(self) -> None:
        """Drop what is queued."""
        self._queue = None
        self.queued = 0

    def take(self, size: int) -> bytes | memoryview:
        """Take `size` octets off the queue, joining small pieces and slicing large ones."""
        queue = self.queue
        self.queued -= size
        first = queue.popleft()
        if len(first) == size:
            return first
        if len(first) > size:
            view = memoryview(first)
            queue.appendleft(view[size:])
            return view[:size]
        pieces: list[bytes | memoryview] = [first]
        missing = size - len(first)
        while missing:
            piece = queue.popleft()
            if len(piece) > missing:
                view = memoryview(piece)
                queue.appendleft(view[missing:])
                piece = view[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


class BodyBuffer:
    """A request's body between the connection, which fills it, and the application, which empties it.

    Each may be in a thread of its own: one appends, the other takes, and deques allow that.
    """

    __slots__ = ("ended", "trailers", "_pieces")

    def __init__(self, ended: bool) -> None:
        self.ended = ended
        """Whether no more will come."""
        self.trailers: Fields | None = None
        """The request's trailers, where it had any; set before `ended`."""
        self._pieces: deque[bytes] = deque()

    def __len__(self) -> int:
        """How many pieces there are now."""
        return len(self._pieces)

    def append(self, data: bytes) -> None:
        """Add a piece, joined to a small one before it: an octet alone would take fifty times its room."""
        pieces = self._pieces
        if len(data) < _SMALL_PIECE:
            # The application takes from the other end; where it was faster, there is nothing to join.
            try:
                last = pieces.pop()
            except IndexError:
                last = b""
            if len(last) < _SMALL_PIECE:
                data = last + data
            else:
                pieces.append(last)
        pieces.append(data)

    def take(self) -> bytes:
        """Take the next piece; b"" where there is none now."""
        try:
            return self._pieces.popleft()
        except IndexError:
            return b""

    def take_up_to(self, size: int) -> bytes:
        """Take pieces that hold `size` octets together, or one that is larger; b"" where there is none now."""
        pieces = [self.take()]
        total = len(pieces[0])
        while self._pieces and total + len(self._pieces[0]) <= size:
            pieces.append(self._pieces.popleft())
            total += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
