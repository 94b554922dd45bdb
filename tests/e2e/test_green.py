"""The workers on greenlets: what threads cannot do, and where Gunicorn's own code takes over."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.support.h1client import exchange, request_bytes
from tests.support.h2client import NO_ERROR, H2Client, open_tcp
from tests.support.server import ROOT, Server, WorkerKind, stop_all
from tests.support.tools import run

compat = pytest.mark.compat
HAS_EVENTLET_WORKER = importlib.util.find_spec("gunicorn.workers.geventlet") is not None
WORKERS = {"gevent": "gunicorn_h2.GeventWorker", "eventlet": "gunicorn_h2.EventletWorker"}
APPS = {"wsgi": "tests.apps.green_app:app", "hello": "bench.apps.wsgi:app"}


@pytest.fixture(params=WORKERS)
def serve(request, tmp_path_factory, certs):
    """A function that boots a server on greenlets; at the end it is stopped, and its log examined."""
    if request.param == "eventlet" and not HAS_EVENTLET_WORKER:
        pytest.skip("Gunicorn has no eventlet worker since version 26")
    servers, ours = [], WorkerKind(WORKERS[request.param], (), APPS)

    def serve(app="wsgi", kind=ours, **options):
        servers.append(Server(tmp_path_factory.mktemp("server"), kind, certs, app, **options))
        return servers[-1].start()

    yield serve
    stop_all(servers)


def wait_hung_up(sock):
    """Read until the server closes the connection."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65_536):
            pass


# -- concurrency -----------------------------------------------------------------------------------------------------


@compat
def test_a_thousand_requests_at_once(serve, tls):
    """None is answered before all of them are inside: they need as many greenlets."""
    server = serve(tls=tls)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server)) for _ in range(10)]
        streams = [(client, client.request("GET", "/barrier?n=1000&key=all")) for client in clients for _ in range(100)]
        assert [client.response(stream).status for client, stream in streams] == [200] * 1000


@pytest.mark.alone
def test_a_thousand_half_seconds_take_about_one(serve):
    server = serve("hello")
    run("h2load", "-n", "10", "-c", "1", server.url)
    begun = time.monotonic()
    output = run("h2load", "-n", "1000", "-c", "10", "-m", "100", f"{server.url}/sleep").stdout
    assert "1000 succeeded" in output
    # One second on a machine that has nothing else to do.
    assert time.monotonic() - begun < 5


def test_each_request_has_a_greenlet_of_its_own(serve, gate):
    server = serve()
    with H2Client.connect(server) as client:
        waiting = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        streams = [client.request("GET", "/greenlet") for _ in range(10)]
        assert [client.response(stream).status for stream in streams] == [200] * 10
        gate.release()
        assert client.response(waiting).status == 200


@compat
def test_what_is_no_exception_is_an_error_of_the_application(serve):
    """As gevent.Timeout: answered with 500, which tells nothing, and the connection goes on."""
    server = serve()
    server.expect("Deadline")
    with H2Client.connect(server) as client:
        failed = client.get("/deadline")
        assert (failed.status, "secret" in failed.text) == (500, False)
        assert client.get("/hello").status == 200


# -- HTTP/1 ----------------------------------------------------------------------------------------------------------


@compat
@pytest.mark.parametrize("cleartext", ["off", "both", "upgrade"])
@pytest.mark.covered
def test_http1_in_the_clear(serve, cleartext):
    """Whatever was read in search of HTTP/2 reaches Gunicorn's own code."""
    server = serve(tls=False, http2_cleartext=cleartext)
    body = b"x" * 100_000
    for _ in range(3):
        assert exchange(server, request_bytes(server, "POST", "/count", body=body), "POST").text == '{"length": 100000}'


@compat
@pytest.mark.covered
def test_http1_over_tls(serve):
    server = serve()
    for _ in range(3):
        assert exchange(server, request_bytes(server, path="/hello")).text == "Hello, world!\n"
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200


def test_a_file_over_http1_in_the_clear(serve):
    """By sendfile, for which Gunicorn needs the real socket."""
    server = serve(tls=False)
    assert len(exchange(server, request_bytes(server, path="/file?n=300000&length=300000")).body) == 300_000
    server.expect("Invalid argument")  # Gunicorn's own gevent worker has this, too: the file's buffer is confused.


@pytest.mark.covered
def test_http1_is_refused_where_prior_knowledge_is_expected(serve):
    server = serve(tls=False, http2_cleartext="prior-knowledge")
    assert exchange(server, request_bytes(server, path="/hello")).status == 400
    server.wait_log("no HTTP/2 connection preface")


# -- connections -----------------------------------------------------------------------------------------------------


@compat
@pytest.mark.covered
def test_worker_connections(serve, tls):
    """One more has to wait until another one ends."""
    server = serve(tls=tls, worker_connections=2, keepalive=30)
    with H2Client.connect(server) as first, H2Client.connect(server) as second, open_tcp(server) as tcp:
        assert first.get("/hello").status == 200
        assert second.get("/hello").status == 200
        first.close()
        tcp.close()
        with H2Client.connect(server) as third:
            assert third.get("/hello").status == 200


