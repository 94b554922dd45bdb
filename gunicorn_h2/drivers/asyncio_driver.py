"""The asyncio driver: the event loop watches the sockets, a request is a task.

Everything runs in the event loop's thread: the peer's data and the applications' calls reach the core directly. A
callback in the loop's next turn writes the output, so tasks that a read starts and that finish in one turn share
one write.

The loop's own transports are not used, because under TLS they keep a read buffer of 256 KiB for each connection.
The socket is wrapped in the same `Transport` as in the other drivers, so an idle connection holds only its state.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import EndReason, ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import RequestReceived, RequestRefused
from gunicorn_h2.protocol.stream import Stream

from .admission import Admission
from .asyncio_channel import AsyncChannel, HeldEnd
from .base import Driver, RefusalHandler
from .connection import TransportConnection
from .histogram import QueueProbe
from .log import Log
from .negotiation import Negotiation, Terms
from .request_gate import FEW_REQUESTS, RequestGate
from .slow_lane import LONG_TURN, RECENT, Paced, SlowLane
from .transport import Transport

if TYPE_CHECKING:
    from .trace_file import TraceFile

__all__ = ["AsyncApplication", "AsyncHandOver", "AsyncHttp2Connection", "AsyncioDriver"]

# uvloop counts whole milliseconds; a timer that fires before its deadline would be set again and again.
_CLOCK_RESOLUTION = 0.001

AsyncApplication = Callable[["AsyncHttp2Connection", AsyncChannel], Coroutine[Any, Any, object]]
AsyncHandOver = Callable[[Transport, object, bytes, bytes], None]
"""Takes the transport of a connection that speaks HTTP/1, its peer, what was read from it, and before that the PROXY
header."""


class AsyncioDriver(Driver[AsyncApplication, "_Watch"]):
    """All HTTP/2 connections of a worker; every method is for the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: ConnectionConfig,
        application: AsyncApplication,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
        on_close: Callable[[object], object],
        admission: Admission | None = None,
        trace: TraceFile | None = None,
    ) -> None:
        """`on_close(peer)` is called when a connection is closed and its last task is done."""
        # A task that waits costs no thread, and ASGI applications expect to be called with the head.
        config = replace(config, request_buffer_size=0)
        super().__init__(config, application, log, on_request, on_refused, admission, trace)
        self.loop = loop
        self._on_close = on_close
        self._watches: set[_Watch] = set()
        self.gate: RequestGate[Callable[[], None]] = RequestGate(lambda begin: begin(), loop.call_soon)
        self.not_begun = 0
        """How many requests wait for the loop's next turn to begin."""
        self.slow_lane: SlowLane[_Watch] = SlowLane(_Watch.take_slow_turn)
        self._slow_turns_scheduled = False

    def negotiate(self, sock: socket.socket, peer: object, terms: Terms, hand_over: AsyncHandOver) -> None:
        """Negotiate the protocol of an accepted socket; HTTP/1 goes to `hand_over`."""
        negotiation = self.begin_negotiation(sock, peer, terms)
        if negotiation is None:
            self._on_close(peer)
        else:
            watch = _Watch(self, negotiation, hand_over)
            self._watches.add(watch)
            watch.start()
            self.hold_negotiation(negotiation, watch)

    def handed_over(self, watch: _Watch) -> None:
        """Forget a connection that was handed over, without closing it."""
        self._watches.remove(watch)

    def forget(self, watch: _Watch) -> None:
        """Forget a connection that is closed and has no more tasks."""
        self._watches.remove(watch)
        peer = watch.connection.peer
        watch.retire()
        self._on_close(peer)

    def watches(self, watch: _Watch) -> bool:
        """Whether it has neither been handed over nor forgotten."""
        return watch in self._watches

    def queue_slow_turn(self, watch: _Watch) -> None:
        """Give a connection a turn in the slow lane, in this turn of the loop or a later one."""
        self.slow_lane.queue.append(watch)
        if not self._slow_turns_scheduled:
            self._slow_turns_scheduled = True
            self.loop.call_soon(self._take_slow_turns)

    def _take_slow_turns(self) -> None:
        self._slow_turns_scheduled = False
        self.slow_lane.run()
        if self.slow_lane.queue and not self._slow_turns_scheduled:
            self._slow_turns_scheduled = True
            self.loop.call_soon(self._take_slow_turns)

    def _now(self) -> float:
        return self.loop.time()

    def _holders(self) -> Iterable[_Watch]:
        return self._watches

    def probe_queue(self, probe: QueueProbe, late: float) -> None:
        """See `Driver.probe_queue`."""
        probe.start(late, self.loop.call_soon)

    def requests_wait(self) -> bool:
        """See `Shared.requests_wait`."""
        return self.gate.waiting > 0

    def load(self) -> dict[str, int]:
        """See `Driver.load`."""
        return {"queued": self.gate.waiting + self.not_begun}

    def _make_way(self, watch: _Watch) -> None:
        watch.call(watch.connection.make_way)

    def shutdown(self) -> None:
        """Begin a graceful shutdown of every connection, including new ones."""
        if not self._shutting_down:
            self._shutting_down = True
            for watch in list(self._watches):
                watch.shutdown(self.config.drain_timeout)

    def cancel(self) -> None:
        """Cancel every task and close every connection at once."""
        for watch in list(self._watches):
            watch.cancel()


