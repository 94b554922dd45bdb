"""The reference engine, on the h2 library.

The core validates fields itself, so h2's own validation is off. h2 would send a SETTINGS frame with
its defaults and count streams, windows and content-length in its own way (no body may end while its
window is below zero, say); the core sends the one SETTINGS frame and counts. So of a request h2 hears
the beginning and the end, never its fields or its data.

HPACK costs the h2 library more than all the rest. Clients repeat their requests and servers their
responses, so both coders remember blocks for as long as the dynamic table stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import DenialOfServiceError
from h2.exceptions import ProtocolError as H2ProtocolError
from h2.settings import Settings
from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from . import frames
from .errors import ConnectionFailure, ErrorCode
from .headers import Fields

__all__ = ["H2Engine"]

# Beyond this factor of the advertised list size a section is not even decoded to answer 431.
_OVERSIZE_FACTOR = 4
_UNLIMITED_LIST_SIZE = 4_194_304
_FLAGS_POSITION = 4
# The client's SETTINGS could have us keep a table of 4 GiB.
_MAX_TABLE_SIZE = 65_536
_CACHED_BLOCKS = 64
_CACHED_BLOCK_SIZE = 4096
# Fields whose values seldom repeat would only push useful ones out of the dynamic table.
_NOT_INDEXED = frozenset(
    (
        b"age",
        b"content-length",
        b"content-range",
        b"etag",
        b"expires",
        b"last-modified",
        b"location",
        b"set-cookie",
        b"x-request-id",
    )
)


class _CountingTable(HeaderTable):
    """A dynamic table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class _BlockCache:
    """What blocks or sections were turned into while the table was as it is now."""

    def __init__(self, table: _CountingTable) -> None:
        self._table = table
        self._changes = 0
        self._entries: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        if self._changes != self._table.changes:
            self._entries.clear()
            self._changes = self._table.changes
        return self._entries.get(key)

    def put(self, key: Any, value: Any) -> None:
        """Keep a result, unless making it changed the table."""
        if self._changes == self._table.changes:
            if len(self._entries) >= _CACHED_BLOCKS:
                self._entries.clear()
            self._entries[key] = value


class _CachingDecoder(Decoder):
    def __init__(self, max_header_list_size: int) -> None:
        super().__init__(max_header_list_size)
        table = _CountingTable()
        self.header_table = table
        self._cache = _BlockCache(table)

    def decode_block(self, block: bytes) -> Fields:
        """Decode a block, or remember what it was decoded to."""
        section = self._cache.get(block)
        if section is None:
            section = super().decode(block, raw=True)
            if len(block) <= _CACHED_BLOCK_SIZE:
                self._cache.put(block, section)
        return cast("Fields", section)

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        """What h2 calls for the empty blocks of `H2Engine.receive_headers`."""
        return ()


