"""ASGI's `websocket` scope over a wire in memory: events in both directions, ends of all kinds, hostile clients."""

import asyncio
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from websockets.frames import Opcode

from gunicorn_h2.apps.websocket import WebSocketASGIHandler
from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.drivers.asyncio_wire import Wire, WirePeer
from tests.protocol.peer import INITIAL_WINDOW_SIZE, Answer, data, rst_stream, window_update
from tests.support.websocket import DEFLATE, ClientEnd, connect_fields

from .asgi_rig import AccessLog

ACCEPT = {"type": "websocket.accept"}
MEBIBYTE = 1_048_576


@pytest.fixture
def serve(loop):
    """A function that serves an application to a peer; keywords are Gunicorn's settings, or the connection's."""
    peers = []

    def serve(app, max_size=16 * MEBIBYTE, pairs=(), state=None, wire=None, config=None, hooks=None, **settings):
        cfg = Config()
        for name, value in settings.items():
            cfg.set(name, value)
        log = AccessLog()
        worker = SimpleNamespace(cfg=cfg, log=log, certificates=Certificates(log), asgi=app, state=state or {},
                                 **(hooks or {}))
        peer = WirePeer(loop, WebSocketASGIHandler(worker, max_size), settings=pairs, wire=wire,
                        **{"stream_timeout": 5.0, **(config or {})})
        peer.worker = worker
        peer.send(window_update(0, 100_000_000))
        peers.append(peer)
        return peer

    yield serve
    for peer in peers:
        if peer.driver._watches:
            peer.gone()


class Socket(ClientEnd):
    """A client's end on a stream of a `WirePeer`."""

    def __init__(self, peer, *extra, path="/ws", window=100_000_000, end=False, **pseudo):
        super().__init__()
        self.peer, self.stream_id, self._seen = peer, peer.next_id(), 0
        section = [(name.encode(), value.encode())
                   for name, value in connect_fields(path, *extra, **{"scheme": "http", **pseudo})]
        pieces = [peer.headers(self.stream_id, section, end=end)]
        if window:
            pieces.append(window_update(self.stream_id, window))
        self._send(*pieces)
        if self.answer.status == 200:
            self.use_extensions(self.field("sec-websocket-extensions"))

    def _send(self, *pieces):
        self.peer.send(*pieces)
        self._read()

    def _read(self):
        body, self._seen = self.answer.body[self._seen:], len(self.answer.body)
        reply = self.feed(body) if body and self.answer.status == 200 else b""
        if reply and not self.answer.ended:
            self._send(data(self.stream_id, reply))

    @property
    def answer(self):
        """What has come on the stream."""
        return self.peer.answers.setdefault(self.stream_id, Answer())

    def field(self, name):
        """The value of a field of the response, None without it."""
        value = dict(self.answer.head).get(name.encode())
        return value and value.decode()

    def send(self, octets, size=16_000):
        """Send octets within the stream, in frames of a size."""
        for start in range(0, len(octets), size):
            self._send(data(self.stream_id, octets[start:start + size]))

    def say(self, message):
        """Send a message; return what has come since."""
        self.send(self.octets(message))
        return self.take()

    def take(self):
        """What has come, which is then forgotten."""
        self._send()
        messages, self.messages = self.messages, []
        return messages


