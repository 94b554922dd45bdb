"""Which protocol a new connection speaks: by ALPN under TLS, by the client's first octets without TLS.

No thread waits for a slow client: the owner of the socket calls a `Negotiation` when something happens.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from gunicorn_h2.protocol.authority import CertificateNames
from gunicorn_h2.protocol.opening import Cleartext, Opening
from gunicorn_h2.protocol.upgrade import Upgrade

from .certificates import Certificates
from .handshake_errors import Displaced
from .transport import TlsSession, Transport

__all__ = ["Negotiation", "Terms", "adequate_cipher"]


class Terms(NamedTuple):
    """How to negotiate the protocol of connections: with TLS, or by their first octets."""

    wrap: Callable[[socket.socket], ssl.SSLSocket] | None
    """Wraps the socket in TLS, and ALPN decides; None without TLS."""
    cleartext: Cleartext | None
    """How HTTP/2 may begin without TLS; None with it."""
    timeout: float
    """Seconds from the start to the decision; 0: no limit."""
    certificates: Certificates | None = None
    """What tells which authorities a connection's certificate covers; None: any authority is served."""


class Negotiation:
    """A socket whose protocol is not known yet.

    Its owner calls it when something happens, until it is `closed`: then `error` says why it failed, or
    `http2`, `data` and `upgrade` what the client speaks.
    """

    def __init__(self, sock: socket.socket, peer: object, terms: Terms) -> None:
        self.transport = Transport(sock, terms.wrap)
        self.peer = peer
        self.http2 = False
        self.closed = False
        self.error: Exception | None = None
        self._opening = None if terms.cleartext is None else Opening(terms.cleartext)
        self._certificates = terms.certificates
        self.began = self.now()
        self._deadline = self.began + terms.timeout if terms.timeout else None

    now = staticmethod(time.monotonic)
    """The clock that deadlines are on."""

    @property
    def data(self) -> bytes:
        """The octets read after the handshake, except those of an upgrade request."""
        return b"" if self._opening is None else self._opening.data

    @property
    def upgrade(self) -> Upgrade | None:
        """The request that asked for an upgrade; None without one."""
        return None if self._opening is None else self._opening.upgrade

    def certificate_names(self) -> CertificateNames | None:
        """The names of the certificate that the client was shown; None if they do not matter or are not known."""
        sock = self.transport.sock
        if self._certificates is None or not isinstance(sock, ssl.SSLSocket):
            return None
        return self._certificates.names(sock.context)

    @property
    def wants_write(self) -> bool:
        """Whether the handshake waits for the socket to become writable."""
        return self.transport.wants_write

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._deadline

    def shutdown(self, timeout: float) -> None:
        """Limit the rest of the negotiation to `timeout` seconds, because the worker ends."""
        deadline = time.monotonic() + timeout
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def handle_readable(self) -> None:
        """Continue the negotiation with what has arrived."""
        try:
            finished = self._opening_decided() if self._opening else self._handshake_finished()
        except (OSError, ValueError) as error:
            # ValueError: an SSLSocket that lost its connection during the handshake.
            self._fail(error)
            return
        if finished:
            self.closed = True

    flush = handle_readable

    def handle_timeout(self) -> None:
        """Fail: the client took too long."""
        self._fail(TimeoutError("the client was too slow"))

    def make_way(self) -> None:
        """Fail: the place is needed for others."""
        self._fail(Displaced("its place was needed"))

    def abandon(self) -> None:
        """Fail because of an internal error."""
        self._fail(RuntimeError("an internal error"))

    def _handshake_finished(self) -> bool:
        if not self.transport.handshake():
            return False
        self.http2 = self.transport.selected_protocol() == "h2"
        return True

    def _opening_decided(self) -> bool:
        assert self._opening is not None
        data = self.transport.receive()
        if data is None or not self._opening.feed(data):
            return False
        self.http2 = self._opening.http2
        return True

    def _fail(self, error: Exception) -> None:
        if not self.closed:
            self.closed = True
            # Its traceback and that of its context lead to this object: a reference cycle.
            error.__context__ = None
            self.error = error.with_traceback(None)


def adequate_cipher(session: TlsSession | None) -> bool:
    """Whether HTTP/2 may use the connection's cipher suite (RFC 9113 section 9.2.2).

    All cipher suites of TLS 1.3 are. In TLS 1.2, those with ephemeral keys and authenticated encryption are not on
    the prohibited list of appendix A.
    """
    if session is None or session.version == "TLSv1.3":
        return True
    cipher = session.cipher
    return cipher.startswith(("ECDHE-", "DHE-")) and any(mode in cipher for mode in ("GCM", "CHACHA20", "CCM"))
