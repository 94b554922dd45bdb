"""What every driver does alike, however it waits: begin a connection, and contain a defect."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import RequestRefused
from gunicorn_h2.protocol.windows import WindowBudget

from .channel import Channel
from .connection import Http2Connection, TransportConnection
from .handshake_errors import HandshakeLog
from .log import Log
from .negotiation import Negotiation, Terms, adequate_cipher

__all__ = ["Application", "Driver", "HandOver", "RefusalHandler"]


Application = Callable[[Http2Connection, Channel], object]
RefusalHandler = Callable[[TransportConnection, RequestRefused], object]
HandOver = Callable[[socket.socket, object, object, bytes], None]

_ApplicationT = TypeVar("_ApplicationT")


class Driver(Generic[_ApplicationT]):
    """The base of the drivers, one for a worker."""

    def __init__(
        self,
        config: ConnectionConfig,
        application: _ApplicationT,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
    ) -> None:
        """`application` serves one request; drivers whose applications block call it elsewhere than in the owner.

        `on_request` is called for each request, and `on_refused`, where the application is, for each that
        the core has answered itself.
        """
        self.config = config
        self.log = log
        self.window_budget = WindowBudget(config.worker_window_size)
        self.application = application
        self.on_request = on_request
        self.on_refused = on_refused
        self._handshakes = HandshakeLog(log)
        self._shutting_down = False

    def begin_negotiation(self, sock: socket.socket, peer: object, terms: Terms) -> Negotiation | None:
        """Make a `Negotiation`; None, and the socket closed, where there is no one left to negotiate with."""
        try:
            return Negotiation(sock, peer, terms)
        except OSError as error:
            # TLS looks at the socket at once; a client may have reset the connection by then.
            self.log.debug("connection from %s failed: %s", peer, error)
            sock.close()
            return None

    def end_failed(self, negotiation: Negotiation) -> None:
        """Close a connection that ended before anyone knew what it speaks, and log why."""
        error = negotiation.error
        assert error is not None
        if negotiation.transport.tls:
            self._handshakes.failed(negotiation.peer, error)
        else:
            self.log.debug("connection from %s failed: %s", negotiation.peer, error)
        negotiation.transport.close()

    def begin(self, connection: TransportConnection, negotiation: Negotiation) -> None:
        """Let a new connection act on what was read before it was known to be HTTP/2."""
        connection.transport.limit_unsent()
        if not adequate_cipher(connection.transport.session):
            connection.fail(ErrorCode.INADEQUATE_SECURITY, "cipher suite")
            return
        if negotiation.upgrade is not None:
            connection.receive_upgrade(negotiation.upgrade)
        if connection.transport.tls:
            # What the client sends behind its handshake is often there already: one write then answers it all.
            connection.handle_readable()
            connection.schedule_flush()
        else:
            connection.receive(negotiation.data)
        if self._shutting_down and not connection.closed:
            connection.shutdown()

    def contain(self, connection: TransportConnection | Negotiation) -> None:
        """Call where an exception came out of a connection: a defect costs one connection, never the worker."""
        self.log.exception("HTTP/2 connection from %s ended by an internal error", connection.peer)
        connection.abandon()
