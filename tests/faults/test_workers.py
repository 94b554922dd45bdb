"""Faults of applications, of workers and of the machine: others are served, and nothing is left behind."""

import contextlib
import json
import os
import re
import resource
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.gate import Gate
from tests.support.h2client import H2Client, open_tcp
from tests.support.load import LoadClient

from .site import TIMEOUT, Site

SECRET = r"DeliberateError|DeliberateExit|MemoryError|SystemExit"
WHENS = ("call", "read", "start", "iter", "next", "body", "close")


@pytest.mark.parametrize("error", ["error", "base", "memory", "exit"])
def test_an_application_that_raises_in_any_place(site, error):
    """The stream ends with a 500 or a reset, others of its connection go on."""
    site.server.expect(SECRET)
    with Gate() as gate, H2Client.connect(site.server) as client:
        other = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        for when in WHENS:
            stream = client.request("POST", f"/fail?when={when}&kind={error}", body=b"body")
            client.response(stream)
            assert stream.reset or stream.status == 500 or when == "close", when
            assert b"secret" not in bytes(stream.body)
        gate.release()
        assert client.response(other).status == 200
    site.check()


def test_every_thread_is_at_work(kind, boot):
    """PING and SETTINGS are answered all the same, requests wait for their turn, and may be cancelled meanwhile."""
    server = boot(threads=2)
    site = Site(server, warm_up=2)
    with Gate() as gate, H2Client.connect(server) as client:
        streams = [client.request("GET", gate.path("/gate")) for _ in range(2)]
        gate.wait_inside(2)
        waiting = [client.request("GET", "/hello") for _ in range(40)]
        for stream in waiting[::2]:
            client.reset(stream)
        client.ping()
        site.bystander.ping()
        gate.release()
        assert {client.response(stream).status for stream in (*streams, *waiting[1::2])} == {200}
    site.check()
    site.close()


def test_sleeping_past_the_timeout(kind, boot):
    """As in Gunicorn's workers of the same kind: a thread, a greenlet or a task may sleep for longer than `timeout`."""
    server = boot(timeout=2)
    with H2Client.connect(server) as client, H2Client.connect(server) as other:
        stream = client.request("GET", "/sleep?s=2.5")
        assert other.get("/hello").status == 200
        assert client.response(stream).text == "awake"
        assert other.get("/pid").text == client.get("/pid").text


def test_blocking_past_the_timeout(kind, boot):
    """A thread that blocks stops nobody. What blocks the hub or the event loop has its worker killed and replaced."""
    server = boot(timeout=2)
    server.expect("WORKER TIMEOUT", "was sent SIG(ABRT|KILL)", "Traceback")
    with H2Client.connect(server) as client:
        before = client.get("/pid").text
        stream = client.request("GET", f"/block?s={3 if kind == 'thread' else 30}")
        if kind == "thread":
            with H2Client.connect(server) as other:
                assert other.get("/hello").status == 200
            assert client.response(stream).text == "done"
        else:
            mark = server.log_mark()
            server.wait_log("WORKER TIMEOUT", after=mark)
            client.wait_closed()
            server.wait_log(r"worker \d+ is ready", after=mark)
            assert stream.status in (None, 500)
    with H2Client.connect(server) as client:
        assert (client.get("/pid").text == before) == (kind == "thread")


def test_a_worker_that_is_killed_under_load(boot):
    """The master replaces it; clients of the other worker lose nothing."""
    server = boot(workers=2)
    server.expect("was sent SIGKILL")
    clients = {}
    while len(clients) < 2:
        client = H2Client.connect(server)
        pid = int(client.get("/pid").text)
        if pid in clients:
            client.close()
        else:
            clients[pid] = client
    victim, other = clients
    with Gate() as gate:
        mark = server.log_mark()
        streams = {pid: [client.request("GET", gate.path("/gate")), client.request("GET", "/bytes?n=200")]
                   for pid, client in clients.items()}
        gate.wait_inside(2)
        os.kill(victim, signal.SIGKILL)
        clients[victim].wait_closed()
        assert not streams[victim][0].ended
        server.wait_log(r"worker \d+ is ready", after=mark)
        gate.release()
        assert {clients[other].response(stream).status for stream in streams[other]} == {200}
    load = [LoadClient(server, "/pid") for _ in range(4)]
    for client in load:
        client.start()
    for client in load:
        client.wait_answered(20)
        client.finish()
    assert not [lost for client in load for lost in client.lost]
    assert int(clients[other].get("/pid").text) == other
    assert len(server.worker_pids) == 2
    for client in clients.values():
        client.close()


