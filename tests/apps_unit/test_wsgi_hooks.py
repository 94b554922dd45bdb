"""What Gunicorn is told of a request: its hooks, its access log, its statistics."""

import base64
import os
import socket
import time

import pytest
from gunicorn.glogging import Logger
from gunicorn.instrument.statsd import Statsd

from tests.protocol.peer import rst_stream

from .wsgi_rig import PEER, PROXY, Result, answering, keeping, since_27

pytestmark = pytest.mark.compat

TIMEOUT = 10


@pytest.fixture
def hooked(serve):
    """A function that serves an application, with hooks that keep what they are called with."""
    def hooked(app, **settings):
        calls = []
        hooks = {"pre_request": lambda worker, req: calls.append(("pre", worker, req)),
                 "post_request": lambda worker, req, environ, resp: calls.append(("post", worker, req, environ, resp))}
        rig = serve(app, **{**hooks, **settings})
        rig.calls = calls
        return rig
    return hooked


def kinds(rig):
    """Which hooks were called."""
    return [call[0] for call in rig.calls]


# -- the request that hooks are given ----------------------------------------------------------------------------------


def test_the_request_of_a_hook(hooked):
    rig = hooked(answering(b"hello"))
    rig.request((b"x-a", b"1"), (b"x-a", b"\xe9"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), path=b"/a%20b?c=d&e",
                method=b"PUT", body=b"12345")
    _, worker, request = rig.calls[0]
    assert worker is rig.worker
    assert (request.method, request.uri) == ("PUT", "/a%20b?c=d&e")
    assert (request.path, request.query, request.fragment) == ("/a%20b", "c=d&e", "")
    assert (request.version, request.scheme) == ((2, 0), "http")
    assert request.headers == [("HOST", "example.org"), ("X-A", "1"), ("X-A", "\xe9"), ("COOKIE", "a=1; b=2")]
    assert request.trailers == []
    assert request.peer_addr == request.remote_addr == PEER
    assert request.req_number == 1
    assert request.proxy_protocol_info is None
    assert request.should_close() is False
    assert request.cfg is rig.cfg


def test_the_request_of_a_hook_as_the_policy_left_it(hooked):
    rig = hooked(answering(), peer=PROXY, casefold_http_method=True)
    rig.request((b"x_dropped", b"1"), (b"x-forwarded-proto", b"https"), (b"script_name", b"/a"), path=b"/a/b",
                method=b"get")
    request = rig.calls[0][2]
    assert (request.method, request.path, request.scheme) == ("GET", "/a/b", "https")
    assert request.headers == [("HOST", "example.org"), ("X-FORWARDED-PROTO", "https"), ("SCRIPT_NAME", "/a")]


def test_the_request_of_a_hook_is_its_own(hooked):
    """What a hook keeps or changes is no other request's."""
    rig = hooked(answering())
    for number in range(3):
        rig.request((b"x-number", b"%d" % number), path=b"/%d" % number)
    requests = [call[2] for call in rig.calls if call[0] == "pre"]
    assert [request.path for request in requests] == ["/0", "/1", "/2"]
    assert [request.headers[1] for request in requests] == [("X-NUMBER", "0"), ("X-NUMBER", "1"), ("X-NUMBER", "2")]
    assert [request.req_number for request in requests] == [1, 3, 5]


def test_a_hook_that_changes_its_request_changes_no_other(serve):
    """Many identical requests: what was made of one header block must not be handed out twice."""
    seen = []

    def spoil(worker, req):
        seen.append((req.method, req.path, list(req.headers), list(req.trailers)))
        req.headers.append(("X-SPOILT", "1"))
        req.trailers.append(("x-spoilt", "1"))
        req.method = req.path = "spoilt"

    environs = []
    rig = serve(keeping(environs), pre_request=spoil)
    for _ in range(20):
        assert rig.request((b"x-a", b"1"), path=b"/a").status == 200
    assert seen == [("GET", "/a", [("HOST", "example.org"), ("X-A", "1")], [])] * 20


def test_a_header_that_a_hook_adds_reaches_the_application(serve):
    """A request ID, most often: Gunicorn's workers call `pre_request`, then make the environ of its request."""
    environs = []
    rig = serve(keeping(environs), pre_request=lambda worker, req: req.headers.append(("X-REQUEST-ID", "7")))
    rig.request()
    assert environs[0]["HTTP_X_REQUEST_ID"] == "7"


