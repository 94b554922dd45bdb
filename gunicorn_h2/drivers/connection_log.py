"""One line in the log for each connection that ends, at debug level: who ended it and why, and what it has done.

The line is made of keys and values, the same keys each time, with `-` where there is no value:

    connection closed: peer=192.0.2.1:50312 protocol=h2 tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 streams=12 requests=12
    cut_off=0 received=1873 sent=40112 seconds=2.031 by=server reason=idle code=- detail=-

Unless debug lines are logged, nothing of this is made.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from gunicorn_h2.protocol.errors import EndReason, ErrorCode, code_name

from .handshake_errors import BROKEN, EOF, RESET, explain, reason_of
from .log import Log, address_text

if TYPE_CHECKING:
    from .connection import TransportConnection
    from .negotiation import Negotiation
    from .transport import OctetCounts

__all__ = ["ConnectionRecord", "log_failed"]

_BY_CLIENT = frozenset((BROKEN, EOF, EndReason.GOAWAY.counter, RESET))
_is_plain = re.compile(r"[!#-<>-\[\]-~]+").fullmatch
_MAX_DETAIL = 256
_NONE = "-"


class _End(NamedTuple):
    """Why a connection has ended."""

    reason: str
    code: str = _NONE
    """The error code of the GOAWAY that one of the ends has sent."""
    detail: str = _NONE


class ConnectionRecord:
    """What the line of one connection is made of; the thread that owns the connection calls it."""

    __slots__ = ("_began", "_counts", "_end", "_lost")

    def __init__(self, began: float, counts: OctetCounts) -> None:
        """`began` is a time of `time.monotonic`."""
        self._began = began
        self._counts = counts
        self._end: _End | None = None
        self._lost: _End | None = None

    def note_lost(self, error: OSError | None) -> None:
        """Note that the client has closed its side, or that the socket has failed; the first of these counts."""
        if self._lost is not None:
            return
        if error is None:
            self._lost = _End(EOF)
        else:
            self._lost = _End(RESET if isinstance(error, ConnectionError) else BROKEN, detail=str(error))

    def note_terminated(self, connection: TransportConnection, code: ErrorCode, reason: str) -> None:
        """Note why the connection is over, as `ConnectionTerminated` says."""
        if code:
            self._end = _End("error", code.name, reason)
        elif reason is EndReason.GOAWAY:
            self._end = _End(EndReason.GOAWAY.counter, code_name(connection.core.lifecycle.peer_code))
        else:
            self._end = _End(reason.counter) if isinstance(reason, EndReason) else self._lost

    def log(self, log: Log, connection: TransportConnection) -> None:
        """Log the line of a connection that is closed."""
        core, counts = connection.core, self._counts
        session = connection.transport.session
        _log(
            log,
            # A defect may have lost the core's last event.
            self._end or _End(EndReason.INTERNAL_ERROR.counter),
            connection.peer,
            ("protocol", "h2c" if session is None else "h2"),
            ("tls", _NONE if session is None else session.version),
            ("cipher", _NONE if session is None else session.cipher),
            ("streams", str(core.lifecycle.stream_count)),
            ("requests", str(core.guard.accepted_requests)),
            ("cut_off", str(core.lifecycle.cut_off)),
            ("received", str(counts.received)),
            ("sent", str(counts.sent)),
            ("seconds", f"{time.monotonic() - self._began:.3f}"),
        )


def log_failed(log: Log, negotiation: Negotiation, error: Exception) -> None:
    """Log the line of a connection that ended before its protocol was known."""
    _log(
        log,
        _End(reason_of(error), detail=explain(error) or str(error)),
        negotiation.peer,
        ("protocol", _NONE),
        ("tls", _NONE),
        ("cipher", _NONE),
        ("streams", "0"),
        ("requests", "0"),
        ("cut_off", "0"),
        ("received", _NONE),
        ("sent", _NONE),
        ("seconds", f"{time.monotonic() - negotiation.began:.3f}"),
    )


def _log(log: Log, end: _End, peer: object, *fields: tuple[str, str]) -> None:
    ended_by = "client" if end.reason in _BY_CLIENT else "server"
    pairs = [
        ("peer", address_text(peer)),
        *fields,
        ("by", ended_by),
        ("reason", end.reason),
        ("code", end.code),
        ("detail", end.detail[:_MAX_DETAIL]),
    ]
    log.debug("connection closed: %s", " ".join(f"{key}={_value(text)}" for key, text in pairs))


def _value(text: str) -> str:
    """A value as it is, or quoted as JSON does if anything in it could be mistaken for the end of it."""
    return text if _is_plain(text) else json.dumps(text)
