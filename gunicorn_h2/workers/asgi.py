"""The worker for ASGI applications: Gunicorn's asgi worker, with HTTP/2 beside its HTTP/1.

Gunicorn's code keeps the event loop, the lifespan protocol, HTTP/1 and its WebSocket. Ours accepts
the connections, finds out what they speak, and serves those that speak HTTP/2.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from gunicorn_h2.apps.asgi import ASGIHandler
from gunicorn_h2.drivers.asyncio_accept import Acceptor, Room
from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.handshake_errors import HandshakeLog
from gunicorn_h2.drivers.opening import Opening

from .base import PREFACE_EXPECTED, Http2Worker
from .tls import make_context

__all__ = ["ASGIWorker"]

_REFUSAL = PREFACE_EXPECTED.encode()
_HEARTBEAT_SECONDS = 1.0
# Cancelled tasks have a moment to clean up before the arbiter's patience ends.
_CANCEL_BEFORE = 0.9


class _Http1Protocol(ASGIProtocol):  # type: ignore[misc]
    """Gunicorn's own; it tells the worker that it is over."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        connections = self.worker.nr_conns
        super().connection_lost(exc)
        # Gunicorn 25 forgets to count out connections that it closed itself.
        self.worker.nr_conns = connections
        self.worker.connection_closed()


class ASGIWorker(Http2Worker, gasgi.ASGIWorker):  # type: ignore[misc]
    """HTTP/2 for ASGI applications, a task for each request; HTTP/1 by Gunicorn's own code."""

    loop: asyncio.AbstractEventLoop
    nr_conns: int
    sockets: list[Any]

    _context: ssl.SSLContext | None = None
    _driver: AsyncioDriver | None = None
    _main: asyncio.Task[Any] | None
    _room: Room
    _stopping = False

    def init_process(self) -> None:
        """Called in the worker's process; does not return before the worker ends."""
        if self.cfg.is_ssl:
            self._context = make_context(self.cfg, self.settings.protocols)
        self._listeners = list(self.sockets)
        super().init_process()

    def _get_ssl_context(self) -> None:
        """Called by Gunicorn when the application has started and connections may come.

        They are accepted here, and Gunicorn finds no socket left to listen on.
        """
        self._main = asyncio.current_task()
        handler = ASGIHandler(self)
        self._driver = AsyncioDriver(
            self.loop,
            self.settings.connection,
            handler,
            self.log,
            on_request=self.count_request,
            on_refused=handler.note_refusal,
            on_close=self.connection_closed,
        )
        self._room = Room(self.worker_connections)
        timeout, handshakes = self.settings.handshake_timeout, HandshakeLog(self.log)
        for listener in self._listeners:
            acceptor = Acceptor(self.loop, listener.sock, self._room, self, self._context, timeout, handshakes)
            self.servers.append(acceptor)
            self.log.info("ASGI server listening on %s", listener)
        self.sockets = []

    def _cleanup(self) -> None:
        """Called by Gunicorn last."""
        self.sockets = self._listeners
        super()._cleanup()

    # Connections

    def connection_opened(self) -> None:
        """See `AcceptorHooks.connection_opened`."""
        self.nr_conns += 1
        self._room.update(self.nr_conns)

    def connection_closed(self) -> None:
        """See `AcceptorHooks.connection_closed`."""
        self.nr_conns -= 1
        self._room.update(self.nr_conns)

    def serve_http2(self, transport: asyncio.Transport, opening: Opening | None) -> None:
        """See `AcceptorHooks.serve_http2`."""
        assert self._driver is not None
        self._driver.adopt(transport, opening)

    def serve_http1(self, transport: asyncio.Transport, data: bytes) -> None:
        """See `AcceptorHooks.serve_http1`: Gunicorn's own code does."""
        peer = transport.get_extra_info("peername")
        if self.must_refuse_http1(peer):
            self._refuse_http1(transport, peer)
            return
        protocol = _Http1Protocol(self)
        transport.set_protocol(protocol)
        # Gunicorn counts it once more.
        self.nr_conns -= 1
        protocol.connection_made(transport)
        if data:
            protocol.data_received(data)

    def _refuse_http1(self, transport: asyncio.Transport, peer: Any) -> None:
        """With prior knowledge alone, another protocol is a mistake of the deployment's: say so."""
        self.warn_of_http1(peer)
        transport.write(
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(_REFUSAL), _REFUSAL)
        )
        transport.close()

    # The end

    def count_request(self) -> None:
        """Count a request, and end the worker after `max_requests`."""
        super().count_request()
        if not self.alive:
            self._wake_main()

    def handle_exit_signal(self) -> None:
        """SIGTERM: clients hear of it at once."""
        super().handle_exit_signal()
        self._wake_main()

    async def _shutdown(self) -> None:
        """Called by Gunicorn when the worker is to stop, for whichever reason."""
        self._stop_soon()
        await super()._shutdown()

    def _wake_main(self) -> None:
        """Gunicorn's main loop would notice within a second; a cancellation ends it sooner, and it alone."""
        if self._driver is not None and not self._stopping:
            assert self._main is not None
            self._main.cancel()
        self._stop_soon()

    def _stop_soon(self) -> None:
        if not self._stopping and self._driver is not None:
            self._stopping = True
            for server in self.servers:
                server.close()
            self._driver.shutdown()
            self.loop.call_later(self.cfg.graceful_timeout * _CANCEL_BEFORE, self._driver.cancel)
            self._heartbeat()

    def _heartbeat(self) -> None:
        """Gunicorn's own ends before the last connections do, which may take longer than `timeout`."""
        self.notify()
        self.loop.call_later(_HEARTBEAT_SECONDS, self._heartbeat)
