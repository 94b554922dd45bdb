"""One stream: its state, its windows, its queue of response data, and the buffer of its request's body."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, Protocol

from .errors import ErrorCode, StreamFailure
from .headers import Fields, RequestHead
from .priority import Priority
from .windows import ReceiveWindow

__all__ = ["BodyBuffer", "Source", "State", "Stream"]

DEFAULT_WEIGHT: Final = 16
_SMALL_PIECE = 1024
# A view keeps all of its object in memory: the last octets of a large response are copied.
_COPIED_REST = 131_072
_COPIED_SHARE = 8


class Source(Protocol):
    """Response data that is not in memory, and read when its turn to be sent comes."""

    def __len__(self) -> int:
        """The octets that are left."""

    def read(self, octets: int) -> bytes:
        """Take `octets` octets, at most as many as are left. Fewer mean that the rest is lost; never raises."""

    def close(self) -> None:
        """Free what is left; further calls have no effect. Never raises."""


class State(IntEnum):
    """A stream's state (RFC 9113 section 5.1); idle and reserved streams have no `Stream`.

    The order matters: the request has ended in HALF_CLOSED_REMOTE and above.
    """

    OPEN = 0
    HALF_CLOSED_LOCAL = 1
    """The response has ended; the request has not."""
    HALF_CLOSED_REMOTE = 2
    """The request has ended; the response has not."""
    CLOSED = 3


OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED = State

AFTER_REQUEST = (HALF_CLOSED_REMOTE, CLOSED, HALF_CLOSED_REMOTE, CLOSED)
"""The state that follows each state when the peer ends the stream."""
AFTER_RESPONSE = (HALF_CLOSED_LOCAL, HALF_CLOSED_LOCAL, CLOSED, CLOSED)
"""The state that follows each state when we end the stream."""


class Call(IntEnum):
    """The state of the application call for a stream."""

    NO_CALL = 0
    """No application sees the request: the core answers it."""
    HELD = 1
    """The core waits for the request's body; see `HeldRequests`."""
    RUNNING = 2
    RETURNED = 3


NO_CALL, HELD, RUNNING, RETURNED = Call


