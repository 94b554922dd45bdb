"""A threaded driver with its main thread, as a worker would run it, over socket pairs."""

import contextlib
import queue
import selectors
import socket
import ssl
import sys
import threading
import time
import weakref

from hyperframe.frame import PingFrame

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.negotiation import Terms
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.drivers.threads import ThreadDriver
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.opening import Cleartext
from tests.support.h2client import H2Client

TIMEOUT = 10
PEER, LOCAL_ADDRESS = "a test", ("localhost", 443)


class Log:
    """Remembers what was logged. `errors` are those that no test expected."""

    def __init__(self):
        self.debugs, self.infos, self.warnings, self.errors = [], [], [], []

    def debug(self, message, *arguments):
        """Keep a message."""
        self.debugs.append(message % arguments)

    def info(self, message, *arguments):
        """Keep a message."""
        self.infos.append(message % arguments)

    def warning(self, message, *arguments):
        """Keep a warning."""
        self.warnings.append(message % arguments)

    def error(self, message, *arguments):
        """Keep an error."""
        self.errors.append(message % arguments)

    def exception(self, message, *arguments):
        """Keep an error, with what was raised."""
        self.errors.append((message % arguments, repr(sys.exc_info()[1])))

    def take_errors(self):
        """Return the errors and forget them."""
        errors, self.errors = self.errors, []
        return errors


def server_context(certs):
    """A TLS context for both protocols."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class ClientRig:
    """What the rigs of all drivers have in common: sockets, TLS, clients, and what the driver tells."""

    def __init__(self, certs, handshake_timeout):
        self.certs, self.handshake_timeout, self.context = certs, handshake_timeout, server_context(certs)
        self.log, self.requests, self.handed_over = Log(), 0, queue.SimpleQueue()
        self.cleartext, self.proxy, self.header = Cleartext(prior_knowledge=True), None, b""
        self._sockets = []

    def serve(self, sock, tls=False):
        """Have the driver serve a socket."""
        raise NotImplementedError

    def socketpair(self):
        """Make a pair of sockets: one end is for the driver, the other is the client's."""
        ours, theirs = socket.socketpair()
        self._sockets.append(theirs)
        theirs.settimeout(TIMEOUT)
        return ours, theirs

    def connect(self, tls=False):
        """Open a connection; return the client's socket, after the handshake where it is TLS."""
        ours, theirs = self.socketpair()
        self.serve(ours, tls)
        theirs.sendall(self.header)
        if tls:
            theirs = self.certs.client_context().wrap_socket(theirs, server_hostname="localhost")
            self._sockets.append(theirs)
        return theirs

    def client(self, tls=False, settings=None, **options):
        """Open an HTTP/2 connection; return the client."""
        client = H2Client(self.connect(tls), **options)
        client.send_preface(settings)
        return client

    def _terms(self, tls):
        return Terms(self._wrap if tls else None, None if tls else self.cleartext, self.handshake_timeout, None,
                     self.proxy)

    def _wrap(self, sock):
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def _keep(self, sock, data):
        """Note a socket that was handed over."""
        self._sockets.append(sock)
        self.handed_over.put((sock, data))

    def _count_request(self):
        self.requests += 1


