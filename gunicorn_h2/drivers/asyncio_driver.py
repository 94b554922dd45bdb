"""The asyncio driver: a connection is a `Protocol`, a request is a task.

Everything runs in the event loop's thread: what the peer and the applications do reaches the core at
once. What the core has to say in return is written in a callback of the loop's next turn, so tasks
that a read started, and finished, in one turn share one write.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import ssl
import sys
import termios
from collections.abc import Callable, Coroutine
from typing import Any

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    RequestRefused,
    StreamReset,
    StreamWritable,
    TrailersReceived,
)

from .asyncio_channel import AsyncChannel
from .base import Log
from .connection import LINGER_SECONDS
from .negotiation import adequate_cipher
from .opening import Opening

__all__ = ["AsyncApplication", "AsyncioDriver", "AsyncHttp2Connection"]

# What a transport may hold before it asks us to pause.
_WRITE_BUFFER_SIZE = 65_536

AsyncApplication = Callable[["AsyncHttp2Connection", AsyncChannel], Coroutine[Any, Any, object]]
AsyncRefusalHandler = Callable[["AsyncHttp2Connection", RequestRefused], object]


class AsyncioDriver:
    """All HTTP/2 connections of a worker; every method is for the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: ConnectionConfig,
        application: AsyncApplication,
        log: Log,
        on_request: Callable[[], None],
        on_refused: AsyncRefusalHandler,
        on_close: Callable[[], None],
    ) -> None:
        """`on_refused` is called for each request that the core has answered itself.

        `on_close` is called when a connection is closed and the last of its tasks done.
        """
        self.loop = loop
        self.config = config
        self.application = application
        self.log = log
        self.on_request = on_request
        self.on_refused = on_refused
        self._on_close = on_close
        self._connections: set[AsyncHttp2Connection] = set()
        self._shutting_down = False

    def adopt(self, transport: asyncio.Transport, opening: Opening | None) -> None:
        """Speak HTTP/2 on a transport; the opening holds what was read from it, None under TLS."""
        connection = AsyncHttp2Connection(self, transport)
        self._connections.add(connection)
        transport.set_protocol(connection)
        connection.start(opening)
        if self._shutting_down:
            connection.shutdown()

    def forget(self, connection: AsyncHttp2Connection) -> None:
        """A connection is closed and has no more tasks."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._on_close()

    def shutdown(self) -> None:
        """Begin to end every connection gracefully, those to come included."""
        if not self._shutting_down:
            self._shutting_down = True
            for connection in list(self._connections):
                connection.shutdown()

    def cancel(self) -> None:
        """Cancel every task and close every connection at once."""
        for connection in list(self._connections):
            connection.cancel()


class AsyncHttp2Connection(asyncio.Protocol):
    """A connection that speaks HTTP/2."""

    def __init__(self, driver: AsyncioDriver, transport: asyncio.Transport) -> None:
        self.loop = driver.loop
        self.transport = transport
        self.peer = transport.get_extra_info("peername")
        self.server = transport.get_extra_info("sockname")
        self.ssl_object: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        self.read_timeout = driver.config.stream_timeout or None
        self.core = ServerConnection(driver.config, self.loop.time())
        self.context: Any = None
        """What the application layer keeps for the connection's requests."""
        self._driver = driver
        self._application = driver.application
        self._channels: dict[AsyncChannel, None] = {}
        self._before_flush: list[Callable[[], None]] = []
        self._flush_scheduled = False
        self._paused = False
        self._lost = False
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._unsent = 0
        self._check_at: float | None = None
        self._stall_deadline = 0.0
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_SIZE)

    # What the transport says

    def start(self, opening: Opening | None) -> None:
        """Begin with what was read already."""
        if not adequate_cipher(self.ssl_object):
            self.core.fail(ErrorCode.INADEQUATE_SECURITY, "cipher suite")
            self.schedule_flush()
        elif opening is None:
            self.data_received(b"")
        else:
            if opening.upgrade is not None:
                self._guarded(self.core.receive_upgrade, opening.upgrade)
            self.data_received(opening.data)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol.data_received`."""
        if not self._ending:
            self._guarded(self._receive, data)

    def _receive(self, data: bytes) -> None:
        self.core.receive_data(data, self.loop.time())
        self._dispatch()
        self.schedule_flush()

    def eof_received(self) -> None:
        """See `asyncio.Protocol.eof_received`: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        if exc is not None:
            self._driver.log.debug("HTTP/2 connection broke: %s", exc)
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self.core.receive_eof()
        self._guarded(self._dispatch)
        self._forget_if_over()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol.pause_writing`: the core keeps what it has from here on."""
        self._paused = True
        self._watch_progress()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol.resume_writing`."""
        self._paused = False
        self._check_at = None
        self.schedule_flush()

    # What the driver says

    def shutdown(self) -> None:
        """Begin to end gracefully."""
        self.core.shutdown(self.loop.time())
        self.schedule_flush()

    def cancel(self) -> None:
        """Cancel the tasks and close at once."""
        for channel in list(self._channels):
            if channel.task is not None:
                channel.task.cancel()
        self.transport.abort()

    # Writing

    def schedule_flush(self) -> None:
        """See `AsyncStreamOwner.schedule_flush`."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._guarded, self._flush)

    def call_before_flush(self, call: Callable[[], None]) -> None:
        """See `AsyncStreamOwner.call_before_flush`."""
        self._before_flush.append(call)
        self.schedule_flush()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._before_flush:
            calls, self._before_flush = self._before_flush, []
            for call in calls:
                call()
        if self._lost:
            return
        now = self.loop.time()
        while not self._paused:
            data = self.core.data_to_send(now)
            if not data:
                break
            self.transport.write(data)
        self._dispatch()
        if self.core.closed and not self._paused:
            self._end()
        else:
            self._arm_timer()

    def _end(self) -> None:
        """All is with the transport: have it sent, and the peer read it, before the connection goes.

        Closing at once could make the kernel answer late frames with a TCP reset, which destroys
        what the peer has not read yet. Closing TLS sends what is left and waits for the peer's end.
        """
        # It is closing already where the peer came first.
        if self._ending or self._lost or self.transport.is_closing():
            return
        self._ending = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._watch_progress()

    # Timers

    def _watch_progress(self) -> None:
        """See to it that the peer reads what there is: from now on it has as long as a stream has."""
        self._unsent = unsent_octets(self.transport)
        self._stall_deadline = self.loop.time() + (self.read_timeout or math.inf)
        self._check_progress_later()

    def _check_progress_later(self) -> None:
        at = self._stall_deadline
        if self._ending:
            at = min(at, self.loop.time() + LINGER_SECONDS)
        if at < math.inf:
            self._check_at = at
            self._arm_timer()

    def _check_progress(self, now: float) -> None:
        self._check_at = None
        unsent = unsent_octets(self.transport)
        if unsent < self._unsent:
            self._watch_progress()
        elif unsent and now < self._stall_deadline:
            self._check_progress_later()
        else:
            if unsent:
                self._driver.log.debug("HTTP/2 client %s does not read; closing", self.peer)
            self.transport.abort()

    def _arm_timer(self) -> None:
        """Have `_on_timer` called no later than the next deadline. It may be called early, too."""
        deadline = None if self.core.closed else self.core.next_deadline()
        if self._check_at is not None and (deadline is None or self._check_at < deadline):
            deadline = self._check_at
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.loop.call_at(deadline, self._guarded, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        # uvloop counts milliseconds, so its clock may still be short of the deadline.
        now = max(self.loop.time(), self._timer_at)
        if self._check_at is not None and self._check_at <= now:
            self._check_progress(now)
        if not self._ending and not self._lost:
            self.core.handle_timeout(now)
            self._dispatch()
            self.schedule_flush()

    # Events

    def _dispatch(self) -> None:
        for event in self.core.events():
            _REACTIONS[type(event)](self, event)

    def _on_request(self, event: RequestReceived) -> None:
        event.stream.context = channel = AsyncChannel(self, event.stream, event.end_stream)
        self._channels[channel] = None
        self._driver.on_request()
        channel.task = self.loop.create_task(self._application(self, channel))

    def _on_data(self, event: DataReceived) -> None:
        event.stream.context.deliver(event.data, event.end_stream)

    def _on_trailers(self, event: TrailersReceived) -> None:
        event.stream.context.deliver_trailers(event.fields)

    def _on_reset(self, event: StreamReset) -> None:
        self._driver.log.debug("HTTP/2 stream %d was reset: %s", event.stream.stream_id, event.reason)
        if event.stream.context is not None:
            event.stream.context.abort(event.code, event.reason)

    def _on_writable(self, event: StreamWritable) -> None:
        # Of a request whose task is done, data may still be queued.
        if event.stream.context is not None:
            event.stream.context.wake()

    def _on_refused(self, event: RequestRefused) -> None:
        self._driver.log.debug("HTTP/2 request %d from %s refused: %s", event.stream_id, self.peer, event.reason)
        if event.status:
            self._driver.on_refused(self, event)

    def _on_terminated(self, event: ConnectionTerminated) -> None:
        if event.code:
            self._driver.log.warning(
                "HTTP/2 connection from %s closed with %s: %s", self.peer, event.code.name, event.reason
            )

    # What applications do

    def finish(self, channel: AsyncChannel) -> None:
        """See `AsyncStreamOwner.finish`."""
        del self._channels[channel]
        stream = channel.stream
        stream.context = None
        # Of a stream that is gone there is nothing to tell the peer but the credit.
        if stream.stream_id in self.core.streams:
            self.schedule_flush()
        self.core.finish(stream, self.loop.time())
        if self._lost:
            self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._lost and not self._channels:
            self._driver.forget(self)

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:  # The top of a callback: a defect costs one connection, never the worker.
            self._driver.log.exception("HTTP/2 connection from %s ended by an internal error", self.peer)
            self.transport.abort()


def unsent_octets(transport: asyncio.Transport) -> int:
    """What the peer has not got yet: in the transport's buffer and, where it can be asked, the kernel's.

    A TLS transport does not count what the transport below it holds, but where that holds anything
    the kernel's buffer is full.
    """
    octets = transport.get_write_buffer_size()
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except (OSError, ValueError):
        return octets
    return octets + int.from_bytes(queued, sys.byteorder)


_REACTIONS: dict[type[Event], Callable[[AsyncHttp2Connection, Any], None]] = {
    RequestReceived: AsyncHttp2Connection._on_request,
    DataReceived: AsyncHttp2Connection._on_data,
    TrailersReceived: AsyncHttp2Connection._on_trailers,
    StreamReset: AsyncHttp2Connection._on_reset,
    StreamWritable: AsyncHttp2Connection._on_writable,
    RequestRefused: AsyncHttp2Connection._on_refused,
    ConnectionTerminated: AsyncHttp2Connection._on_terminated,
}
