"""The gevent worker: Gunicorn's own, with HTTP/2 by the green driver."""

from __future__ import annotations

from functools import partial
from typing import Any

try:
    from gevent.pool import Pool
except ModuleNotFoundError as error:
    raise RuntimeError("gunicorn_h2.GeventWorker needs gevent: pip install 'gunicorn-h2[gevent]'") from error
from gevent.server import StreamServer
from gunicorn.workers import ggevent

from gunicorn_h2.drivers.green_gevent import GEVENT

from .green import GreenListener, GreenWorker, NamedListener

__all__ = ["GeventWorker"]

_MAX_ACCEPTS = 16
"""Connections accepted before other events get their turn."""


class _Server(StreamServer):  # type: ignore[misc]
    """A `GreenListener`; `close` is gevent's."""

    max_accept = _MAX_ACCEPTS

    def __init__(self, worker: GeventWorker, listener: Any) -> None:
        # Without TLS, whose handshake has no time limit in gevent.
        handle = partial(worker.handle, NamedListener(listener))
        super().__init__(listener, handle=handle, spawn=Pool(worker.worker_connections))
        self._worker = worker

    def do_read(self) -> Any:
        """Accept a connection, for gevent; return None if there is none, or none for now."""
        return None if self._worker.is_busy else super().do_read()

    @property
    def busy(self) -> bool:
        """See `GreenListener.busy`."""
        return bool(self.pool.free_count() != self.pool.size)

    def kill(self) -> None:
        """See `GreenListener.kill`."""
        self.stop(timeout=1)


class GeventWorker(GreenWorker, ggevent.GeventWorker):  # type: ignore[misc]
    """HTTP/2 with a greenlet for each request, HTTP/1 by Gunicorn's own code."""

    library = GEVENT

    def start_accepting(self, listener: Any) -> GreenListener:
        """See `GreenWorker.start_accepting`."""
        listener.setblocking(1)
        server = _Server(self, listener)
        if self.cfg.workers > 1:
            # As in Gunicorn's worker: leave connections to the other workers.
            server.max_accept = 1
        server.start()
        accepting: GreenListener = server
        return accepting
