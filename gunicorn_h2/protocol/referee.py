"""The referee: an h2 connection that checks every frame of both directions, and may object.

The core frames, parses and counts by itself; h2 does the same again, from the same octets in the same order. If
h2 refuses a frame of the peer that the core accepted, the connection ends with h2's error code. If h2 would have
written other octets than the core, it ends with INTERNAL_ERROR.

HPACK runs once: h2 is given the sections that the codec decoded, and the blocks that it encoded.

Where h2 departs from the RFCs, or counts differently, it is shown an adapted frame, or none. Each such place has
a comment with what h2 4.4 does and the section that it departs from.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error, ProtocolError
from h2.frame_buffer import CONTINUATION_BACKLOG
from h2.settings import SettingCodes, Settings
from h2.stream import StreamState

from . import frames
from .codec import Field
from .codec_hpack import HpackCodec
from .config import ConnectionConfig
from .errors import ConnectionFailure, ErrorCode
from .outbox import Outbox
from .upgrade import SWITCHING_PROTOCOLS

__all__ = ["H2Referee", "RecordingCodec"]

_KNOWN_SETTINGS = frozenset(int(code) for code in SettingCodes)
_FIELD_BLOCK_TYPES = (frames.HEADERS, frames.CONTINUATION)
_END_OF_HEADERS = frames.END_HEADERS | frames.PADDED | frames.HAS_PRIORITY
# The core remembers 512.
_REMEMBERED_RESETS = 1024
# Limits on the peer's field blocks that are remembered: those of the core's cache of heads.
_MAX_SECTIONS = 128
_MAX_BLOCK_SIZE = 2048
_MAX_FIELDS = 128


class _Difference(Exception):
    """h2 would have acted differently from the core."""


# What h2 raises by contract, and what it happens to raise for input that it does not expect.
_OBJECTIONS = (_Difference, H2Error, AssertionError, IndexError, KeyError, ValueError)


class RecordingCodec(HpackCodec):
    """An `HpackCodec` that remembers the sections of its blocks."""

    def __init__(self, max_list_size: int, max_fields: int) -> None:
        """See `HpackCodec`."""
        super().__init__(max_list_size, max_fields)
        self._decoded: dict[bytes, Sequence[Field]] = {}
        self._encoded: deque[tuple[bytes, Sequence[Field]]] = deque()

    def decode(self, block: bytes) -> list[Field]:
        """See `HeaderCodec.decode`."""
        changes = self.changes
        section = super().decode(block)
        is_large = len(block) > _MAX_BLOCK_SIZE or len(section) > _MAX_FIELDS
        if is_large or self.changes != changes or len(self._decoded) >= _MAX_SECTIONS:
            self._decoded.clear()
        self._decoded[block] = section
        return section

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `HeaderCodec.encode`."""
        block = super().encode(fields)
        self._encoded.append((block, fields))
        return block

    def decoded(self, block: bytes) -> Sequence[Field]:
        """The section of the peer's last block. Raises ConnectionFailure if the codec did not decode it."""
        section = self._decoded.get(block)
        if section is None:
            # The core may have had it cached; then decoding it again does not change the table.
            changes = self.changes
            section = self.decode(block)
            if self.changes != changes:
                raise ConnectionFailure(ErrorCode.INTERNAL_ERROR, "h2: a header block that was not decoded")
        return section

    def encoded(self, block: bytes) -> Sequence[Field]:
        """The section of our next block on the wire, which must be `block`."""
        expected, section = self._encoded.popleft() if self._encoded else (None, ())
        if block != expected:
            raise _Difference("a header block that was not encoded")
        return section


class _Hpack:
    """Stands in for h2's decoder and encoder: returns the section and the block that were set."""

    header_table_size = max_allowed_table_size = max_header_list_size = 0

    def __init__(self) -> None:
        self.block = b""
        self.section: Sequence[Field] = ()

    def decode(self, data: bytes, raw: bool = False) -> Sequence[Field]:
        """Return the section for h2, whose block must be the one set."""
        if data != self.block:
            raise _Difference("another header block in the same frames")
        return self.section

    def encode(self, headers: Sequence[Field]) -> bytes:
        """Return the block that the codec encoded."""
        # h2 validates them while they are iterated.
        deque(headers, 0)
        return self.block


