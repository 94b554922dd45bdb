"""WebSockets for WSGI: what the application finds in its environ, what becomes of what it writes, and how it ends."""

import base64
import select
import socket
import threading
from contextlib import suppress

import pytest
from simple_websocket import ConnectionClosed, Server

from gunicorn_h2.protocol.errors import ErrorCode
from tests.protocol.peer import INITIAL_WINDOW_SIZE, data, rst_stream, window_update
from tests.support.websocket import ClientEnd, connect_fields

from .wsgi_rig import TIMEOUT

SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: x\r\nX-A: 1\r\n\r\n")


class Socket(ClientEnd):
    """A client's end on a stream of a rig."""

    def __init__(self, rig, *extra, client=None, end=False, body=b"", wait=True, path="/ws"):
        super().__init__()
        self.rig, self.client, self._seen = rig, client or rig.client, 0
        section = [(name.encode(), value.encode()) for name, value in connect_fields(path, *extra, scheme="http")]
        self.reply = self.client.start(section=section, end=end, body=body)
        self.stream_id = self.reply.stream_id
        if wait:
            rig.until(lambda: self.reply.head is not None or self.reply.over, "the head of the response")

    @property
    def status(self):
        """The status of the response."""
        return self.reply.status

    def send(self, octets, end=False):
        """Send octets on the stream."""
        self.client.send_data(self.reply, octets, end)

    def until_received(self, octets):
        """Wait until so many octets have come; return all of them."""
        self.rig.until(lambda: len(self.reply.body) >= octets or self.reply.over, f"{octets} octets")
        return self.reply.body

    def until_over(self):
        """Wait for the end of the stream."""
        self.rig.until(lambda: self.reply.over, "the end of the stream")
        return self.reply

    def read(self, wanted):
        """Take frames until `wanted()` holds."""
        def step():
            body, self._seen = self.reply.body[self._seen:], len(self.reply.body)
            answer = self.feed(body) if body else b""
            if answer and not self.reply.over:
                self.send(answer)
            return wanted()
        self.rig.until(step, "a message")

    def say(self, message):
        """Send a message, and return the one that comes back."""
        self.send(self.octets(message))
        self.read(lambda: self.messages)
        return self.messages.pop(0)


def raw_echo(environ, start_response):
    """Answer as HTTP/1.1 does, then send back what comes."""
    sock = environ["gunicorn.socket"]
    sock.sendall(SWITCH)
    while received := sock.recv(65_536):
        sock.sendall(received)
    raise StopIteration


def speaking(handle):
    """An application of simple-websocket, which speaks as flask-sock does."""
    def app(environ, start_response):
        ws = Server(environ)
        try:
            handle(ws)
        except ConnectionClosed:
            pass
        else:
            ws.close()
        raise StopIteration
    return app


def echo(ws):
    """Send back what comes."""
    while True:
        ws.send(ws.receive())


# -- the environ -----------------------------------------------------------------------------------------------------


def test_the_environ_is_that_of_a_request_for_an_upgrade(serve_either_way):
    environs = []

    def app(environ, start_response):
        environs.append(dict(environ))
        start_response("404 Not Found", [])
        return []

    rig = serve_either_way(app)
    for number in range(2):
        Socket(rig, ("origin", "null"), ("content-length", "7"), path=f"/a%20b?number={number}").until_over()
    first, second = environs
    assert {key: first[key] for key in (
        "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL", "HTTP_UPGRADE", "HTTP_CONNECTION",
        "HTTP_SEC_WEBSOCKET_VERSION", "HTTP_HOST", "HTTP_ORIGIN", "wsgi.url_scheme", "gunicorn.http2.stream_id",
    )} == {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/a b", "QUERY_STRING": "number=0", "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade", "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_HOST": "example.org", "HTTP_ORIGIN": "null", "wsgi.url_scheme": "http", "gunicorn.http2.stream_id": 1,
    }
    assert (first["wsgi.input"].read(), "CONTENT_LENGTH" in first) == (b"", False)
    keys = [environ["HTTP_SEC_WEBSOCKET_KEY"] for environ in environs]
    assert {len(base64.b64decode(key)) for key in keys} == {16}
    assert keys[0] != keys[1]
    assert second["QUERY_STRING"] == "number=1"


