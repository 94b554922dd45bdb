"""The worker for ASGI applications: Gunicorn's asgi worker, with HTTP/2 beside its HTTP/1.

Gunicorn's code keeps the event loop, the lifespan protocol, HTTP/1 and its WebSocket. Ours accepts
the connections, finds out what they speak, and serves those that speak HTTP/2.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from gunicorn_h2.apps.asgi import ASGIHandler
from gunicorn_h2.drivers.asyncio_accept import Acceptor
from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.asyncio_transport import TlsTransport
from gunicorn_h2.drivers.transport import Transport

from .base import Http2Worker

__all__ = ["ASGIWorker"]

_HEARTBEAT_SECONDS = 1.0
# Cancelled tasks have a moment to clean up before the arbiter's patience ends.
_CANCEL_BEFORE = 0.9


class _Http1Protocol(ASGIProtocol):  # type: ignore[misc]
    """Gunicorn's own; it begins with what was read already, and tells the worker that it is over."""

    def __init__(self, worker: ASGIWorker, data: bytes) -> None:
        super().__init__(worker)
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol.connection_made`."""
        # The worker has counted the connection, and Gunicorn counts it once more.
        self.worker.nr_conns -= 1
        super().connection_made(transport)
        if self._data:
            self.data_received(self._data)

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

    _driver: AsyncioDriver | None = None
    _main: asyncio.Task[Any] | None
    _stopping = False

    def init_process(self) -> None:
        """Called in the worker's process; does not return before the worker ends."""
        self.make_terms()
        self._listeners = list(self.sockets)
        self._starting_http1: set[asyncio.Task[None]] = set()
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
        for listener in self._listeners:
            self.servers.append(Acceptor(self.loop, listener.sock, self._take, self.log))
            self.log.info("ASGI server listening on %s", listener)
        self.sockets = []

    def _cleanup(self) -> None:
        """Called by Gunicorn last."""
        self.sockets = self._listeners
        super()._cleanup()

    # Connections

    def _take(self, sock: socket.socket, peer: Any) -> None:
        """Find out what a new connection speaks."""
        assert self._driver is not None
        self.nr_conns += 1
        if self.nr_conns >= self.worker_connections:
            for server in self.servers:
                server.pause()
        terms = self.terms(peer)
        if terms is not None:
            self._driver.negotiate(sock, peer, terms, self._serve_http1)
        else:
            self._serve_http1(Transport(sock), peer, b"")

    def connection_closed(self) -> None:
        """A connection is gone, whoever had it last."""
        self.nr_conns -= 1
        if self.nr_conns < self.worker_connections:
            for server in self.servers:
                server.resume()

    def _serve_http1(self, transport: Transport, peer: Any, data: bytes) -> None:
        """Give a connection to Gunicorn's own code; `data` was read in search of the preface."""
        if self.must_refuse_http1(peer):
            self.refuse_http1(transport.sock, peer)
            self.connection_closed()
        elif transport.tls:
            TlsTransport(self.loop, transport, _Http1Protocol(self, data), peer)
        else:
            task = self.loop.create_task(self._serve_cleartext_http1(transport.sock, data))
            self._starting_http1.add(task)
            task.add_done_callback(self._starting_http1.discard)

    async def _serve_cleartext_http1(self, sock: socket.socket, data: bytes) -> None:
        try:
            await self.loop.connect_accepted_socket(partial(_Http1Protocol, self, data), sock)
        except OSError as error:
            self.log.debug("connection failed: %s", error)
            sock.close()
            self.connection_closed()

    # The end

    def retire(self) -> None:
        """See `Http2Worker.retire`."""
        super().retire()
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
