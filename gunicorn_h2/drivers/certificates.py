"""The certificates that TLS contexts present, and their names.

A context does not tell its certificate. So it is asked as a client would ask it: by a handshake of the worker with
itself, once for each context. A server may have several, which a callback chooses from by the client's SNI.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from weakref import WeakKeyDictionary

from gunicorn_h2.protocol.authority import CertificateNames

from .log import Log
from .transport import Transport

__all__ = ["Certificates"]

_MAX_FLIGHT = 1_048_576


class Certificates:
    """Certificates and their names by TLS context; one for each worker, for the thread that owns the connections."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._certificates: WeakKeyDictionary[ssl.SSLContext, bytes | None] = WeakKeyDictionary()
        self._names: WeakKeyDictionary[ssl.SSLContext, CertificateNames | None] = WeakKeyDictionary()

    def names(self, context: ssl.SSLContext) -> CertificateNames | None:
        """The names of the certificate that `context` presents; None if it cannot be told, which the log says once."""
        if context not in self._names:
            der = self.presented(context)
            self._names[context] = names = None if der is None else CertificateNames(der)
            if names is None:
                self._log.warning("The names of a certificate are not known: authorities are not checked against it")
            elif not names:
                self._log.warning("A certificate has no subjectAltName: requests for any authority are answered 421")
        return self._names[context]

    def presented(self, context: ssl.SSLContext) -> bytes | None:
        """The certificate that `context` presents, in DER; None if it cannot be told."""
        if context not in self._certificates:
            try:
                self._certificates[context] = _presented(context)
            except (OSError, ValueError) as error:
                # The context demands more of a client than it knows of itself, or the callback does.
                self._certificates[context] = None
                self._log.debug("The handshake for a certificate failed: %s", error)
        return self._certificates[context]


def _presented(context: ssl.SSLContext) -> bytes | None:
    """The certificate in DER that a context presents to a client without SNI; None if it leaves that to another one.

    Raises OSError, of which ssl.SSLError is a subclass, or ValueError.
    """
    ours, theirs = socket.socketpair()
    server = Transport(ours, partial(context.wrap_socket, server_side=True, do_handshake_on_connect=False))
    theirs.setblocking(False)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = _trusting_context().wrap_bio(to_client, to_server)
    try:
        # In TLS 1.3 the client is done before the server asks for its certificate.
        while not _advance(client):
            theirs.sendall(to_server.read())
            server.handshake()
            to_client.write(theirs.recv(_MAX_FLIGHT))
        assert isinstance(server.sock, ssl.SSLSocket)
        return client.getpeercert(binary_form=True) if server.sock.context is context else None
    finally:
        server.close()
        theirs.close()


def _trusting_context() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _advance(client: ssl.SSLObject) -> bool:
    """Continue the client's part of a handshake; return whether it has finished."""
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