def test_the_socket_is_one(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        rig.note((isinstance(sock, socket.socket), sock.gettimeout(), select.select([sock], [sock], [], 0)[:2]))
        sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.sendall(SWITCH)
        rig.note(select.select([sock], [], [], TIMEOUT)[0] == [sock])
        raise StopIteration

    rig = serve(app)
    websocket = Socket(rig)
    assert rig.wait_notes(1)[0][:2] == (True, None)
    assert len(rig.notes[0][2][1]) == 1
    websocket.send(b"x")
    assert rig.wait_notes(2)[1] is True
    websocket.until_over()


# -- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["héllo", b"\x00", "", "x" * 1_048_576], ids=["text", "bytes", "empty", "large"])
def test_an_echo_by_simple_websocket(serve_either_way, message):
    rig = serve_either_way(speaking(echo))
    rig.client.open_windows()
    websocket = Socket(rig)
    rig.client.send(window_update(websocket.stream_id, 10_000_000))
    if len(message) < 1_000:
        assert websocket.say(message) == message
    else:
        octets = websocket.octets(message)
        for start in range(0, len(octets), 32_000):
            sent = start + len(octets[start:start + 32_000])
            websocket.send(octets[start:start + 32_000])
            # Within the stream's window.
            rig.until(lambda sent=sent: credit(rig, websocket) + 65_535 >= sent + 32_000 or sent == len(octets),
                      "credit")
        websocket.read(lambda: websocket.messages)
        assert websocket.messages == [message]
    websocket.send(websocket.close(1000))
    assert websocket.until_over().reset is None


def credit(rig, websocket):
    """What the client has been given for the stream."""
    return sum(increment for stream_id, increment in rig.client.updates if stream_id == websocket.stream_id)


def test_pings_of_simple_websocket_need_a_selector(serve):
    def app(environ, start_response):
        ws = Server(environ, ping_interval=0.05)
        ws.receive()
        raise StopIteration

    rig = serve(app)
    websocket = Socket(rig)
    websocket.read(lambda: len(websocket.messages) >= 2)
    websocket.send(websocket.octets("enough"))
    websocket.until_over()


def test_what_the_client_says_before_it_is_answered_is_kept(serve):
    def app(environ, start_response):
        gate.enter()
        return raw_echo(environ, start_response)

    rig = serve(app)
    gate = rig.gate()
    websocket = Socket(rig, body=b"early", wait=False)
    gate.wait_inside()
    websocket.send(b", later")
    gate.open()
    assert websocket.until_received(12) == b"early, later"
    websocket.send(b"", end=True)
    assert websocket.until_over().status == 200
    assert websocket.reply.own_fields == [(b"x-a", b"1")]


def test_a_client_that_has_ended_its_side_is_still_answered(serve):
    rig = serve(raw_echo)
    websocket = Socket(rig, end=True, body=b"last words")
    assert (websocket.until_over().body, websocket.reply.reset) == (b"last words", None)


def test_the_head_may_come_in_pieces(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        for start in range(0, len(SWITCH), 20):
            sock.sendall(SWITCH[start:start + 20])
            rig.backend.wake()
        sock.sendall(b"and more")
        raise StopIteration

    rig = serve(app)
    assert Socket(rig).until_over().body == b"and more"


def test_what_was_written_before_the_end_arrives(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH + bytes(30_000))
        raise StopIteration

    rig = serve(app)
    assert len(Socket(rig).until_over().body) == 30_000


# -- answers by start_response ---------------------------------------------------------------------------------------


def test_a_denial(serve_either_way):
    def app(environ, start_response):
        start_response("403 Forbidden", [("X-Why", "denied")])
        return [b"n", b"o"]

    rig = serve_either_way(app)
    reply = Socket(rig).until_over()
    assert (reply.status, reply.body, reply.field(b"x-why")) == (403, b"no", b"denied")
    rig.client.assert_alive()


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_a_success_does_not_accept(serve, status):
    def app(environ, start_response):
        write = start_response(status, [("Content-Type", "text/html")])
        write(b"<html>")
        return [b"</html>"]

    reply = Socket(serve(app)).until_over()
    assert (reply.status, reply.body) == (501, b"")


def test_what_is_returned_after_an_answer_is_ignored(serve):
    def app(environ, start_response):
        environ["gunicorn.socket"].sendall(SWITCH + b"hello")
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"not")
        return [b"this"]

    reply = Socket(serve(app)).until_over()
    assert (reply.status, reply.body) == (200, b"hello")


def test_an_application_may_just_return_after_an_answer(serve):
    def app(environ, start_response):
        environ["gunicorn.socket"].sendall(SWITCH + b"hello")
        return []

    reply = Socket(serve(app)).until_over()
    assert (reply.status, reply.body) == (200, b"hello")


def test_what_is_written_after_a_denial_is_ignored(serve):
    def app(environ, start_response):
        start_response("403 Forbidden", [])
        environ["gunicorn.socket"].sendall(SWITCH + b"hello")
        return [b"no"]

    reply = Socket(serve(app)).until_over()
    assert (reply.status, reply.body) == (403, b"no")


@pytest.mark.parametrize("how", ["returns", "raises", "stops", "writes half"])
def test_no_answer_is_500(serve, how):
    def app(environ, start_response):
        if how == "raises":
            raise LookupError("secret")
        if how == "stops":
            raise StopIteration
        if how == "writes half":
            environ["gunicorn.socket"].sendall(SWITCH[:50])
        return []

    rig = serve(app)
    reply = Socket(rig).until_over()
    assert (reply.status, b"secret" in reply.body) == (500, False)
    rig.expect_errors()


def test_an_error_after_the_answer_ends_the_stream(serve):
    def app(environ, start_response):
        environ["gunicorn.socket"].sendall(SWITCH + b"hello")
        raise LookupError("secret")

    rig = serve(app)
    reply = Socket(rig).until_over()
    assert (reply.status, reply.body, reply.reset) == (200, b"hello", None)
    rig.wait_idle()
    assert "Error handling WebSocket /ws" in rig.expect_errors()[0]


@pytest.mark.parametrize("head", [
    b"\x81\x05hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 101 x\r\na b: c\r\n\r\n"])
def test_an_invalid_answer_resets_the_stream(serve, head):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(head)
        rig.note(sock.recv(1))
        return []

    rig = serve(app)
    reply = Socket(rig).until_over()
    assert (reply.head, reply.reset) == (None, ErrorCode.INTERNAL_ERROR)
    assert rig.wait_notes(1) == [b""]
    rig.wait_idle()
    assert any("Invalid reply" in line for line in rig.lines("WARNING"))


def test_another_status_through_the_socket(serve):
    def app(environ, start_response):
        environ["gunicorn.socket"].sendall(b"HTTP/1.1 426 Upgrade Required\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno")
        raise StopIteration

    reply = Socket(serve(app)).until_over()
    assert (reply.status, reply.body, reply.field(b"x-a")) == (426, b"no", b"1")


def test_what_gunicorn_refuses_is_refused(serve):
    rig = serve(raw_echo, limit_request_line=50)
    assert Socket(rig, path="/" + "x" * 100).until_over().status == 414


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "gone"])
def test_a_client_that_goes_is_the_end_of_the_socket(serve, how):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH)
        rig.note(sock.recv(1))
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            sock.sendall(bytes(1_000_000))
        rig.note("told")
        return []

    rig = serve(app)
    websocket = Socket(rig)
    if how == "reset":
        rig.client.send(rst_stream(websocket.stream_id))
    else:
        rig.client.leave()
    assert rig.wait_notes(2) == [b"", "told"]
    rig.wait_idle()


