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

from gunicorn_h2.protocol.errors import ErrorCode, code_name

from .handshake_errors import Displaced, explain
from .log import Log, address_text

if TYPE_CHECKING:
    from .connection import TransportConnection
    from .negotiation import Negotiation
    from .transport import OctetCounts

__all__ = ["BROKEN", "EOF", "ConnectionRecord", "log_failed"]

BROKEN = "broken"
"""The socket has failed."""
EOF = "eof"
"""The client has closed its side."""
_GOAWAY, _RESET = "goaway", "reset"
_BY_CLIENT = frozenset((BROKEN, EOF, _GOAWAY, _RESET))
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

    __slots__ = ("_began", "_counts", "_end")

    def __init__(self, began: float, counts: OctetCounts) -> None:
        """`began` is a time of `time.monotonic`."""
        self._began = began
        self._counts = counts
        self._end: _End | None = None

    def note_end(self, reason: str, detail: str = _NONE) -> None:
        """Note why the connection ends; of several reasons, the first one counts."""
        if self._end is None:
            self._end = _End(reason, detail=detail)

    def note_lost(self, connection: TransportConnection, error: OSError | None) -> None:
        """Note that the client has closed its side, or that the socket has failed.

        With no stream open, a client that was told to go has only done so.
        """
        told = connection.core.retired or ("shutdown" if connection.leaving else "")
        if told and not connection.core.streams:
            self.note_end(told)
        elif error is None:
            self.note_end(EOF)
        else:
            self.note_end(_RESET if isinstance(error, ConnectionError) else BROKEN, str(error))

    def note_terminated(self, connection: TransportConnection, code: str, detail: str) -> None:
        """Note that the core has ended the connection with a GOAWAY of this code, unless it is known why."""
        if self._end is not None:
            return
        core = connection.core
        if code != ErrorCode.NO_ERROR.name:
            self._end = _End("error", code, detail)
        elif core.retired or connection.leaving:
            self._end = _End(core.retired or "shutdown", detail=detail or _NONE)
        elif core.lifecycle.peer_going_away:
            self._end = _End(_GOAWAY, code_name(core.lifecycle.peer_code))
        else:
            self._end = _End("idle")

    def log(self, log: Log, connection: TransportConnection) -> None:
        """Log the line of a connection that is closed."""
        core, counts = connection.core, self._counts
        session = connection.transport.session
        _log(
            log,
            self._end or _End("shutdown"),
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
    explanation = explain(error)
    if isinstance(error, (Displaced, TimeoutError)):
        reason = "made_room" if isinstance(error, Displaced) else "handshake_timeout"
    elif explanation is not None:
        reason = "handshake_failed"
    else:
        reason = _RESET if isinstance(error, ConnectionError) else BROKEN
    _log(
        log,
        _End(reason, detail=explanation or str(error)),
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
