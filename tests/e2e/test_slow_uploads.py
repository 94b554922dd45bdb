"""Uploads of slow clients: they cost no thread, and what they cost is free again when they are gone."""

import contextlib
import os
import signal
import time

import pytest

from tests.support.checks import prove_all_free, wait_idle
from tests.support.h2client import CANCEL, H2Client

TIMEOUT = 15
THREADS = 4
UPLOADS = 200
DECLARED = 10_000_000
FILLED = 40_000
"""Octets after which the application is called: more than half of the buffer."""


@pytest.fixture
def server(boot, worker):
    """A server with four threads that has served before, and whose timeout is longer than the test."""
    if worker.worker_class not in ("gunicorn_h2.ThreadWorker", "gunicorn_h2.GeventWorker"):
        pytest.skip("a worker whose applications are called at once, or the same as another one")
    server = boot("wsgi", threads=THREADS, timeout=60, graceful_timeout=30, http2_max_waiting_threads=UPLOADS + 20)
    prove_all_free(server, THREADS)
    return server


@contextlib.contextmanager
def connections(server, count=4):
    """Open connections; close them at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(H2Client.connect(server)) for _ in range(count)]


def begin(client, declared=DECLARED, path="/count?key=slow"):
    """Begin an upload."""
    return client.request("POST", path, [("content-length", str(declared))], end=False)


def begin_many(clients):
    """Begin all the uploads; return them with their clients."""
    return [(client, begin(client)) for client in clients for _ in range(UPLOADS // len(clients))]


def send(client, stream, octets):
    """Send a part of a body."""
    client.send_body(stream, bytes(octets), end=False)


def running(client):
    """How many application calls are under way beside the one that says so."""
    return int(client.get("/busy?n=10000").text)


def wait_until(condition, what):
    """Ask until something is so."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what


def resources(server):
    """The threads and the file descriptors of the worker."""
    return {name: len(os.listdir(f"/proc/{server.worker_pid}/{name}")) for name in ("task", "fd")}


@contextlib.contextmanager
def nothing_is_left(server):
    """Check that the worker has no more threads and descriptors afterwards, and that they are free."""
    before = resources(server)
    yield
    wait_idle(server)
    prove_all_free(server, THREADS)
    # A connection of an earlier request may have been open still.
    wait_until(lambda: all(resources(server)[name] <= before[name] for name in before), f"more than {before}")


def serve_bystander(client, number):
    """Have a bystander's requests answered, with bodies and without."""
    for _ in range(number):
        assert client.get("/hello").status == 200
        assert client.post("/count", b"x" * 1_000, [("content-length", "1000")]).text == '{"length": 1000}'


def test_two_hundred_uploads_that_trickle_begin_no_call(server):
    with nothing_is_left(server), connections(server) as clients, H2Client.connect(server) as bystander:
        uploads = begin_many(clients)
        for _ in range(5):
            for client, stream in uploads:
                send(client, stream, 1)
            for client in clients:
                client.ping()
            serve_bystander(bystander, 20)
            assert running(bystander) == 0
        prove_all_free(server, THREADS)
        assert not any(stream.done for _, stream in uploads)


