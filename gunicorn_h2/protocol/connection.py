"""`ServerConnection`: one HTTP/2 connection, without a socket, a thread or a clock.

A driver owns the connection's socket and calls, from one thread at a time: `receive_data` and
`receive_eof` with what arrives, `handle_timeout` when `next_deadline` has come, and the `send_*`
verbs for the application. After each it takes `events()` and writes out `data_to_send()`. Once
`closed` is true it sends what is left and closes the socket.

Each part owns its state: the reader the unfinished frames, the stream table the streams, the inflow and the
outbox the windows of either direction, the lifecycle the phase and its deadline, the guard the budgets of the
peer. The receiver interprets frames, and the sender turns responses into frames.
"""

from __future__ import annotations

import math

from .config import ConnectionConfig
from .counts import Counts
from .engine import make_engine
from .errors import Budget, ConnectionFailure, EndReason, ErrorCode, StreamLimit
from .events import ConnectionTerminated, Event
from .guard import Guard
from .headers import Fields, ResponseHead
from .heads import HeadCache
from .held import HeldRequests
from .inflow import Inflow
from .keepalive import KeepAlive
from .lifecycle import Lifecycle, Phase, Trigger
from .outbox import OUTPUT_LIMIT, Outbox, OutputBudget, Store
from .probe import Probe
from .reader import FrameReader, Referee
from .receiver import Receiver
from .refusals import Refusals
from .sender import Sender
from .stream import HELD, OPEN, RETURNED, Source, Stream
from .streams import StreamTable
from .upgrade import SWITCHING_PROTOCOLS, Upgrade
from .uploads import UploadWatch
from .windows import WindowBudget

__all__ = ["ServerConnection"]

# The failure when the deadline of a phase passes; a phase without an entry moves on to the next one.
_DEADLINE_FAILURES = {
    Phase.SETUP: (ErrorCode.SETTINGS_TIMEOUT, "the client did not finish its preface"),
    Phase.OPEN: (ErrorCode.NO_ERROR, EndReason.IDLE),
}

# A response that goes to the output in one step, with its head. A client that keeps to its streams has to read one
# before it may ask for another, so that no more than this by stream can wait to be written.
_UNREAD_PER_STREAM = 32_768

# As in gRPC (MAX_CONNECTION_AGE): connections that began together must not all be made anew together.
_AGE_JITTER = 0.1


