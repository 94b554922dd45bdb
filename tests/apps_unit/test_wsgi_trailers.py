"""What may go with a response: early hints before it, trailers behind it."""

import pytest

pytestmark = pytest.mark.compat

TE = (b"te", b"trailers")
TRAILERS = "gunicorn.http2.send_trailers"
# What a ValueError says of fields that are not sent.
WHY = "field|trailers|latin-1"


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


# -- early hints -------------------------------------------------------------------------------------------------------

LINK = ("Link", "</style.css>; rel=preload; as=style")


def test_early_hints(serve):
    """RFC 8297: any number of times, each at once."""
    def app(environ, start_response):
        rig.note(environ["wsgi.early_hints"]([LINK]))
        environ["wsgi.early_hints"]([(b"Link", b"</a.js>"), ("X-Padded", " \xe9 ")])
        gate.enter()
        start_response("200 OK", [("X-A", "1")])
        return [b"body"]

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.until(lambda: len(reply.interim) == 2, "two hints")
    assert reply.interim == [
        [(b":status", b"103"), (b"link", LINK[1].encode())],
        [(b":status", b"103"), (b"link", b"</a.js>"), (b"x-padded", b"\xe9")]]
    assert reply.head is None
    gate.open()
    rig.client.wait_for(reply)
    assert (reply.status, reply.body, reply.own_fields) == (200, b"body", [(b"x-a", b"1")])
    assert rig.notes == [None]


def test_early_hints_after_start_response(serve):
    """Its head has not gone out yet."""
    def app(environ, start_response):
        start_response("200 OK", [])
        environ["wsgi.early_hints"]([LINK])
        return [b"body"]

    reply = serve(app).request()
    assert (len(reply.interim), reply.status, reply.body) == (1, 200, b"body")


@pytest.mark.parametrize("method", [b"HEAD", b"POST"])
def test_early_hints_for_other_methods(serve, method):
    def app(environ, start_response):
        environ["wsgi.early_hints"]([LINK])
        start_response("200 OK", [])
        return []

    reply = serve(app).request(method=method)
    assert (len(reply.interim), reply.status) == (1, 200)


def test_early_hints_that_come_too_late(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        with pytest.raises(RuntimeError, match="early hints"):
            environ["wsgi.early_hints"]([LINK])
        yield b"y"

    reply = serve(app).request()
    assert (reply.interim, reply.body, reply.ended) == ([], b"xy", True)


@pytest.mark.parametrize("header", [("Link", "a\r\nX: b"), ("Li nk", "a"), ("Connection", "close"), ("", "a"),
                                    ("Link", "ž"), (":status", "200"), ("Link\0", "a")])
def test_early_hints_that_must_not_go_out(serve, header):
    def app(environ, start_response):
        with pytest.raises(ValueError, match=WHY) as caught:
            environ["wsgi.early_hints"]([LINK, header])
        rig.note(caught.value)
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app)
    reply = rig.request()
    assert (reply.interim, reply.status, reply.body) == ([], 200, b"x")
    assert len(rig.notes) == 1


def test_hints_of_nothing(serve):
    """An empty list is no error, and the response comes."""
    def app(environ, start_response):
        environ["wsgi.early_hints"]([])
        start_response("200 OK", [])
        return [b"x"]

    assert serve(app).request().body == b"x"


# -- trailers ----------------------------------------------------------------------------------------------------------


def summing(*pieces, headers=(), trailers=(("X-Sum", "1"),)):
    """An application that sends pieces, then trailers."""
    def app(environ, start_response):
        start_response("200 OK", list(headers))
        yield from pieces
        environ[TRAILERS](list(trailers))
    return app


@pytest.mark.parametrize("fields", [[], [TE]], ids=["", "te"])
@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], []], ids=["one", "two", "none"])
def test_trailers(serve, fields, pieces):
    rig = serve(summing(*pieces))
    reply = rig.request(*fields)
    assert (reply.status, reply.body, reply.ended) == (200, b"".join(pieces), True)
    assert reply.trailers == [(b"x-sum", b"1")]
    ends = ["END_STREAM" in frame.flags for frame in rig.client.frames if frame.stream_id == reply.stream_id]
    assert ends == [False] * (len(ends) - 1) + [True]


def test_trailers_behind_a_body_of_known_length(serve):
    rig = serve(summing(b"hello", headers=[("Content-Length", "5")]))
    reply = rig.request(TE)
    assert (reply.body, reply.trailers, reply.ended) == (b"hello", [(b"x-sum", b"1")], True)


def test_a_client_that_does_not_ask_for_trailers_has_its_response_at_the_last_octet(serve):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        yield b"hello"
        with pytest.raises(RuntimeError, match="trailers"):
            environ[TRAILERS]([("X-Sum", "1")])

    reply = serve(app).request()
    assert (reply.body, reply.trailers, reply.ended) == (b"hello", None, True)


def test_trailers_that_are_announced_before_the_body(serve):
    """Then they are sent, whatever the client says and however long the body is."""
    def app(environ, start_response):
        environ[TRAILERS]([("X-Sum", "1")])
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]

    reply = serve(app).request()
    assert (reply.body, reply.trailers, reply.ended) == (b"hello", [(b"x-sum", b"1")], True)


def test_trailers_add_up(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        environ[TRAILERS]([("X-One", "1")])
        yield b"x"
        environ[TRAILERS]([(b"X-Two", b" \xe9 "), ("X-One", "again")])

    assert serve(app).request().trailers == [(b"x-one", b"1"), (b"x-two", b"\xe9"), (b"x-one", b"again")]


@pytest.mark.parametrize("name", ["Content-Length", "Transfer-Encoding", "Set-Cookie", ":status", "X Y", "Connection",
                                  "Host", "Trailer", "Date", "", "X-\xe9"])
def test_trailers_that_must_not_go_out(serve, name):
    """RFC 9110 section 6.5.1."""
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        with pytest.raises(ValueError, match=WHY):
            environ[TRAILERS]([("X-Good", "1"), (name, "1")])
        yield b"y"

    reply = serve(app).request()
    assert (reply.body, reply.trailers, reply.ended) == (b"xy", None, True)


@pytest.mark.parametrize("value", ["a\r\nb", "a\0", "ž"])
def test_trailers_with_values_that_must_not_go_out(serve, value):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"
        with pytest.raises(ValueError, match=WHY):
            environ[TRAILERS]([("X-Bad", value)])

    assert serve(app).request().trailers is None


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", "200 OK"), (b"GET", "204 No Content"), (b"GET", "304 x")])
def test_a_response_without_a_body_has_no_trailers(serve, method, status):
    def app(environ, start_response):
        start_response(status, [])
        environ[TRAILERS]([("X-Sum", "1")])
        return [b"body"]

    reply = serve(app).request(TE, method=method)
    assert (reply.body, reply.trailers, reply.ended, reply.reset) == (b"", None, True, None)


def test_trailers_after_the_end(serve):
    """Of a response whose application has returned."""
    kept = []

    def app(environ, start_response):
        kept.append(environ[TRAILERS])
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app)
    assert rig.request().ended
    with pytest.raises(RuntimeError, match="trailers"):
        kept[0]([("X-Sum", "1")])
