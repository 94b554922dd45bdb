"""Octets to frames: the client's preface, the loop over frames, and the assembly of field blocks.

The loop works on indexes into the octets read. A complete frame costs one slice, of its payload, and no object.
The reader buffers at most one unfinished frame and one unfinished field block, and limits their size before it
does.
"""

from __future__ import annotations

import math
from typing import Protocol

from . import frames
from .errors import ConnectionFailure, ErrorCode, StreamFailure
from .guard import Guard

__all__ = ["FrameReader", "FrameSink", "Referee"]

Dependency = tuple[int, int]
"""The stream depended on, and the weight (RFC 7540 section 5.3)."""


class FrameSink(Protocol):
    """The receiver of frames. Methods raise StreamFailure or ConnectionFailure for errors of the peer."""

    def receive_headers(self, stream_id: int, end_stream: bool, block: bytes, dependency: Dependency | None) -> None:
        """Take a whole field block (RFC 9113 section 4.3)."""

    def receive_data(self, stream_id: int, end_stream: bool, data: bytes, length: int) -> None:
        """Take a DATA frame; `length` is its payload in octets, padding included."""

    def receive_control_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Take a frame of any other type, known or not."""

    def fail_stream(self, failure: StreamFailure) -> None:
        """End a stream for which another method raised `failure`."""


class Referee(Protocol):
    """A second implementation that checks every frame the core accepts or sends. Raises ConnectionFailure."""

    def receive(self, octets: bytes) -> None:
        """Check one whole frame of the peer; HEADERS come with the CONTINUATION frames that follow."""

    def receive_failed(self, octets: bytes) -> None:
        """Note a frame of the peer, or the last of a field block, for which the core ended a stream."""

    def receive_upgrade(self, settings: bytes) -> None:
        """Note that an upgrade with this SETTINGS payload opened stream 1."""

    def validate_output(self) -> None:
        """Check our new frames in the outbox; wrong ones are removed from it."""


class _FieldBlock:
    """A field block under assembly."""

    __slots__ = ("dependency", "end_stream", "fragments", "frames", "size", "stream_id")

    def __init__(self, stream_id: int, end_stream: bool, dependency: Dependency | None) -> None:
        self.stream_id = stream_id
        self.end_stream = end_stream
        self.dependency = dependency
        self.fragments: list[bytes] = []
        self.frames: list[bytes] = []
        self.size = 0


class FrameReader:
    """Splits the octets of one connection into frames."""

    __slots__ = (
        "block_deadline",
        "_block",
        "_guard",
        "_header_timeout",
        "_max_frame_size",
        "_preface",
        "_rest",
        "_special",
        "_wanted",
    )

    def __init__(self, max_frame_size: int, header_timeout: float, guard: Guard) -> None:
        self.block_deadline = math.inf
        """When the field block under assembly must be complete; infinite: never."""
        self._max_frame_size = max_frame_size
        self._header_timeout = header_timeout or math.inf
        self._guard = guard
        self._preface: bytes = frames.PREFACE
        """The rest of the client's preface, still to come."""
        self._rest = bytearray()
        """An unfinished frame."""
        self._wanted = frames.FRAME_HEADER_SIZE
        """The length that `_rest` must reach before it can be read."""
        self._special = True
        """Whether only one type of frame is allowed next: at the start, and inside a field block."""
        self._block: _FieldBlock | None = None

    def read(self, data: bytes, sink: FrameSink, referee: Referee | None, now: float) -> None:
        """Pass every frame that `data` completes to the sink. Raises ConnectionFailure.

        A frame beyond SETTINGS_MAX_FRAME_SIZE is a FRAME_SIZE_ERROR before its payload is buffered (section 4.2).
        """
        if self._preface:
            data = self._read_preface(data)
        if self._rest:
            if len(self._rest) + len(data) < self._wanted:
                self._rest += data
                return
            data = b"".join((self._rest, data))
            self._rest.clear()
        position = self._read_frames(data, sink, referee, now)
        if position < len(data):
            self._rest += data[position:]

    def _read_preface(self, data: bytes) -> bytes:
        """Compare with the client's preface (section 3.4); return what follows it."""
        size = min(len(data), len(self._preface))
        if data[:size] != self._preface[:size]:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the client's preface is wrong")
        self._preface = self._preface[size:]
        return data[size:]

    def _read_frames(self, data: bytes, sink: FrameSink, referee: Referee | None, now: float) -> int:
        """Read complete frames; return the position of the unfinished one."""
        unpack_header, max_frame_size = frames.unpack_header, self._max_frame_size
        position, end = 0, len(data)
        while end - position >= 9:
            high, low, kind, flags, stream_id = unpack_header(data, position)
            length = high << 8 | low
            if length > max_frame_size:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"frame of {length} octets")
            start = position + 9
            stop = start + length
            if stop > end:
                self._wanted = 9 + length
                return position
            stream_id &= 0x7FFF_FFFF
            try:
                if self._special:
                    self._check_special(kind, flags, stream_id)
                if kind == frames.HEADERS:
                    if flags & 0x2C == frames.END_HEADERS:
                        sink.receive_headers(stream_id, flags & frames.END_STREAM == 1, data[start:stop], None)
                    else:
                        self._begin_block(flags, stream_id, data[position:stop], now)
                elif kind == frames.DATA:
                    payload = data[start:stop]
                    if flags & frames.PADDED:
                        payload = frames.unpadded(payload, flags)
                    sink.receive_data(stream_id, flags & frames.END_STREAM == 1, payload, length)
                elif kind == frames.CONTINUATION:
                    self._continue_block(data[position:stop])
                else:
                    sink.receive_control_frame(kind, flags, stream_id, data[start:stop])
                if self._block is not None:
                    if flags & frames.END_HEADERS:
                        self._end_block(sink, referee)
                elif referee is not None:
                    referee.receive(data[position:stop])
            except StreamFailure as failure:
                sink.fail_stream(failure)
                if referee is not None:
                    referee.receive_failed(data[position:stop])
            position = stop
        self._wanted = 9
        return position

    def _check_special(self, kind: int, flags: int, stream_id: int) -> None:
        block = self._block
        if block is not None:
            if kind != frames.CONTINUATION or stream_id != block.stream_id:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a frame inside a header block")
        elif kind != frames.SETTINGS or flags & frames.ACK:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        else:
            self._special = False

    # Field blocks in several frames, with padding, or with a priority

    def _begin_block(self, flags: int, stream_id: int, frame: bytes, now: float) -> None:
        fragment = frames.unpadded(frame[frames.FRAME_HEADER_SIZE :], flags)
        dependency = None
        if flags & frames.HAS_PRIORITY:
            if len(fragment) < 5:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            dependency, fragment = frames.parse_dependency(fragment), fragment[5:]
        end_stream = bool(flags & frames.END_STREAM)
        self._block = _FieldBlock(stream_id, end_stream, dependency)
        self.block_deadline = now + self._header_timeout
        self._special = True
        self._collect(self._block, fragment, frame)

    def _continue_block(self, frame: bytes) -> None:
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self._collect(self._block, frame[frames.FRAME_HEADER_SIZE :], frame)

    def _collect(self, block: _FieldBlock, fragment: bytes, frame: bytes) -> None:
        block.size += len(fragment)
        self._guard.charge_field_block(block.size, len(block.fragments))
        block.fragments.append(fragment)
        block.frames.append(frame)

    def _end_block(self, sink: FrameSink, referee: Referee | None) -> None:
        block, self._block, self._special = self._block, None, False
        self.block_deadline = math.inf
        assert block is not None
        sink.receive_headers(block.stream_id, block.end_stream, b"".join(block.fragments), block.dependency)
        if referee is not None:
            referee.receive(b"".join(block.frames))