class Stream:
    """One request and its response.

    Drivers read `stream_id`, `head`, `weight`, `depends_on`, `queued` and `sent_at`, count in `kept`, and have an
    object of their own in `context`; the rest belongs to the core. Most streams are a request without a body and a
    response of one frame: fields that those do not need are class attributes, or created on first use.
    """

    weight: int = DEFAULT_WEIGHT
    """1 to 256 (RFC 7540 section 5.3.2)."""
    depends_on = 0
    """The identifier of the parent stream; 0 for none (RFC 7540 section 5.3.1)."""
    opened_at = 0.0
    """When the request arrived."""
    context: Any = None
    received = 0
    """Octets of the body received, without padding."""
    kept = 0
    """Octets of these that the application has read and the driver has not acknowledged yet."""
    held: bytearray | None = None
    """What has arrived of the body while the request is held."""
    call: Call = RUNNING
    continue_sent = False
    """Whether the client has been told to send the body that it announced (RFC 9110 section 10.1.1)."""
    head_sent = False
    """Whether the head of the final response has been sent."""
    end_queued = False
    """Whether the end of the response is queued."""
    queued = 0
    """Octets of response data not yet in frames."""
    stored = 0
    """Octets of these that are in sources, not in memory."""
    above_high_mark = False
    """Whether the application waits for StreamWritable."""
    drains = False
    """Whether StreamWritable is to come when the queue is empty, not at its low mark."""
    watched_octets = 0
    """Octets sent since the time in `Outbox.watched`."""
    priority: Priority | None = None
    """What has taken the place of the request's priority: a PRIORITY_UPDATE frame, or the response's field."""
    sent_at = 0.0
    """When queued response data was last put in a frame."""
    turn_tag = 0.0
    """See `Scheduler`."""
    trailers: Fields | None = None

    _queue: deque[bytes | memoryview | Source] | None = None
    _receive_window: ReceiveWindow | None = None

    def __init__(self, stream_id: int, head: RequestHead, state: State, send_window: int, receive_size: int) -> None:
        """`receive_size` is the initial size of the receive window."""
        self.stream_id = stream_id
        self.head = head
        self.state = state
        self.send_window = send_window
        self._receive_size = receive_size

    @property
    def current_priority(self) -> Priority:
        """The priority of the response, as the client or the response has stated it last."""
        return self.head.priority if self.priority is None else self.priority

    @property
    def queue(self) -> deque[bytes | memoryview | Source]:
        """Response data to send, in order."""
        if self._queue is None:
            self._queue = deque()
        return self._queue

    @property
    def receive_window(self) -> ReceiveWindow:
        """The window for the request's body."""
        if self._receive_window is None:
            self._receive_window = ReceiveWindow(self._receive_size)
        return self._receive_window

    def receive_whole_body(self, octets: int, length: int) -> bool:
        """Take a body of one frame, `length` octets with its padding; return False, with no effect, in any other case.

        No more DATA may follow, so no receive window is created.
        """
        declared = self.head.content_length
        if self.received or self._receive_window is not None or length > self._receive_size:
            return False
        if declared is not None and declared != octets:
            return False
        self.received = octets
        return True

    def receive(self, octets: int, end_stream: bool) -> None:
        """Count octets of the body. Raises StreamFailure if its length differs from content-length (section 8.1.1)."""
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
        """Whether a frame could be sent now, apart from the connection's window."""
        if self.queued:
            return self.send_window > 0
        return self.end_queued and not self.response_ended

    @property
    def has_reader(self) -> bool:
        """Whether an application may still read the body, if only once it is called."""
        return (self.call is RUNNING or self.call is HELD) and not self.response_ended

    def drop_queue(self) -> None:
        """Drop the queued response data."""
        if self.stored:
            for piece in self.queue:
                if not isinstance(piece, (bytes, memoryview)):
                    piece.close()
        self._queue = None
        self.queued = self.stored = 0

    def take_piece(self, size: int) -> bytes | memoryview:
        """Take up to `size` octets, of one piece, from a queue with sources; nothing if what comes next is lost."""
        first = self.queue[0]
        size = min(size, len(first))
        if isinstance(first, (bytes, memoryview)):
            return self.take(size)
        data = first.read(size)
        if len(data) < size:
            return b""
        self.queued -= size
        self.stored -= size
        if not len(first):
            self.queue.popleft()
            first.close()
        return data

    def withdraw(self, keep: int) -> tuple[list[bytes | memoryview], bool]:
        """Take back what is in memory behind the first `keep` octets of the queue, and behind its last source.

        Return it, with whether the end of the response was queued behind it, which is then queued no more.
        """
        queue, excess = self.queue, self.queued - keep
        pieces: deque[bytes | memoryview] = deque()
        while excess > 0 and queue and isinstance(queue[-1], (bytes, memoryview)):
            piece = queue.pop()
            assert isinstance(piece, (bytes, memoryview))
            if len(piece) > excess:
                view = memoryview(piece)
                # A view would keep all of a large piece in memory.
                queue.append(bytes(view[:-excess]))
                piece = view[-excess:]
            excess -= len(piece)
            self.queued -= len(piece)
            pieces.appendleft(piece)
        ended = self.end_queued and len(pieces) > 0
        if ended:
            self.end_queued = False
        return list(pieces), ended

    def store(self, keep: int, limit: int, store: Callable[[bytes | memoryview], Source | None]) -> int:
        """Move what is in memory behind the first `keep` octets of the queue into sources, `limit` octets at most.

        `store` makes the source of some octets, None if it cannot. Return how many octets it has taken.
        """
        rest, self._queue = self.queue, deque()
        before = self.stored
        while rest:
            piece = rest.popleft()
            if isinstance(piece, (bytes, memoryview)) and keep < len(piece) and self.stored - before < limit:
                if keep:
                    rest.appendleft(memoryview(piece)[keep:])
                    piece, keep = bytes(memoryview(piece)[:keep]), 0
                else:
                    piece = self._store_run(piece, rest, limit + before - self.stored, store)
            else:
                keep = max(keep - len(piece), 0)
            self._queue.append(piece)
        return self.stored - before

    def _store_run(
        self,
        first: bytes | memoryview,
        rest: deque[bytes | memoryview | Source],
        limit: int,
        store: Callable[[bytes | memoryview], Source | None],
    ) -> bytes | memoryview | Source:
        """Store the beginning of a queue; return what takes its place, and leave the `rest`."""
        run, size = [first], len(first)
        while rest and size < limit and isinstance(rest[0], (bytes, memoryview)):
            run.append(rest.popleft())  # type: ignore[arg-type]
            size += len(run[-1])
        octets = b"".join(run) if len(run) > 1 else first
        if size > limit:
            rest.appendleft(memoryview(octets)[limit:])
            octets = memoryview(octets)[:limit]
        source = store(octets)
        if source is None:
            return octets
        self.stored += len(octets)
        return source

    def take(self, size: int) -> bytes | memoryview:
        """Take `size` octets from a queue without sources, joining small pieces and slicing large ones."""
        queue: deque[bytes | memoryview] = self.queue  # type: ignore[assignment]
        self.queued -= size
        first = queue.popleft()
        if len(first) == size:
            return first
        if len(first) > size:
            view = memoryview(first)
            rest: bytes | memoryview = view[size:]
            if len(rest) <= _COPIED_REST and len(rest) * _COPIED_SHARE <= len(view.obj):  # type: ignore[arg-type]
                rest = bytes(rest)
            queue.appendleft(rest)
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
    """A request's body, which the connection appends to and the application takes from.

    The two may be in different threads, which a deque allows.
    """

    __slots__ = ("ended", "trailers", "_pieces")

    def __init__(self, ended: bool) -> None:
        self.ended = ended
        """Whether no more data will come."""
        self.trailers: Fields | None = None
        """The request's trailers, None without any; set before `ended`."""
        self._pieces: deque[bytes] = deque()

    def __len__(self) -> int:
        """The number of buffered pieces."""
        return len(self._pieces)

    def append(self, data: bytes) -> None:
        """Append a piece; small ones are joined, because each bytes object has an overhead of some forty octets."""
        pieces = self._pieces
        if len(data) < _SMALL_PIECE:
            # The application takes from the other end, and may have emptied the buffer meanwhile.
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
        """Take the next piece; b"" if there is none now."""
        try:
            return self._pieces.popleft()
        except IndexError:
            return b""

    def take_up_to(self, size: int) -> bytes:
        """Take pieces of at most `size` octets in total, or one larger piece; b"" if there is none now."""
        pieces = [self.take()]
        total = len(pieces[0])
        while self._pieces and total + len(self._pieces[0]) <= size:
            pieces.append(self._pieces.popleft())
            total += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
