"""Requests that the core answers itself, because no application is to see them."""

from __future__ import annotations

from collections.abc import Callable

from .authority import CertificateNames
from .config import ConnectionConfig
from .errors import StreamLimit
from .headers import RequestHead, ResponseHead

__all__ = ["Refusals"]

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

    def find(self, head: RequestHead) -> tuple[int, str] | None:
        """The status and the reason of the refusal of a valid request; None for one that is for the application."""
        if head.method == b"CONNECT":
            return 501, "CONNECT is not supported"
        if head.list_size > self._max_header_list_size:
            return 431, StreamLimit.HEADERS_TOO_LARGE
        if head.scheme.lower() not in _SCHEMES:
            return 400, "the scheme is neither http nor https"
        if self.names is not None and not self.names.covers(head.authority):
            return 421, "the certificate does not cover the authority"
        return None

    def answer(self, status: int) -> ResponseHead:
        """The head of an answer without content."""
        fields = [(b"content-length", b"0")]
        if self.date is not None:
            fields.append((b"date", self.date()))
        return ResponseHead(status, fields)
