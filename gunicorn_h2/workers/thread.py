"""The threaded worker: Gunicorn's gthread worker, with HTTP/2 beside its HTTP/1.

Gunicorn's code and the HTTP/2 driver share one selector and one pool of threads. The driver decides which
thread waits in the selector: the main thread, or one of the pool while Gunicorn's main loop watches. Its
lock makes them one: Gunicorn's own data is touched by the thread that holds it. A connection that turns out
to speak HTTP/1 goes to Gunicorn's own code as if it had just been accepted.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
import sys
import time
from functools import partial
from typing import Any

from gunicorn.http import get_parser
from gunicorn.http.parser import RequestParser
from gunicorn.workers import gthread

from gunicorn_h2.apps.wsgi_socket import WebSocketWSGIHandler
from gunicorn_h2.drivers.admission import HARMLESS_ACCEPT_ERRORS
from gunicorn_h2.drivers.closings import REPORT_SECONDS
from gunicorn_h2.drivers.peers import ProxiedPeer, connected_peer
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.drivers.threads import ThreadDriver

from .base import Http2Worker, tells_address

__all__ = ["ThreadWorker"]

_ROUND_SECONDS = 0.1
_MAX_ACCEPTS = 16
"""Connections accepted before sockets that are ready get their turn."""
_ACCEPT_SECONDS = 0.001
"""And for how long: while many connections come, the kernel sets up others in the accept of one."""
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)


def _open_spare() -> int:
    """Return a file descriptor; one that is not open if a thread of the application has taken the last one."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class _ProxiedParser(RequestParser):  # type: ignore[misc]
    """A parser that gives all requests what the PROXY header before the first one has told of the client."""

    _told: Any = None

    def __next__(self) -> Any:
        request = super().__next__()
        information = request.proxy_protocol_info
        if tells_address(information):
            self._told = information
        # Gunicorn's gthread worker, unlike its others, would give it to the first one only.
        request.proxy_protocol_info = self._told
        return request

    def expect_no_header(self) -> None:
        """Read the first request as Gunicorn's parser does later ones: without a PROXY header."""
        self.req_count = 1


class _Http1Connection(gthread.TConn):  # type: ignore[misc]
    """A connection of Gunicorn's own code, which says when it is closed."""

    parser: Any

    def __init__(self, worker: ThreadWorker, sock: socket.socket, peer: Any, local_address: Any) -> None:
        super().__init__(worker.cfg, sock, connected_peer(peer), local_address)
        self._worker = worker
        self._peer = peer

    def init(self) -> None:
        """See `gthread.TConn.init`."""
        if self.parser is None and self._worker.reads_proxy_headers:
            # Without TLS, since otherwise the connection comes with its parser.
            self.parser = _ProxiedParser(self.cfg, self.sock, self.client)
        super().init()

    def close(self, graceful: bool = False) -> None:
        """See `gthread.TConn.close`, which is called once, by the thread that holds the driver's lock."""
        self._worker.admission.release(self._peer)
        # Gunicorn 25.0 has no `graceful`.
        super().close(*([True] if graceful else []))