def test_no_descriptor_is_left_for_a_connection(boot):
    """Those that are served go on, the worker neither ends nor spins, and newcomers are served when there is room."""
    server = boot(http2_handshake_timeout=60)
    server.expect("Too many open files", "No file descriptor", "OSError", "Traceback")
    site = Site(server, warm_up=4)
    site.bystander.get("/limit?n=8")
    crowd = [open_tcp(server) for _ in range(40)]
    server.wait_log("[Tt]oo many open files|No file descriptor")
    before = json.loads(site.bystander.get("/time").text)
    for _ in range(10):
        assert site.bystander.get("/hello").status == 200
        assert not site.bystander.wait_broken(0.05)
    spent = json.loads(site.bystander.get("/time").text) - before
    assert spent < 0.35, f"{spent} s of half a second"
    for sock in crowd:
        sock.close()
    # Until the worker has noticed, newcomers may be turned away still.
    site.check()
    site.serve_newcomer()
    site.close()


def test_an_application_that_takes_every_descriptor(kind, boot):
    """Those that a worker keeps for itself, too: it goes on all the same."""
    server = boot()
    server.expect("Too many open files", "No file descriptor", "OSError", "Traceback")
    site = Site(server, warm_up=4)
    pid = site.bystander.get("/pid").text
    site.bystander.get("/limit?n=8")
    with H2Client.connect(server) as client:
        # In a thread, this competes with the worker; elsewhere the worker finds none when it is over.
        streams = [client.request("GET", "/grab?s=0.5") for _ in range(3 if kind == "thread" else 1)]
        client.ping()
        crowd = [open_tcp(server) for _ in range(60)]
        assert all(client.response(stream).status == 200 for stream in streams)
        for sock in crowd:
            sock.close()
    site.check()
    site.serve_newcomer()
    assert site.bystander.get("/pid").text == pid
    site.close()


def test_a_full_disk_under_the_access_log(boot):
    """A line that cannot be written costs no response."""
    server = boot(accesslog="/dev/full")
    server.expect("No space left on device", "Logging error", "Traceback")
    site = Site(server, warm_up=4)
    with H2Client.connect(server) as client:
        for _ in range(30):
            assert client.get("/hello").status == 200
        client.reset(client.request("POST", "/count", end=False))
        client.ping()
    assert re.search("No space left on device", server.log)
    site.check()
    site.close()


ROOM = 1_048_576
"""Octets that the disk has for responses. All of them together are many times as large."""
PIECES = 60
CANNOT_WRITE = r"\[WARNING\] The temporary file for responses to slow clients cannot be written: \[Errno \d+\] "


@pytest.mark.parametrize("fault", ["full", "no-directory"])
def test_a_full_disk_under_the_responses(boot, tmp_path, fault):
    """Slow readers' responses wait for them then; everyone else is served, and later ones find room again."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    server = boot(env={"TMPDIR": str(folder)}, http2_worker_buffer_size=1_000_000)
    site = Site(server, warm_up=4)
    if fault == "full":
        # To a process, a limit on its files is a disk that takes no more; each write is cut short or fails.
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
    else:
        folder.rmdir()
    clients = [H2Client.connect(server, auto_window=False) for _ in range(8)]
    streams = [client.request("GET", f"/whole?n={PIECES}") for client in clients]
    for stream in streams:
        stream.client.wait_for(lambda stream=stream: stream.received == 65_535, "a window full of data")
    server.wait_log(CANNOT_WRITE + ("File too large" if fault == "full" else "No such file or directory"))
    site.serve_newcomer()
    for stream in streams[::2]:
        assert read_all(stream) == PIECES * 65_536
    if fault == "full":
        resource.prlimit(server.worker_pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    else:
        folder.mkdir()
    for client in clients:
        client.close()
    site.check()
    assert len(re.findall(CANNOT_WRITE, server.log)) == 1
    with H2Client.connect(server, auto_window=False) as client:
        stream = client.request("GET", f"/whole?n={PIECES}")
        spool = Path(f"/proc/{server.worker_pid}/fd")
        wait_until(lambda: spooled_octets(spool) > ROOM)
        assert read_all(stream) == PIECES * 65_536
    site.check()
    assert not os.listdir(folder)
    site.close()


def read_all(stream):
    """Open the windows and read a response to its end; return how many octets it has."""
    stream.client.auto_window = True
    stream.client.grant(65_535)
    stream.client.grant(65_535, stream)
    assert stream.client.response(stream).ended
    return stream.received


def spooled_octets(folder):
    """How many octets are in a worker's files that have no name; `folder` is that of its descriptors."""
    octets = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if "(deleted)" in os.readlink(path):
                octets += path.stat().st_size
    return octets


def wait_until(condition):
    """Ask until something is so that the worker is about to do."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it is not so"
        threading.Event().wait(0.01)
