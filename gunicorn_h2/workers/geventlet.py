"""The eventlet worker: Gunicorn's own, if it has one, with HTTP/2 by the green driver."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import gunicorn

__all__ = ["EventletWorker"]

if importlib.util.find_spec("gunicorn.workers.geventlet") is not None:
    if importlib.util.find_spec("eventlet") is None:
        raise RuntimeError("gunicorn_h2.EventletWorker needs eventlet: pip install 'gunicorn-h2[eventlet]'")

    # Imported first, because it patches the standard library.
    from gunicorn.workers import geventlet  # isort: split

    import eventlet
    from eventlet.greenio import GreenSocket

    from gunicorn_h2.drivers.admission import ACCEPT_RETRY_SECONDS, HARMLESS_ACCEPT_ERRORS
    from gunicorn_h2.drivers.green_eventlet import EVENTLET

    from .green import GreenListener, GreenWorker, NamedListener

    class _PatientListener:
        """A listening socket that tries again where `accept` fails: Gunicorn's loop would end, and serve nobody."""

        def __init__(self, worker: EventletWorker, listener: Any) -> None:
            self._worker = worker
            self._listener = listener

        def accept(self) -> Any:
            """See `socket.socket.accept`; waits while the worker has enough to do with those that came before."""
            while True:
                while self._worker.is_busy:
                    eventlet.sleep(0)
                try:
                    return self._listener.accept()
                except OSError as error:
                    if error.errno not in HARMLESS_ACCEPT_ERRORS:
                        # File descriptors may have run out, for instance.
                        self._worker.log.warning("Cannot accept connections: %s", error)
                        eventlet.sleep(ACCEPT_RETRY_SECONDS)

        def close(self) -> None:
            """See `socket.socket.close`."""
            self._listener.close()

    class _Listener:
        """A `GreenListener` that runs Gunicorn's own loop in a greenlet."""

        def __init__(self, listener: Any, handle: Any, connections: int) -> None:
            self._greenlet = eventlet.spawn(geventlet._eventlet_serve, listener, handle, connections)

        def close(self) -> None:
            """See `GreenListener.close`."""
            # The loop closes the listener, and then waits until the last connection has ended.
            self._greenlet.kill(eventlet.StopServe())

        @property
        def busy(self) -> bool:
            """See `GreenListener.busy`."""
            return not self._greenlet.dead

        def kill(self) -> None:
            """See `GreenListener.kill`."""
            self._greenlet.kill()

    class EventletWorker(GreenWorker, geventlet.EventletWorker):  # type: ignore[misc]
        """HTTP/2 with a greenlet for each request, HTTP/1 by Gunicorn's own code."""

        library = EVENTLET

        def start_accepting(self, listener: Any) -> GreenListener:
            """See `GreenWorker.start_accepting`."""
            listener = GreenSocket(listener)
            listener.setblocking(1)
            handle = partial(self.handle, NamedListener(listener))
            return _Listener(_PatientListener(self, listener), handle, self.worker_connections)

else:

    class EventletWorker:  # type: ignore[no-redef]
        """Names the worker to use instead: since version 26, Gunicorn has no eventlet worker."""

        @classmethod
        def setup(cls) -> None:
            """Refuse to start; Gunicorn calls this when it has loaded the worker class. Raises RuntimeError."""
            raise RuntimeError(
                f"gunicorn_h2.EventletWorker needs Gunicorn 25: {gunicorn.__version__} has no eventlet worker. "
                "Use gunicorn_h2.GeventWorker instead (pip install 'gunicorn-h2[gevent]')"
            )
