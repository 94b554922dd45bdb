"""ASGI over a wire in memory: scope, receive, send, errors, and what Gunicorn is told."""

import asyncio
import copy
from types import SimpleNamespace

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from gunicorn_h2.apps.asgi import ASGIHandler
from gunicorn_h2.apps.request import StreamRequest
from gunicorn_h2.drivers.certificates import Certificates
from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.drivers.asyncio_wire import Wire, WirePeer
from tests.protocol.peer import (
    END_HEADERS,
    HAS_PRIORITY,
    INITIAL_WINDOW_SIZE,
    data,
    fields,
    rst_stream,
    window_update,
)

from .asgi_rig import AccessLog

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


@pytest.fixture
def serve(loop):
    """A function that serves an application to a peer; keywords are Gunicorn's settings."""
    def serve(app, log=None, wire=None, pairs=(), state=None, **settings):
        cfg = Config()
        for name, value in settings.items():
            cfg.set(name, value)
        log = log or AccessLog()
        worker = SimpleNamespace(cfg=cfg, log=log, certificates=Certificates(log), asgi=app, state=state or {})
        peer = WirePeer(loop, ASGIHandler(worker), settings=pairs, wire=wire, stream_timeout=5.0)
        peer.worker = worker
        peer.send(window_update(0, 10_000_000))
        return peer
    return serve


@pytest.fixture
def scope_of(serve):
    """A function that returns the scope of a request."""
    def scope_of(*headers, wire=None, state=None, settings=None, **pseudo):
        scopes = []

        async def app(scope, receive, send):
            scopes.append(scope)
            await send(START)
            await send({"type": "http.response.body"})

        peer = serve(app, wire=wire, state=state, **(settings or {}))
        assert peer.request(*headers, **pseudo).status == 200
        return scopes[0]
    return scope_of


def sending(*messages):
    """An application that sends messages."""
    async def app(scope, receive, send):
        for message in messages:
            await send(message)
    return app


def body(data=b"", more_body=False):
    """A body message."""
    return {"type": "http.response.body", "body": data, "more_body": more_body}


# -- the scope ---------------------------------------------------------------------------------------------------------


def test_the_scope(scope_of):
    scope = scope_of((b"accept", b"*/*"), path=b"/a%20b?q=%20", scheme=b"http", authority=b"example.org:8080")
    assert scope["headers"] == [(b"host", b"example.org:8080"), (b"accept", b"*/*")]
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"q=%20")
    assert (scope["client"], scope["server"]) == (("192.0.2.1", 1234), ("192.0.2.2", 443))


@pytest.mark.parametrize(("raw", "path"), [
    (b"/", "/"), (b"/%C3%A9", "/é"), (b"/%ff", "/�"), (b"/a%2Fb", "/a/b"), (b"/%", "/%"), (b"//a/../b", "//a/../b"),
])
def test_the_path(scope_of, raw, path):
    scope = scope_of(path=raw, scheme=b"http")
    assert (scope["path"], scope["raw_path"]) == (path, raw)


@pytest.mark.parametrize(("name", "server"), [("/run/g.sock", ("/run/g.sock", None)), ("", None), (None, None)])
def test_a_unix_socket_has_no_ports(scope_of, name, server):
    scope = scope_of(wire=Wire("", name), scheme=b"http")
    assert (scope["client"], scope["server"]) == (None, server)


def test_ip_version_6_addresses_have_two_parts(scope_of):
    scope = scope_of(wire=Wire(("::1", 5, 0, 0)), scheme=b"http")
    assert scope["client"] == ("::1", 5)


def test_what_the_application_changes_is_its_own(serve):
    """Requests with the same header block have a common template."""
    seen, streams = [], []

    async def app(scope, receive, send):
        seen.append(copy.deepcopy(scope))
        streams.append(seen[-1].pop("gunicorn.http2.stream"))
        scope["state"]["a"] = 2
        scope["asgi"]["version"] = "0"
        scope["extensions"]["http.response.priority"]["weight"] = 0
        scope["extensions"]["http.response.early_hint"]["a"] = 1
        scope["extensions"].clear()
        scope["headers"].clear()
        scope["path"] = "/changed"
        await send(START)
        await send(body())

    peer = serve(app, state={"a": 1})
    for _ in range(3):
        peer.request((b"x-y", b"1"))
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert len(set(streams)) == 3


