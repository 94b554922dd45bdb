"""Eight times what a worker may grow by, through it in every direction: its memory does not grow with what it moves."""

import contextlib

import pytest

from tests.support.checks import prove_all_free, records
from tests.support.h2client import NO_ERROR, H2Client, raw_frame
from tests.support.tools import curl

MIB = 1024 * 1024
GIB = 1024 * MIB
LIMIT = 32 * MIB
SIZE = 8 * LIMIT

pytestmark = [pytest.mark.memory, pytest.mark.timeout(180)]


@pytest.fixture
def server(boot, tls):
    """A server that has warmed up: every thread has worked and large bodies have gone both ways."""
    server = boot("wsgi", tls=tls, threads=4, timeout=30, http2_response_spool_size=MIB)
    prove_all_free(server, 4)
    with H2Client.connect(server) as client:
        client.get("/bytes?n=1000000")
        client.post("/count", b"x" * 1_000_000)
    return server


@contextlib.contextmanager
def bounded_growth(server, limit=LIMIT):
    """Check how far the worker's memory grew at its highest."""
    before = server.reset_peak()
    yield
    growth = server.peak_rss() - before
    assert growth < limit, f"grew by {growth / MIB:.1f} MiB"


def test_upload_read_in_pieces(server, tmp_path):
    file = tmp_path / "big"
    with file.open("wb") as out:
        out.truncate(SIZE)
    option = "--http2" if server.tls else "--http2-prior-knowledge"
    with bounded_growth(server):
        done = curl(server, "/count", option, "--upload-file", str(file), "--max-time", "150", timeout=160)
    assert done.stdout == f'{{"length": {SIZE}}}'


def test_upload_never_read(server):
    """The application answers at once; the client is told to stop, after at most a window of data."""
    with bounded_growth(server), H2Client.connect(server) as client:
        client.wait_settings()
        for _ in range(10):
            stream = client.request("POST", "/unread", [("content-length", str(GIB))], end=False)
            client.send_body(stream, (bytes(16_384) for _ in range(GIB // 16_384)))
            client.wait_for(lambda stream=stream: stream.ended and stream.reset is not None, "response and reset")
            assert (stream.text, stream.reset) == ("unread\n", NO_ERROR)


def test_upload_while_the_application_does_something_else(server, gate):
    """Nothing beyond the window is taken in while the application does not read."""
    with bounded_growth(server), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server)) for _ in range(4)]
        streams = [client.request("POST", gate.path("/unread-wait"), end=False) for client in clients]
        gate.wait_inside(4)
        for client, stream in zip(clients, streams, strict=True):
            client.wait_settings()
            client.send_body(stream, bytes(65_535), end=False)
            client.ping()
            assert client.room(stream) == 0
        gate.release()
        assert [c.response(s).text for c, s in zip(clients, streams, strict=True)] == ["unread\n"] * 4


def test_download_to_a_slow_client(server, key):
    """The client gives back credit only for what it has read; the application is ahead by no more than a file."""
    taken = 0

    def take(data):
        nonlocal taken
        taken += len(data)

    with bounded_growth(server), H2Client.connect(server) as client:
        client.keep_frames = False
        stream = client.request("GET", f"/bytes?n={SIZE}&progress={key}", sink=take)
        client.wait_for(lambda: taken > 10 * MIB, "the first part")
        client.auto_window = False
        client.ping()
        ahead = sum(records(server, key)) - taken
        assert ahead < 3 * MIB
        client.auto_window = True
        client.grant(65_535)
        client.grant(65_535, stream)
        client.response(stream, timeout=150)
    assert taken == SIZE


def test_download_with_huge_windows_to_a_client_that_does_not_read(server):
    """Flow control permits everything, TCP nothing: the server's buffers stay bounded."""
    with bounded_growth(server), contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(H2Client.connect(server, settings={4: 2**31 - 1}, deaf=True))
            client.grant(2**31 - 1 - 65_535)
            client.request("GET", f"/bytes?n={GIB}")
        with H2Client.connect(server, settings={4: 2**31 - 1}) as other:
            other.ping()
            other.send_raw(raw_frame(2, 0, 1, b"\0\0\0\0\0"))
            other.ping()


def test_many_small_requests(server):
    """A long-lived connection forgets its streams."""
    with bounded_growth(server, 16 * MIB), H2Client.connect(server) as client:
        client.keep_frames = False
        for _ in range(100):
            streams = [client.request("GET", "/hello") for _ in range(50)]
            for stream in streams:
                client.response(stream)
            client.streams.clear()
