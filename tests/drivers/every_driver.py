"""All drivers behind one face: a rig for each, and an application that each of them can run."""

import asyncio
import queue
import threading
import time

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.headers import ResponseHead
from tests.support.tools import require_module

from .asyncio_rig import AsyncioRig
from .asyncio_wire import LOOPS
from .green_rig import GreenRig, Hub
from .rig import TIMEOUT, Rig

DRIVERS = ["threads", "gevent", "eventlet", *LOOPS]
HEAD = ResponseHead(200, [])
LARGE = 16_000_000
"""More octets than any socket takes."""


WAITING = (b"/work", b"/begin")


class Routes:
    """An application that tells of each request: its path in `begun`, and what came of it in `results`.

    `/work` waits until the test is over or says `release`, `/begin` begins its response before that, `/read` reads the
    body, `/large` answers with `LARGE` octets, and anything else with little.
    """

    def __init__(self, pause):
        """`pause(seconds)` is how applications of the kind wait."""
        self.pause, self.begun, self.results = pause, queue.SimpleQueue(), queue.SimpleQueue()
        self._released = False

    def release(self):
        """Let those go on that work, now and later."""
        self._released = True

    def result(self):
        """What the next request came to that is over: None, or an exception."""
        return self.results.get(timeout=TIMEOUT)

    @staticmethod
    def _end(channel, path):
        """Answer, or send the rest of the answer."""
        if path == b"/begin":
            channel.send(path, True)
        else:
            channel.respond(HEAD, bytes(LARGE) if path == b"/large" else path, True)

    def __call__(self, connection, channel):
        """Serve a request in a thread or a greenlet."""
        path = channel.stream.head.path
        self.begun.put(path)
        try:
            if path == b"/begin":
                channel.respond(HEAD, b"", False)
            while path in WAITING and not self._released:
                self.pause(0.001)
            while path == b"/read" and channel.read():
                pass
            self._end(channel, path)
            self.results.put(None)
        except StreamAborted as error:
            self.results.put(error)
        finally:
            channel.finish()

    async def serve(self, connection, channel):
        """Serve a request in a task."""
        path = channel.stream.head.path
        self.begun.put(path)
        try:
            if path == b"/begin":
                channel.respond(HEAD, b"", False)
            while path in WAITING and not self._released:
                await asyncio.sleep(0.001)
            while path == b"/read" and await channel.read():
                pass
            self._end(channel, path)
            await channel.drain()
            self.results.put(None)
        except StreamAborted as error:
            self.results.put(error)
        finally:
            channel.finish()


class AnyRig:
    """A rig of any driver as `rig`."""

    def __init__(self, kind, certs, make, **config):
        """`make(pause)` makes the application, which waits by `pause(seconds)`; in tasks, its `serve` is called."""
        self._hub = None
        if kind == "threads":
            self.rig = Rig(certs, make(time.sleep), **config)
        elif kind in LOOPS:
            self.rig = AsyncioRig(kind, certs, make(time.sleep).serve, **config)
        else:
            require_module(kind)
            self._hub = Hub(kind)
            self.rig = GreenRig(self._hub, certs, make(self._hub.sleep), **config)

    def close(self):
        """End it all; nothing may have gone wrong."""
        self.rig.close()
        if self._hub:
            self._hub.close()
        assert self.rig.log.errors == []


class AnyDriver(AnyRig):
    """A rig of any driver with `Routes`, whose connections are known by their clients."""

    def __init__(self, kind, certs, **config):
        config.setdefault("worker_spool_size", 0)
        super().__init__(kind, certs, self._make, **config)
        self.driver, self.call, self.log = self.rig.driver, self.rig.call, self.rig.log

    def _make(self, pause):
        self.routes = Routes(pause)
        return self.routes

    def shutdown(self):
        """Begin a graceful shutdown, as a worker does."""
        # Of a worker with threads, its main thread does.
        getattr(self.rig, "call_main", self.call)(self.driver.shutdown)

    def holders(self):
        """What the driver holds now: one for each connection and negotiation."""
        return self.call(lambda: set(self.driver._holders()))

    def open(self, tls=False):
        """Open a connection on which nothing is sent, not even a handshake; return the client's socket."""
        ours, theirs = self.rig.socketpair()
        self.rig.serve(ours, tls)
        return theirs

    def client(self, tls=False, settings=None, **options):
        """Open an HTTP/2 connection and complete its setup; return the client, its holder as `holder`."""
        before = self.holders()
        client = self.rig.client(tls, settings, **options)
        client.wait_settings()
        client.ping()
        (client.holder,) = self.holders() - before
        return client

    def close(self):
        """End it all; see `AnyRig.close`."""
        self.routes.release()
        super().close()


class Occupied:
    """While a test is in this block, the owner of all connections does something else.

    So what arrives meanwhile is ready all at once.
    """

    def __init__(self, any_driver):
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=any_driver.call, args=(self._stay,), daemon=True)

    def _stay(self):
        self._inside.set()
        self._leave.wait(TIMEOUT)

    def __enter__(self):
        self._thread.start()
        assert self._inside.wait(TIMEOUT)

    def __exit__(self, *exc_info):
        self._leave.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