class _Watch(Paced):
    """A socket in the event loop, with its negotiation and then its HTTP/2 connection."""

    __slots__ = (
        "connection",
        "_driver",
        "_fd",
        "_hand_over",
        "_loop",
        "_queued",
        "_timer",
        "_timer_deadline",
        "_writing",
    )

    def __init__(self, driver: AsyncioDriver, negotiation: Negotiation, hand_over: AsyncHandOver) -> None:
        super().__init__()
        self._driver = driver
        self._loop = driver.loop
        self._hand_over = hand_over
        self.connection: Negotiation | AsyncHttp2Connection = negotiation
        """See `Holder.connection`."""
        self._queued = False
        """Whether it waits for a turn there."""
        self._fd = -1
        """The socket's file descriptor; -1 while it is not watched."""
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = 0.0

    # The negotiation

    def start(self) -> None:
        """Watch the socket."""
        self._fd = self.connection.transport.fileno()
        self._loop.add_reader(self._fd, self._handle_readable)
        self._update()

    def _end_negotiation(self, negotiation: Negotiation) -> None:
        self._driver.end_negotiation(negotiation)
        if negotiation.error is not None:
            self._release()
            self._driver.end_failed(negotiation)
            self._driver.forget(self)
        elif negotiation.http2:
            self._cancel_timer()
            self._driver.slow_lane.leave(self)
            self.connection = AsyncHttp2Connection(self._driver, self, negotiation.transport, negotiation.peer)
            self.call(self._driver.begin, self.connection, negotiation)
        else:
            self._release()
            self._driver.handed_over(self)
            peer, data, header = negotiation.peer, negotiation.data, negotiation.header
            self.call(self._hand_over, negotiation.transport, peer, data, header)

    # What happens

    def call(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call a method of the connection, then update what the loop waits for."""
        try:
            call(*arguments)
        except Exception:  # The top of a callback.
            self._driver.contain(self.connection)
        finally:
            self._update()

    def shutdown(self, timeout: float) -> None:
        """Have the connection end gracefully, or the negotiation within `timeout` seconds."""
        if isinstance(self.connection, Negotiation):
            self.call(self.connection.shutdown, timeout)
        else:
            self.call(self.connection.shutdown)

    def cancel(self) -> None:
        """Cancel the connection's tasks and close it at once."""
        if isinstance(self.connection, Negotiation):
            self.call(self.connection.abandon)
        else:
            self.connection.cancel_tasks()
            self.call(self.connection.abandon, EndReason.SHUTDOWN)

    def forget_if_over(self) -> None:
        """Leave the driver if the socket is closed and no task is left."""
        if self._fd >= 0 or not self._driver.watches(self):
            return
        if not (isinstance(self.connection, AsyncHttp2Connection) and self.connection.channels):
            self._driver.forget(self)

    def retire(self) -> None:
        """Break the reference cycle with the connection, which only the garbage collector would free."""
        del self.connection

    def _handle_readable(self) -> None:
        if self.slow:
            self._queue_slow_turn()
            return
        began = time.monotonic()
        self.call(self.connection.handle_readable)
        self._check_error()
        ended = time.monotonic()
        self.slow |= ended - began > LONG_TURN
        if ended - self.since > RECENT:
            self._driver.slow_lane.served_at = ended

    def defer(self) -> bool:
        """See `TransportConnection.defer`."""
        is_there = self.enter_lane()
        if not is_there:
            self._queue_slow_turn()
        return is_there

    def _queue_slow_turn(self) -> None:
        if not self._queued:
            self._queued = True
            self._driver.queue_slow_turn(self)

    def take_slow_turn(self) -> None:
        """Read; for the slow lane."""
        self._queued = False
        if self._fd < 0:
            return
        if isinstance(self.connection, Negotiation):
            self._read()
            return
        self.enter_lane()
        began = time.thread_time()
        self._read()
        self.note_slow_turn(time.thread_time() - began, time.monotonic())

    def _read(self) -> None:
        self.call(self.connection.handle_readable)
        self._check_error()

    def _check_error(self) -> None:
        # uvloop stops watching a socket with a pending error, even if there was data to read.
        if self._fd >= 0:
            error = self.connection.transport.take_error()
            if error is not None:
                self.call(self.connection.lose, error)

    def _handle_writable(self) -> None:
        if isinstance(self.connection, Negotiation):
            self._queue_slow_turn()
        else:
            self.call(self.connection.flush)

    def _handle_timer(self) -> None:
        self._timer = None
        self.call(self.connection.handle_timeout)

    def _update(self) -> None:
        if self._fd < 0:
            return
        connection = self.connection
        if connection.closed:
            if isinstance(connection, Negotiation):
                self._end_negotiation(connection)
                return
            self._release()
            connection.transport.close()
            self.forget_if_over()
            return
        if type(connection) is AsyncHttp2Connection and connection.flush_scheduled:
            # The deadline is read again after the flush.
            return
        if connection.wants_write != self._writing:
            self._writing = not self._writing
            if self._writing:
                self._loop.add_writer(self._fd, self._handle_writable)
            else:
                self._loop.remove_writer(self._fd)
        deadline = connection.next_deadline()
        # A timer that fires early does nothing, and costs less than moving it each time.
        if deadline is not None and (self._timer is None or deadline < self._timer_deadline):
            self._cancel_timer()
            self._timer_deadline = deadline
            delay = max(deadline - connection.now(), 0.0) + _CLOCK_RESOLUTION
            self._timer = self._loop.call_later(delay, self._handle_timer)

    def _release(self) -> None:
        """Stop watching the socket."""
        self._cancel_timer()
        if self._writing:
            self._loop.remove_writer(self._fd)
        self._loop.remove_reader(self._fd)
        self._fd = -1

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AsyncHttp2Connection(TransportConnection):
    """A connection whose applications run in tasks of the event loop."""

    def __init__(self, driver: AsyncioDriver, watch: _Watch, transport: Transport, peer: object) -> None:
        super().__init__(transport, peer, transport.local_address(), driver.loop.time, driver)
        self.loop = driver.loop
        self.held: list[HeldEnd] = []
        """See `AsyncStreamOwner.held`."""
        self.flush_scheduled = False
        """See `AsyncStreamOwner.flush_scheduled`."""
        self.window_budget = driver.window_budget
        self._driver = driver
        self._watch = watch
        self.log = driver.log
        self.channels: set[AsyncChannel] = set()
        """See `AsyncStreamOwner.channels`."""

    def receive(self, data: bytes) -> None:
        """See `TransportConnection.receive`; the output is written after the tasks that this starts."""
        self.core.receive_data(data, self.now())
        self.dispatch()
        self.schedule_flush()

    def schedule_flush(self) -> None:
        """See `AsyncStreamOwner.schedule_flush`."""
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.loop.call_soon(self._watch.call, self.flush)

    def write_now(self) -> None:
        """See `AsyncStreamOwner.write_now`."""
        # The ends that are held may still change.
        self._watch.call(super().flush)

    def flush(self) -> None:
        """See `TransportConnection.flush`."""
        if self.held:
            held, self.held = self.held, []
            for end in held:
                if end.held is not None:
                    end.flush()
        self.flush_scheduled = False
        # All tasks of earlier reads have begun: a read schedules its flush behind them.
        self._driver.not_begun = 0
        super().flush()

    def start(self, request: RequestReceived) -> None:
        """See `EventDispatcher.start`."""
        stream = request.stream
        stream.context = channel = AsyncChannel(self, stream, request.end_stream and not request.body)
        if request.body:
            channel.deliver(request.body, True)
        self.channels.add(channel)
        driver = self._driver
        driver.on_request()
        if driver.not_begun < FEW_REQUESTS and not driver.gate.waiting:
            driver.not_begun += 1
            channel.task = self.loop.create_task(driver.application(self, channel))
        else:
            driver.gate.hold((self, channel), partial(self._begin, channel))

    def _begin(self, channel: AsyncChannel) -> None:
        if channel in self.channels:
            channel.task = self.loop.create_task(self._driver.application(self, channel))

    def defer(self) -> bool:
        """See `TransportConnection.defer`."""
        return self._watch.defer()

    def note_refusal(self, refusal: RequestRefused) -> None:
        """See `EventDispatcher.note_refusal`."""
        self._driver.on_refused(self, refusal)

    def note_closed(self, code: ErrorCode, reason: str) -> None:
        """See `EventDispatcher.note_closed`."""
        self._driver.note_closed(self, code, reason)

    def note_limit(self, limit: StreamLimit, stream_id: int | None) -> None:
        """See `EventDispatcher.note_limit`."""
        self._driver.note_limit(self, limit, stream_id)

    def finish(self, stream: Stream) -> None:
        """See `AsyncStreamOwner.finish`."""
        self.core.finish(stream, self.now())
        self.schedule_flush()
        if self.closed:
            self._watch.forget_if_over()

    def cancel_tasks(self) -> None:
        """Cancel the tasks of all requests."""
        for channel in list(self.channels):
            if channel.task is None:
                # It is held back, and will not begin.
                channel.finish()
            else:
                channel.task.cancel()
                # A task that has not begun never calls `finish`.
                channel.task.add_done_callback(partial(self._ensure_finished, channel))

    def _ensure_finished(self, channel: AsyncChannel, task: asyncio.Task[object]) -> None:
        if channel in self.channels:
            channel.finish()
