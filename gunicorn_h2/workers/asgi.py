"""The worker for ASGI applications: Gunicorn's asgi worker, with HTTP/2 beside its HTTP/1.

Gunicorn's code runs the event loop, the lifespan protocol, HTTP/1 and WebSocket. Ours accepts the connections,
negotiates their protocol, and serves those that speak HTTP/2.
"""

from __future__ import annotations

import asyncio
import importlib.util
import select
import signal
import socket
from functools import partial
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from gunicorn_h2.apps.asgi import ASGIHandler
from gunicorn_h2.drivers.asyncio_accept import Acceptor
from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.asyncio_transport import TlsTransport
from gunicorn_h2.drivers.base import ROOM_SECONDS
from gunicorn_h2.drivers.closings import REPORT_SECONDS
from gunicorn_h2.drivers.peers import connected_peer
from gunicorn_h2.drivers.transport import Transport

from .base import Http2Worker

__all__ = ["ASGIWorker"]

_HEARTBEAT_SECONDS = 1.0
# Tasks are cancelled after this fraction of `graceful_timeout`, which leaves them time to clean up.
_CANCEL_BEFORE = 0.9
# Gunicorn's handlers, which it adds to the event loop.
_SIGNAL_HANDLERS: dict[int, str] = {
    signal.SIGABRT: "handle_abort_signal",
    signal.SIGINT: "handle_quit_signal",
    signal.SIGQUIT: "handle_quit_signal",
    signal.SIGTERM: "handle_exit_signal",
    signal.SIGUSR1: "handle_usr1_signal",
}


