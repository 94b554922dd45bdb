"""The threaded worker: Gunicorn's gthread worker, with HTTP/2 beside its HTTP/1.

Gunicorn's main loop, which runs in the main thread, becomes the I/O thread of the HTTP/2 driver:
both share one selector and one pool of threads. A connection that turns out to speak HTTP/1 goes to
Gunicorn's own code as if it had just been accepted.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
from functools import partial
from typing import Any

from gunicorn import util
from gunicorn.http import get_parser
from gunicorn.http.message import _ip_in_allow_list
from gunicorn.workers import gthread

from gunicorn_h2.apps.wsgi import WSGIHandler
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.drivers.threads import ThreadDriver

from .settings import load_settings, never_http2_reason, startup_line
from .tls import TLSWrapper, make_wrapper

__all__ = ["ThreadWorker"]

_NOT_AN_ERROR = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


class ThreadWorker(gthread.ThreadWorker):  # type: ignore[misc]
    """HTTP/2 with its streams side by side in `threads` threads, HTTP/1 by Gunicorn's own code."""

    alive: bool
    nr: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = load_settings(self.cfg)
        self._wrap: TLSWrapper | None = None
        self._driver: ThreadDriver
        self._may_be_http2 = "h2" in self.settings.protocols and self.cfg_protocol == "http"

    @property
    def cfg_protocol(self) -> str:
        """Gunicorn's `protocol` setting, where it has one."""
        return str(getattr(self.cfg, "protocol", "http"))

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Stop the start where a setting is wrong; called once, by the master."""
        super().check_config(cfg, log)
        settings = load_settings(cfg)
        log.info(startup_line(settings, cfg))
        reason = never_http2_reason(settings, cfg)
        if reason:
            log.warning(reason)

    def init_process(self) -> None:
        """Called in the worker's process; does not return before the worker ends."""
        if self.cfg.is_ssl:
            self._wrap = make_wrapper(self.cfg, self.settings.protocols)
        super().init_process()

    def get_thread_pool(self) -> RequestPool:
        """One pool for the requests of both protocols."""
        return RequestPool(self.cfg.threads)

    def run(self) -> None:
        """Serve until told to stop."""
        self._driver = ThreadDriver(
            self.poller,
            self.tpool,
            self.settings.connection,
            WSGIHandler(self),
            self.log,
            on_request=self._count_request,
            on_close=self._connection_closed,
        )
        super().run()

    # Connections

    def accept(self, listener: Any) -> None:
        """Accept a connection and find out what it speaks, without a thread waiting for it."""
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno not in _NOT_AN_ERROR:
                raise
            return
        self.nr_conns += 1
        server = listener.getsockname()
        if self._wrap is not None or self._expects_preface(peer):
            self._driver.negotiate(sock, peer, server, self._wrap, self.settings.handshake_timeout, self._serve_http1)
        else:
            self._serve_http1(sock, peer, server, b"")

    def _expects_preface(self, peer: Any) -> bool:
        """Whether this peer may speak HTTP/2 in the clear (the rule of Gunicorn 26.2 and newer)."""
        if not self._may_be_http2 or self.settings.cleartext not in ("prior-knowledge", "both"):
            return False
        if not isinstance(peer, tuple):
            return True
        trusted: bool = _ip_in_allow_list(peer[0], self.cfg.forwarded_allow_ips, self.cfg.forwarded_allow_networks())
        return trusted

    def _serve_http1(self, sock: socket.socket, peer: Any, server: Any, data: bytes) -> None:
        """Give a connection to Gunicorn's own code; `data` was read in search of the preface."""
        if self._wrap is None and self._expects_preface(peer) and self.settings.cleartext != "both":
            self._refuse_http1(sock, peer)
            return
        connection = gthread.TConn(self.cfg, sock, peer, server)
        if self._wrap is not None or data:
            connection.initialized = True
            connection.parser = get_parser(self.cfg, sock, peer)
            connection.parser.unreader.unread(data)
        if data or not self.cfg.keepalive or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            self.enqueue_req(connection)
        else:
            # Wait for the request without a thread, as for the next one on a kept-alive connection.
            connection.set_timeout()
            self.keepalived_conns.append(connection)
            callback = partial(self.on_client_socket_readable, connection)
            self.poller.register(sock, selectors.EVENT_READ, callback)

    def _refuse_http1(self, sock: socket.socket, peer: Any) -> None:
        """With prior knowledge alone, another protocol is a mistake of the deployment's: say so."""
        self.log.warning("Invalid request from ip=%s: no HTTP/2 connection preface", peer[0] if peer else "")
        try:
            util.write_error(sock, 400, "Bad Request", "HTTP/2 connection preface expected")
        except OSError as error:
            self.log.debug("Failed to send error message: %s", error)
        util.close(sock)
        self._connection_closed()

    def _connection_closed(self) -> None:
        self.nr_conns -= 1

    def _count_request(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    # The loop

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Gunicorn's main loop calls this for everything that happens, while stopping as well."""
        if not self.alive:
            self._driver.shutdown()
        self._driver.poll(timeout)
