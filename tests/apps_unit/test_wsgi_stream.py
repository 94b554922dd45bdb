"""`gunicorn.http2.stream`: what a call may do with its stream beyond PEP 3333."""

import pytest

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.drivers.rig import wait_until
from tests.protocol.peer import rst_stream

pytestmark = pytest.mark.compat

STREAM, TRAILERS = "gunicorn.http2.stream", "gunicorn.http2.send_trailers"


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


def test_the_head_before_any_data(serve):
    def app(environ, start_response):
        with pytest.raises(RuntimeError, match="start_response"):
            environ[STREAM].send_head()
        write = start_response("200 OK", [("X-A", "1")])
        environ[STREAM].send_head()
        environ[STREAM].send_head()
        gate.enter()
        write(b"body")
        return []

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.until(lambda: reply.head is not None, "the head")
    assert (reply.status, reply.own_fields, reply.ended) == (200, [(b"x-a", b"1")], False)
    gate.open()
    rig.client.wait_for(reply)
    assert reply.body == b"body"


def test_the_fields_as_they_were_sent(serve):
    """With the names that an environ cannot tell apart, and the values that it joins."""
    def app(environ, start_response):
        fields = environ[STREAM].request_fields
        rig.note([field for field in fields if field[0][:1] == b"x"])
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app)
    sent = [(b"x-a", b"1"), (b"x_a", b"2"), (b"x-a", b"3")]
    rig.request(*sent)
    assert rig.notes == [sent]


@pytest.mark.parametrize("body", [b"x", b"x" * 30_000])
def test_trailers_of_a_response_in_one_piece(serve, body):
    """They were given before it."""
    def app(environ, start_response):
        start_response("200 OK", [])
        environ[TRAILERS]([("X-Checksum", "abc")])
        return [body]

    reply = serve(app).request()
    assert (reply.body, reply.trailers) == (body, [(b"x-checksum", b"abc")])


# -- the end before the application's ----------------------------------------------------------------------------------


def write_for_ever(write):
    """Write until it fails."""
    while True:
        write(b"x")


def cut(environ):
    """End a response early, as another thread would."""
    environ[STREAM].cut_short([("X-Status", "4"), ("X-Head", "1")], [("X-Status", "4")])


def test_a_call_that_has_begun_to_answer(serve):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"first")
        cut(environ)
        with pytest.raises(StreamAborted):
            write_for_ever(write)
        return []

    reply = serve(app).request()
    assert reply.body.rstrip(b"x") == b"first"
    assert (reply.trailers, reply.reset) == ([(b"x-status", b"4")], None)


def test_a_call_that_was_cut_short_counts_until_it_returns(serve):
    """A client must not be able to start any number of them."""
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/cut":
            cut(environ)
            gate.enter()
        start_response("200 OK", [])
        return [b"body"]

    rig = serve(app, limits={"max_concurrent_streams": 1})
    gate = rig.gate()
    reply = rig.start(path=b"/cut")
    rig.client.wait_for(reply)
    gate.wait_inside()
    refused = rig.start()
    rig.client.wait_for(refused)
    assert refused.reset == ErrorCode.REFUSED_STREAM
    gate.open()
    rig.wait_idle()
    rig.client.barrier()
    assert rig.request().body == b"body"


def test_a_call_that_returns_before_the_connection_has_cut_it_short(serve):
    """It counts no longer then."""
    def app(environ, start_response):
        gate.enter()
        if environ["PATH_INFO"] == "/cut":
            cut(environ)
        start_response("200 OK", [])
        return [b"body"]

    rig = serve(app, threads=1, limits={"max_concurrent_streams": 2})
    gate = rig.gate()
    first = rig.start(path=b"/cut")
    gate.wait_inside()
    # As long as another request waits for the thread, it leaves the responses to the connection's owner.
    second = rig.start()
    rig.client.barrier()
    gate.open()
    wait_until(lambda: rig.backend.returned == 2)
    rig.client.wait_for(first)
    rig.client.wait_for(second)
    assert (first.trailers, first.body, second.body) == (None, b"", b"body")
    both = [rig.start(), rig.start()]
    for reply in both:
        rig.client.wait_for(reply)
        assert reply.body == b"body"


# -- the client goes ---------------------------------------------------------------------------------------------------


def test_the_client_resets_the_stream(serve):
    def app(environ, start_response):
        environ[STREAM].on_abort(lambda: rig.note("gone"))
        gate.enter()
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.send(rst_stream(reply.stream_id))
    rig.wait_notes(1)
    gate.open()
    rig.wait_idle()
    assert rig.notes == ["gone"]


def test_a_client_that_is_silent_for_long(serve):
    """Without a limit, as for a stream of messages that come now and then."""
    def app(environ, start_response):
        environ[STREAM].lift_read_timeout()
        gate.enter()
        rig.note(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app, limits={"stream_timeout": 0.001})
    gate = rig.gate()
    reply = rig.start(end=False)
    gate.wait_inside()
    gate.open()
    rig.client.barrier()
    rig.client.send_data(reply, b"late", end=True)
    rig.client.wait_for(reply)
    assert rig.notes == [b"late"]