def test_a_closed_connection_counts_until_its_requests_have_ended(serve, gate):
    server = serve(tls=False, worker_connections=1)
    with H2Client.connect(server) as client:
        client.request("GET", gate.path("/gate"))
        gate.wait_inside()
    with H2Client.connect(server) as other:
        stream = other.request("GET", "/hello")
        assert not other._poll(1, time.monotonic() + 0.2)
        gate.release()
        assert other.response(stream).status == 200


@compat
@pytest.mark.covered
def test_slow_handshakes_have_a_deadline(serve, tls):
    server = serve(tls=tls, http2_handshake_timeout=0.2)
    with open_tcp(server) as silent, open_tcp(server) as slow:
        slow.sendall(b"\x16" if tls else b"PRI * ")
        wait_hung_up(silent)
        wait_hung_up(slow)


# -- the end ---------------------------------------------------------------------------------------------------------


@compat
@pytest.mark.covered
def test_sigterm_ends_at_once_what_is_idle(serve, tls, gate):
    server = serve(tls=tls, keepalive=30)
    with H2Client.connect(server) as idle, H2Client.connect(server) as busy:
        idle.wait_settings()
        stream = busy.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        assert [goaway[1] for goaway in (idle.wait_goaway(1), idle.wait_goaway(2))] == [0, 0]
        idle.wait_closed()
        idle.close()
        busy.wait_goaway()
        gate.release()
        assert busy.response(stream).status == 200
        busy.wait_closed()
    assert server.wait_exit() == 0


@pytest.mark.covered
def test_what_does_not_end_is_killed(serve, gate):
    """After `graceful_timeout`, as Gunicorn does: where a greenlet waits, it is raised from there."""
    server = serve(graceful_timeout=1)
    with H2Client.connect(server) as client:
        client.request("GET", gate.path("/killed"))
        gate.wait_inside()
        # The worker alone: Gunicorn's master would kill it at the same time.
        os.kill(server.worker_pid, signal.SIGTERM)
        client.wait_closed()
        server.wait_log("Worker exiting")
    server.wait_log("Worker graceful timeout")
    if "Gevent" in server.kind.worker_class:
        server.wait_log("the request was killed")


@compat
@pytest.mark.covered
def test_max_requests_over_both_protocols(serve):
    server = serve(tls=False, max_requests=3, http2_cleartext="both")
    with H2Client.connect(server) as client:
        streams = [client.request("GET", "/hello") for _ in range(2)]
        assert [client.response(stream).status for stream in streams] == [200] * 2
    exchange(server, request_bytes(server, path="/hello"))
    server.wait_log("Autorestarting worker")
    server.wait_log(r"worker \d+ is ready", after=server.wait_log("Worker exiting").line_number)
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200


# -- start-up --------------------------------------------------------------------------------------------------------


@compat
@pytest.mark.parametrize("name", ["gunicorn_h2.EventletWorker", "egg:gunicorn-h2#eventlet"])
@pytest.mark.skipif(HAS_EVENTLET_WORKER, reason="Gunicorn has an eventlet worker up to version 25")
def test_without_gunicorns_eventlet_worker_there_is_none(name):
    command = [sys.executable, "-m", "gunicorn", "-k", name, "-b", "127.0.0.1:0", "tests.apps.wsgi_app:app"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "has no eventlet worker" in done.stderr
    assert "gunicorn_h2.GeventWorker" in done.stderr
    assert "Traceback" not in done.stderr


@compat
def test_the_entry_point(serve):
    name = next(name for name in WORKERS if WORKERS[name] == serve().kind.worker_class)
    server = serve(kind=WorkerKind(f"egg:gunicorn-h2#{name}", (), APPS))
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
    assert "1000 connections" in server.wait_log("gunicorn_h2: .*")[0]


ACCEPTED_LATE = """
def post_worker_init(worker):
    handle = worker.handle

    def handle_late(listener, client, address):
        import time
        worker.log.info("accepted")
        while worker.alive or listener.fileno() >= 0:
            time.sleep(0.01)
        handle(listener, client, address)

    worker.handle = handle_late
"""


def test_a_connection_accepted_last(serve):
    """One whose greenlet begins when the worker has closed the listener: GOAWAY says that it may try elsewhere."""
    server = serve(code=ACCEPTED_LATE)
    with socket.create_connection((server.host, server.port), timeout=15) as sock:
        server.wait_log("accepted")
        server.signal(signal.SIGTERM)
        with server.certs.client_context().wrap_socket(sock, server_hostname="localhost") as secure:
            client = H2Client(secure, server.authority)
            client.send_preface()
            client.wait_closed()
            assert client.goaways[-1] == (0, NO_ERROR)
    assert server.wait_exit() == 0
