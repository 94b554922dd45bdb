"""Every way in which a call of an application can go wrong: what the client sees, what the log says, what is closed."""

import contextlib
import sys

import pytest

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.protocol.peer import rst_stream

from .wsgi_rig import Result, answering

SECRET = "the secret of the application"


class Interrupt(BaseException):
    """What green threads are ended with is of this kind."""


ERRORS = [ValueError, OSError, BrokenPipeError, ConnectionAbortedError, StopIteration, SystemExit, KeyboardInterrupt,
          GeneratorExit, Interrupt, RecursionError, MemoryError]
# Python makes another error of this one where it leaves a generator.
BODY_ERRORS = [kind for kind in ERRORS if kind is not StopIteration]


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


def assert_server_error(reply, method=b"GET"):
    """500, and no word of the application's."""
    assert (reply.status, reply.ended, reply.reset, reply.trailers) == (500, True, None, None)
    assert reply.body == (b"" if method == b"HEAD" else b"500 Internal Server Error\n")
    assert reply.own_fields == [(b"content-type", b"text/plain"), (b"content-length", b"26")]
    assert reply.field(b"server") == b"gunicorn"
    assert reply.field(b"date").endswith(b" GMT")


def assert_broken_off(reply, *bodies):
    """The head, a part of the body at most, and no end that could be taken for a complete response."""
    assert (reply.status, reply.ended, reply.reset) == (200, False, ErrorCode.INTERNAL_ERROR)
    assert reply.body in bodies


def raising(error):
    """An application that raises an error in its call."""
    def app(environ, start_response):
        raise error
    return app


# -- errors before anything was sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_error_in_the_call(serve, kind, method):
    """One thread serves both requests: it survives."""
    rig = serve(raising(kind(SECRET)), threads=1)
    for number in range(2):
        assert_server_error(rig.request(method=method, path=b"/a?b"), method)
        line = rig.expect_errors(number + 1)[number]
        assert line.startswith(f"Error handling request {method.decode()} /a?b")
        assert SECRET in line
    rig.client.assert_alive()


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_in_the_call_after_start_response(serve, kind):
    """Neither the status nor the fields of the response that failed go out."""
    def app(environ, start_response):
        start_response("200 OK", [("X-Secret", SECRET), ("Content-Length", "5")])
        raise kind(SECRET)

    rig = serve(app)
    assert_server_error(rig.request())
    assert SECRET in rig.expect_errors()[0]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_before_the_first_piece(serve, kind):
    result = Result(error=kind(SECRET))

    def app(environ, start_response):
        start_response("200 OK", [("X-Secret", SECRET)])
        return result

    rig = serve(app)
    assert_server_error(rig.request())
    rig.expect_errors()
    assert result.closes == 1


def test_an_error_in_making_the_iterator(serve):
    class Broken(Result):
        def __iter__(self):
            raise ZeroDivisionError

    result = Broken()

    def app(environ, start_response):
        start_response("200 OK", [])
        return result

    rig = serve(app)
    assert_server_error(rig.request())
    assert "ZeroDivisionError" in rig.expect_errors()[0]
    assert result.closes == 1


def test_an_error_behind_early_hints(serve):
    """They are no part of the response."""
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a.css>")])
        raise ZeroDivisionError

    rig = serve(app)
    reply = rig.request()
    assert_server_error(reply)
    assert len(reply.interim) == 1
    rig.expect_errors()


def test_an_error_behind_announced_trailers(serve):
    def app(environ, start_response):
        environ["gunicorn.http2.send_trailers"]([("X-Secret", SECRET)])
        start_response("200 OK", [])
        raise ZeroDivisionError

    rig = serve(app)
    assert_server_error(rig.request((b"te", b"trailers")))
    rig.expect_errors()


def test_an_error_does_not_touch_other_streams(serve):
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/error":
            raise ZeroDivisionError
        start_response("200 OK", [])
        yield b"one"
        gate.enter()
        yield b"two"

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    failed = rig.start(path=b"/error")
    rig.client.wait_for(failed)
    gate.open()
    rig.client.wait_for(reply)
    assert (reply.status, reply.body, reply.ended) == (200, b"onetwo", True)
    assert failed.status == 500
    rig.expect_errors()


# -- errors after the head has gone out --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BODY_ERRORS)
@pytest.mark.parametrize("headers", [[], [("Content-Length", "5")]], ids=["", "length"])
def test_an_error_in_the_body(serve, kind, headers):
    result = Result(b"par", error=kind(SECRET))

    def app(environ, start_response):
        start_response("200 OK", headers)
        return result

    rig = serve(app, threads=1)
    assert_broken_off(rig.request(), b"", b"par")
    assert SECRET in rig.expect_errors()[0]
    assert result.closes == 1
    rig.client.assert_alive()


