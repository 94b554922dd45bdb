"""Which protocol a new connection speaks: by ALPN under TLS, by the client's preface in the clear.

No thread waits for a slow client here: the owner of the socket calls in when something happened.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable

from gunicorn_h2.protocol.frames import PREFACE

from .transport import Transport

__all__ = ["Negotiation", "adequate_cipher"]


class Negotiation:
    """A socket whose protocol is not known yet.

    Ends with one call: `decided(self, data)` with what was read beyond the handshake, or
    `failed(self, reason)`.
    """

    def __init__(
        self,
        sock: socket.socket,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None,
        deadline: float | None,
        decided: Callable[[Negotiation, bytes], None],
        failed: Callable[[Negotiation, str], None],
    ) -> None:
        self.transport = Transport(sock, wrap)
        self.http2 = False
        self.closed = False
        self._deadline = deadline
        self._decided = decided
        self._failed = failed
        self._data = b""

    @property
    def wants_write(self) -> bool:
        """Whether the handshake waits for the socket to take something."""
        return self.transport.wants_write

    def next_deadline(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._deadline

    def handle_readable(self) -> None:
        """Go on."""
        try:
            finished = self._handshake_finished() if self.transport.tls else self._preface_judged()
        except (OSError, ValueError) as error:
            # ValueError: an SSLSocket that lost its connection during the handshake.
            self._fail(str(error))
            return
        if finished and not self.closed:
            self.closed = True
            self._decided(self, self._data)

    flush = handle_readable

    def handle_timeout(self) -> None:
        """The client took too long."""
        self._fail("the client was too slow")

    def abandon(self) -> None:
        """Give up."""
        self._fail("an internal error")

    def _handshake_finished(self) -> bool:
        if not self.transport.handshake():
            return False
        self.http2 = self.transport.selected_protocol() == "h2"
        return True

    def _preface_judged(self) -> bool:
        data = self.transport.receive()
        if data is None:
            return False
        self._data += data
        self.http2 = self._data.startswith(PREFACE)
        return self.http2 or not data or not PREFACE.startswith(self._data)

    def _fail(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self._failed(self, reason)


def adequate_cipher(sock: socket.socket | ssl.SSLObject | None) -> bool:
    """Whether HTTP/2 may use the connection's cipher suite (RFC 9113 section 9.2.2).

    TLS 1.3 has good ones only; of TLS 1.2's, those with ephemeral keys and authenticated encryption
    stay clear of the list of appendix A.
    """
    cipher = sock.cipher() if isinstance(sock, (ssl.SSLSocket, ssl.SSLObject)) else None
    if cipher is None or cipher[1] != "TLSv1.2":
        return True
    return cipher[0].startswith(("ECDHE-", "DHE-")) and any(mode in cipher[0] for mode in ("GCM", "CHACHA20", "CCM"))