def test_a_client_that_is_gone_before_the_application_begins(serve):
    def app(environ, start_response):
        gate.enter()
        return raw_echo(environ, start_response)

    rig = serve(app, threads=1)
    gate = rig.gate()
    first = Socket(rig, wait=False)
    gate.wait_inside()
    second = Socket(rig, wait=False)
    rig.client.send(rst_stream(first.stream_id), rst_stream(second.stream_id))
    rig.client.barrier()
    gate.open()
    rig.wait_idle()
    rig.allow_errors()


def test_another_thread_that_waits_for_the_socket_is_woken(serve):
    ended = threading.Event()

    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH)

        def wait():
            with suppress(OSError):
                sock.recv(1)
            ended.set()

        threading.Thread(target=wait).start()
        raise StopIteration

    Socket(serve(app)).until_over()
    assert ended.wait(TIMEOUT)


def test_a_shutdown_closes_with_1001(serve):
    def handle(ws):
        try:
            ws.receive()
        finally:
            rig.note(int(ws.close_reason))

    rig = serve(speaking(handle))
    websocket = Socket(rig)
    rig.backend.shut_down()
    websocket.read(lambda: websocket.closed)
    assert websocket.closed == (1001, "")
    assert rig.wait_notes(1) == [1001]
    assert websocket.until_over().reset is None


