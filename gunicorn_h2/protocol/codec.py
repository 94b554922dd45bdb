"""The interface between the core and an HPACK codec (RFC 7541).

The core frames field blocks and validates field sections; a codec converts one to the other. All streams of
a connection share the codec, so it must see every block in wire order (RFC 9113 section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .headers import ResponseHead

__all__ = ["DEFAULT_TABLE_SIZE", "UNLIMITED_LIST_SIZE", "Field", "HeaderCodec", "is_sensitive"]

Field = tuple[bytes, bytes]
"""A header field: (name, value)."""

DEFAULT_TABLE_SIZE = 4096
"""The initial SETTINGS_HEADER_TABLE_SIZE, in octets."""
UNLIMITED_LIST_SIZE = 4_194_304
"""The largest decoded field section, in octets, if no limit is configured."""

_SENSITIVE_NAMES = frozenset((b"authorization", b"proxy-authorization", b"set-cookie"))
_GUESSABLE_COOKIE_SIZE = 20


class HeaderCodec(Protocol):
    """Header compression of one connection: decodes requests, encodes responses."""

    @property
    def changes(self) -> int:
        """The number of changes to the decoder's dynamic table.

        While it stays the same, a block decodes to the same section.
        """

    def decode(self, block: bytes) -> list[Field]:
        """Decode one complete field block.

        Raises ConnectionFailure: COMPRESSION_ERROR for what RFC 7541 calls a decoding error,
        ENHANCE_YOUR_CALM for a section beyond the codec's limit. The codec must not be used afterwards.
        """

    def encode(self, fields: Sequence[Field]) -> bytes:
        """Encode one field section, names in lower case, as one field block."""

    def encode_head(self, head: ResponseHead) -> bytes:
        """Encode a response's `section` as one field block."""

    def set_peer_table_size(self, size: int) -> None:
        """Apply the peer's SETTINGS_HEADER_TABLE_SIZE to the encoder (RFC 7541 section 4.2)."""


def is_sensitive(name: bytes, value: bytes) -> bool:
    """Whether a field must be a never-indexed literal, because its value could be guessed (RFC 7541 section 7.1.3)."""
    return name in _SENSITIVE_NAMES or (name == b"cookie" and len(value) < _GUESSABLE_COOKIE_SIZE)
