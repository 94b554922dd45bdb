"""`wsgi.file_wrapper` with regular files: the connection reads them, and no thread waits for the client."""

import os

import pytest

from gunicorn_h2.protocol.errors import ErrorCode
from tests.drivers.rig import wait_until
from tests.protocol.peer import INITIAL_WINDOW_SIZE, rst_stream, window_update

from .wsgi_rig import answering

SIZE = 300_000
DATA = bytes(place * 7 % 251 for place in range(SIZE))
WINDOW = 65_535


class Files:
    """An application that sends a file, and keeps what became of it."""

    def __init__(self, path, length=None, skip=0, error=None):
        self.path, self.length, self.skip, self.error = path, length, skip, error
        self.files, self.closes = [], 0

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/small":
            return answering(b"small")(environ, start_response)
        file = self.path.open("rb")
        file.seek(self.skip)
        self.files.append(file)
        start_response("200 OK", [] if self.length is None else [("Content-Length", str(self.length))])
        wrapper = environ["wsgi.file_wrapper"](file, 8192)
        wrapper.close = self.close
        return wrapper

    def close(self):
        """Count, and close the file as Gunicorn's wrapper would."""
        self.closes += 1
        self.files[-1].close()
        if self.error is not None:
            raise self.error


@pytest.fixture
def path(tmp_path):
    """A file that is larger than the window and the stream's buffer."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def wait_closed(rig, app, count=1):
    """Wait until the file is closed, which happens in a thread of the pool; it happens once."""
    rig.client.barrier()
    wait_until(lambda: app.closes >= count)
    rig.client.barrier()
    assert app.closes == count


@pytest.mark.parametrize(("length", "skip"), [(None, 0), (SIZE, 0), (200_000, 0), (None, 100_000), (150_000, 100_000)])
def test_a_file_is_sent(serve, path, length, skip):
    app = Files(path, length, skip)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.client.send(window_update(reply.stream_id, 1_000_000))
    rig.client.wait_for(reply)
    assert (reply.body, reply.ended, reply.reset) == (DATA[skip:][:length], True, None)
    wait_closed(rig, app)


def test_no_thread_waits_for_the_client(serve, path):
    """With one thread and ten files that nobody reads, the eleventh request is answered."""
    app = Files(path)
    rig = serve(app, threads=1, pairs=[(INITIAL_WINDOW_SIZE, 10)])
    replies = [rig.start() for _ in range(10)]
    small = rig.start(path=b"/small")
    rig.client.wait_for(small)
    rig.wait_idle()
    assert (small.body, app.closes) == (b"small", 0)
    assert all(reply.body == DATA[:10] for reply in replies)


@pytest.mark.parametrize("way", ["reset", "leave"])
def test_a_file_that_nobody_wants_is_closed(serve, path, way):
    app = Files(path)
    rig = serve(app)
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    rig.wait_idle()
    if way == "reset":
        rig.client.send(rst_stream(reply.stream_id))
        wait_closed(rig, app)
        rig.client.assert_alive()
    else:
        rig.client.leave()
        wait_until(lambda: app.closes == 1)


def test_a_file_that_shrinks(serve, path):
    """The client must notice; so does the log."""
    app = Files(path)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.until(lambda: len(reply.body) == WINDOW, "what the window allows")
    os.truncate(path, 100_000)
    rig.client.send(window_update(reply.stream_id, 1_000_000))
    rig.client.wait_for(reply)
    assert (reply.ended, reply.reset) == (False, ErrorCode.INTERNAL_ERROR)
    wait_closed(rig, app)
    assert any("has shrunk" in line for line in rig.lines("WARNING"))
    rig.client.assert_alive()


def test_a_file_that_is_shorter_than_announced(serve, path):
    app = Files(path, SIZE + 1)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.client.send(window_update(reply.stream_id, 1_000_000))
    rig.client.wait_for(reply)
    assert reply.reset == ErrorCode.INTERNAL_ERROR
    rig.expect_errors()
    wait_closed(rig, app)


def test_head_reads_nothing(serve, path):
    app = Files(path, SIZE)
    rig = serve(app)
    os.truncate(path, 0)
    reply = rig.request(method=b"HEAD")
    assert (reply.status, reply.body, reply.field(b"content-length")) == (200, b"", str(SIZE).encode())
    wait_closed(rig, app)


def test_an_error_of_close_is_logged(serve, path):
    app = Files(path, error=RuntimeError("close failed"))
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.client.send(window_update(reply.stream_id, 1_000_000))
    rig.client.wait_for(reply)
    assert reply.body == DATA
    wait_until(lambda: rig.lines("ERROR"))
    assert "close failed" in rig.expect_errors()[0]


def test_the_log_tells_what_was_sent(serve, path):
    """When it was sent, not when the application returned."""
    app = Files(path)
    rig = serve(app)
    rig.client.open_windows()
    first, second = rig.start(), rig.start()
    rig.wait_idle()
    rig.client.barrier()
    assert rig.access == []
    rig.client.send(window_update(first.stream_id, 1_000_000))
    rig.client.wait_for(first)
    wait_until(lambda: len(rig.access) == 1)
    rig.client.send(rst_stream(second.stream_id))
    rig.client.barrier()
    wait_until(lambda: len(rig.access) == 2)
    assert [int(atoms["B"]) for atoms in rig.access] == [SIZE, WINDOW]


def test_a_client_that_is_gone_before_the_file_is_given(serve, path):
    app = Files(path)
    rig = serve(lambda environ, start_response: gate.enter() or app(environ, start_response))
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.send(rst_stream(reply.stream_id))
    gate.open()
    wait_closed(rig, app)


def test_a_file_behind_data_that_was_written(serve, path):
    """The file is a part of the body only, and is sent as any iterable."""
    def app(environ, start_response):
        start_response("200 OK", [])(b"first ")
        return files(environ, lambda status, headers: None)

    files = Files(path)
    rig = serve(app)
    rig.client.open_windows()
    reply = rig.start()
    rig.client.send(window_update(reply.stream_id, 1_000_000))
    rig.client.wait_for(reply)
    assert reply.body == b"first " + DATA
    wait_closed(rig, files)