def test_the_trailers_of_a_request_in_a_hook(hooked):
    def app(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return []

    rig = hooked(app)
    rig.request(body=b"12345", method=b"POST", trailers=[(b"x-sum", b"1")])
    assert rig.calls[-1][2].trailers == [("x-sum", "1")]


# -- the response that hooks are given ---------------------------------------------------------------------------------


def test_the_response_of_a_hook(hooked):
    headers = [("Content-Type", "text/x"), ("X-A", " caf\xe9 "), ("Connection", "close"), ("Content-Length", "5")]
    rig = hooked(answering(b"he", b"llo", headers=headers, status="201 Created"))
    rig.request(path=b"/a?b")
    _, worker, request, environ, response = rig.calls[1]
    assert worker is rig.worker
    assert request is rig.calls[0][2]
    assert environ["RAW_URI"] == "/a?b"
    assert (response.status, response.status_code) == ("201 Created", 201)
    assert response.headers == [("Content-Type", "text/x"), ("X-A", "caf\xe9"), ("Content-Length", "5")]
    assert (response.sent, response.response_length, response.headers_sent) == (5, 5, True)
    assert response.req is request
    assert request.body is environ["wsgi.input"]


def test_the_environ_of_a_hook_is_the_applications(hooked):
    """What the application has put there, a framework's user for one, is there for the log."""
    def app(environ, start_response):
        environ["REMOTE_USER"] = "alice"
        environs.append(environ)
        start_response("200 OK", [])
        return []

    environs = []
    rig = hooked(app)
    rig.request()
    assert rig.calls[1][3] is environs[0]
    assert rig.calls[1][3]["REMOTE_USER"] == "alice"


@pytest.mark.parametrize(("pieces", "method", "status", "sent"), [
    ([b"hello"], b"GET", "200 OK", 5), ([b"he", b"", b"llo"], b"GET", "200 OK", 5), ([], b"GET", "200 OK", 0),
    pytest.param([b"hello"], b"HEAD", "200 OK", 0, marks=since_27), ([b"x"] * 500, b"GET", "200", 500),
    ([b"hello, ", b"world"], b"GET", "200 OK", 12),
    pytest.param([b"hello"], b"GET", "304 Not Modified", 0, marks=since_27),
])
def test_octets_are_counted(hooked, pieces, method, status, sent):
    rig = hooked(answering(*pieces, status=status))
    rig.request(method=method)
    assert rig.calls[1][4].sent == sent
    assert rig.access[0]["B"] == sent


def test_octets_beyond_the_content_length_are_not_counted(hooked):
    """They are not sent."""
    rig = hooked(answering(b"hello, ", b"world", headers=[("Content-Length", "9")]))
    rig.request()
    assert rig.calls[1][4].sent == 9
    assert rig.access[0]["B"] == 9


@pytest.mark.parametrize("arity", [2, 3, 4])
def test_hooks_with_fewer_parameters(serve, arity):
    """Gunicorn's older signatures of `post_request`."""
    calls = []
    hook = {2: lambda worker, req: calls.append((worker, req)),
            3: lambda worker, req, environ: calls.append((worker, req, environ)),
            4: lambda worker, req, environ, resp: calls.append((worker, req, environ, resp))}[arity]
    rig = serve(answering(), post_request=hook)
    assert rig.request().status == 200
    assert [len(call) for call in calls] == [arity]


# -- when hooks are called ---------------------------------------------------------------------------------------------


def test_the_order_of_things(serve):
    order = []

    class Ordered(Result):
        def close(self):
            order.append("close")

    def app(environ, start_response):
        order.append("call")
        start_response("200 OK", [])
        return Ordered(b"x")

    rig = serve(app, pre_request=lambda worker, req: order.append("pre_request"),
                post_request=lambda worker, req, environ, resp: order.append(f"post_request {len(rig.access)}"))
    rig.request()
    assert order == ["pre_request", "call", "close", "post_request 1"]


def test_the_hook_before_a_request_runs_in_its_thread_before_its_call(serve):
    """A hook that waits holds up its own request only."""
    def hook(worker, req):
        if req.path == "/slow":
            gate.enter()

    rig = serve(answering(b"x"), pre_request=hook, threads=2)
    gate = rig.gate()
    slow = rig.start(path=b"/slow")
    gate.wait_inside()
    fast = rig.start()
    rig.client.wait_for(fast)
    assert not slow.over
    gate.open()
    rig.client.wait_for(slow)
    assert slow.status == 200


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), SystemExit("secret")], ids=["error", "exit"])
def test_a_hook_before_the_request_that_fails(hooked, error):
    """The application is not called; the client gets an answer all the same, and the other hook its call."""
    def broken(worker, req):
        raise error

    environs = []
    rig = hooked(keeping(environs), pre_request=broken)
    reply = rig.request()
    assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert "secret" in rig.expect_errors()[0]
    assert environs == []
    assert kinds(rig) == ["post"]
    assert rig.calls[0][4].status == "500 Internal Server Error"
    rig.client.assert_alive()


