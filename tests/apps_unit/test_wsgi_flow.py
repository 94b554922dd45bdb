"""Back-pressure: a response waits for the client's windows, holds little meanwhile, and its wait has an end."""

import pytest
from hyperframe.frame import DataFrame

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.protocol.peer import INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, rst_stream, settings, window_update

from .wsgi_rig import answering

WINDOW = 65_535
BUFFER = 131_072
PIECE = 10_000


class Producer:
    """An application that gives a large body piece by piece, and sees whether it runs ahead of its client."""

    def __init__(self, size, way="yield", headers=()):
        self.size, self.way, self.headers = size, way, list(headers)
        self.produced, self.granted, self.ahead, self.closed, self.error = 0, WINDOW, 0, 0, None
        self.tell = lambda: None

    def __call__(self, environ, start_response):
        write = start_response("200 OK", self.headers)
        return self.pieces() if self.way == "yield" else self.written(write)

    def pieces(self):
        """Yield the body."""
        try:
            while self.produced < self.size:
                piece = body(self.produced, min(PIECE, self.size - self.produced))
                self.produced += len(piece)
                # Read last: what has been granted meanwhile only makes the distance smaller.
                self.ahead = max(self.ahead, self.produced - self.granted)
                self.tell()
                yield piece
        finally:
            self.closed += 1

    def written(self, write):
        """Give the body by `write`."""
        pieces = self.pieces()
        try:
            for piece in pieces:
                write(piece)
        except OSError as error:
            self.error = error
            raise
        finally:
            pieces.close()
        return []

    def grant(self, rig, reply, octets):
        """Open the stream's window; the connection's is open already."""
        # First, for the application may go on as soon as it is sent.
        self.granted += octets
        rig.client.send(window_update(reply.stream_id, octets))