@pytest.mark.timeout(90)
def test_threads_of_bodies_that_stop_are_replaced(server):
    with nothing_is_left(server), connections(server) as clients, H2Client.connect(server) as bystander:
        uploads = begin_many(clients)
        for client, stream in uploads:
            send(client, stream, FILLED)
        wait_until(lambda: running(bystander) == UPLOADS, "all calls under way")
        serve_bystander(bystander, 50)
        prove_all_free(server, THREADS)
        # As many as there are at any time, but for one that may be about to end its wait or its life.
        if server.kind.has_threads:
            assert resources(server)["task"] <= UPLOADS + THREADS + 4
        # A quarter goes on, a quarter is reset, and the connections of the rest close.
        for client, stream in uploads[:UPLOADS // 4]:
            send(client, stream, 100_000)
        for client, stream in uploads[UPLOADS // 4:UPLOADS // 2]:
            client.reset(stream, CANCEL)
        wait_until(lambda: running(bystander) == 3 * UPLOADS // 4, "the calls of streams that were reset at an end")
        for client in clients[2:]:
            client.close()
        wait_until(lambda: running(bystander) == UPLOADS // 4, "the calls of connections that were closed at an end")
        serve_bystander(bystander, 10)


def test_bodies_that_end_are_served_however_slowly_they_come(server):
    with nothing_is_left(server), connections(server) as clients, H2Client.connect(server) as bystander:
        streams = [(client, begin(client, 6)) for client in clients for _ in range(50)]
        for _ in range(6):
            for client, stream in streams:
                send(client, stream, 1)
            serve_bystander(bystander, 1)
        for client, stream in streams:
            client.send_raw(client.data_frame(stream.stream_id, b"", end_stream=True))
        assert {client.response(stream).text for client, stream in streams} == {'{"length": 6}'}


@pytest.mark.parametrize("end", ["reset", "close"])
def test_no_application_hears_of_requests_that_end_before_their_bodies(server, end):
    mark = server.log_mark()
    with nothing_is_left(server), connections(server) as clients:
        uploads = begin_many(clients)
        for client, stream in uploads:
            send(client, stream, 1_000)
        for client in clients:
            client.ping()
        if end == "reset":
            for client, stream in uploads:
                client.reset(stream)
            for client in clients:
                client.ping()
    assert "key=slow" not in "\n".join(server.log.splitlines()[mark:])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP], ids=["term", "hup"])
def test_uploads_under_way_are_served_when_the_worker_stops(server, how):
    with connections(server, 2) as clients:
        held = [(client, begin(client, 1_000)) for client in clients for _ in range(10)]
        waiting = [(client, begin(client, 100_000)) for client in clients for _ in range(10)]
        for client, stream in held:
            send(client, stream, 400)
        for client, stream in waiting:
            send(client, stream, FILLED)
        with H2Client.connect(server) as bystander:
            wait_until(lambda: running(bystander) == len(waiting), "all calls under way")
        if how == signal.SIGHUP:
            server.reload()
            with H2Client.connect(server) as bystander:
                serve_bystander(bystander, 5)
        else:
            server.signal(how)
            clients[0].wait_goaway()
        for client, stream in held:
            client.send_body(stream, bytes(600))
        for client, stream in waiting:
            client.send_body(stream, bytes(100_000 - FILLED))
        assert {client.response(stream).text for client, stream in held} == {'{"length": 1000}'}
        assert {client.response(stream).text for client, stream in waiting} == {'{"length": 100000}'}
        for client in clients:
            client.wait_closed()
    if how == signal.SIGTERM:
        assert server.wait_exit() == 0


def test_a_body_that_stalls_is_answered_408_and_logged(boot):
    server = boot("wsgi", threads=2, timeout=2)
    with H2Client.connect(server) as client:
        stalled = begin(client, 100, "/hello?stalled")
        send(client, stalled, 50)
        assert client.response(stalled).status == 408
        server.wait_log(r"ACCESS 127\.0\.0\.1 POST /hello\?stalled HTTP/2\S* 408")
        server.wait_log("Invalid request from ip=127.0.0.1: the client sends its body too slowly")
        assert client.get("/hello").status == 200


def test_threads_beyond_the_limit_are_not_replaced(boot, worker):
    """Then they count as busy, which the log says; and the worker serves again when they go on."""
    if not worker.has_threads:
        pytest.skip("a worker without threads")
    server = boot("wsgi", threads=2, timeout=60, http2_max_waiting_threads=3)
    with H2Client.connect(server) as client, H2Client.connect(server) as bystander:
        uploads = [begin(client) for _ in range(5)]
        for stream in uploads:
            send(client, stream, FILLED)
        server.wait_log("3 threads wait for slow clients.*http2_max_waiting_threads")
        late = bystander.request("GET", "/hello")
        bystander.ping()
        assert not late.done
        client.reset(uploads[0])
        assert bystander.response(late).status == 200
