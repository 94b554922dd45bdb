"""HPACK in pure Python, made for speed (RFC 7541).

Decoding is one loop over indexes. The static and the dynamic table are one list, in which the octet of an
indexed field is the position of the field, so that a run of indexed fields costs one look-up each. An insertion
moves the dynamic entries by one position: 127 pointers at most, moved in C.

Encoding does not use the dynamic table. So a field has the same encoding on every connection at any time, and
one cache serves all of them, for some fifty octets more a response. Strings are not Huffman-coded: that would
save a fifth of a typical response's head, sixteen octets of some eighty, for about a microsecond a new value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from . import huffman
from .codec import DEFAULT_TABLE_SIZE, UNLIMITED_FIELDS, UNLIMITED_LIST_SIZE, Field, is_sensitive
from .errors import Budget, ConnectionFailure, ErrorCode
from .headers import ResponseHead
from .hpack_tables import STATIC_TABLE

__all__ = ["FastCodec"]

_FIELD_OVERHEAD = 32

# The first octet of a representation (section 6) ...
_INDEXED, _INCREMENTAL, _SIZE_UPDATE, _NEVER_INDEXED = 0x80, 0x40, 0x20, 0x10
# ... and the bits of it that hold an integer, or all ones where the integer goes on.
_INDEX_BITS, _INCREMENTAL_BITS, _SIZE_BITS, _NAME_BITS, _LENGTH_BITS = 0x7F, 0x3F, 0x1F, 0x0F, 0x7F
_HUFFMAN = 0x80
# 2**35 is far beyond any index or length; an integer of more octets can only be padded with zeros.
_MAX_CONTINUATIONS = 5

# A field's position in the list of entries is its index plus this; positions below are never looked up.
_BASE = _INDEXED
_FIRST_DYNAMIC = _BASE + 1 + len(STATIC_TABLE)
_NO_FIELD: Field = (b"", b"")
_STATIC_ENTRIES: list[Field] = [_NO_FIELD] * (_BASE + 1) + list(STATIC_TABLE)
_LARGEST_STATIC = max(len(name) + len(value) + _FIELD_OVERHEAD for name, value in STATIC_TABLE)
# The number of octets copied at a time to look for indexed fields: without a limit, each literal would copy
# the rest of the block.
_RUN = 64
_INDEXED_RUN = re.compile(rb"[\x81-\xfe]+").match
_OCTETS = bytes(range(256))

# Fields whose values belong to one client, and must not enter a shared cache.
_PRIVATE = frozenset((b"authorization", b"cookie", b"proxy-authorization"))

_MAX_TEXTS = 512
_MAX_CODED_SIZE = 96
_MAX_FIELDS = 1024
_MAX_SECTIONS = 512
_MAX_FIELD_SIZE = 256
_MAX_SECTION_SIZE = 1024

# Strings by their Huffman code, encodings by field and by section, shared by all connections. A full cache is
# cleared, which bounds its memory at no cost per look-up.
# Only strings of fields that enter the dynamic table are kept: others, such as paths, are not expected again, and
# would displace those that many clients send.
_texts: dict[bytes, bytes] = {}
_fields: dict[Field, bytes] = {}
_sections: dict[tuple[Field, ...], bytes] = {}


class FastCodec:
    """A `HeaderCodec` without dependencies. Its decoder keeps to the default SETTINGS_HEADER_TABLE_SIZE."""

    __slots__ = (
        "changes",
        "largest_entry",
        "_entries",
        "_max_fields",
        "_max_list_size",
        "_max_size",
        "_must_resize",
        "_size",
    )

    def __init__(self, max_list_size: int, max_fields: int = UNLIMITED_FIELDS) -> None:
        """`max_list_size` counts as SETTINGS_MAX_HEADER_LIST_SIZE does (RFC 9113 section 6.5.2); 0 is 4 MiB."""
        self.changes = 0
        """See `HeaderCodec.changes`."""
        self._max_list_size = max_list_size or UNLIMITED_LIST_SIZE
        self._max_fields = max_fields
        self._entries = _STATIC_ENTRIES.copy()
        self._size = 0
        self._max_size = DEFAULT_TABLE_SIZE
        self.largest_entry = _LARGEST_STATIC
        """The largest entry so far, in octets; see `HeaderCodec.largest_entry`."""
        # Whether the next block must begin with a size update; None until the peer has required one.
        self._must_resize: bool | None = None

    # -- decoding --------------------------------------------------------------------------------------

    def decode(self, block: bytes) -> list[Field]:  # noqa: C901  # budget: the loop of every request, in line
        """See `HeaderCodec.decode`."""
        entries, max_fields = self._entries, self._max_fields
        fields: list[Field] = []
        # The position of the run, less the number of fields before it; plus len(fields), that of the next octet.
        origin, end = 0, len(block)
        run = block if end <= max_fields else block[:_RUN]
        try:
            while True:
                for octet in run:
                    if octet <= _INDEXED or octet == 0xFF:
                        break
                    fields.append(entries[octet])
                else:
                    position = origin + len(fields)
                    if len(fields) > max_fields:
                        self._skip(block, position, fields)
                        break
                    if position == end:
                        break
                    run = block[position : position + _RUN]
                    continue
                position = origin + len(fields) + 1
                if octet >= _INDEXED:
                    index, position = _integer(block, position, octet, _INDEX_BITS)
                    if not index:
                        raise _error("the index 0")
                    fields.append(entries[_BASE + index])
                elif octet & 0xE0 == _SIZE_UPDATE:
                    position = self._update_size(block, position, octet, bool(fields))
                else:
                    prefix = _INCREMENTAL_BITS if octet >= _INCREMENTAL else _NAME_BITS
                    index = octet & prefix
                    if index == prefix:
                        index, position = _integer(block, position, octet, prefix)
                    name = entries[_BASE + index][0] if index else None
                    while True:
                        length = block[position]
                        position += 1
                        coded = length >= _HUFFMAN
                        length &= _LENGTH_BITS
                        if length == _LENGTH_BITS:
                            length, position = _integer(block, position, length, _LENGTH_BITS)
                        stop = position + length
                        if stop > end:
                            raise _error("a string is cut off")
                        text = block[position:stop]
                        position = stop
                        if coded:
                            if octet >= _INCREMENTAL:
                                text = _texts.get(text) or _decode_text(text, name)
                            else:
                                text = huffman.decode(text)
                        if name is not None:
                            break
                        name = text
                    field = (name, text)
                    fields.append(field)
                    if octet >= _INCREMENTAL:
                        self._insert(field)
                if len(fields) > max_fields:
                    self._skip(block, position, fields)
                    break
                origin = position - len(fields)
                run = block[position : position + _RUN]
        except IndexError:
            raise _error("an index beyond the table, or a field is cut off") from None
        except ValueError as error:
            raise _error(str(error)) from None
        if len(fields) * self.largest_entry + 2 * end > self._max_list_size:
            self._check_list_size(fields)
        return fields

    def _skip(self, block: bytes, position: int, fields: list[Field]) -> None:
        """Cut `fields` to the limit and one more, and apply the rest of the block to the dynamic table.

        Strings that do not enter the table are not decoded, so that errors in them go unnoticed.
        """
        del fields[self._max_fields + 1 :]
        entries, end = self._entries, len(block)
        while position < end:
            octet = block[position]
            if octet > _INDEXED:
                position = self._skip_indexed(block, position)
            elif octet == _INDEXED:
                raise _error("the index 0")
            elif octet >= _INCREMENTAL:
                position = self._skip_inserted(block, position)
            elif octet >= _SIZE_UPDATE:
                raise _error("a table size update behind a field")
            else:
                index = octet & _NAME_BITS
                position += 1
                if index == _NAME_BITS:
                    index, position = _integer(block, position, octet, _NAME_BITS)
                if index:
                    entries[_BASE + index]
                else:
                    position = _after_string(block, position)
                position = _after_string(block, position)
        if position > end:
            raise _error("a string is cut off")

    def _skip_indexed(self, block: bytes, position: int) -> int:
        """Check a run of indexed fields; return the position after it. Raises IndexError for one beyond the table."""
        entries = self._entries
        if block[position] == 0xFF:
            index, position = _integer(block, position + 1, 0xFF, _INDEX_BITS)
            entries[_BASE + index]
            return position
        run = _INDEXED_RUN(block, position)
        assert run is not None
        if run[0].translate(None, _OCTETS[: len(entries)]):
            raise IndexError
        return run.end()

    def _skip_inserted(self, block: bytes, position: int) -> int:
        """Insert a literal into the dynamic table; return the position after it."""
        index = block[position] & _INCREMENTAL_BITS
        position += 1
        if index == _INCREMENTAL_BITS:
            index, position = _integer(block, position, index, _INCREMENTAL_BITS)
        name = self._entries[_BASE + index][0] if index else None
        if name is None:
            name, position = _string(block, position)
        value, position = _string(block, position)
        self._insert((name, value))
        return position

    def _update_size(self, block: bytes, position: int, octet: int, late: bool) -> int:
        """Change the table's maximum size (section 6.3); return the position after the update."""
        size, position = _integer(block, position, octet, _SIZE_BITS)
        if late:
            raise _error("a table size update behind a field")
        if size > DEFAULT_TABLE_SIZE:
            raise _error(f"a table of {size} octets")
        self.changes += 1
        self._max_size = size
        self._evict(size)
        return position

    def _insert(self, field: Field) -> None:
        """Add an entry; one that is larger than the table leaves it empty (section 4.4)."""
        self.changes += 1
        size = len(field[0]) + len(field[1]) + _FIELD_OVERHEAD
        if self._size + size > self._max_size:
            self._evict(self._max_size - size)
            if size > self._max_size:
                return
        self._entries.insert(_FIRST_DYNAMIC, field)
        self._size += size
        if size > self.largest_entry:
            self.largest_entry = size

    def _evict(self, size: int) -> None:
        """Drop the oldest entries until the table has at most `size` octets, or is empty."""
        entries, left = self._entries, self._size
        while left > size and left:
            name, value = entries.pop()
            left -= len(name) + len(value) + _FIELD_OVERHEAD
        self._size = left

    def _check_list_size(self, fields: list[Field]) -> None:
        size = sum([len(name) + len(value) for name, value in fields]) + _FIELD_OVERHEAD * len(fields)
        if size > self._max_list_size:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, Budget.HEADER_LIST_TOO_LARGE)

    # -- encoding --------------------------------------------------------------------------------------

    def encode(self, fields: Sequence[Field]) -> bytes:
        """See `HeaderCodec.encode`."""
        section = tuple(fields)
        block = _sections.get(section)
        if block is None:
            block = _encode_section(section)
        if self._must_resize:
            self._must_resize = False
            return _EMPTY_TABLE + block
        return block

    def encode_head(self, head: ResponseHead) -> bytes:
        """See `HeaderCodec.encode_head`; the head keeps its block, which is the same on every connection."""
        if self._must_resize:
            return self.encode(head.section)
        block = head.block
        if block is None:
            head.block = block = self.encode(head.section)
        return block

    def set_peer_table_size(self, size: int) -> None:
        """See `HeaderCodec.set_peer_table_size`.

        A size below the default requires an update in the next block (section 4.2). Ours sets it to 0, which
        no later setting can lower.
        """
        if size < DEFAULT_TABLE_SIZE and self._must_resize is None:
            self._must_resize = True


