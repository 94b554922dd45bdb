"""Which protocol a new connection speaks: by ALPN under TLS, by the client's first octets without TLS.

The header of the PROXY protocol comes before both, in the clear.

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
from gunicorn_h2.protocol.proxy_header import (
    MAX_PROXY_HEADER_SIZE,
    ProxyHeaderError,
    ProxyHeaderReader,
    ProxyVersions,
)
from gunicorn_h2.protocol.upgrade import Upgrade

from .certificates import Certificates
from .handshake_errors import ClosedEarly, Displaced
from .peers import ProxiedPeer
from .transport import TlsSession, Transport

__all__ = ["Negotiation", "NotAdmitted", "ProxyProtocol", "Terms", "adequate_cipher"]


class NotAdmitted(Exception):
    """The client that a proxy has told of has too many connections, or may have none for now."""


class ProxyProtocol(NamedTuple):
    """How to read the header of the PROXY protocol, with which a connection may begin."""

    versions: ProxyVersions
    allows: Callable[[object], bool]
    """Whether a peer may send one."""
    admits: Callable[[object], bool]
    """Whether to serve a client that a proxy tells of, which is then counted as one more connection."""


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
    proxy: ProxyProtocol | None = None
    """How to read a PROXY header; None: there is none."""

    @property
    def may_be_http1(self) -> bool:
        """Whether HTTP/1 is served without TLS."""
        return self.cleartext is not None and (self.cleartext.upgrade is not None or not self.cleartext.prior_knowledge)


class Negotiation:
    """A socket whose protocol is not known yet.

    Its owner calls it when something happens, until it is `closed`: then `error` says why it failed, or
    `http2`, `data` and `upgrade` what the client speaks.
    """

    def __init__(self, sock: socket.socket, peer: object, terms: Terms) -> None:
        self.transport = Transport(sock, terms.wrap)
        self.peer = peer
        """The address that the socket is connected to; a `ProxiedPeer` once a proxy has told the client's."""
        self.header = b""
        """The octets of the PROXY header, which Gunicorn's HTTP/1 expects before the request."""
        self.http2 = False
        self.closed = False
        self.error: Exception | None = None
        self._opening = None if terms.cleartext is None else Opening(terms.cleartext)
        self._proxy = proxy = terms.proxy
        self._header_reader: ProxyHeaderReader | None = None
        """None without a header, and when it has been read."""
        # Without TLS, Gunicorn's HTTP/1 answers those that must not send one.
        if proxy is not None and (not terms.may_be_http1 or proxy.allows(peer)):
            self._header_reader = ProxyHeaderReader(proxy.versions)
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
            finished = self._is_finished()
        except (OSError, ValueError, NotAdmitted) as error:
            # ValueError: an SSLSocket that lost its connection during the handshake, or a malformed PROXY header.
            self._fail(error)
            return
        if finished:
            opening = self._opening
            self.http2 = self.transport.selected_protocol() == "h2" if opening is None else opening.http2
            self.closed = True

    flush = handle_readable

    def handle_timeout(self) -> None:
        """Fail: the client took too long."""
        self._fail(TimeoutError("the client was too slow"))

    def make_way(self) -> None:
        """Fail: the place is needed for others."""
        self._fail(Displaced("its place was needed"))

    def lose(self, error: OSError) -> None:
        """Fail because the socket has."""
        self._fail(error)

    def abandon(self) -> None:
        """Fail because of an internal error."""
        self._fail(RuntimeError("an internal error"))

    def _is_finished(self) -> bool:
        """Whether the protocol is known, with what has arrived."""
        reader = self._header_reader
        if reader is not None:
            if not self._header_read(reader):
                return False
            self._header_reader = None
            if not reader.found and reader.octets and self._octets_decide(reader.octets):
                return True
        if self._opening is None:
            return self.transport.handshake()
        data = self.transport.receive()
        return data is not None and self._opening.feed(data)

    def _header_read(self, reader: ProxyHeaderReader) -> bool:
        """Read the PROXY header, and nothing of what follows; return whether it is complete, or there is none."""
        assert self._proxy is not None
        arrived = self.transport.peek(MAX_PROXY_HEADER_SIZE)
        if arrived is None:
            return False
        taken = reader.feed(arrived)
        if reader.found and not self._proxy.allows(self.peer):
            raise ProxyHeaderError("the peer is not in proxy_allow_ips")
        # What is taken is gone from the socket, so that an unfinished header does not keep it readable.
        self.transport.skip(taken)
        if arrived and not reader.ended:
            return False
        if reader.found:
            if not reader.ended:
                raise ClosedEarly("closed within the PROXY header")
            self._take_header(reader, self._proxy)
        return True

    def _take_header(self, reader: ProxyHeaderReader, proxy: ProxyProtocol) -> None:
        self.header = reader.octets
        if reader.addresses is not None:
            client = ProxiedPeer.of(reader.addresses, self.peer)
            if not proxy.admits(client):
                raise NotAdmitted(client)
            self.peer = client

    def _octets_decide(self, octets: bytes) -> bool:
        """Whether the octets that were taken for the beginning of a PROXY header tell the protocol."""
        if self._opening is None:
            raise ProxyHeaderError("it is neither a header nor TLS")
        return self._opening.feed(octets)

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