class _CachingEncoder(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self._table = _CountingTable()
        self.header_table = self._table
        self._cache = _BlockCache(self._table)

    @Encoder.header_table_size.setter  # type: ignore[attr-defined,untyped-decorator]
    def header_table_size(self, size: int) -> None:
        """Follow the peer's setting: a block announces the smallest and the last size since the one before.

        RFC 7541 section 4.2; hpack announces all of them, or, where the last one comes twice, none.
        """
        size = min(size, _MAX_TABLE_SIZE)
        if size == self._table.maxsize and not self.table_size_changes:
            return
        smallest = min([size, *self.table_size_changes])
        self.table_size_changes = [smallest, size] if smallest < size else [size]
        self._table.maxsize = size
        self._table.resized = True

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        key = tuple(headers)
        announces_size = self._table.resized
        block = None if announces_size else self._cache.get(key)
        if block is None:
            block = super().encode([(name, value, name in _NOT_INDEXED) for name, value in key], huffman)
            if len(block) <= _CACHED_BLOCK_SIZE and not announces_size:
                self._cache.put(key, block)
        return cast("bytes", block)


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn what h2 raises into the one error the core knows, with the code of RFC 9113."""
    try:
        yield
    except (H2ProtocolError, HPACKError) as error:
        raise ConnectionFailure(_error_code(error), f"h2: {error}") from error


def _error_code(error: Exception) -> ErrorCode:
    if isinstance(error, (DenialOfServiceError, OversizedHeaderListError)):
        return ErrorCode.ENHANCE_YOUR_CALM
    if isinstance(error, HPACKError) or isinstance(error.__cause__, HPACKError):
        return ErrorCode.COMPRESSION_ERROR
    return ErrorCode(int(cast("H2ProtocolError", error).error_code))


class _Connection(H2Connection):
    # The core judges frames of closed streams, so h2 need not remember 65 536 of them.
    MAX_CLOSED_STREAMS = 128


class H2Engine:
    """An `Engine` over `h2.connection.H2Connection`."""

    def __init__(self, max_header_list_size: int) -> None:
        """A list size of 0 is no limit."""
        self._connection = connection = _Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        # Without a limit on streams: the core answers REFUSED_STREAM, h2 would end the connection.
        connection.local_settings = Settings(client=False)
        self._decoder = _CachingDecoder(max_header_list_size * _OVERSIZE_FACTOR or _UNLIMITED_LIST_SIZE)
        connection.decoder = self._decoder
        connection.encoder = _CachingEncoder()
        connection.initiate_connection()
        connection.clear_outbound_data_buffer()
        connection.receive_data(frames.PREFACE)

    def receive_frame(self, frame: bytes) -> bytes:
        """See `Engine.receive_frame`."""
        if frame[3] == frames.DATA:
            if not frame[4] & frames.END_STREAM:
                return b""
            frame = b"\0\0\0\0\1" + frame[5 : frames.FRAME_HEADER_SIZE]
        with _peer_errors():
            self._connection.receive_data(frame)
        return self._connection.data_to_send()

    def decode_headers(self, block: bytes) -> Fields:
        """See `Engine.decode_headers`."""
        with _peer_errors():
            return self._decoder.decode_block(block)

    def receive_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> None:
        """See `Engine.receive_headers`."""
        flags = frames.END_HEADERS | (frames.END_STREAM if end_stream else 0)
        with _peer_errors():
            self._connection.receive_data(frames.frame(frames.HEADERS, flags, stream_id, b""))

    def send_headers(self, stream_id: int, fields: Fields, end_stream: bool) -> bytes:
        """See `Engine.send_headers`."""
        return self._send(self._connection.send_headers, stream_id, fields, end_stream)

    def send_response(self, stream_id: int, fields: Fields, data: bytes | memoryview) -> bytes:
        """See `Engine.send_response`.

        h2 takes a quarter of its time for a response's one DATA frame. So h2 is told that the head
        ends the stream, which leaves it in the same state, and the flag moves to our own frame.
        """
        head = bytearray(self.send_headers(stream_id, fields, True))
        head[_FLAGS_POSITION] &= ~frames.END_STREAM
        self._connection.outbound_flow_control_window -= len(data)
        return bytes(head) + frames.frame(frames.DATA, frames.END_STREAM, stream_id, data)

    def send_data(self, stream_id: int, data: bytes | memoryview, end_stream: bool) -> bytes:
        """See `Engine.send_data`."""
        return self._send(self._connection.send_data, stream_id, data, end_stream)

    def send_reset(self, stream_id: int, code: ErrorCode) -> bytes:
        """See `Engine.send_reset`."""
        return self._send(self._connection.reset_stream, stream_id, code)

    def send_window_update(self, stream_id: int, increment: int) -> bytes:
        """See `Engine.send_window_update`."""
        return frames.window_update(stream_id, increment)

    def _send(self, call: Callable[..., None], *arguments: Any) -> bytes:
        call(*arguments)
        return self._connection.data_to_send()