class ServerConnection:
    """The server's end of one connection (RFC 9113)."""

    __slots__ = (
        "blocked",
        "closed",
        "config",
        "pending_events",
        "refusals",
        "send_response",
        "streams",
        "_guard",
        "_heads",
        "_held",
        "_inflow",
        "_keepalive",
        "_lifecycle",
        "_max_unread",
        "_outbox",
        "_reader",
        "_receiver",
        "_referee",
        "_retires_at",
        "_retires_behind",
        "_sender",
        "_table",
        "_uploads",
    )

    def __init__(
        self,
        config: ConnectionConfig,
        now: float,
        window_budget: WindowBudget | None = None,
        output_budget: OutputBudget | None = None,
        jitter: float = 0.0,
        counts: Counts | None = None,
    ) -> None:
        """The budgets and counts are shared by the worker's connections; None gives the connection some of its own.

        `jitter`, from -1 to 1, is the part of a tenth of its age by which the connection ends late, or early.
        """
        if window_budget is None:
            window_budget = WindowBudget(config.worker_window_size)
        self.config = config
        self.closed = False
        """Whether the connection is over; `data_to_send` may still return its last octets."""
        self.pending_events: list[Event] = []
        """The events not yet taken; drivers only test whether there are any."""
        self._retires_at = now + (config.max_connection_age or math.inf) * (1 + _AGE_JITTER * jitter)
        self._retires_behind = 2 * (config.max_requests_per_connection or math.inf) - 2
        """The limit on requests, as the number of a stream: the next one is the last."""
        self._guard = guard = Guard(config, now)
        self._max_unread = 2 * OUTPUT_LIMIT + config.max_concurrent_streams * _UNREAD_PER_STREAM
        self._outbox = outbox = Outbox(config, guard, self.pending_events, output_budget, counts)
        self.blocked = outbox.blocked
        """The streams whose data waits for a window, by identifier, and the time of their last progress."""
        codec, self._referee = make_engine(config, outbox)
        self._held = held = HeldRequests(config, self.pending_events, window_budget)
        self._table = streams = StreamTable(outbox, self.pending_events, held)
        self.streams = streams.open
        """The streams that are not closed, by identifier."""
        self._lifecycle = lifecycle = Lifecycle(config, outbox, streams, now)
        probe = Probe(outbox, guard, lifecycle)
        self._keepalive = KeepAlive(config, probe, now)
        self._inflow = inflow = Inflow(config, outbox, streams, probe, window_budget)
        self._sender = sender = Sender(codec, streams, inflow, outbox)
        self.send_response = sender.send_response
        """Send a whole response, as `send_headers` and `send_data` would; in one step if the windows allow it."""
        self._heads = heads = HeadCache(codec)
        self._uploads = UploadWatch(config, self.streams, inflow.window, now)
        self.refusals = refusals = Refusals(config)
        """What a driver may have to say of the requests that the core answers itself."""
        self._receiver = Receiver(
            config, streams, heads, held, guard, inflow, sender, outbox, lifecycle, refusals, self.pending_events
        )
        self._reader = FrameReader(config.max_frame_size, config.header_timeout, guard)
        outbox.put(config.preface)

    # Receiving

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets from the peer.

        Never raises for what a peer sends: errors become RST_STREAM or GOAWAY frames, and events.
        """
        if self.closed:
            return
        if self._outbox.pending > self._max_unread:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, Budget.UNREAD_OUTPUT)
            return
        self._receiver.now = now
        self._outbox.counts.octets_received += len(data)
        try:
            if self._referee is not None:
                # Our earlier frames must be checked before the peer's change h2's state.
                self._referee.validate_output()
            self._reader.read(data, self._receiver, self._referee, now)
        except ConnectionFailure as failure:
            self.fail(failure.code, failure.reason)
        if self._table.last_stream_id > self._retires_behind:
            self._retire(EndReason.MAX_REQUESTS, now)
        if not self.streams:
            self._note_idle(now)

    def receive_upgrade(self, upgrade: Upgrade) -> None:
        """Begin, before anything else, with an upgraded HTTP/1.1 request as stream 1 (RFC 7540 section 3.2)."""
        self._outbox.put_first(SWITCHING_PROTOCOLS)
        if self._referee is not None:
            self._referee.receive_upgrade(upgrade.settings)
        self._receiver.receive_upgrade(upgrade)

    def receive_eof(self, reason: EndReason | None = None) -> None:
        """Note that the connection is over: the peer closed its side, the socket failed, or the driver says why."""
        if not self.closed:
            # With no stream open, a client that was told to go has only done so.
            told = None if self.streams else self._lifecycle.end_reason
            self._terminate(ErrorCode.NO_ERROR, reason or told or "")

    # Sending

    def send_headers(self, stream: Stream, head: ResponseHead, end_stream: bool) -> None:
        """Send a response's head; interim ones (1xx) may precede the final one. Does nothing on a closed stream."""
        self._sender.send_headers(stream, head, end_stream)

    def send_data(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        """Queue response data; `stream.queued` counts the octets not yet turned into frames.

        A driver stops at `ConnectionConfig.stream_buffer_size` and waits for StreamWritable.
        """
        self._sender.send_data(stream, data, end_stream)

    def send_source(self, stream: Stream, source: Source, end_stream: bool) -> None:
        """As `send_data`, for an octet or more that is read when it is to be sent; `source` is closed after that.

        If the source turns out to be incomplete, the stream is reset, with a StreamReset event.
        """
        self._sender.send_source(stream, source, end_stream)

    def await_empty(self, stream: Stream) -> None:
        """Have a StreamWritable event for the moment when nothing is queued, if anything is."""
        stream.above_high_mark = stream.drains = stream.queued > 0

    def withdraw(self, stream: Stream, keep: int) -> tuple[list[bytes | memoryview], bool]:
        """Take back queued data behind the first `keep` octets, as far as it is in memory, to send it by a source.

        Returns it, and whether the end of the response was queued behind it, which is to be sent again as well.
        """
        return self._outbox.withdraw(stream, keep)

    def store_queue(self, stream: Stream, keep: int, limit: int, store: Store) -> int:
        """Move queued data behind the first `keep` octets from memory into sources that `store` makes.

        At most `limit` octets; returns how many it were.
        """
        return self._outbox.store(stream, keep, limit, store)

    @property
    def has_storable(self) -> bool:
        """Whether data was queued in memory since this was last set to False."""
        return self._outbox.storable

    @has_storable.setter
    def has_storable(self, value: bool) -> None:
        self._outbox.storable = value

    def send_trailers(self, stream: Stream, fields: Fields) -> None:
        """End the response with a trailer section after the queued data. Raises InvalidResponse."""
        self._sender.send_trailers(stream, fields)

    def send_with_trailers(self, stream: Stream, head: ResponseHead, data: bytes, fields: Fields) -> None:
        """Send a whole response that ends with a trailer section, which has been validated."""
        self._sender.send_with_trailers(stream, head, data, fields)

    def cut_short(self, stream: Stream, head: ResponseHead, fields: Fields) -> bool:
        """End a response whose application goes on; return False, with no effect, if it has ended or been queued.

        `head` is sent if none was, and `fields` as trailers if one was; with data queued that the client has no window
        for, CANCEL. Until `finish`, which must follow, the call counts as a stream. Raises InvalidResponse.
        """
        if stream.response_ended or stream.end_queued:
            return False
        if stream.head_sent and stream.queued > min(stream.send_window, self._outbox.window):
            self._table.reset(stream, ErrorCode.CANCEL)
            return True
        self._table.orphaned_calls.add(stream.stream_id)
        if stream.head_sent:
            self._sender.send_trailers(stream, fields)
        else:
            self._sender.send_headers(stream, head, True)
        return True

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream with RST_STREAM; its queued data is dropped."""
        if stream.stream_id in self.streams:
            self._table.reset(stream, code)

    def acknowledge(self, stream: Stream, octets: int, now: float) -> None:
        """Return the credit for octets of the body that the application has read (section 6.9)."""
        if stream.state is OPEN:
            self._inflow.acknowledge(stream, octets, now)

    def finish(self, stream: Stream, now: float) -> None:
        """Note that the application call has returned: no one will read the rest of the body.

        Optional for a stream that was closed without a reset.
        """
        stream.call = RETURNED
        if stream.received and stream.state is OPEN:
            self._inflow.discard(stream, stream.receive_window.unacknowledged, now)
        self._table.orphaned_calls.discard(stream.stream_id)
        self._inflow.reclaim_growth()
        self._note_idle(now)

    def events(self) -> list[Event]:
        """Take the events since the last call, oldest first."""
        events = self.pending_events.copy()
        self.pending_events.clear()
        if self._held.pending:
            self._uploads.watch(self._held.pending.values())
            return self._held.sift(events)
        return events

    @property
    def priority_changes(self) -> int:
        """How often the client has given an open stream another priority (RFC 9218 section 7.1)."""
        return self._outbox.priority_changes

    @property
    def has_output(self) -> bool:
        """Whether `data_to_send` may return anything."""
        outbox = self._outbox
        return outbox.pending > 0 or len(outbox.turns) > 0

    @property
    def output_limit(self) -> int:
        """How many octets are gathered at a time: OUTPUT_LIMIT, or less if the driver's socket takes them slowly.

        Gathered octets are written before every later response.
        """
        return self._outbox.limit

    @output_limit.setter
    def output_limit(self, octets: int) -> None:
        self._outbox.limit = octets

    def data_to_send(self, now: float) -> bytes:
        """Take the octets to write now: all control frames, and data up to `output_limit`."""
        if not self.closed:
            self._outbox.fill(now, self._sender)
            if self._table.reset_deadlines:
                self._table.schedule_resets(now)
            if self._referee is not None:
                self._validate_output(self._referee)
            if not self.streams:
                self._note_idle(now)
                if self._referee is not None:
                    self._validate_output(self._referee)
        return self._outbox.take()

    def _validate_output(self, referee: Referee) -> None:
        """Have the referee check the output."""
        try:
            referee.validate_output()
        except ConnectionFailure as failure:
            self.fail(failure.code, failure.reason)

    # What drivers judge a connection by

    @property
    def idle_since(self) -> float | None:
        """Since when no stream has been open; None while one is."""
        return self._lifecycle.idle_since

    def is_blocked(self, stream: Stream, since: float) -> bool:
        """Whether a stream has waited since then or longer: its queued data for a window, or its request for a body."""
        if stream.call is HELD:
            return stream.opened_at <= since
        return self.blocked.get(stream.stream_id, math.inf) <= since

    @property
    def guard(self) -> Guard:
        """The budgets of the client; for drivers to read."""
        return self._guard

    # Timers

    def next_deadline(self) -> float | None:
        """The latest time to call `handle_timeout`; None for no deadline."""
        if self.closed:
            return None
        deadline = self._lifecycle.deadline
        if self._retires_at < deadline:
            deadline = self._retires_at
        if self._keepalive.deadline < deadline:
            deadline = self._keepalive.deadline
        if self._reader.block_deadline < deadline:
            deadline = self._reader.block_deadline
        if self._inflow.deadline < deadline:
            deadline = self._inflow.deadline
        if self._uploads.deadline < deadline:
            deadline = self._uploads.deadline
        if self._outbox.watched:
            deadline = min(deadline, self._outbox.stall_deadline())
        if self._table.reset_deadlines:
            deadline = min(deadline, next(iter(self._table.reset_deadlines.values())))
        return None if deadline == math.inf else deadline

    def handle_timeout(self, now: float, taken: int = 0, untaken: int = 0) -> None:
        """Act on every deadline that has passed.

        Of the octets written, the peer's TCP has acknowledged `taken`, and not yet `untaken`; 0 and 0: unknown.
        """
        if self.closed or (self._keepalive.deadline <= now and self._is_gone(now, taken, taken + untaken)):
            return
        streams = self._table
        if self._outbox.stall_deadline() <= now:
            for stream, reason in self._outbox.stalled_streams(now, streams.open):
                self._guard.reset_requests += 1
                streams.reset_and_notify(stream, ErrorCode.CANCEL, reason)
        # Stop clients from sending bodies that no one reads (section 8.1).
        for stream_id in [stream_id for stream_id, deadline in streams.reset_deadlines.items() if deadline <= now]:
            streams.reset(streams.open[stream_id], ErrorCode.NO_ERROR)
        self._inflow.handle_timeout(now)
        if self._uploads.deadline <= now:
            for stream in self._uploads.check(now):
                self._receiver.give_up(stream, StreamLimit.BODY_RATE)
        if self._retires_at <= now:
            self._retire(EndReason.MAX_AGE, now)
        if self._reader.block_deadline <= now:
            self.fail(ErrorCode.ENHANCE_YOUR_CALM, Budget.HEADER_BLOCK_TOO_SLOW)
        elif self._lifecycle.deadline <= now:
            failure = _DEADLINE_FAILURES.get(self._lifecycle.phase)
            if failure is not None:
                self.fail(*failure)
            else:
                self._lifecycle.move(Trigger.DEADLINE, now)
        self._note_idle(now)

    def _is_gone(self, now: float, taken: int, written: int) -> bool:
        """Have the keep-alive look at the peer, and end the connection if that has vanished."""
        # The setup has a deadline of its own.
        heard_at = now if self._lifecycle.phase is Phase.SETUP else self._receiver.now
        if not self._keepalive.check(now, heard_at, taken, written + self._outbox.pending):
            return False
        self.fail(ErrorCode.NO_ERROR, EndReason.KEEPALIVE_TIMEOUT)
        return True

    # The end

    @property
    def orphaned_calls(self) -> int:
        """The number of application calls that are still running although their stream was reset."""
        return len(self._table.orphaned_calls)

    @property
    def lifecycle(self) -> Lifecycle:
        """The phase of the connection; for drivers to read."""
        return self._lifecycle

    def fail(self, code: ErrorCode, reason: str) -> None:
        """End the connection at once with GOAWAY(`code`); `reason` is that of `ConnectionTerminated`."""
        if not self.closed:
            self._outbox.put_goaway(self._table.last_stream_id, code)
            self._terminate(code, reason)

    def shutdown(self, now: float) -> None:
        """Begin a graceful shutdown (section 6.8); further calls have no effect."""
        self._lifecycle.shutdown(now, EndReason.SHUTDOWN)

    def _retire(self, limit: EndReason, now: float) -> None:
        """Begin a graceful shutdown because of a limit, unless one is under way."""
        self._retires_at = self._retires_behind = math.inf
        if not self._lifecycle.ends:
            self._lifecycle.shutdown(now, limit)

    def _note_idle(self, now: float) -> None:
        """If no stream is open, tell the lifecycle, and end the connection if that is its end."""
        if self.streams or self.closed:
            return
        ended = self._lifecycle.note_idle(now)
        if ended is None:
            return
        reason = self._lifecycle.end_reason or EndReason.IDLE
        if ended is Phase.DRAINING:
            self._terminate(ErrorCode.NO_ERROR, reason)
        else:
            self.fail(ErrorCode.NO_ERROR, reason)

    def _terminate(self, code: ErrorCode, reason: str) -> None:
        """Enter CLOSED, with a StreamReset event for each open stream and ConnectionTerminated last."""
        self.closed = True
        if isinstance(reason, EndReason):
            self._lifecycle.end_reason = reason
        self._lifecycle.close()
        for stream in self._table:
            self._table.forget_and_notify(stream, code or ErrorCode.CANCEL, reason or "the connection closed")
        self._inflow.reclaim_growth()
        self._heads.close()
        self.pending_events.append(ConnectionTerminated(code, reason))
