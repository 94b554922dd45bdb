"""What the connections of a worker count together, for its statistics."""

from __future__ import annotations

from collections import Counter

from .errors import ErrorCode

__all__ = ["Counts", "code_label"]

_NAMES = {int(code): code.name.lower() for code in ErrorCode}


def code_label(code: int) -> str:
    """The name of an error code in lower case; "unknown" for one that no RFC names, of which a peer may send any."""
    return _NAMES.get(code, "unknown")


class Counts:
    """Counters that only ever grow; all connections of a worker share one object.

    It is not thread-safe: callers take turns. Error codes are counted by `code_label`.
    """

    __slots__ = (
        "goaways_received",
        "goaways_sent",
        "octets_received",
        "octets_sent",
        "refused",
        "resets_received",
        "resets_sent",
    )

    def __init__(self) -> None:
        self.octets_received = 0
        """Octets of HTTP/2 from clients: without TLS, and the HTTP/1.1 request of an upgrade."""
        self.octets_sent = 0
        """Octets of HTTP/2 that were taken to be written."""
        self.refused = 0
        """Requests that no application has been called for."""
        self.resets_received: Counter[str] = Counter()
        """RST_STREAM frames from clients, those on closed streams included."""
        self.resets_sent: Counter[str] = Counter()
        self.goaways_received: Counter[str] = Counter()
        self.goaways_sent: Counter[str] = Counter()
        """GOAWAY frames, of which a graceful shutdown sends two."""
