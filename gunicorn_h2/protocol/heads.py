"""Request heads by the header block that they came in.

Clients repeat their requests. While the codec's dynamic table stands still, a block decodes to what it
decoded to before, so one look-up replaces decoding and validation.
"""

from __future__ import annotations

from typing import ClassVar

from .codec import HeaderCodec
from .headers import Fields, RequestHead, parse_request

__all__ = ["HeadCache"]

_MAX_HEADS = 128
# With what is derived from it a head takes some 4 KiB. Beyond 64 MiB of them, a connection keeps but a few.
_MAX_TOTAL_HEADS = 16_384
_FEW_HEADS = 4
_MAX_OCTETS = 16_384
_MAX_BLOCK_SIZE = 2048


class HeadCache:
    """The heads of one connection's requests; bounded in number and in octets of blocks.

    `total` counts the heads of all connections. A cache is to be cleared when its connection is over.
    """

    total: ClassVar[int] = 0

    __slots__ = ("known", "_changes", "_codec", "_octets", "_stable")

    def __init__(self, codec: HeaderCodec) -> None:
        self.known: dict[bytes, RequestHead] = {}
        """The heads that may be used without another look."""
        self._codec = codec
        self._changes = codec.changes
        self._octets = 0
        self._stable = True

    def decode(self, block: bytes) -> Fields:
        """Decode any block of the connection's. Raises the codec's ConnectionFailure."""
        fields = self._codec.decode(block)
        self._stable = self._codec.changes == self._changes
        if not self._stable:
            self.clear()
        return fields

    def decode_head(self, block: bytes) -> RequestHead:
        """Decode a request's block that is not known. Raises MalformedRequest, and as `decode`."""
        return parse_request(self.decode(block))

    def keep(self, block: bytes, head: RequestHead) -> None:
        """Keep the head of the block that was decoded last, unless decoding it changed the table."""
        if not self._stable or len(block) > _MAX_BLOCK_SIZE:
            return
        limit = _MAX_HEADS if HeadCache.total < _MAX_TOTAL_HEADS else _FEW_HEADS
        if len(self.known) >= limit or self._octets + len(block) > _MAX_OCTETS:
            self.clear()
        self.known[block] = head
        HeadCache.total += 1
        self._octets += len(block)

    def clear(self) -> None:
        """Forget all heads."""
        HeadCache.total -= len(self.known)
        self.known.clear()
        self._octets = 0
        self._changes = self._codec.changes