def test_an_error_behind_write(serve):
    def app(environ, start_response):
        start_response("200 OK", [])(b"par")
        raise ZeroDivisionError

    rig = serve(app)
    assert_broken_off(rig.request(), b"", b"par")
    rig.expect_errors()


def test_an_error_behind_the_last_octet_spoils_nothing(serve):
    result = Result(b"whole", error=ZeroDivisionError())

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return result

    rig = serve(app)
    reply = rig.request()
    assert (reply.body, reply.ended, reply.reset) == (b"whole", True, None)
    assert "ZeroDivisionError" in rig.expect_errors()[0]
    assert result.closes == 1


# -- close() -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "status", "errors"), [
    ([], "200 OK", 0), ([b"x"], "200 OK", 0), ([b"x", b"y"], "204 No Content", 0), (["text"], "200 OK", 1),
    ([b"x", "text"], "200 OK", 1), ([b"x"], "nonsense", 1),
], ids=["empty", "one", "no body", "text", "later text", "status"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_result_is_closed_once(serve, method, items, status, errors):
    result = Result(*items)

    def app(environ, start_response):
        with contextlib.suppress(ValueError):
            start_response(status, [])
        return result

    rig = serve(app)
    rig.request(method=method)
    assert result.closes == 1
    rig.expect_errors(errors)


def test_a_generator_is_closed(serve):
    """At the point where it was left."""
    def app(environ, start_response):
        try:
            start_response("200 OK", [])
            yield "text"
        finally:
            rig.note(sys.exc_info()[0])

    rig = serve(app)
    rig.request()
    assert rig.notes == [GeneratorExit]
    rig.expect_errors()


def test_close_comes_behind_the_end_of_the_response(serve):
    """PEP 3333: `close` when the request is complete; a client need not wait for it."""
    class Slow(Result):
        def close(self):
            super().close()
            gate.enter()

    def app(environ, start_response):
        start_response("200 OK", [])
        return Slow(b"body")

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.wait_for(reply)
    assert (reply.body, reply.ended) == (b"body", True)


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_in_close_spoils_nothing(serve, kind):
    result = Result(b"whole", close_error=kind(SECRET))

    def app(environ, start_response):
        start_response("200 OK", [])
        return result

    rig = serve(app, threads=1)
    reply = rig.request()
    assert (reply.status, reply.body, reply.ended, reply.reset) == (200, b"whole", True, None)
    assert SECRET in rig.expect_errors()[0]
    assert result.closes == 1
    rig.client.assert_alive()


def test_an_error_in_close_behind_another(serve):
    result = Result(error=ZeroDivisionError(), close_error=KeyError(SECRET))

    def app(environ, start_response):
        start_response("200 OK", [])
        return result

    rig = serve(app)
    assert_server_error(rig.request())
    rig.expect_errors()
    assert result.closes == 1


def test_close_that_cannot_be_called(serve):
    class Broken(Result):
        close = None

    def app(environ, start_response):
        start_response("200 OK", [])
        return Broken(b"whole")

    rig = serve(app)
    reply = rig.request()
    assert (reply.body, reply.ended) == (b"whole", True)
    rig.expect_errors()


# -- streams that are gone ---------------------------------------------------------------------------------------------


def assert_quiet(rig):
    """Nothing above the level of debug: a client that leaves is no one's fault."""
    assert [line for level in ("INFO", "WARNING", "ERROR", "CRITICAL") for line in rig.lines(level)] == []


def gone(rig, reply, gate, how):
    """Have the client leave while the application is at its gate."""
    gate.wait_inside()
    if how == "reset":
        rig.client.send(rst_stream(reply.stream_id))
        rig.client.barrier()
    else:
        rig.client.leave()
    gate.open()
    rig.wait_idle()


@pytest.fixture(params=["reset", "closed"])
def how(request):
    """How the client leaves."""
    return request.param


def test_a_client_that_leaves_before_the_response(serve, how):
    result = Result(b"one", b"two")

    def app(environ, start_response):
        gate.enter()
        start_response("200 OK", [])
        return result

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gone(rig, reply, gate, how)
    assert result.closes == 1
    assert reply.head is None
    assert_quiet(rig)


def test_a_client_that_leaves_within_the_response(serve, how):
    """PEP 3333: `close` is called whether the iteration is complete or not."""
    closed = []

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"one"
            gate.enter()
            yield b"two"
            closed.append("went on")
        finally:
            closed.append("closed")

    rig = serve(app)
    gate = rig.gate()
    gone(rig, rig.start(), gate, how)
    assert closed == ["closed"]
    assert_quiet(rig)


@pytest.mark.parametrize("act", ["write", "early_hints", "read"])
def test_what_the_application_is_told(serve, how, act):
    """An OSError that names the stream and the code, from whatever it does next."""
    def app(environ, start_response):
        gate.enter()
        write = start_response("200 OK", [])
        acts = {"write": lambda: write(b"x"), "read": environ["wsgi.input"].read,
                "early_hints": lambda: environ["wsgi.early_hints"]([("Link", "</a>")])}
        for _ in range(2):
            try:
                acts[act]()
            except OSError as error:
                rig.note(error)
        return []

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start(end=act != "read", method=b"POST")
    gone(rig, reply, gate, how)
    assert [type(error) for error in rig.notes] == [StreamAborted] * 2
    assert all((error.stream_id, error.code) == (1, ErrorCode.CANCEL) for error in rig.notes)
    assert isinstance(rig.notes[0], ConnectionAbortedError)
    assert "HTTP/2 stream 1" in str(rig.notes[0])
    assert_quiet(rig)


@pytest.mark.parametrize("kind", ERRORS)
def test_what_an_application_raises_when_its_client_is_gone(serve, kind):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        gate.enter()
        raise kind(SECRET)

    rig = serve(app, threads=1)
    gate = rig.gate()
    reply = rig.start()
    gone(rig, reply, gate, "reset")
    assert_quiet(rig)
    rig.client.assert_alive()


def test_an_error_in_close_when_the_client_is_gone(serve, how):
    result = Result(b"one", close_error=ZeroDivisionError(SECRET))

    def app(environ, start_response):
        gate.enter()
        start_response("200 OK", [])
        return result

    rig = serve(app)
    gate = rig.gate()
    gone(rig, rig.start(), gate, how)
    assert result.closes == 1
    assert_quiet(rig)


def test_an_application_that_ends_without_knowing(serve, how):
    """It has nothing more to say; that its client is gone makes no difference to it."""
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"x")
        gate.enter()
        rig.note("ended")
        return []

    rig = serve(app)
    gate = rig.gate()
    gone(rig, rig.start(), gate, how)
    assert rig.notes == ["ended"]
    assert_quiet(rig)


