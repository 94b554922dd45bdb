"""What the workers on greenlets have in common: HTTP/2 by the green driver, HTTP/1 by Gunicorn's own code.

Gunicorn's code accepts connections, as many as `worker_connections`, and calls `handle` for each in a
greenlet of its own. That greenlet finds out what the client speaks.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from gunicorn.workers.base_async import AsyncWorker

from gunicorn_h2.apps.wsgi import WSGIHandler
from gunicorn_h2.drivers.green import GreenDriver
from gunicorn_h2.drivers.green_hub import Library, Waiter

from .base import Http2Worker

__all__ = ["GreenListener", "GreenWorker"]

_NOTIFY_SECONDS = 1.0
_DRAIN_SECONDS = 0.1


class ReplayingSocket:
    """A socket from which something was read already; it comes again."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self._sock = sock
        self._data = data

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As of a socket."""
        if not self._data:
            return self._sock.recv(size, flags)
        data, self._data = self._data[:size], self._data[size:]
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class GreenListener(Protocol):
    """Accepts connections from one listening socket, each handled in a greenlet."""

    def close(self) -> None:
        """Accept no more."""

    @property
    def busy(self) -> bool:
        """Whether a connection is still there."""

    def kill(self) -> None:
        """End what is still there."""


class GreenWorker(Http2Worker):
    """List it before Gunicorn's gevent or eventlet worker class."""

    PIPE: Sequence[int]
    sockets: Sequence[Any]

    library: ClassVar[Library]
    _driver: GreenDriver
    _waiter: Waiter

    def patch(self) -> None:
        """Called in the worker's process, before it gives up its privileges."""
        super().patch()  # type: ignore[misc]
        # TLS must be the patched one.
        self.make_terms()

    def start_accepting(self, listener: Any) -> GreenListener:
        """Have `handle` called for every connection, at most `worker_connections` at a time."""
        raise NotImplementedError

    def run(self) -> None:
        """Serve until told to stop.

        Gunicorn's own loops look at `alive` once a second; until then, new connections would come to
        a worker that is to end.
        """
        handler = WSGIHandler(self)
        self._driver = GreenDriver(
            self.library,
            self.settings.connection,
            handler,
            self.log,
            on_request=self.count_request,
            on_refused=handler.note_refusal,
        )
        # Every signal writes to the pipe.
        self._waiter = self.library.make_waiter(self.PIPE[0])
        listeners = [self.start_accepting(listener) for listener in self.sockets]
        while self.alive:
            self._wait(_NOTIFY_SECONDS)
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
        self._waiter.wait(False, time.monotonic() + seconds)
        if self._waiter.readable:
            # eventlet's `read` waits for the pipe itself, which one alone may do.
            self._waiter.unwatch()
            os.read(self.PIPE[0], 4096)

    def retire(self) -> None:
        """See `Http2Worker`; its loop is to see at once that it ends."""
        super().retire()
        self._waiter.wake()

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection to its end."""
        terms = self.terms(addr)
        if terms is not None:
            hand_over = partial(self._serve_http1, listener)
            self._driver.serve(client, addr, listener.getsockname(), terms, hand_over)
        else:
            self._serve_http1(listener, client, addr, None, b"")

    def _serve_http1(self, listener: Any, sock: socket.socket, peer: Any, _: object, data: bytes) -> None:
        """Give a connection to Gunicorn's own code; `data` was read in search of the preface."""
        sock.setblocking(True)
        if self.must_refuse_http1(peer):
            self.refuse_http1(sock, peer)
        else:
            # Not by way of `super`: Gunicorn's eventlet worker would put TLS around it once more.
            AsyncWorker.handle(self, listener, ReplayingSocket(sock, data) if data else sock, peer)
            if not self.alive:
                # Its request may have been the last one of `max_requests`.
                self._waiter.wake()