class Rig(ClientRig):
    """A driver, its main thread, its pool, and what they have told."""

    def __init__(self, certs, application, threads=4, handshake_timeout=TIMEOUT, on_request=None, max_waiting=256,
                 **config):
        super().__init__(certs, handshake_timeout)
        self.closes, self.refusals = Counter(), queue.SimpleQueue()
        self.selector, self.pool = selectors.DefaultSelector(), RequestPool(threads, max_waiting, self.log)
        config.setdefault("idle_timeout", TIMEOUT)
        # Applications wait for their clients, unless a test is about the spool.
        config.setdefault("worker_spool_size", 0)
        self.driver = ThreadDriver(
            self.selector, self.pool, ConnectionConfig(**config), application, self.log,
            on_request or self._count_request, self._note_refusal, lambda peer: self.closes.add())
        self._calls, self._main_calls, self._stopping = queue.SimpleQueue(), queue.SimpleQueue(), False
        self.alone = False
        self._bell, self._ear = socket.socketpair()
        self.selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._sockets += self._bell, self._ear
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def stop(self):
        """End the loop, then close the driver."""
        self.call_main(self._stop)
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        self.driver.close()

    def close(self):
        """End everything that the test has not ended itself."""
        if not self._stopping:
            self.stop()
        self.pool.shutdown(wait=False)
        self.selector.close()
        for sock in self._sockets:
            sock.close()

    def call(self, what, *arguments):
        """Have the leader call something; return what it returns."""
        return self._ask(self._calls, lambda: self._bell.send(b"!"), what, arguments)

    def call_main(self, what, *arguments):
        """Have the thread that calls `serve`, a worker's main thread, call something; return what it returns."""
        return self._ask(self._main_calls, self.driver.interrupt, what, arguments)

    @staticmethod
    def _ask(calls, ring, what, arguments):
        answer = queue.SimpleQueue()
        calls.put((what, arguments, answer))
        ring()
        return answer.get(timeout=TIMEOUT)

    def serve(self, sock, tls=False):
        """See `ClientRig.serve`; fail where the driver raises."""
        answer = self.call(self.driver.negotiate, sock, PEER, LOCAL_ADDRESS, self._terms(tls), self._hand_over)
        assert answer is None, answer

    def _hand_over(self, sock, peer, server, data, header):
        self._keep(sock, header + data)

    def _note_refusal(self, connection, refusal):
        self.refusals.put((threading.current_thread(), refusal))

    def _loop(self):
        while not self._stopping:
            self.driver.serve(TIMEOUT, self.alone)
            while not self._main_calls.empty():
                self._answer(*self._main_calls.get())

    def _stop(self):
        self._stopping = True

    def _hear(self, ear):
        ear.recv(1)
        self._answer(*self._calls.get())

    @staticmethod
    def _answer(what, arguments, answer):
        try:
            answer.put(what(*arguments))
        except Exception as error:  # The test shall see it, not the thread.
            answer.put(error)


class Counter:
    """Counts, and lets others wait for a count."""

    def __init__(self):
        self.value, self._changed = 0, threading.Condition()

    def add(self, count=1):
        """Count."""
        with self._changed:
            self.value += count
            self._changed.notify_all()

    def wait_for(self, value):
        """Wait until so many were counted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.value >= value, TIMEOUT), f"{self.value} of {value}"


class Probe:
    """An application in a test's hand: each request is put in a queue, and goes on as the test's function says."""

    def __init__(self, serve):
        self.serve, self.results, self.channels = serve, queue.SimpleQueue(), queue.SimpleQueue()

    def __call__(self, connection, channel):
        """Serve one request; what comes of it is in `results`."""
        self.channels.put(channel)
        try:
            self.results.put(self.serve(channel))
        except StreamAborted as error:
            self.results.put(error)
        finally:
            channel.finish()

    def result(self):
        """What the next request came to."""
        return self.results.get(timeout=TIMEOUT)

    def channel(self):
        """The channel of the next request that has begun."""
        return self.channels.get(timeout=TIMEOUT)


def read_all(channel):
    """Read a request's body to its end."""
    return b"".join(iter(channel.read, b""))


class Remembering:
    """An application that answers, and tells how many of the connections that it has seen are still in memory."""

    def __init__(self):
        self._seen = []

    def __call__(self, connection, channel):
        """Serve one request."""
        self._seen.append(weakref.ref(connection))
        hello(channel)
        channel.finish()

    def alive(self):
        """Count them."""
        assert self._seen
        return sum(seen() is not None for seen in self._seen)


def hello(channel):
    """Answer with the request's path."""
    channel.respond(ResponseHead(200, [(b"x-path", channel.stream.head.path)]), channel.stream.head.path, True)


def echo(channel):
    """Answer with the request's body."""
    channel.respond(ResponseHead(200, []), read_all(channel), True)


@contextlib.contextmanager
def released(event):
    """Set an event at the end, whatever happens, so that no thread waits for it."""
    try:
        yield event
    finally:
        event.set()


ROUND_TRIP = 0.1


def grow_window(client, stream):
    """Upload until the stream's window is larger than at first.

    The client, which is to answer no PING itself, answers that for the round trip late: so windows grow that an
    application reads in twice that time.
    """
    client.send_body(stream, bytes(client.peer_initial_window), end=False)
    client.wait_for(lambda: client.pings, "the PING for the round trip")
    threading.Event().wait(ROUND_TRIP)
    client.send_frame(PingFrame(0, opaque_data=client.pings[0], flags=["ACK"]))
    while stream.window <= client.peer_initial_window:
        client.send_body(stream, bytes(client.room(stream)), end=False)
        client.wait_for(lambda: client.room(stream) > 0, "room to send")
        client.ping()


def wait_until(condition):
    """Ask until something is so that another thread is about to do."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it is not so"
