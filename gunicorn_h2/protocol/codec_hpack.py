"""The codec on the hpack library: the reference, with an encoder that uses the dynamic table.

Servers repeat their responses, so the block of a section is cached while the encoder's dynamic table does not
change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from .codec import DEFAULT_TABLE_SIZE, UNLIMITED_FIELDS, UNLIMITED_LIST_SIZE, Field, is_sensitive
from .errors import Budget, ConnectionFailure, ErrorCode
from .headers import ResponseHead

__all__ = ["MAX_TABLE_SIZE", "HpackCodec"]

MAX_TABLE_SIZE = 65_536
"""The largest table that is used for responses, in octets; the client's SETTINGS may allow one of 4 GiB."""
_MAX_BLOCKS = 64
_MAX_BLOCK_SIZE = 4096
# Fields whose values seldom repeat would displace useful ones in the dynamic table.
_NOT_INDEXED = frozenset(
    (
        b"age",
        b"content-length",
        b"content-range",
        b"etag",
        b"expires",
        b"last-modified",
        b"location",
        b"x-request-id",
    )
)


class _CountingTable(HeaderTable):
    """A dynamic table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        """See `HeaderTable.add`."""
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        """The maximum size in octets."""
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        """Set the maximum size, which may evict entries."""
        self.changes += 1
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class HpackCodec:
    """A `HeaderCodec` on the hpack library."""

    largest_entry = DEFAULT_TABLE_SIZE
    """See `HeaderCodec.largest_entry`."""

    def __init__(
        self, max_list_size: int, max_fields: int = UNLIMITED_FIELDS, max_table_size: int = DEFAULT_TABLE_SIZE
    ) -> None:
        """`max_list_size` counts as SETTINGS_MAX_HEADER_LIST_SIZE does (RFC 9113 section 6.5.2); 0 is 4 MiB.

        `max_table_size` is the SETTINGS_HEADER_TABLE_SIZE that the decoder allows.
        """
        self._decoder = Decoder(max_list_size or UNLIMITED_LIST_SIZE)
        self._decoder.max_allowed_table_size = max_table_size
        self._max_fields = max_fields
        self._decoder_table = self._decoder.header_table = _CountingTable()
        self._encoder = Encoder()
        self._encoder_table = self._encoder.header_table = _CountingTable()
        self._blocks: dict[tuple[Field, ...], bytes] = {}
        self._blocks_changes = 0

    @property
    def changes(self) -> int:
        """See `HeaderCodec.changes`."""
        return self._decoder_table.changes

    def decode(self, block: bytes) -> list[Field]:
        """See `HeaderCodec.decode`."""
        try:
            fields = cast("list[Field]", self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.HEADER_LIST_TOO_LARGE) from error
        except HPACKError as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, f"hpack: {error}") from error
        del fields[self._max_fields + 1 :]
        return fields

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `HeaderCodec.encode`."""
        section = tuple(fields)
        table = self._encoder_table
        if table.resized:
            return self._encode(section)
        if self._blocks_changes != table.changes:
            self._blocks.clear()
            self._blocks_changes = table.changes
        block = self._blocks.get(section)
        if block is None:
            block = self._encode(section)
            if len(block) <= _MAX_BLOCK_SIZE:
                if len(self._blocks) >= _MAX_BLOCKS:
                    self._blocks.clear()
                self._blocks[section] = block
        return block

    def encode_head(self, head: ResponseHead) -> bytes:
        """See `HeaderCodec.encode_head`."""
        return self.encode(head.section)

    def _encode(self, section: tuple[Field, ...]) -> bytes:
        return self._encoder.encode(
            [(name, value, name in _NOT_INDEXED or is_sensitive(name, value)) for name, value in section]
        )

    def set_peer_table_size(self, size: int) -> None:
        """See `HeaderCodec.set_peer_table_size`.

        The next block announces the smallest and the last size since the previous block (section 4.2). hpack
        itself would announce all of them, or none if the last one is set twice.
        """
        table, encoder = self._encoder_table, self._encoder
        size = min(size, MAX_TABLE_SIZE)
        if size == table.maxsize and not encoder.table_size_changes:
            return
        smallest = min([size, *encoder.table_size_changes])
        encoder.table_size_changes = [smallest, size] if smallest < size else [size]
        table.maxsize = size
        table.resized = True
