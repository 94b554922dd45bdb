"""The threaded driver: one thread does all I/O by a selector, a pool of threads runs the requests.

Who holds the driver's lock owns every connection. That is the I/O thread, except while it waits in the
selector. Pool threads append what they want done to a deque and wake the I/O thread, which does what has
gathered and writes once for each connection; a wake-up that is still pending is not repeated. A thread
that has a whole response, finds the lock free and nothing else to run, sends it itself: a lone response
is on its way without a change of threads.
"""

from __future__ import annotations

import heapq
import math
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.events import RequestRefused

from .base import Application, Driver, HandOver, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .log import Log
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
        self.pending = False

    def fileno(self) -> int:
        return self._reader

    def wake(self) -> None:
        """Call where none is `pending`; where two threads do at once, one is in vain."""
        self.pending = True
        # Eight octets, as an eventfd wants them.
        os.write(self._writer, b"\x01\0\0\0\0\0\0\0")

    def clear(self) -> None:
        """Call before looking at the work: what is added later must find `pending` false."""
        try:
            os.read(self._reader, 4096)
        except BlockingIOError:
            pass
        self.pending = False

    def close(self) -> None:
        # Threads that go on must not write to what may be another's file by then.
        self.pending = True
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)


class _Timers:
    """The connections by deadline. An entry may be early: the connection is asked again then."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Registered]] = []
        self._tie_breaker = count()

    def set(self, registered: _Registered, deadline: float) -> None:
        registered.timer = deadline
        heapq.heappush(self._heap, (deadline, next(self._tie_breaker), registered))

    def next(self) -> float:
        return self._heap[0][0] if self._heap else math.inf

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

    __slots__ = ("connection", "timer", "wants_write")

    def __init__(self, connection: Http2Connection | Negotiation) -> None:
        self.connection = connection
        self.wants_write = False
        self.timer: float | None = None


class ThreadDriver(Driver[Application]):
    """All HTTP/2 connections of a worker.

    The selector may be shared: other files in it are called as `key.data(key.fileobj)`. Except for
    `submit`, every method is for the I/O thread, the one that calls `poll`.
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
        self._lock = threading.RLock()
        """Held by whoever acts on a connection."""
        self._commands: deque[tuple[Http2Connection, Callable[..., None], tuple[Any, ...]]] = deque()
        self._starting: list[tuple[Http2Connection, Channel]] = []
        """Requests of this round, for the pool."""
        self._wakes_at = math.inf
        """When the selector returns at the latest."""
        self._closing: list[Http2Connection] = []
        """Connections that a pool thread has found to be over."""
        self._io_thread = 0
        self._waker = Waker()
        self._timers = _Timers()
        self._registered: dict[Http2Connection | Negotiation, _Registered] = {}
        selector.register(self._waker, selectors.EVENT_READ, self._on_wake)

    # Connections

    def negotiate(
        self,
        sock: socket.socket,
        peer: object,
        local_address: object,
        terms: Terms,
        hand_over: HandOver,
    ) -> None:
        """Take an accepted socket and find out what the client speaks; HTTP/1 goes to `hand_over`."""

        def decided(negotiation: Negotiation) -> None:
            self._forget(negotiation)
            if negotiation.http2:
                self._adopt(Http2Connection(negotiation.transport, peer, local_address, self), negotiation)
            else:
                hand_over(negotiation.transport.sock, peer, local_address, negotiation.data)

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
            with self._lock:
                for connection, registered in list(self._registered.items()):
                    if isinstance(connection, Http2Connection):
                        self._call(registered, connection.shutdown)
                    else:
                        self._call(registered, connection.shutdown, self.config.drain_timeout)

    def close(self) -> None:
        """Close every connection at once, and the driver."""
        # Kept: threads that go on must not act on what is closed.
        self._lock.acquire()
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
        self._io_thread = threading.get_ident()
        now = time.monotonic()
        self._wakes_at = min(now + timeout, self._timers.next())
        ready = self._selector.select(max(self._wakes_at - now, 0.0))
        with self._lock:
            for key, events in ready:
                registered = key.data
                if type(registered) is not _Registered:
                    registered(key.fileobj)
                elif events == selectors.EVENT_READ and not registered.connection.closed:
                    self._call(registered, registered.connection.handle_readable)
                else:
                    self._handle_ready(registered, events)
            for registered in self._timers.expired(time.monotonic()):
                self._call(registered, registered.connection.handle_timeout)
        if self._starting:
            self._start_requests()

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
            if threading.get_ident() == self._io_thread:
                self._close(connection)
            else:
                # The worker's count of connections, and the selector's files, are the I/O thread's.
                self._closing.append(connection)
                self._waker.wake()

    def _close(self, connection: Http2Connection) -> None:
        if connection in self._registered:
            self._forget(connection)
            connection.transport.close()
            self._on_close()

    def _wait_for(self, registered: _Registered) -> None:
        connection = registered.connection
        if connection.wants_write != registered.wants_write:
            registered.wants_write = connection.wants_write
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_write else 0)
            self._selector.modify(connection.transport, events, registered)
        deadline = connection.next_deadline()
        # A timer may be early: then the connection is asked again.
        if deadline is not None and (registered.timer is None or deadline < registered.timer):
            self._timers.set(registered, deadline)
            if deadline < self._wakes_at and not self._waker.pending:
                self._waker.wake()

    # What applications want done

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """See `DriverHooks.start_request`."""
        self.on_request()
        self._starting.append((connection, channel))

    def _start_requests(self) -> None:
        """Hand the round's requests to the pool, all at once.

        Its threads would else begin while there is still something to read, and compete for the interpreter.
        """
        starting, self._starting = self._starting, []
        for connection, channel in starting:
            self._pool.run(self.application, connection, channel)

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._pool.run(self.on_refused, connection, refusal)

    def submit(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit`."""
        self._commands.append((connection, do, arguments))
        if not self._waker.pending:
            self._waker.wake()

    def submit_last(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit_last`.

        Only a response that is over is sent by the thread that made it: those that go on share their
        connection fairly when the I/O thread takes turns between them.
        """
        self._commands.append((connection, do, arguments))
        if not self._pool.has_work and self._lock.acquire(blocking=False):
            try:
                self._run_commands()
            finally:
                self._lock.release()
        elif not self._waker.pending:
            self._waker.wake()

    def _on_wake(self, _: object) -> None:
        self._waker.clear()
        for connection in self._closing:
            self._close(connection)
        self._closing.clear()
        self._run_commands()

    def _run_commands(self) -> None:
        commands = self._commands
        connections: dict[Http2Connection, None] = {}
        # What is added meanwhile has its own wake-up, so sockets get their turn.
        for _ in range(len(commands)):
            connection, do, arguments = commands.popleft()
            connections[connection] = None
            try:
                do(*arguments)
            except Exception:  # As in `_call`.
                self.contain(connection)
        for connection in connections:
            registered = self._registered.get(connection)
            if registered is not None:
                self._call(registered, connection.flush)
