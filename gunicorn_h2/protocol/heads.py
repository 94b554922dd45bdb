"""A cache of request heads, by field block and by all fields but the path.

Clients repeat their requests. While the codec's dynamic table does not change, a block decodes to the same
section, so one look-up replaces decoding and validation. If only the path differs, only the path is validated.
"""

from __future__ import annotations

from typing import ClassVar

from .codec import Field, HeaderCodec
from .headers import Fields, RequestHead, parse_request

__all__ = ["HeadCache"]

_MAX_HEADS = 128
# A head takes some 4 KiB with what is derived from it. Beyond 64 MiB in total, each connection keeps a few.
_MAX_TOTAL_HEADS = 16_384
_FEW_HEADS = 4
_MAX_OCTETS = 16_384
_MAX_BLOCK_SIZE = 2048
# A full cache is cleared when this many heads have found no room: its entries are out of use by then.
_MAX_PASSED_OVER = 512
_MAX_SIBLINGS = 8
_MAX_SIBLING_SIZE = 2048
_ANY_PATH = (b":path", b"")


class HeadCache:
    """The heads of one connection's requests, bounded in number and in octets; to be closed with the connection."""

    total: ClassVar[int] = 0
    """The number of heads in the caches of all connections."""

    __slots__ = ("known", "_changes", "_codec", "_octets", "_passed_over", "_siblings", "_stable")

    def __init__(self, codec: HeaderCodec) -> None:
        self.known: dict[bytes, RequestHead] = {}
        """The heads that need no decoding or validation, by field block."""
        self._siblings: dict[tuple[Field, ...], RequestHead] = {}
        self._codec = codec
        self._changes = codec.changes
        self._octets = 0
        self._passed_over = 0
        self._stable = True

    def decode(self, block: bytes) -> Fields:
        """Decode any field block of the connection. Raises ConnectionFailure as `HeaderCodec.decode` does."""
        fields = self._codec.decode(block)
        self._stable = self._codec.changes == self._changes
        if not self._stable:
            self._clear()
        return fields

    def decode_head(self, block: bytes) -> RequestHead:
        """Decode a request's block that is not in `known`. Raises MalformedRequest, and as `decode` does."""
        section = self.decode(block)
        for index in range(len(section)):
            if section[index][0] == b":path":
                break
        else:
            return parse_request(section)
        field, section[index] = section[index], _ANY_PATH
        others = tuple(section)
        section[index] = field
        sibling = self._siblings.get(others)
        head = None if sibling is None else sibling.for_path(field[1])
        if head is None:
            head = parse_request(section)
            self._keep_sibling(others, head)
        return head

    def _keep_sibling(self, others: tuple[Field, ...], head: RequestHead) -> None:
        if head.list_size > _MAX_SIBLING_SIZE or HeadCache.total >= _MAX_TOTAL_HEADS:
            return
        if len(self._siblings) >= _MAX_SIBLINGS:
            self._clear_siblings()
        if others not in self._siblings:
            HeadCache.total += 1
        self._siblings[others] = head

    def keep(self, block: bytes, head: RequestHead) -> None:
        """Keep the head of the block that was decoded last, unless decoding it changed the table."""
        if not self._stable or len(block) > _MAX_BLOCK_SIZE:
            return
        limit = _MAX_HEADS if HeadCache.total < _MAX_TOTAL_HEADS else _FEW_HEADS
        if len(self.known) >= limit or self._octets + len(block) > _MAX_OCTETS:
            self._passed_over += 1
            if self._passed_over < _MAX_PASSED_OVER:
                return
            self._clear()
        self.known[block] = head
        HeadCache.total += 1
        self._octets += len(block)

    def close(self) -> None:
        """Forget all heads."""
        self._clear()
        self._clear_siblings()

    def _clear(self) -> None:
        HeadCache.total -= len(self.known)
        self.known.clear()
        self._octets = self._passed_over = 0
        self._changes = self._codec.changes

    def _clear_siblings(self) -> None:
        HeadCache.total -= len(self._siblings)
        self._siblings.clear()
