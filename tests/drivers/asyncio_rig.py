"""An asyncio driver in a thread with an event loop of its own, and real time."""

import asyncio
import concurrent.futures
import queue
import socket
import threading

from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.drivers.negotiation import Terms
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.opening import Cleartext
from tests.support.h2client import H2Client

from .asyncio_wire import make_loop
from .rig import TIMEOUT, Log, server_context


class AsyncioRig:
    """A driver on an event loop, with what it has told, and clients for it."""

    def __init__(self, loop_name, certs, application, handshake_timeout=TIMEOUT, **config):
        self.certs, self.handshake_timeout, self.log = certs, handshake_timeout, Log()
        self.handed_over, self.requests, self._sockets = queue.SimpleQueue(), 0, []
        self.context = server_context(certs)
        # A loop whose clock stands still has no use for a thread.
        self.loop = asyncio.new_event_loop() if loop_name == "asyncio" else make_loop(loop_name)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        config.setdefault("idle_timeout", TIMEOUT)
        self.driver = self.call(lambda: AsyncioDriver(
            self.loop, ConnectionConfig(**config), application, self.log, self._count_request,
            lambda connection, refusal: None, lambda peer: None))

    def call(self, what, *arguments):
        """Have the event loop call something; return what it returns."""
        answer = concurrent.futures.Future()

        def run():
            try:
                answer.set_result(what(*arguments))
            except Exception as error:  # The test shall see it, not the loop.
                answer.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return answer.result(TIMEOUT)

    def close(self):
        """End every connection and the loop."""
        self.call(self.driver.cancel)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        for sock in self._sockets:
            sock.close()

    def connect(self, tls=False):
        """Open a connection; return the client's socket, after the handshake where it is TLS."""
        ours, theirs = socket.socketpair()
        self._sockets.append(theirs)
        theirs.settimeout(TIMEOUT)
        self.serve(ours, tls)
        if tls:
            theirs = self.certs.client_context().wrap_socket(theirs, server_hostname="localhost")
            self._sockets.append(theirs)
        return theirs

    def serve(self, sock, tls=False):
        """Have the driver serve a socket."""
        cleartext = None if tls else Cleartext(prior_knowledge=True)
        terms = Terms(self._wrap if tls else None, cleartext, self.handshake_timeout)
        self.call(self.driver.negotiate, sock, ("192.0.2.1", 1234), terms, self._hand_over)

    def client(self, tls=False, settings=None, **options):
        """Open an HTTP/2 connection; return the client."""
        client = H2Client(self.connect(tls), **options)
        client.send_preface(settings)
        return client

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def _wrap(self, sock):
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _hand_over(self, transport, peer, data):
        self._sockets.append(transport.sock)
        self.handed_over.put((transport.sock, data))

    def _count_request(self):
        self.requests += 1
