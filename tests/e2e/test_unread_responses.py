"""Responses that nobody reads: they cost no thread, little memory, and a bounded part of the disk, until they end."""

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest

from tests.support.checks import prove_all_free
from tests.support.h2client import CANCEL, PATTERN, H2Client
from tests.support.server import WORKERS, Server, WorkerKind, stop_all

MIB = 1024 * 1024
THREADS = 4
# The applications' pattern has pieces of 64 KiB.
LARGE, SMALL = 61 * 65_536, 60_000
KINDS = {**WORKERS, "asgi": WorkerKind("gunicorn_h2.ASGIWorker", (), {"wsgi": "tests.apps.asgi_app:app"})}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=KINDS)
def kind(request):
    """The worker class."""
    return KINDS[request.param]


@pytest.fixture
def boot(tmp_path_factory, certs):
    """A function that boots a server of a kind; what its log says of trouble fails the test."""
    servers = []

    def boot(kind, **options):
        options = {"tls": False, "threads": THREADS, "accesslog": None, "timeout": 60, **options}
        servers.append(Server(tmp_path_factory.mktemp("server"), kind, certs, "wsgi", **options).start())
        with H2Client.connect(servers[-1]) as client:
            assert client.get("/hello").status == 200
        return servers[-1]

    yield boot
    stop_all(servers)


def descriptors(server):
    """What the worker has open, by descriptor."""
    folder, found = Path(f"/proc/{server.worker_pid}/fd"), {}
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(folder / name)
    return found


def disk(server):
    """The octets that files of the worker without a name have on the disk."""
    folder, octets = Path(f"/proc/{server.worker_pid}/fd"), 0
    for name, target in descriptors(server).items():
        if "(deleted)" in target:
            with contextlib.suppress(OSError):
                octets += os.stat(folder / name).st_blocks * 512
    return octets


