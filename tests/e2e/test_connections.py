"""More connections than there is room for, from one address and from many, on every worker class."""

import contextlib
import itertools
import re
import signal
import socket
import threading
import time

import pytest
from hyperframe.frame import PingFrame

from tests.support.h2client import ENHANCE_YOUR_CALM, NO_ERROR, H2Client, open_socket, open_tcp
from tests.support.kinds import KINDS, WSGI_KINDS, make_server

STRANGER, NEIGHBOUR = "127.0.0.2", "127.0.0.3"
MARK = "worker_connections is nearly reached"


@pytest.fixture(params=KINDS)
def serve(request, tmp_path, certs):
    """A function that starts a server of each kind."""
    servers = []

    def serve(**settings):
        app = "wsgi" if request.param in WSGI_KINDS else "tests.apps.asgi_app:app"
        server = make_server(request.param, tmp_path, certs, app, **{"keepalive": 300, **settings})
        servers.append(server)
        return server.start()

    yield serve
    for server in servers:
        server.stop()


@contextlib.contextmanager
def idle_clients(server, count, **options):
    """So many connections that have had their request answered."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server, **options)) for _ in range(count)]
        for client in clients:
            assert client.get("/hello").status == 200
        yield clients


def pending_goaways(client):
    """The GOAWAYs that have arrived."""
    client.receive_pending()
    return client.goaways


def assert_serves(server, **options):
    """A newcomer gets its answer, and soon."""
    began = time.monotonic()
    with H2Client.connect(server, timeout=5, **options) as client:
        assert client.get("/hello").status == 200
    assert time.monotonic() - began < 5


# -- a full worker -----------------------------------------------------------------------------------------------------


def test_idle_connections_make_room(serve, tls):
    """The one that has been idle longest goes first, with GOAWAY(NO_ERROR)."""
    server = serve(tls=tls, worker_connections=20)
    with idle_clients(server, 20) as clients:
        busy = clients.pop(0)
        assert busy.get("/hello").status == 200
        with idle_clients(server, 6):
            assert clients[0].wait_goaway() == (1, NO_ERROR)
            clients[0].wait_closed()
            assert busy.get("/hello").status == 200
    server.wait_log(rf"\[INFO\] {MARK}: \d+ connections make room")


def test_no_more_end_than_are_needed(serve):
    server = serve(tls=False, worker_connections=20)
    with idle_clients(server, 18) as clients, idle_clients(server, 6) as more:
        deadline = time.monotonic() + 10
        # With 19 left there is room for one more.
        while sum(bool(pending_goaways(client)) for client in (*clients, *more)) < 5:
            assert time.monotonic() < deadline
        kept = [client for client in clients if not pending_goaways(client)]
        assert 12 <= len(kept) <= 14
        for client in kept:
            assert client.get("/hello").status == 200


def test_connections_that_are_full_of_stalled_streams_make_room(serve, gate):
    """A body that does not arrive, a window that is shut; but not one whose request is being worked on."""
    server = serve(worker_connections=3)
    with contextlib.ExitStack() as stack:
        working, upload, unread = (stack.enter_context(H2Client.connect(server, auto_window=False)) for _ in range(3))
        held = working.request("GET", gate.path("/gate"))
        gate.wait_inside()
        upload.request("POST", "/count", [("content-length", "10")], end=False)
        unread.wait_headers(unread.request("GET", "/bytes?n=1000000"))
        assert not unread.wait_broken(1.1)
        for _ in range(2):
            stack.enter_context(H2Client.connect(server)).request("GET", gate.path("/gate"))
            gate.wait_inside()
        assert upload.wait_goaway()[1] == unread.wait_goaway()[1] == NO_ERROR
        assert not pending_goaways(working)
        gate.release()
        assert working.response(held).status == 200


def test_handshakes_that_do_not_go_on_make_room(serve, tls):
    server = serve(tls=tls, worker_connections=20)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            stack.enter_context(open_tcp(server)).sendall(b"\x16\x03" if tls else b"PRI * ")
        for _ in range(5):
            assert_serves(server)


def test_clients_that_come_together_are_all_served(serve):
    """More handshakes at once than may be under way for long: each client gets through its own."""
    server = serve(tls=True, worker_connections=1000)
    context = server.certs.client_context(("h2",), False)
    # All have connected before the first of them begins.
    for sock in [open_tcp(server) for _ in range(400)]:
        with H2Client(context.wrap_socket(sock, server_hostname="localhost"), server.authority) as client:
            client.send_preface()
            assert client.get("/hello").status == 200


def test_connections_become_idle_when_the_worker_is_full(serve, gate):
    """Nobody can be sent away at first; as soon as someone can, the one who waits is served."""
    server = serve(tls=False, worker_connections=3)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server)) for _ in range(3)]
        held = [client.request("GET", gate.path("/gate")) for client in clients]
        gate.wait_inside(3)
        late = stack.enter_context(H2Client.connect(server))
        stream = late.request("GET", "/hello")
        assert not late._poll(1, time.monotonic() + 0.3)
        gate.release()
        assert late.response(stream).status == 200
        for client, answer in zip(clients, held, strict=True):
            assert client.response(answer).status == 200


# -- addresses ---------------------------------------------------------------------------------------------------------


def refused(server, source):
    """Whether a connection is closed before anything is said."""
    try:
        with open_tcp(server, source=source) as sock:
            sock.settimeout(0.3)
            return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def wait_admitted(server, source):
    """Wait until connections of an address are taken again."""
    began = time.monotonic()
    while refused(server, source):
        assert time.monotonic() - began < 10, server.log_tail()
    return time.monotonic() - began


def test_connections_of_an_address(serve):
    """Those beyond the limit are closed; those of other addresses, and of trusted proxies, are not."""
    server = serve(http2_max_connections_per_ip=3, forwarded_allow_ips=NEIGHBOUR)
    server.expect("http2_max_connections_per_ip")
    with idle_clients(server, 3, source=STRANGER) as clients:
        assert refused(server, STRANGER)
        server.wait_log(rf"\[WARNING\] Connection from {STRANGER} closed: http2_max_connections_per_ip is reached")
        assert_serves(server)
        with idle_clients(server, 5, source=NEIGHBOUR):
            assert clients[0].get("/hello").status == 200
    wait_admitted(server, STRANGER)


def test_the_places_of_an_address_are_given_back(serve):
    """Whatever its connections have spoken, and however they have ended."""
    server = serve(http2_max_connections_per_ip=2, forwarded_allow_ips="")
    server.expect("http2_max_connections_per_ip")
    for _ in range(2):
        wait_admitted(server, STRANGER)
        with open_socket(server, ("http/1.1",), source=STRANGER) as sock:
            sock.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        wait_admitted(server, STRANGER)
        open_tcp(server, source=STRANGER).close()
        wait_admitted(server, STRANGER)
        open_socket(server, ("http/1.1",), source=STRANGER).close()
        wait_admitted(server, STRANGER)
        assert_serves(server, source=STRANGER)


def flood(server, source):
    """Open a connection, and be ended by a limit."""
    with H2Client.connect(server, source=source) as client:
        client.flood(itertools.repeat(PingFrame(0, opaque_data=b"12345678").serialize() * 50))
        assert client.goaways[-1][1] == ENHANCE_YOUR_CALM


def flood_until_refused(server, source):
    """Come back after each end, until that is of no use; return how often."""
    for number in range(20):
        try:
            flood(server, source)
        except OSError:
            return number
    raise AssertionError("never refused")


def test_an_address_whose_connections_were_ended_again_and_again_is_refused(serve):
    """For a moment, before any TLS; what it has open, and others, go on."""
    server = serve(forwarded_allow_ips="")
    server.expect("ENHANCE_YOUR_CALM", "are refused for", "more connections closed")
    with H2Client.connect(server, source=STRANGER) as open_before:
        assert open_before.get("/hello").status == 200
        assert 3 <= flood_until_refused(server, STRANGER) <= 10
        server.wait_log(rf"\[WARNING\] New connections from {STRANGER} are refused for 1 s")
        assert refused(server, STRANGER)
        assert open_before.get("/hello").status == 200
        assert_serves(server, source=NEIGHBOUR)
        assert wait_admitted(server, STRANGER) < 2
        assert_serves(server, source=STRANGER)
        flood_until_refused(server, STRANGER)
        server.wait_log(rf"\[WARNING\] New connections from {STRANGER} are refused for 2 s")


def test_an_address_whose_handshakes_fail_is_refused(serve):
    server = serve(forwarded_allow_ips="")
    server.expect("are refused for")
    for _ in range(60):
        with contextlib.suppress(OSError), open_tcp(server, source=STRANGER) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sock.recv(1)
    server.wait_log(rf"New connections from {STRANGER} are refused for")
    assert_serves(server, source=NEIGHBOUR)
    wait_admitted(server, STRANGER)


def test_a_trusted_proxy_is_never_refused(serve):
    server = serve(forwarded_allow_ips=STRANGER)
    server.expect("ENHANCE_YOUR_CALM", "more connections closed")
    for _ in range(15):
        flood(server, STRANGER)
    assert_serves(server, source=STRANGER)
    server.wait_log(r"\[WARNING\] \d+ more connections closed: \d+ enhance_your_calm")
    assert server.log.count("closed with ENHANCE_YOUR_CALM") < 15


# -- the end -----------------------------------------------------------------------------------------------------------


class HealthCheck:
    """A load balancer's: a connection that never rests, and one that is opened whenever that is possible."""

    def __init__(self, server):
        self._server, self._stopping = server, threading.Event()
        self.answered, self._news = 0, threading.Condition()
        self._threads = [threading.Thread(target=what, daemon=True) for what in (self._stay, self._come_back)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        with self._news:
            assert self._news.wait_for(lambda: self.answered >= 5, 10)
        return self

    def __exit__(self, *exc_info):
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _check(self, client):
        client.ping()
        assert client.get("/hello").status == 200
        with self._news:
            self.answered += 1
            self._news.notify_all()

    def _stay(self):
        """Ask and ping on one connection, whatever the server says; open the next one when that is closed."""
        while not self._stopping.is_set():
            with contextlib.suppress(OSError, AssertionError), H2Client.connect(self._server) as client:
                while not self._stopping.wait(0.02):
                    self._check(client)

    def _come_back(self):
        """Ask on a new connection each time."""
        while not self._stopping.wait(0.05):
            with contextlib.suppress(OSError, AssertionError), H2Client.connect(self._server) as client:
                self._check(client)


def test_a_health_check_does_not_keep_a_worker_from_ending(serve, tls):
    server = serve(tls=tls, graceful_timeout=20)
    with HealthCheck(server):
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert time.monotonic() - began < 8


def test_a_health_check_does_not_keep_a_worker_from_being_replaced(serve):
    server = serve(max_requests=10, graceful_timeout=20)
    with HealthCheck(server) as check:
        pid = re.search(r"Booting worker with pid: (\d+)", server.log)[1]
        server.wait_log("Autorestarting worker")
        server.wait_log(rf"Worker exiting \(pid: {pid}\)", timeout=8)
        before = check.answered
        with check._news:
            assert check._news.wait_for(lambda: check.answered > before, 10)


def test_counters_reach_statsd(serve):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        server = serve(statsd_host=f"127.0.0.1:{statsd.getsockname()[1]}", forwarded_allow_ips="")
        server.expect("ENHANCE_YOUR_CALM")
        with H2Client.connect(server) as client:
            assert client.get("/hello", [("x", str(number)) for number in range(101)]).status == 431
        flood(server, STRANGER)
        awaited = {b"gunicorn.h2.closed.enhance_your_calm:1", b"gunicorn.h2.reset.too_many_fields:1"}
        while awaited:
            awaited.discard(statsd.recv(1000).partition(b"|")[0])
        # Its last report has somewhere to go.
        server.stop()
