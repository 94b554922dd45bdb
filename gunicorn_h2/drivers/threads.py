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

_MIN_CANCELLED_TIMERS = 64


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

    def __del__(self) -> None:
        # Not before the last thread has let go of it: what it writes to must not be another's file by then.
        os.close(self._reader)
        if self._writer != self._reader:
            os.close(self._writer)


class _Timers:
    """The connections by deadline. An entry may be early: the connection is asked again then.

    What is cancelled stays in the heap without its connection, until half of the heap is such entries.
    """

    def __init__(self) -> None:
        self._heap: list[list[Any]] = []
        """Lists of a deadline, a number that is never the same, and a `_Registered` or None."""
        self._tie_breaker = count()
        self._cancelled = 0

    def set(self, registered: _Registered, deadline: float) -> None:
        self.cancel(registered)
        registered.timer = [deadline, next(self._tie_breaker), registered]
        heapq.heappush(self._heap, registered.timer)

    def cancel(self, registered: _Registered) -> None:
        if registered.timer is None:
            return
        registered.timer[2] = None
        registered.timer = None
        self._cancelled += 1
        if self._cancelled >= _MIN_CANCELLED_TIMERS and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2] is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float:
        return self._heap[0][0] if self._heap else math.inf

    def expired(self, now: float) -> list[_Registered]:
        due = []
        while self._heap and self._heap[0][0] <= now:
            registered = heapq.heappop(self._heap)[2]
            if registered is None:
                self._cancelled -= 1
            else:
                registered.timer = None
                due.append(registered)
        return due


class _Registered:
    """A socket in the selector, and who acts on it: its negotiation, then its HTTP/2 connection."""

    __slots__ = ("connection", "hand_over", "local_address", "timer", "wants_write")

    def __init__(self, negotiation: Negotiation, local_address: object, hand_over: HandOver) -> None:
        self.connection: Http2Connection | Negotiation = negotiation
        self.local_address = local_address
        self.hand_over = hand_over
        self.wants_write = False
        self.timer: list[Any] | None = None
        """Its entry in the timers' heap."""


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
        negotiation = self.begin_negotiation(sock, peer, terms)
        if negotiation is None:
            self._on_close()
            return
        self._registered[negotiation] = registered = _Registered(negotiation, local_address, hand_over)
        self._selector.register(negotiation.transport, selectors.EVENT_READ, registered)
        self._call(registered, negotiation.handle_readable)

    def _end_negotiation(self, registered: _Registered, negotiation: Negotiation) -> None:
        if negotiation.error is not None:
            self._forget(negotiation)
            self.end_failed(negotiation)
            self._on_close()
        elif negotiation.http2:
            # The socket stays in the selector, and its timer in the heap.
            connection = Http2Connection(negotiation.transport, negotiation.peer, registered.local_address, self)
            registered.connection = connection
            del self._registered[negotiation]
            self._registered[connection] = registered
            self._call(registered, self.begin, connection, negotiation)
        else:
            self._forget(negotiation)
            self._hand_over(registered, negotiation)

    def _hand_over(self, registered: _Registered, negotiation: Negotiation) -> None:
        sock = negotiation.transport.sock
        try:
            registered.hand_over(sock, negotiation.peer, registered.local_address, negotiation.data)
        except Exception:  # As in `_call`.
            self.contain(negotiation)
            negotiation.transport.close()
            self._on_close()

    def _forget(self, connection: Http2Connection | Negotiation) -> None:
        self._timers.cancel(self._registered.pop(connection))
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
            if connection.wants_write != registered.wants_write:
                self._watch_writes(registered)
            deadline = connection.next_deadline()
            # A timer may be early: then the connection is asked again.
            if deadline is not None and (registered.timer is None or deadline < registered.timer[0]):
                self._set_timer(registered, deadline)
        elif isinstance(connection, Negotiation):
            self._end_negotiation(registered, connection)
        elif connection in self._registered:
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

    def _watch_writes(self, registered: _Registered) -> None:
        registered.wants_write = wants_write = registered.connection.wants_write
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0)
        self._selector.modify(registered.connection.transport, events, registered)

    def _set_timer(self, registered: _Registered, deadline: float) -> None:
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
        self._pool.run_each(self.application, starting)

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
        if not self._pool.tasks and self._lock.acquire(False):
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
