"""The green driver, for gevent and eventlet: a greenlet for each connection and one for each request.

The greenlet that `serve` is called in owns its connection: it alone touches the socket and the core.
Requests run in greenlets of their own and leave what they want done with the owner, which wakes up
once for all that was left until its turn. The library's hub watches the socket all the while, so
that a wait costs no system call.

Everything runs in one thread: nothing here is safe to call from another one.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from greenlet import GreenletExit, getcurrent, greenlet

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.events import RequestRefused

from .base import Application, Driver, HandOver, Log, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .negotiation import Negotiation, Terms

__all__ = ["GreenDriver", "Library", "Waiter"]


class Waiter(ABC):
    """How the owner of a connection waits: for its socket, for its requests, for a deadline.

    `readable` and `writable` say what the last wait has found. A wait may also end for no reason.
    """

    def __init__(self) -> None:
        self.readable = False
        self.writable = False
        self._read_ready = False
        self._write_ready = False
        self._owner: greenlet | None = None
        self._woken = False
        self._wake_pending = False
        self._alarm: float | None = None

    def wait(self, wants_write: bool, deadline: float | None) -> None:
        """Wait until the socket is readable, or writable where that is wanted, or for `wake`, or the deadline."""
        self._watch(wants_write)
        # An alarm that comes too early ends a wait for no reason, and costs less than moving it each time.
        if deadline is not None and (self._alarm is None or deadline < self._alarm):
            self._alarm = deadline
            self._set_alarm(max(deadline - time.monotonic(), 0.0))
        self.pause()
        self.readable, self._read_ready = self._read_ready, False
        self.writable, self._write_ready = self._write_ready, False

    def pause(self) -> None:
        """Wait for `wake` alone, or for no reason."""
        if not self._woken:
            self._owner = getcurrent()
            try:
                self._switch_to_hub()
            finally:
                self._owner = None
        self._woken = False

    def wake(self) -> None:
        """End the wait soon, behind all greenlets that are ready to run now."""
        if not self._wake_pending:
            self._wake_pending = True
            self._call_soon(self._on_wake)

    def _on_wake(self) -> None:
        self._wake_pending = False
        self._resume()

    def _on_alarm(self) -> None:
        self._alarm = None
        self._resume()

    def _on_readable(self) -> None:
        self._read_ready = True
        self._resume()

    def _on_writable(self) -> None:
        self._write_ready = True
        self._resume()

    def _resume(self) -> None:
        """Called in the hub."""
        owner = self._owner
        if owner is not None:
            owner.switch()
        else:
            # It waits for something else, a log's lock perhaps. The hub must not spin meanwhile.
            self._woken = True
            self.unwatch()

    @abstractmethod
    def unwatch(self) -> None:
        """Stop watching the socket, before it is closed or goes to someone else. May be called again."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back to the hub."""

    @abstractmethod
    def _watch(self, wants_write: bool) -> None:
        """Have the hub call `_on_readable`, and `_on_writable` where that is wanted. Often called in vain."""

    @abstractmethod
    def _set_alarm(self, seconds: float) -> None:
        """Have the hub call `_on_alarm`, instead of the time that was set before."""

    @abstractmethod
    def _call_soon(self, call: Callable[[], None]) -> None:
        """Have the hub call it in its next round."""

    @abstractmethod
    def _switch_to_hub(self) -> None:
        """Let others run until `_resume`."""


class Library(NamedTuple):
    """What the driver needs of gevent or eventlet."""

    make_waiter: Callable[[int], Waiter]
    """Makes the waiter for a file descriptor."""

    spawn: Callable[..., object]
    """`spawn(call, *arguments)` starts a greenlet, in the hub's next round."""

    kill: Callable[[Any], object]
    """Raises GreenletExit in a greenlet."""