def _error(reason: str) -> ConnectionFailure:
    return ConnectionFailure(ErrorCode.COMPRESSION_ERROR, f"HPACK: {reason}")


def _integer(block: bytes, position: int, octet: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of `bits` bits in `octet`, and the position after it (section 5.1)."""
    value, shift = octet & bits, 0
    if value < bits:
        return value, position
    for octet in block[position : position + _MAX_CONTINUATIONS]:
        position += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, position
        shift += 7
    raise _error("an integer is too long or cut off")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    """Decode a string (section 5.2); return it and the position after it."""
    octet = block[position]
    length = octet & _LENGTH_BITS
    position += 1
    if length == _LENGTH_BITS:
        length, position = _integer(block, position, length, _LENGTH_BITS)
    stop = position + length
    if stop > len(block):
        raise _error("a string is cut off")
    text = block[position:stop]
    return huffman.decode(text) if octet >= _HUFFMAN else text, stop


def _after_string(block: bytes, position: int) -> int:
    """The position after a string, which may be beyond the end of the block."""
    length = block[position] & _LENGTH_BITS
    position += 1
    if length == _LENGTH_BITS:
        length, position = _integer(block, position, length, _LENGTH_BITS)
    return position + length


def _decode_text(code: bytes, name: bytes | None) -> bytes:
    """Decode a string that is not cached, and cache it unless it is long or a private value."""
    text = huffman.decode(code)
    if len(code) <= _MAX_CODED_SIZE and name not in _PRIVATE:
        _keep(_texts, _MAX_TEXTS, code, text)
    return text


_Key = TypeVar("_Key")


def _keep(cache: dict[_Key, bytes], limit: int, key: _Key, value: bytes) -> None:
    if len(cache) >= limit:
        cache.clear()
    cache[key] = value


def _encode_section(section: tuple[Field, ...]) -> bytes:
    """Encode a section that is not cached, and cache it if all of its fields were: new ones may never come again."""
    pieces = []
    known = True
    for field in section:
        piece = _fields.get(field)
        if piece is None:
            piece = _encode_field(*field)
            known = False
        pieces.append(piece)
    block = b"".join(pieces)
    if known and len(block) <= _MAX_SECTION_SIZE:
        _keep(_sections, _MAX_SECTIONS, section, block)
    return block


def _encode_field(name: bytes, value: bytes) -> bytes:
    """Encode a field that is not cached, and cache it unless it is large or sensitive (section 7.1.3)."""
    index = _STATIC_INDEXES.get((name, value))
    if index:
        encoded = bytes((_INDEXED | index,))
    else:
        head = _STATIC_NAMES.get(name) or b"\0" + _encode_text(name)
        if is_sensitive(name, value):
            return bytes((head[0] | _NEVER_INDEXED,)) + head[1:] + _encode_text(value)
        encoded = head + _encode_text(value)
    if len(encoded) <= _MAX_FIELD_SIZE:
        _keep(_fields, _MAX_FIELDS, (name, value), encoded)
    return encoded


def _encode_text(text: bytes) -> bytes:
    return _encode_integer(len(text), _LENGTH_BITS) + text


def _encode_integer(value: int, bits: int) -> bytes:
    """Encode an integer with a prefix of `bits` bits (section 5.1)."""
    if value < bits:
        return bytes((value,))
    octets = [bits]
    value -= bits
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


_EMPTY_TABLE = bytes((_SIZE_UPDATE,))
_STATIC_INDEXES = {field: index for index, field in enumerate(STATIC_TABLE, 1)}
# How a literal with an indexed name begins, by name: with the lowest static index that has it.
_STATIC_NAMES = {
    name: _encode_integer(index, _NAME_BITS) for index, (name, _) in reversed([*enumerate(STATIC_TABLE, 1)])
}
