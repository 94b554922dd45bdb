"""Messages on the wire: a prefix of five octets, and compression by gzip or deflate.

The prefix is a flag, 1 for a compressed message, and the length of the message as it is on the wire.
"""

from __future__ import annotations

import struct
import zlib

from grpc import Compression, StatusCode

from .status import Failure

__all__ = ["ACCEPTED", "DEFAULT_MAX_RECEIVED", "ENCODINGS", "PREFIX_SIZE", "Message", "check_encoding", "check_length",
           "decode", "encode", "parse_prefix"]  # fmt: skip

Message = tuple[bool, bytes]
"""A message as it is on the wire, without its prefix, and before that whether it is compressed."""

DEFAULT_MAX_RECEIVED = 4 * 1024 * 1024
"""The largest message that is received, in octets, if nothing else is said: as in grpcio."""
PREFIX_SIZE = 5
ENCODINGS = {Compression.NoCompression: "identity", Compression.Deflate: "deflate", Compression.Gzip: "gzip"}
ACCEPTED = ", ".join(ENCODINGS.values())
"""The value of `grpc-accept-encoding`."""

_WBITS = {"deflate": zlib.MAX_WBITS, "gzip": zlib.MAX_WBITS | 16}
_PREFIX = struct.Struct(">BL")


def check_encoding(encoding: str) -> None:
    """Raise Failure(UNIMPLEMENTED) for a `grpc-encoding` other than those accepted."""
    if encoding != "identity" and encoding not in _WBITS:
        raise Failure(StatusCode.UNIMPLEMENTED, "the message encoding is not supported")


def check_length(data: bytes, size: int) -> bytes:
    """Return what was read of a request. Raises Failure(INTERNAL) if that is less than `size` octets."""
    if len(data) < size:
        raise Failure(StatusCode.INTERNAL, "the request ends within a message")
    return data


def parse_prefix(prefix: bytes, limit: int) -> tuple[bool, int]:
    """Return whether the message that follows is compressed, and its length on the wire.

    Raises Failure: INTERNAL for a prefix that is cut off or has unknown flags, RESOURCE_EXHAUSTED for a length beyond
    `limit` octets (negative: no limit).
    """
    flag, length = _PREFIX.unpack(check_length(prefix, PREFIX_SIZE))
    if flag > 1:
        raise Failure(StatusCode.INTERNAL, "a message has unknown flags")
    if 0 <= limit < length:
        raise Failure(StatusCode.RESOURCE_EXHAUSTED, f"received message larger than max ({length} vs. {limit})")
    return flag == 1, length


def decode(message: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a message; no more than `limit` octets and one are ever made of it (negative: no limit).

    Raises Failure: RESOURCE_EXHAUSTED for a message beyond the limit, INTERNAL for one that is not in its encoding.
    """
    wbits = _WBITS.get(encoding)
    if wbits is None:
        raise Failure(StatusCode.INTERNAL, "a message is compressed, but the request has no encoding")
    decompressor = zlib.decompressobj(wbits)
    try:
        data = decompressor.decompress(message, 0 if limit < 0 else limit + 1)
    except zlib.error:
        raise Failure(StatusCode.INTERNAL, f"a message is not in the encoding {encoding}") from None
    if 0 <= limit < len(data):
        raise Failure(StatusCode.RESOURCE_EXHAUSTED, f"decompressed message larger than max ({limit})")
    if not decompressor.eof or decompressor.unused_data:
        raise Failure(StatusCode.INTERNAL, f"a message is not in the encoding {encoding}")
    return data


def encode(message: bytes, encoding: str, limit: int) -> bytes:
    """Return a message with its prefix, compressed where that makes it smaller.

    Raises Failure(RESOURCE_EXHAUSTED) for one beyond `limit` octets (negative: no limit).
    """
    flag = 0
    wbits = _WBITS.get(encoding)
    if wbits is not None:
        compressor = zlib.compressobj(wbits=wbits)
        compressed = compressor.compress(message) + compressor.flush()
        if len(compressed) < len(message):
            flag, message = 1, compressed
    if 0 <= limit < len(message):
        raise Failure(StatusCode.RESOURCE_EXHAUSTED, f"sent message larger than max ({len(message)} vs. {limit})")
    return _PREFIX.pack(flag, len(message)) + message
