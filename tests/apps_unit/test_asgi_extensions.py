"""ASGI's extensions of a response by their standard names: files by their paths, and those that are not supported."""

import gc
import os

import pytest

from gunicorn_h2.drivers.channel import StreamAborted
from tests.protocol.peer import rst_stream, window_update

from .test_asgi import START, body, scope_of, sending, serve

__all__ = ["scope_of", "serve"]

SMALL, LARGE = 1_000, 1_000_000
sizes = pytest.mark.parametrize("size", [0, SMALL, LARGE])


@pytest.fixture
def file(tmp_path):
    """A function that makes a file of so many octets."""
    def file(size):
        path = tmp_path / str(size)
        path.write_bytes(os.urandom(size))
        return path
    return file


def pathsend(path):
    """The message that sends a file."""
    return {"type": "http.response.pathsend", "path": str(path)}


def start(*headers, **more):
    """The message before it."""
    return {"type": "http.response.start", "status": 200, "headers": list(headers), **more}


def length(size):
    """A Content-Length field."""
    return b"content-length", b"%d" % size


def descriptors():
    """How many files are open, with nothing left for the garbage collector to close."""
    gc.collect()
    return len(os.listdir("/dev/fd"))


def request_all(peer, method=b"GET"):
    """Make a request, and take all that comes."""
    answer = peer.request(method=method)
    for _ in range(100):
        if answer.ended or answer.reset is not None:
            break
        peer.send(window_update(0, 100_000), window_update(answer.stream_id, 100_000))
    return answer


@sizes
@pytest.mark.parametrize("declared", [False, True])
def test_a_file(serve, file, size, declared):
    path, before = file(size), descriptors()
    peer = serve(sending(start(*[length(size)] * declared), pathsend(path)))
    opened = descriptors() - before
    answer = request_all(peer)
    assert (answer.status, answer.body, answer.ended) == (200, path.read_bytes(), True)
    assert dict(answer.head).get(b"content-length") == (b"%d" % size if declared else None)
    assert descriptors() - before == opened
    ((response, *_),) = peer.worker.log.entries
    assert response.sent == size


def test_a_path_may_be_octets(serve, file):
    path = file(SMALL)
    answer = request_all(serve(sending(START, {**pathsend(path), "path": os.fsencode(path)})))
    assert answer.body == path.read_bytes()


@sizes
def test_head(serve, file, size):
    """The fields are those of GET, the file is not sent."""
    before = descriptors()
    peer = serve(sending(start(length(size)), pathsend(file(size))))
    opened = descriptors() - before
    answer = request_all(peer, b"HEAD")
    assert (answer.status, answer.body, answer.ended) == (200, b"", True)
    assert dict(answer.head)[b"content-length"] == b"%d" % size
    assert descriptors() - before == opened


def test_the_application_does_not_wait_for_the_client(serve, file):
    """And the file may be renamed or removed while it is sent."""
    path, returned = file(LARGE), []
    octets = path.read_bytes()

    async def app(scope, receive, send):
        await send(START)
        await send(pathsend(path))
        path.unlink()
        returned.append(True)

    peer = serve(app)
    answer = peer.request()
    assert returned
    assert 0 < len(answer.body) < LARGE
    while not answer.ended:
        peer.send(window_update(answer.stream_id, 100_000))
    assert answer.body == octets


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_trailers_behind_a_file(serve, file, size):
    path = file(size)
    answer = request_all(serve(sending(
        start(trailers=True), pathsend(path), {"type": "http.response.trailers", "headers": [(b"x-a", b"1")]})))
    assert (answer.body, answer.trailers) == (path.read_bytes(), [(b"x-a", b"1")])


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_client_that_goes(serve, file, size):
    """The file is closed."""
    path, before = file(size), descriptors()
    peer = serve(sending(START, pathsend(path)))
    opened = descriptors() - before
    answer = peer.request()
    peer.send(rst_stream(answer.stream_id))
    assert descriptors() - before == opened


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_client_that_has_gone(serve, file, size):
    """The application learns of it as from any other message."""
    path, errors = file(size), []

    async def app(scope, receive, send):
        await send(START)
        assert (await receive())["type"] == "http.disconnect"
        try:
            await send(pathsend(path))
        except StreamAborted as error:
            errors.append(error)

    before = descriptors()
    peer = serve(app)
    opened = descriptors() - before
    answer = peer.request(end=False)
    peer.send(rst_stream(answer.stream_id))
    assert len(errors) == 1
    assert descriptors() - before == opened


