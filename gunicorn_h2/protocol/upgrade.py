"""Upgrade from HTTP/1.1 to HTTP/2 (RFC 7540 section 3.2): validation of the request that asks for it.

RFC 9113 dropped the mechanism, so only old clients use it, and only without TLS.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import NamedTuple

from . import frames
from .errors import ConnectionFailure
from .headers import CONNECTION_SPECIFIC, Fields, MalformedRequest, RequestHead, parse_request

__all__ = ["SWITCHING_PROTOCOLS", "Upgrade", "validate_upgrade"]

SWITCHING_PROTOCOLS = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
"""The response that accepts an upgrade."""
_SETTINGS = b"http2-settings"
_DROPPED = CONNECTION_SPECIFIC | {_SETTINGS, b"host"}


class Upgrade(NamedTuple):
    """An HTTP/1.1 request that becomes stream 1."""

    settings: bytes
    """The payload of the client's SETTINGS frame."""
    section: Fields
    """The request as an HTTP/2 field section."""
    head: RequestHead
    body: bytes


def validate_upgrade(method: bytes, path: bytes, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> Upgrade | None:
    """Return the upgrade that a complete HTTP/1.1 request asks for; `fields` have names in lower case.

    None if it asks for none, or not as the RFC says: it is then served as HTTP/1.1, which is always allowed.
    """
    settings = _announced_settings(fields)
    if settings is None:
        return None
    hosts = [value for name, value in fields if name == b"host"]
    section = [(b":method", method), (b":scheme", b"http"), (b":path", path)]
    section += [(b":authority", host) for host in hosts]
    section += [field for field in fields if field[0] not in _DROPPED and field[0] != b"te"]
    try:
        head = parse_request(section)
    except MalformedRequest:
        return None
    if head.expects_continue or method == b"CONNECT":
        return None
    return Upgrade(settings, section, head, body)


def _announced_settings(fields: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """The SETTINGS payload of a request; None unless Connection lists an Upgrade to h2c and one HTTP2-Settings."""
    payloads = [value for name, value in fields if name == _SETTINGS]
    if b"h2c" not in _tokens(fields, b"upgrade") or len(payloads) != 1:
        return None
    if not {b"upgrade", _SETTINGS} <= _tokens(fields, b"connection"):
        return None
    if b"+" in payloads[0] or b"/" in payloads[0]:
        # The standard alphabet, which b64decode accepts beside the URL-safe one.
        return None
    try:
        payload = base64.b64decode(payloads[0] + b"=" * (-len(payloads[0]) % 4), b"-_", validate=True)
        frames.parse_settings(payload)
    except (binascii.Error, ConnectionFailure):
        return None
    return payload if len(payload) <= frames.MAX_SETTINGS_SIZE else None


def _tokens(fields: Sequence[tuple[bytes, bytes]], wanted: bytes) -> set[bytes]:
    return {token.strip().lower() for name, value in fields if name == wanted for token in value.split(b",")}
