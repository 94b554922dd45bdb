"""The gevent worker: Gunicorn's own, with HTTP/2 by the green driver."""

from __future__ import annotations

from functools import partial
from typing import Any

from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers import ggevent

from gunicorn_h2.drivers.green_gevent import GEVENT

from .green import GreenListener, GreenWorker, NamedListener

__all__ = ["GeventWorker"]


class _Server(StreamServer):  # type: ignore[misc]
    """A `GreenListener`; `close` is gevent's."""

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
        # Without TLS, whose handshake has no time limit in gevent.
        handle = partial(self.handle, NamedListener(listener))
        server = _Server(listener, handle=handle, spawn=Pool(self.worker_connections))
        if self.cfg.workers > 1:
            # As in Gunicorn's worker: leave connections to the other workers.
            server.max_accept = 1
        server.start()
        accepting: GreenListener = server
        return accepting