class ThreadWorker(Http2Worker, gthread.ThreadWorker):  # type: ignore[misc]
    """HTTP/2 with concurrent streams in a pool of `threads` threads; HTTP/1 by Gunicorn's own code."""

    _driver: ThreadDriver
    _spare: int
    """A spare file descriptor, closed when there is no other left."""
    _local_addresses: dict[Any, Any]
    """The addresses of the listening sockets, which Gunicorn's environ takes the server's name from."""
    _quitting = False
    _next_report = 0.0

    @classmethod
    def capacity(cls, cfg: Any) -> str:
        """Say how many requests run at a time."""
        return f"{cfg.threads} thread{'s' * (cfg.threads != 1)}"

    @property
    def open_connections(self) -> int:
        """See `Http2Worker.open_connections`."""
        return int(self.nr_conns)

    def init_process(self) -> None:
        """Run the worker in its process; return when it ends."""
        self.make_terms()
        super().init_process()

    def get_thread_pool(self) -> RequestPool:
        """Make the pool, which runs the requests of both protocols."""
        return RequestPool(self.cfg.threads, self.settings.max_waiting_threads, self.log)

    def run(self) -> None:
        """Serve until told to stop."""
        self.begin_serving()
        self._spare = _open_spare()
        self._local_addresses = {listener: listener.getsockname() for listener in self.sockets}
        # Of each other thread that waits, another one takes the place; and there is always one left.
        max_sockets = max(self.settings.max_waiting_threads // 2, self.cfg.threads - 1)
        handler = WebSocketWSGIHandler(self, max_sockets)
        self._driver = ThreadDriver(
            self.poller,
            self.tpool,
            self.settings.connection,
            handler,
            self.log,
            on_request=self.count_request,
            on_refused=handler.note_refusal,
            on_close=self._connection_closed,
            admission=self.admission,
            trace=self.trace,
        )
        super().run()

    # Connections

    def accept(self, listener: Any) -> None:
        """Accept connections and find out what they speak, without a thread waiting for them."""
        if self._driver.slow_lane.is_long or self.nr_conns >= self.worker_connections:
            # Handshakes wait for the processor already, or the main thread, which stops looking at the listening
            # sockets of a full worker, has not had its turn yet. Those to come wait in the backlog.
            return
        # Workers that share the listening socket share what comes together, too, as with Gunicorn's gevent worker.
        until = time.monotonic() + _ACCEPT_SECONDS
        for _ in range(1 if self.cfg.workers > 1 else _MAX_ACCEPTS):
            if not self._accept_one(listener) or self.nr_conns >= self.worker_connections or time.monotonic() >= until:
                return

    def _accept_one(self, listener: Any) -> bool:
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._turn_away(listener)
            elif error.errno not in HARMLESS_ACCEPT_ERRORS:
                raise
            return False
        if not self.admission.admit(sock, peer):
            return True
        self.nr_conns += 1
        if self.make_room(self._driver, self.nr_conns):
            self._driver.interrupt()
        local_address = self._local_addresses[listener]
        terms = self.terms(peer)
        if terms is not None:
            self._driver.negotiate(sock, peer, local_address, terms, self._serve_http1)
        else:
            self._serve_http1(sock, peer, local_address, b"")
        return True

    def _turn_away(self, listener: Any) -> None:
        """Accept and close a connection with the spare file descriptor, because no other is left.

        Otherwise the connection would keep the listening socket readable, and the loop busy.
        """
        self.log.warning("No file descriptor left for a connection; raise the limit or lower worker_connections")
        try:
            os.close(self._spare)
            listener.accept()[0].close()
        except OSError as error:
            self.log.debug("Cannot turn a connection away: %s", error)
        self._spare = _open_spare()

    def _serve_http1(
        self, sock: socket.socket, peer: Any, local_address: Any, data: bytes, header: bytes = b""
    ) -> None:
        """Give a connection to Gunicorn's own code, with the `data` read during negotiation, behind a PROXY header."""
        if self.must_refuse_http1(peer):
            self.refuse_http1(sock, peer, data)
            self._connection_closed(peer)
            return
        self.http1_connections += 1
        connection = _Http1Connection(self, sock, peer, local_address)
        if data or header or isinstance(sock, ssl.SSLSocket):
            connection.initialized = True
            make_parser = _ProxiedParser if self.reads_proxy_headers else get_parser
            connection.parser = make_parser(self.cfg, sock, connection.client)
            if header and not isinstance(peer, ProxiedPeer):
                # Gunicorn cannot read all headers that tell no address; but no other one may follow.
                connection.parser.expect_no_header()
                header = b""
            connection.parser.unreader.unread(header + data)
        if data or not self.cfg.keepalive or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            self.enqueue_req(connection)
        else:
            # Wait for the request without a thread, as for the next one on a kept-alive connection.
            connection.set_timeout()
            self.keepalived_conns.append(connection)
            callback = partial(self.on_client_socket_readable, connection)
            self.poller.register(sock, selectors.EVENT_READ, callback)

    def _connection_closed(self, peer: Any) -> None:
        self.admission.release(peer)
        self.nr_conns -= 1
        if self.nr_conns == self.worker_connections - 1:
            self._driver.interrupt()

    # The loop

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: have the main loop see that it is to stop."""
        super().handle_exit(sig, frame)
        self.method_queue.defer(self._interrupt)

    def _interrupt(self) -> None:
        self._driver.interrupt()

    def retire(self) -> None:
        """See `Http2Worker.retire`; the main loop ends the worker."""
        super().retire()
        self._driver.interrupt()

    def murder_keepalived(self, force: bool = False) -> None:
        """Close HTTP/1 connections that have been idle for too long; called by Gunicorn's main loop."""
        with self._driver.lock:
            # Gunicorn 25.0 has no `force`.
            super().murder_keepalived(*([True] if force else []))

    def murder_pending(self) -> None:
        """Close HTTP/1 connections that have not said anything for too long; called by Gunicorn's main loop."""
        with self._driver.lock:
            super().murder_pending()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or stop to accept connections; called by Gunicorn's main loop."""
        with self._driver.lock:
            super().set_accept_enabled(enabled)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Handle SIGQUIT and SIGINT: exit at once.

        Gunicorn raises SystemExit here, wherever the main thread is. In a finalizer the exception would be lost, so
        the main loop raises it again.
        """
        self._quitting = True
        super().handle_quit(sig, frame)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Handle events; Gunicorn's main loop calls this, also while it stops."""
        if self._quitting:
            sys.exit(0)
        if not self.alive:
            self._driver.shutdown()
        # Gunicorn's loop does its housekeeping after each call. That is not needed after each event, but when
        # `worker_connections` is reached, and when there is room again.
        had_room = self.nr_conns < self.worker_connections
        if not had_room:
            # Connections become idle without notice.
            timeout = min(timeout, _ROUND_SECONDS)
            with self._driver.lock:
                self.make_room(self._driver, self.nr_conns)
        self._report()
        until = time.monotonic() + _ROUND_SECONDS
        while True:
            self._driver.serve(timeout, alone=not had_room)
            if self._quitting or not self.alive or time.monotonic() >= until:
                return
            if (self.nr_conns < self.worker_connections) != had_room:
                return

    def _report(self) -> None:
        """Have the driver log and count what it has held back, and look at the certificates, once a second."""
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self.check_certificates()
            with self._driver.lock:
                self.report(self._driver)
