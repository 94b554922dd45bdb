"""The threaded driver: one thread does all I/O by a selector, requests run in a pool of threads.

Which thread does the I/O is the business of `Leadership`; while requests are quick, it also runs them.
The thread that holds the driver's lock owns every connection: the leader, except while it waits in the
selector or runs a request. Other threads append what they want done to a deque and wake the leader, which
does what has gathered and writes once for each connection; a pending wake-up is not repeated. A thread
that has a whole response, or an answer to what it has just read, finds the lock free and nothing else to
run, sends it itself: a lone response is on its way without a change of threads.
"""

from __future__ import annotations

import math
import selectors
import socket
import threading
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import EndReason
from gunicorn_h2.protocol.events import RequestRefused

from .admission import Admission
from .base import Application, Driver, HandOver, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .histogram import QueueProbe
from .leadership import Leadership
from .log import Log
from .negotiation import Negotiation, Terms
from .pool import RequestPool
from .slow_lane import LONG_TURN, RECENT, Paced, SlowLane
from .timers import Timers
from .tunnel import SocketWatch
from .waker import Waker

if TYPE_CHECKING:
    from .trace_file import TraceFile

__all__ = ["ThreadDriver"]

_Command = tuple[Http2Connection, Callable[..., None], tuple[Any, ...]]

# Commands that may gather, each with a response, before a thread that has one more waits for the leader.
_MOST_COMMANDS = 64


class _Registered(Paced):
    """A socket in the selector, with its negotiation and then its HTTP/2 connection."""

    __slots__ = ("connection", "events", "hand_over", "local_address", "timer", "wants_write")

    def __init__(self, negotiation: Negotiation, local_address: object, hand_over: HandOver) -> None:
        super().__init__()
        self.connection: Http2Connection | Negotiation = negotiation
        self.local_address = local_address
        self.hand_over = hand_over
        self.wants_write = False
        self.events = 0
        """What it has to act on in its turn in the slow lane; 0 while it waits for none."""
        self.timer: list[Any] | None = None
        """See `Timed`."""


