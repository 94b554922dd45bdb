"""Output to the peer: control frames and heads at once, data in turns, within the send windows and a limit.

The outbox owns the send windows, the streams' turns and the octets to be written. Its owner does what the end
of a response requires, and encodes trailers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from . import frames
from .config import ConnectionConfig
from .counts import Counts, code_label
from .errors import ConnectionFailure, ErrorCode, StreamFailure, StreamLimit
from .events import Event, StreamWritable
from .guard import MESSAGE_CREDIT, Guard
from .priority import Priority
from .scheduler import Scheduler
from .stream import Source, Stream

__all__ = ["OUTPUT_LIMIT", "Outbox", "OutputBudget"]

OUTPUT_LIMIT = 131_072
"""The most octets of output that are gathered before a write; the last frame may exceed it."""


Store = Callable[[bytes | memoryview], Source | None]
"""Makes a source of some octets; returns None if it cannot."""


class OutputBudget:
    """The octets of response data in memory, of all connections of a worker: those queued, and unsent ones of drivers.

    It is not thread-safe: callers take turns.
    """

    __slots__ = ("limit", "mark", "used")

    def __init__(self, limit: float = math.inf) -> None:
        self.limit = limit
        """What there should be at most; only data that cannot leave the memory is beyond it."""
        self.mark = limit / 2
        """Octets beyond which data that clients do not take leaves the memory."""
        self.used = 0
        """Octets that are in memory now."""


class OutboxOwner(Protocol):
    """What the outbox needs from its connection."""

    def lose_response(self, stream: Stream) -> None:
        """Reset a stream, because the rest of its response is lost."""

    def end_response(self, stream: Stream) -> None:
        """Prepare for the frame that ends the stream, which is put next; frames that must precede it may be put now."""

    def encode_trailers(self, stream: Stream) -> bytes:
        """Return the field block of the stream's trailers."""


