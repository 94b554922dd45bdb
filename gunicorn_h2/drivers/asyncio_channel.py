"""A request as its task sees it: a body to wait for, a response to write.

Task and connection run in one event loop, so a channel calls the core directly. Only the connection writes to the
socket, once for everything that happened in a turn of the loop.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode, StreamLimit
from gunicorn_h2.protocol.headers import Fields, ResponseHead
from gunicorn_h2.protocol.stream import CLOSED, BodyBuffer, Source, Stream

from .channel import CONTINUE, MAX_STALL_CHECK_SECONDS, SPOOLED_SIZE, STALL_CHECK_SECONDS, StreamAborted
from .log import Log
from .spool import Spool

__all__ = ["AsyncChannel", "AsyncStreamOwner", "HeldEnd"]

_PIECE_SIZE = 65_536
# What is stored before others have their turn: other tasks may make as much meanwhile.
_STORED_SIZE = 8_388_608
_NO_BODY = BodyBuffer(ended=True)


class HeldEnd(Protocol):
    """The end of a response, held back for the rest of a turn of the event loop."""

    held: bytes | None
    """The last octets of the response; None once they are sent."""

    def flush(self) -> None:
        """Send them now."""


class AsyncStreamOwner(Protocol):
    """What a channel needs from its connection."""

    core: ServerConnection
    loop: asyncio.AbstractEventLoop
    stream_buffer_size: int
    response_spool_size: int
    """Octets of a response that may be in the spool."""
    spool: Spool
    log: Log
    read_timeout: float | None
    """Seconds that a task waits for the next piece of a body; None: no limit."""
    flush_scheduled: bool
    """Whether `schedule_flush` has been called in this turn."""
    channels: set[AsyncChannel]
    """The channels whose task has not finished."""
    closed: bool
    held: list[HeldEnd]
    """Response ends to flush before the connection writes; adding one requires `schedule_flush`."""

    def do_give_up(self, stream: Stream) -> None:
        """See `StreamOwner.do_give_up`."""

    def write_now(self) -> None:
        """Write output before this turn of the loop ends."""

    def is_stalled(self, stream: Stream) -> bool:
        """Whether the client has taken nothing of a response for a moment."""

    def schedule_flush(self) -> None:
        """Write the output at the end of this turn of the event loop; call once a turn."""

    def finish(self, stream: Stream) -> None:
        """Note that no one will read the rest of the body; forget a closed connection with its last task."""


class AsyncChannel:
    """One request and its response. `stream.head` is the request's head.

    Most requests have no body and get their response in one step: fields that those do not need are class
    attributes.
    """

    trailers: Fields | None = None
    """The request's trailers, None without any; set at the end of the body."""
    task: asyncio.Task[object] | None = None
    """The task that serves the request."""
    expects_continue = False
    responded = False
    """Whether the response has begun."""
    complete = False
    """Whether the response has ended."""
    aborted = False
    """Whether the stream was reset, or the connection is gone."""
    starving_since = math.inf
    """See `Channel.starving_since`."""
    _cause: tuple[int, str] = (0, "")
    """The error code and the reason of the abort."""
    _waiters: list[asyncio.Future[None]] | None = None
    _on_abort: Callable[[], object] | None = None
    limits_reads = True
    """See `Channel.limits_reads`."""

    def __init__(self, connection: AsyncStreamOwner, stream: Stream, ended: bool) -> None:
        """`ended` says whether the request has no body."""
        self.stream = stream
        self.connection = connection
        if ended:
            self._body = _NO_BODY
        else:
            self._body = BodyBuffer(ended=False)
            self.expects_continue = stream.head.expects_continue

    # The connection's side

    def deliver(self, data: bytes, ended: bool) -> None:
        """Add a piece of the body."""
        if data:
            self._body.append(data)
        if ended:
            self._body.ended = True
        self.wake()

    def deliver_trailers(self, fields: Fields) -> None:
        """End the body, with its trailers."""
        self.trailers = fields
        self.deliver(b"", True)

    def abort(self, code: int, reason: str) -> bool:
        """Note that the stream is gone. Returns False: the task will still call `finish`."""
        self._cause = (code, reason)
        self.aborted = True
        self.wake()
        self._announce_abort()
        return False

    def take_over(self) -> tuple[BodyBuffer, bool]:
        """Return what has arrived, and whether it is all: what comes later is for who asks."""
        body, self._body = self._body, _NO_BODY
        return BodyBuffer(ended=False) if body is _NO_BODY else body, body.ended

    def wake(self) -> None:
        """Wake all waiters, which check their conditions again."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def _announce_abort(self) -> None:
        callback, self._on_abort = self._on_abort, None
        if callback is not None:
            callback()

    # The application's side

    def on_abort(self, callback: Callable[[], object]) -> None:
        """See `Channel.on_abort`."""
        self._on_abort = callback
        if self.aborted:
            self._announce_abort()

    @property
    def at_end(self) -> bool:
        """Whether the whole body has been read."""
        return self._body.ended and not self._body

    def raise_if_aborted(self) -> None:
        """Raise StreamAborted if the stream is gone."""
        if self.aborted:
            raise StreamAborted(self.stream.stream_id, *self._cause)

    async def read(self) -> bytes:
        """Return body data that has arrived, up to 64 KiB or one piece; b"" at the end. Returns its credit.

        Raises StreamAborted if the body will never be complete, which includes any read after the end of the
        response; or if nothing arrives for `read_timeout` seconds, after which the stream is reset with CANCEL.
        """
        body = self._body
        while not body and not body.ended:
            self.raise_if_aborted()
            if self.complete:
                raise StreamAborted(self.stream.stream_id, ErrorCode.NO_ERROR, "the response is complete")
            if self.expects_continue:
                self.send_interim(CONTINUE)
            await self._wait_for_body()
        data = body.take_up_to(_PIECE_SIZE)
        if data:
            self.connection.core.acknowledge(self.stream, len(data), self.connection.loop.time())
            self.connection.schedule_flush()
        return data

    async def wait_over(self) -> None:
        """Return when the response is complete or the stream is gone."""
        while not self.complete and not self.aborted:
            await self._wait()

    async def drain(self, ended: bool = False) -> None:
        """Return when the queue has fallen to its low mark. Raises StreamAborted.

        If the client stalls, it is enough that a large message is in the spool; the application then waits when it
        has another one. Nothing comes after a message that has `ended` the response.
        """
        stream = self.stream
        may_spool = ended or not stream.stored
        patience = STALL_CHECK_SECONDS
        # Other tasks may make as large messages in this turn.
        self.connection.write_now()
        # The core resets a stream that makes no progress, so this wait has an end.
        while stream.above_high_mark and not self.aborted:
            if may_spool and self.connection.is_stalled(stream) and await self._spool_excess():
                break
            await self._wait(patience if may_spool else None)
            patience = min(2 * patience, MAX_STALL_CHECK_SECONDS)
        self.raise_if_aborted()

    async def _spool_excess(self) -> bool:
        """Have at most a little more than the buffer in memory, the rest in the spool; return False if it is not so.

        The same for little that is queued behind what is in the spool already.
        """
        connection, stream = self.connection, self.stream
        buffer = connection.stream_buffer_size
        was_spooled = stream.stored > 0
        while stream.queued - stream.stored > buffer + SPOOLED_SIZE:
            limit = min(_STORED_SIZE, connection.response_spool_size - stream.stored)
            if not connection.core.store_queue(stream, buffer, limit, connection.spool.store):
                return False
            was_spooled = True
            if stream.queued - stream.stored > buffer + SPOOLED_SIZE:
                await asyncio.sleep(0)
        return was_spooled

    def send_interim(self, head: ResponseHead) -> None:
        """Send a 1xx response (RFC 9113 section 8.1); does nothing after the response's head. Raises StreamAborted."""
        self.raise_if_aborted()
        if head.status == 100:
            self.expects_continue = False
        self.connection.core.send_headers(self.stream, head, False)
        self.connection.schedule_flush()

    def respond(self, head: ResponseHead, data: bytes, end_stream: bool) -> None:
        """Send the response's head with its first data. Raises StreamAborted."""
        if self.aborted:
            self.raise_if_aborted()
        self.responded = True
        self.expects_continue = False
        connection = self.connection
        if end_stream:
            connection.core.send_response(self.stream, head, data)
            self.complete = True
            if self._waiters is not None:
                self.wake()
        else:
            connection.core.send_headers(self.stream, head, False)
            connection.core.send_data(self.stream, data, False)
        if not connection.flush_scheduled:
            connection.schedule_flush()

    def send(self, data: bytes, end_stream: bool) -> None:
        """Send more of the response's data. Raises StreamAborted."""
        self.raise_if_aborted()
        self.connection.core.send_data(self.stream, data, end_stream)
        self.connection.schedule_flush()
        if end_stream:
            self._note_complete()

    def send_source(self, source: Source, end_stream: bool) -> None:
        """Send response data from a source, without waiting. Raises StreamAborted, with the source closed."""
        if self.aborted:
            source.close()
            self.raise_if_aborted()
        self.connection.core.send_source(self.stream, source, end_stream)
        self.connection.schedule_flush()
        if end_stream:
            self._note_complete()

    def send_trailers(self, fields: Fields) -> None:
        """End the response with a trailer section. Raises StreamAborted or InvalidResponse."""
        self.raise_if_aborted()
        self.connection.core.send_trailers(self.stream, fields)
        self.connection.schedule_flush()
        self._note_complete()

    def reset(self, code: ErrorCode) -> None:
        """Reset the stream, because the response cannot be completed."""
        self.connection.core.reset(self.stream, code)
        self.connection.schedule_flush()
        self.abort(code, "the stream was reset")

    def finish(self) -> None:
        """The application call has returned; must be called once, last."""
        connection, stream = self.connection, self.stream
        stream.context = None
        connection.channels.discard(self)
        # The core does not need to know of calls whose request and response are both complete.
        if stream.state is not CLOSED or self.aborted or connection.closed:
            connection.finish(stream)

    def _note_complete(self) -> None:
        self.complete = True
        self.wake()

    async def _wait_for_body(self) -> None:
        timeout = self.connection.read_timeout if self.limits_reads else None
        timer = self.connection.loop.call_later(timeout, self._give_up) if timeout else None
        self.starving_since = self.connection.loop.time()
        try:
            await self._wait()
        finally:
            self.starving_since = math.inf
            if timer is not None:
                timer.cancel()

    def _give_up(self) -> None:
        self.connection.do_give_up(self.stream)
        self.connection.schedule_flush()
        self.abort(ErrorCode.CANCEL, StreamLimit.BODY_TIMEOUT)

    async def _wait(self, timeout: float | None = None) -> None:
        """Wait for the next `wake`, `timeout` seconds at most."""
        loop = self.connection.loop
        waiter = loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        timer = None if timeout is None else loop.call_later(timeout, self.wake)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if self._waiters is not None and waiter in self._waiters:
                self._waiters.remove(waiter)
