"""Windows, header tables and frame sizes, as either side sets them."""

import pytest

from tests.support.gate import Gate
from tests.support.h2client import H2Client

MAX_WINDOW = 2**31 - 1


def test_a_window_that_shrinks_below_zero(wsgi):
    """RFC 9113 section 6.9.2: a smaller initial window counts for open streams, too."""
    with H2Client.connect(wsgi, auto_window=False, settings={4: 1000}) as client:
        client.grant(1_000_000)
        stream = client.request("GET", "/bytes?n=100000")
        client.wait_for(lambda: stream.received == 1000, "the first window")
        client.send_settings({4: 100})
        client.grant(500, stream)
        client.ping()
        assert stream.received == 1000
        client.send_settings({4: 2000})
        client.wait_for(lambda: stream.received == 2500, "what the new window allows")
        client.grant(1_000_000, stream)
        assert client.response(stream).received == 100_000


def test_the_connection_window_holds_all_streams(wsgi):
    """Together they get no more than the connection's window; when it opens, each gets its share."""
    with H2Client.connect(wsgi, auto_window=False, settings={4: 1_000_000}) as client:
        streams = [client.request("GET", "/bytes?n=50000") for _ in range(4)]
        client.wait_for(lambda: sum(stream.received for stream in streams) == 65_535, "the connection's window")
        client.wait_for(lambda: all(stream.headers for stream in streams), "all response headers")
        client.ping()
        assert sum(stream.received for stream in streams) == 65_535
        client.grant(1_000_000)
        assert [client.response(stream).received for stream in streams] == [50_000] * 4


def test_bodies_that_wait_for_a_thread_do_not_hold_up_those_that_are_read(wsgi, gate):
    """Thirty uploads wait, more than a connection's window of them; a large one goes through all the same."""
    with Gate() as reading, H2Client.connect(wsgi) as client:
        client.wait_settings()
        holding = [client.request("GET", gate.path("/gate")) for _ in range(3)]
        gate.wait_inside(3)
        reader = client.request("POST", reading.path("/gate-read"), end=False)
        reading.wait_inside()
        waiting = [client.request("POST", "/count", body=b"x" * 60_000) for _ in range(30)]
        reading.release()
        client.send_body(reader, b"x" * 500_000)
        assert client.response(reader).text == '{"length": 500000}'
        gate.release()
        assert [client.response(stream).text for stream in waiting] == ['{"length": 60000}'] * 30
        assert [client.response(stream).status for stream in holding] == [200] * 3


def test_streams_share_the_connection_fairly(wsgi):
    """Of two large responses neither waits for the end of the other."""
    with H2Client.connect(wsgi, auto_window=False, settings={4: 10_000_000}) as client:
        streams = [client.request("GET", "/bytes?n=5000000") for _ in range(2)]
        client.wait_for(lambda: all(stream.headers for stream in streams), "both response headers")
        client.grant(4_000_000)
        client.wait_for(lambda: sum(stream.received for stream in streams) == 4_065_535, "the granted window")
        # How much more than nothing depends on how the interpreter shares itself among the two applications.
        assert min(stream.received for stream in streams) > 300_000


@pytest.mark.parametrize("size", [0, 100, 4096, 65_536, 2**32 - 1])
def test_header_table_sizes(wsgi, size):
    """The server's encoder keeps within what the client allows, from the first block on."""
    with H2Client.connect(wsgi, settings={1: size}) as client:
        assert [client.get("/headers").header("x-latin") for _ in range(3)] == ["caf\xe9"] * 3


def test_a_header_table_that_changes(wsgi):
    with H2Client.connect(wsgi) as client:
        for size in (65_536, 100, 0, 4096):
            client.get("/headers")
            client.send_settings({1: size})
            client.ping()
            assert client.get("/headers").header("x-latin") == "caf\xe9"


def test_large_frames_are_sent_only_where_allowed(wsgi):
    with H2Client.connect(wsgi, settings={4: 2_000_000, 5: 1_000_000}) as client:
        client.grant(2_000_000)
        assert client.get("/bytes?n=1000000&piece=65536").received == 1_000_000
    with H2Client.connect(wsgi, settings={4: 2_000_000}) as client:
        client.grant(2_000_000)
        assert client.get("/bytes?n=1000000").received == 1_000_000
        assert max(frame.body_len for frame in client.frames) <= 16_384


def test_large_response_headers_are_split(shared):
    """Fields that do not fit one frame come in CONTINUATION frames."""
    with H2Client.connect(shared("flask", threads=16), settings={1: 0}) as client:
        stream = client.get("/large-headers?n=50")
        assert stream.header("x-large-49") == "49" * 500
        kinds = [type(frame).__name__ for frame in client.frames if frame.stream_id == stream.stream_id]
        assert kinds[:2] == ["HeadersFrame", "ContinuationFrame"]


@pytest.mark.thorough
@pytest.mark.parametrize("settings", [
    {"http2_initial_window_size": 1},
    {"http2_initial_window_size": MAX_WINDOW, "http2_connection_window_size": MAX_WINDOW,
     "http2_max_frame_size": 2**24 - 1},
    {"http2_stream_buffer_size": 1024, "http2_connection_window_size": 65_535},
], ids=["smallest-window", "largest-windows", "small-buffers"])
def test_extreme_settings(boot, settings):
    """Slow perhaps, but correct."""
    server = boot("wsgi", threads=2, **settings)
    size = 2_000 if settings.get("http2_initial_window_size") == 1 else 5_000_000
    with H2Client.connect(server) as client:
        client.wait_settings()
        up = client.request("POST", "/count", body=b"x" * size)
        down = client.request("GET", f"/bytes?n={size}")
        assert client.response(up).text == f'{{"length": {size}}}'
        assert client.response(down).received == size
