"""Metadata and the fields of a call: what a request's fields say, and what may be sent in a response's."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any, NamedTuple

from grpc import StatusCode

from .status import Failure

__all__ = ["Fields", "Metadatum", "RequestFields", "encode_metadata", "parse_fields"]

Fields = list[tuple[str, str]]

# Seconds of each unit of `grpc-timeout`.
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])").fullmatch
_KEY = re.compile(r"[0-9a-z_.-]+").fullmatch
_ASCII_VALUE = re.compile(r"[\x20-\x7e]*").fullmatch
# Fields of HTTP, and of gRPC itself, are no metadata.
_NO_METADATA = frozenset((b"content-type", b"content-length", b"te", b"host"))
_MAX_KNOWN, _MAX_KNOWN_FIELDS, _MAX_KNOWN_SIZE = 512, 32, 2048
_RESERVED = frozenset(("content-type", "content-length", "te", "grpc-status", "grpc-message", "grpc-encoding",
                       "grpc-accept-encoding", "connection", "transfer-encoding", "trailer"))  # fmt: skip


class Metadatum(NamedTuple):
    """One piece of metadata. The value is text, or octets if the key ends in `-bin`."""

    key: str
    value: str | bytes


class RequestFields(NamedTuple):
    """What the fields of a request say."""

    metadata: tuple[Metadatum, ...] = ()
    timeout: float | None = None
    """Seconds that the client waits from its request on; None for ever."""
    encoding: str = "identity"
    """The encoding of its compressed messages."""
    accepted: str = ""
    """The encodings that it accepts, a comma-separated list."""
    malformed: str = ""
    """What is wrong with the fields; the others have their defaults then."""


_known: dict[tuple[tuple[bytes, bytes], ...], RequestFields] = {}


def parse_fields(fields: Iterable[tuple[bytes, bytes]]) -> RequestFields:
    """Parse a request's fields.

    Most calls of a client have the fields of one before, so that small results are kept.
    """
    key = tuple(fields)
    parsed = _known.get(key)
    if parsed is None:
        try:
            parsed = _parse(key)
        except Failure as failure:
            parsed = RequestFields(malformed=failure.details)
        if len(key) <= _MAX_KNOWN_FIELDS and sum([len(name) + len(value) for name, value in key]) <= _MAX_KNOWN_SIZE:
            if len(_known) >= _MAX_KNOWN:
                _known.clear()
            _known[key] = parsed
    return parsed


def _parse(fields: Iterable[tuple[bytes, bytes]]) -> RequestFields:
    metadata: list[Metadatum] = []
    timeout: float | None = None
    encoding, accepted = "identity", ""
    for name, value in fields:
        if name[:5] == b"grpc-":
            if name == b"grpc-timeout":
                timeout = _parse_timeout(value)
            elif name == b"grpc-encoding":
                encoding = value.decode("latin-1")
            elif name == b"grpc-accept-encoding":
                accepted = f"{accepted},{value.decode('latin-1')}"
            elif name[-4:] == b"-bin":
                metadata += _parse_binary(name, value)
        elif name in _NO_METADATA:
            continue
        elif name[-4:] == b"-bin":
            metadata += _parse_binary(name, value)
        else:
            metadata.append(Metadatum(name.decode("latin-1"), value.decode("latin-1")))
    return RequestFields(tuple(metadata), timeout, encoding, accepted)


def _parse_timeout(value: bytes) -> float:
    match = _TIMEOUT(value)
    if match is None:
        raise Failure(StatusCode.INTERNAL, "grpc-timeout is malformed")
    return int(match[1]) * _UNITS[match[2]]


def _parse_binary(name: bytes, value: bytes) -> list[Metadatum]:
    """Decode a binary value, or several that were joined by commas; padding may be missing."""
    key = name.decode("latin-1")
    try:
        return [Metadatum(key, b64decode(part.strip() + b"=" * (-len(part.strip()) % 4), validate=True))
                for part in value.split(b",")]  # fmt: skip
    except ValueError:
        raise Failure(StatusCode.INTERNAL, "binary metadata is not in base64") from None


def encode_metadata(metadata: Iterable[Any] | None) -> Fields:
    """Turn metadata, pairs of a key and a value, into fields of a response.

    Raises ValueError for a key or value that must not be sent, TypeError for one that is neither text nor octets.
    """
    fields: Fields = []
    for key, value in metadata or ():
        if not _KEY(key) or key in _RESERVED:
            raise ValueError(f"{key!r} cannot be a key of metadata")
        if key.endswith("-bin"):
            if not isinstance(value, bytes):
                raise TypeError(f"the value of {key!r} must be bytes")
            fields.append((key, b64encode(value).rstrip(b"=").decode("ascii")))
            continue
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if not _ASCII_VALUE(text):
            raise ValueError(f"the value of {key!r} must be printable ASCII; that of a key in -bin may be any octets")
        fields.append((key, text))
    return fields
