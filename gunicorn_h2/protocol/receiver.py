"""The handling of the peer's frames: one method for each type, called by the reader.

A method raises ConnectionFailure or StreamFailure, and one place turns them into GOAWAY and RST_STREAM. A frame
is charged to the guard before any work is done for it.
"""

from __future__ import annotations

from collections.abc import Callable

from . import frames
from .config import ConnectionConfig
from .counts import code_label
from .errors import ConnectionFailure, ErrorCode, MalformedRefusal, RequestRefusal, StreamFailure, StreamLimit
from .events import DataReceived, Event, RequestReceived, RequestRefused, StreamReset, TrailersReceived
from .guard import SMALL_DATA, Guard
from .headers import (
    Fields,
    MalformedRequest,
    RequestHead,
    check_trailers,
    count_fields,
    list_size,
    parse_request,
)
from .heads import HeadCache
from .held import HeldRequests
from .inflow import Inflow
from .lifecycle import Lifecycle, Phase
from .outbox import Outbox
from .priority_updates import PriorityUpdates
from .reader import Dependency
from .refusals import BAD_REQUEST, REQUEST_TIMEOUT, TOO_MANY_FIELDS, Refusals
from .sender import Sender
from .stream import AFTER_REQUEST, CLOSED, HALF_CLOSED_REMOTE, HELD, NO_CALL, OPEN, RETURNED, RUNNING, Stream
from .streams import StreamTable
from .upgrade import Upgrade

__all__ = ["Receiver"]

# A section that may be as large as this is looked at for repetition; most cannot, which costs nothing to see.
_REPETITIVE_SIZE = 16_384
_COST_OF_REFUSAL = 4.0