def test_a_request_whose_client_left_before_its_turn_is_not_run(serve, how):
    def app(environ, start_response):
        rig.note(environ["PATH_INFO"])
        gate.enter()
        start_response("200 OK", [])
        return []

    rig = serve(app, threads=1)
    gate = rig.gate()
    first = rig.start(path=b"/first")
    gate.wait_inside()
    second = rig.start(path=b"/second")
    gone(rig, second, gate, how)
    assert rig.notes == ["/first"]
    if how == "reset":
        rig.client.wait_for(first)
        assert first.status == 200
    assert_quiet(rig)


def test_the_stream_of_an_application_that_waits_for_another_client(serve):
    """One stream's end is no other's."""
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        gates[environ["PATH_INFO"]].enter()
        yield b"two"

    rig = serve(app)
    gates = {"/a": rig.gate(), "/b": rig.gate()}
    first, second = rig.start(path=b"/a"), rig.start(path=b"/b")
    gates["/b"].wait_inside()
    rig.client.send(rst_stream(first.stream_id))
    gates["/a"].open()
    gates["/b"].open()
    rig.client.wait_for(second)
    assert (second.body, second.ended) == (b"onetwo", True)
    assert not first.ended


# -- errors on our side of the line ------------------------------------------------------------------------------------


def test_an_oserror_of_the_applications_is_an_error(serve):
    """A database that hung up is not a client that did."""
    rig = serve(raising(ConnectionResetError("the database hung up")))
    assert_server_error(rig.request())
    assert "the database hung up" in rig.expect_errors()[0]


def test_many_errors_leave_threads_and_connection_alone(serve):
    def app(environ, start_response):
        if environ["QUERY_STRING"] == "error":
            raise ZeroDivisionError
        start_response("200 OK", [])
        return [b"fine"]

    rig = serve(app, threads=2)
    for _ in range(20):
        assert rig.request(path=b"/?error").status == 500
        assert rig.request().body == b"fine"
    rig.expect_errors(20)


def test_errors_are_no_fault_of_the_clients(serve):
    """However often responses are broken off: the connection goes on."""
    rig = serve(answering(b"x", headers=[("Content-Length", "5")]), limits={"reset_budget": 10})
    for _ in range(30):
        assert rig.request().reset == ErrorCode.INTERNAL_ERROR
    rig.expect_errors(30)
    rig.client.assert_alive()