class _Owner:
    """A connection's owner, and what `Http2Connection` calls its hooks."""

    def __init__(self, driver: GreenDriver, waiter: Waiter) -> None:
        self.config = driver.config
        self.log_debug = driver.log_debug
        self.log_warning = driver.log_warning
        self._driver = driver
        self._waiter = waiter
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._requests: set[greenlet] = set()
        self._unfinished = 0
        self._connection: Http2Connection | Negotiation

    # The owner's greenlet

    def run(self, connection: Http2Connection | Negotiation) -> None:
        """Let the connection act until it is closed."""
        self._connection = connection
        while not connection.closed:
            deadline = connection.next_deadline()
            self._waiter.wait(connection.wants_write, deadline)
            try:
                self._act(connection, deadline)
            except Exception:  # The top of the owner's greenlet.
                self._driver.contain(connection)

    def serve(self, connection: Http2Connection, negotiation: Negotiation) -> None:
        """Serve a connection until it is closed and every application call has returned."""
        self.submit(connection, self._driver.begin, (connection, negotiation))
        try:
            self.run(connection)
        except GreenletExit:
            connection.abandon()
            self._kill_requests()
        finally:
            self._waiter.unwatch()
            connection.transport.close()
        # Until then, the connection counts among the worker's.
        while self._unfinished:
            self._waiter.pause()

    def _act(self, connection: Http2Connection | Negotiation, deadline: float | None) -> None:
        if self._commands or self._waiter.writable:
            self._run_commands()
            connection.flush()
        if self._waiter.readable and not connection.closed:
            connection.handle_readable()
        if deadline is not None and deadline <= time.monotonic() and not connection.closed:
            connection.handle_timeout()

    def _run_commands(self) -> None:
        commands = self._commands
        while commands:
            do, arguments = commands.popleft()
            do(*arguments)

    def _kill_requests(self) -> None:
        for request in self._requests:
            self._driver.library.kill(request)

    # Other greenlets

    def shutdown(self) -> None:
        """Have the connection end gracefully, or the negotiation soon."""
        connection = self._connection
        arguments = () if isinstance(connection, Http2Connection) else (self.config.drain_timeout,)
        self._commands.append((connection.shutdown, arguments))
        self._waiter.wake()

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """See `DriverHooks.start_request`."""
        self._driver.on_request()
        self._unfinished += 1
        self._driver.library.spawn(self._serve_request, connection, channel)

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._driver.library.spawn(self._driver.on_refused, connection, refusal)

    def _serve_request(self, connection: Http2Connection, channel: Channel) -> None:
        current = getcurrent()
        self._requests.add(current)
        try:
            self._driver.application(connection, channel)
        finally:
            self._requests.discard(current)
            self._unfinished -= 1
            self._waiter.wake()

    def submit(self, connection: Http2Connection, do: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """See `DriverHooks.submit`."""
        self._commands.append((do, arguments))
        self._waiter.wake()


class GreenDriver(Driver):
    """All HTTP/2 connections of a worker."""

    def __init__(
        self,
        library: Library,
        config: ConnectionConfig,
        application: Application,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
    ) -> None:
        super().__init__(config, application, log, on_request, on_refused)
        self.library = library
        self._owners: set[_Owner] = set()

    def serve(
        self,
        sock: socket.socket,
        peer: object,
        server: object,
        terms: Terms,
        hand_over: HandOver,
    ) -> None:
        """Serve an accepted socket to its end, in the greenlet that calls; HTTP/1 goes to `hand_over`."""
        decided: list[Negotiation] = []
        failed = partial(self.negotiation_failed, peer)
        negotiation = self.begin_negotiation(sock, peer, terms, decided.append, failed)
        if negotiation is None:
            return
        transport = negotiation.transport
        waiter = self.library.make_waiter(transport.fileno())
        owner = _Owner(self, waiter)
        self._owners.add(owner)
        try:
            owner.run(negotiation)
            if negotiation.http2:
                owner.serve(Http2Connection(transport, peer, server, owner), negotiation)
        finally:
            self._owners.discard(owner)
            waiter.close()
            if negotiation.http2 or not decided:
                transport.close()
        if decided and not negotiation.http2:
            hand_over(transport.sock, peer, server, negotiation.data)

    def shutdown(self) -> None:
        """Begin to end every connection gracefully, those to come included; any greenlet may call it."""
        if not self._shutting_down:
            self._shutting_down = True
            for owner in self._owners:
                owner.shutdown()
