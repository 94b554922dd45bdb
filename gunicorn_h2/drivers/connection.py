"""One connection: a transport below, the core in the middle, channels above.

Only the thread (or greenlet) that owns the connection calls its methods. The driver decides how that thread waits,
by `wants_write` and `next_deadline`. `TransportConnection` is the base for all drivers, and `Http2Connection` is for
drivers whose applications block.
"""

from __future__ import annotations

import math
import socket
import time
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from gunicorn_h2.protocol.errors import EndReason, ErrorCode, StreamLimit
from gunicorn_h2.protocol.events import RequestReceived, RequestRefused
from gunicorn_h2.protocol.headers import Fields, ResponseHead
from gunicorn_h2.protocol.outbox import OUTPUT_LIMIT
from gunicorn_h2.protocol.stream import CLOSED, Source, Stream

from .channel import HURRIED_CHECK_SECONDS, Channel
from .connection_log import ConnectionRecord
from .dispatch import EventDispatcher, Shared
from .hooks import DriverHooks
from .slow_lane import LONG_TURN
from .transport import Transport
from .tunnel import SocketWatch, Tunnel

__all__ = ["Http2Connection", "LINGER_SECONDS", "TransportConnection"]

# How long the peer gets to read our last octets. If the socket is closed at once, the kernel may answer late frames
# with a TCP reset, which destroys data that the peer has not read yet.
LINGER_SECONDS = 1.0
_FLUSH_ROUNDS = 4
# Output that has left the core is written before every later response. If the socket takes longer than this for it,
# the connection takes less at a time, but at least half of the 64 KiB segment that the kernel takes at any limit.
_LONGEST_WAIT = 0.01
_LEAST_OUTPUT = 32_768
_MAX_READS = 8
# What a client gets to read its last octets whose place is needed for others.
_PARTING_SECONDS = 0.1
# Streams that have waited for their client for so long are stalled.
_STALL_SECONDS = 1.0
# Seconds after which a client that takes nothing is not awaited in memory any more: a window that is shut for longer
# than a round trip within a data centre, and a socket that is full for longer than a busy client does something else.
_SHUT_SECONDS = 0.01
_FULL_SECONDS = 0.05
# Less than this is not worth a block of the spool.
_LEAST_STORED = 1_024
# Octets that are stored before other connections have their turn, and seconds until the next trial if there is no room.
_MOST_STORED = 8_388_608
_STORE_PAUSE = 1.0