def until(condition, what, seconds=30):
    """Wait until the worker has done something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        threading.Event().wait(0.01)


class Readers:
    """Clients whose windows are never opened, and the streams of their requests."""

    def __init__(self, server, stack, path, connections, streams, **settings):
        self.clients = [stack.enter_context(H2Client.connect(server, auto_window=False, **settings))
                        for _ in range(connections)]
        self.streams = [[client.request("GET", path) for _ in range(streams)] for client in self.clients]

    def wait_begun(self):
        """Wait until each response has begun."""
        for client, streams in zip(self.clients, self.streams, strict=True):
            for stream in streams:
                client.wait_headers(stream, timeout=60)

    def read(self, size, piece=65_536):
        """Read one response of this size, made of such pieces, to its end."""
        client, stream = self.clients[0], self.streams[0][0]
        client.auto_window = True
        client.grant(65_535)
        client.grant(65_535, stream)
        client.response(stream, timeout=60)
        assert (stream.ended, stream.reset, len(stream.body)) == (True, None, size)
        assert stream.body == (PATTERN[:piece] * (size // piece + 1))[:size]


@contextlib.contextmanager
def costs_nothing(server, kind):
    """Check that descriptors, disk and threads are free again, when the clients are gone."""
    before = len(descriptors(server))
    with contextlib.ExitStack() as stack:
        yield stack
    until(lambda: len(descriptors(server)) <= before, "the descriptors")
    until(lambda: disk(server) == 0, "the disk")
    if kind.worker_class.endswith("ThreadWorker"):
        prove_all_free(server, THREADS)


@pytest.mark.memory
def test_large_downloads_that_nobody_reads(boot, kind):
    """200 of 4 MB, with 4 threads: others are served meanwhile, and little of it is in memory."""
    server = boot(kind)
    with costs_nothing(server, kind) as stack:
        before = server.reset_peak()
        readers = Readers(server, stack, f"/large?n={LARGE}", 10, 20)
        readers.wait_begun()
        other = stack.enter_context(H2Client.connect(server))
        for _ in range(100):
            assert other.get("/hello").status == 200
        growth = server.peak_rss() - before
        assert growth < 64 * MIB, f"grew by {growth / MIB:.1f} MiB"
        until(lambda: disk(server) > 180 * LARGE, "the spool")
        readers.read(LARGE)


@pytest.mark.memory
def test_many_small_responses_that_nobody_reads(boot, kind):
    """2 000 streams whose windows are shut."""
    server = boot(kind)
    with costs_nothing(server, kind) as stack:
        before = server.reset_peak()
        path = f"/large?n={SMALL if 'ASGI' not in kind.worker_class else 65_536}"
        readers = Readers(server, stack, path, 20, 100, settings={4: 0})
        readers.wait_begun()
        with H2Client.connect(server) as other:
            assert other.get("/hello").status == 200
        growth = server.peak_rss() - before
        assert growth < 64 * MIB, f"grew by {growth / MIB:.1f} MiB"


@pytest.mark.memory
def test_sockets_that_nobody_reads(boot, kind):
    """The windows are open; it is TCP that takes nothing."""
    server = boot(kind)
    with costs_nothing(server, kind) as stack:
        before = server.reset_peak()
        for _ in range(10):
            client = stack.enter_context(H2Client.connect(server, settings={4: 2**31 - 1}, deaf=True))
            client.grant(2**31 - 1 - 65_535)
            for _ in range(10):
                client.request("GET", f"/large?n={LARGE}")
        until(lambda: disk(server) > 20 * LARGE, "the spool")
        with H2Client.connect(server) as other:
            for _ in range(100):
                assert other.get("/hello").status == 200
        growth = server.peak_rss() - before
        assert growth < 128 * MIB, f"grew by {growth / MIB:.1f} MiB"


def test_pieces_that_nobody_reads(boot, kind):
    """An application that goes on and on is given back its thread, and what it gave arrives."""
    server = boot(kind)
    with costs_nothing(server, kind) as stack:
        readers = Readers(server, stack, f"/bytes?n={LARGE}&piece=5000", 2, 2 * THREADS)
        readers.wait_begun()
        with H2Client.connect(server) as other:
            assert other.get("/hello").status == 200
        readers.read(LARGE, 5_000)


@pytest.mark.parametrize("name", WORKERS)
def test_files_that_nobody_reads(boot, name):
    server = boot(WORKERS[name])
    with costs_nothing(server, WORKERS[name]) as stack:
        readers = Readers(server, stack, f"/file?n={LARGE}", 10, 10)
        readers.wait_begun()
        with H2Client.connect(server) as other:
            assert other.get("/hello").status == 200
        readers.read(LARGE)


def test_event_streams_that_nobody_reads(boot, kind):
    """Applications that pause between their writes wait for their clients, and hold none of the threads meanwhile."""
    server = boot(kind)
    with costs_nothing(server, kind) as stack:
        readers = Readers(server, stack, "/endless-events", 4, 25, settings={4: 0})
        readers.wait_begun()
        with H2Client.connect(server) as other:
            assert other.get("/hello").status == 200


def test_responses_that_stall_are_given_up(boot, kind):
    """The connection goes on; the disk is free."""
    server = boot(kind, timeout=2)
    with costs_nothing(server, kind) as stack:
        readers = Readers(server, stack, f"/large?n={LARGE}", 1, 8)
        (client,), (streams,) = readers.clients, readers.streams
        client.wait_for(lambda: all(stream.done for stream in streams), "the resets")
        assert [stream.reset for stream in streams] == [CANCEL] * 8
        until(lambda: disk(server) == 0, "the disk")
        client.ping()


FULL_DISK = """
import resource
def post_fork(server, worker):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
"""


def test_a_full_disk(boot, kind):
    """What does not fit waits as if there were no file; nothing of it is lost, and the log says why."""
    server = boot(kind, code=FULL_DISK)
    with costs_nothing(server, kind) as stack:
        readers = Readers(server, stack, f"/large?n={LARGE}", 1, THREADS - 1)
        readers.wait_begun()
        server.wait_log("temporary file for responses to slow clients cannot be written: .*File too large")
        with H2Client.connect(server) as other:
            assert other.get("/hello").status == 200
        readers.read(LARGE)