def test_a_hook_after_the_request_that_fails(serve):
    def broken(worker, req, environ, resp):
        raise ZeroDivisionError("secret")

    rig = serve(answering(b"hello"), post_request=broken)
    for number in range(2):
        reply = rig.request()
        assert (reply.status, reply.body, reply.ended, reply.reset) == (200, b"hello", True, None)
        assert "post_request" in rig.expect_errors(number + 1)[number]
    assert len(rig.access) == 2


def test_hooks_of_a_request_that_fails(hooked):
    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        raise ZeroDivisionError

    rig = hooked(app)
    rig.request()
    assert kinds(rig) == ["pre", "post"]
    response = rig.calls[1][4]
    assert response.status == "500 Internal Server Error"
    assert "X-A" not in dict(response.headers)
    rig.expect_errors()


def test_hooks_of_a_request_that_is_broken_off(hooked):
    """The status is the one that the client has seen."""
    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        yield b"par"
        raise ZeroDivisionError

    rig = hooked(app)
    rig.request()
    response = rig.calls[1][4]
    assert (response.status, response.headers, response.sent) == ("200 OK", [("X-A", "1")], 3)
    rig.expect_errors()


def test_hooks_of_a_request_whose_client_left(hooked):
    def app(environ, start_response):
        gate.enter()
        start_response("200 OK", [("X-A", "1")])
        return [b"x"]

    rig = hooked(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.send(rst_stream(reply.stream_id))
    rig.client.barrier()
    gate.open()
    rig.wait_idle()
    assert kinds(rig) == ["pre", "post"]


def test_hooks_of_a_request_that_is_refused(hooked):
    """Gunicorn refuses it while parsing, before there is a request to speak of."""
    rig = hooked(answering())
    assert rig.request((b"expect", b"nonsense")).status == 417
    assert rig.calls == []


def test_gunicorns_own_hook_logs_at_debug(serve):
    rig = serve(answering())
    rig.request(path=b"/a?b")
    assert "GET /a" in rig.lines("DEBUG")


# -- the access log ----------------------------------------------------------------------------------------------------


def test_an_entry_of_the_access_log(serve):
    user = b"Basic " + base64.b64encode(b"alice:secret")
    rig = serve(answering(b"he", b"llo", headers=[("X-Out", "o"), ("Set-Cookie", "a=1")], status="404 Not Found"))
    rig.request((b"user-agent", b"tests"), (b"referer", b"http://a/"), (b"x-in", b"i"), (b"authorization", user),
                path=b"/a%20b?c=d", method=b"POST", body=b"123")
    (atoms,) = rig.access
    expected = {"h": PEER[0], "l": "-", "u": "alice", "r": "POST /a%20b?c=d HTTP/2.0", "s": "404", "m": "POST",
                "U": "/a b", "q": "c=d", "H": "HTTP/2.0", "b": "5", "B": 5, "f": "http://a/", "a": "tests",
                "p": f"<{os.getpid()}>", "{x-in}i": "i", "{x-out}o": "o", "{x-none}o": "-", "{host}i": "example.org",
                "{set-cookie}o": "a=1", "{server_port}e": "8000", "{gunicorn.http2.stream_id}e": 1}
    assert {key: atoms[key] for key in expected} == expected
    assert rig.access_lines[0].startswith(f"{PEER[0]} - alice [")
    assert rig.access_lines[0].endswith('] "POST /a%20b?c=d HTTP/2.0" 404 5 "http://a/" "tests"')


def test_the_format_of_the_access_log_is_a_setting(serve):
    rig = serve(answering(b"x", headers=[("X-Out", "o")]), access_log_format="%(s)s %({x-out}o)s %({x-in}i)s %(B)d")
    rig.request((b"x-in", b"i"))
    assert rig.access_lines == ["200 o i 1"]


def test_the_duration_is_that_of_the_call(serve):
    spent = []

    def app(environ, start_response):
        began = time.monotonic()
        while time.monotonic() < began + 0.005:
            pass
        start_response("200 OK", [])
        yield b"x"
        spent.append(time.monotonic() - began)

    rig = serve(app)
    began = time.monotonic()
    rig.request()
    # The two clocks may differ by a little.
    assert spent[0] - 0.001 <= rig.access[0]["D"] / 1_000_000 <= time.monotonic() - began + 0.001
    assert rig.access[0]["M"] == rig.access[0]["D"] // 1000
    assert (rig.access[0]["T"], rig.access[0]["L"]) == (0, f"0.{rig.access[0]['D']:06d}")


def test_the_entry_of_an_error(serve):
    def app(environ, start_response):
        start_response("200 OK", [("X-Out", "o")])
        raise ZeroDivisionError

    rig = serve(app)
    rig.request()
    (atoms,) = rig.access
    assert (atoms["s"], atoms["r"], atoms["{x-out}o"]) == ("500", "GET / HTTP/2.0", "-")
    rig.expect_errors()


def test_the_entry_of_an_error_counts_its_octets(serve):
    def app(environ, start_response):
        raise ZeroDivisionError

    rig = serve(app)
    rig.allow_errors()
    reply = rig.request()
    assert rig.access[0]["B"] == len(reply.body)


def test_the_entry_of_a_response_that_is_broken_off(serve):
    def app(environ, start_response):
        start_response("200 OK", [("X-Out", "o")])
        yield b"par"
        raise ZeroDivisionError

    rig = serve(app)
    rig.request()
    (atoms,) = rig.access
    assert (atoms["s"], atoms["B"], atoms["{x-out}o"]) == ("200", 3, "o")
    rig.expect_errors()


def test_the_entry_of_a_request_whose_client_left(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        gate.enter()
        yield b"two"

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.send(rst_stream(reply.stream_id))
    rig.client.barrier()
    gate.open()
    rig.wait_idle()
    assert [atoms["s"] for atoms in rig.access] == ["200"]


def test_what_the_application_does_to_the_environ_shows(serve):
    """As over HTTP/1.1: a middleware may well shift SCRIPT_NAME and PATH_INFO."""
    def app(environ, start_response):
        environ["PATH_INFO"], environ["wsgi.test"] = "/shifted", "seen"
        start_response("200 OK", [])
        return []

    rig = serve(app)
    rig.request(path=b"/a")
    assert (rig.access[0]["U"], rig.access[0]["{wsgi.test}e"]) == ("/shifted", "seen")
    assert rig.access[0]["r"] == "GET /a HTTP/2.0"


def test_an_environ_that_the_application_has_emptied(serve):
    """Gunicorn's log cannot be written then; the response is none the worse for it."""
    def app(environ, start_response):
        environ.clear()
        start_response("200 OK", [])
        return [b"fine"]

    rig = serve(app)
    rig.allow_errors()
    reply = rig.request()
    assert (reply.status, reply.body, reply.ended, reply.reset) == (200, b"fine", True, None)
    rig.client.assert_alive()


def test_quotes_are_escaped_as_gunicorn_does(serve):
    rig = serve(answering())
    rig.request((b"user-agent", b'a"b'))
    assert rig.access_lines[0].endswith('"a\\"b"')


def test_every_request_has_one_entry(serve):
    rig = serve(answering(b"x"), threads=4)
    replies = [rig.start(path=b"/%d" % number) for number in range(50)]
    rig.client.wait_for(*replies)
    rig.wait_idle()
    assert sorted(atoms["U"] for atoms in rig.access) == sorted(f"/{number}" for number in range(50))


def test_without_an_access_log(serve):
    rig = serve(answering(b"hello"), accesslog=None)
    assert rig.request().body == b"hello"
    assert rig.access == []


# -- loggers of one's own ----------------------------------------------------------------------------------------------


def test_a_logger_class_with_an_access_method_of_its_own(serve):
    """It decides for itself whether there is anything to log, whatever `accesslog` says."""
    entries = []

    class Own(Logger):
        def access(self, resp, req, environ, request_time):
            entries.append((resp.status, req.uri, environ["PATH_INFO"], request_time.total_seconds() >= 0))

    rig = serve(answering(b"x"), accesslog=None, log_class=Own)
    rig.request(path=b"/a?b")
    assert entries == [("200 OK", "/a?b", "/a", True)]


def test_an_access_method_that_fails(serve):
    class Broken(Logger):
        def access(self, resp, req, environ, request_time):
            raise ZeroDivisionError("in the logger")

    rig = serve(answering(b"hello"), log_class=Broken)
    reply = rig.request()
    assert (reply.body, reply.ended, reply.reset) == (b"hello", True, None)
    assert "in the logger" in rig.expect_errors()[0]
    rig.client.assert_alive()


def test_a_logger_that_fails_while_a_request_is_refused(serve):
    """The client has its answer, and the thread goes on."""
    class Broken(Logger):
        def warning(self, msg, *args, **kwargs):
            raise ZeroDivisionError("in the logger")

    rig = serve(answering(b"hello"), log_class=Broken, threads=1)
    assert rig.request((b"expect", b"nonsense")).status == 417
    assert "in the logger" in rig.expect_errors()[0]
    assert rig.request().body == b"hello"


def test_statsd(serve):
    """Gunicorn's statistics come from the same call, with the access log off as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(TIMEOUT)
        rig = serve(answering(b"x", status="404 Not Found"), accesslog=None, log_class=Statsd,
                    statsd_host=f"127.0.0.1:{receiver.getsockname()[1]}")
        rig.request()
        lines = [receiver.recv(1000) for _ in range(3)]
    assert lines[0].startswith(b"gunicorn.request.duration:")
    assert [line.partition(b"|")[0] for line in lines[1:]] == [
        b"gunicorn.requests:1", b"gunicorn.request.status.404:1"]
