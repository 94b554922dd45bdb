"""An asyncio driver in a thread with an event loop of its own, and real time."""

import asyncio
import concurrent.futures
import threading

from gunicorn_h2.drivers.asyncio_driver import AsyncioDriver
from gunicorn_h2.protocol.config import ConnectionConfig

from .asyncio_wire import make_loop
from .rig import TIMEOUT, ClientRig


class AsyncioRig(ClientRig):
    """A driver on an event loop, with what it has told, and clients for it."""

    def __init__(self, loop_name, certs, application, handshake_timeout=TIMEOUT, **config):
        super().__init__(certs, handshake_timeout)
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

    def serve(self, sock, tls=False):
        """See `ClientRig.serve`."""
        self.call(self.driver.negotiate, sock, ("192.0.2.1", 1234), self._terms(tls), self._hand_over)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def _hand_over(self, transport, peer, data, header):
        self._keep(transport.sock, header + data)
