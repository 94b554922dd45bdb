"""What all drivers share: beginning a connection, and containing a defect."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import RequestRefused
from gunicorn_h2.protocol.outbox import OutputBudget
from gunicorn_h2.protocol.windows import WindowBudget

from .channel import Channel
from .connection import Http2Connection, TransportConnection
from .handshake_errors import HandshakeLog
from .log import Log
from .negotiation import Negotiation, Terms, adequate_cipher
from .spool import Spool

__all__ = ["Application", "Driver", "HandOver", "RefusalHandler"]


Application = Callable[[Http2Connection, Channel], object]
RefusalHandler = Callable[[TransportConnection, RequestRefused], object]
HandOver = Callable[[socket.socket, object, object, bytes], None]

_ApplicationT = TypeVar("_ApplicationT")


class Driver(Generic[_ApplicationT]):
    """The base of the drivers; one for each worker."""

    def __init__(
        self,
        config: ConnectionConfig,
        application: _ApplicationT,
        log: Log,
        on_request: Callable[[], None],
        on_refused: RefusalHandler,
    ) -> None:
        """`application` serves one request; drivers whose applications block call it in another thread or greenlet.

        `on_request` is called for each request; `on_refused`, in the place where applications run, for each
        request that the core has answered itself.
        """
        self.config = config
        self.log = log
        self.window_budget = WindowBudget(config.worker_window_size)
        self.output_budget = OutputBudget(config.worker_buffer_size or math.inf)
        self.spool = Spool(config.worker_spool_size, log)
        self.application = application
        self.on_request = on_request
        self.on_refused = on_refused
        self._handshakes = HandshakeLog(log)
        self._shutting_down = False

    def begin_negotiation(self, sock: socket.socket, peer: object, terms: Terms) -> Negotiation | None:
        """Make a `Negotiation`; close the socket and return None if the client is gone already."""
        try:
            return Negotiation(sock, peer, terms)
        except OSError as error:
            # Wrapping in TLS fails if the client has reset the connection.
            self.log.debug("connection from %s failed: %s", peer, error)
            sock.close()
            return None

    def end_failed(self, negotiation: Negotiation) -> None:
        """Close a connection that ended before its protocol was known, and log why."""
        error = negotiation.error
        assert error is not None
        if negotiation.transport.tls:
            self._handshakes.failed(negotiation.peer, error)
        else:
            self.log.debug("connection from %s failed: %s", negotiation.peer, error)
        negotiation.transport.close()

    def begin(self, connection: TransportConnection, negotiation: Negotiation) -> None:
        """Give a new connection the data read during negotiation."""
        connection.transport.limit_unsent()
        if not adequate_cipher(connection.transport.session):
            connection.fail(ErrorCode.INADEQUATE_SECURITY, "cipher suite")
            return
        if negotiation.upgrade is not None:
            connection.receive_upgrade(negotiation.upgrade)
        if connection.transport.tls:
            # Data that the client sent after its handshake has often arrived: one write then answers all of it.
            connection.handle_readable()
            connection.schedule_flush()
        else:
            connection.receive(negotiation.data)
        if self._shutting_down and not connection.closed:
            connection.shutdown()

    def contain(self, connection: TransportConnection | Negotiation) -> None:
        """Handle an exception from a connection: a defect costs one connection, never the worker."""
        self.log.exception("HTTP/2 connection from %s ended by an internal error", connection.peer)
        connection.abandon()
