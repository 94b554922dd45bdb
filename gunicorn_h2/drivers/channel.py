"""A request as its application sees it: a body to read, a response to write, each of which may block.

An application runs in a thread (or a greenlet) of its own; the connection belongs to its driver. So
a channel never touches the connection: what the application wants done is submitted to the driver,
and what the driver has to tell is left here. Each field has one writer, and a waiting application
looks again after every `wake`, so neither side takes a lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.stream import Stream

__all__ = ["Channel", "StreamAborted", "StreamOwner"]

_SMALL_PIECE = 1024

ResponseFields = Sequence[tuple[bytes, bytes]]


class StreamAborted(ConnectionAbortedError):
    """The client reset the stream, closed the connection or stalled: there is no one to talk to.

    Raised by reads of the request's body and by writes of the response. It is an `OSError`.

    Attributes:
        stream_id: of the stream, an odd number.
        code: the HTTP/2 error code (RFC 9113 section 7) that ended it, 8 (CANCEL) for a closed
            connection.
    """

    def __init__(self, stream_id: int, code: int, reason: str) -> None:
        super().__init__(f"HTTP/2 stream {stream_id}: {reason}")
        self.stream_id = stream_id
        self.code = code


class StreamOwner(Protocol):
    """What a channel needs of the connection's driver. Every `do_*` runs there, in order."""

    stream_buffer_size: int
    read_timeout: float | None
    """Seconds an application waits for the next piece of a body; None: for ever."""

    def submit(self, do: Callable[..., None], *arguments: Any) -> None:
        """Have `do(*arguments)` called by the thread that owns the connection."""

    def do_respond(self, channel: Channel, status: int, fields: ResponseFields, data: bytes, end_stream: bool) -> None:
        """Send the head of the response, and data."""

    def do_send(self, channel: Channel, data: bytes, end_stream: bool) -> None:
        """Send data."""

    def do_send_trailers(self, channel: Channel, fields: ResponseFields) -> None:
        """End the response with trailers."""

    def do_acknowledge(self, channel: Channel, octets: int) -> None:
        """Give the credit for a part of the body back."""

    def do_reset(self, channel: Channel, code: ErrorCode) -> None:
        """End the stream."""

    def do_finish(self, channel: Channel) -> None:
        """The application call has returned."""


