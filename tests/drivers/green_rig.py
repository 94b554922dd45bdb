"""A green driver in a thread with a hub of its own. Nothing is patched, so applications wait by the library's means."""

import contextlib
import importlib
import queue
import socket
import threading

from greenlet import getcurrent

from gunicorn_h2.drivers.green import GreenDriver
from gunicorn_h2.protocol.config import ConnectionConfig

from .rig import LOCAL_ADDRESS, PEER, TIMEOUT, ClientRig


class Hub:
    """A thread whose main greenlet does what it is told; between two calls the others run."""

    def __init__(self, name):
        self.library = getattr(importlib.import_module(f"gunicorn_h2.drivers.green_{name}"), name.upper())
        self.sleep = importlib.import_module(name).sleep
        self._calls, self._stopping = queue.SimpleQueue(), False
        self._bell, self._ear = socket.socketpair()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def call(self, what, *arguments):
        """Have the main greenlet call something; return what it returns."""
        answer = queue.SimpleQueue()
        self._calls.put((what, arguments, answer))
        self._bell.send(b"!")
        result = answer.get(timeout=TIMEOUT)
        if isinstance(result, Exception):
            raise result
        return result

    def spawn(self, what, *arguments):
        """Have a new greenlet call something; return the greenlet."""
        return self.call(self.library.spawn, what, *arguments)

    def close(self):
        """End the thread."""
        self.call(self._stop)
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        self._bell.close()
        self._ear.close()

    def _stop(self):
        self._stopping = True

    def _loop(self):
        waiter = self.library.make_waiter(self._ear.fileno())
        while not self._stopping:
            waiter.wait(False, None)
            if waiter.readable:
                self._ear.recv(1)
                self._answer(*self._calls.get())
        waiter.close()

    def _answer(self, what, arguments, answer):
        try:
            answer.put(what(*arguments))
        except Exception as error:  # The test shall see it, not the thread.
            answer.put(error)


class GreenRig(ClientRig):
    """A driver on a hub, with what it has told, and clients for it."""

    def __init__(self, hub, certs, application, handshake_timeout=TIMEOUT, **config):
        super().__init__(certs, handshake_timeout)
        self.hub, self.refusals = hub, queue.SimpleQueue()
        config.setdefault("idle_timeout", TIMEOUT)
        self.driver = GreenDriver(hub.library, ConnectionConfig(**config), application, self.log, self._count_request,
                                  self._note_refusal)
        self.ended, self.owners = queue.SimpleQueue(), []

    def call(self, what, *arguments):
        """Have the hub's thread call something; return what it returns."""
        return self.hub.call(what, *arguments)

    def close(self):
        """End every connection."""
        for owner in self.owners:
            self.hub.call(self.hub.library.kill, owner)
        for sock in self._sockets:
            sock.close()

    def serve(self, sock, tls=False):
        """See `ClientRig.serve`; in a greenlet of its own."""
        self.owners.append(self.hub.spawn(self._serve, sock, self._terms(tls)))

    def _serve(self, sock, terms):
        try:
            self.driver.serve(sock, PEER, LOCAL_ADDRESS, terms, self._hand_over)
        finally:
            self.ended.put(sock)

    def wait_ended(self):
        """Wait until the greenlet of a connection has nothing left to do."""
        self.ended.get(timeout=TIMEOUT)

    def _hand_over(self, sock, peer, server, data, header):
        self._keep(sock, header + data)

    def _note_refusal(self, connection, refusal):
        self.refusals.put((getcurrent(), refusal))


@contextlib.contextmanager
def held(hub):
    """A function by which greenlets wait until the block ends, or `let_go` is called."""
    open_ = []

    def wait():
        while not open_:
            hub.sleep(0.001)

    wait.let_go = lambda: open_.append(True)
    try:
        yield wait
    finally:
        wait.let_go()
