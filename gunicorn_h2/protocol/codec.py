"""The seam of header compression: what the core asks of an HPACK codec (RFC 7541).

The core frames field blocks and validates field sections; a codec only turns one into the other. It
does no I/O, and it is shared by all streams of a connection, so every block must pass through it in
the order of the wire (RFC 9113 section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .headers import ResponseHead

__all__ = ["DEFAULT_TABLE_SIZE", "UNLIMITED_LIST_SIZE", "Field", "HeaderCodec", "is_sensitive"]

Field = tuple[bytes, bytes]
"""A header field: its name and its value."""

DEFAULT_TABLE_SIZE = 4096
"""SETTINGS_HEADER_TABLE_SIZE while a peer has not sent it, in octets."""
UNLIMITED_LIST_SIZE = 4_194_304
"""Where no limit is configured: the size of a field section, in octets, that no client needs."""

_SENSITIVE_NAMES = frozenset((b"authorization", b"proxy-authorization", b"set-cookie"))
_GUESSABLE_COOKIE_SIZE = 20


class HeaderCodec(Protocol):
    """Header compression of one connection: decodes requests, encodes responses."""

    @property
    def changes(self) -> int:
        """Counts the changes of the decoder's dynamic table: insertions, evictions, size updates.

        While it stands still, a block decodes to what it decoded to before.
        """

    def decode(self, block: bytes) -> list[Field]:
        """Decode one whole field block.

        Raises ConnectionFailure: COMPRESSION_ERROR for what RFC 7541 calls a decoding error,
        ENHANCE_YOUR_CALM for a section beyond the codec's limit. The codec is of no use afterwards.
        """

    def encode(self, fields: Sequence[Field]) -> bytes:
        """Encode one field section, its names in lower case, as one field block."""

    def encode_head(self, head: ResponseHead) -> bytes:
        """Encode a response's head as one field block."""

    def set_peer_table_size(self, size: int) -> None:
        """Take note of the peer's SETTINGS_HEADER_TABLE_SIZE (RFC 7541 section 4.2)."""


def is_sensitive(name: bytes, value: bytes) -> bool:
    """Whether a field is to be a never-indexed literal: its value is worth guessing (RFC 7541 section 7.1.3)."""
    return name in _SENSITIVE_NAMES or (name == b"cookie" and len(value) < _GUESSABLE_COOKIE_SIZE)
