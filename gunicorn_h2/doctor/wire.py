"""Sockets with a deadline: name resolution, connecting, TLS as a client."""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

__all__ = ["PROTOCOLS", "Address", "Wire", "connect", "make_context", "pinned_context", "resolve"]

PROTOCOLS = ("h2", "http/1.1")
"""What a client of both versions offers by ALPN."""
MAX_ADDRESSES = 8
_READ_SIZE = 65_536
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which the ssl module does not name.
_NO_CHECK_TIME = 0x200000


@dataclass(frozen=True)
class Address:
    """One address that a name was resolved to."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        host, port = self.sockaddr[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


class Wire:
    """A connection; everything that happens on it must be over at one deadline.

    Methods raise `OSError`, of which `TimeoutError` and `ssl.SSLError` are kinds.
    """

    def __init__(self, sock: socket.socket, address: Address, deadline: float) -> None:
        """`deadline` is a time of `time.monotonic`."""
        self._sock = sock
        self._deadline = deadline
        self.address = address

    def start_tls(self, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        """Do the handshake, for the name `host`; return the socket, to be asked what was negotiated."""
        self._sock.settimeout(self._left())
        # The handshake's timeout is a deadline: it is not prolonged by octets that come one at a time.
        secured = context.wrap_socket(self._sock, server_hostname=host)
        self._sock = secured
        return secured

    def send(self, data: bytes) -> None:
        """Send all of it."""
        if data:
            self._sock.settimeout(self._left())
            self._sock.sendall(data)

    def receive(self) -> bytes:
        """Wait for octets; return some of them, or none if the peer has closed the connection."""
        self._sock.settimeout(self._left())
        try:
            return self._sock.recv(_READ_SIZE)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def resolve(host: str, port: int, timeout: float) -> list[Address]:
    """Resolve a name, in at most `timeout` seconds. Raises `OSError`: `socket.gaierror` or `TimeoutError`."""
    results: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

    def look_up() -> None:
        """Call the resolver, which has no timeout of its own."""
        try:
            results.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError as error:
            results.put(socket.gaierror(socket.EAI_NONAME, str(error)))
        except OSError as error:
            results.put(error)

    threading.Thread(target=look_up, daemon=True).start()
    try:
        found = results.get(timeout=timeout)
    except queue.Empty:
        raise TimeoutError("timed out") from None
    if isinstance(found, OSError):
        raise found
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found[:MAX_ADDRESSES]]


def connect(address: Address, timeout: float, connect_timeout: float | None = None) -> Wire:
    """Connect to an address, within `connect_timeout`; `timeout` seconds are for this and everything after.

    Raises `OSError`.
    """
    deadline = time.monotonic() + timeout
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(connect_timeout or timeout)
        sock.connect(address.sockaddr)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return Wire(sock, address, deadline)


def make_context(alpn: tuple[str, ...], cacert: str | None, verify: bool) -> ssl.SSLContext:
    """A client's TLS context, which accepts suites that HTTP/2 prohibits: they are to be seen.

    Raises `OSError` if the file `cacert` cannot be read, or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif cacert is not None:
        context.load_verify_locations(cacert)
    else:
        context.load_default_certs()
    context.set_ciphers("DEFAULT")
    context.set_alpn_protocols(list(alpn))
    return context


def pinned_context(alpn: tuple[str, ...], der: bytes) -> ssl.SSLContext:
    """A context that trusts this one certificate, whatever is wrong with it: `getpeercert` then decodes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_ciphers("DEFAULT")
    context.load_verify_locations(cadata=der)
    context.set_alpn_protocols(list(alpn))
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    return context