class Receiver:
    """The receiving half of one connection."""

    __slots__ = (
        "now",
        "_codec",
        "_events",
        "_guard",
        "_heads",
        "_held",
        "_ignores_dependencies",
        "_inflow",
        "_lifecycle",
        "_max_concurrent_streams",
        "_max_decoded_fields",
        "_max_fields",
        "_max_header_list_size",
        "_offers_websocket",
        "_outbox",
        "_pending_requests",
        "_priority_updates",
        "_refusals",
        "_sender",
        "_streams",
        "_window",
    )

    def __init__(
        self,
        config: ConnectionConfig,
        streams: StreamTable,
        heads: HeadCache,
        held: HeldRequests,
        guard: Guard,
        inflow: Inflow,
        sender: Sender,
        outbox: Outbox,
        lifecycle: Lifecycle,
        refusals: Refusals,
        events: list[Event],
    ) -> None:
        """The arguments are the parts of the connection that frames act on."""
        self.now = 0.0
        """The time of the current `ServerConnection.receive_data`."""
        self._max_concurrent_streams = config.max_concurrent_streams
        self._max_header_list_size = config.max_header_list_size or float("inf")
        self._max_fields = config.max_header_fields
        self._max_decoded_fields = config.max_decoded_fields
        self._offers_websocket = config.websocket
        self._codec = sender.codec
        self._streams = streams
        self._heads = heads
        self._held = held
        self._pending_requests = held.pending
        self._guard = guard
        self._inflow = inflow
        self._window = inflow.window
        self._sender = sender
        self._outbox = outbox
        self._lifecycle = lifecycle
        self._refusals = refusals
        self._events = events
        self._ignores_dependencies = False
        """Whether the client has said that it sends no priorities of RFC 7540 (RFC 9218 section 2.1)."""
        self._priority_updates: PriorityUpdates | None = None
        """None until there is one."""

    # HEADERS (section 6.2)

    def receive_headers(self, stream_id: int, end_stream: bool, block: bytes, dependency: Dependency | None) -> None:
        """See `FrameSink.receive_headers`: a request, or the trailers of one."""
        streams = self._streams
        if stream_id <= streams.last_stream_id or not stream_id & 1:
            self._receive_trailers(stream_id, block, end_stream)
            return
        head = self._heads.known.get(block) or self._decode_head(block)
        if stream_id > streams.final_stream_id:
            self._guard.charge_control(self.now)
            return
        if stream_id > streams.last_stream_id + 2:
            streams.skip_to(stream_id)
        streams.last_stream_id = stream_id
        if dependency is not None and dependency[0] == stream_id:
            raise RequestRefusal(stream_id, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself")
        if len(streams.open) + len(streams.orphaned_calls) >= self._max_concurrent_streams:
            raise RequestRefusal(stream_id, ErrorCode.REFUSED_STREAM, StreamLimit.TOO_MANY_STREAMS)
        if isinstance(head, MalformedRequest):
            raise MalformedRefusal(stream_id, str(head))
        if end_stream and head.content_length:
            raise MalformedRefusal(stream_id, "a content-length without a body")
        self._open(stream_id, end_stream, head, dependency)

    def _open(self, stream_id: int, end_stream: bool, head: RequestHead, dependency: Dependency | None) -> None:
        state = HALF_CLOSED_REMOTE if end_stream else OPEN
        if self._priority_updates is not None:
            head = self._priority_updates.apply(stream_id, head)
        stream = Stream(stream_id, head, state, self._outbox.initial_window_size, self._inflow.stream_window_size)
        self._streams.open[stream_id] = stream
        if self._lifecycle.idle_since is not None:
            self._lifecycle.note_busy()
        if dependency is not None and not self._ignores_dependencies:
            stream.depends_on, stream.weight = dependency
        if head.is_acceptable:
            stream.opened_at = self.now
            self._guard.accepted_requests += 1
            request = RequestReceived(stream, end_stream)
            self._events.append(request)
            if not end_stream:
                self._pending_requests[stream_id] = request
        else:
            self._answer(stream)

    def _decode_head(self, block: bytes) -> RequestHead | MalformedRequest:
        head = self._heads.find(block)
        is_excessive = False
        if head is None:
            section, is_excessive = self._decode(block)
            try:
                head = parse_request(section) if is_excessive else self._heads.parse(section)
            except MalformedRequest as error:
                # The traceback leads to the caller's frame, which has the error then: a reference cycle.
                return error.with_traceback(None)
        if head.protocol and not self._offers_websocket:
            return MalformedRequest(":protocol, which was not offered")
        if is_excessive or self._refusals.find(head) is not None:
            head.is_acceptable = False
        else:
            self._heads.keep(block, head)
        return head

    def _decode(self, block: bytes) -> tuple[Fields, bool]:
        """Decode a block, and charge what is unusual about it before more is done with it.

        Return its section, and whether it has too many fields; of such a section only the first.
        """
        if b"\x20" <= block[:1] < b"\x40":
            self._guard.charge_size_updates(self.now, block)
        section = self._heads.decode(block)
        count, limit = len(section), self._max_fields
        if count * self._codec.largest_entry > _REPETITIVE_SIZE:
            self._guard.charge_repetition(self.now, len(block), section)
        if count <= limit or (count <= self._max_decoded_fields and count_fields(section) <= limit):
            return section, False
        self._guard.charge_excess_fields(self.now, len(block), count)
        del section[limit:]
        return section, True

    def _answer(self, stream: Stream) -> None:
        stream.call = NO_CALL
        self._guard.charge_reset(self.now, len(self._streams.open))
        answer, reason = self._refusals.find(stream.head) or TOO_MANY_FIELDS
        self._sender.send_headers(stream, self._refusals.dated(answer), True)
        self._events.append(RequestRefused(stream.stream_id, reason, answer.status, stream.head))

    def _receive_trailers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        if not stream_id & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        section, is_excessive = self._decode(block)
        self._streams.check_not_skipped(stream_id)
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._streams.check_late_frame(stream_id, "HEADERS")
            self._guard.charge_control(self.now)
            return
        if stream.state >= HALF_CLOSED_REMOTE:
            raise StreamFailure(stream_id, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
        declared = stream.head.content_length
        if not end_stream or (declared is not None and stream.received != declared):
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers before the end of the body")
        if is_excessive or list_size(section) > self._max_header_list_size:
            raise StreamFailure(stream_id, ErrorCode.ENHANCE_YOUR_CALM, StreamLimit.TRAILERS_TOO_LARGE)
        fields = _checked_trailers(stream, section)
        if stream.call is HELD:
            self._held.release(stream, False)
        if stream.has_reader:
            self._events.append(TrailersReceived(stream, fields))
        self._end_request(stream)

    # DATA (section 6.1)

    def receive_data(self, stream_id: int, end_stream: bool, data: bytes, length: int) -> None:
        """See `FrameSink.receive_data`."""
        if not end_stream and len(data) < SMALL_DATA:
            if data:
                self._guard.charge_small_data(self.now, len(data))
            else:
                self._guard.charge_control(self.now)
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._streams.check_used(stream_id, "DATA")
            if end_stream:
                # The end of a stream that we have reset, which may come once.
                self._guard.charge_control(self.now)
        if self._window.consume_and_acknowledge(length):
            self._inflow.renew_connection(self.now)
        elif self._window.edges:
            self._inflow.note_edge(self._window, self.now)
        if stream is None:
            self._streams.check_late_frame(stream_id, "DATA")
            return
        if end_stream and stream.state is OPEN and stream.receive_whole_body(len(data), length):
            stream.state = HALF_CLOSED_REMOTE
            request = self._pending_requests.pop(stream_id, None)
            if request is not None:
                request.end_stream, request.body = True, data
            elif stream.call is RUNNING:
                self._events.append(DataReceived(stream, data, True))
            elif stream.call is HELD:
                self._held.receive(stream, data, True)
        else:
            self._receive_part(stream, end_stream, data, length)

    def _receive_part(self, stream: Stream, end_stream: bool, data: bytes, length: int) -> None:
        """Take a DATA frame that is not the whole body of its request, or is wrong."""
        if stream.state >= HALF_CLOSED_REMOTE:
            raise StreamFailure(stream.stream_id, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        self._inflow.consume_stream(stream, length, self.now)
        stream.receive(len(data), end_stream)
        if stream.has_reader:
            if stream.call is HELD or (self._pending_requests and self._held.try_hold(stream)):
                self._held.receive(stream, data, end_stream)
            elif data or end_stream:
                self._events.append(DataReceived(stream, data, end_stream))
            # No application reads padding, so its credit is returned here.
            if length > len(data) and not end_stream:
                self._inflow.acknowledge(stream, length - len(data), self.now)
        if end_stream:
            self._end_request(stream)
        elif stream.call is RETURNED and not stream.response_ended:
            self._inflow.discard(stream, length, self.now)

    def _end_request(self, stream: Stream) -> None:
        stream.state = AFTER_REQUEST[stream.state]
        if stream.state is CLOSED:
            self._streams.forget(stream)

    def give_up(self, stream: Stream, reason: StreamLimit) -> None:
        """End a stream whose body comes too slowly: with 408, or if the response has begun, RST_STREAM(CANCEL)."""
        self._guard.reset_requests += 1
        if stream.head_sent:
            self._streams.reset_and_notify(stream, ErrorCode.CANCEL, reason)
            return
        if stream.call is HELD:
            self._held.drop(stream)
            stream.call = NO_CALL
        else:
            # The refusal tells of the limit.
            self._events.append(StreamReset(stream, ErrorCode.CANCEL, reason.value))
        self._sender.send_headers(stream, self._refusals.dated(REQUEST_TIMEOUT), True)
        self._events.append(RequestRefused(stream.stream_id, reason, 408, stream.head))

    # All other frames

    def receive_control_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """See `FrameSink.receive_control_frame`. Unknown types are charged and ignored (section 4.1)."""
        if kind != frames.RST_STREAM:
            self._guard.charge_control(self.now)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, flags, stream_id, payload)

    def _receive_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFailure(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a broken length")
        depends_on, weight = frames.parse_dependency(payload)
        if depends_on == stream_id:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself")
        stream = self._streams.open.get(stream_id)
        if stream is not None and not self._ignores_dependencies:
            stream.depends_on, stream.weight = depends_on, weight

    def _receive_priority_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._priority_updates is None:
            self._priority_updates = PriorityUpdates(
                self._max_concurrent_streams, self._streams, self._guard, self._inflow, self._outbox
            )
        self._priority_updates.receive(stream_id, payload, self.now)

    def _receive_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        code = frames.parse_word(payload, "RST_STREAM")
        self._outbox.counts.resets_received[code_label(code)] += 1
        stream = self._streams.open.get(stream_id)
        if stream is not None:
            self._guard.charge_cancel(self.now, stream.opened_at, len(self._streams.open))
            self._streams.forget_and_notify(stream, code, "the client reset the stream")
        else:
            self._guard.charge_reset(self.now, len(self._streams.open))
            self._streams.check_used(stream_id, "RST_STREAM")

    def _receive_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            self._inflow.receive_settings_ack(self._streams, self.now)
            return
        self._guard.charge_settings(self.now, len(payload))
        self.apply_settings(payload)
        self._outbox.put(frames.frame(frames.SETTINGS, frames.ACK, 0, b""))
        if self._lifecycle.phase is Phase.SETUP:
            self._lifecycle.complete_setup(self.now)

    def apply_settings(self, payload: bytes) -> None:
        """Apply the client's settings, from SETTINGS or an upgrade (section 6.5.2). Raises ConnectionFailure."""
        settings = frames.parse_settings(payload)
        for identifier, value in settings:
            # Every table size counts (RFC 7541 section 4.2); of other settings, the last value does.
            if identifier == frames.HEADER_TABLE_SIZE:
                self._sender.codec.set_peer_table_size(value)
        last = dict(settings)
        if frames.NO_RFC7540_PRIORITIES in last:
            self._ignores_dependencies = last[frames.NO_RFC7540_PRIORITIES] == 1
            if self._ignores_dependencies:
                self._outbox.note_priorities()
        self._outbox.max_frame_size = last.get(frames.MAX_FRAME_SIZE, self._outbox.max_frame_size)
        window_size = last.get(frames.INITIAL_WINDOW_SIZE, self._outbox.initial_window_size)
        if window_size != self._outbox.initial_window_size:
            self._guard.charge_moved_windows(self.now, len(self._streams.open))
            self._outbox.resize_windows(window_size, self._streams)

    def _receive_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _receive_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PING of a broken length")
        if not flags & frames.ACK:
            self._outbox.put(frames.ping(payload, frames.ACK))
        elif not self._inflow.receive_ping_ack(payload, self.now):
            self._lifecycle.receive_ping_ack(payload, self.now)

    def _receive_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Note that the client will open no more streams. The stream it names is irrelevant: we push none."""
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        code = frames.parse_goaway(payload)
        self._outbox.counts.goaways_received[code_label(code)] += 1
        self._lifecycle.receive_goaway(code)

    def _receive_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = frames.parse_word(payload, "WINDOW_UPDATE") & frames.LARGEST_WINDOW
        if not stream_id:
            self._outbox.open_window(increment)
            return
        stream = self._streams.open.get(stream_id)
        if stream is None:
            self._streams.check_used(stream_id, "WINDOW_UPDATE")
        else:
            # If the response has ended, the window is of no more use, but its errors are errors still.
            self._outbox.open_stream_window(stream, increment)

    def fail_stream(self, failure: StreamFailure) -> None:
        """See `FrameSink.fail_stream`: end the stream with RST_STREAM."""
        stream_id, code = failure.stream_id, failure.code
        open_streams = len(self._streams.open)
        if code is ErrorCode.REFUSED_STREAM and (
            not self._inflow.settings_acknowledged or open_streams < self._max_concurrent_streams
        ):
            # The client cannot keep a limit that it does not know yet, or know which calls it has cancelled still run.
            self._guard.charge_control(self.now, _COST_OF_REFUSAL)
        else:
            self._guard.charge_reset(self.now, open_streams)
        stream = self._streams.open.get(stream_id)
        if stream is not None:
            self._guard.reset_requests += 1
            self._streams.reset_and_notify(stream, code, failure.reason)
        elif self._streams.is_idle(stream_id):
            # RST_STREAM must not be sent on an idle stream (section 6.4).
            raise ConnectionFailure(code, failure.reason)
        elif isinstance(failure, RequestRefusal):
            if isinstance(failure, MalformedRefusal):
                # A server should answer 400 (section 8.2.1), and must report a stream error (section 8.1.1). So the
                # answer does not end the stream: a closed one could not be reset.
                self._sender.answer_unopened(stream_id, self._refusals.dated(BAD_REQUEST))
            self._streams.reset_unopened(stream_id, code)
            self._events.append(RequestRefused(stream_id, failure.reason))
        elif not self._streams.was_reset(stream_id):
            # Of the errors of a stream, the first is reported (section 5.4).
            self._outbox.put_rst_stream(stream_id, code)

    # An upgrade

    def receive_upgrade(self, upgrade: Upgrade) -> None:
        """Open stream 1 with the upgraded request, and apply the client's settings (RFC 7540 section 3.2)."""
        # The 101 response acknowledges these settings.
        self.apply_settings(upgrade.settings)
        self._streams.last_stream_id = 1
        stream = Stream(
            1, upgrade.head, HALF_CLOSED_REMOTE, self._outbox.initial_window_size, self._inflow.stream_window_size
        )
        self._streams.open[1] = stream
        self._lifecycle.note_busy()
        self._guard.accepted_requests += 1
        self._events.append(RequestReceived(stream, True, upgrade.body))


def _checked_trailers(stream: Stream, section: Fields) -> Fields:
    if stream.head.protocol:
        # RFC 9113 section 8.5.
        raise StreamFailure(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "HEADERS in a tunnel")
    try:
        return check_trailers(section)
    except MalformedRequest as error:
        raise StreamFailure(stream.stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from error


_HANDLERS: dict[int, Callable[[Receiver, int, int, bytes], None]] = {
    frames.PRIORITY: Receiver._receive_priority,
    frames.RST_STREAM: Receiver._receive_rst_stream,
    frames.SETTINGS: Receiver._receive_settings,
    frames.PUSH_PROMISE: Receiver._receive_push_promise,
    frames.PING: Receiver._receive_ping,
    frames.GOAWAY: Receiver._receive_goaway,
    frames.WINDOW_UPDATE: Receiver._receive_window_update,
    frames.PRIORITY_UPDATE: Receiver._receive_priority_update,
}
