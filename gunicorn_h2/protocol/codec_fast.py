"""HPACK in pure Python, made for speed (RFC 7541).

Decoding is one loop over indexes. The static and the dynamic table are one list in which the octet
of an indexed field is the position of the field, so such a field costs one look-up; an insertion
moves the dynamic entries, of which there are at most 128, by one position in C.

Encoding makes no use of the dynamic table. So a field has one encoding, for all connections and at
all times, and one cache serves them all. What that costs on the wire, some fifty octets a response,
buys an encoder without state.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import huffman
from .codec import Field
from .errors import ConnectionFailure, ErrorCode
from .hpack_tables import STATIC_TABLE

__all__ = ["FastCodec"]

_DEFAULT_TABLE_SIZE = 4096
_UNLIMITED_LIST_SIZE = 4_194_304
_FIELD_OVERHEAD = 32

_INDEXED, _INCREMENTAL, _SIZE_UPDATE, _NEVER_INDEXED = 0x80, 0x40, 0x20, 0x10
# Integers of more octets hold nothing but zeros or what is beyond every table and block.
_MAX_CONTINUATIONS = 5
# Where the table's list has the field with the index 0, which is none, and the first dynamic one.
_BASE = 0x80
_DYNAMIC = _BASE + 1 + len(STATIC_TABLE)
_LARGEST_STATIC = max(len(name) + len(value) for name, value in STATIC_TABLE) + _FIELD_OVERHEAD


class FastCodec:
    """A `HeaderCodec` of our own. Its decoder has a table of 4096 octets, the default of SETTINGS_HEADER_TABLE_SIZE."""

    __slots__ = ("_entries", "_largest", "_max_list_size", "_max_size", "_size", "_table_unused", "changes")

    def __init__(self, max_list_size: int) -> None:
        """`max_list_size` counts as SETTINGS_MAX_HEADER_LIST_SIZE does (RFC 9113 section 6.5.2); 0 is 4 MiB."""
        self.changes = 0
        self._max_list_size = max_list_size or _UNLIMITED_LIST_SIZE
        self._entries: list[Field] = [(b"", b"")] * (_BASE + 1) + list(STATIC_TABLE)
        self._size = 0
        self._max_size = _DEFAULT_TABLE_SIZE
        # The largest entry since the table was empty, for an estimate of what a block decodes to.
        self._largest = _LARGEST_STATIC
        self._table_unused: bool | None = None

    # -- decoding ----------------------------------------------------------------------------------

    def decode(self, block: bytes) -> list[Field]:  # noqa: C901  # budget: the loop that every request waits for
        """See `HeaderCodec.decode`."""
        entries = self._entries
        fields: list[Field] = []
        position, end = 0, len(block)
        try:
            while position < end:
                octet = block[position]
                position += 1
                if octet > _INDEXED:
                    if octet == 0xFF:
                        octet, position = _integer(block, position, 0xFF)
                    fields.append(entries[octet])
                    continue
                if octet & 0xE0 == _SIZE_UPDATE:
                    if fields:
                        raise _error("a table size update behind a field")
                    size = octet & 0x1F
                    if size == 0x1F:
                        size, position = _integer(block, position, 0x1F)
                    self._resize(size)
                    continue
                if octet == _INDEXED:
                    raise _error("the index 0")
                index = octet & 0x3F if octet >= _INCREMENTAL else octet & 0x0F
                if index == 0x3F or (index == 0x0F and octet < _INCREMENTAL):
                    index, position = _integer(block, position, index)
                name = entries[_BASE + index][0] if index else None
                while True:
                    length = block[position]
                    position += 1
                    coded = length >= 0x80
                    length &= 0x7F
                    if length == 0x7F:
                        length, position = _integer(block, position, 0x7F)
                    stop = position + length
                    text = block[position:stop]
                    if stop > end:
                        raise _error("a string is cut off")
                    position = stop
                    if coded:
                        text = huffman.decode(text)
                    if name is not None:
                        break
                    name = text
                field = (name, text)
                fields.append(field)
                if octet >= _INCREMENTAL:
                    self._insert(field)
        except IndexError:
            raise _error("an index beyond the table, or a field is cut off") from None
        except ValueError as error:
            raise _error(str(error)) from None
        if len(fields) * self._largest + 2 * end > self._max_list_size:
            self._check_list_size(fields)
        return fields

    def _insert(self, field: Field) -> None:
        """Add an entry to the table, evicting the oldest (RFC 7541 section 4.4)."""
        self.changes += 1
        size = len(field[0]) + len(field[1]) + _FIELD_OVERHEAD
        self._evict(self._max_size - size)
        if size <= self._max_size:
            self._entries.insert(_DYNAMIC, field)
            self._size += size
            self._largest = max(size, self._largest)

    def _resize(self, size: int) -> None:
        """Change the table's maximum size (RFC 7541 section 6.3)."""
        if size > _DEFAULT_TABLE_SIZE:
            raise _error(f"a table of {size} octets")
        self.changes += 1
        self._max_size = size
        self._evict(size)

    def _evict(self, room: int) -> None:
        """Take the oldest entries out until the table has at most `room` octets, or none."""
        entries = self._entries
        while self._size > room and self._size:
            name, value = entries.pop()
            self._size -= len(name) + len(value) + _FIELD_OVERHEAD

    def _check_list_size(self, fields: list[Field]) -> None:
        size = sum([len(name) + len(value) for name, value in fields]) + _FIELD_OVERHEAD * len(fields)
        if size > self._max_list_size:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, f"a header list of {size} octets")

    # -- encoding ----------------------------------------------------------------------------------

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `HeaderCodec.encode`."""
        block = b"".join([_encode_field(name, value) for name, value in fields])
        if self._table_unused is False:
            self._table_unused = True
            return b"\x20" + block
        return block

    def set_peer_table_size(self, size: int) -> None:
        """See `HeaderCodec.set_peer_table_size`.

        An encoder that does not use the table may say so once, with a size of 0, and need not follow
        any later change.
        """
        if size < _DEFAULT_TABLE_SIZE and self._table_unused is None:
            self._table_unused = False


def _error(reason: str) -> ConnectionFailure:
    return ConnectionFailure(ErrorCode.COMPRESSION_ERROR, f"HPACK: {reason}")


def _integer(block: bytes, position: int, prefix: int) -> tuple[int, int]:
    """The value of an integer whose prefix is full, and the position behind it (RFC 7541 section 5.1)."""
    value, shift = prefix, 0
    for octet in block[position : position + _MAX_CONTINUATIONS]:
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise _error("an integer is too long or cut off")


# Static fields with an empty value are names for literals, but as a field of that value they count too.
_STATIC_INDEXES = {field: index for index, field in enumerate(STATIC_TABLE, 1)}
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(STATIC_TABLE, 1)))}
_SENSITIVE = frozenset((b"authorization", b"proxy-authorization", b"set-cookie"))
_SHORT_COOKIE = 20


def _encode_field(name: bytes, value: bytes) -> bytes:
    index = _STATIC_INDEXES.get((name, value))
    if index:
        return bytes((_INDEXED | index,))
    kind = _NEVER_INDEXED if name in _SENSITIVE or (name == b"cookie" and len(value) < _SHORT_COOKIE) else 0
    index = _STATIC_NAMES.get(name)
    head = _encode_integer(index, kind, 0x0F) if index else bytes((kind,)) + _encode_integer(len(name), 0, 0x7F) + name
    return head + _encode_integer(len(value), 0, 0x7F) + value


def _encode_integer(value: int, flags: int, prefix: int) -> bytes:
    """An integer in the low bits of an octet with `flags`, continued behind it (RFC 7541 section 5.1)."""
    if value < prefix:
        return bytes((flags | value,))
    octets = [flags | prefix]
    value -= prefix
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
