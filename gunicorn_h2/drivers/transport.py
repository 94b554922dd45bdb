"""A non-blocking socket with or without TLS, behind one interface."""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .handshake_errors import ClosedEarly

__all__ = ["OctetCounts", "TlsSession", "Transport", "WOULD_BLOCK"]

WOULD_BLOCK: Final = None
_RECORD_SIZE = 16_384
_TLS_PIECE_SIZE = 65_536
_HAS_CORK = hasattr(socket, "TCP_CORK")
_RECEIVE_SIZE = 65_536

# Linux and macOS have it; None if the system's headers did not name it when Python was built.
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)
# A frame, and a TLS record. From 16 to 128 KiB throughput is the same, on the loopback interface and over
# 50 ms; Cloudflare recommends 16 KiB for nginx, so that HTTP/2 priorities have an effect.
_MOST_UNSENT = 16_384

# Linux: `struct tcp_info`, and in it `tcpi_bytes_acked` and `tcpi_min_rtt` (microseconds).
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_BYTES_ACKED = slice(120, 128)
_MIN_ROUND_TRIP = slice(148, 152)

# _ssl.ENCODING_DER, which the ssl module does not name.
_ENCODING_DER = 2

_BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSession(NamedTuple):
    """The result of a TLS handshake, kept because a closed socket can no longer tell it."""

    version: str
    """As OpenSSL names it, for example "TLSv1.3"."""
    cipher: str
    certificate: Mapping[str, object] | None
    """The client's, as `ssl.SSLSocket.getpeercert` returns it; None without a verified one."""
    chain: tuple[bytes, ...] = ()
    """The same certificate in DER, and those that the client sent behind it; empty without a verified one."""

    @classmethod
    def of(cls, sock: ssl.SSLSocket) -> TlsSession:
        """Read the session from a socket that has finished its handshake."""
        cipher = sock.cipher()
        certificate = sock.getpeercert()
        chain = _sent_chain(sock) if certificate else ()
        return cls(sock.version() or "", cipher[0] if cipher else "", certificate, chain)


def _sent_chain(sock: Any) -> tuple[bytes, ...]:
    """The certificates that the peer has sent, its own first, in DER."""
    own = sock.getpeercert(binary_form=True)
    # Public since Python 3.13. A resumed session has the peer's own certificate alone.
    chain = [certificate.public_bytes(_ENCODING_DER) for certificate in sock._sslobj.get_unverified_chain() or ()]
    return (own, *[der for der in chain if der != own])