def body(start, size):
    """A part of a body in which each place is different from its neighbours."""
    pattern = bytes(range(251)) * (size // 251 + 2)
    return pattern[start % 251:start % 251 + size]


@pytest.fixture(params=["yield", "write"])
def way(request):
    """How the application gives its body."""
    return request.param


@pytest.mark.parametrize("headers", [[], [("Content-Length", "1000000")]], ids=["", "length"])
def test_a_large_response_waits_for_the_window(serve, way, headers):
    """Queued for a client that does not read is no more than `stream_buffer_size`, and the piece that filled it."""
    app = Producer(1_000_000, way, headers)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    granted = WINDOW
    while not reply.over:
        rig.until(lambda granted=granted: len(reply.body) == min(granted, app.size), "what the window allows")
        if granted < app.size:
            assert not reply.over
        app.grant(rig, reply, 50_000)
        granted += 50_000
        if granted >= app.size:
            rig.client.wait_for(reply)
    rig.wait_idle()
    assert reply.body == body(0, app.size)
    assert (reply.ended, reply.reset, app.closed) == (True, None, 1)
    assert app.ahead <= BUFFER + 2 * PIECE


def test_the_buffer_is_a_setting(serve):
    app = Producer(500_000)
    rig = serve(app, limits={"stream_buffer_size": 1_024})
    rig.client.open_windows()
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    app.grant(rig, reply, 1_000_000)
    rig.client.wait_for(reply)
    assert reply.body == body(0, app.size)
    assert app.ahead <= 1_024 + 2 * PIECE


def test_the_connections_window_holds_back_as_well(serve):
    app = Producer(300_000)
    rig = serve(app, pairs=[(INITIAL_WINDOW_SIZE, 1_000_000)])
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    rig.client.barrier()
    assert len(reply.body) == WINDOW
    app.granted += 500_000
    rig.client.send(window_update(0, 500_000))
    rig.client.wait_for(reply)
    assert reply.body == body(0, app.size)
    assert app.ahead <= BUFFER + 2 * PIECE


def test_new_settings_open_the_window(serve):
    """RFC 9113 section 6.9.2."""
    app = Producer(300_000)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    app.granted += 1_000_000 - WINDOW
    rig.client.send(settings((INITIAL_WINDOW_SIZE, 1_000_000)))
    rig.client.wait_for(reply)
    assert reply.body == body(0, app.size)


def test_one_large_piece(serve):
    """It is the application's own doing that it is in memory; it goes out in frames the client accepts."""
    rig = serve(answering(body(0, 1_000_000)), pairs=[(INITIAL_WINDOW_SIZE, 2_000_000)])
    rig.client.open_windows()
    reply = rig.request()
    assert (reply.body == body(0, 1_000_000), reply.ended) == (True, True)
    frames = [len(frame.data) for frame in rig.client.frames if isinstance(frame, DataFrame)]
    assert max(frames) <= 16_384


def test_larger_frames_where_the_client_accepts_them(serve):
    pairs = [(INITIAL_WINDOW_SIZE, 2_000_000), (MAX_FRAME_SIZE, 1_000_000)]
    rig = serve(answering(body(0, 1_000_000)), pairs=pairs)
    rig.client.open_windows()
    reply = rig.request()
    assert (reply.body == body(0, 1_000_000), reply.ended) == (True, True)


def test_very_many_small_pieces(serve):
    """Which are not each a wait, nor each a copy of all the others."""
    rig = serve(answering(*[b"%d\n" % number for number in range(20_000)]))
    rig.client.open_windows()
    rig.client.send(settings((INITIAL_WINDOW_SIZE, 10_000_000)))
    reply = rig.request()
    assert reply.body == b"".join(b"%d\n" % number for number in range(20_000))


@pytest.mark.parametrize("pieces", [[b"x" * 60_000], [b"x" * 100] * 600], ids=["one", "many"])
def test_a_response_that_fits_the_buffer_frees_its_thread(serve, pieces):
    """With a window that is shut: the application returns, and the data goes out when there is room."""
    rig = serve(answering(*pieces), threads=1, pairs=[(INITIAL_WINDOW_SIZE, 0)])
    replies = [rig.start() for _ in range(3)]
    rig.until(lambda: rig.backend.returned == 3, "three calls to return")
    rig.until(lambda: all(reply.head for reply in replies), "heads")
    assert [(reply.body, reply.over) for reply in replies] == [(b"", False)] * 3
    rig.client.open_windows()
    for reply in replies:
        rig.client.send(window_update(reply.stream_id, 100_000))
    rig.client.wait_for(*replies)
    assert all((reply.status, reply.body) == (200, b"x" * 60_000) for reply in replies)


def test_no_window_is_needed_for_an_empty_response(serve):
    rig = serve(answering(status="404 Not Found"), pairs=[(INITIAL_WINDOW_SIZE, 0)])
    assert rig.request().ended


def test_a_stream_that_waits_stops_no_other(serve):
    blocked = Producer(1_000_000)
    rig = serve(lambda environ, start_response: (
        blocked(environ, start_response) if environ["PATH_INFO"] == "/large"
        else answering(b"small")(environ, start_response)), threads=2)
    rig.client.open_windows()
    large = rig.start(path=b"/large")
    rig.until(lambda: len(large.body) == WINDOW, "what the window allows")
    for _ in range(5):
        small = rig.start()
        rig.client.wait_for(small)
        assert small.body == b"small"
    rig.client.send(rst_stream(large.stream_id))
    rig.wait_idle()


def test_a_head_that_waits_for_nothing(serve):
    """Fields are under no flow control."""
    app = Producer(300_000)
    rig = serve(app, pairs=[(INITIAL_WINDOW_SIZE, 0)])
    app.granted = 0
    reply = rig.start()
    rig.until(lambda: reply.head, "the head")
    assert (reply.status, reply.body) == (200, b"")
    rig.client.open_windows()
    app.grant(rig, reply, 300_000)
    rig.client.wait_for(reply)
    assert reply.body == body(0, 300_000)


def test_trailers_wait_behind_the_body(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield body(0, 100_000)
        environ["gunicorn.http2.send_trailers"]([("X-Sum", "1")])

    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    rig.client.barrier()
    assert reply.trailers is None
    rig.client.send(window_update(reply.stream_id, 100_000))
    rig.client.wait_for(reply)
    assert (reply.body == body(0, 100_000), reply.trailers, reply.ended) == (True, [(b"x-sum", b"1")], True)


# -- the end of the wait -----------------------------------------------------------------------------------------------


def start_blocked(rig, app):
    """Begin a response that waits; return what comes of it."""
    rig.client.open_windows()
    app.tell = rig.backend.wake
    reply = rig.start()
    # The piece behind the last one that fits is on its way to the wait, or in it.
    rig.until(lambda: len(reply.body) == WINDOW and app.produced > WINDOW + BUFFER, "a full buffer")
    return reply


def assert_aborted(rig, app, way, code=ErrorCode.CANCEL, lines=()):
    """The application was told, and closed, once; no one else needs to know, but of a limit."""
    rig.wait_idle()
    assert app.closed == 1
    assert app.produced < app.size
    if way == "write":
        assert (type(app.error), app.error.stream_id, app.error.code) == (StreamAborted, 1, code)
    assert [line for level in ("INFO", "WARNING", "ERROR") for line in rig.lines(level)] == list(lines)


def test_a_client_that_resets_the_stream(serve, way):
    app = Producer(1_000_000, way)
    rig = serve(app)
    reply = start_blocked(rig, app)
    rig.client.send(rst_stream(reply.stream_id))
    assert_aborted(rig, app, way)
    rig.client.assert_alive()


def test_a_client_that_resets_the_stream_with_a_code_of_its_own(serve):
    app = Producer(1_000_000, "write")
    rig = serve(app)
    reply = start_blocked(rig, app)
    rig.client.send(rst_stream(reply.stream_id, 0x1234))
    assert_aborted(rig, app, "write", 0x1234)


def test_a_client_that_closes_the_connection(serve, way):
    app = Producer(1_000_000, way)
    rig = serve(app)
    start_blocked(rig, app)
    rig.client.leave()
    assert_aborted(rig, app, way)


def test_a_client_that_stops_reading(serve, way):
    """No room for as long as Gunicorn's `timeout` says: the stream is reset, and the thread is free again."""
    app = Producer(1_000_000, way)
    rig = serve(app, limits={"stream_timeout": 0.1}, threads=1)
    reply = start_blocked(rig, app)
    rig.client.wait_for(reply)
    assert reply.reset == ErrorCode.CANCEL
    peer = ("192.0.2.1", 1234)
    assert_aborted(rig, app, way, lines=[f"HTTP/2 stream 1 of {peer} was reset: the client stopped reading"])
    rig.client.assert_alive()


def test_a_client_that_overflows_the_window(serve, way):
    """RFC 9113 section 6.9.1: an error of its stream."""
    app = Producer(1_000_000, way)
    rig = serve(app)
    reply = start_blocked(rig, app)
    rig.client.send(window_update(reply.stream_id, 2**31 - 1), window_update(reply.stream_id, 2**31 - 1))
    rig.client.wait_for(reply)
    assert reply.reset == ErrorCode.FLOW_CONTROL_ERROR
    rig.wait_idle()
    assert app.closed == 1


def test_many_that_wait_are_released_at_once(serve, way):
    """By the end of their connection: no thread is left behind."""
    apps = [Producer(1_000_000, way) for _ in range(4)]
    rig = serve(lambda environ, start_response: apps[int(environ["PATH_INFO"][1:])](environ, start_response), threads=4)
    rig.client.open_windows()
    for app in apps:
        app.tell = rig.backend.wake
    for number in range(4):
        rig.start(path=b"/%d" % number)
    rig.until(lambda: all(app.produced >= WINDOW + BUFFER // 2 for app in apps), "full buffers")
    rig.client.leave()
    rig.wait_idle()
    assert [app.closed for app in apps] == [1] * 4
    assert rig.lines("ERROR") == []
