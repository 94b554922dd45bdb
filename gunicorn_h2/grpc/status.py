"""How a call ends: statuses, and the exceptions that carry them."""

from __future__ import annotations

from urllib.parse import quote

from grpc import StatusCode

__all__ = ["Abort", "Failure", "encode_message"]

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Failure(Exception):
    """Ends a call with a status, for a reason that the servicer has no part in."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class Abort(Exception):
    """Raised by `ServicerContext.abort`, which has noted the status."""


def encode_message(details: str) -> str:
    """Percent-encode a status message for `grpc-message`: UTF-8, printable ASCII but "%" as it is."""
    return quote(details, safe=_PRINTABLE, errors="replace")
