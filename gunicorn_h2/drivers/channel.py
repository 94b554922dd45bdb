"""A request as its application sees it: a body to read, a response to write, each of which may block.

An application runs in a thread (or a greenlet) of its own; the connection belongs to its driver. So a channel never
touches the connection: it submits the application's calls to the driver, and the driver leaves data and events in the
channel. Each field has one writer, and a waiting application checks its condition after every `wake`, so no
lock is needed. One thread of the application may read while another one writes.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

from gunicorn_h2.protocol.errors import ErrorCode, StreamLimit
from gunicorn_h2.protocol.headers import Fields, ResponseHead, check_response_trailers
from gunicorn_h2.protocol.stream import BodyBuffer, Source, Stream

from .spool import BLOCK_SIZE, Spool
from .waiting import ThreadCount, wait

__all__ = [
    "CONTINUE",
    "MAX_STALL_CHECK_SECONDS",
    "SPOOLED_SIZE",
    "STALL_CHECK_SECONDS",
    "HURRIED_CHECK_SECONDS",
    "Channel",
    "StreamAborted",
    "StreamOwner",
]

_STALL_MOMENT = 0.1
"""Seconds for which a thread that writes is not replaced, but learns whether its client has stalled: another one would
make as large a response."""
CONTINUE = ResponseHead(100, ())
"""The interim response for a client that sent `Expect: 100-continue`."""
SPOOLED_SIZE = 65_536
"""The octets beyond `stream_buffer_size` for which the spool is used; fewer are not worth a write."""
STALL_CHECK_SECONDS = 0.01
"""How long a write waits before it looks whether the client has stalled; later checks are ever further apart."""
MAX_STALL_CHECK_SECONDS = 1.0
HURRIED_CHECK_SECONDS = 0.002
"""As `STALL_CHECK_SECONDS`, while requests wait for a thread."""
# Media types of responses that go on for as long as they are read: to store them takes all the room there is, and what
# is stored is out of date when it is read.
_ENDLESS_TYPES = (b"text/event-stream", b"multipart/x-mixed-replace", b"application/grpc")
# A write of this size goes to the spool by itself, if the client has stalled before.
_LARGE_WRITE = BLOCK_SIZE
_PIECE_SIZE = 1_048_576
_NO_BODY = BodyBuffer(ended=True)


class StreamAborted(ConnectionAbortedError):
    """The client reset the stream, closed the connection or stalled.

    Raised by reads of the request's body and by writes of the response. It is an `OSError`.

    Attributes:
        stream_id: the stream's identifier, an odd number.
        code: the HTTP/2 error code (RFC 9113 section 7) that ended it; 8 (CANCEL) for a closed
            connection.
    """

    def __init__(self, stream_id: int, code: int, reason: str) -> None:
        super().__init__(f"HTTP/2 stream {stream_id}: {reason}")
        self.stream_id = stream_id
        self.code = code


class StreamOwner(Protocol):
    """What a channel needs from the connection's driver. Every `do_*` runs in the owner, in order."""

    stream_buffer_size: int
    window_size: int
    """The receive window of a stream as configured, in octets, before it grows."""
    response_spool_size: int
    """Octets of a response that may be in the spool."""
    spool: Spool
    read_timeout: float | None
    """Seconds that an application waits for the next piece of a body; None: no limit."""

    @property
    def thread_count(self) -> ThreadCount | None:
        """What is told of long waits; None where any number of applications may wait."""

    @property
    def submit(self) -> Callable[..., None]:
        """`submit(owner, do, *arguments)` has the owner's thread call `do(*arguments)`; callable from any thread."""

    @property
    def submit_last(self) -> Callable[..., None]:
        """As `submit`, for the end of a response; the calling thread may act as the owner for that moment."""

    @property
    def submit_reply(self) -> Callable[..., None]:
        """As `submit`, for what answers something that was read; as with `submit_last`, the calling thread may act."""

    @property
    def prepare_wait(self) -> Callable[[Callable[[], bool]], bool]:
        """`prepare_wait(ready)`, for a thread about to wait, returns `ready()`; False: the owner runs without it."""

    def is_stalled(self, stream: Stream, in_a_hurry: bool = False) -> bool:
        """Whether the client has taken nothing of a response for a moment; callable from any thread."""

    def do_send_headers(self, stream: Stream, head: ResponseHead) -> None:
        """Send an interim response, or the head of the response."""

    def do_send_response(
        self, channel: Channel, stream: Stream, head: ResponseHead, data: bytes, end_stream: bool
    ) -> None:
        """Send a response's head and its first data, or all of it."""

    def do_send_data(self, channel: Channel, stream: Stream, data: bytes, end_stream: bool) -> None:
        """Send data."""

    @property
    def act_now(self) -> Callable[..., None]:
        """`act_now(owner)`, for a thread that has submitted much: the owner may act before any other call runs."""

    def do_send_source(self, channel: Channel, stream: Stream, source: Source, end_stream: bool) -> None:
        """Send data from a source."""

    def do_withdraw(self, channel: Channel, stream: Stream) -> None:
        """Give what is queued beyond the buffer back to the channel: call its `take_withdrawn`."""

    def do_await_empty(self, channel: Channel, stream: Stream) -> None:
        """Wake the channel when nothing is queued."""

    def do_send_trailers(self, stream: Stream, fields: Fields) -> None:
        """End the response with trailers, which are validated already."""

    def do_send_with_trailers(
        self, channel: Channel, stream: Stream, head: ResponseHead, data: bytes, fields: Fields
    ) -> None:
        """Send a whole response that ends with trailers, which are validated already."""

    def do_cut_short(self, channel: Channel, stream: Stream, head: ResponseHead, fields: Fields) -> None:
        """End the response for its application; see `ServerConnection.cut_short`."""

    def do_acknowledge(self, stream: Stream, octets: int) -> None:
        """Return the credit for octets of the body."""

    def do_reset(self, stream: Stream, code: ErrorCode) -> None:
        """End the stream."""

    def do_give_up(self, stream: Stream) -> None:
        """End the stream, because its client has stopped sending."""

    def do_finish(self, stream: Stream) -> None:
        """The application call has returned."""