async def echo(scope, receive, send):
    """Send back what comes, until the end."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send(ACCEPT)
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({**message, "type": "websocket.send"})


def telling(events, *messages):
    """An application that sends messages, and keeps what it receives until it is told of the end."""
    async def app(scope, receive, send):
        events.append(await receive())
        for message in messages:
            await send(message)
        while events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())
    return app


# -- the scope -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scope_of(serve):
    """A function that returns the scope of a WebSocket."""
    def scope_of(*extra, state=None, wire=None, settings=None, **pseudo):
        scopes = []

        async def app(scope, receive, send):
            scopes.append(scope)
            await receive()
            await send(ACCEPT)

        peer = serve(app, state=state, wire=wire, **(settings or {}))
        assert Socket(peer, *extra, **pseudo).answer.status == 200
        return scopes[0]
    return scope_of


def test_the_scope(scope_of):
    scope = scope_of(("origin", "https://example.org"), path="/a%20b?q=%20", state={"pool": 1},
                     settings={"root_path": "/app"})
    assert scope == {
        "type": "websocket", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "2", "scheme": "ws",
        "path": "/a b", "raw_path": b"/a%20b", "query_string": b"q=%20", "root_path": "/app",
        "headers": [(b"host", b"example.org"), (b"sec-websocket-version", b"13"), (b"origin", b"https://example.org")],
        "client": ("192.0.2.1", 1234), "server": ("192.0.2.2", 443), "subprotocols": [], "state": {"pool": 1},
        "extensions": {"websocket.http.response": {}},
    }


def test_a_trusted_proxy_may_set_the_scheme(scope_of):
    assert scope_of(wire=Wire(("127.0.0.1", 1)), scheme="https")["scheme"] == "wss"


@pytest.mark.parametrize(("offered", "names"), [
    (["chat"], ["chat"]), (["chat, superchat"], ["chat", "superchat"]), (["a", "b,, c"], ["a", "b", "c"]), ([""], []),
])
def test_subprotocols(scope_of, offered, names):
    fields = [("sec-websocket-protocol", value) for value in offered]
    assert scope_of(*fields)["subprotocols"] == names


def test_what_gunicorn_refuses_is_refused(serve):
    peer = serve(echo, limit_request_line=50)
    assert Socket(peer, path="/" + "x" * 100).answer.status == 414
    assert any("Invalid request" in line for line in peer.worker.log.lines)


# -- accepting and messages ------------------------------------------------------------------------------------------


def test_an_echo(serve):
    socket = Socket(serve(echo))
    assert socket.answer.status == 200
    for message in ("héllo", b"\x00\xff", "", b""):
        assert socket.say(message) == [message]


def test_the_head_of_the_response(serve):
    accept = {**ACCEPT, "subprotocol": "chat", "headers": [(b"X-A", b"1"), (b"content-length", b"0"),
                                                           (b"connection", b"upgrade")]}
    socket = Socket(serve(telling([], accept)), ("sec-websocket-protocol", "chat"))
    names = [name for name, _ in socket.answer.head]
    assert names == [b":status", b"x-a", b"sec-websocket-protocol", b"server", b"date"]
    assert socket.field("sec-websocket-protocol") == "chat"


@pytest.mark.parametrize("message", ["x" * MEBIBYTE, bytes(MEBIBYTE)], ids=["text", "bytes"])
def test_a_mebibyte_comes_back(serve, message):
    assert Socket(serve(echo)).say(message) == [message]


def test_a_message_in_fragments_is_one(serve):
    socket = Socket(serve(echo))
    for parts in ([b"a", b"", b"bc"], [b"", b"", b""], [b"x" * 70_000, b"y"]):
        socket.send(socket.pieces(*parts))
        assert socket.take() == [b"".join(parts)]


def test_octets_one_by_one(serve):
    socket = Socket(serve(echo))
    socket.send(socket.octets("one by one"), size=1)
    assert socket.take() == ["one by one"]


def test_many_messages_in_one_frame_keep_their_order(serve):
    socket = Socket(serve(echo))
    texts = [str(number) * 20 for number in range(500)]
    socket.send(b"".join(socket.octets(text) for text in texts))
    assert socket.take() == texts


def test_pings_are_answered_while_the_application_is_busy(serve):
    socket = Socket(serve(telling([], ACCEPT)))
    socket.send(socket.ping(b"are you there?"))
    assert socket.take() == [(Opcode.PONG, b"are you there?")]


def test_messages_are_compressed_where_the_client_can(serve):
    peer = serve(echo)
    socket = Socket(peer, ("sec-websocket-extensions", DEFLATE))
    assert socket.field("sec-websocket-extensions").startswith("permessage-deflate")
    octets = socket.octets("a" * 100_000)
    assert len(octets) < 1_000
    socket.send(octets)
    assert socket.take() == ["a" * 100_000]
    assert len(socket.answer.body) < 1_000


@pytest.mark.parametrize("offer", ["x-unknown", "permessage-deflate; unknown=1", "=;", "permessage-deflate; a=b=c"])
def test_an_extension_that_is_not_understood_is_not_used(serve, offer):
    socket = Socket(serve(echo), ("sec-websocket-extensions", offer))
    assert socket.field("sec-websocket-extensions") is None
    assert socket.say("plain") == ["plain"]


def test_what_the_client_says_before_it_is_accepted_is_kept(serve, loop):
    may_accept = asyncio.Event()

    async def app(scope, receive, send):
        await may_accept.wait()
        await echo(scope, receive, send)

    peer = serve(app)
    socket = Socket(peer)
    socket.send(socket.octets("early"))
    assert socket.answer.head is None
    may_accept.set()
    assert socket.take() == ["early"]


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason", "told"), [
    (1000, "", (1000, "")), (1001, "bye", (1001, "bye")), (3000, "mine", (3000, "mine")), (None, "", (1005, "")),
])
def test_the_client_closes(serve, code, reason, told):
    events = []
    socket = Socket(serve(telling(events, ACCEPT)))
    socket.send(socket.close(code, reason))
    assert (events[-1]["code"], events[-1]["reason"]) == told
    assert socket.take() == []
    assert (socket.closed, socket.answer.ended) == (told, True)


@pytest.mark.parametrize(("message", "closed"), [
    ({}, (1000, "")), ({"code": None}, (1000, "")), ({"code": 3001, "reason": "enough"}, (3001, "enough")),
])
def test_the_application_closes(serve, message, closed):
    events = []
    socket = Socket(serve(telling(events, ACCEPT, {"type": "websocket.close", **message})))
    assert (socket.closed, socket.answer.ended) == (closed, True)
    assert (events[-1]["code"], events[-1]["reason"]) == closed


def test_an_application_that_returns_has_closed(serve):
    async def app(scope, receive, send):
        await send(ACCEPT)

    socket = Socket(serve(app))
    assert (socket.closed, socket.answer.ended) == ((1000, ""), True)


def test_an_application_that_fails_closes_with_1011(serve):
    async def app(scope, receive, send):
        await send(ACCEPT)
        raise LookupError("secret")

    peer = serve(app)
    socket = Socket(peer)
    assert (socket.closed, socket.answer.ended) == ((1011, ""), True)
    assert any("Error handling WebSocket /ws" in line for line in peer.worker.log.lines)


@pytest.mark.parametrize("leave", ["end", "reset", "gone"])
def test_a_client_that_goes_without_a_close(serve, leave):
    events = []
    peer = serve(telling(events, ACCEPT))
    socket = Socket(peer)
    if leave == "end":
        peer.send(data(socket.stream_id, b"", end=True))
    elif leave == "reset":
        peer.send(rst_stream(socket.stream_id))
    else:
        peer.gone()
    assert (events[-1]["type"], events[-1]["code"]) == ("websocket.disconnect", 1006)


def test_a_client_that_is_gone_before_the_application_accepts(serve):
    events = []

    async def app(scope, receive, send):
        events.append(await receive())
        events.append(await receive())
        try:
            await send(ACCEPT)
        except StreamAborted as error:
            events.append(error)
            raise

    peer = serve(app)
    socket = Socket(peer)
    peer.send(rst_stream(socket.stream_id))
    assert [event["type"] for event in events[:2]] == ["websocket.connect", "websocket.disconnect"]
    assert isinstance(events[2], OSError)
    assert not any("Error" in line for line in peer.worker.log.lines)


def test_messages_before_a_close_are_received(serve):
    events = []
    socket = Socket(serve(telling(events, ACCEPT)))
    socket.send(socket.octets("last words") + socket.close(1000))
    assert [event.get("text") for event in events] == [None, "last words", None]


def test_to_send_on_a_closed_websocket_is_an_os_error(serve):
    errors = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
            try:
                await send(message)
            except OSError as error:
                errors.append(type(error))
        await send({"type": "websocket.send", "text": "x"})

    peer = serve(app)
    socket = Socket(peer)
    socket.send(socket.close(1000))
    assert errors == [StreamAborted, StreamAborted]
    assert not any("Error handling" in line for line in peer.worker.log.lines)


def test_a_shutdown_closes_with_1001(serve):
    events = []
    peer = serve(telling(events, ACCEPT))
    socket = Socket(peer)
    peer.driver.shutdown()
    socket.take()
    assert (socket.closed, events[-1]["code"]) == ((1001, ""), 1001)


def test_a_shutdown_before_the_application_accepts(serve):
    may_accept, events = asyncio.Event(), []

    async def app(scope, receive, send):
        await may_accept.wait()
        await telling(events, ACCEPT)(scope, receive, send)

    peer = serve(app)
    socket = Socket(peer)
    peer.driver.shutdown()
    may_accept.set()
    socket.take()
    assert (socket.closed, events[-1]["code"]) == ((1001, ""), 1001)


def test_a_task_that_is_cancelled_closes_with_1001(serve):
    peer = serve(telling([], ACCEPT))
    socket = Socket(peer)
    for channel in list(peer.connection.channels):
        channel.task.cancel()
    socket.take()
    assert socket.closed == (1001, "")


# -- denials ---------------------------------------------------------------------------------------------------------


def test_a_close_before_accept_is_403(serve):
    events = []
    socket = Socket(serve(telling(events, {"type": "websocket.close", "code": 4000})))
    assert (socket.answer.status, socket.answer.ended) == (403, True)
    assert events[-1]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("parts", [1, 3])
def test_a_denial_response(serve, parts):
    events = []
    bodies = [{"type": "websocket.http.response.body", "body": b"no", "more_body": number < parts - 1}
              for number in range(parts)]
    start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"WWW-Authenticate", b"Basic")]}
    socket = Socket(serve(telling(events, start, *bodies)))
    assert (socket.answer.status, socket.answer.body, socket.answer.ended) == (401, b"no" * parts, True)
    assert socket.field("www-authenticate") == "Basic"
    assert events[-1]["type"] == "websocket.disconnect"


def test_a_denial_that_is_not_completed_is_reset(serve):
    async def app(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})

    peer = serve(app)
    socket = Socket(peer)
    assert socket.answer.reset == ErrorCode.INTERNAL_ERROR
    assert any("without completing" in line for line in peer.worker.log.lines)


@pytest.mark.parametrize("error", [None, LookupError("secret")])
def test_no_answer_is_500(serve, error):
    async def app(scope, receive, send):
        if error is not None:
            raise error

    peer = serve(app)
    socket = Socket(peer)
    assert (socket.answer.status, b"secret" in socket.answer.body) == (500, False)
    assert any("Error handling WebSocket /ws" in line for line in peer.worker.log.lines)


# -- messages out of order -------------------------------------------------------------------------------------------

START, BODY = "websocket.http.response.start", "websocket.http.response.body"
WRONG = {
    "an unknown message": ([{"type": "http.response.start", "status": 200}], RuntimeError),
    "a message before accept": ([{"type": "websocket.send", "text": "x"}], RuntimeError),
    "accept twice": ([ACCEPT, ACCEPT], RuntimeError),
    "accept after a denial": ([{"type": START, "status": 403}, ACCEPT], RuntimeError),
    "a denial after accept": ([ACCEPT, {"type": START, "status": 403}], RuntimeError),
    "a denial that accepts": ([{"type": START, "status": 204}], ValueError),
    "the body of a denial first": ([{"type": BODY}], RuntimeError),
    "neither text nor bytes": ([ACCEPT, {"type": "websocket.send"}], ValueError),
    "both text and bytes": ([ACCEPT, {"type": "websocket.send", "text": "x", "bytes": b"x"}], ValueError),
    "a code that is not sent": ([ACCEPT, {"type": "websocket.close", "code": 1006}], ValueError),
    "a reason that is too long": ([ACCEPT, {"type": "websocket.close", "code": 1000, "reason": "x" * 200}], ValueError),
    "a subprotocol among the headers": (
        [{**ACCEPT, "headers": [(b"Sec-WebSocket-Protocol", b"x")]}], ValueError),
    "a header that splits": ([{**ACCEPT, "headers": [(b"x-a", b"1\r\n2")]}], ValueError),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_messages(serve, name):
    messages, expected = WRONG[name]
    errors = []

    async def app(scope, receive, send):
        try:
            for message in messages:
                await send(message)
        except (RuntimeError, ValueError) as error:
            errors.append(error)
            raise

    Socket(serve(app))
    assert len(errors) == 1
    assert isinstance(errors[0], expected)


# -- back-pressure and hostile clients -------------------------------------------------------------------------------


def test_an_application_waits_for_a_client_that_does_not_read(serve):
    sent = []

    async def app(scope, receive, send):
        await send(ACCEPT)
        for number in range(100):
            await send({"type": "websocket.send", "bytes": bytes(50_000)})
            sent.append(number)

    peer = serve(app, pairs=[(INITIAL_WINDOW_SIZE, 1_000)], config={"worker_spool_size": 0})
    socket = Socket(peer, window=0)
    assert len(sent) < 10
    socket._send(window_update(socket.stream_id, 10_000_000))
    assert len(sent) == 100
    assert len(socket.take()) == 100


def test_a_client_waits_for_an_application_that_does_not_receive(serve, loop):
    may_read = asyncio.Event()

    async def app(scope, receive, send):
        await send(ACCEPT)
        await may_read.wait()
        await echo_rest(receive, send)

    async def echo_rest(receive, send):
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": str(len(message["bytes"]))})

    peer = serve(app, config={"initial_window_size": 200_000, "max_window_size": 0})
    socket = Socket(peer)
    peer.take()
    message = socket.octets(bytes(10_000))
    for _ in range(18):
        socket.send(message)
    credit = sum(increment for stream_id, increment in peer.updates if stream_id == socket.stream_id)
    assert credit < 100_000
    may_read.set()
    assert socket.take() == ["10000"] * 18


def test_a_message_that_is_too_large_closes_with_1009(serve):
    events = []
    socket = Socket(serve(telling(events, ACCEPT), max_size=1_000))
    assert socket.say(bytes(1_000)) == []
    socket.send(socket.octets(bytes(1_001)))
    assert (socket.closed[0], events[-1]["code"]) == (1009, 1009)


def test_a_message_that_grows_too_large_closes_with_1009(serve):
    socket = Socket(serve(echo, max_size=1_000))
    socket.send(socket.pieces(*[b"x" * 100] * 11))
    assert socket.closed[0] == 1009


def test_a_bomb_closes_with_1009(serve):
    peer = serve(echo, max_size=100_000)
    socket = Socket(peer, ("sec-websocket-extensions", DEFLATE))
    socket.send(socket.octets(bytes(10_000_000)))
    assert socket.closed[0] == 1009


def test_text_that_is_no_utf_8_closes_with_1007(serve):
    events = []
    socket = Socket(serve(telling(events, ACCEPT)))
    socket.protocol.send_text(b"\xff\xfe")
    socket.send(b"".join(socket.protocol.data_to_send()))
    assert (socket.closed[0], events[-1]["code"]) == (1007, 1007)


@pytest.mark.parametrize("octets", [
    b"\x81\x05hello", b"\xf1\x80" + bytes(4), b"\x83\x80" + bytes(4), b"\x80\x80" + bytes(4)])
def test_frames_that_are_wrong_close_with_1002(serve, octets):
    events = []
    socket = Socket(serve(telling(events, ACCEPT)))
    socket.send(octets)
    assert (socket.closed[0], events[-1]["code"], socket.answer.ended) == (1002, 1002, True)
    socket.send(b"\x81\x80" + bytes(4))
    assert socket.take() == []


@pytest.mark.parametrize("kind", ["texts", "pings", "fragments"])
def test_a_flood_of_tiny_frames_closes_with_1008(serve, kind):
    peer = serve(echo, config={"small_data_budget": 1_000, "max_window_size": 16_777_216})
    socket = Socket(peer)
    frame = {"texts": b"\x81", "pings": b"\x89", "fragments": b"\x00"}[kind] + b"\x80" + bytes(4)
    begin = b"\x01\x80" + bytes(4) if kind == "fragments" else b""
    socket.send(begin + frame * 5_000, size=15_000)
    assert socket.closed == (1008, "too many small frames")


def test_large_messages_share_the_memory_of_the_worker(serve):
    peer = serve(telling([], ACCEPT), config={"worker_window_size": 300_000})
    sockets = [Socket(peer) for _ in range(3)]
    for socket in sockets:
        # Never complete.
        socket.send(socket.octets(bytes(10_000_000))[:200_000])
    closed = [socket.closed for socket in sockets if socket.closed]
    assert closed
    assert {code for code, _ in closed} == {1013}
    for socket in sockets:
        if not socket.closed:
            peer.send(rst_stream(socket.stream_id))
    assert peer.driver.window_budget.left == 300_000


def test_pongs_to_a_client_that_does_not_read_are_bounded(serve):
    peer = serve(telling([], ACCEPT), pairs=[(INITIAL_WINDOW_SIZE, 1_000)], config={"initial_window_size": 1_000_000})
    socket = Socket(peer, window=0)
    ping = socket.ping(b"x" * 120)
    for _ in range(60):
        socket.send(ping * 100, size=15_000)
    stream = peer.core.streams[socket.stream_id]
    assert 100_000 < stream.queued < 300_000


def test_a_stream_of_compressed_octets_is_not_trusted(serve):
    socket = Socket(serve(echo), ("sec-websocket-extensions", DEFLATE))
    broken = b"\xff" * 20
    header = bytes((0xC2, 0x80 | len(broken))) + bytes(4)
    socket.send(header + broken)
    assert socket.closed[0] in (1002, 1007)


# -- what Gunicorn is told -------------------------------------------------------------------------------------------


def test_the_access_log(serve):
    peer = serve(echo, accesslog="-", access_log_format="%(r)s %(s)s %(b)s")
    socket = Socket(peer)
    socket.say("12345")
    socket.send(socket.close(1000))
    ((response, _, environ, _),) = peer.worker.log.entries
    assert (str(response.status), response.sent) == ("200", 5)
    assert environ["REQUEST_METHOD"] == "CONNECT"


def test_hooks(serve):
    calls = []
    peer = serve(echo, pre_request=lambda worker, request: calls.append("pre"),
                 post_request=lambda worker, request, environ, response: calls.append(response.status))
    socket = Socket(peer)
    assert calls == ["pre"]
    socket.send(socket.close(1000))
    assert len(calls) == 2
