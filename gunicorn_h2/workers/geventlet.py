"""The eventlet worker, where Gunicorn has one: its own, with HTTP/2 by the green driver."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import gunicorn

__all__ = ["EventletWorker"]

if importlib.util.find_spec("gunicorn.workers.geventlet") is not None:
    # Comes first, for it patches the standard library.
    from gunicorn.workers import geventlet  # isort: split

    import eventlet
    from eventlet.greenio import GreenSocket

    from gunicorn_h2.drivers.green_eventlet import EVENTLET

    from .green import GreenListener, GreenWorker

    class _Listener:
        """See `GreenListener`: Gunicorn's own loop, in a greenlet."""

        def __init__(self, listener: Any, handle: Any, connections: int) -> None:
            self._greenlet = eventlet.spawn(geventlet._eventlet_serve, listener, handle, connections)

        def close(self) -> None:
            # It closes the listener, and then waits until the last connection has ended.
            self._greenlet.kill(eventlet.StopServe())

        @property
        def busy(self) -> bool:
            return not self._greenlet.dead

        def kill(self) -> None:
            self._greenlet.kill()

    class EventletWorker(GreenWorker, geventlet.EventletWorker):  # type: ignore[misc]
        """HTTP/2 with a greenlet for each request, HTTP/1 by Gunicorn's own code."""

        library = EVENTLET

        def start_accepting(self, listener: Any) -> GreenListener:
            """See `GreenWorker`."""
            listener = GreenSocket(listener)
            listener.setblocking(1)
            return _Listener(listener, partial(self.handle, listener), self.worker_connections)

else:

    class EventletWorker:  # type: ignore[no-redef]
        """Says what to use instead, for Gunicorn has no eventlet worker since version 26."""

        @classmethod
        def setup(cls) -> None:
            """Called as soon as this worker class was chosen."""
            raise RuntimeError(
                f"gunicorn_h2.EventletWorker needs Gunicorn 25: {gunicorn.__version__} has no eventlet worker. "
                "Use gunicorn_h2.GeventWorker instead (pip install 'gunicorn-h2[gevent]')"
            )