class Channel:
    """One request and its response. `stream.head` is the request's head.

    Most requests have no body and get their response in one step: what those do not need is a default of the class.
    """

    trailers: Fields | None = None
    """The request's trailers, None without any; set at the end of the body."""
    expects_continue = False
    responded = False
    """Whether the response has begun."""
    complete = False
    """Whether the response has ended."""
    aborted = False
    """Whether the stream was reset, or the connection is gone."""
    has_body = False
    """Whether the request has a body or trailers."""
    starving_since = math.inf
    """Since when the application has waited for more of the body; infinite while it does not."""
    limits_reads = True
    """Whether the client must send something every `read_timeout` seconds while the application reads."""

    # Written by the owner.
    _cause = 0, ""  # The error code and the reason of the abort.
    _accepted = 0
    _accepted_sources = 0
    _withdrawn: tuple[list[bytes | memoryview], bool] | None = None
    # Written by the application.
    _endless = False  # See `_is_endless`.
    _wrote_at = 0.0  # When the last write returned whose client had not taken everything before.
    _submitted = 0
    _submitted_sources = 0
    _replies = False  # Whether it has read something since it has last sent something.
    _whole_body = b""
    _returned = False
    _reader: threading.Event | None = None
    _writer: threading.Event | None = None
    # Taken out by the thread that calls it.
    _on_abort: Callable[[], object]

    def __init__(self, owner: StreamOwner, stream: Stream, ended: bool, body: bytes = b"") -> None:
        """`body` is the whole body of a request that has `ended`."""
        self.stream = stream
        self._owner = owner
        if ended:
            self._body = _NO_BODY
            if body:
                self.has_body = True
                self._whole_body = body
        else:
            self.has_body = True
            self._body = BodyBuffer(ended=False)
            self.expects_continue = stream.head.expects_continue

    # The owner's side

    def deliver(self, data: bytes, ended: bool) -> None:
        """Add a piece of the body."""
        body = self._body
        if data:
            body.append(data)
        if ended:
            body.ended = True
        reader = self._reader
        if reader is not None:
            reader.set()

    def deliver_trailers(self, fields: Fields) -> None:
        """End the body, with its trailers."""
        self.trailers = fields
        self.deliver(b"", True)

    def abort(self, code: int, reason: str) -> bool:
        """Note that the stream is gone; return whether the application call has returned already."""
        self._cause = (code, reason)
        self.aborted = True
        self.wake()
        self._announce_abort()
        return self._returned

    def accept(self, octets: int) -> None:
        """Note that the connection has processed octets that were submitted."""
        self._accepted += octets
        self.wake()

    def accept_source(self, octets: int) -> None:
        """Note that the connection has a source that was submitted."""
        self._accepted_sources += octets

    def take_withdrawn(self, pieces: list[bytes | memoryview], ended: bool) -> None:
        """Take back what was queued in memory, and whether the end of the response was queued behind it."""
        self._withdrawn = pieces, ended
        self.wake()

    def wake(self) -> None:
        """Wake a waiting application, which checks its condition again."""
        reader, writer = self._reader, self._writer
        if reader is not None:
            reader.set()
        if writer is not None:
            writer.set()

    def _announce_abort(self) -> None:
        # Either the owner or the application finds the callback.
        callback = self.__dict__.pop("_on_abort", None)
        if callback is not None:
            callback()

    # The application's side

    def on_abort(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called once if the stream is aborted, at once if it is already.

        The owner calls it: it must neither wait nor raise. A second callback replaces the first.
        """
        self._on_abort = callback
        if self.aborted:
            self._announce_abort()

    def read(self) -> bytes:
        """Return the next piece of the body as it arrived, or b"" at the end.

        Raises StreamAborted if the body will never be complete, which includes any read after the end of the
        response; or if nothing arrives for `read_timeout` seconds, after which the stream is reset with CANCEL.
        """
        body = self._body
        piece = body.take() or self._take_whole_body()
        while not piece:
            # Less can wait, for as long as most of the window is left: to return it is work for the owner.
            self._return_credit(4)
            if body.ended:
                # The last piece may have been added since the check above, and before `ended` was set.
                piece = body.take()
                break
            self._wait_for_body()
            piece = body.take()
        self.stream.kept += len(piece)
        self._replies = True
        if not body.ended:
            self._return_credit(2)
        return piece

    def take_complete_body(self) -> bytes | None:
        """Return the body if all of it has arrived, in one piece and without trailers; else None."""
        body = self._body
        if body is _NO_BODY:
            return self._take_whole_body()
        return body.take() if body.ended and len(body) == 1 and self.trailers is None else None

    def _take_whole_body(self) -> bytes:
        body, self._whole_body = self._whole_body, b""
        return body

    def _wait_for_body(self) -> None:
        if self.complete or self._returned:
            raise StreamAborted(self.stream.stream_id, ErrorCode.NO_ERROR, "the response is complete")
        if self.expects_continue:
            self.send_interim(CONTINUE)
        self.starving_since = time.monotonic()
        timeout = self._owner.read_timeout if self.limits_reads else None
        try:
            arrived = self._wait(self._readable, timeout, role="_reader")
        finally:
            self.starving_since = math.inf
        if not arrived:
            self._owner.submit(self._owner, self._owner.do_give_up, self.stream)
            self.abort(ErrorCode.CANCEL, StreamLimit.BODY_TIMEOUT)
        self._raise_if_aborted()
        if self._returned and not self._body and not self._body.ended:
            raise StreamAborted(self.stream.stream_id, ErrorCode.NO_ERROR, "the application call has returned")

    def send_interim(self, head: ResponseHead) -> None:
        """Send a 1xx response (RFC 9113 section 8.1); does nothing after the response's head."""
        self._raise_if_aborted()
        if head.status == 100:
            self.expects_continue = False
        if not self.responded:
            self._owner.submit(self._owner, self._owner.do_send_headers, self.stream, head)

    def respond(self, head: ResponseHead, data: bytes, end_stream: bool) -> None:
        """Send the response's head together with its first data.

        Waits while more than `stream_buffer_size` octets are queued, until they are in the spool if the client stalls.
        Raises StreamAborted.
        """
        if self.aborted:
            self._raise_if_aborted()
        owner = self._owner
        self.responded = True
        self.expects_continue = False
        self._submitted = len(data)
        if end_stream:
            self.complete = True
            owner.submit_last(owner, owner.do_send_response, self, self.stream, head, data, True)
            if len(data) <= owner.stream_buffer_size:
                # The data fits the queue, so there is nothing to wait for.
                return
        else:
            self._endless = _is_endless(head)
            owner.submit(owner, owner.do_send_response, self, self.stream, head, data, False)
        self._wait_for_room()

    def send(self, data: bytes, end_stream: bool) -> None:
        """Send more of the response's data; waits and raises as `respond` does."""
        self._raise_if_aborted()
        if self.stream.queued and data:
            self._keep_pace()
        self.complete = end_stream
        if not (self.stream.stored and len(data) >= _LARGE_WRITE and self._spool(data, end_stream)):
            self._submitted += len(data)
            submit = self._owner.submit_reply if self._replies else self._owner.submit
            self._replies = False
            submit(self._owner, self._owner.do_send_data, self, self.stream, data, end_stream)
            self._wait_for_room()
        if self.stream.queued:
            self._wrote_at = time.monotonic()

    def send_source(self, source: Source) -> None:
        """Send the rest of the response from a source, without waiting; it is closed whatever happens."""
        self.complete = True
        self._submitted_sources += len(source)
        self._owner.submit_last(self._owner, self._owner.do_send_source, self, self.stream, source, True)

    def send_trailers(self, fields: Fields) -> None:
        """End the response with a trailer section. Raises StreamAborted or InvalidResponse."""
        self._raise_if_aborted()
        check_response_trailers(fields)
        self.complete = True
        self._owner.submit(self._owner, self._owner.do_send_trailers, self.stream, fields)

    def respond_with_trailers(self, head: ResponseHead, data: bytes, fields: Fields) -> None:
        """Send a whole response that ends with trailers; waits and raises as `respond` does, or InvalidResponse."""
        self._raise_if_aborted()
        check_response_trailers(fields)
        owner = self._owner
        self.responded = self.complete = True
        self.expects_continue = False
        self._submitted = len(data)
        owner.submit_last(owner, owner.do_send_with_trailers, self, self.stream, head, data, fields)
        if len(data) > owner.stream_buffer_size:
            self._wait_for_room()

    def cut_short(self, head: ResponseHead, fields: Fields) -> None:
        """End the response although the application goes on: what it does with the stream raises StreamAborted then.

        `head` is a whole response, for a client that has not got one yet; the trailers `fields` end one that has
        begun. Any thread may call this; it has no effect on a response that has ended. Raises InvalidResponse.
        """
        check_response_trailers(fields)
        self._owner.submit(self._owner, self._owner.do_cut_short, self, self.stream, head, fields)

    def reset(self, code: ErrorCode) -> None:
        """Reset the stream, because the response cannot be completed."""
        self._owner.submit(self._owner, self._owner.do_reset, self.stream, code)

    def finish(self) -> None:
        """The application call has returned; must be called once, last.

        The core does not need to know if request and response are both complete. If the stream is aborted at the
        same moment, this method sees it, or `abort` sees that the call has returned, or both.
        """
        self._returned = True
        reader = self._reader
        if reader is not None:
            # Another thread of the application still reads.
            reader.set()
        if self.aborted or not self._body.ended or not self.complete:
            self._owner.submit(self._owner, self._owner.do_finish, self.stream)
        else:
            self.stream.context = None  # They would keep each other alive.

    def _readable(self) -> bool:
        return bool(self._body) or self._body.ended or self.aborted or self._returned

    def _has_room(self) -> bool:
        outstanding = self._submitted - self._accepted + self.stream.queued
        return outstanding <= self._owner.stream_buffer_size or self.aborted

    def _wait_for_room(self) -> None:
        if self._has_room() or (self.stream.stored and self._spool_excess()):
            return
        # The core resets a stream that makes no progress, so these waits have an end.
        if self._endless:
            self._wait(self._has_room, None)
        else:
            self._wait_or_spool()
        self._raise_if_aborted()

    def _wait_or_spool(self) -> None:
        """Wait until there is room, or the client has stalled and what is too much is in the spool."""
        owner, threads = self._owner, self._owner.thread_count
        owner.act_now(owner)
        patience = STALL_CHECK_SECONDS
        while not self._has_room():
            in_a_hurry = threads is not None and threads.is_short
            if not owner.is_stalled(self.stream, in_a_hurry):
                self._wait(self._has_room, HURRIED_CHECK_SECONDS if in_a_hurry else patience, _STALL_MOMENT)
            elif self._spool_excess():
                return
            else:
                # Without room in the spool there is nothing left to learn.
                self._wait(self._has_room, patience)
            patience = min(2 * patience, MAX_STALL_CHECK_SECONDS)

    def _keep_pace(self) -> None:
        """If the application is slow itself, wait until a client that has stalled has taken what was written before.

        An application that would go on for hours, as event streams do, must not do so for a client that does not
        read, and its next event is better sent when it is read.
        """
        owner, stream = self._owner, self.stream
        if self._wrote_at and time.monotonic() - self._wrote_at > STALL_CHECK_SECONDS and owner.is_stalled(stream):
            owner.submit(owner, owner.do_await_empty, self, stream)
            self._wait(self._is_empty, None)
            self._raise_if_aborted()

    def _is_empty(self) -> bool:
        return not self.stream.queued or self.aborted

    def _spool_excess(self) -> bool:
        """Keep little more than the buffer in memory, and the rest in the spool; return False if it has no room."""
        owner, stream = self._owner, self.stream
        excess = self._submitted - self._accepted + stream.queued - stream.stored - owner.stream_buffer_size
        if excess <= SPOOLED_SIZE:
            return self._may_spool(1)
        if not self._may_spool(excess):
            return False
        owner.submit(owner, owner.do_withdraw, self, stream)
        try:
            owner.act_now(owner)
            self._wait(self._has_withdrawn, None)
        except BaseException:  # gevent.Timeout, for instance.
            # What may be withdrawn now would be missing in the response.
            self.reset(ErrorCode.INTERNAL_ERROR)
            raise
        self._raise_if_aborted()
        assert self._withdrawn is not None
        (pieces, ended), self._withdrawn = self._withdrawn, None
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._spool(data, ended):
            return True
        self._submitted += len(data)
        owner.submit(owner, owner.do_send_data, self, stream, data, ended)
        return False

    def _has_withdrawn(self) -> bool:
        return self._withdrawn is not None or self.aborted

    def _may_spool(self, octets: int) -> bool:
        """Whether the spool may have room for so much more of this response."""
        spooled = self._submitted_sources - self._accepted_sources + self.stream.stored
        fits = not self._endless and spooled + octets <= self._owner.response_spool_size
        return fits and self._owner.spool.has_room

    def _spool(self, data: bytes | memoryview, end_stream: bool) -> bool:
        """Send data by the spool; return False, with no effect, if it has no room."""
        if not self._may_spool(len(data)):
            return False
        owner, view = self._owner, memoryview(data)
        sources: list[Source] = []
        for start in range(0, len(view), _PIECE_SIZE):
            source = owner.spool.store(view[start : start + _PIECE_SIZE])
            if source is None:
                for written in sources:
                    written.close()
                return False
            sources.append(source)
        self._submitted_sources += len(view)
        for number, stored in enumerate(sources, 1):
            ends = end_stream and number == len(sources)
            owner.submit(owner, owner.do_send_source, self, self.stream, stored, ends)
        return True

    def _raise_if_aborted(self) -> None:
        if self.aborted:
            # A new one each time: one that was kept would lead to the frames that it was raised in, and so to itself.
            raise StreamAborted(self.stream.stream_id, *self._cause)

    def _return_credit(self, share: int) -> None:
        """Return credit if it is one `share`th of the window or more; a complete body needs no more."""
        owner, stream = self._owner, self.stream
        # The client's SETTINGS ACK may make the window smaller at any time.
        if stream.kept * share >= min(stream.receive_window.size, owner.window_size) and not self._body.ended:
            octets, stream.kept = stream.kept, 0
            owner.submit(owner, owner.do_acknowledge, stream, octets)

    def _wait(
        self, ready: Callable[[], bool], timeout: float | None, moment: float = 0.0, role: str = "_writer"
    ) -> bool:
        """Wait as `_writer` or `_reader`; see `wait`."""
        if ready() or self._owner.prepare_wait(ready):
            return True
        # From here on the owner sees the waiter, and sets it for any change after the next check.
        waiter = threading.Event()
        setattr(self, role, waiter)
        try:
            return wait(self._owner.thread_count, waiter, ready, timeout, moment)
        finally:
            setattr(self, role, None)


def _is_endless(head: ResponseHead) -> bool:
    """Whether a response may go on for as long as its client reads, so that the spool is not for it."""
    return any(name == b"content-type" and value.startswith(_ENDLESS_TYPES) for name, value in head.fields)