def test_the_priority_of_each_stream(serve):
    """RFC 7540's belongs to the stream, though the header block be the same."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["extensions"]["http.response.priority"])
        await send(START)
        await send(body())

    peer = serve(app)
    peer.request((b"priority", b"u=1"))
    for weight in (9, 99):
        section = fields((b"priority", b"u=1"))
        before = bytes([0, 0, 0, 0, weight])
        peer.send(peer.headers(peer.next_id(), section, flags=END_HEADERS | HAS_PRIORITY, before=before))
    assert [(priority["weight"], priority["urgency"]) for priority in seen] == [(16, 1), (10, 1), (100, 1)]


def test_methods_are_in_upper_case(scope_of):
    assert scope_of(method=b"patch", scheme=b"http")["method"] == "PATCH"


@pytest.mark.parametrize(("settings", "kept"), [({}, False), ({"header_map": "dangerous"}, True)])
def test_names_with_underscores(scope_of, settings, kept):
    scope = scope_of((b"x_y", b"1"), scheme=b"http", settings=settings)
    assert ((b"x_y", b"1") in scope["headers"]) is kept


def test_a_decision_of_gunicorns_policy_holds_for_all_requests_with_the_head(serve):
    schemes = []

    async def app(scope, receive, send):
        schemes.append((scope["scheme"], scope["headers"]))
        await send(START)
        await send(body())

    peer = serve(app, forwarded_allow_ips="192.0.2.1")
    for _ in range(3):
        peer.request((b"x-forwarded-proto", b"https"), (b"a_b", b"1"), scheme=b"http")
    assert schemes == [("https", [(b"host", b"example.org"), (b"x-forwarded-proto", b"https")])] * 3


def test_a_request_that_gunicorn_refuses(serve):
    peer = serve(sending(START, body()), header_map="refuse")
    answer = peer.request((b"x_y", b"1"))
    assert (answer.status, answer.body) == (400, b"400 Bad Request\n")
    assert "Invalid request from ip=192.0.2.1: Invalid HTTP header name: 'X_Y'" in peer.worker.log.lines
    (entry,) = peer.worker.log.entries
    assert refusal_in(entry) == ("400 Bad Request", 16, "GET /", "192.0.2.1", "1")


def test_a_request_that_the_core_answers(serve):
    peer = serve(sending(START, body()))
    assert peer.request((b"x-y", b"1"), method=b"CONNECT", scheme=None, path=None, authority=b"e.org:1").status == 501
    assert "Invalid request from ip=192.0.2.1: CONNECT is not supported" in peer.worker.log.lines
    (entry,) = peer.worker.log.entries
    assert refusal_in(entry) == ("501 Not Implemented", 0, "CONNECT e.org:1", "192.0.2.1", "1")


def test_a_refused_request_whose_client_is_gone_is_noted_all_the_same(serve):
    peer = serve(sending(START, body()), header_map="refuse")
    stream_id = peer.next_id()
    section = fields((b"x_y", b"1"))
    peer.send(peer.headers(stream_id, section), rst_stream(stream_id))
    (entry,) = peer.worker.log.entries
    assert refusal_in(entry)[:2] == ("400 Bad Request", 0)


def test_a_log_that_fails_for_a_refused_request_disturbs_no_one(serve):
    class BrokenLog(AccessLog):
        def access(self, *_):
            raise ValueError("a broken log")

    peer = serve(sending(START, body()), log=BrokenLog(), header_map="refuse")
    assert peer.request((b"x_y", b"1")).status == 400
    assert "Error in the access log of a refused request ValueError('a broken log')" in peer.worker.log.lines
    assert peer.request((b"x-y", b"1")).status == 200


def refusal_in(entry):
    """What the access log is told of a refused request."""
    response, _, environ, _ = entry
    line = f"{environ['REQUEST_METHOD']} {environ['RAW_URI']}"
    return (response.status, response.sent, line, environ["REMOTE_ADDR"], environ["HTTP_X_Y"])


# -- receive -----------------------------------------------------------------------------------------------------------


def receiving(count, messages, respond_after=None):
    """An application that receives so many messages, and keeps them."""
    async def app(scope, receive, send):
        for number in range(count):
            if number == respond_after:
                await send(START)
                await send(body())
            messages.append(await receive())
        if respond_after is None or respond_after >= count:
            await send(START)
            await send(body())
    return app


def test_pieces_that_wait_are_joined(serve, loop):
    messages = []
    peer = serve(receiving(1, messages))
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, end=False), data(stream_id, b"ab"), data(stream_id, b"cd", True))
    assert messages == [{"type": "http.request", "body": b"abcd", "more_body": False}]


def test_a_body_in_pieces(serve):
    messages = []
    peer = serve(receiving(2, messages))
    peer.request(body=b"a", end=False)
    peer.send(data(1, b"b"), data(1, b"", True))
    assert [(message["body"], message["more_body"]) for message in messages] == [(b"a", True), (b"b", False)]


def test_receive_waits_for_the_end_and_says_so_again(serve):
    messages = []
    peer = serve(receiving(4, messages))
    peer.request(body=b"a")
    assert len(messages) == 1
    peer.send(rst_stream(1))
    assert [message["type"] for message in messages[1:]] == ["http.disconnect"] * 3


def test_receive_after_the_response(serve):
    messages = []
    peer = serve(receiving(2, messages, respond_after=0))
    answer = peer.request(body=b"a", end=False)
    assert [message["type"] for message in messages] == ["http.disconnect"] * 2
    assert answer.status == 200


def test_a_hint_does_not_stand_for_the_continue_that_the_client_waits_for(serve):
    messages = []

    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</a.css>"]})
        await send({"type": "http.response.informational", "status": 102, "headers": []})
        messages.append(await receive())
        await send(START)
        await send(body())

    peer = serve(app)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"103", b"102", b"100"]
    peer.send(data(1, b"abc", True))
    assert (messages[0]["body"], answer.status) == (b"abc", 200)


def test_a_continue_of_the_applications_own_is_the_only_one(serve):
    async def app(scope, receive, send):
        await send({"type": "http.response.informational", "status": 100, "headers": []})
        await receive()
        await send(START)
        await send(body())

    peer = serve(app)
    answer = peer.request((b"expect", b"100-continue"), end=False)
    assert [dict(section)[b":status"] for section in answer.interim] == [b"100"]
    peer.send(data(1, b"", True))
    assert answer.status == 200


def test_receive_in_another_task_while_the_response_ends(serve, loop):
    """The rest of the body is void then."""
    messages = []

    async def app(scope, receive, send):
        async def listen():
            messages.append(await receive())

        listener = loop.create_task(listen())
        await asyncio.sleep(0)
        await send(START)
        await send(body())
        await listener

    answer = serve(app).request(end=False)
    assert answer.ended
    assert messages == [{"type": "http.disconnect"}]


def test_trailers_come_with_the_last_message(serve):
    messages = []
    peer = serve(receiving(1, messages))
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, end=False), data(stream_id, b"a"),
              peer.headers(stream_id, [(b"x-sum", b"1")]))
    assert messages == [{"type": "http.request", "body": b"a", "more_body": False, "trailers": [(b"x-sum", b"1")]}]


# -- send --------------------------------------------------------------------------------------------------------------


def test_names_go_out_in_lower_case_and_text_as_latin_1(serve):
    headers = [("X-Text", "é"), (b"X-Bytes", bytearray(b"b")), (b"Keep-Alive", b"1")]
    answer = serve(sending({**START, "headers": headers}, body(memoryview(b"ok")))).request()
    assert answer.head[1:3] == [(b"x-text", b"\xe9"), (b"x-bytes", b"b")]
    assert {name for name, _ in answer.head[3:]} == {b"server", b"date"}
    assert answer.body == b"ok"


@pytest.mark.parametrize("pair", [tuple, list], ids=["tuples", "lists"])
def test_a_response_that_is_repeated(serve, pair):
    """Its head is remembered, where it can be; the next one is not confused with it."""
    async def app(scope, receive, send):
        value = scope["query_string"] + b" "
        await send({"type": "http.response.start", "status": 200, "headers": iter([pair([b"X-A", value])])})
        await send(body(b"ok"))

    peer = serve(app)
    for value in (b"1", b"1", b"2", b"1"):
        answer = peer.request(path=b"/?" + value)
        assert (b"x-a", value) in answer.head
        assert answer.body == b"ok"


def test_a_buffer_may_be_used_again(serve):
    async def app(scope, receive, send):
        buffer = bytearray(b"first")
        await send(START)
        await send(body(buffer, True))
        buffer[:] = b"other"
        await send(body(buffer))

    assert serve(app).request().body == b"firstother"


@pytest.mark.parametrize("value", ["text", 5])
def test_a_body_that_is_not_bytes(serve, value):
    peer = serve(sending(START, body(value)))
    assert peer.request().status == 500
    assert "TypeError" in peer.worker.log.text


@pytest.mark.parametrize("status", ["200", 99, 100, 1000, None])
def test_a_status_that_is_none(serve, status):
    assert serve(sending({**START, "status": status}, body())).request().status == 500


@pytest.mark.parametrize("length", [b"x", b"-1", b"1_0"])
def test_a_content_length_that_is_none(serve, length):
    answer = serve(sending({**START, "headers": [(b"content-length", length)]}, body(b"a" * 10))).request()
    assert answer.status == 500


@pytest.mark.parametrize("last", [b"", b"abcdef"])
def test_a_streamed_body_of_another_length_than_declared(serve, last):
    start = {**START, "headers": [(b"content-length", b"5")]}
    answer = serve(sending(start, body(b"abc", True), body(last))).request()
    assert (answer.status, answer.reset) == (200, ErrorCode.INTERNAL_ERROR)


def test_a_streamed_body_of_the_declared_length(serve):
    start = {**START, "headers": [(b"content-length", b"5")]}
    answer = serve(sending(start, body(b"abc", True), body(b"de"))).request()
    assert (answer.body, answer.ended, answer.reset) == (b"abcde", True, None)


def test_a_large_response_waits_for_the_window(serve, loop):
    sent = []

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"x" * 200_000, True))
        sent.append("first")
        await send(body(b"x" * 200_000))
        sent.append("last")

    peer = serve(app)
    answer = peer.request()
    assert (sent, len(answer.body)) == ([], 65_535)
    peer.send(window_update(1, 200_000))
    assert sent == ["first"]
    peer.send(window_update(1, 200_000))
    assert (sent, len(answer.body), answer.ended) == (["first", "last"], 400_000, True)


def test_a_small_response_is_one_write(serve):
    peer = serve(sending(START, body(b"hello")))
    writes = peer.wire.writes
    assert peer.request().ended
    assert peer.wire.writes == writes + 1


def test_sending_after_a_disconnect(serve):
    errors = []

    async def app(scope, receive, send):
        await receive()
        for message in (START, body(b"x", True), body()):
            with pytest.raises(OSError, match="reset") as caught:
                await send(message)
            errors.append(caught.value)
        raise errors[0]

    peer = serve(app)
    peer.request(end=False)
    peer.send(rst_stream(1))
    assert [type(error) for error in errors] == [StreamAborted] * 3
    assert "Error handling" not in peer.worker.log.text


def test_trailers_behind_a_large_last_body(serve):
    trailers = {"type": "http.response.trailers", "headers": [(b"X-Sum", b"1")]}
    peer = serve(sending(START, body(b"x" * 300_000), trailers), pairs=[(INITIAL_WINDOW_SIZE, 1_000_000)])
    answer = peer.request()
    assert (len(answer.body), answer.trailers) == (300_000, [(b"x-sum", b"1")])


def test_trailers_that_come_too_late(serve, loop):
    errors = []

    async def app(scope, receive, send):
        await send(START)
        await send(body(b"x"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            await send({"type": "http.response.trailers", "headers": []})
        except RuntimeError as error:
            errors.append(str(error))

    assert serve(app).request().ended
    assert errors == ["the response has ended; http.response.start announces trailers by trailers: True"]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), SystemExit("secret"), BaseException("secret")],
                         ids=["error", "exit", "base"])
def test_an_error_of_the_application(serve, error):
    async def app(scope, receive, send):
        raise error

    peer = serve(app)
    answer = peer.request()
    assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert "secret" in peer.worker.log.text


def test_an_error_answers_head_without_a_body(serve):
    answer = serve(sending()).request(method=b"HEAD")
    assert (answer.status, answer.body, answer.ended) == (500, b"", True)


def test_an_error_behind_the_response_does_not_spoil_it(serve):
    async def app(scope, receive, send):
        await send(START)
        await send(body(b"fine"))
        raise ZeroDivisionError

    answer = serve(app).request()
    assert (answer.status, answer.body, answer.reset) == (200, b"fine", None)


def test_an_application_that_cancels_itself(serve):
    async def app(scope, receive, send):
        raise asyncio.CancelledError

    peer = serve(app)
    assert peer.request().reset == ErrorCode.CANCEL
    peer.assert_alive()


# -- what Gunicorn is told ---------------------------------------------------------------------------------------------


def test_the_access_log(serve):
    peer = serve(sending({**START, "headers": [("X-Out", "1")]}, body(b"hello")))
    peer.request((b"x-in", b"2"), path=b"/a?b")
    response, request, environ, duration = peer.worker.log.entries[0]
    assert (response.status, response.sent, response.headers) == (200, 5, [("X-Out", "1")])
    assert ("X-IN", "2") in request.headers
    assert environ.items() >= {
        "REQUEST_METHOD": "GET", "RAW_URI": "/a?b", "PATH_INFO": "/a", "QUERY_STRING": "b",
        "SERVER_PROTOCOL": "HTTP/2.0", "REMOTE_ADDR": "192.0.2.1", "HTTP_X_IN": "2", "gunicorn.http2.stream_id": 1,
    }.items()
    assert 0 <= duration.seconds < 60


def test_the_hooks(serve):
    calls = []
    peer = serve(
        sending(START, body(b"hello")),
        pre_request=lambda worker, req: calls.append((worker, req.method, req.path)),
        post_request=lambda worker, req, environ, resp: calls.append((worker, resp.status)),
    )
    peer.request()
    assert calls == [(peer.worker, "GET", "/"), (peer.worker, 200)]


def test_hooks_that_fail(serve):
    def broken(*arguments):
        raise ZeroDivisionError

    peer = serve(sending(START, body()), pre_request=lambda worker, req: broken())
    assert peer.request().status == 500
    peer = serve(sending(START, body()), post_request=lambda worker, req, environ, resp: broken())
    assert peer.request().status == 200
    assert "post_request" in peer.worker.log.text


def test_without_a_log_gunicorns_request_is_not_made(serve, monkeypatch):
    """Unless its policy has something to decide; and then once for a header block that comes again."""
    peer = serve(sending(START, body()), log=Logger(Config()))
    made = []
    for_stream = StreamRequest.for_stream
    monkeypatch.setattr(
        StreamRequest, "for_stream", lambda *arguments: made.append(arguments) or for_stream(*arguments)
    )
    assert peer.request(scheme=b"http").status == 200
    assert made == []
    decided = [[(b"x-forwarded-proto", b"https")], [(b"a_b", b"1")], [(b"x", b"y" * 9000)]]
    for headers in decided:
        peer.request(*headers, scheme=b"http")
    assert len(made) == len(decided)


# -- `gunicorn.http2.stream` -------------------------------------------------------------------------------------------

STREAM = "gunicorn.http2.stream"


@pytest.mark.parametrize("late", [True, False])
def test_an_abort_is_announced(serve, loop, late):
    """Even while a body waits that no one receives."""
    told = []

    async def app(scope, receive, send):
        if late:
            await released.wait()
        scope[STREAM].on_abort(lambda: told.append(scope["path"]))
        await released.wait()

    released = asyncio.Event()
    peer = serve(app)
    peer.send(peer.headers(1, fields(scheme=b"http"), False), data(1, b"unread"))
    peer.send(rst_stream(1))
    assert told == ([] if late else ["/"])
    released.set()
    loop.turns()
    assert told == ["/"]


@pytest.mark.parametrize("lifted", [True, False])
def test_a_body_that_comes_late(serve, loop, lifted):
    seen = []

    async def app(scope, receive, send):
        if lifted:
            scope[STREAM].lift_read_timeout()
        seen.append(await receive())
        await send(START)
        await send(body())

    peer = serve(app)
    peer.send(peer.headers(1, fields(scheme=b"http"), False))
    loop.wait(10.0)
    if lifted:
        assert seen == []
        peer.send(data(1, b"late", True))
        assert seen == [{"type": "http.request", "body": b"late", "more_body": False}]
    else:
        assert seen == [{"type": "http.disconnect"}]


def test_the_fields_of_a_request_as_they_were_sent(scope_of):
    scope = scope_of((b"x_a", b"1"), (b"x-a", b"2"))
    assert [field for field in scope[STREAM].request_fields if field[0][:1] == b"x"] == [(b"x_a", b"1"), (b"x-a", b"2")]
