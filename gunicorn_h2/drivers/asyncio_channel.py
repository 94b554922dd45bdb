"""A request as its task sees it: a body to wait for, a response to write.

Task and connection run in one event loop, so a channel acts on the core at once. It never writes:
the connection does, once for everything that happened in a turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.stream import Stream

from .channel import StreamAborted

__all__ = ["AsyncChannel", "AsyncStreamOwner"]

ResponseFields = Sequence[tuple[bytes, bytes]]
_PIECE_SIZE = 65_536
_SMALL_PIECE = 1024


class AsyncStreamOwner(Protocol):
    """What a channel needs of its connection."""

    loop: asyncio.AbstractEventLoop
    core: ServerConnection
    read_timeout: float | None
    """Seconds a task waits for the next piece of a body; None: for ever."""

    def schedule_flush(self) -> None:
        """Write what there is once this turn of the event loop is over."""

    def call_before_flush(self, call: Callable[[], None]) -> None:
        """Have `call()` called before anything more is written."""

    def finish(self, channel: AsyncChannel) -> None:
        """The task is done: nobody will read what is left of the body."""


class AsyncChannel:
    """One request and its response. `stream.head` is the request's head."""

    __slots__ = (
        "_aborted",
        "_body",
        "_core",
        "_ended",
        "_owner",
        "_waiters",
        "complete",
        "expects_continue",
        "stream",
        "task",
        "trailers",
    )

    def __init__(self, owner: AsyncStreamOwner, stream: Stream, ended: bool) -> None:
        self.stream = stream
        self.task: asyncio.Task[object] | None = None
        self.trailers: list[tuple[bytes, bytes]] | None = None
        """The request's trailers, where it had any; known at the end of the body."""
        self.complete = False
        """Whether the response was sent to its end."""
        self.expects_continue = stream.head.expects_continue and not ended
        self._owner = owner
        self._core = owner.core
        self._body: deque[bytes] = deque()
        self._ended = ended
        self._aborted: tuple[int, str] | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # The connection's side

    def deliver(self, data: bytes, ended: bool) -> None:
        """A piece of the body has come."""
        if data:
            self._append(data)
        self._ended = self._ended or ended
        self.wake()

    def _append(self, data: bytes) -> None:
        """Join small pieces: an octet in a frame of its own would take forty times its room."""
        if self._body and len(data) < _SMALL_PIECE and len(self._body[-1]) < _SMALL_PIECE:
            self._body[-1] += data
        else:
            self._body.append(data)

    def deliver_trailers(self, fields: list[tuple[bytes, bytes]]) -> None:
        """The body is complete, and these are its trailers."""
        self.trailers = fields
        self.deliver(b"", True)

    def abort(self, code: int, reason: str) -> None:
        """The stream is gone."""
        self._aborted = (code, reason)
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # The application's side

    @property
    def aborted(self) -> bool:
        """Whether the stream is gone."""
        return self._aborted is not None

    @property
    def at_end(self) -> bool:
        """Whether the whole body has been read."""
        return self._ended and not self._body

    @property
    def congested(self) -> bool:
        """Whether more is queued than should be: `drain` before sending more."""
        return self.stream.above_high_mark

    async def read(self) -> bytes:
        """Return the next piece of the body, b"" at its end. Gives its credit back.

        Raises StreamAborted where the body will never be complete, or nothing comes for
        `read_timeout` seconds; the stream is reset with CANCEL then.
        """
        while not self._body and not self._ended:
            self._raise_if_aborted()
            if self.expects_continue:
                self.send_interim(100, ())
            await self._wait_for_body()
        return self._take() if self._body else b""

    async def wait_over(self) -> None:
        """Return when the response is complete, or the stream gone."""
        while not self.complete and self._aborted is None:
            await self._wait()

    async def drain(self) -> None:
        """Return when the queue has fallen to its low mark. Raises StreamAborted."""
        # The core resets a stream that makes no progress, so this wait has an end.
        while self.stream.above_high_mark and self._aborted is None:
            await self._wait()
        self._raise_if_aborted()

    def call_before_flush(self, call: Callable[[], None]) -> None:
        """Have `call()` called when the task waits for something, or its turn is over otherwise."""
        self._owner.call_before_flush(call)

    def send_interim(self, status: int, fields: ResponseFields) -> None:
        """Send a 1xx response (RFC 9113 section 8.1). Raises StreamAborted or InvalidResponse.

        Only a 100 makes the client send the body that it holds back (RFC 9110 section 10.1.1).
        """
        self._raise_if_aborted()
        if status == 100:
            self.expects_continue = False
        self._core.send_headers(self.stream, status, fields, False)
        self._owner.schedule_flush()

    def respond(self, status: int, fields: ResponseFields, data: bytes, end_stream: bool) -> None:
        """Send the response's head with its first data, names of fields in lower case.

        Raises StreamAborted, or InvalidResponse with nothing sent.
        """
        self._raise_if_aborted()
        self.expects_continue = False
        if end_stream:
            self._core.send_response(self.stream, status, fields, data)
            self._note_complete()
        else:
            self._core.send_headers(self.stream, status, fields, False)
            self._core.send_data(self.stream, data, False)
        self._owner.schedule_flush()

    def send(self, data: bytes, end_stream: bool) -> None:
        """Send more of the response's data. Raises StreamAborted."""
        self._raise_if_aborted()
        self._core.send_data(self.stream, data, end_stream)
        if end_stream:
            self._note_complete()
        self._owner.schedule_flush()

    def send_trailers(self, fields: ResponseFields) -> None:
        """End the response with a trailer section. Raises StreamAborted or InvalidResponse."""
        self._raise_if_aborted()
        self._core.send_trailers(self.stream, fields)
        self._note_complete()
        self._owner.schedule_flush()

    def reset(self, code: ErrorCode) -> None:
        """End the stream where a response cannot be completed."""
        self._core.reset(self.stream, code)
        self.abort(code, "the stream was reset")
        self._owner.schedule_flush()

    def finish(self) -> None:
        """The application call has returned; must be called once, last."""
        self._owner.finish(self)

    def _note_complete(self) -> None:
        self.complete = True
        self.wake()

    def _take(self) -> bytes:
        """The pieces that have come, joined: fewer and larger messages are less work for everyone."""
        pieces = [self._body.popleft()]
        size = len(pieces[0])
        while self._body and size < _PIECE_SIZE:
            pieces.append(self._body.popleft())
            size += len(pieces[-1])
        self._core.acknowledge(self.stream, size)
        self._owner.schedule_flush()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _raise_if_aborted(self) -> None:
        if self._aborted is not None:
            raise StreamAborted(self.stream.stream_id, *self._aborted)

    async def _wait_for_body(self) -> None:
        timeout = self._owner.read_timeout
        timer = self._owner.loop.call_later(timeout, self._give_up) if timeout else None
        try:
            await self._wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _give_up(self) -> None:
        self._core.reset(self.stream, ErrorCode.CANCEL)
        self.abort(ErrorCode.CANCEL, "the client stopped sending")
        self._owner.schedule_flush()

    async def _wait(self) -> None:
        """Wait for the next `wake`."""
        waiter = self._owner.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