class OctetCounts:
    """The octets that a transport has received and sent; under TLS, those that are in its records."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0


def _read_nothing(size: int) -> bytes:
    return b""


class Transport:
    """A connected socket, for one thread at a time: SSLSocket is not thread-safe.

    Any method may raise OSError, of which ssl.SSLError is a subclass, if the connection is broken.
    """

    def __init__(self, sock: socket.socket, wrap: Callable[[socket.socket], ssl.SSLSocket] | None = None) -> None:
        """`wrap` wraps the socket in TLS, without a handshake yet; it is called when that begins."""
        sock.setblocking(False)
        self.tls = wrap is not None
        # A client that never says anything costs no TLS object, which takes tens of KiB.
        self._wrap = wrap
        # A TLS read returns one record at most.
        self.full_read = _RECEIVE_SIZE if wrap is None else _RECORD_SIZE
        """The most octets that `receive` returns; after a full read, more has usually arrived."""
        self.sock: socket.socket = sock
        self._can_cork: bool | None = None
        """Whether TCP_CORK may be used; None before it is needed."""
        self.wants_write = False
        """Whether TLS must write before it can continue the handshake."""
        self.session: TlsSession | None = None
        """Set when the handshake is complete."""
        self._unwrapped: socket.socket | None = None
        self._read: Callable[[int], bytes]
        self._send: Callable[[bytes | memoryview], int]
        self._use_socket()
        self._half_closed = False

    @property
    def handshake_begun(self) -> bool:
        """Whether the client has begun a TLS handshake, which costs the server something."""
        return self.tls and self._wrap is None

    def fileno(self) -> int:
        """The socket's file descriptor."""
        return self.sock.fileno()

    def local_address(self) -> Any:
        """The socket's own address, in the form of its family; None if the connection is gone."""
        try:
            return self.sock.getsockname()
        except OSError:
            return None

    def handshake(self) -> bool:
        """Begin or continue the TLS handshake; return whether it is complete."""
        if self._wrap is not None:
            arrived = self.peek(1)
            if arrived is WOULD_BLOCK:
                return False
            if not arrived:
                raise ClosedEarly("closed before the TLS handshake")
            wrap, self._wrap = self._wrap, None
            self.sock = wrap(self.sock)
            self._use_socket()
        sock: Any = self.sock
        self.wants_write = False
        try:
            # As in `_bypass_socket`. Where the connection is gone, only the socket is there, which says so.
            (sock._sslobj or sock).do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        self.session = TlsSession.of(sock)
        self._bypass_socket(sock)
        return True

    def _use_socket(self) -> None:
        """Read and write by the socket's own methods."""
        self._read, self._send = self.sock.recv, self.sock.send

    def _bypass_socket(self, sock: Any) -> None:
        """Read and write TLS without the layers of Python above it, which differ between ssl, gevent and eventlet."""
        self._read, self._send = sock._sslobj.read, sock._sslobj.write

    def count_octets(self) -> OctetCounts:
        """Count what is received and sent from now on, until the transport is closed in our direction."""
        counts, read, send = OctetCounts(), self._read, self._send

        def counted_read(size: int) -> bytes:
            data = read(size)
            counts.received += len(data)
            return data

        def counted_send(data: bytes | memoryview) -> int:
            sent = send(data)
            counts.sent += sent
            return sent

        self._read, self._send = counted_read, counted_send
        return counts

    def selected_protocol(self) -> str | None:
        """The protocol that ALPN chose; None without one."""
        return self.sock.selected_alpn_protocol() if isinstance(self.sock, ssl.SSLSocket) else None

    def receive(self) -> bytes | None:
        """Return what has arrived, `full_read` octets at most, b"" at the end of the connection, or WOULD_BLOCK."""
        try:
            return self._read(self.full_read)
        except _BLOCKED:
            return WOULD_BLOCK
        except ssl.SSLEOFError:
            # Without close_notify, which HTTP/2 can do without: its frames have lengths. It would be another error if
            # OpenSSL were asked again.
            self._read = _read_nothing
            return b""

    def peek(self, size: int) -> bytes | None:
        """Return what has arrived, `size` octets at most, and leave it there; only before the TLS handshake begins."""
        try:
            return self.sock.recv(size, socket.MSG_PEEK)
        except BlockingIOError:
            return WOULD_BLOCK

    def skip(self, size: int) -> None:
        """Take octets away that `peek` has returned."""
        if size:
            self.sock.recv(size)

    def take_error(self) -> OSError | None:
        """The socket's pending error, which no call has reported yet; None without one."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(code, os.strerror(code)) if code else None

    def limit_unsent(self) -> None:
        """Have the kernel take little more than TCP can send now; does nothing without the socket option.

        By default the kernel takes megabytes, which delay a later, more urgent response. Octets that are sent but not
        acknowledged do not count, so a long round trip costs no throughput.
        """
        if _NOTSENT_LOWAT is None:
            return
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _MOST_UNSENT)
        except OSError:
            # Not TCP, or the peer is gone: a read will tell.
            pass

    def send(self, data: bytes | memoryview) -> int:
        """Send as much of `data` as the socket takes; return the number of octets."""
        if not self.tls or len(data) <= _RECORD_SIZE:
            try:
                return self._send(data)
            except _BLOCKED:
                return 0
        if self._can_cork is None:
            self._can_cork = _HAS_CORK and self.sock.family in (socket.AF_INET, socket.AF_INET6)
        if not self._can_cork:
            return self._send_pieces(memoryview(data))
        # OpenSSL writes each record separately; TCP_CORK lets the kernel fill its segments.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            return self._send_pieces(memoryview(data))
        finally:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _send_pieces(self, view: memoryview) -> int:
        # If TLS blocks within a piece, it does not report how much was sent, and the same piece must be sent again.
        sent = 0
        while sent < len(view):
            try:
                sent += self._send(view[sent : sent + _TLS_PIECE_SIZE])
            except _BLOCKED:
                break
        return sent

    def untaken_octets(self) -> int:
        """The octets sent that the peer has not acknowledged; 0 if the system cannot tell."""
        try:
            queued = fcntl.ioctl(self.sock, termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):
            return 0
        return int.from_bytes(queued, sys.byteorder)

    def taken_octets(self) -> int:
        """The octets sent so far that the peer has acknowledged; 0 if the system cannot tell."""
        if _TCP_INFO is None:
            return 0
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_ACKED.stop)
        except OSError:
            # Not TCP, or the connection is gone.
            return 0
        return int.from_bytes(info[_BYTES_ACKED], sys.byteorder)

    def round_trip(self) -> float | None:
        """The shortest round trip of the last minutes, in seconds, as TCP has measured it; None if it cannot tell.

        Longer ones would mostly tell of acknowledgements that the peer has delayed.
        """
        if _TCP_INFO is None:
            return None
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _MIN_ROUND_TRIP.stop)
        except OSError:
            # Not TCP, or the connection is gone.
            return None
        # An older kernel returns less; before the first measurement all bits are set.
        microseconds = int.from_bytes(info[_MIN_ROUND_TRIP], sys.byteorder)
        return microseconds / 1_000_000 if 0 < microseconds < 0xFFFF_FFFF else None

    def half_close(self) -> None:
        """Close our direction, TLS and TCP; further calls have no effect."""
        if self._half_closed:
            return
        self._half_closed = True
        # Data that still arrives is dropped; `read` would fail after the end of TLS.
        self._use_socket()
        if isinstance(self.sock, ssl.SSLSocket):
            try:
                # Kept, because the object that eventlet returns closes the socket when it is collected.
                self._unwrapped = self.sock.unwrap()
            except (OSError, ValueError):
                # The peer's own close_notify is not waited for.
                pass
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        """Close the socket."""
        self._use_socket()
        try:
            self.sock.close()
        except OSError:
            pass
