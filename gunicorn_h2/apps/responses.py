"""Response heads: the rules that WSGI and ASGI share, the server's own answers, and the Date field."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from typing import Any

from gunicorn.http import errors
from gunicorn.util import http_date

from gunicorn_h2.protocol.errors import InvalidResponse
from gunicorn_h2.protocol.headers import FORBIDDEN_IN_RESPONSES, Fields, ResponseHead

__all__ = ["REASONS", "PreparedHead", "ResponseHeads", "log_headers", "refusal_status"]

# Gunicorn's exceptions for refused requests, with its status over HTTP/1.
_REFUSALS: tuple[tuple[type[Exception], int], ...] = (
    (errors.LimitRequestLine, 414),
    (errors.LimitRequestHeaders, 431),
    (errors.ExpectationFailed, 417),
    (errors.ForbiddenProxyRequest, 403),
    (errors.ConfigurationProblem, 500),
)
REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    408: "Request Timeout",
    414: "URI Too Long",
    417: "Expectation Failed",
    421: "Misdirected Request",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
_MAX_HEADS = 512
_MAX_FIELDS_SIZE = 4096


def refusal_status(error: Exception) -> int:
    """The status for a request that Gunicorn's rules refuse; 400 for any other exception."""
    return next((status for kind, status in _REFUSALS if isinstance(error, kind)), 400)


class PreparedHead:
    """A response's head, and facts about the response that are derived from it."""

    __slots__ = ("content_length", "head", "headers", "omits_body")

    def __init__(self, head: ResponseHead, content_length: int | None, headers: list[Any]) -> None:
        self.head = head
        self.content_length = content_length
        """The Content-Length that the application declared; None without one."""
        self.headers = headers
        """The headers for hooks and logs, shared by responses: copy them before others may change them."""
        self.omits_body = head.status in (204, 304)
        """Whether the status allows no body, whatever the application sends (RFC 9110 section 6.4.1)."""


class ResponseHeads:
    """Makes response heads, and caches those that applications repeat; one for each worker.

    A head contains the Date, so the cache is valid for a second. Threads may race here: at worst, a head is made
    twice or has the Date of the previous second.
    """

    def __init__(self, server: bytes) -> None:
        """`server` is the Server field of responses whose application gives none."""
        self._server = server
        self._second = 0
        self._date = b""
        self._prepared: dict[Hashable, PreparedHead] = {}

    def find(self, key: Hashable) -> PreparedHead | None:
        """The head prepared for `key` in this second, if any. Raises TypeError for an unhashable key."""
        second = int(time.time())
        if second != self._second:
            self._prepared = {}
            self._date = http_date(second).encode("ascii")
            self._second = second
        return self._prepared.get(key)

    def prepare(
        self, key: Hashable | None, status: int, fields: Fields, content_length: int | None, headers: list[Any]
    ) -> PreparedHead:
        """Make a head from fields with lower-case names, and cache it if there is a key; call `find` first.

        Raises InvalidResponse for a field that must not be sent.
        """
        prepared = PreparedHead(self.make(status, fields), content_length, headers)
        if key is not None and sum(len(name) + len(value) for name, value in fields) <= _MAX_FIELDS_SIZE:
            if len(self._prepared) >= _MAX_HEADS:
                self._prepared = {}
            self._prepared[key] = prepared
        return prepared

    def make(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> ResponseHead:
        """Make a head from a response's fields.

        Connection-specific fields are dropped (RFC 9113 section 8.2.2), and so is the Content-Length of a 204
        (RFC 9110 section 8.6); Server and Date are added if they are missing. Raises InvalidResponse.
        """
        kept = [
            field
            for field in fields
            if field[0] not in FORBIDDEN_IN_RESPONSES and (status != 204 or field[0] != b"content-length")
        ]
        lengths = [value for name, value in kept if name == b"content-length"]
        if lengths and (len(lengths) > 1 or not lengths[0].isdigit()):
            # RFC 9110 section 8.6: one value, of digits.
            raise InvalidResponse(f"content-length is {b', '.join(lengths)!r}")
        names = {name for name, _ in kept}
        if b"server" not in names:
            kept.append((b"server", self._server))
        if b"date" not in names:
            self.find(None)
            kept.append((b"date", self._date))
        return ResponseHead(status, kept)

    def error(self, status: int) -> tuple[ResponseHead, bytes]:
        """The head and the body of an error response, which reveals nothing but the status."""
        body = f"{status} {REASONS[status]}\n".encode()
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        return self.make(status, fields), body


def log_headers(head: ResponseHead) -> list[tuple[str, str]]:
    """The fields of a head as text, for hooks and logs."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.fields]
