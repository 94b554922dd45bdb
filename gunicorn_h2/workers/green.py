"""The base of the workers on greenlets: HTTP/2 by the green driver, HTTP/1 by Gunicorn's own code.

Gunicorn's code accepts connections, `worker_connections` at most, and calls `handle` for each in a greenlet of
its own. That greenlet negotiates the protocol.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from gunicorn.workers.base_async import AsyncWorker

from gunicorn_h2.apps.wsgi_socket import WebSocketWSGIHandler
from gunicorn_h2.drivers.base import ROOM_SECONDS
from gunicorn_h2.drivers.green import GreenDriver
from gunicorn_h2.drivers.green_hub import Library, Waiter
from gunicorn_h2.drivers.peers import ProxiedPeer, connected_peer

from .base import Http2Worker, tells_address

__all__ = ["GreenListener", "GreenWorker", "NamedListener"]

_NOTIFY_SECONDS = 1.0
_DRAIN_SECONDS = 0.1
_NOBODY = "0.0.0.0"
"""The address in a header for Gunicorn that tells none; no client has it (RFC 1122 section 3.2.1.3)."""


def _untold(header: bytes) -> bytes:
    """Return a header that Gunicorn can read, of the same version, in place of one that tells no address."""
    if header.startswith(b"PROXY "):
        # It refuses UNKNOWN.
        return f"PROXY TCP4 {_NOBODY} {_NOBODY} 0 0\r\n".encode()
    return b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


class ReplayingSocket:
    """A socket whose `recv` returns data that was read from it before, and then goes on."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self._sock = sock
        self._data = data

    def recv(self, size: int, flags: int = 0) -> bytes:
        """See `socket.socket.recv`."""
        if not self._data:
            return self._sock.recv(size, flags)
        data, self._data = self._data[:size], self._data[size:]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class NamedListener:
    """A listening socket that knows its name when it is closed: its last connections may still have to begin."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self._name = listener.getsockname()

    def getsockname(self) -> Any:
        """See `socket.socket.getsockname`."""
        return self._name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)


class GreenListener(Protocol):
    """Accepts the connections of one listening socket, each handled in a greenlet."""

    def close(self) -> None:
        """Accept no more."""

    @property
    def busy(self) -> bool:
        """Whether a connection is still open."""

    def kill(self) -> None:
        """End the connections that are still open."""


class GreenWorker(Http2Worker):
    """The mixin of the workers on greenlets; list it before Gunicorn's worker class."""

    PIPE: Sequence[int]

    library: ClassVar[Library]
    """What the driver needs of gevent or eventlet."""
    _driver: GreenDriver
    _waiter: Waiter
    _connections = 0
    """Connections that are open, of both protocols."""
    _late = 0.0
    """Seconds by which the main greenlet has last been resumed too late."""
    worker_connections: int

    @property
    def open_connections(self) -> int:
        """See `Http2Worker.open_connections`."""
        return self._connections

    def patch(self) -> None:
        """Patch the standard library; called in the worker's process, before it drops its privileges."""
        super().patch()  # type: ignore[misc]
        # Made after patching, so that TLS is the patched one.
        self.make_terms()

    def has_newcomers(self) -> bool:
        """See `Http2Worker.has_newcomers`."""
        return self.library.is_waited_for(self.sockets)

    @property
    def is_busy(self) -> bool:
        """Whether handshakes wait for the processor already; those to come had better wait in the backlog."""
        return self._driver.slow_lane.is_long

    def start_accepting(self, listener: Any) -> GreenListener:
        """Have `handle` called for every connection, at most `worker_connections` at a time."""
        raise NotImplementedError

    def run(self) -> None:
        """Serve until told to stop.

        Gunicorn's own loops check `alive` once a second, and would accept connections until then.
        """
        self.begin_serving()
        handler = WebSocketWSGIHandler(self)
        self._driver = GreenDriver(
            self.library,
            self.settings.connection,
            handler,
            self.log,
            on_request=self.count_request,
            on_refused=handler.note_refusal,
            admission=self.admission,
            trace=self.trace,
        )
        # Every signal writes to the pipe, which ends the wait.
        self._waiter = self.library.make_waiter(self.PIPE[0])
        listeners = [self.start_accepting(listener) for listener in self.sockets]
        while self.alive:
            # A full worker looks for connections that have become idle.
            full = self.make_room(self._driver, self._connections)
            self._wait(ROOM_SECONDS if full else _NOTIFY_SECONDS)
        for listener in listeners:
            listener.close()
        self._driver.shutdown()
        self._drain(listeners)
        self._waiter.close()

    def _drain(self, listeners: list[GreenListener]) -> None:
        deadline = time.monotonic() + self.cfg.graceful_timeout
        while any(listener.busy for listener in listeners):
            if time.monotonic() >= deadline:
                self.log.warning("Worker graceful timeout (pid:%s)", os.getpid())
                for listener in listeners:
                    listener.kill()
                return
            self._wait(_DRAIN_SECONDS)

    def _wait(self, seconds: float) -> None:
        self.notify()  # type: ignore[attr-defined]
        self.report(self._driver, self._late)
        self.check_certificates()
        until = time.monotonic() + seconds
        self._waiter.wait(False, until)
        self._late = max(time.monotonic() - until, 0.0)
        if self._waiter.readable:
            # eventlet's `read` watches the pipe itself, and a descriptor may have one watcher only.
            self._waiter.unwatch()
            os.read(self.PIPE[0], 4096)

    def retire(self) -> None:
        """See `Http2Worker.retire`; the main loop notices at once."""
        super().retire()
        self._waiter.wake()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Negotiate a connection's protocol and serve it to its end, if it is admitted."""
        if not self.admission.admit(client, addr):
            return
        self._connections += 1
        if self.make_room(self._driver, self._connections):
            self._waiter.wake()
        try:
            self._handle(listener, client, addr)
        finally:
            self._connections -= 1
            self.admission.release(addr)

    def _handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        terms = self.terms(addr)
        if terms is not None:
            hand_over = partial(self._serve_http1, listener)
            self._driver.serve(client, addr, listener.getsockname(), terms, hand_over)
        else:
            self._serve_http1(listener, client, addr, None, b"")

    def _serve_http1(
        self, listener: Any, sock: socket.socket, peer: Any, _: object, data: bytes, header: bytes = b""
    ) -> None:
        """Give a connection to Gunicorn's own code, with the `data` read during negotiation, behind a PROXY header."""
        sock.setblocking(True)
        if self.must_refuse_http1(peer):
            self.refuse_http1(sock, peer, data)
        else:
            self.http1_connections += 1
            if header and not isinstance(peer, ProxiedPeer):
                # A header all the same, so that Gunicorn reads no other one that the client sends behind it.
                header = _untold(header)
            # Not by `super`: Gunicorn's eventlet worker would wrap the socket in TLS once more.
            data = header + data
            AsyncWorker.handle(self, listener, ReplayingSocket(sock, data) if data else sock, connected_peer(peer))
            if not self.alive:
                # Gunicorn may have retired the worker after its last request of `max_requests`.
                self._waiter.wake()

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve a request of HTTP/1; Gunicorn calls this. The PROXY header may have told nothing of the client."""
        information = req.proxy_protocol_info
        if not tells_address(information) or information["client_addr"] == _NOBODY:
            # The address is then that of the connection.
            req.proxy_protocol_info = None
        return super().handle_request(listener_name, req, sock, addr)  # type: ignore[misc]
