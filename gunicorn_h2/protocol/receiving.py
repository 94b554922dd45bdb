"""What the peer sends: every frame charged, judged by the stream's state, then given to the engine.

One method a frame type, found in a table. A method raises ConnectionFailure or StreamFailure and
leaves the consequences to the one place that catches them. Where RFC 9113 asks for a stream error,
the frame is judged here, before the engine, which knows connection errors only.
"""

from __future__ import annotations

from collections.abc import Callable

from . import frames
from .errors import ConnectionFailure, ErrorCode, StreamFailure
from .events import DataReceived, RequestReceived, RequestRefused, TrailersReceived
from .headers import Fields, MalformedRequest, RequestHead, check_trailers, list_size, parse_request
from .stall import PING_PAYLOAD
from .state import ConnectionState, Phase
from .stream import ReceiveWindow, Stream

__all__ = ["Receiving"]

_Handler = Callable[["Receiving", int, int, bytes, float], None]


class _HeaderBlock:
    """A header block that is being collected (RFC 9113 section 4.3)."""

    def __init__(self, stream_id: int, end_stream: bool, fragment: bytes, deadline: float | None) -> None:
        self.stream_id = stream_id
        self.end_stream = end_stream
        self.fragments = [fragment]
        self.size = len(fragment)
        self.deadline = deadline
        self.priority: tuple[int, int] | None = None

    def add(self, fragment: bytes) -> None:
        self.fragments.append(fragment)
        self.size += len(fragment)