def test_a_shutdown_in_the_middle_of_a_frame_waits_for_its_end(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH + b"\x82\x05he")
        gate.enter()
        sock.sendall(b"llo" + b"\x82\x05other")
        sock.recv(65_536)
        raise StopIteration

    rig = serve(app)
    gate = rig.gate()
    websocket = Socket(rig)
    websocket.until_received(4)
    rig.backend.shut_down()
    gate.open()
    websocket.read(lambda: websocket.closed)
    assert (websocket.messages, websocket.closed) == ([b"hello"], (1001, ""))
    websocket.until_over()


@pytest.mark.parametrize("closed", [True, False])
def test_a_shutdown_before_the_answer(serve, closed):
    def app(environ, start_response):
        gate.enter()
        environ["gunicorn.socket"].sendall(SWITCH + (b"\x88\x02\x03\xe8" if closed else b""))
        environ["gunicorn.socket"].recv(65_536)
        raise StopIteration

    rig = serve(app)
    gate = rig.gate()
    websocket = Socket(rig, wait=False)
    gate.wait_inside()
    rig.backend.shut_down()
    gate.open()
    websocket.read(lambda: websocket.closed)
    assert websocket.closed == (1001, "")


def test_after_the_applications_close_there_is_no_other(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH + b"\x88\x02\x03\xe8")
        sock.recv(65_536)
        raise StopIteration

    rig = serve(app)
    websocket = Socket(rig)
    websocket.until_received(4)
    rig.backend.shut_down()
    websocket.read(lambda: websocket.closed)
    websocket.until_over()
    assert websocket.reply.body == b"\x88\x02\x03\xe8"


# -- back-pressure ---------------------------------------------------------------------------------------------------


def test_an_application_waits_for_a_client_that_does_not_read(serve):
    sent = []

    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH)
        for _ in range(50):
            sock.sendall(bytes(20_000))
            sent.append(20_000)
        raise StopIteration

    rig = serve(app, pairs=[(INITIAL_WINDOW_SIZE, 1_000)])
    rig.client.open_windows()
    websocket = Socket(rig)
    websocket.until_received(1_000)
    stream = next(iter(next(iter(rig.backend._driver._registered)).core.streams.values()))
    rig.until(lambda: stream.above_high_mark, "a full queue")
    for _ in range(20):
        rig.turn()
    assert stream.queued <= 131_072 + 65_536
    assert sum(sent) < 500_000
    rig.client.send(window_update(websocket.stream_id, 10_000_000))
    assert len(websocket.until_over().body) == 1_000_000


