"""The green driver, for gevent and eventlet: no greenlet for I/O, one for each request that waits.

The greenlet that calls `serve` only waits for the end of its connection. Runners do the work: greenlets that take
calls from one queue, one after another, until a call waits; then another runner goes on with the rest. The hub
watches the socket all the while, so that a wait costs no system call, and queues `_act` when something has happened.
`_act` never waits, except for a log. So the runner that has read requests goes on to run them, and the last of those
that arrived together writes the responses of all: a lone request costs one switch from the hub and one back.

The greenlet that acts owns the connection; it alone touches the socket and the core. Others leave commands for it,
or act themselves if no one does.

Everything runs in one thread: nothing here is safe to call from another one.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import EndReason, ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import RequestRefused

from .admission import Admission
from .base import Application, Driver, HandOver, RefusalHandler
from .channel import Channel
from .connection import Http2Connection
from .green_hub import Library, Signal
from .histogram import QueueProbe
from .log import Log
from .negotiation import Negotiation, Terms
from .request_gate import FEW_REQUESTS, RequestGate
from .request_queue import Request
from .slow_lane import LONG_TURN, RECENT, Paced, SlowLane
from .tunnel import SocketWatch

if TYPE_CHECKING:
    from .trace_file import TraceFile

__all__ = ["GreenDriver"]

# Idle greenlets that are kept. More of them, from a time when more calls waited, would hold memory for nothing.
_MAX_IDLE = 100
_MAX_COMMANDS = 64
"""Commands that a call may leave for its connection before it lets others run."""

_Call = tuple[Callable[..., object], tuple[Any, ...]]


class _Runners:
    """Greenlets that run calls, one after another until one of them waits; then the next greenlet goes on.

    So any number of calls may wait at the same time, and a call that does not wait needs no greenlet of its own.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self.calls: deque[_Call] = deque()
        """What no greenlet has begun yet; one that runs a call goes on with what that has added."""
        self._idle: list[greenlet] = []
        self._running: dict[greenlet, _Call] = {}
        """What each greenlet runs that is not idle."""
        self._retired: set[greenlet] = set()
        self._scheduled = False
        """Whether the hub is about to resume a greenlet for what is queued."""

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a greenlet call `call(*arguments)`, which should not raise."""
        self.calls.append((call, arguments))
        if not self._scheduled:
            self._schedule()

    def kill(self, call: Callable[..., object]) -> None:
        """Raise GreenletExit in the greenlets that are inside of this call; they run nothing but that."""
        # eventlet runs a killed greenlet at once.
        for runner in [runner for runner, running in self._running.items() if running[0] == call]:
            self._retired.add(runner)
            self._library.kill(runner)

    def step_back(self) -> None:
        """Let the other greenlets that are ready run first, in a call that may wait."""
        self._library.call_soon(getcurrent().switch)
        self._library.switch_to_hub()

    def _schedule(self) -> None:
        self._scheduled = True
        self._library.call_soon(self._resume)

    def _resume(self) -> None:
        """Called in the hub."""
        self._scheduled = False
        if self.calls:
            if self._idle:
                self._idle.pop().switch()
            else:
                self._library.spawn(self._work)
                # A spawned greenlet starts in the hub's next round, and runs the calls then.

    def _work(self) -> None:
        calls, running, current = self.calls, self._running, getcurrent()
        try:
            while current not in self._retired:
                if not calls:
                    if len(self._idle) >= _MAX_IDLE:
                        return
                    self._wait(current)
                    continue
                running[current] = call, arguments = calls.popleft()
                # If this call waits, another greenlet runs the rest.
                if calls and not self._scheduled:
                    self._schedule()
                call(*arguments)
                # The last request must not be kept alive by an idle greenlet.
                del call, arguments
        finally:
            self._retired.discard(current)
            running.pop(current, None)

    def _wait(self, current: greenlet) -> None:
        self._running.pop(current, None)
        self._idle.append(current)
        try:
            self._library.switch_to_hub()
        except GreenletExit:
            # The exception was for a call that has returned meanwhile.
            if current in self._idle:
                self._idle.remove(current)


class _SocketWatch:
    """A `SocketWatch` of the hub's, which has the owner act."""

    def __init__(self, library: Library, sock: socket.socket, act: Callable[[], None], owner: _Owner) -> None:
        self._watch = library.make_watch(sock.fileno(), self._notify)
        self._act = act
        self._owner = owner
        self._queued = False

    def expect(self, reads: bool, writes: bool) -> None:
        """See `SocketWatch.expect`."""
        self._watch.expect_only(reads, writes)

    def close(self) -> None:
        """See `SocketWatch.close`."""
        self._watch.close()

    def _notify(self) -> None:
        if not self._queued:
            self._queued = True
            self._owner.leave(self._run)

    def _run(self) -> None:
        self._queued = False
        self._act()