class TransportConnection(EventDispatcher):
    """An HTTP/2 connection over a transport; its owner calls it when something happens."""

    def __init__(
        self,
        transport: Transport,
        peer: object,
        local_address: object,
        clock: Callable[[], float],
        shared: Shared,
    ) -> None:
        super().__init__(peer, clock, shared)
        config = shared.config
        self.transport = transport
        self.local_address = local_address
        self.stream_buffer_size = config.stream_buffer_size
        self.window_size = config.initial_window_size
        self.response_spool_size = config.response_spool_size
        self.spool = shared.spool
        self._budget = shared.output_budget
        self._requests_wait = shared.requests_wait
        self._least_read = config.min_read_rate * config.stream_timeout
        self._sent = 0
        """Octets written since the peer's time to read began."""
        self._store_at = 0.0
        """When queued data may be stored at the earliest."""
        self.closed = False
        """Whether nothing is left to do but to close the socket."""
        self.context: Any = None
        """An object of the application layer, shared by the connection's requests."""
        self.record: ConnectionRecord | None = None
        """For the line in the log at the end; None if there is to be none."""
        self.leaving = False
        """Whether the worker is about to end."""
        self.wants_write = False
        """Whether there is output that the socket did not take."""
        self._unsent: bytes | memoryview = b""
        self._untaken = 0
        """Octets that the peer had not acknowledged at the last check of its progress."""
        self._waits_since = 0.0
        """When the `_unsent` octets left the core."""
        self._last_taken = 0.0
        """When the socket, or the peer, has last taken some of them."""
        self._write_deadline: float | None = None
        self._linger_deadline: float | None = None
        self._linger_seconds = LINGER_SECONDS
        self._may_read_on = True
        """Whether one more read is allowed before the connection ends; a second one must wait for its turn."""

    # What the owner waits for

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is due."""
        if self._linger_deadline is not None:
            return self._linger_deadline
        deadline = self.core.next_deadline()
        if self._write_deadline is not None:
            deadline = self._write_deadline if deadline is None else min(deadline, self._write_deadline)
        if self._budget.used > self._budget.mark:
            due = self._store_deadline()
            deadline = due if deadline is None else min(deadline, due)
        return deadline

    def _store_deadline(self) -> float:
        """When queued data is to leave the memory, of which the worker's connections use too much; infinite: never."""
        if self._budget.used <= self._budget.mark or not self.core.has_storable:
            return math.inf
        if self.core.blocked or (self.wants_write and self._budget.used > self._budget.limit):
            return self._store_at
        return max(self._waits_since + _FULL_SECONDS, self._store_at) if self.wants_write else math.inf

    def is_stalled(self, stream: Stream, in_a_hurry: bool = False) -> bool:
        """Whether the client takes nothing of a stream's response; callable from any thread, which may act on it late.

        The shorter the worker's memory, the sooner: a shut window is enough then, and a full socket at last. As for
        threads, a caller whose thread others wait for is `in_a_hurry`.
        """
        used, mark = self._budget.used, self._budget.mark
        shut_since = self.core.blocked.get(stream.stream_id)
        if shut_since is not None:
            least = HURRIED_CHECK_SECONDS if in_a_hurry else _SHUT_SECONDS
            return used > mark or self.now() - shut_since >= least
        if not self.wants_write:
            return False
        least = HURRIED_CHECK_SECONDS if in_a_hurry or used > mark else _FULL_SECONDS
        return used > self._budget.limit or self.now() - self._waits_since >= least

    # Input and timers

    def receive(self, data: bytes) -> None:
        """Take octets from the socket and answer."""
        self.core.receive_data(data, self.now())
        self.flush()

    def handle_readable(self) -> None:
        """Read what has arrived, up to a limit, and answer it."""
        transport = self.transport
        try:
            data = transport.receive()
            # Each read has a TLS record at most. While requests wait, turns are rare: one has to do for many records.
            least = 1 if self._requests_wait() else transport.full_read
            if data is not None and len(data) >= least:
                data = self._receive_on(data, least)
        except OSError as error:
            self.lose(error)
            return
        if data and self._linger_deadline is None:
            self.receive(data)
        elif data == b"" and self._may_follow():
            self.lose(None)
        elif self.core.pending_events or self.core.has_output:
            self.schedule_flush()

    def _may_follow(self) -> bool:
        """Note that the client has closed its side; return whether the connection may end in this turn.

        Thousands may close at once; the slow lane keeps others from waiting for all of them.
        """
        if self.record is not None:
            # The socket may fail before the next turn.
            self.record.note_lost(None)
        return self.defer()

    @abstractmethod
    def defer(self) -> bool:
        """Have a turn in the slow lane, whether or not the socket is ready; return whether this one is there."""

    def _receive_on(self, data: bytes, least: int) -> bytes | None:
        """Take a read, and go on until one is below the `least` or others have their turn; return what is left."""
        transport, until = self.transport, time.monotonic() + LONG_TURN
        for _ in range(_MAX_READS - 1):
            self._receive_part(data)
            if time.monotonic() >= until:
                return None
            more = transport.receive()
            if more is None or len(more) < least:
                return more
            data = more
        return data

    def _receive_part(self, data: bytes) -> None:
        """Take octets from the socket, without answering yet: more of them follow."""
        if self._linger_deadline is None:
            self.core.receive_data(data, self.now())
        elif self._may_read_on:
            # The data is dropped; the end of the connection often follows it.
            self._may_read_on = False
            self.handle_readable()

    def handle_timeout(self) -> None:
        """Act on deadlines that have passed."""
        now = self.now()
        if self._linger_deadline is not None:
            if self._linger_deadline <= now:
                self._linger(now)
            return
        if self._write_deadline is not None and self._write_deadline <= now:
            if not self._has_read(self._least_read):
                self._give_up_reader()
                return
            self._await_reader(now)
        self.core.handle_timeout(now, *self._delivery())
        if self.core.lifecycle.end_reason is EndReason.KEEPALIVE_TIMEOUT:
            self._end_soon()
        self._store_if_due(now)
        self.schedule_flush()

    def _delivery(self) -> tuple[int, int]:
        """The octets written that the peer has acknowledged, and those that it has not; 0 and 0: unknown."""
        taken = self.transport.taken_octets()
        return taken, len(self._unsent) + self.transport.untaken_octets() if taken else 0

    def _store_if_due(self, now: float) -> None:
        if self._store_deadline() <= now:
            self._store_queues(now)

    def _store_queues(self, now: float) -> None:
        """Move what the peer does not take out of memory, except what an application's thread is about to move."""
        core, left = self.core, _MOST_STORED
        core.has_storable = False
        for stream in core.streams.values():
            if _LEAST_STORED <= stream.queued - stream.stored <= 2 * self.stream_buffer_size:
                stored = core.store_queue(stream, 0, self.response_spool_size - stream.stored, self.spool.store)
                left -= stored
                if not stored or left <= 0:
                    # There is no room; or others have their turn.
                    core.has_storable = True
                    self._store_at = now if stored else now + _STORE_PAUSE
                    return

    def do_give_up(self, stream: Stream) -> None:
        """See `StreamOwner.do_give_up`."""
        if stream.state is not CLOSED:
            self.core.reset(stream, ErrorCode.CANCEL)
            self.note_limit(StreamLimit.BODY_TIMEOUT, stream.stream_id)

    def shutdown(self) -> None:
        """Begin a graceful shutdown."""
        self.leaving = True
        self.core.shutdown(self.now())
        for stream in list(self.core.streams.values()):
            tunnel = stream.context
            if isinstance(tunnel, Tunnel):
                tunnel.go_away()
        self.schedule_flush()

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection for an error of the peer that only the driver can see."""
        self.core.fail(code, reason)
        self.schedule_flush()

    @property
    def priority_changes(self) -> int:
        """See `ServerConnection.priority_changes`."""
        return self.core.priority_changes

    @property
    def is_reading(self) -> bool:
        """Whether the client has been sent whole responses, and leaves nothing unread now; callable from any thread."""
        core = self.core
        return not self.wants_write and not core.blocked and core.guard.answered(len(core.streams)) > 0

    # Making room for others

    @property
    def ending(self) -> bool:
        """Whether the connection is over, or about to be."""
        return self.core.closed

    @property
    def idle_since(self) -> float | None:
        """Since when no stream has been open and nothing waits to be written; None while that is not so."""
        return None if self.wants_write or self.core.has_output else self.core.idle_since

    def waits_for_client(self, now: float) -> bool:
        """Whether all that is left to do has waited for the client for a while: for a window, a body, or a reader."""
        since = now - _STALL_SECONDS
        if self._last_taken > since if self.wants_write else not self.core.streams:
            return False
        return all(self._stream_waits(stream, since) for stream in self.core.streams.values())

    def _stream_waits(self, stream: Stream, since: float) -> bool:
        """Whether a stream has waited since then or longer."""
        if self.core.is_blocked(stream, since) or (self.wants_write and (stream.queued or stream.end_queued)):
            return True
        # An application that waits for the request may send the response meanwhile, as those of gRPC do.
        channel = stream.context
        return channel is not None and max(channel.starving_since, stream.sent_at) <= since

    def make_way(self) -> None:
        """End the connection soon, whether or not the client reads, because others need its place."""
        self._end_soon()
        self.fail(ErrorCode.NO_ERROR, EndReason.MADE_ROOM)

    def _end_soon(self) -> None:
        """Have the end of the connection take no longer than a moment, whether or not the client reads."""
        self._linger_seconds = self.read_timeout = _PARTING_SECONDS
        if self.wants_write:
            self._await_reader(self.now())

    def schedule_flush(self) -> None:
        """Have `flush` called, in this class at once."""
        self.flush()

    def flush(self) -> None:
        """Dispatch events and write output, until the socket takes no more."""
        core = self.core
        if self.closed:
            return
        if core.pending_events:
            self.dispatch()
        if core.closed and self._peer_has_left():
            return
        if self.wants_write:
            self._write(self._unsent)
        if core.has_output and not self.wants_write:
            self._write_output()
            if core.pending_events:
                self.dispatch()
            if self._budget.used > self._budget.mark:
                self._store_if_due(self.now())
        if core.closed and not self.wants_write and self._linger_deadline is None and not self.closed:
            self.transport.half_close()
            now = self.now()
            self._await_reader(now)
            self._linger_deadline = now + self._linger_seconds

    def _peer_has_left(self) -> bool:
        """End the connection of a client that has said GOAWAY if it has closed its side; return whether it has."""
        if not self.core.lifecycle.peer_going_away or self._linger_deadline is not None:
            return False
        try:
            if self.transport.receive() != b"":
                return False
        except OSError as error:
            self.lose(error)
        else:
            self.lose(None)
        return True

    def _write_output(self) -> None:
        core, now = self.core, self.now()
        if self._budget.used > self._budget.mark:
            core.output_limit = min(core.output_limit, 2 * _LEAST_OUTPUT)
        for _ in range(_FLUSH_ROUNDS):
            data = core.data_to_send(now)
            if not data or not self._write(data) or len(data) < _LEAST_OUTPUT:
                return
        # Let other connections have their turn; the socket is still writable.
        core.output_limit = min(core.output_limit * 2, OUTPUT_LIMIT)
        self._keep(core.data_to_send(now))
        self._waits_since = now
        self.wants_write = len(self._unsent) > 0

    def _write(self, data: bytes | memoryview) -> bool:
        """Write; return False if the socket is full or failed."""
        try:
            sent = self.transport.send(data)
        except OSError as error:
            self.lose(error)
            return False
        if sent == len(data):
            if self.wants_write:
                self._note_taken()
                self._keep(b"")
            self.wants_write = False
            self._write_deadline = None
            return True
        now = self.now()
        if not self.wants_write:
            self._waits_since = now
        self._keep(memoryview(data)[sent:])
        self.wants_write = True
        self._sent += sent
        if self._write_deadline is None or (sent and self._sent >= self._least_read):
            self._await_reader(now)
        return False

    def _keep(self, unsent: bytes | memoryview) -> None:
        """Keep what the socket did not take, which counts as output in memory."""
        self._budget.used += len(unsent) - len(self._unsent)
        self._unsent = unsent

    def _note_taken(self) -> None:
        """Note that the socket has taken output that it did not take at once."""
        core = self.core
        if self.now() - self._waits_since > _LONGEST_WAIT:
            core.output_limit = max(core.output_limit // 2, _LEAST_OUTPUT)

    def _await_reader(self, now: float) -> None:
        """Start the peer's time to read."""
        self._sent = 0
        self._has_read()
        self._last_taken = now
        self._write_deadline = now + self.read_timeout if self.read_timeout else None

    def _has_read(self, least: float = 0) -> bool:
        """Whether the peer has acknowledged all, or at least so many octets and one, since the last check.

        Those that are in the kernel's buffer count.
        """
        before, self._untaken = self._untaken, len(self._unsent) + self.transport.untaken_octets()
        return self._untaken < before and before - self._untaken >= min(least, before)

    def _give_up_reader(self) -> None:
        self.abandon(EndReason.WRITE_TIMEOUT)

    def _linger(self, now: float) -> None:
        """With all output in the kernel, wait as long as the peer reads, and a moment longer."""
        if self._has_read():
            self._await_reader(now)
        elif not self._untaken:
            self.abandon()
            return
        elif self._write_deadline is not None and self._write_deadline <= now:
            self._give_up_reader()
            return
        self._linger_deadline = now + self._linger_seconds

    def lose(self, error: OSError | None) -> None:
        """End a connection whose socket has failed; without an error, the client has closed its side."""
        if self.record is not None:
            self.record.note_lost(error)
        if error is None:
            # Under TLS, answer the client's close_notify with ours (RFC 8446 section 6.1).
            self.transport.half_close()
        self.abandon()

    def abandon(self, reason: EndReason | None = None) -> None:
        """Abort all streams, because the connection is gone, or for a reason; the driver closes the socket."""
        if not self.closed:
            self.closed = True
            self._keep(b"")
            self.wants_write = False
            self._write_deadline = None
            self.core.receive_eof(reason)
            self.dispatch()
            if self.record is not None:
                self.record.log(self._log, self)