class Channel:
    """One request and its response. `stream.head` is the request's head."""

    def __init__(self, owner: StreamOwner, stream: Stream, ended: bool) -> None:
        self.stream = stream
        self._owner = owner
        self._waiter: threading.Event | None = None
        # Written by the owner.
        self._body: deque[bytes] = deque()
        self._ended = ended
        self._aborted: StreamAborted | None = None
        self._accepted = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        # Written by the application.
        self._submitted = 0
        self._taken = 0
        self.expects_continue = stream.head.expects_continue and not ended
        self.responded = False
        self._completed = False

    # The owner's side

    def deliver(self, data: bytes, ended: bool) -> None:
        """A piece of the body has come."""
        if data:
            self._append(data)
        if ended:
            self._ended = True
        self.wake()

    def _append(self, data: bytes) -> None:
        """Join small pieces: an octet in a frame of its own would take fifty times its room."""
        if len(data) < _SMALL_PIECE and self._body:
            # The application takes from the other end; where it was faster, there is nothing to join.
            try:
                last = self._body.pop()
            except IndexError:
                last = b""
            if len(last) < _SMALL_PIECE:
                data = last + data
            else:
                self._body.append(last)
        self._body.append(data)

    def deliver_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """The body is complete, and these are its trailers."""
        self.trailers = fields
        self.deliver(b"", True)

    def abort(self, code: int, reason: str) -> None:
        """The stream is gone."""
        self._aborted = StreamAborted(self.stream.stream_id, code, reason)
        self.wake()

    def accept(self, octets: int) -> None:
        """The connection has taken over so much of what was submitted."""
        self._accepted += octets
        self.wake()

    def wake(self) -> None:
        """Let a waiting application look again."""
        waiter = self._waiter
        if waiter is not None:
            waiter.set()

    # The application's side

    @property
    def aborted(self) -> bool:
        """Whether the stream is gone."""
        return self._aborted is not None

    def read(self) -> bytes:
        """Return the next piece of the body as it came, or b"" at its end.

        Raises StreamAborted where the body will never be complete, the end of a response making the
        rest of it void; or where nothing comes for `read_timeout` seconds: the stream is reset with
        CANCEL then.
        """
        piece = self._next_piece()
        while not piece:
            self._return_credit()
            if self._ended:
                # What was put there before the end may have come since the last look.
                piece = self._next_piece()
                break
            self._wait_for_body()
            piece = self._next_piece()
        self._taken += len(piece)
        if self._taken * 2 >= self.stream.receive_window.size:
            self._return_credit()
        return piece

    def _wait_for_body(self) -> None:
        if self._completed:
            raise StreamAborted(self.stream.stream_id, ErrorCode.NO_ERROR, "the response is complete")
        if self.expects_continue:
            self.send_interim(100, ())
        if not self._wait(self._readable, self._owner.read_timeout):
            self._owner.submit(self._owner.do_reset, self, ErrorCode.CANCEL)
            self._aborted = StreamAborted(self.stream.stream_id, ErrorCode.CANCEL, "the client stopped sending")
        self._raise_if_aborted()

    def _next_piece(self) -> bytes:
        try:
            return self._body.popleft()
        except IndexError:
            return b""

    def send_interim(self, status: int, fields: ResponseFields) -> None:
        """Send a 1xx response (RFC 9113 section 8.1)."""
        self._raise_if_aborted()
        if status == 100:
            self.expects_continue = False
        if not self.responded:
            self._owner.submit(self._owner.do_respond, self, status, fields, b"", False)

    def respond(self, status: int, fields: ResponseFields, data: bytes, end_stream: bool) -> None:
        """Send the response's head together with its first data, names of fields in lower case.

        Waits while more than `stream_buffer_size` octets are queued. Raises StreamAborted.
        """
        self._raise_if_aborted()
        self.responded = True
        self._completed = end_stream
        self.expects_continue = False
        self._submitted += len(data)
        self._owner.submit(self._owner.do_respond, self, status, fields, data, end_stream)
        self._wait_for_room()

    def send(self, data: bytes, end_stream: bool) -> None:
        """Send more of the response's data; waits and raises as `respond` does."""
        self._raise_if_aborted()
        self._completed = end_stream
        self._submitted += len(data)
        self._owner.submit(self._owner.do_send, self, data, end_stream)
        self._wait_for_room()

    def send_trailers(self, fields: ResponseFields) -> None:
        """End the response with a trailer section. Raises StreamAborted."""
        self._raise_if_aborted()
        self._owner.submit(self._owner.do_send_trailers, self, fields)

    def reset(self, code: ErrorCode) -> None:
        """End the stream where a response cannot be completed."""
        self._owner.submit(self._owner.do_reset, self, code)

    def finish(self) -> None:
        """The application call has returned; must be called once, last."""
        self._owner.submit(self._owner.do_finish, self)

    def _readable(self) -> bool:
        return bool(self._body) or self._ended or self._aborted is not None

    def _has_room(self) -> bool:
        outstanding = self._submitted - self._accepted + self.stream.queued
        return outstanding <= self._owner.stream_buffer_size or self._aborted is not None

    def _wait_for_room(self) -> None:
        if not self._has_room():
            # The core resets a stream that makes no progress, so this wait has an end.
            self._wait(self._has_room, None)
            self._raise_if_aborted()

    def _raise_if_aborted(self) -> None:
        if self._aborted is not None:
            raise self._aborted

    def _return_credit(self) -> None:
        if self._taken:
            taken, self._taken = self._taken, 0
            self._owner.submit(self._owner.do_acknowledge, self, taken)

    def _wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `ready`; False where `timeout` seconds pass first."""
        if ready():
            return True
        # From here on the owner sees the waiter, so a change after the next look sets it.
        self._waiter = waiter = threading.Event()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not ready():
                if not waiter.wait(None if deadline is None else deadline - time.monotonic()):
                    return ready()
                waiter.clear()
        finally:
            self._waiter = None
        return True