class _Owner(Paced):
    """Acts for one connection, in one greenlet at a time; the hooks of its `Http2Connection`."""

    thread_count = None

    def __init__(self, driver: GreenDriver, fd: int) -> None:
        super().__init__()
        self.config = driver.config
        self.counts = driver.counts
        self.log = driver.log
        self.output_budget = driver.output_budget
        self.spool = driver.spool
        self.trace = driver.trace
        self.window_budget = driver.window_budget
        self._driver = driver
        self._runners = driver.runners
        self._gate = driver.gate
        self._watch = driver.library.make_watch(fd, self._act_soon)
        self._ended = Signal(driver.library)
        """Sent when the connection is closed, and when a call returns after that."""
        self._commands: deque[_Call] = deque()
        """What the next greenlet that acts is to do."""
        self._act_queued = False
        self._acting = False
        self._missed = False
        """Whether something happened while a greenlet acted."""
        self._unfinished = 0
        self._not_begun = 0
        self.connection: Http2Connection | Negotiation | None = None
        """See `Holder.connection`."""

    # The greenlet that `serve` is called in

    def negotiate(self, negotiation: Negotiation) -> None:
        """Let the negotiation act until it is over."""
        self.connection = negotiation
        self._settle(negotiation)
        while not negotiation.closed:
            self._ended.wait()

    def serve(self, connection: Http2Connection, negotiation: Negotiation) -> None:
        """Serve a connection until it is closed and every application call has returned."""
        self._driver.slow_lane.leave(self)
        self.connection = connection
        self.leave(self._driver.begin, connection, negotiation)
        try:
            while not connection.closed:
                self._ended.wait()
        except GreenletExit:
            connection.abandon(EndReason.SHUTDOWN)
            self._runners.kill(self._serve_request)
        finally:
            self._watch.unwatch()
            connection.transport.close()
        # Until then, the connection counts towards `worker_connections`.
        while self._unfinished:
            self._ended.wait()
        # Run the commands of calls that have outlived their connection.
        self._run_commands()

    def retire(self) -> None:
        """Drop the references that form a cycle with this object, which only the garbage collector would free."""
        self.connection = None
        self._watch.close()
        del self._watch

    # The greenlet that acts

    def _act_soon(self) -> None:
        if not self._act_queued:
            self._act_queued = True
            if self.slow:
                self._driver.queue_slow_turn(self)
            else:
                self._runners.run(self._act)

    def take_slow_turn(self) -> None:
        """Act; for the slow lane."""
        if not isinstance(self.connection, Http2Connection):
            self._act()
            return
        self.enter_lane()
        has_input, began = self._watch.readable, time.thread_time()
        self._act()
        if has_input:
            self.note_slow_turn(time.thread_time() - began, time.monotonic())

    def _act(self) -> None:
        self._act_queued = False
        connection = self.connection
        if connection is None:
            return
        if self._acting:
            # The greenlet that acts waits for something else, perhaps a log's lock. The hub must not spin meanwhile.
            self._missed = True
            self._watch.unwatch()
            return
        watch = self._watch
        self._acting = True
        try:
            if self._commands or watch.writable:
                watch.writable = False
                self._run_commands()
                if not connection.closed:
                    connection.flush()
            if watch.readable and not connection.closed:
                watch.readable = False
                self._read(connection)
            if watch.expired and not connection.closed:
                watch.expired = False
                self._check_deadline(connection)
        except Exception:  # The top of a greenlet that acts.
            self._driver.contain(connection)
        finally:
            self._acting = False
        self._settle(connection)

    def _read(self, connection: Http2Connection | Negotiation) -> None:
        if self.slow:
            connection.handle_readable()
            return
        began = time.monotonic()
        connection.handle_readable()
        ended = time.monotonic()
        self.slow |= ended - began > LONG_TURN
        if ended - self.since > RECENT:
            self._driver.slow_lane.served_at = ended

    def _check_deadline(self, connection: Http2Connection | Negotiation) -> None:
        # The watch may have kept one that has moved.
        deadline = connection.next_deadline()
        if deadline is not None and deadline <= time.monotonic():
            connection.handle_timeout()

    def _settle(self, connection: Http2Connection | Negotiation) -> None:
        """Watch for what the connection waits for, or announce its end."""
        if self._missed:
            self._missed = False
            self._act_soon()
        if connection.closed:
            self._ended.send()
        else:
            self._watch.expect(connection.wants_write, connection.next_deadline())

    def _run_commands(self) -> None:
        commands = self._commands
        while commands:
            do, arguments = commands.popleft()
            do(*arguments)

    # Anyone

    def leave(self, do: Callable[..., object], *arguments: Any) -> None:
        """Queue a command, and a call of `_act`."""
        self._commands.append((do, arguments))
        self._act_soon()

    def shutdown(self) -> None:
        """Begin a graceful shutdown of the connection, or limit the time of the negotiation."""
        connection = self.connection
        if isinstance(connection, Http2Connection):
            self.leave(connection.shutdown)
        elif connection is not None:
            self.leave(connection.shutdown, self.config.drain_timeout)

    def make_way(self) -> None:
        """Have the connection or the negotiation end, because others need its place."""
        if self.connection is not None:
            self.leave(self.connection.make_way)

    def start_request(self, connection: Http2Connection, channel: Channel) -> None:
        """See `DriverHooks.start_request`."""
        self._driver.on_request()
        self._unfinished += 1
        self._not_begun += 1
        calls, gate = self._runners.calls, self._gate
        if len(calls) < FEW_REQUESTS and not gate.waiting:
            # This is a call of a runner, which goes on with them.
            calls.append((self._serve_request, (connection, channel)))
        else:
            gate.hold((connection, channel), (self._serve_request, connection, channel))

    def requests_wait(self) -> bool:
        """See `Shared.requests_wait`."""
        return self._gate.waiting > 0

    def note_refusal(self, connection: Http2Connection, refusal: RequestRefused) -> None:
        """See `DriverHooks.note_refusal`."""
        self._runners.run(self._driver.on_refused, connection, refusal)

    def note_closed(self, connection: Http2Connection, code: ErrorCode, reason: str) -> None:
        """See `DriverHooks.note_closed`."""
        self._driver.note_closed(connection, code, reason)

    def note_limit(self, connection: Http2Connection, limit: StreamLimit, stream_id: int | None) -> None:
        """See `DriverHooks.note_limit`."""
        self._driver.note_limit(connection, limit, stream_id)

    def act_now(self, connection: Http2Connection) -> None:
        """See `StreamOwner.act_now`."""
        self._driver.hold_requests()
        if not self._acting:
            is_queued = self._act_queued
            self._act()
            # Another turn would be queued beside the one that still comes.
            self._act_queued |= is_queued

    def defer(self, connection: Http2Connection) -> bool:
        """See `TransportConnection.defer`."""
        is_there = self.enter_lane()
        if not is_there:
            self._watch.readable = True
            self._act_soon()
        return is_there

    def run(self, call: Callable[[], object]) -> None:
        """See `DriverHooks.run`."""
        self._runners.run(call)

    def watch_socket(self, connection: Http2Connection, sock: socket.socket, act: Callable[[], None]) -> SocketWatch:
        """See `DriverHooks.watch_socket`."""
        return _SocketWatch(self._driver.library, sock, act, self)

    def _serve_request(self, connection: Http2Connection, channel: Channel) -> None:
        self._not_begun -= 1
        try:
            self._driver.application(connection, channel)
        finally:
            self._unfinished -= 1
            if connection.closed:
                self._ended.send()

    def submit(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit`."""
        self.leave(do, *arguments)
        if len(self._commands) > _MAX_COMMANDS:
            # A response in many small pieces would keep all others waiting until its buffer is full.
            self._runners.step_back()

    submit_reply = submit
    """See `DriverHooks.submit_reply`: the others have their turns first."""

    def prepare_wait(self, ready: Callable[[], bool]) -> bool:
        """See `StreamOwner.prepare_wait`: other runners act for the connection, always."""
        return False

    def submit_last(self, connection: Http2Connection, do: Callable[..., None], *arguments: Any) -> None:
        """See `DriverHooks.submit_last`.

        Only the last response of those whose requests arrived together is written at once, and only at its end: one
        that goes on could keep the hub from all others for as long as its client reads.
        """
        if self._not_begun or self._acting:
            self._commands.append((do, arguments))
            if not self._act_queued:
                self._act_soon()
            return
        self._acting = True
        try:
            if self._commands:
                self._run_commands()
            do(*arguments)
            connection.flush()
        except Exception:  # As in `_act`.
            self._driver.contain(connection)
        finally:
            self._acting = False
        self._settle(connection)


class GreenDriver(Driver[Application, _Owner]):
    """All HTTP/2 connections of a worker."""

    def __init__(
        self,
        library: Library,
        config: ConnectionConfig,
        application: Application,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
        admission: Admission | None = None,
        trace: TraceFile | None = None,
    ) -> None:
        super().__init__(config, application, log, on_request, on_refused, admission, trace)
        self.library = library
        self.runners = runners = _Runners(library)
        self.gate: RequestGate[tuple[Any, ...]] = RequestGate(lambda item: runners.run(*item), library.call_after_poll)
        self.slow_lane: SlowLane[_Owner] = SlowLane(_Owner.take_slow_turn)
        self._slow_turns_scheduled = False
        self._owners: set[_Owner] = set()

    def hold_requests(self) -> None:
        """Have requests that have not begun take turns from now on, because one that has makes a large response.

        A hundred such requests would otherwise have the hub to themselves, one after another.
        """
        calls = self.runners.calls
        held: list[tuple[Request, tuple[Any, ...]]] = []
        for _ in range(len(calls)):
            call, arguments = calls.popleft()
            if getattr(call, "__func__", None) is _Owner._serve_request:
                connection, channel = arguments
                held.append(((connection, channel), (call, connection, channel)))
            else:
                calls.append((call, arguments))
        self.gate.hold_again(held)

    def serve(
        self,
        sock: socket.socket,
        peer: object,
        local_address: object,
        terms: Terms,
        hand_over: HandOver,
    ) -> None:
        """Serve an accepted socket to its end, in the calling greenlet; HTTP/1 goes to `hand_over`."""
        negotiation = self.begin_negotiation(sock, peer, terms)
        if negotiation is None:
            return
        try:
            self._serve(negotiation, local_address, hand_over)
        finally:
            if negotiation.peer is not peer:
                # The caller knows of the proxy, not of its client.
                self.admission.release(negotiation.peer)

    def _serve(self, negotiation: Negotiation, local_address: object, hand_over: HandOver) -> None:
        transport = negotiation.transport
        owner = _Owner(self, transport.fileno())
        self._owners.add(owner)
        self.hold_negotiation(negotiation, owner)
        speaks_http1 = False
        try:
            try:
                owner.negotiate(negotiation)
            finally:
                self.end_negotiation(negotiation)
            if negotiation.error is not None:
                self.end_failed(negotiation)
            elif negotiation.http2:
                owner.serve(Http2Connection(transport, negotiation.peer, local_address, owner), negotiation)
            else:
                speaks_http1 = True
        finally:
            self._owners.discard(owner)
            owner.retire()
            if not speaks_http1:
                transport.close()
        if speaks_http1:
            hand_over(transport.sock, negotiation.peer, local_address, negotiation.data, negotiation.header)

    def queue_slow_turn(self, owner: _Owner) -> None:
        """Give a connection a turn in the slow lane, in this round of the hub or a later one."""
        self.slow_lane.queue.append(owner)
        if not self._slow_turns_scheduled:
            self._schedule_slow_turns()

    def _schedule_slow_turns(self) -> None:
        self._slow_turns_scheduled = True
        self.runners.run(self._take_slow_turns)

    def _take_slow_turns(self) -> None:
        self.slow_lane.run(bool(self.runners.calls))
        if self.slow_lane.queue:
            self.library.call_after_poll(self._schedule_slow_turns)
        else:
            self._slow_turns_scheduled = False

    def _holders(self) -> Iterable[_Owner]:
        return self._owners

    def probe_queue(self, probe: QueueProbe, late: float) -> None:
        """See `Driver.probe_queue`."""
        probe.start(late, self.runners.run)

    def load(self) -> dict[str, int]:
        """See `Driver.load`."""
        return {"queued": self.gate.waiting + len(self.runners.calls)}

    def _make_way(self, owner: _Owner) -> None:
        owner.make_way()

    def shutdown(self) -> None:
        """Begin a graceful shutdown of every connection, including new ones; any greenlet may call it."""
        if not self._shutting_down:
            self._shutting_down = True
            for owner in self._owners:
                owner.shutdown()