class Receiving(ConnectionState):
    """The receiving half of `ServerConnection`."""

    _splitter: frames.FrameSplitter
    _block: _HeaderBlock | None = None
    _shutdown_ping: bytes | None = None

    def _receive_frame(self, frame: frames.Frame, now: float) -> None:
        """Charge a frame and hand it to its type's method."""
        kind, flags, stream_id, octets = frame
        self._guard.charge_frame(kind, flags, len(octets), now)
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block.stream_id):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame inside a header block")
        if self.phase is Phase.SETUP and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        handler = _HANDLERS.get(kind)
        # Unknown types are ignored (RFC 9113 section 4.1): charged, and no more.
        if handler is not None:
            handler(self, flags, stream_id, octets, now)

    def _open_stream(self, stream_id: int, what: str) -> Stream | None:
        """The stream a frame belongs to; None where it is closed; an error where it is idle."""
        stream = self.streams.get(stream_id)
        idle = stream_id > self.last_stream_id or not stream_id & 1
        if stream is None and idle and not self._is_refused(stream_id):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"{what} on idle stream {stream_id}")
        return stream

    # DATA (section 6.1)

    def _receive_data(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        length = len(octets) - frames.FRAME_HEADER_SIZE
        data = frames.unpadded(octets[frames.FRAME_HEADER_SIZE :], flags)
        stream = self._open_stream(stream_id, "DATA")
        self._take_from_connection_window(length)
        if stream is None or stream.remote_closed:
            self._judge_late_frame(stream, stream_id, "DATA")
            return
        end_stream = bool(flags & frames.END_STREAM)
        if length and not data and not end_stream:
            self._guard.charge_control(now)
        stream.receive_window.consume(length)
        stream.received += len(data)
        self._stall.note_data(length, now)
        declared = stream.head.content_length
        if declared is not None and (stream.received > declared or (end_stream and stream.received != declared)):
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as content-length")
        self._put(self.engine.receive_frame(octets))
        self._deliver_data(stream, data, length, end_stream)

    def _deliver_data(self, stream: Stream, data: bytes, length: int, end_stream: bool) -> None:
        if end_stream:
            stream.remote_closed = True
        # Nobody reads the rest of a body behind its response; `_before_end` gave credit for that.
        if not (stream.local_closed or stream.finished):
            if data or end_stream:
                self._events.append(DataReceived(stream, data, end_stream))
            # Nobody reads padding either.
            if length > len(data) and not end_stream:
                self._give_credit(stream.receive_window, stream.stream_id, length - len(data))
        if stream.local_closed and stream.remote_closed:
            self._forget(stream)

    def _take_from_connection_window(self, length: int) -> None:
        """Its credit comes back at once: what is held unread is limited by the streams' windows.

        Were it to wait for the applications, the bodies of requests whose turn to run has not come
        could use the window up, and those that run would wait for them for ever.
        """
        self.receive_window.consume(length)
        self._give_credit(self.receive_window, 0, length)

    def _judge_late_frame(self, stream: Stream | None, stream_id: int, what: str) -> None:
        """A frame that needs an open stream came for a closed one (section 5.1)."""
        if stream is not None:
            raise StreamFailure(stream_id, ErrorCode.STREAM_CLOSED, f"{what} after END_STREAM")
        if stream_id not in self._reset_streams and not self._is_refused(stream_id):
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"{what} on closed stream {stream_id}")

    def _is_refused(self, stream_id: int) -> bool:
        """Streams beyond the final GOAWAY are not ours to judge (section 6.8)."""
        return self.phase is Phase.DRAINING and stream_id > self.last_accepted_stream_id

    # HEADERS and CONTINUATION (sections 6.2 and 6.10)

    def _receive_headers(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        if not stream_id & 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {stream_id}")
        fragment = frames.unpadded(octets[frames.FRAME_HEADER_SIZE :], flags)
        priority = None
        if flags & frames.HAS_PRIORITY:
            if len(fragment) < 5:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            priority, fragment = frames.parse_priority(fragment), fragment[5:]
        deadline = now + self.config.header_timeout if self.config.header_timeout else None
        block = _HeaderBlock(stream_id, bool(flags & frames.END_STREAM), fragment, deadline)
        block.priority = priority
        self._collect(block, flags)

    def _receive_continuation(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._block.add(octets[frames.FRAME_HEADER_SIZE :])
        self._collect(self._block, flags)

    def _collect(self, block: _HeaderBlock, flags: int) -> None:
        self._guard.charge_header_block(block.size, len(block.fragments) - 1)
        if flags & frames.END_HEADERS:
            self._block = None
            octets = block.fragments[0] if len(block.fragments) == 1 else b"".join(block.fragments)
            self._guard.charge_size_updates(octets)
            self._receive_section(block, self.engine.decode_headers(octets))
        else:
            self._block = block

    def _receive_section(self, block: _HeaderBlock, section: Fields) -> None:
        stream_id = block.stream_id
        if stream_id <= self.last_stream_id:
            self._receive_trailers(stream_id, section, block.end_stream)
            return
        if self._is_refused(stream_id):
            self._guard.charge_control(self._now)
            return
        if stream_id > self.last_stream_id + 2:
            self._skipped.append((self.last_stream_id + 1, stream_id - 1))
        self.last_stream_id = stream_id
        if block.priority is not None and block.priority[0] == stream_id:
            self._refuse(stream_id, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself")
        elif len(self.streams) + self.orphaned_calls >= self.config.max_concurrent_streams:
            self._refuse(stream_id, ErrorCode.REFUSED_STREAM, "too many concurrent streams")
        else:
            self._receive_request(block, section)

    def _receive_request(self, block: _HeaderBlock, section: Fields) -> None:
        try:
            head = parse_request(section)
            if block.end_stream and head.content_length:
                raise MalformedRequest("a content-length without a body")
        except MalformedRequest as error:
            self._refuse(block.stream_id, ErrorCode.PROTOCOL_ERROR, str(error))
            return
        stream = self._accept(block.stream_id, block.end_stream, section, head)
        if block.priority is not None:
            stream.depends_on, stream.weight = block.priority
        limit = self.config.max_header_list_size
        if limit and list_size(section) > limit:
            self._answer(stream, 431, "header list too large")
        elif head.method == b"CONNECT":
            self._answer(stream, 501, "CONNECT is not supported")
        else:
            self._deliver_request(stream, block.end_stream)

    def _deliver_request(self, stream: Stream, end_stream: bool) -> None:
        stream.running = True
        self._events.append(RequestReceived(stream, end_stream))

    def _accept(self, stream_id: int, end_stream: bool, section: Fields, head: RequestHead) -> Stream:
        self.engine.receive_headers(stream_id, section, end_stream)
        self._guard.earn_request()
        window = ReceiveWindow(self.initial_window_size, self.config.initial_window_size)
        stream = Stream(stream_id, self.peer_initial_window_size, window)
        stream.head = head
        stream.remote_closed = end_stream
        if self.streams:
            self._stall.enable()
        self.streams[stream_id] = stream
        self.quiet_since = None
        self.served = True
        return stream

    def _refuse(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        """Reset a stream that never was one: the engine does not hear of it."""
        if self.settings_acknowledged or code is not ErrorCode.REFUSED_STREAM:
            self._guard.charge_reset(self._now)
        else:
            # Before the client knows our limits it can hardly be blamed for exceeding them.
            self._guard.charge_control(self._now)
        self._put(frames.rst_stream(stream_id, code))
        self._remember_reset(stream_id)
        self._events.append(RequestRefused(stream_id, reason))

    def _answer(self, stream: Stream, status: int, reason: str) -> None:
        """Answer a request that no application will see."""
        self._guard.charge_reset(self._now)
        self._before_end(stream)
        section = [(b":status", b"%d" % status), (b"content-length", b"0")]
        self._put(self.engine.send_headers(stream.stream_id, section, True))
        self._ended(stream)
        self._events.append(RequestRefused(stream.stream_id, reason, status, stream.head))

    def _receive_trailers(self, stream_id: int, section: Fields, end_stream: bool) -> None:
        stream = self.streams.get(stream_id)
        if any(first <= stream_id <= last for first, last in self._skipped):
            # Section 5.1.1: the identifiers of new streams grow.
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} was passed over")
        if stream is None or stream.remote_closed:
            self._judge_late_frame(stream, stream_id, "HEADERS")
            self._guard.charge_control(self._now)
            return
        declared = stream.head.content_length
        if not end_stream or (declared is not None and stream.received != declared):
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "trailers before the end of the body")
        try:
            fields = check_trailers(section)
        except MalformedRequest as error:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from error
        self.engine.receive_headers(stream_id, section, end_stream)
        stream.remote_closed = True
        if not stream.finished and not stream.local_closed:
            self._events.append(TrailersReceived(stream, fields))
        if stream.local_closed:
            self._forget(stream)

    # The frames that carry neither fields nor data

    def _receive_priority(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        if not stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(octets) != frames.FRAME_HEADER_SIZE + 5:
            raise StreamFailure(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a broken length")
        stream = self.streams.get(stream_id)
        depends_on, weight = frames.parse_priority(octets[frames.FRAME_HEADER_SIZE :])
        if depends_on == stream_id:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself")
        if stream is not None:
            stream.depends_on, stream.weight = depends_on, weight

    def _receive_rst_stream(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        code = frames.parse_word(octets, "RST_STREAM")
        stream = self._open_stream(stream_id, "RST_STREAM")
        if stream is not None:
            self._put(self.engine.receive_frame(octets))
            self._forget_and_tell(stream, code, "the client reset the stream")

    def _receive_settings(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        payload = octets[frames.FRAME_HEADER_SIZE :]
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with a payload")
            self._settings_acknowledged(octets)
            return
        self._guard.charge_settings(len(payload))
        self._put(self._apply_settings(octets))
        if self.phase is Phase.SETUP:
            self._setup_complete(now)

    def _apply_settings(self, octets: bytes) -> bytes:
        """Take over the client's settings; return the acknowledgement."""
        for identifier, value in frames.parse_settings(octets[frames.FRAME_HEADER_SIZE :]).items():
            if identifier == frames.INITIAL_WINDOW_SIZE:
                self._resize_send_windows(value)
            elif identifier == frames.MAX_FRAME_SIZE:
                self.peer_max_frame_size = value
        return self.engine.receive_frame(octets)

    def _settings_acknowledged(self, octets: bytes) -> None:
        """The client applies our settings from here on (section 6.5.3)."""
        if self.settings_acknowledged:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK without SETTINGS")
        self.settings_acknowledged = True
        self._put(self.engine.receive_frame(octets))
        change = self.config.initial_window_size - self.initial_window_size
        self.initial_window_size = self.config.initial_window_size
        for stream in self.streams.values():
            stream.receive_window.available += change

    def _resize_send_windows(self, size: int) -> None:
        """SETTINGS_INITIAL_WINDOW_SIZE moves open streams' windows too, below zero if need be (section 6.9.2)."""
        change = size - self.peer_initial_window_size
        self.peer_initial_window_size = size
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE overflows a window")
            if stream.sendable:
                self.scheduler.add(stream)

    def _receive_push_promise(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client cannot push")

    def _receive_ping(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        payload = octets[frames.FRAME_HEADER_SIZE :]
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "PING of a broken length")
        if not flags & frames.ACK:
            self._put(frames.ping(payload, frames.ACK))
        elif payload == PING_PAYLOAD and self._stall.outstanding:
            self._guard.earn_control()
            if self._stall.acknowledged(now, self._waiting_tasks()):
                self._put(frames.ping(PING_PAYLOAD))
        elif payload == self._shutdown_ping:
            self._shutdown_ping = None
            self._shutdown_acknowledged(now)

    def _receive_goaway(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        """A client's GOAWAY forbids our pushes, of which there are none: it will open no more streams."""
        if stream_id:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        frames.parse_goaway(octets[frames.FRAME_HEADER_SIZE :])
        self.peer_going_away = True

    def _receive_window_update(self, flags: int, stream_id: int, octets: bytes, now: float) -> None:
        increment = frames.parse_word(octets, "WINDOW_UPDATE") & frames.LARGEST_WINDOW
        if not stream_id:
            self._open_connection_window(increment)
            self._put(self.engine.receive_frame(frames.window_update(0, increment)))
            return
        stream = self._open_stream(stream_id, "WINDOW_UPDATE")
        if stream is None or stream.local_closed:
            return
        if not increment:
            raise StreamFailure(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if stream.send_window + increment > frames.LARGEST_WINDOW:
            raise StreamFailure(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window overflows")
        stream.send_window += increment
        self._put(self.engine.receive_frame(frames.window_update(stream_id, increment)))
        if stream.sendable:
            self.scheduler.add(stream)

    def _open_connection_window(self, increment: int) -> None:
        if not increment:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 on the connection")
        self.send_window += increment
        if self.send_window > frames.LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window overflows")

    def _waiting_tasks(self) -> int:
        """See `StallProbe`: how many streams are open, where an upload has credit and no GOAWAY has gone out."""
        if self.phase not in (Phase.OPEN, Phase.QUIETING) or self.receive_window.available <= 0:
            return 0
        has_credit = any(
            stream.receive_window.available > 0 and not stream.remote_closed and not stream.local_closed
            for stream in self.streams.values()
        )
        return len(self.streams) if has_credit else 0

    # What ServerConnection adds

    def _setup_complete(self, now: float) -> None:
        """The client's first SETTINGS have come."""

    def _shutdown_acknowledged(self, now: float) -> None:
        """The PING of a shutdown has come back."""


_HANDLERS: dict[int, _Handler] = {
    frames.DATA: Receiving._receive_data,
    frames.HEADERS: Receiving._receive_headers,
    frames.PRIORITY: Receiving._receive_priority,
    frames.RST_STREAM: Receiving._receive_rst_stream,
    frames.SETTINGS: Receiving._receive_settings,
    frames.PUSH_PROMISE: Receiving._receive_push_promise,
    frames.PING: Receiving._receive_ping,
    frames.GOAWAY: Receiving._receive_goaway,
    frames.WINDOW_UPDATE: Receiving._receive_window_update,
    frames.CONTINUATION: Receiving._receive_continuation,
}
