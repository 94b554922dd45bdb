"""The threaded driver: one thread does all I/O by a selector, a pool of threads runs the requests.

The I/O thread owns every connection. Pool threads append what they want done to a deque and wake
the I/O thread; a wake-up that is still pending is not repeated. A small response is two items, the
response itself and the return of its call: two wake-ups at most, and one write.
"""

from __future__ import annotations

import heapq
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.events import RequestRefused

from .base import Application, Driver, HandOver, Log, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .negotiation import Negotiation, Terms
from .pool import RequestPool

__all__ = ["ThreadDriver"]


class Waker:
    """Makes a selector return, from any thread. An eventfd where there is one, else a pipe."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._reader, False)
            os.set_blocking(self._writer, False)
        self._pending = False

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        if not self._pending:
            self._pending = True
            # Eight octets, as an eventfd wants them.
            os.write(self._writer, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Call before looking at the work: what is added later must find `_pending` false."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass
        self._pending = False

    def close(self) -> None:
        # Threads that go on must not write to what may be another's file by then.
        self._pending = True
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)


class _Timers:
    """The connections by deadline. An entry may be early: the connection is asked again then."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Registered]] = []
        self._tie_breaker = count()

    def update(self, registered: _Registered) -> None:
        deadline = registered.connection.next_deadline()
        if deadline is not None and (registered.timer is None or deadline < registered.timer):
            registered.timer = deadline
            heapq.heappush(self._heap, (deadline, next(self._tie_breaker), registered))

    def next(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def expired(self, now: float) -> list[_Registered]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            deadline, _, registered = heapq.heappop(self._heap)
            if registered.timer == deadline:
                registered.timer = None
                due.append(registered)
        return due


class _Registered:
    """A connection or negotiation in the selector."""

    __slots__ = ("connection", "events", "timer")

    def __init__(self, connection: Http2Connection | Negotiation) -> None:
        self.connection = connection
        self.events = selectors.EVENT_READ
        self.timer: float | None = None


class ThreadDriver(Driver):
    """All HTTP/2 connections of a worker.

    The selector may be shared: other files in it are called as `key.data(key.fileobj)`. Except for
    `submit`, every method is for the thread that calls `poll`.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        pool: RequestPool,
        config: ConnectionConfig,
        application: Application,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(config, application, log, on_request, on_refused)
        self._selector = selector
        self._pool = pool
        self._on_close = on_close
        self._commands: deque[tuple[Http2Connection, Callable[..., None], tuple[Any, ...]]] = deque()
        self._waker = Waker()
        self._timers = _Timers()
        self._registered: dict[Http2Connection | Negotiation, _Registered] = {}
        selector.register(self._waker, selectors.EVENT_READ, self._run_commands)

    # Connections

    def negotiate(
        self,
        sock: socket.socket,
        peer: object,
        server: object,
        terms: Terms,
        hand_over: HandOver,
    ) -> None:
        """Take an accepted socket and find out what the client speaks; HTTP/1 goes to `hand_over`."""

        def decided(negotiation: Negotiation) -> None:
            self._forget(negotiation)
            if negotiation.http2:
                self._adopt(Http2Connection(negotiation.transport, peer, server, self), negotiation)
            else:
                hand_over(negotiation.transport.sock, peer, server, negotiation.data)

        def failed(negotiation: Negotiation, error: Exception) -> None:
            self.negotiation_failed(peer, negotiation, error)
            self._forget(negotiation)
            negotiation.transport.close()
            self._on_close()

        negotiation = self.begin_negotiation(sock, peer, terms, decided, failed)
        if negotiation is None:
            self._on_close()
        else:
            self._call(self._register(negotiation), negotiation.handle_readable)

    def _adopt(self, connection: Http2Connection, negotiation: Negotiation) -> None:
        self._call(self._register(connection), self.begin, connection, negotiation)

    def _register(self, connection: Http2Connection | Negotiation) -> _Registered:
        self._registered[connection] = registered = _Registered(connection)
        self._selector.register(connection.transport, selectors.EVENT_READ, registered)
        return registered

    def _forget(self, connection: Http2Connection | Negotiation) -> None:
        # Timers that are still in the heap find no one.
        self._registered.pop(connection).timer = None
        self._selector.unregister(connection.transport)

    def shutdown(self) -> None:
        """Begin to end every connection gracefully, those to come included."""
        if not self._shutting_down:
            self._shutting_down = True
            for connection, registered in list(self._registered.items()):
                if isinstance(connection, Http2Connection):
                    self._call(registered, connection.shutdown)
                else:
                    self._call(registered, connection.shutdown, self.config.drain_timeout)

    def close(self) -> None:
        """Close every connection at once, and the driver."""
        for connection in list(self._registered):
            if isinstance(connection, Http2Connection):
                connection.abandon()
            self._forget(connection)
            connection.transport.close()
            self._on_close()
        self._selector.unregister(self._waker)
        self._waker.close()

    # The loop

    def poll(self, timeout: float) -> None:
        """Wait for something to happen, `timeout` seconds at most, and do what is to be done."""
        deadline = self._timers.next()
        if deadline is not None:
            timeout = min(timeout, max(deadline - time.monotonic(), 0.0))
        for key, events in self._selector.select(timeout):
            registered = key.data
            if type(registered) is _Registered:
                self._handle_ready(registered, events)
            else:
                registered(key.fileobj)
        for registered in self._timers.expired(time.monotonic()):
            self._call(registered, registered.connection.handle_timeout)

    def _handle_ready(self, registered: _Registered, events: int) -> None:
        connection = registered.connection
        # An earlier event of the same round may have closed it.
        if events & selectors.EVENT_WRITE and not connection.closed:
            self._call(registered, connection.flush)
        if events & selectors.EVENT_READ and not connection.closed:
            self._call(registered, connection.handle_readable)

    def _call(self, registered: _Registered, call: Callable[..., None], *arguments: Any) -> None:
        """Let a connection act, then wait for what it waits for."""
        connection = registered.connection
        try:
            call(*arguments)
        except Exception:  # The top of the I/O thread.
            self.contain(connection)
        if not connection.closed:
            self._wait_for(registered)
        elif isinstance(connection, Http2Connection) and connection in self._registered:
            self._forget(connection)
            connection.transport.close()
            self._on_close()

    def _wait_for(self, registered: _Registered) -> None:
        connection = registered.connection
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
        if events != registered.events:
            registered.events = events
            self._selector.modify(connection.transport, events, registered)
        self._timers.update(registered)

    # What applications want done

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """See `DriverHooks.start_request`."""
        self.on_request()
        self._pool.run(self.application, connection, channel)

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._pool.run(self.on_refused, connection, refusal)

    def submit(self, connection: Http2Connection, do: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """See `DriverHooks.submit`."""
        self._commands.append((connection, do, arguments))
        self._waker.wake()

    def _run_commands(self, _: object) -> None:
        self._waker.clear()
        connections: dict[Http2Connection, None] = {}
        # What is added meanwhile has its own wake-up, so sockets get their turn.
        for _ in range(len(self._commands)):
            connection, do, arguments = self._commands.popleft()
            connections[connection] = None
            try:
                do(*arguments)
            except Exception:  # As in `_call`.
                self.contain(connection)
        for connection in connections:
            registered = self._registered.get(connection)
            if registered is not None:
                self._call(registered, connection.flush)
