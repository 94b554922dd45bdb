"""WSGI from end to end in one process: a client in a test's hand, a socket pair, the threaded driver, `WSGIHandler`.

The test's own thread is the I/O thread: it runs the driver whenever the test waits for something, and so a test sees
each step. Requests run in the threads of a real pool. `Backend` is the one place that knows how the package is put
together; everything else speaks of octets, requests, answers, and of what Gunicorn is told.
"""

import logging
import selectors
import socket
import ssl
import threading
import time
from types import SimpleNamespace

import gunicorn
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from hpack import Decoder, Encoder

from gunicorn_h2.apps.wsgi_socket import WebSocketWSGIHandler
from gunicorn_h2.drivers.negotiation import Terms
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.drivers.threads import ThreadDriver
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.opening import Cleartext
from tests.protocol.peer import END_HEADERS, END_STREAM, HEADERS, Answer, Peer, data, fields, ping, raw, window_update

TIMEOUT = 10
PEER, SERVER = ("192.0.2.1", 1234), ("192.0.2.2", 8000)
PROXY = ("127.0.0.1", 4321)
"""A peer in Gunicorn's default `forwarded_allow_ips`; PEER is not."""
UNIX = {"peer": "", "server": "/run/gunicorn.sock"}
"""A connection to a Unix socket."""
# The core's limit of the fields is Gunicorn's in a worker; here the application's layer is to see what is beyond it.
# And an application waits for its client, unless a test is about the spool.
LIMITS = {"idle_timeout": TIMEOUT, "stream_timeout": TIMEOUT, "max_header_fields": 1_000, "worker_spool_size": 0}
_FRAME_SIZE = 16_384

QUIET = {"accesslog": None, "loglevel": "info"}
"""Settings with which nobody looks at a request but its application: no access log, and no hook of one's own."""
since_27 = pytest.mark.skipif(gunicorn.version_info < (27,), reason="Gunicorn's own rule, which is newer")


class Backend:
    """The package's side: a driver and its pool. Adapt this class, and nothing else, where their interfaces change."""

    def __init__(self, worker, threads, limits, max_sockets, max_waiting):
        self.errors, self.begun, self.returned = [], 0, 0
        self._lock = threading.Lock()
        self._selector, self._pool = selectors.DefaultSelector(), RequestPool(threads, max_waiting)
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ, self._hear)
        self._handler = WebSocketWSGIHandler(worker, max_sockets)
        self._driver = ThreadDriver(
            self._selector, self._pool, ConnectionConfig(**{**LIMITS, **limits}), self._serve, worker.log,
            on_request=self._count, on_refused=self._handler.note_refusal, on_close=lambda peer: None)

    def adopt(self, sock, peer, server, wrap):
        """Serve a connected socket; `wrap` puts TLS around it."""
        terms = Terms(wrap, None if wrap else Cleartext(prior_knowledge=True), TIMEOUT)
        self._driver.negotiate(sock, peer, server, terms, self._hand_over)

    def poll(self, timeout):
        """Do what is to be done, after waiting for something to do for `timeout` seconds at most."""
        self._driver.poll(timeout)

    def watch(self, sock):
        """Make `poll` return when there is something to read from a client's end."""
        self._selector.register(sock, selectors.EVENT_READ, lambda _: None)

    def unwatch(self, sock):
        """See `watch`."""
        self._selector.unregister(sock)

    def wake(self):
        """Make `poll` return; from any thread."""
        try:
            self._bell.send(b"!")
        except BlockingIOError:
            pass  # It has a lot to hear already.

    @property
    def idle(self):
        """Whether every call of the application has returned."""
        return self.begun == self.returned

    def shut_down(self):
        """Begin a graceful shutdown."""
        self._driver.shutdown()

    def close(self):
        """Close every connection, and wait for the threads."""
        self._driver.close()
        self._pool.shutdown()
        for resource in (self._selector, self._bell, self._ear):
            resource.close()

    def _count(self):
        self.begun += 1

    def _serve(self, *arguments):
        """Run a request as a pool thread does; nothing may come out of it."""
        try:
            self._handler(*arguments)
        except BaseException as error:  # The test shall see it, not the thread.
            self.errors.append(error)
        finally:
            with self._lock:
                self.returned += 1
            self.wake()

    def _hear(self, ear):
        ear.recv(65_536)

    def _hand_over(self, sock, peer, server, data, header):
        sock.close()
        raise AssertionError("the client was taken for one of HTTP/1")


