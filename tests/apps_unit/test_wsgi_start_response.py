"""`start_response`: called once, twice, late, too late or never, with second thoughts and without."""

import sys

import pytest

from gunicorn_h2.protocol.errors import ErrorCode

from .wsgi_rig import Result

pytestmark = pytest.mark.compat

SECRET = "the secret of the application"


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


def assert_refused(rig, reply):
    """An error of the application's, of which the client learns nothing."""
    assert (reply.status, reply.body, reply.ended) == (500, b"500 Internal Server Error\n", True)
    assert reply.own_fields == [(b"content-type", b"text/plain"), (b"content-length", b"26")]
    return rig.expect_errors()[0]


def error_info():
    """An `exc_info`."""
    try:
        raise ZeroDivisionError(SECRET)
    except ZeroDivisionError:
        return sys.exc_info()


def test_start_response_not_called(serve):
    result = Result(b"body")
    rig = serve(lambda environ, start_response: result)
    assert_refused(rig, rig.request())
    assert result.closes == 1


def test_start_response_not_called_for_an_empty_body(serve):
    rig = serve(lambda environ, start_response: [])
    assert "start_response" in assert_refused(rig, rig.request())


def test_start_response_called_with_the_first_piece(serve):
    """PEP 3333: at the latest before the first piece comes."""
    def app(environ, start_response):
        start_response("201 Created", [("X-A", "1")])
        yield b"late"

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.own_fields) == (201, b"late", [(b"x-a", b"1")])


def test_start_response_called_too_late(serve):
    def app(environ, start_response):
        yield b"one"
        start_response("200 OK", [])
        yield b"two"

    rig = serve(app)
    assert_refused(rig, rig.request())


@pytest.mark.parametrize("exc_info", [(), (None,), ((),)], ids=["absent", "None", "empty"])
def test_start_response_called_twice(serve, exc_info):
    """Without `exc_info` that is an error, and the first response must not go out."""
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        start_response("200 OK", [("X-Second", "1")], *exc_info)
        return [b"never"]

    rig = serve(app)
    assert_refused(rig, rig.request())


def test_start_response_called_twice_by_an_application_that_goes_on(serve):
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        with pytest.raises(AssertionError):
            start_response("404 Not Found", [("X-Second", "1")])
        return [b"body"]

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.own_fields) == (200, b"body", [(b"x-first", b"1")])


def test_second_thoughts(serve):
    """With `exc_info`, and nothing sent: the second response takes the place of the first, its length included."""
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1"), ("Content-Length", "3")])
        write = start_response("503 Service Unavailable", [("X-Second", "1")], error_info())
        write(b"second ")
        return [b"thoughts"]

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.ended) == (503, b"second thoughts", True)
    assert reply.own_fields == [(b"x-second", b"1")]


def test_second_thoughts_with_another_length(serve):
    def app(environ, start_response):
        start_response("204 No Content", [])
        start_response("500 Oops", [("Content-Length", "4")], error_info())
        return [b"oops!"]

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.ended) == (500, b"oops", True)
    assert reply.own_fields == [(b"content-length", b"4")]


def test_second_thoughts_of_a_generator(serve):
    """PEP 3333: an empty piece sends nothing, so the head may still change."""
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        start_response("404 Not Found", [("X-Second", "1")], error_info())
        yield b""
        yield b"body"

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.own_fields) == (404, b"body", [(b"x-second", b"1")])


def test_second_thoughts_behind_an_empty_piece(serve):
    def app(environ, start_response):
        start_response("200 OK", [("X-First", "1")])
        yield b""
        start_response("404 Not Found", [("X-Second", "1")], error_info())
        yield b"body"

    rig = serve(app)
    rig.allow_errors()
    reply = rig.request()
    assert (reply.status, reply.body) == (404, b"body")


def test_the_first_call_may_have_exc_info(serve):
    def app(environ, start_response):
        start_response("500 Oops", [("X-A", "1")], error_info())
        return [b"body"]

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.own_fields) == (500, b"body", [(b"x-a", b"1")])


def test_second_thoughts_that_come_too_late(serve):
    """The head is out: the error is raised again, and ends the response."""
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"par"
        start_response("500 Oops", [], error_info())
        rig.note("went on")

    rig = serve(app)
    reply = rig.request()
    assert (reply.status, reply.ended, reply.reset) == (200, False, ErrorCode.INTERNAL_ERROR)
    assert b"par".startswith(reply.body)
    assert SECRET in rig.expect_errors()[0]
    assert rig.notes == []


def test_an_application_that_ignores_that_it_is_too_late(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one "
        with pytest.raises(ZeroDivisionError):
            start_response("500 Oops", [("X-Second", "1")], error_info())
        yield b"two"

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.ended, reply.own_fields) == (200, b"one two", True, [])


def test_second_thoughts_after_fields_that_were_refused(serve):
    """Nothing is left of the first attempt, the fields before the wrong one included."""
    def app(environ, start_response):
        with pytest.raises(Exception, match=r"(?i)header"):
            start_response("200 OK", [("X-Good", "1"), ("Content-Length", "3"), ("X-Bad", "a\r\nb")])
        start_response("500 Oops", [("X-Second", "1")], error_info())
        return [b"body"]

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.own_fields) == (500, b"body", [(b"x-second", b"1")])