class _SocketWatch:
    """A `SocketWatch` in the selector, which calls it as any other file."""

    def __init__(
        self,
        driver: ThreadDriver,
        selector: selectors.BaseSelector,
        connection: Http2Connection,
        sock: socket.socket,
        act: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._selector = selector
        self._connection = connection
        self._sock = sock
        self._act = act
        self._events = 0

    def expect(self, reads: bool, writes: bool) -> None:
        """See `SocketWatch.expect`."""
        events = (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if writes else 0)
        before, self._events = self._events, events
        if events == before:
            return
        if not events:
            self._selector.unregister(self._sock)
        elif before:
            self._selector.modify(self._sock, events, self)
        else:
            self._selector.register(self._sock, events, self)

    def close(self) -> None:
        """See `SocketWatch.close`."""
        self.expect(False, False)

    def __call__(self, _: object) -> None:
        """Act, because the socket is ready."""
        self._driver.act(self._connection, self._act)


class ThreadDriver(Driver[Application, _Registered]):
    """All HTTP/2 connections of a worker.

    The selector may be shared: other files in it are called as `key.data(key.fileobj)`, by the leader with
    `lock` held. Every method is for the leader, unless it says otherwise.
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
        on_close: Callable[[object], object],
        admission: Admission | None = None,
        trace: TraceFile | None = None,
    ) -> None:
        """`on_close(peer)` is called when a connection is closed and its last application call is over."""
        super().__init__(config, application, log, on_request, on_refused, admission, trace)
        self._selector = selector
        self._pool = self.thread_count = pool
        self._on_close = on_close
        self._leadership = Leadership(pool, self, application)
        self.lock = self._leadership.lock
        """Held by whoever acts on a connection, or calls a file in the selector."""
        self._commands: deque[_Command] = deque()
        self._leader_waits = False
        """Whether the leader wants the lock to act on what the selector has found."""
        self._held_up: deque[LockType] = deque()
        """The locks of threads that wait until commands have run."""
        self._starting: list[tuple[Http2Connection, Channel]] = []
        """Requests of this round."""
        self._wakes_at = math.inf
        """When the selector returns at the latest."""
        self.slow_lane = SlowLane(self._take_slow_turn)
        self._waker = Waker()
        self._timers: Timers[_Registered] = Timers()
        self._registered: dict[Http2Connection | Negotiation, _Registered] = {}
        self._outlived: set[Http2Connection] = set()
        """Closed connections with calls that go on, or wait for a thread: a client could have any number of them."""
        selector.register(self._waker, selectors.EVENT_READ, self._on_wake)

    # Connections

    def negotiate(
        self, sock: socket.socket, peer: object, local_address: object, terms: Terms, hand_over: HandOver
    ) -> None:
        """Negotiate the protocol of an accepted socket; HTTP/1 goes to `hand_over`."""
        negotiation = self.begin_negotiation(sock, peer, terms)
        if negotiation is None:
            self._on_close(peer)
            return
        self._registered[negotiation] = registered = _Registered(negotiation, local_address, hand_over)
        self._selector.register(negotiation.transport, selectors.EVENT_READ, registered)
        deadline = negotiation.next_deadline()
        if deadline is not None:
            self._set_timer(registered, deadline)
        self.hold_negotiation(negotiation, registered)

    def _end_negotiation(self, registered: _Registered, negotiation: Negotiation) -> None:
        self.end_negotiation(negotiation)
        if negotiation.error is not None:
            self._forget(negotiation)
            self.end_failed(negotiation)
            self._on_close(negotiation.peer)
        elif negotiation.http2:
            # The socket stays in the selector, and its timer in the heap.
            connection = Http2Connection(negotiation.transport, negotiation.peer, registered.local_address, self)
            registered.connection = connection
            self.slow_lane.leave(registered)
            del self._registered[negotiation]
            self._registered[connection] = registered
            self._call(registered, self.begin, connection, negotiation)
        else:
            self._forget(negotiation)
            self._hand_over(registered, negotiation)

    def _hand_over(self, registered: _Registered, negotiation: Negotiation) -> None:
        sock = negotiation.transport.sock
        try:
            registered.hand_over(sock, negotiation.peer, registered.local_address, negotiation.data, negotiation.header)
        except Exception:  # As in `_call`.
            self.contain(negotiation)
            negotiation.transport.close()
            self._on_close(negotiation.peer)

    def _forget(self, connection: Http2Connection | Negotiation) -> None:
        self._timers.cancel(self._registered.pop(connection))
        self._selector.unregister(connection.transport)

    def shutdown(self) -> None:
        """Begin to end every connection gracefully, those to come included; for the main thread, which leads then."""
        if not self._shutting_down:
            self._shutting_down = True
            self._leadership.end()
            with self.lock:
                for connection, registered in list(self._registered.items()):
                    if isinstance(connection, Http2Connection):
                        self._call(registered, connection.shutdown)
                    else:
                        self._call(registered, connection.shutdown, self.config.drain_timeout)

    def close(self) -> None:
        """Close every connection at once, and the driver; for the main thread."""
        self._leadership.end()
        # Never released: running threads must not act on closed connections.
        self.lock.acquire()
        for connection in list(self._registered):
            if isinstance(connection, Http2Connection):
                connection.abandon(EndReason.SHUTDOWN)
            self._forget(connection)
            connection.transport.close()
            self._on_close(connection.peer)
        self._selector.unregister(self._waker)

    def _holders(self) -> Iterable[_Registered]:
        return self._registered.values()

    def probe_queue(self, probe: QueueProbe, late: float) -> None:
        """See `Driver.probe_queue`."""
        if self._leadership.delegated:
            # A task for the pool would make a leader without idle colleagues resign.
            probe.note(self._leadership.expected_wait)
        else:
            probe.start(late, self._pool.run)

    def load(self) -> dict[str, int]:
        """See `Driver.load`."""
        load = {"queued": len(self._pool.tasks) + len(self._leadership.requests), **self._pool.load()}
        load["threads/busy"] -= self._leadership.has_idle_leader
        return load

    def _make_way(self, registered: _Registered) -> None:
        self._call(registered, registered.connection.make_way)

    # The loop

    def serve(self, timeout: float, alone: bool = False) -> None:
        """For the main thread: see to it that what happens in the next `timeout` seconds is acted on.

        With `alone` this thread does so itself. Returns earlier where the main thread does and has acted.
        """
        self._leadership.serve(timeout, alone)

    def interrupt(self) -> None:
        """Make `serve` return soon; callable from any thread and by signal handlers."""
        self._leadership.interrupt()

    def poll(self, timeout: float) -> None:
        """See `Loop.poll`."""
        # Until the selector waits, a thread that sets an earlier timer must wake it.
        self._wakes_at = math.inf
        now, lane = time.monotonic(), self.slow_lane
        wakes_at = min(now + timeout, self._timers.next())
        if lane.queue:
            # While requests wait for a thread, those in the lane would only add to them.
            wakes_at = min(wakes_at, lane.due) if self._pool.tasks else now
        self._wakes_at = wakes_at
        ready = self._selector.select(max(wakes_at - now, 0.0))
        self._wakes_at = -math.inf
        self._leader_waits = True
        with self.lock:
            self._leader_waits = False
            began = time.monotonic()
            for key, events in ready:
                registered = key.data
                if type(registered) is not _Registered:
                    # The main thread's house-keeping may have closed it meanwhile.
                    if self._selector.get_map().get(key.fd) is key:
                        registered(key.fileobj)
                    began = time.monotonic()
                elif registered.slow:
                    self._queue_slow_turn(registered, events)
                elif events == selectors.EVENT_READ and not registered.connection.closed:
                    self._call(registered, registered.connection.handle_readable)
                    ended = time.monotonic()
                    registered.slow |= ended - began > LONG_TURN
                    if ended - registered.since > RECENT:
                        lane.served_at = ended
                    began = ended
                else:
                    self._handle_ready(registered, events)
            for registered in self._timers.expired(time.monotonic()):
                self._call(registered, registered.connection.handle_timeout)
            if lane.queue:
                lane.run(bool(self._starting or self._leadership.requests or self._pool.tasks))
        if self._starting:
            self._start_requests()

    def wake(self) -> None:
        """See `Loop.wake`."""
        if not self._waker.pending:
            self._waker.wake()

    def _queue_slow_turn(self, registered: _Registered, events: int) -> None:
        if not registered.events:
            self.slow_lane.queue.append(registered)
        registered.events |= events

    def _take_slow_turn(self, registered: _Registered) -> None:
        events, registered.events = registered.events, 0
        if isinstance(registered.connection, Negotiation):
            self._handle_ready(registered, events)
            return
        registered.enter_lane()
        began = time.thread_time()
        self._handle_ready(registered, events)
        if events & selectors.EVENT_READ:
            registered.note_slow_turn(time.thread_time() - began, time.monotonic())

    def _handle_ready(self, registered: _Registered, events: int) -> None:
        connection = registered.connection
        # An earlier event of the same round may have closed it.
        if events & selectors.EVENT_WRITE and not connection.closed:
            self._call(registered, connection.flush)
        if events & selectors.EVENT_READ and not connection.closed:
            self._call(registered, connection.handle_readable)

    def _call(self, registered: _Registered, call: Callable[..., None], *arguments: Any) -> None:
        """Call a method of a connection, then update its events and timer."""
        connection = registered.connection
        try:
            call(*arguments)
        except Exception:  # The top of the I/O thread.
            self.contain(connection)
        if not connection.closed:
            if connection.wants_write != registered.wants_write:
                self._watch_writes(registered)
            deadline = connection.next_deadline()
            # A timer may fire early; the deadline is then read again.
            if deadline is not None and (registered.timer is None or deadline < registered.timer[0]):
                self._set_timer(registered, deadline)
        elif isinstance(connection, Negotiation):
            self._end_negotiation(registered, connection)
        elif connection in self._registered:
            self._forget(connection)
            connection.transport.close()
            self._release_place(connection)

    def _release_place(self, connection: Http2Connection) -> None:
        """Give the place of a closed connection to others once its last call is over: see `_outlived`."""
        if connection.core.orphaned_calls:
            self._outlived.add(connection)
        else:
            self._outlived.discard(connection)
            self._on_close(connection.peer)

    def _watch_writes(self, registered: _Registered) -> None:
        registered.wants_write = wants_write = registered.connection.wants_write
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if wants_write else 0)
        self._selector.modify(registered.connection.transport, events, registered)

    def _set_timer(self, registered: _Registered, deadline: float) -> None:
        self._timers.set(registered, deadline)
        if deadline < self._wakes_at:
            self.wake()

    # Commands of the applications

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """See `DriverHooks.start_request`."""
        self.on_request()
        self._starting.append((connection, channel))

    def _start_requests(self) -> None:
        """Hand over the round's requests at once: with threads that had begun, reads would share the interpreter."""
        starting, self._starting = self._starting, []
        self._leadership.start(starting)

    def requests_wait(self) -> bool:
        """See `Shared.requests_wait`."""
        return bool(self._pool.tasks)

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._pool.run(self.on_refused, connection, refusal)

    def act_now(self, connection: Http2Connection) -> None:
        """See `StreamOwner.act_now`.

        The leader acts at the same time. But a thread that waits for it may be replaced, by one that makes another
        large response: when the memory becomes short, the thread acts itself, and knows at once whether to wait.
        """
        if self.output_budget.used > self.output_budget.limit / 4:
            self._run_commands_here()

    def defer(self, connection: Http2Connection) -> bool:
        """See `TransportConnection.defer`."""
        registered = self._registered[connection]
        is_there = registered.enter_lane()
        if not is_there:
            self._queue_slow_turn(registered, selectors.EVENT_READ)
        return is_there

    def run(self, call: Callable[[], object]) -> None:
        """See `DriverHooks.run`."""
        self._pool.run(call)

    def watch_socket(self, connection: Http2Connection, sock: socket.socket, act: Callable[[], None]) -> SocketWatch:
        """See `DriverHooks.watch_socket`."""
        return _SocketWatch(self, self._selector, connection, sock, act)

    def act(self, connection: Http2Connection, do: Callable[[], None]) -> None:
        """Act for a connection, and flush it; the lock must be held."""
        registered = self._registered.get(connection)
        if registered is not None:
            self._call(registered, do)
            self._call(registered, connection.flush)

    def submit(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit`."""
        self._commands.append((connection, do, arguments))
        # In this order: a thread that takes the leader's place does so first, and runs commands then.
        if threading.get_ident() == self._leadership.thread:
            self._run_commands_here()
        else:
            self.wake()

    def submit_last(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit_last`.

        Only a response that is over, or that answers what the client has just sent, is sent by the thread that made it:
        those that go on share their connection fairly when the leader takes turns between them.
        """
        self._commands.append((connection, do, arguments))
        if threading.get_ident() == self._leadership.thread:
            # The responses of a slice go out together at its end.
            return
        is_crowd = len(self._commands) > _MOST_COMMANDS
        if (is_crowd or not self._pool.tasks) and not self._leader_waits and self.lock.acquire(False):
            try:
                self.run_commands()
            finally:
                self.lock.release()
        else:
            self.wake()
            if is_crowd:
                self._wait_for_others()

    def submit_reply(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit_reply`; the leader may do something else before it waits."""
        leads = threading.get_ident() == self._leadership.thread
        (self.submit if leads else self.submit_last)(connection, do, *arguments)

    def _wait_for_others(self) -> None:
        """Wait until the commands that have gathered have run, without competing with the leader for the lock."""
        done = threading.Lock()
        done.acquire()
        self._held_up.append(done)
        # The leader may have run them just before.
        self.wake()
        done.acquire()

    def prepare_wait(self, ready: Callable[[], bool]) -> bool:
        """See `StreamOwner.prepare_wait`."""
        if threading.get_ident() == self._leadership.thread:
            self._run_commands_here()
            if ready():
                return True
            self._leadership.resign(failed=True)
        return False

    def _run_commands_here(self) -> None:
        with self.lock:
            self.run_commands()

    def _on_wake(self, _: object) -> None:
        self._waker.clear()
        self.run_commands()

    def run_commands(self) -> None:
        """See `Loop.run_commands`."""
        held_up = self._held_up
        if self._commands:
            self._run_gathered(self._commands)
        while held_up:
            held_up.popleft().release()

    def _run_gathered(self, commands: deque[_Command]) -> None:
        connections: dict[Http2Connection, None] = {}
        # Commands added meanwhile have their own wake-up, so that sockets get their turn.
        for _ in range(len(commands)):
            if not commands:
                # An application that was called back has submitted another one, and all have run with that.
                break
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
            elif connection in self._outlived:
                self._release_place(connection)
