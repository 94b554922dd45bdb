"""Why connections end before their protocol is known, and why TLS handshakes fail, in words for an operator.

OpenSSL names its reasons; those that a deployment can act on are explained, in one line a second at most, whatever
clients do. A client that goes away without an alert, as health checks and port scans do, is no failure: it is not
counted, and has only the line of its connection, at debug level.
"""

from __future__ import annotations

import errno
import ssl
import time
from collections.abc import Callable

from gunicorn_h2.protocol.errors import EndReason
from gunicorn_h2.protocol.proxy_header import ProxyHeaderError

from .log import Log, Throttle, host_text

__all__ = ["BROKEN", "EOF", "RESET", "ClosedEarly", "Displaced", "HandshakeLog", "explain", "reason_of"]

BROKEN = "broken"
"""The socket has failed."""
EOF = "eof"
"""The client has closed its side."""
RESET = "reset"
"""The client has reset the connection."""

_INTERVAL = 1.0

_PLAIN_HTTP = "the client sent plain HTTP to a TLS port; it must use https"
_NOT_TLS = "the client sent something that is not TLS to a TLS port; it must use TLS"
_UNTRUSTED = (
    "the client does not trust the server's certificate ({reason}); "
    "check that certfile holds the whole chain, names the host, and is signed by an authority the client knows"
)
_NOTHING_SHARED = (
    "client and server have no TLS version or cipher suite in common ({reason}); "
    "the client needs TLS 1.2 or newer, and one of the suites that ciphers or the ssl_context hook allow"
)
_NO_CLIENT_CERTIFICATE = "the client showed no certificate, which cert_reqs demands"
_UNTRUSTED_CLIENT = "the client's certificate is not trusted ({detail}); ca_certs must hold its authority"
_TOO_SLOW = "the client did not finish it within http2_handshake_timeout"
_DISPLACED = "the client did not finish it before newcomers needed its place"

_EXPLANATIONS = {
    "HTTP_REQUEST": _PLAIN_HTTP,
    "HTTPS_PROXY_REQUEST": _PLAIN_HTTP,
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "UNKNOWN_PROTOCOL": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": _NO_CLIENT_CERTIFICATE,
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED_CLIENT,
    "NO_SHARED_CIPHER": _NOTHING_SHARED,
    "NO_SHARED_GROUP": _NOTHING_SHARED,
    "NO_SUITABLE_KEY_SHARE": _NOTHING_SHARED,
    "NO_SUITABLE_SIGNATURE_ALGORITHM": _NOTHING_SHARED,
    "UNSUPPORTED_PROTOCOL": _NOTHING_SHARED,
    "VERSION_TOO_LOW": _NOTHING_SHARED,
}
_ALERTS = {
    "BAD_CERTIFICATE": _UNTRUSTED,
    "CERTIFICATE_EXPIRED": _UNTRUSTED,
    "CERTIFICATE_REVOKED": _UNTRUSTED,
    "CERTIFICATE_UNKNOWN": _UNTRUSTED,
    "UNKNOWN_CA": _UNTRUSTED,
    "UNSUPPORTED_CERTIFICATE": _UNTRUSTED,
    "HANDSHAKE_FAILURE": _NOTHING_SHARED,
    "INSUFFICIENT_SECURITY": _NOTHING_SHARED,
    "PROTOCOL_VERSION": _NOTHING_SHARED,
}
"""What a client's alert means (RFC 8446 section 6.2); OpenSSL puts the version before its name."""


def explain(error: Exception) -> str | None:
    """Say what an exception of a handshake means, and what to do; None if the client just went away."""
    if isinstance(error, TimeoutError):
        return _TOO_SLOW
    if isinstance(error, Displaced):
        return _DISPLACED
    if not isinstance(error, ssl.SSLError) or reason_of(error) != "handshake_failed":
        return None
    reason = error.reason or ""
    text = _EXPLANATIONS.get(reason) or _ALERTS.get(reason.partition("ALERT_")[2]) or "{detail}"
    detail = getattr(error, "verify_message", "") or reason or str(error)
    return text.format(reason=reason, detail=detail)


def reason_of(error: Exception) -> str:
    """Why a connection has ended before its protocol was known, as it is counted and logged."""
    if isinstance(error, TimeoutError):
        return "handshake_timeout"
    if isinstance(error, Displaced):
        return "handshake_displaced"
    if isinstance(error, ProxyHeaderError):
        return "proxy_header"
    if isinstance(error, (ClosedEarly, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return EOF
    # The client was gone before the handshake began; the ssl module says so in one of these ways.
    if isinstance(error, (ConnectionError, ssl.SSLSyscallError)) or getattr(error, "errno", None) == errno.ENOTCONN:
        return RESET
    if isinstance(error, ssl.SSLError):
        return "handshake_failed"
    if isinstance(error, ValueError):
        return RESET
    return BROKEN if isinstance(error, OSError) else EndReason.INTERNAL_ERROR.counter


class ClosedEarly(ConnectionError):
    """The client has closed its side before its protocol could be known."""


class Displaced(Exception):
    """A handshake was ended because its place was needed."""


class HandshakeLog:
    """Logs failed handshakes; one for each worker, used by one thread."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds."""
        self._log = log
        self._clock = clock
        self._throttle = Throttle(_INTERVAL)

    def failed(self, peer: object, error: Exception) -> None:
        """Log a failure: at info level if there is an explanation, and at most once a second."""
        explanation = explain(error)
        if explanation is None:
            return
        held_back = self._throttle.admit(self._clock())
        if held_back is None:
            return
        more = f" ({held_back} more since the last such line)" if held_back else ""
        self._log.info("TLS handshake with %s failed: %s%s", host_text(peer), explanation, more)