def test_a_file_that_shrinks(serve, file):
    """The client must notice."""
    path = file(LARGE)
    peer = serve(sending(START, pathsend(path)))
    answer = peer.request()
    os.truncate(path, 100_000)
    while answer.reset is None:
        peer.send(window_update(answer.stream_id, 100_000))
    assert not answer.ended
    assert "has shrunk" in peer.log.text


# -- what is wrong -----------------------------------------------------------------------------------------------------


def make_fifo(path):
    """Make a FIFO, which nobody writes to."""
    os.mkfifo(path)


@pytest.mark.parametrize(("make", "error"), [
    (lambda path: None, "FileNotFoundError"), (os.mkdir, "Error"), (make_fifo, "is no regular file"),
])
def test_what_is_no_file(serve, tmp_path, make, error):
    """The application's error is answered as any other."""
    make(tmp_path / "it")
    before = descriptors()
    peer = serve(sending(START, pathsend(tmp_path / "it")))
    opened = descriptors() - before
    answer = peer.request()
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert error in peer.worker.log.text
    assert descriptors() - before == opened


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_file_of_another_length_than_declared(serve, file, size):
    path, before = file(size), descriptors()
    peer = serve(sending(start(length(size + 1)), pathsend(path)))
    opened = descriptors() - before
    assert peer.request().status == 500
    assert f"{size} octets of a response with content-length {size + 1}" in peer.worker.log.text
    assert descriptors() - before == opened


BEFORE = "http.response.pathsend before http.response.start"
BESIDE = "http.response.pathsend beside http.response.body"


@pytest.mark.parametrize(("messages", "error"), [
    ([pathsend], BEFORE), ([START, body(b"x", True), pathsend], BESIDE), ([START, body(b"x"), pathsend], BESIDE),
    ([START, pathsend, pathsend], BESIDE), ([START, pathsend, body()], "http.response.body after the last one"),
])
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_order_of_messages(serve, file, messages, error, size):
    path = file(size)
    peer = serve(sending(*[message(path) if callable(message) else message for message in messages]))
    request_all(peer)
    assert error in peer.worker.log.text


# -- what is not supported ---------------------------------------------------------------------------------------------


def test_the_extensions_that_are_offered(scope_of):
    assert set(scope_of(scheme=b"http")["extensions"]) == {
        "http.response.early_hint", "http.response.pathsend", "http.response.trailers", "http.response.priority",
        "http.request.trailers"}


@pytest.mark.parametrize(("message", "error"), [
    ({"type": "http.response.push", "path": "/style.css", "headers": []},
     "http.response.push is not supported: browsers take no pushed responses. "
     "Name what the client will need by http.response.early_hint"),
    ({"type": "http.response.zerocopysend", "file": 0},
     "http.response.zerocopysend is not supported: HTTP/2 sends a file in frames. "
     "Send it by http.response.pathsend, or its content by http.response.body"),
    ({"type": "http.response.nonsense"}, "'http.response.nonsense' is no ASGI message for HTTP"),
])
def test_messages_that_are_not_supported(serve, message, error):
    """The application gets a clear error, and may go on."""
    errors = []

    async def app(scope, receive, send):
        await send(START)
        try:
            await send(message)
        except RuntimeError as error:
            errors.append(str(error))
        await send(body(b"whole"))

    answer = serve(app).request()
    assert errors == [error]
    assert (answer.status, answer.body, answer.ended) == (200, b"whole", True)
