"""The green driver, for gevent and eventlet: a greenlet for each connection and one for each request that waits.

The greenlet that `serve` is called in owns its connection: while it does not wait, it alone touches the
socket and the core. Requests run in other greenlets and leave what they want done with the owner. The
last of those that came together does all of it at once, in the owner's place, if that waits; what is
left otherwise wakes the owner. The library's hub watches the socket all the while, so that a wait costs
no system call.

Everything runs in one thread: nothing here is safe to call from another one.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from greenlet import GreenletExit, getcurrent, greenlet

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.events import RequestRefused

from .base import Application, Driver, HandOver, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .log import Log
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

    def borrow(self) -> greenlet | None:
        """Take the place of the owner that waits; it goes on waiting until `give_back`. None where it does not wait."""
        owner, self._owner = self._owner, None
        return owner

    def give_back(self, owner: greenlet, deadline: float | None, wanted: bool) -> None:
        """End a `borrow`; the owner goes on at once where it is wanted, or something has happened meanwhile."""
        self._owner = owner
        if wanted or self._woken or (deadline is not None and (self._alarm is None or deadline < self._alarm)):
            self.wake()

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

    call_soon: Callable[[Callable[[], None]], object]
    """Has the hub call it in its next round."""

    switch_to_hub: Callable[[], object]
    """Lets others run, until someone in the hub switches back."""


class _Runners:
    """Greenlets that run calls, one after another until one of them waits; then the next greenlet goes on.

    So any number of calls may wait at a time, and those that do not wait cost no greenlet of their own.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._idle: list[greenlet] = []
        self._retired: set[greenlet] = set()
        self._scheduled = False
        """Whether the hub is about to resume a greenlet for what is queued."""

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a greenlet call `call(*arguments)`, which should not raise."""
        self._calls.append((call, arguments))
        if not self._scheduled:
            self._schedule()

    def retire(self, runner: greenlet) -> None:
        """Let a greenlet that is to be killed run nothing but its present call."""
        self._retired.add(runner)

    def _schedule(self) -> None:
        self._scheduled = True
        self._library.call_soon(self._resume)

    def _resume(self) -> None:
        """Called in the hub."""
        self._scheduled = False
        if self._calls:
            if self._idle:
                self._idle.pop().switch()
            else:
                self._library.spawn(self._work)
                # A greenlet that was spawned starts in the hub's next round, and then finds the calls.

    def _work(self) -> None:
        calls, current = self._calls, getcurrent()
        try:
            while current not in self._retired:
                if not calls:
                    self._wait(current)
                    continue
                call, arguments = calls.popleft()
                # Should this call wait, another greenlet goes on with the rest.
                if calls and not self._scheduled:
                    self._schedule()
                call(*arguments)
                # The last request must not be kept alive by an idle greenlet.
                del call, arguments
        finally:
            self._retired.discard(current)

    def _wait(self, current: greenlet) -> None:
        self._idle.append(current)
        try:
            self._library.switch_to_hub()
        except GreenletExit:
            # Meant for a call that has returned meanwhile.
            if current in self._idle:
                self._idle.remove(current)


class _Owner:
    """A connection's owner, and what `Http2Connection` calls its hooks."""

    def __init__(self, driver: GreenDriver, waiter: Waiter) -> None:
        self.config = driver.config
        self.log = driver.log
        self.window_budget = driver.window_budget
        self._driver = driver
        self._waiter = waiter
        self._commands: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._requests: set[greenlet] = set()
        self._unfinished = 0
        self._not_begun = 0
        self._waits_for_calls = False
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
        self._connection = connection
        try:
            self._begin(connection, negotiation)
            self.run(connection)
        except GreenletExit:
            connection.abandon()
            self._kill_requests()
        finally:
            self._waiter.unwatch()
            connection.transport.close()
        # Until then, the connection counts among the worker's.
        self._waits_for_calls = True
        while self._unfinished:
            self._waiter.pause()
        # Calls that have outlived their connection give back what they held.
        self._run_commands()

    def retire(self) -> None:
        """Let go of the connection, which holds its owner: nobody but the garbage collector would free them."""
        del self._connection

    def _begin(self, connection: Http2Connection, negotiation: Negotiation) -> None:
        try:
            self._driver.begin(connection, negotiation)
        except Exception:  # As in `run`.
            self._driver.contain(connection)

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
        # eventlet lets them run at once.
        for request in list(self._requests):
            self._driver.runners.retire(request)
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
        self._not_begun += 1
        self._driver.runners.run(self._serve_request, connection, channel)

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._driver.runners.run(self._driver.on_refused, connection, refusal)

    def _serve_request(self, connection: Http2Connection, channel: Channel) -> None:
        current = getcurrent()
        self._requests.add(current)
        self._not_begun -= 1
        try:
            self._driver.application(connection, channel)
        finally:
            self._requests.discard(current)
            self._unfinished -= 1
            if self._waits_for_calls:
                self._waiter.wake()

    def submit(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit`."""
        self._commands.append((do, arguments))
        self._waiter.wake()

    def prepare_wait(self, ready: Callable[[], bool]) -> bool:
        """See `StreamOwner.prepare_wait`: the owner is another greenlet, always."""
        return False

    def submit_last(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit_last`.

        Only the last of what came together is done in the owner's place, and only a response that is over:
        one that goes on could keep the hub from everyone else for as long as its client reads.
        """
        self._commands.append((do, arguments))
        owner = None if self._not_begun else self._waiter.borrow()
        if owner is None:
            self._waiter.wake()
            return
        try:
            self._run_commands()
            connection.flush()
        except Exception:  # As in `run`.
            self._driver.contain(connection)
        finally:
            wanted = connection.closed or connection.wants_write
            self._waiter.give_back(owner, connection.next_deadline(), wanted)


class GreenDriver(Driver[Application]):
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
        self.runners = _Runners(library)
        self._owners: set[_Owner] = set()

    def serve(
        self,
        sock: socket.socket,
        peer: object,
        local_address: object,
        terms: Terms,
        hand_over: HandOver,
    ) -> None:
        """Serve an accepted socket to its end, in the greenlet that calls; HTTP/1 goes to `hand_over`."""
        negotiation = self.begin_negotiation(sock, peer, terms)
        if negotiation is None:
            return
        transport = negotiation.transport
        waiter = self.library.make_waiter(transport.fileno())
        owner = _Owner(self, waiter)
        self._owners.add(owner)
        speaks_http1 = False
        try:
            owner.run(negotiation)
            if negotiation.error is not None:
                self.end_failed(negotiation)
            elif negotiation.http2:
                owner.serve(Http2Connection(transport, peer, local_address, owner), negotiation)
            else:
                speaks_http1 = True
        finally:
            self._owners.discard(owner)
            owner.retire()
            waiter.close()
            if not speaks_http1:
                transport.close()
        if speaks_http1:
            hand_over(transport.sock, peer, local_address, negotiation.data)

    def shutdown(self) -> None:
        """Begin to end every connection gracefully, those to come included; any greenlet may call it."""
        if not self._shutting_down:
            self._shutting_down = True
            for owner in self._owners:
                owner.shutdown()