class Reply(Answer):
    """What came back on one stream; `stream_id` is known once the request has begun."""

    stream_id = 0

    @property
    def over(self):
        """Whether nothing more will come."""
        return self.ended or self.reset is not None

    @property
    def fields(self):
        """The response's fields in order, `:status` left out."""
        return [field for field in self.head if field[0] != b":status"]

    def field(self, name):
        """The value of a field that comes at most once, or None."""
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    def all(self, name):
        """The values of a field."""
        return [value for other, value in self.fields if other == name]

    @property
    def own_fields(self):
        """The fields that are not the server's own."""
        return [field for field in self.fields if field[0] not in (b"server", b"date")]


class Client(Peer):
    """The client of `tests.protocol.peer` at one end of a socket pair; a `Rig` serves the other one."""

    def __init__(self, rig, sock, settings=(), cut=None, setup=True):
        self.rig, self.sock, self.cut = rig, sock, cut
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_allowed_table_size = 65_536
        self.frames, self.answers, self._received, self.closed = [], {}, bytearray(), False
        self._section, self._next, self._pings = b"", 1, 0
        sock.setblocking(False)
        rig.clients.append(self)
        rig.backend.watch(sock)
        if setup:
            self.setup(settings)

    def close(self):
        """Close the connection, as a client that is gone."""
        self.closed = True
        if self.sock.fileno() >= 0:
            self.rig.backend.unwatch(self.sock)
        self.sock.close()

    def leave(self):
        """Close the connection, and wait until the server knows."""
        self.sock.shutdown(socket.SHUT_WR)
        self.rig.until(lambda: self.closed, "the end of the connection")

    def setup(self, pairs=()):
        """Send the preface and SETTINGS, acknowledge the server's, and wait until it knows."""
        super().setup(pairs)
        self.barrier()
        self.take()

    def send(self, *pieces):
        """Send octets, and let the server act on them."""
        octets = b"".join(pieces)
        while octets:
            try:
                sent = self.sock.send(octets[:self.cut])
            except (BlockingIOError, ssl.SSLWantReadError):
                self.rig.turn()
                continue
            octets = octets[sent:]
            if self.cut:
                self.rig.turn()
        self.rig.turn()
        return self.collect()

    def collect(self):
        """Read what has come."""
        while not self.closed:
            try:
                octets = self.sock.recv(1_048_576)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            self.closed = not octets
            self._received += octets
        self.octets = self._take_whole_frames()
        self._parse()
        return self

    def _take_whole_frames(self):
        end = 0
        while len(self._received) >= end + 9:
            after = end + 9 + int.from_bytes(self._received[end:end + 3], "big")
            if after > len(self._received):
                break
            end = after
        octets = bytes(self._received[:end])
        del self._received[:end]
        return octets

    def barrier(self):
        """Wait until the server has answered a PING: it has then acted on all that was sent before."""
        self._pings += 1
        payload = self._pings.to_bytes(8, "big")
        self.send(ping(payload))
        self.rig.until(lambda: (True, payload) in self.pings or self.closed, "the answer to a PING")

    def assert_alive(self):
        """The connection goes on."""
        self.barrier()
        assert not self.closed
        assert not self.goaways

    # -- requests ----------------------------------------------------------------------------------------------------

    def start(self, *extra, body=b"", end=True, trailers=None, section=None, **pseudo):
        """Send a request; return what comes back, now and later. `section` stands for all of its fields."""
        reply = self._next_reply()
        stream_id = reply.stream_id
        section = fields(*extra, **{"scheme": b"http", **pseudo}) if section is None else section
        whole = end and not body and trailers is None
        frames = [self.headers(stream_id, section, whole)]
        frames += data_frames(stream_id, body, end and trailers is None)
        if trailers is not None:
            frames.append(self.headers(stream_id, trailers))
        self.send(*frames)
        return reply

    def request_block(self, block, flags=0):
        """Send a request without a body as a header block in HPACK's octets; see `request`."""
        reply = self._next_reply()
        self.send(raw(HEADERS, END_HEADERS | END_STREAM | flags, reply.stream_id, block))
        self.wait_for(reply)
        self.rig.wait_idle()
        return reply

    def _next_reply(self):
        reply = Reply()
        reply.stream_id = self.next_id()
        self.answers[reply.stream_id] = reply
        return reply

    def request(self, *extra, **options):
        """Send a request, and wait until its response is here and its application has returned."""
        reply = self.start(*extra, **options)
        self.wait_for(reply)
        self.rig.wait_idle()
        return reply

    def wait_for(self, *replies):
        """Wait until these are over."""
        for reply in replies:
            self.rig.until(lambda reply=reply: reply.over or self.closed, f"the response on stream {reply.stream_id}")

    def send_data(self, reply, body=b"", end=False):
        """Send more of a request's body."""
        self.send(*data_frames(reply.stream_id, body, end, always=True))

    def open_windows(self, octets=2**30):
        """Let responses come however large they are: the connection's window, and the one of streams to come."""
        self.send(window_update(0, octets))