class _Connection(H2Connection):
    # The core checks frames on closed streams, so h2 need not remember 65 536 of them.
    MAX_CLOSED_STREAMS = 128

    def consume_window(self, octets: int) -> None:
        """Count DATA that h2 is not shown against the connection's window (section 5.1)."""
        self._inbound_flow_control_window_manager.window_consumed(octets)


class H2Referee:
    """A `Referee` on an h2 connection. An exception of h2, or a RST_STREAM that it would send, is an objection."""

    def __init__(self, config: ConnectionConfig, codec: RecordingCodec, outbox: Outbox) -> None:
        """`codec` is the connection's, and `outbox` holds its output."""
        self._codec = codec
        self._outbox = outbox
        self._hpack = _Hpack()
        self._answers: list[bytes] = []
        """ACKs that h2 sent for the current frame; the core must send the same."""
        self._last_failed_id = 0
        """The highest stream for which `receive_failed` was called; h2 may never have seen it."""
        self._final_stream_id = frames.LARGEST_STREAM_ID
        """The last stream that our latest GOAWAY names."""
        self._resets: dict[int, None] = {}
        """The streams that we reset, up to _REMEMBERED_RESETS; the oldest first."""
        self._failing_stream_id = 0
        """The stream that the core ended for the current frame; 0 for none."""
        self._connection = connection = _Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # h2's defaults limit streams to 100 before the client knows of a limit.
        connection.local_settings = Settings(client=False)
        # h2 accepts larger frames only after the SETTINGS ACK; section 6.5.3 does not forbid them before.
        connection.max_inbound_frame_size = config.max_frame_size
        connection.decoder = connection.encoder = cast("Any", self._hpack)
        connection.initiate_connection()
        connection.receive_data(frames.PREFACE)
        connection.clear_outbound_data_buffer()

    # -- the peer's frames ---------------------------------------------------------------------------------
    # A `_view_*` method returns the octets that h2 is shown of a frame; b"" for none.

    def receive(self, octets: bytes) -> None:
        """See `Referee.receive`."""
        _, _, kind, flags, stream_id = frames.unpack_header(octets)
        stream_id &= frames.STREAM_ID_MASK
        # h2 ends all streams at a client's GOAWAY, though they go on (section 6.8); and it parses ALTSVC, which a
        # server must ignore (RFC 7838 section 4). So GOAWAY and types unknown to the core are not shown.
        view = _VIEWS.get(kind)
        if view is not None:
            try:
                shown = view(self, octets, flags, stream_id)
                if shown:
                    self._show(shown)
            except _OBJECTIONS as error:
                raise _failure(error) from error
        self.validate_output()
        if self._answers:
            raise ConnectionFailure(ErrorCode.INTERNAL_ERROR, "h2: an ACK of ours is missing")

    def receive_failed(self, octets: bytes) -> None:
        """See `Referee.receive_failed`."""
        _, _, kind, _, stream_id = frames.unpack_header(octets)
        stream_id &= frames.STREAM_ID_MASK
        if kind == frames.DATA:
            try:
                self._connection.consume_window(len(octets) - frames.FRAME_HEADER_SIZE)
            except _OBJECTIONS as error:
                raise _failure(error) from error
        self._last_failed_id = max(self._last_failed_id, stream_id)
        self._failing_stream_id = stream_id
        self.validate_output()
        self._failing_stream_id = 0

    def receive_upgrade(self, settings: bytes) -> None:
        """See `Referee.receive_upgrade`."""
        self._connection.initiate_upgrade_connection(base64.urlsafe_b64encode(settings))
        self._connection.clear_outbound_data_buffer()

    def _show(self, octets: bytes) -> None:
        self._connection.receive_data(octets)
        answers = self._connection.data_to_send()
        for kind, _, stream_id, frame in frames.split(answers):
            if kind == frames.RST_STREAM:
                raise ConnectionFailure(ErrorCode(_word(frame)), f"h2: an error of stream {stream_id}")
            self._answers.append(frame)

    def _is_ignored(self, stream_id: int) -> bool:
        """Whether the core ignores the stream: we reset it, or the final GOAWAY does not cover it (section 6.8)."""
        return stream_id in self._resets or stream_id > self._final_stream_id

    def _view_headers(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        # h2 does not know refused streams, and forgets which ones were reset (section 5.1).
        if self._is_ignored(stream_id):
            return b""
        hpack = self._hpack
        if flags & _END_OF_HEADERS == frames.END_HEADERS:
            block, readable = octets[frames.FRAME_HEADER_SIZE :], True
        else:
            block, readable = _field_block(octets, stream_id in self._connection.streams)
        section = self._codec.decoded(block)
        hpack.section = _trailers(section) if stream_id in self._connection.streams else _request(section)
        if readable:
            hpack.block = block
            return octets
        hpack.block = b""
        return frames.frame(frames.HEADERS, flags & frames.END_STREAM | frames.END_HEADERS, stream_id, b"")

    def _view_data(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        size = len(octets) - frames.FRAME_HEADER_SIZE
        if self._is_ignored(stream_id):
            self._connection.consume_window(size)
            return b""
        stream = self._connection.streams.get(stream_id)
        if not size and stream is not None and stream.inbound_flow_control_window < 0:
            # h2 refuses an empty frame while our SETTINGS keep the window below zero; it needs no window
            # (section 6.9.1). After the one that ends the body, the window does not matter.
            if not flags & frames.END_STREAM:
                return b""
            self._connection.increment_flow_control_window(-stream.inbound_flow_control_window, stream_id)
            self._connection.clear_outbound_data_buffer()
        return octets

    def _view_rst_stream(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        # To h2, a connection whose requests were all refused is idle (section 5.1).
        return b"" if self._is_gone(stream_id) else octets

    def _view_settings(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        # h2 also changes the windows of closed streams (section 6.9.2), unless this property has dropped them, and
        # those of half-closed (local) ones, which are not active: they must not overflow.
        _ = self._connection.open_inbound_streams
        for stream in self._connection.streams.values():
            if stream.state_machine.state is StreamState.HALF_CLOSED_LOCAL:
                stream.outbound_flow_control_window = 0
        payload = octets[frames.FRAME_HEADER_SIZE :]
        known = _known_settings(payload)
        return octets if known == payload else frames.frame(frames.SETTINGS, flags, stream_id, known)

    def _view_window_update(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        stream = self._connection.streams.get(stream_id)
        if self._is_gone(stream_id) or (stream and stream.state_machine.state is StreamState.HALF_CLOSED_LOCAL):
            # h2 reports an overflow of such a window, though nothing more is sent on it (section 5.1).
            return b""
        # h2 reads the reserved bit as a part of the increment (section 6.9).
        if _word(octets) > frames.LARGEST_WINDOW:
            return frames.window_update(stream_id, _word(octets) & frames.LARGEST_WINDOW)
        return octets

    def _is_gone(self, stream_id: int) -> bool:
        """Whether the stream is closed; h2 takes refused streams for idle ones (section 5.1)."""
        stream = self._connection.streams.get(stream_id)
        if stream is not None:
            return stream.closed
        highest = max(self._last_failed_id, self._connection.highest_inbound_stream_id)
        return (stream_id & 1 == 1 and stream_id <= highest) or stream_id > self._final_stream_id

    def _view_as_it_is(self, octets: bytes, flags: int, stream_id: int) -> bytes:
        return octets

    # -- our frames ----------------------------------------------------------------------------------------
    # A `_replay_*` method has h2 send a frame; it returns whether the octets h2 then writes must be the same.

    def validate_output(self) -> None:
        """See `Referee.validate_output`."""
        octets = self._outbox.show()
        if not octets:
            return
        try:
            self._replay_all(octets)
        except (ConnectionFailure, *_OBJECTIONS) as error:
            self._outbox.retract()
            raise ConnectionFailure(ErrorCode.INTERNAL_ERROR, f"h2: our own frame: {_reason(error)}") from error

    def _replay_all(self, octets: bytes) -> None:
        start = len(SWITCHING_PROTOCOLS) if octets.startswith(SWITCHING_PROTOCOLS) else 0
        begun = b""
        for kind, flags, stream_id, frame in frames.split(octets, start):
            frame = begun + frame
            if kind in _FIELD_BLOCK_TYPES and not flags & frames.END_HEADERS:
                begun = frame
                continue
            begun = b""
            replay = _REPLAYS.get(kind)
            if replay is None:
                raise _Difference(f"of type {kind}")
            if replay(self, frame[4], stream_id, frame) and self._connection.data_to_send() != frame:
                raise _Difference("h2 would have written other octets")

    def _replay_headers(self, flags: int, stream_id: int, frame: bytes) -> bool:
        block = b"".join([piece[frames.FRAME_HEADER_SIZE :] for _, _, _, piece in frames.split(frame)])
        section = self._codec.encoded(block)
        if stream_id == self._failing_stream_id and stream_id not in self._connection.streams:
            # The answer to a malformed request, of which h2 was not shown anything.
            return False
        # h2 cannot write an empty block, that of trailers without fields (RFC 7541 section 2.1).
        self._hpack.block = block or b"\0"
        self._connection.send_headers(stream_id, section, flags & frames.END_STREAM != 0)
        if not block:
            self._connection.clear_outbound_data_buffer()
        return block != b""

    def _replay_data(self, flags: int, stream_id: int, frame: bytes) -> bool:
        self._connection.send_data(stream_id, frame[frames.FRAME_HEADER_SIZE :], flags & frames.END_STREAM != 0)
        return True

    def _replay_rst_stream(self, flags: int, stream_id: int, frame: bytes) -> bool:
        self._resets[stream_id] = None
        if len(self._resets) > _REMEMBERED_RESETS:
            del self._resets[next(iter(self._resets))]
        stream = self._connection.streams.get(stream_id)
        if stream_id == self._failing_stream_id and (stream is None or stream.closed):
            # h2 does not know the stream of a refused request, and objects to the reset of a closed one.
            return False
        self._connection.reset_stream(stream_id, _word(frame))
        return True

    def _replay_settings(self, flags: int, stream_id: int, frame: bytes) -> bool:
        if flags & frames.ACK:
            return self._expect_answer(frame)
        self._connection.update_settings(dict(frames.parse_settings(frame[frames.FRAME_HEADER_SIZE :])))
        return True

    def _replay_ping(self, flags: int, stream_id: int, frame: bytes) -> bool:
        if flags & frames.ACK:
            return self._expect_answer(frame)
        self._connection.ping(frame[frames.FRAME_HEADER_SIZE :])
        return True

    def _expect_answer(self, frame: bytes) -> bool:
        """Check an ACK of ours: h2 must have sent the same by itself."""
        if frame not in self._answers:
            raise _Difference("an ACK that nobody waits for")
        self._answers.remove(frame)
        return False

    def _replay_goaway(self, flags: int, stream_id: int, frame: bytes) -> bool:
        # h2 ends all streams at our GOAWAY; by section 6.8, those up to the one it names go on.
        self._final_stream_id = _word(frame) & frames.STREAM_ID_MASK
        return False

    def _replay_window_update(self, flags: int, stream_id: int, frame: bytes) -> bool:
        self._connection.increment_flow_control_window(_word(frame), stream_id or None)
        return True


_VIEWS: dict[int, Callable[[H2Referee, bytes, int, int], bytes]] = {
    frames.DATA: H2Referee._view_data,
    frames.HEADERS: H2Referee._view_headers,
    frames.PRIORITY: H2Referee._view_as_it_is,
    frames.RST_STREAM: H2Referee._view_rst_stream,
    frames.SETTINGS: H2Referee._view_settings,
    frames.PUSH_PROMISE: H2Referee._view_as_it_is,
    frames.PING: H2Referee._view_as_it_is,
    frames.WINDOW_UPDATE: H2Referee._view_window_update,
    frames.CONTINUATION: H2Referee._view_as_it_is,
}
_REPLAYS: dict[int, Callable[[H2Referee, int, int, bytes], bool]] = {
    frames.DATA: H2Referee._replay_data,
    frames.HEADERS: H2Referee._replay_headers,
    frames.CONTINUATION: H2Referee._replay_headers,
    frames.RST_STREAM: H2Referee._replay_rst_stream,
    frames.SETTINGS: H2Referee._replay_settings,
    frames.PING: H2Referee._replay_ping,
    frames.GOAWAY: H2Referee._replay_goaway,
    frames.WINDOW_UPDATE: H2Referee._replay_window_update,
}


def _word(frame: bytes) -> int:
    """The first 32 bits of a frame's payload."""
    return int.from_bytes(frame[9:13], "big")


def _field_block(octets: bytes, is_open: bool) -> tuple[bytes, bool]:
    """The field block of a HEADERS frame and its CONTINUATION frames, and whether h2 can read it.

    h2 refuses more than 63 CONTINUATION frames (section 6.10 has no limit), a frame of nothing but padding
    (section 6.2), and trailers that have their stream depend on itself (which the core ignores: RFC 9113
    section 5.3.2).
    """
    fragments = [frame[frames.FRAME_HEADER_SIZE :] for _, _, _, frame in frames.split(octets)]
    first, flags = fragments[0], octets[4]
    readable = len(fragments) <= CONTINUATION_BACKLOG
    if flags & frames.PADDED and first[0] == len(first) - 1:
        readable = False
    first = frames.unpadded(first, flags)
    if flags & frames.HAS_PRIORITY:
        readable = readable and not is_open
        first = first[5:]
    return b"".join([first, *fragments[1:]]), readable


def _request(section: Sequence[Field]) -> Sequence[Field]:
    """A request's section, adapted to h2.

    h2 requires an authority, which is optional by section 8.3.1, and compares Host with it octet by octet,
    though the same section compares them normalized. And it would apply a content-length to the DATA of an extended
    CONNECT, which is no content (RFC 9110 section 9.3.6).
    """
    names = {name for name, _ in section}
    if b":protocol" in names:
        section = [field for field in section if field[0] != b"content-length"]
    if b"host" in names and b":authority" in names:
        return [field for field in section if field[0] != b"host"]
    if b"host" not in names and b":authority" not in names:
        return [(b":authority", b""), *section]
    return section


def _trailers(section: Sequence[Field]) -> Sequence[Field]:
    """A trailer section, adapted to h2, which would apply a content-length in it (RFC 9110 section 6.5.1)."""
    return [field for field in section if field[0] != b"content-length"]


def _known_settings(payload: bytes) -> bytes:
    """The settings that h2 knows; it keeps all others forever, which section 6.5.2 says to ignore."""
    size = 6
    if len(payload) % size:
        return payload
    pieces = [payload[start : start + size] for start in range(0, len(payload), size)]
    return b"".join([piece for piece in pieces if int.from_bytes(piece[:2], "big") in _KNOWN_SETTINGS])


def _failure(error: Exception) -> ConnectionFailure:
    """The connection error for an objection to a frame of the peer."""
    code = ErrorCode(int(error.error_code)) if isinstance(error, ProtocolError) else ErrorCode.PROTOCOL_ERROR
    return ConnectionFailure(code, f"h2: {_reason(error)}")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, (_Difference, ConnectionFailure)) else f"{type(error).__name__}: {error}"