def test_a_client_waits_for_an_application_that_does_not_read(serve):
    def app(environ, start_response):
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH)
        gate.enter()
        total = 0
        while received := sock.recv(65_536):
            total += len(received)
        rig.note(total)
        raise StopIteration

    rig = serve(app, limits={"max_window_size": 0})
    gate = rig.gate()
    websocket = Socket(rig)
    gate.wait_inside()
    sent = 0
    while credit(rig, websocket) + 65_535 - sent >= 16_000:
        websocket.send(bytes(16_000))
        sent += 16_000
        rig.client.barrier()
    # What the kernel takes, in each direction, and the window.
    assert sent < 700_000
    gate.open()
    rig.until(lambda: credit(rig, websocket) + 65_535 - sent >= 16_000, "credit")
    websocket.send(bytes(16_000), end=True)
    assert rig.wait_notes(1) == [sent + 16_000]


def test_octets_for_a_socket_that_the_application_has_closed_are_dropped(serve):
    def app(environ, start_response):
        environ["gunicorn.socket"].sendall(SWITCH)
        environ["gunicorn.socket"].close()
        gate.enter()
        raise StopIteration

    rig = serve(app)
    gate = rig.gate()
    websocket = Socket(rig)
    websocket.until_over()
    gate.wait_inside()
    for _ in range(10):
        rig.client.send(data(websocket.stream_id, bytes(16_000)))
    rig.client.assert_alive()
    gate.open()


# -- threads ---------------------------------------------------------------------------------------------------------


def test_a_socket_holds_no_thread_that_others_need(serve):
    def app(environ, start_response):
        if "HTTP_UPGRADE" in environ:
            return raw_echo(environ, start_response)
        start_response("200 OK", [])
        return [b"hello"]

    rig = serve(app, threads=1, max_waiting=4)
    sockets = [Socket(rig) for _ in range(3)]
    hello = rig.start()
    rig.client.wait_for(hello)
    assert hello.body == b"hello"
    for websocket in sockets:
        websocket.send(b"x", end=True)
        assert websocket.until_over().body == b"x"


def test_sockets_beyond_the_limit_are_refused(serve):
    rig = serve(raw_echo, max_sockets=1)
    first = Socket(rig)
    refused = [Socket(rig).until_over() for _ in range(2)]
    assert [(reply.status, reply.reset) for reply in refused] == [(503, None)] * 2
    assert [line for line in rig.lines("WARNING") if "WebSockets are open" in line] == [
        "1 WebSockets are open; each holds a thread, and more are refused (http2_max_waiting_threads)"]
    first.send(b"", end=True)
    first.until_over()
    rig.wait_idle()
    assert Socket(rig).status == 200


# -- what Gunicorn is told -------------------------------------------------------------------------------------------


def test_the_access_log(serve):
    rig = serve(raw_echo, access_log_format="%(r)s %(s)s")
    websocket = Socket(rig)
    websocket.send(b"", end=True)
    websocket.until_over()
    rig.wait_idle()
    assert rig.access_lines == ["GET /ws HTTP/2.0 200"]


def test_hooks(serve):
    calls = []

    def pre_request(worker, request):
        calls.append(request.method)
        request.headers.append(("X-HOOK", "1"))

    def post_request(worker, request, environ, response):
        calls.append(response.status)

    def app(environ, start_response):
        calls.append(environ["HTTP_X_HOOK"])
        return raw_echo(environ, start_response)

    rig = serve(app, pre_request=pre_request, post_request=post_request)
    websocket = Socket(rig)
    websocket.send(b"", end=True)
    websocket.until_over()
    rig.wait_idle()
    assert calls == ["GET", "1", "200"]