def data_frames(stream_id, body, end, always=False):
    """A body as DATA frames; without one there is none, unless `always`."""
    pieces = [body[start:start + _FRAME_SIZE] for start in range(0, len(body), _FRAME_SIZE)]
    if always and not pieces:
        pieces = [b""]
    return [data(stream_id, piece, end and number == len(pieces)) for number, piece in enumerate(pieces, 1)]


class Gate:
    """Where an application waits until the test lets it go on."""

    def __init__(self, rig):
        self._rig, self._inside, self._open = rig, 0, threading.Event()

    def enter(self):
        """For the application: wait."""
        self._inside += 1
        self._rig.backend.wake()
        assert self._open.wait(TIMEOUT), "the test left an application at its gate"

    def wait_inside(self):
        """For the test: wait until the application waits."""
        self._rig.until(lambda: self._inside, "the application at its gate")

    def open(self):
        """Let the application go on."""
        self._open.set()


class _Records(logging.Handler):
    """Keeps what Gunicorn's real logger was given."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def emit(self, record):
        self.kept.append(record)


class Rig:
    """A worker's part that serves HTTP/2 with a WSGI application, and a client; `settings` are Gunicorn's."""

    def __init__(self, app, threads=4, limits=None, log_class=Logger, max_sockets=None, max_waiting=0, **settings):
        self.cfg = Config()
        for name, value in {"loglevel": "debug", "accesslog": "-", **settings}.items():
            self.cfg.set(name, value)
        self._handlers = {log: log.handlers[:] for log in map(logging.getLogger, ("gunicorn.error", "gunicorn.access"))}
        for log in self._handlers:
            # Gunicorn takes the first one for its own.
            log.handlers.clear()
        self.log = log_class(self.cfg)
        self._error_records, self._access_records = _Records(), _Records()
        self.log.error_log.addHandler(self._error_records)
        self.log.access_log.addHandler(self._access_records)
        self.worker = SimpleNamespace(cfg=self.cfg, log=self.log, wsgi=app)
        self.backend = Backend(self.worker, threads, limits or {}, max_sockets, max_waiting)
        self.notes, self.clients, self._gates, self._expected = [], [], [], 0
        self.client = None

    def connect(self, peer=PEER, server=SERVER, tls=None, **options):
        """Open a connection; `tls` is a pair of contexts, the server's and the client's."""
        ours, theirs = socket.socketpair()
        self.backend.adopt(ours, peer, server, tls and wrapping(tls[0]))
        if tls:
            theirs = self._shake_hands(theirs, tls[1])
        client = Client(self, theirs, **options)
        self.client = self.client or client
        return client

    def _shake_hands(self, sock, context):
        sock.setblocking(False)
        sock = context.wrap_socket(sock, server_hostname="localhost", do_handshake_on_connect=False)
        while True:
            try:
                sock.do_handshake()
                return sock
            except ssl.SSLWantReadError:
                self.backend.poll(TIMEOUT)

    def request(self, *extra, **options):
        """See `Client.request`; on the first connection."""
        return self.client.request(*extra, **options)

    def start(self, *extra, **options):
        """See `Client.start`; on the first connection."""
        return self.client.start(*extra, **options)

    def gate(self):
        """Make a gate; it opens at the end of the test."""
        self._gates.append(Gate(self))
        return self._gates[-1]

    def note(self, value):
        """For the application: tell the test something."""
        self.notes.append(value)
        self.backend.wake()

    # -- time --------------------------------------------------------------------------------------------------------

    def turn(self):
        """Let the driver do what it can do at once."""
        self.backend.poll(0)

    def until(self, condition, what):
        """Run the driver until a condition holds."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            for client in self.clients:
                client.collect()
            if condition():
                return
            left = deadline - time.monotonic()
            assert left > 0, f"waited in vain for {what}; the log says\n{self.text}"
            self.backend.poll(left)

    def wait_idle(self):
        """Wait until every call of the application has returned."""
        self.until(lambda: self.backend.idle, "the application to return")

    def wait_notes(self, count):
        """Wait until the application has told so many things; return all of them."""
        self.until(lambda: len(self.notes) >= count, f"{count} notes, got {self.notes}")
        return list(self.notes)

    # -- what Gunicorn is told ---------------------------------------------------------------------------------------

    @property
    def access(self):
        """The atoms of each entry of the access log, as Gunicorn's `Logger.atoms` makes them."""
        return [record.args for record in self._access_records.kept]

    @property
    def access_lines(self):
        """The access log."""
        return [record.getMessage() for record in self._access_records.kept]

    def lines(self, level=None):
        """The error log's lines, of one level or of all, each with its exception."""
        return [_line(record) for record in self._error_records.kept if level in (None, record.levelname)]

    @property
    def text(self):
        """All of the error log."""
        return "\n".join(self.lines())

    def expect_errors(self, count=1):
        """Return the lines of level ERROR, so many in all; without this a test has none."""
        self._expected = count
        errors = self.lines("ERROR")
        assert len(errors) == count, errors
        return errors

    def allow_errors(self):
        """For a test that may have any number of them."""
        self._expected = None

    def close(self):
        """End everything, then see whether anything went wrong unnoticed."""
        for gate in self._gates:
            gate.open()
        for client in self.clients:
            client.close()
        try:
            self.wait_idle()
        finally:
            self.backend.close()
            for log, handlers in self._handlers.items():
                for handler in set(log.handlers) - set(handlers):
                    handler.close()
                log.handlers[:] = handlers
        assert self.backend.errors == []
        assert self._expected in (None, len(self.lines("ERROR"))), self.lines("ERROR")


def _line(record):
    return record.getMessage() + (f" {record.exc_info[1]!r}" if record.exc_info else "")


def wrapping(context):
    """What puts TLS around a socket, the handshake still to come."""
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


# -- applications ------------------------------------------------------------------------------------------------------


def answering(*body, status="200 OK", headers=()):
    """An application that gives this answer to everything."""
    def app(environ, start_response):
        start_response(status, list(headers))
        return list(body)
    return app


def keeping(environs):
    """An application that keeps its environs, as they are when it is called."""
    def app(environ, start_response):
        environs.append(dict(environ))
        start_response("200 OK", [])
        return []
    return app


class Result:
    """What an application returns: an iterable that counts the calls of its `close`."""

    def __init__(self, *items, error=None, close_error=None):
        self.items, self.error, self.close_error, self.closes = list(items), error, close_error, 0

    def __iter__(self):
        yield from self.items
        if self.error is not None:
            raise self.error

    def close(self):
        """Count."""
        self.closes += 1
        if self.close_error is not None:
            raise self.close_error
