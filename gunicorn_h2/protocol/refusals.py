"""Requests that the core answers itself, because no application is to see them."""

from __future__ import annotations

from collections.abc import Callable

from .authority import CertificateNames
from .config import ConnectionConfig
from .errors import StreamLimit
from .headers import RequestHead, ResponseHead
from .websocket import WEBSOCKET, WEBSOCKET_VERSION

__all__ = ["BAD_REQUEST", "REQUEST_TIMEOUT", "TOO_MANY_FIELDS", "Refusal", "Refusals"]

Refusal = tuple[ResponseHead, str]
"""The answer but for its Date, and the reason for the log."""

_EMPTY = [(b"content-length", b"0")]
BAD_REQUEST = ResponseHead(400, _EMPTY)
REQUEST_TIMEOUT = ResponseHead(408, _EMPTY)
TOO_MANY_FIELDS: Refusal = ResponseHead(431, _EMPTY), StreamLimit.TOO_MANY_FIELDS
_TOO_LARGE: Refusal = ResponseHead(431, _EMPTY), StreamLimit.HEADERS_TOO_LARGE
_WRONG_SCHEME: Refusal = BAD_REQUEST, "the scheme is neither http nor https"
_MISDIRECTED: Refusal = ResponseHead(421, _EMPTY), "the certificate does not cover the authority"
_NOT_IMPLEMENTED: Refusal = ResponseHead(501, _EMPTY), "CONNECT is not supported"
_UNKNOWN_PROTOCOL: Refusal = ResponseHead(501, _EMPTY), "the protocol of an extended CONNECT is not supported"
_WRONG_VERSION: Refusal = (
    ResponseHead(400, [*_EMPTY, (b"sec-websocket-version", WEBSOCKET_VERSION)]),
    "the version of the WebSocket protocol is not supported",
)
_SCHEMES = (b"http", b"https")


class Refusals:
    """The rules and the answers of one connection."""

    __slots__ = ("date", "names", "_max_header_list_size")

    def __init__(self, config: ConnectionConfig) -> None:
        self.names: CertificateNames | None = None
        """The names that the authority of a request must be among (RFC 9110 section 15.5.20); None: any will do."""
        self.date: Callable[[], bytes] | None = None
        """Returns the Date of answers; without a clock they have none (RFC 9110 section 6.6.1)."""
        self._max_header_list_size = config.max_header_list_size or float("inf")

    def find(self, head: RequestHead) -> Refusal | None:
        """The refusal of a valid request; None for one that is for the application."""
        if head.method == b"CONNECT" and (refusal := _refuse_connect(head)) is not None:
            return refusal
        if head.list_size > self._max_header_list_size:
            return _TOO_LARGE
        if head.scheme.lower() not in _SCHEMES:
            return _WRONG_SCHEME
        return None if self.names is None or self.names.covers(head.authority) else _MISDIRECTED

    def dated(self, answer: ResponseHead) -> ResponseHead:
        """The answer with its Date."""
        return answer if self.date is None else ResponseHead(answer.status, [*answer.fields, (b"date", self.date())])


def _refuse_connect(head: RequestHead) -> Refusal | None:
    """The refusal of a CONNECT that opens no WebSocket."""
    if head.protocol != WEBSOCKET:
        return _UNKNOWN_PROTOCOL if head.protocol else _NOT_IMPLEMENTED
    versions = [value for name, value in head.fields if name == b"sec-websocket-version"]
    return None if versions == [WEBSOCKET_VERSION] else _WRONG_VERSION