class Http2Connection(TransportConnection):
    """A connection whose applications run in other threads or greenlets, which may block."""

    def __init__(self, transport: Transport, peer: object, local_address: object, hooks: DriverHooks) -> None:
        super().__init__(transport, peer, local_address, time.monotonic, hooks)
        self.submit, self.submit_last, self.submit_reply = hooks.submit, hooks.submit_last, hooks.submit_reply
        self.prepare_wait = hooks.prepare_wait
        self.act_now = hooks.act_now
        """See `StreamOwner.act_now`."""
        self.run = hooks.run
        """See `DriverHooks.run`."""
        self.thread_count = hooks.thread_count
        self.log = hooks.log
        self._hooks = hooks

    def defer(self) -> bool:
        """See `TransportConnection.defer`."""
        return self._hooks.defer(self)

    def watch_socket(self, sock: socket.socket, act: Callable[[], None]) -> SocketWatch:
        """See `DriverHooks.watch_socket`; for the owner."""
        return self._hooks.watch_socket(self, sock, act)

    def start(self, request: RequestReceived) -> None:
        """See `EventDispatcher.start`."""
        stream = request.stream
        stream.context = channel = Channel(self, stream, request.end_stream, request.body)
        self._hooks.start_request(self, channel)

    def note_refusal(self, refusal: RequestRefused) -> None:
        """See `EventDispatcher.note_refusal`."""
        self._hooks.note_refusal(self, refusal)

    def note_closed(self, code: ErrorCode, reason: str) -> None:
        """See `EventDispatcher.note_closed`."""
        self._hooks.note_closed(self, code, reason)

    def note_limit(self, limit: StreamLimit, stream_id: int | None) -> None:
        """See `EventDispatcher.note_limit`."""
        self._hooks.note_limit(self, limit, stream_id)

    # Commands of the applications

    def do_send_headers(self, stream: Stream, head: ResponseHead) -> None:
        """See `StreamOwner.do_send_headers`."""
        self.core.send_headers(stream, head, False)

    def do_send_response(
        self, channel: Channel, stream: Stream, head: ResponseHead, data: bytes, end_stream: bool
    ) -> None:
        """See `StreamOwner.do_send_response`."""
        if not end_stream:
            self.core.send_headers(stream, head, False)
            self.do_send_data(channel, stream, data, False)
            return
        self.core.send_response(stream, head, data)
        if len(data) > self.stream_buffer_size:
            channel.accept(len(data))

    def do_send_data(self, channel: Channel, stream: Stream, data: bytes, end_stream: bool) -> None:
        """See `StreamOwner.do_send_data`."""
        self.core.send_data(stream, data, end_stream)
        channel.accept(len(data))

    def do_send_source(self, channel: Channel, stream: Stream, source: Source, end_stream: bool) -> None:
        """See `StreamOwner.do_send_source`."""
        channel.accept_source(len(source))
        self.core.send_source(stream, source, end_stream)

    def do_withdraw(self, channel: Channel, stream: Stream) -> None:
        """See `StreamOwner.do_withdraw`."""
        channel.take_withdrawn(*self.core.withdraw(stream, self.stream_buffer_size))

    def do_await_empty(self, channel: Channel, stream: Stream) -> None:
        """See `StreamOwner.do_await_empty`."""
        self.core.await_empty(stream)
        channel.wake()

    def do_send_trailers(self, stream: Stream, fields: Fields) -> None:
        """See `StreamOwner.do_send_trailers`."""
        self.core.send_trailers(stream, fields)

    def do_send_with_trailers(
        self, channel: Channel, stream: Stream, head: ResponseHead, data: bytes, fields: Fields
    ) -> None:
        """See `StreamOwner.do_send_with_trailers`."""
        self.core.send_with_trailers(stream, head, data, fields)
        if len(data) > self.stream_buffer_size:
            channel.accept(len(data))

    def do_cut_short(self, channel: Channel, stream: Stream, head: ResponseHead, fields: Fields) -> None:
        """See `StreamOwner.do_cut_short`."""
        if self.core.cut_short(stream, head, fields) and channel.abort(ErrorCode.CANCEL, "the response was cut short"):
            self.core.finish(stream, self.now())

    def do_acknowledge(self, stream: Stream, octets: int) -> None:
        """See `StreamOwner.do_acknowledge`."""
        self.core.acknowledge(stream, octets, time.monotonic())

    def do_reset(self, stream: Stream, code: ErrorCode) -> None:
        """See `StreamOwner.do_reset`."""
        self.core.reset(stream, code)

    def do_finish(self, stream: Stream) -> None:
        """See `StreamOwner.do_finish`."""
        self.core.finish(stream, time.monotonic())
        stream.context = None
