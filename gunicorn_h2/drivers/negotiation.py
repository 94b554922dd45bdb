"""Which protocol a new connection speaks: by ALPN under TLS, by what the client sends first in the clear.

No thread waits for a slow client here: the owner of the socket calls in when something happened.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

from gunicorn_h2.protocol.opening import Cleartext, Opening
from gunicorn_h2.protocol.upgrade import Upgrade

from .transport import TlsSession, Transport

__all__ = ["Negotiation", "Terms", "adequate_cipher"]


class Terms(NamedTuple):
    """How connections are to be negotiated: by TLS, or by what comes first in the clear."""

    wrap: Callable[[socket.socket], ssl.SSLSocket] | None
    """Puts TLS around the socket; ALPN decides then."""
    cleartext: Cleartext | None
    """Without TLS: how HTTP/2 may begin."""
    timeout: float
    """Seconds from the start to the decision; 0: no limit."""


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
        self._deadline = time.monotonic() + terms.timeout if terms.timeout else None

    now = staticmethod(time.monotonic)
    """The clock that deadlines are on."""

    @property
    def data(self) -> bytes:
        """What was read beyond the handshake, without a request that became an upgrade."""
        return b"" if self._opening is None else self._opening.data

    @property
    def upgrade(self) -> Upgrade | None:
        """The request that asked for HTTP/2, if one did."""
        return None if self._opening is None else self._opening.upgrade

    @property
    def wants_write(self) -> bool:
        """Whether the handshake waits for the socket to take something."""
        return self.transport.wants_write

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._deadline

    def shutdown(self, timeout: float) -> None:
        """The worker ends: the client has `timeout` seconds left to say what it speaks."""
        deadline = time.monotonic() + timeout
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def handle_readable(self) -> None:
        """Go on."""
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
        """The client took too long."""
        self._fail(TimeoutError("the client was too slow"))

    def abandon(self) -> None:
        """Give up."""
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
            # The traceback holds this object: a cycle for the garbage collector.
            self.error = error.with_traceback(None)


def adequate_cipher(session: TlsSession | None) -> bool:
    """Whether HTTP/2 may use the connection's cipher suite (RFC 9113 section 9.2.2).

    TLS 1.3 has good ones only; of TLS 1.2's, those with ephemeral keys and authenticated encryption
    stay clear of the list of appendix A.
    """
    if session is None or session.version == "TLSv1.3":
        return True
    cipher = session.cipher
    return cipher.startswith(("ECDHE-", "DHE-")) and any(mode in cipher for mode in ("GCM", "CHACHA20", "CCM"))
