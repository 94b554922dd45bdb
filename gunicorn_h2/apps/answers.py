"""What the server itself answers, and the Date field: the same for WSGI and ASGI."""

from __future__ import annotations

import time

from gunicorn.http import errors
from gunicorn.util import http_date

from gunicorn_h2.protocol.headers import Fields

__all__ = ["REASONS", "date_value", "error_answer", "refusal_status"]

# What Gunicorn raises for a client's request, and what it answers over HTTP/1.
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
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
}


def refusal_status(error: Exception) -> int:
    """The status that answers a request which Gunicorn's rules refuse."""
    return next((status for kind, status in _REFUSALS if isinstance(error, kind)), 400)


def error_answer(status: int, server: bytes) -> tuple[Fields, bytes]:
    """The fields and the body of an error; it tells the client the status and no more."""
    body = f"{status} {REASONS[status]}\n".encode()
    fields = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        (b"server", server),
        (b"date", date_value()),
    ]
    return fields, body


_date_cache: tuple[int, bytes] = (0, b"")


def date_value() -> bytes:
    """The Date field's value, made once a second. Threads may race: either result is right."""
    global _date_cache
    now = int(time.time())
    second, value = _date_cache
    if second != now:
        value = http_date(now).encode("ascii")
        _date_cache = (now, value)
    return value