class Outbox:
    """Gathers the output of one connection."""

    __slots__ = (
        "blocked",
        "counts",
        "initial_window_size",
        "limit",
        "max_frame_size",
        "pending",
        "storable",
        "turns",
        "watched",
        "window",
        "_budget",
        "_events",
        "_guard",
        "_high_mark",
        "_least_octets",
        "_octets",
        "_scheduler",
        "_shown",
        "_stall_timeout",
    )

    def __init__(
        self,
        config: ConnectionConfig,
        guard: Guard,
        events: list[Event],
        budget: OutputBudget | None = None,
        counts: Counts | None = None,
    ) -> None:
        """All connections of the worker share `budget` and `counts`; None: the outbox has its own."""
        self.counts = counts or Counts()
        self.window = frames.DEFAULT_WINDOW_SIZE
        """The connection's send window, in octets (RFC 9113 section 6.9)."""
        self.initial_window_size = frames.DEFAULT_WINDOW_SIZE
        """The send window of a new stream: the peer's SETTINGS_INITIAL_WINDOW_SIZE."""
        self.max_frame_size = frames.DEFAULT_MAX_FRAME_SIZE
        """The largest frame payload that the peer accepts."""
        self.limit = OUTPUT_LIMIT
        """Octets of output that are currently gathered before a write, OUTPUT_LIMIT at most."""
        self.blocked: dict[int, float] = {}
        """Streams with data that waits for a window, and the time of their last progress; the oldest first."""
        self.watched: dict[int, float] = {}
        """Streams with data that has waited for a window, and since when their rate is measured; the oldest first."""
        self.storable = False
        """Whether data was queued in memory since `store_queues` was called."""
        self._high_mark = config.stream_buffer_size
        self._stall_timeout = config.stream_timeout or math.inf
        self._least_octets = config.min_read_rate * config.stream_timeout
        self._budget = budget or OutputBudget()
        self._guard = guard
        self._events = events
        self._scheduler = Scheduler()
        self.turns = self._scheduler.turns
        """The streams that wait for a turn to send; see `Scheduler.turns`."""
        self._octets: list[bytes | memoryview] = []
        self.pending = 0
        """The number of octets to write."""
        self._shown = 0

    # Octets

    def put(self, octets: bytes) -> None:
        """Add whole frames."""
        self._octets.append(octets)
        self.pending += len(octets)

    def put_rst_stream(self, stream_id: int, code: ErrorCode) -> None:
        """Add a RST_STREAM frame (section 6.4)."""
        self.counts.resets_sent[code_label(code)] += 1
        self.put(frames.rst_stream(stream_id, code))

    def put_goaway(self, last_stream_id: int, code: ErrorCode) -> None:
        """Add a GOAWAY frame (section 6.8)."""
        self.counts.goaways_sent[code_label(code)] += 1
        self.put(frames.goaway(last_stream_id, code))

    def put_first(self, octets: bytes) -> None:
        """Add octets in front of everything else."""
        self._octets.insert(0, octets)
        self.pending += len(octets)

    def put_headers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        """Add a field block: HEADERS, and CONTINUATION frames if the peer's frame size requires them (section 6.2)."""
        size, limit = len(block), self.max_frame_size
        flags = frames.END_STREAM if end_stream else 0
        if size <= limit:
            self.put(frames.frame(frames.HEADERS, flags | frames.END_HEADERS, stream_id, block))
            return
        self.put(frames.frame(frames.HEADERS, flags, stream_id, block[:limit]))
        for start in range(limit, size, limit):
            flags = frames.END_HEADERS if start + limit >= size else 0
            self.put(frames.frame(frames.CONTINUATION, flags, stream_id, block[start : start + limit]))

    def put_data(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        """Add a DATA frame; the caller has checked the windows and the frame size."""
        size = len(data)
        flags = frames.END_STREAM if end_stream else 0
        self._octets += (frames.pack_header(size >> 8, size & 0xFF, frames.DATA, flags, stream.stream_id), data)
        self.pending += size + frames.FRAME_HEADER_SIZE
        stream.send_window -= size
        self.window -= size
        self._guard.sent_octets += size

    def has_room(self, size: int) -> bool:
        """Whether data of this size may be put now: no stream waits for a turn, and the output keeps its limit."""
        return not self.turns and self.pending + size <= self.limit

    def put_body(self, stream: Stream, data: bytes) -> None:
        """Add a whole body and the end of the stream; the caller has checked the windows."""
        view, limit, octets = memoryview(data), self.max_frame_size, self._octets
        full = (len(data) - 1) // limit
        if full:
            # All but the last frame have the same header.
            header = frames.pack_header(limit >> 8, limit & 0xFF, frames.DATA, 0, stream.stream_id)
            for start in range(0, full * limit, limit):
                octets += (header, view[start : start + limit])
            sent = full * limit
            self.pending += sent + full * frames.FRAME_HEADER_SIZE
            stream.send_window -= sent
            self.window -= sent
            self._guard.sent_octets += sent
        self.put_data(stream, view[full * limit :], True)

    def put_response(self, stream: Stream, block: bytes, data: bytes) -> None:
        """Add a response of one HEADERS and one DATA frame; the caller has checked the windows and the frame sizes."""
        head, size, stream_id = len(block), len(data), stream.stream_id
        self._octets += (
            frames.pack_header(head >> 8, head & 0xFF, frames.HEADERS, frames.END_HEADERS, stream_id),
            block,
            frames.pack_header(size >> 8, size & 0xFF, frames.DATA, frames.END_STREAM, stream_id),
            data,
        )
        self.pending += head + size + 2 * frames.FRAME_HEADER_SIZE
        stream.send_window -= size
        self.window -= size
        self._guard.sent_octets += size

    def take(self) -> bytes:
        """Take the octets to write."""
        octets = self._octets
        if not octets:
            return b""
        data = b"".join(octets)
        self.counts.octets_sent += len(data)
        octets.clear()
        self.pending = self._shown = 0
        return data

    def show(self) -> bytes:
        """Return the octets added since the last `show` or `take`, without taking them."""
        if self._shown == len(self._octets):
            return b""
        octets = b"".join(self._octets[self._shown :])
        self._octets[self._shown :] = [octets]
        self._shown = len(self._octets)
        return octets

    def retract(self) -> None:
        """Remove the octets that `show` returned last: they must not be written."""
        self._shown -= 1
        self.pending -= len(self._octets.pop())

    # Windows

    def open_window(self, increment: int) -> None:
        """Add the peer's credit for the connection. Raises ConnectionFailure."""
        if not increment:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 on the connection")
        self.window += increment
        if self.window > frames.LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")

    def open_stream_window(self, stream: Stream, increment: int) -> None:
        """Add the peer's credit for a stream. Raises StreamFailure."""
        if not increment:
            raise StreamFailure(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if stream.send_window + increment > frames.LARGEST_WINDOW:
            raise StreamFailure(stream.stream_id, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows")
        stream.send_window += increment
        if stream.sendable:
            self._scheduler.add(stream)

    def resize_windows(self, size: int, streams: Iterable[Stream]) -> None:
        """Apply SETTINGS_INITIAL_WINDOW_SIZE to open streams as well, below zero if need be (section 6.9.2)."""
        change = size - self.initial_window_size
        self.initial_window_size = size
        for stream in streams:
            if stream.response_ended:
                # Its window is not active any more.
                continue
            stream.send_window += change
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a window")
            if stream.sendable:
                self._scheduler.add(stream)

    # Priorities

    @property
    def priority_changes(self) -> int:
        """How often a stream has been given another priority."""
        return self._scheduler.changes

    def note_priorities(self) -> None:
        """Note that the client states priorities of RFC 9218, if only by what it leaves out."""
        self._scheduler.states_priorities = True

    def reprioritize(self, stream: Stream, priority: Priority) -> None:
        """Give a stream another priority, from its next frame on."""
        self._scheduler.reprioritize(stream, priority)

    # Data

    def queue(self, stream: Stream, data: bytes | memoryview, end_stream: bool) -> None:
        """Queue response data for a stream, and the end of the stream."""
        if data:
            stream.queue.append(data)
            stream.queued += len(data)
            self._budget.used += len(data)
            self.storable = True
            if stream.queued > self._high_mark:
                stream.above_high_mark = True
        if end_stream:
            stream.end_queued = True
        # A stream without a window gets a turn as well: `fill` then notes that it is blocked.
        if data or end_stream:
            self._scheduler.add(stream)

    def queue_source(self, stream: Stream, source: Source, end_stream: bool) -> None:
        """Queue response data that is not in memory, an octet at least, and the end of the stream."""
        octets = len(source)
        stream.queue.append(source)
        stream.queued += octets
        stream.stored += octets
        stream.above_high_mark = stream.queued > self._high_mark
        stream.end_queued = end_stream
        self._scheduler.add(stream)

    def withdraw(self, stream: Stream, keep: int) -> tuple[list[bytes | memoryview], bool]:
        """See `Stream.withdraw`."""
        pieces, ended = stream.withdraw(keep)
        self._budget.used -= sum(map(len, pieces))
        return pieces, ended

    def store(self, stream: Stream, keep: int, limit: int, store: Store) -> int:
        """See `Stream.store`."""
        octets = stream.store(keep, limit, store)
        self._budget.used -= octets
        return octets

    def drop(self, stream: Stream) -> None:
        """Drop what is queued for a stream."""
        self._budget.used -= stream.queued - stream.stored
        stream.drop_queue()
        self.blocked.pop(stream.stream_id, None)
        self.watched.pop(stream.stream_id, None)

    def stall_deadline(self) -> float:
        """When the next stream may have to be reset, because its client takes too little; infinite: never."""
        # A blocked stream is watched, too.
        if not self.watched:
            return math.inf
        since = min(next(iter(self.watched.values())), next(iter(self.blocked.values()), math.inf))
        return since + self._stall_timeout

    def stalled_streams(self, now: float, streams: dict[int, Stream]) -> list[tuple[Stream, StreamLimit]]:
        """Return those of the open `streams` that must be reset, because their client takes too little, and why.

        Responses share the connection: each must get its share of the least rate.
        """
        due = now - self._stall_timeout
        stopped = [stream_id for stream_id, since in self.blocked.items() if since <= due]
        slow = []
        least = self._least_octets / max(len(self.watched), 1)
        for stream_id in [stream_id for stream_id, since in self.watched.items() if since <= due]:
            stream = streams[stream_id]
            del self.watched[stream_id]
            if self.blocked.get(stream_id, due) > due:
                if stream.watched_octets < least:
                    slow.append(stream)
                else:
                    self._watch(stream, now)
        return [(streams[stream_id], StreamLimit.READ_TIMEOUT) for stream_id in stopped] + [
            (stream, StreamLimit.READ_RATE) for stream in slow
        ]

    def _watch(self, stream: Stream, now: float) -> None:
        """Begin to measure the rate at which the client takes a response that waits for a window."""
        self.watched[stream.stream_id] = now
        stream.watched_octets = 0

    def _block(self, stream: Stream, now: float) -> None:
        """Note that a stream waits for a window."""
        if stream.stream_id not in self.blocked:
            self.blocked[stream.stream_id] = now
            if stream.stream_id not in self.watched:
                self._watch(stream, now)

    def fill(self, now: float, owner: OutboxOwner) -> None:
        """Turn queued data into frames until the output holds `limit` octets or no stream may send."""
        while self.turns and self.pending < self.limit:
            stream = self._scheduler.next()
            if stream is None:
                return
            if stream.queued and stream.send_window <= 0:
                self._block(stream, now)
            elif stream.queued and self.window <= 0:
                self._wait_for_window(stream, now, owner)
                return
            else:
                self._send_frame(stream, now, owner)

    def _wait_for_window(self, stream: Stream, now: float, owner: OutboxOwner) -> None:
        """Block the streams with data; a frame that only ends a stream needs no window (section 6.9.1)."""
        for waiting in [stream, *self._scheduler.take_all()]:
            if waiting.queued:
                self._block(waiting, now)
                self._scheduler.add(waiting)
            else:
                self._send_frame(waiting, now, owner)

    def _send_frame(self, stream: Stream, now: float, owner: OutboxOwner) -> None:
        data: bytes | memoryview = b""
        if stream.queued:
            size = min(stream.queued, stream.send_window, self.window, self.max_frame_size)
            if stream.stored:
                data = self._take_piece(stream, size)
                if not data:
                    owner.lose_response(stream)
                    return
            else:
                data = stream.take(size)
                self._budget.used -= size
        ends = stream.end_queued and not stream.queued
        trailers = ends and stream.trailers is not None
        if ends:
            owner.end_response(stream)
        if data or not trailers:
            self.put_data(stream, data, ends and not trailers)
        if not stream.queued:
            # The application wrote no more: it was not the window that made the frame small.
            self._guard.sent_octets += MESSAGE_CREDIT
        if trailers:
            self.put_headers(stream.stream_id, owner.encode_trailers(stream), True)
        if self.turns:
            self._scheduler.charge(stream, len(data))
        if self.watched:
            self._count(stream, len(data))
        self._note_progress(stream, now)

    def _take_piece(self, stream: Stream, size: int) -> bytes | memoryview:
        in_memory = stream.queued - stream.stored
        data = stream.take_piece(size)
        self._budget.used -= in_memory - (stream.queued - stream.stored)
        return data

    def _count(self, stream: Stream, octets: int) -> None:
        """Count octets of a stream whose rate may be measured."""
        if stream.stream_id in self.watched:
            stream.watched_octets += octets
            if not stream.queued:
                del self.watched[stream.stream_id]

    def _note_progress(self, stream: Stream, now: float) -> None:
        self.blocked.pop(stream.stream_id, None)
        stream.sent_at = now
        if stream.queued:
            if stream.send_window > 0:
                self._scheduler.add(stream)
            else:
                self._block(stream, now)
        if stream.above_high_mark and stream.queued * 2 <= self._high_mark and not (stream.drains and stream.queued):
            stream.above_high_mark = stream.drains = False
            self._events.append(StreamWritable(stream))
