"""A cache of request heads, by field block and by all fields but the path.

Clients repeat their requests. While the codec's dynamic table does not change, a block decodes to the same
section, so one look-up replaces decoding and validation. If only the path differs, only the path is decoded and
validated.
"""

from __future__ import annotations

import re
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
_MAX_REST_SIZE = 512
# The path as most clients send it: indexed fields of one octet, then a literal that does not enter the table
# (RFC 7541 sections 6.1, 6.2.2, 6.2.3), its name at the static indexes 4 or 5, its length in one octet.
_PATH_LITERAL = re.compile(rb"[\x81-\xfe]*([\x04\x05\x14\x15][\x00-\x7e\x80-\xfe])").match
# No octet of an indexed field, so it shows where the path was.
_CUT = b"\x04"


class HeadCache:
    """The heads of one connection's requests, bounded in number and in octets; to be closed with the connection."""

    total: ClassVar[int] = 0
    """The number of heads in the caches of all connections."""

    __slots__ = ("known", "_changes", "_codec", "_octets", "_passed_over", "_rest", "_rests", "_siblings", "_stable")

    def __init__(self, codec: HeaderCodec) -> None:
        self.known: dict[bytes, RequestHead] = {}
        """The heads that need no decoding or validation, by field block."""
        self._siblings: dict[tuple[Field, ...], RequestHead] = {}
        # Siblings by what their blocks have beside the path, while the table does not change.
        self._rests: dict[bytes, RequestHead] = {}
        # What the block that `find` looked at last has beside the path; empty if that is not known.
        self._rest = b""
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
            self._rests.clear()
            self._clear()
        return fields

    def find(self, block: bytes) -> RequestHead | None:
        """Return the head of a block that differs from an earlier one in its path only; None for any other block.

        Of a block that is not in `known`. Raises ConnectionFailure as `HeaderCodec.decode` does.
        """
        self._rest = b""
        found = _PATH_LITERAL(block)
        if found is None:
            return None
        start, length = found.start(1), found.end()
        stop = length + (block[length - 1] & 0x7F)
        self._rest = rest = block[:start] + _CUT + block[stop:]
        sibling = self._rests.get(rest)
        if sibling is None:
            return None
        # A literal that does not enter the table is a block of its own.
        ((_, path),) = self._codec.decode(block[start:stop])
        return sibling.for_path(path)

    def parse(self, section: Fields) -> RequestHead:
        """Parse the section of the block that was decoded last, and for which `find` found nothing.

        Raises MalformedRequest.
        """
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
        if self._stable and 0 < len(self._rest) <= _MAX_REST_SIZE and others in self._siblings:
            self._keep_rest(self._rest, self._siblings[others])
        return head

    def _keep_sibling(self, others: tuple[Field, ...], head: RequestHead) -> None:
        if head.list_size > _MAX_SIBLING_SIZE or HeadCache.total >= _MAX_TOTAL_HEADS:
            return
        if len(self._siblings) >= _MAX_SIBLINGS:
            self._clear_siblings()
        if others not in self._siblings:
            HeadCache.total += 1
        self._siblings[others] = head

    def _keep_rest(self, rest: bytes, sibling: RequestHead) -> None:
        if len(self._rests) >= _MAX_SIBLINGS:
            self._rests.clear()
        self._rests[rest] = sibling

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
        self._rests.clear()