class _Http1Protocol(ASGIProtocol):  # type: ignore[misc]
    """Gunicorn's HTTP/1 protocol, which begins with `data` that was read already and reports its end to the worker."""

    def __init__(self, worker: ASGIWorker, peer: Any, data: bytes) -> None:
        super().__init__(worker)
        self._peer = peer
        self._data = data

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol.connection_made`."""
        # Gunicorn is about to count the connection, which the worker has counted already.
        self.worker.nr_conns -= 1
        super().connection_made(transport)
        if self._data:
            self.data_received(self._data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol.connection_lost`."""
        connections = self.worker.nr_conns
        super().connection_lost(exc)
        # Gunicorn 25 does not subtract connections that it closed itself.
        self.worker.nr_conns = connections
        self.worker.connection_closed(self._peer)


class ASGIWorker(Http2Worker, gasgi.ASGIWorker):  # type: ignore[misc]
    """HTTP/2 for ASGI applications, with a task for each request; HTTP/1 by Gunicorn's own code."""

    loop: asyncio.AbstractEventLoop
    nr_conns: int
    sockets: list[Any]

    _driver: AsyncioDriver | None = None
    _main: asyncio.Task[Any] | None
    _stopping = False

    def init_process(self) -> None:
        """Run the worker in its process; return when it ends."""
        self.make_terms()
        self._listeners = list(self.sockets)
        self._starting_http1: set[asyncio.Task[None]] = set()
        super().init_process()

    def init_signals(self) -> None:
        """Handle signals that come while the application is loaded; uvloop would leave them until the next one."""
        super().init_signals()
        for number in _SIGNAL_HANDLERS:
            signal.signal(number, lambda number, _: getattr(self, _SIGNAL_HANDLERS[number])())

    async def _serve(self) -> None:
        """Have the event loop handle signals, now that it runs, and serve."""
        for number, name in _SIGNAL_HANDLERS.items():
            self.loop.add_signal_handler(number, getattr(self, name))
        await super()._serve()

    def _get_ssl_context(self) -> None:
        """Accept connections; Gunicorn calls this when the application has started.

        Gunicorn itself then finds no socket to listen on.
        """
        self.begin_serving()
        self._main = asyncio.current_task()
        handler = self._make_handler()
        self._driver = AsyncioDriver(
            self.loop,
            self.settings.connection,
            handler,
            self.log,
            on_request=self.count_request,
            on_refused=handler.note_refusal,
            on_close=self.connection_closed,
            admission=self.admission,
            trace=self.trace,
        )
        for listener in self._listeners:
            self.servers.append(Acceptor(self.loop, listener.sock, self._take, self._is_busy, self.log))
            self.log.info("ASGI server listening on %s", listener)
        self.sockets = []
        self._report_due = self.loop.time()
        self._report()

    @property
    def open_connections(self) -> int:
        """See `Http2Worker.open_connections`."""
        return self.nr_conns

    @classmethod
    def websocket_obstacle(cls) -> str | None:
        """See `Http2Worker.websocket_obstacle`."""
        if importlib.util.find_spec("websockets") is not None:
            return None
        return "the websockets library is missing; install gunicorn-h2[websocket]"

    def _make_handler(self) -> ASGIHandler:
        if not self.settings.connection.websocket:
            return ASGIHandler(self)
        # It needs the library.
        from gunicorn_h2.apps.websocket import WebSocketASGIHandler

        return WebSocketASGIHandler(self, self.settings.websocket_max_message_size)

    def _cleanup(self) -> None:
        """Restore the sockets for Gunicorn's clean-up, which it calls last."""
        self.sockets = self._listeners
        super()._cleanup()

    # Connections

    def _take(self, sock: socket.socket, peer: Any) -> None:
        """Count a new connection and negotiate its protocol."""
        assert self._driver is not None
        if not self.admission.admit(sock, peer):
            return
        self.nr_conns += 1
        if self.make_room(self._driver, self.nr_conns):
            for server in self.servers:
                server.pause()
            self.loop.call_later(ROOM_SECONDS, self._make_room_again)
        terms = self.terms(peer)
        if terms is not None:
            self._driver.negotiate(sock, peer, terms, self._serve_http1)
        else:
            self._serve_http1(Transport(sock), peer, b"")

    def has_newcomers(self) -> bool:
        """See `Http2Worker.has_newcomers`; `sockets` is empty while Gunicorn's code runs."""
        return bool(select.select(self._listeners, (), (), 0)[0])

    def _make_room_again(self) -> None:
        """While no connection can be accepted, look for those that have become idle."""
        assert self._driver is not None
        if self.make_room(self._driver, self.nr_conns):
            self.loop.call_later(ROOM_SECONDS, self._make_room_again)

    def _is_busy(self) -> bool:
        """Whether handshakes wait for the processor already; those to come then wait in the backlog."""
        assert self._driver is not None
        return self._driver.slow_lane.is_long

    def connection_closed(self, peer: Any) -> None:
        """Count a closed connection, of either protocol."""
        self.admission.release(peer)
        self.nr_conns -= 1
        if self.nr_conns < self.worker_connections:
            for server in self.servers:
                server.resume()

    def _serve_http1(self, transport: Transport, peer: Any, data: bytes, header: bytes = b"") -> None:
        """Give a connection to Gunicorn's own code, with the `data` read during negotiation, behind a PROXY header."""
        if self.must_refuse_http1(peer):
            self.refuse_http1(transport.sock, peer, data)
            self.connection_closed(peer)
            return
        data = header + data
        self.http1_connections += 1
        if transport.tls:
            TlsTransport(self.loop, transport, _Http1Protocol(self, peer, data), connected_peer(peer))
        else:
            task = self.loop.create_task(self._serve_cleartext_http1(transport.sock, peer, data))
            self._starting_http1.add(task)
            task.add_done_callback(self._starting_http1.discard)

    async def _serve_cleartext_http1(self, sock: socket.socket, peer: Any, data: bytes) -> None:
        try:
            await self.loop.connect_accepted_socket(partial(_Http1Protocol, self, peer, data), sock)
        except OSError as error:
            self.log.debug("connection failed: %s", error)
            sock.close()
            self.connection_closed(peer)

    # The end

    def retire(self) -> None:
        """See `Http2Worker.retire`."""
        super().retire()
        self._wake_main()

    def handle_exit_signal(self) -> None:
        """Handle SIGTERM: begin the shutdown at once."""
        super().handle_exit_signal()
        self._wake_main()

    async def _shutdown(self) -> None:
        """Stop the worker; Gunicorn calls this for whatever reason it stops."""
        self._stop_soon()
        await super()._shutdown()

    def _wake_main(self) -> None:
        """Begin the shutdown, and cancel Gunicorn's main loop, which would otherwise notice within a second."""
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

    def _report(self) -> None:
        """Have logged and counted what was held back, and look at the certificates, once a second."""
        assert self._driver is not None
        now = self.loop.time()
        late, self._report_due = max(now - self._report_due, 0.0), now + REPORT_SECONDS
        # First, so that no error is the last of it.
        self.loop.call_at(self._report_due, self._report)
        self.report(self._driver, late)
        self.check_certificates()

    def _heartbeat(self) -> None:
        """Notify the arbiter until the end: Gunicorn's own heartbeat stops before the last connections have ended."""
        self.notify()
        self.loop.call_later(_HEARTBEAT_SECONDS, self._heartbeat)
