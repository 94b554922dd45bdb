"""Request bodies: `wsgi.input`, 100 (Continue), flow-control credit, trailers, and clients that break off."""

import hashlib
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.errors import ErrorCode
from tests.protocol.peer import data, rst_stream

from .wsgi_rig import Rig

EXPECT = (b"expect", b"100-continue")
CONTINUE = [(b":status", b"100")]
BODY = b"first line\nsecond\n\nlast without end"


def post(rig, *fields, **options):
    """Begin a POST whose body is still to come, or has begun."""
    return rig.start(*fields, **{"method": b"POST", "end": False, **options})


def reading(*sizes):
    """An application that reads so much at a time, noting each piece, and answers with their lengths."""
    def app(environ, start_response):
        lengths = []
        for size in sizes:
            piece = environ["wsgi.input"].read(*([] if size is None else [size]))
            lengths.append(len(piece))
            app.rig.note(piece)
        start_response("200 OK", [])
        return [json.dumps(lengths).encode()]
    return app


@pytest.fixture
def served(serve):
    """As `serve`; the application knows its rig."""
    def served(app, **options):
        app.rig = serve(app, **options)
        return app.rig
    return served


def credit(rig, reply):
    """How much of a stream's window was given back, of those frames that have come."""
    return sum(increment for stream_id, increment in rig.client.updates if stream_id == reply.stream_id)


# -- the file ----------------------------------------------------------------------------------------------------------

CALLS = {
    "all": lambda file: [file.read()],
    "all twice": lambda file: [file.read(), file.read()],
    "none": lambda file: [file.read(None), file.read(None)],
    "negative": lambda file: [file.read(-1), file.read(-1)],
    "pieces": lambda file: [file.read(5), file.read(100), file.read(1)],
    "nothing": lambda file: [file.read(0), file.read()],
    "lines": lambda file: [file.readline() for _ in range(6)],
    "parts of lines": lambda file: [file.readline(3), file.readline(0), file.readline(100), file.readline(-1)],
    "a list": lambda file: file.readlines(),
    "a list with a hint": lambda file: [*file.readlines(12), b"|", *file.readlines()],
    "a list with hints of nothing": lambda file: [*file.readlines(0), b"|", *file.readlines(None)],
    "iteration": lambda file: list(file),
    "next": lambda file: [next(file), next(iter(file)), file.read(), next(file, b"|")],
    "mixed": lambda file: [file.read(3), file.readline(), *file, file.read()],
    "far too much": lambda file: [file.read(10**9)],
}


@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("cut", [None, 7], ids=["whole", "cut"])
def test_reads_as_a_file_does(serve, kind, cut):
    results = []

    def app(environ, start_response):
        results.append(CALLS[kind](environ["wsgi.input"]))
        start_response("200 OK", [])
        return []

    rig = serve(app, cut=cut)
    assert rig.request(method=b"POST", body=BODY).status == 200
    assert results == [CALLS[kind](io.BytesIO(BODY))]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"DELETE"])
@pytest.mark.parametrize("fields", [[], [(b"content-length", b"0")], [EXPECT]], ids=["", "length", "expect"])
def test_a_request_without_a_body(served, method, fields):
    """Its end is there at once: nothing waits, nothing is asked of the client."""
    rig = served(reading(None, 10, 0))
    reply = rig.request(*fields, method=method)
    assert (reply.status, reply.interim) == (200, [])
    assert rig.notes == [b"", b"", b""]


def test_a_body_without_content_that_ends_later(served):
    rig = served(reading(None))
    reply = post(rig)
    rig.client.send_data(reply, b"", end=True)
    rig.client.wait_for(reply)
    assert rig.notes == [b""]


@pytest.mark.parametrize("method", [b"GET", b"OPTIONS", b"DELETE", b"PATCH"])
def test_a_body_comes_with_any_method(served, method):
    rig = served(reading(None))
    assert rig.request(method=method, body=b"hello").body == b"[5]"


def test_a_closed_input(serve):
    def app(environ, start_response):
        file = environ["wsgi.input"]
        rig.note(file.read(3))
        file.close()
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read()
        start_response("200 OK", [])
        return []

    rig = serve(app)
    assert rig.request(body=b"hello").status == 200
    assert rig.notes == [b"hel"]


def test_a_body_in_many_small_frames(served):
    rig = served(reading(None))
    reply = post(rig)
    rig.client.send(*[data(reply.stream_id, b"ab") for _ in range(2_000)], data(reply.stream_id, b"", True))
    rig.client.wait_for(reply)
    assert rig.notes == [b"ab" * 2_000]


def test_padding_is_no_body(served):
    rig = served(reading(None))
    reply = post(rig)
    rig.client.send(data(reply.stream_id, b"he", padding=200), data(reply.stream_id, b"llo", True, padding=0))
    rig.client.wait_for(reply)
    assert rig.notes == [b"hello"]


# -- bodies that arrive while they are read ----------------------------------------------------------------------------


def test_a_read_waits_for_what_it_asked_for(served):
    """PEP 3333 has it as of a file: fewer octets only at the end."""
    rig = served(reading(4, 4, 4))
    reply = post(rig)
    for piece in (b"a", b"bc", b"defg"):
        rig.client.send_data(reply, piece)
    assert rig.wait_notes(1) == [b"abcd"]
    rig.client.send_data(reply, b"h")
    assert rig.wait_notes(2) == [b"abcd", b"efgh"]
    rig.client.send_data(reply, b"", end=True)
    rig.client.wait_for(reply)
    assert rig.notes == [b"abcd", b"efgh", b""]


def test_a_line_is_there_with_its_end(serve):
    """An application may talk to its client line by line."""
    def app(environ, start_response):
        start_response("200 OK", [])
        for line in environ["wsgi.input"]:
            yield line.upper()

    rig = serve(app)
    reply = post(rig)
    for piece, answer in ((b"one\n", b"ONE\n"), (b"tw", b""), (b"o\nthree\nfo", b"TWO\nTHREE\n"), (b"ur\n", b"FOUR\n")):
        reply.body = b""
        rig.client.send_data(reply, piece)
        rig.until(lambda answer=answer: reply.body == answer, f"{answer}")
    rig.client.send_data(reply, b"end", end=True)
    rig.client.wait_for(reply)
    assert reply.body == b"FOUR\nEND"


def test_many_uploads_at_once(serve):
    """More than there are threads; each window is given back as it should, and no body is mixed with another."""
    def app(environ, start_response):
        digest = hashlib.sha256()
        while piece := environ["wsgi.input"].read(10_000):
            digest.update(piece)
        start_response("200 OK", [])
        return [digest.hexdigest().encode()]

    # The connection's window is no matter here.
    rig = serve(app, threads=3, limits={"connection_window_size": 10_000_000})
    bodies = [bytes([number]) * 200_000 for number in range(10)]
    uploads = [Upload(rig, post(rig), body) for body in bodies]
    while any(not upload.complete for upload in uploads):
        rig.until(lambda: any(upload.room for upload in uploads), "room")
        for upload in uploads:
            upload.proceed()
    rig.client.wait_for(*[upload.reply for upload in uploads])
    assert [upload.reply.body for upload in uploads] == [hashlib.sha256(body).hexdigest().encode() for body in bodies]


class Upload:
    """A body that keeps to its stream's window."""

    def __init__(self, rig, reply, body):
        self.rig, self.reply, self.body, self.sent = rig, reply, body, 0

    @property
    def complete(self):
        """Whether all of it has been sent."""
        return self.sent == len(self.body)

    @property
    def room(self):
        """How much may be sent."""
        return min(65_535 + credit(self.rig, self.reply), len(self.body)) - self.sent

    def proceed(self):
        """Send what there is room for."""
        if self.room:
            piece = self.body[self.sent:self.sent + self.room]
            self.sent += len(piece)
            self.rig.client.send_data(self.reply, piece, self.complete)


# -- credit ------------------------------------------------------------------------------------------------------------


def test_credit_comes_back_as_the_application_reads(serve):
    """What is not read yet holds the client back (RFC 9113 section 6.9): that bounds what a request can occupy."""
    def app(environ, start_response):
        first.enter()
        rig.note(environ["wsgi.input"].read(40_000))
        second.enter()
        rig.note(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return []

    rig = serve(app)
    first, second = rig.gate(), rig.gate()
    reply = post(rig, body=b"x" * 65_535)
    first.wait_inside()
    rig.client.barrier()
    assert credit(rig, reply) == 0
    first.open()
    rig.until(lambda: credit(rig, reply), "credit")
    second.wait_inside()
    rig.client.barrier()
    # Read were 40 000 octets, in whole frames.
    assert 32_768 <= credit(rig, reply) <= 49_152
    second.open()
    rig.client.send_data(reply, b"y" * 20_000, end=True)
    rig.client.wait_for(reply)
    assert [len(note) for note in rig.notes] == [40_000, 45_535]


def test_an_application_that_waits_for_more_leaves_room_for_it(served):
    """Or a client whose window is shut and a server that waits for octets would wait for each other."""
    rig = served(reading(None))
    reply = post(rig)
    sent = 0

    def room():
        return 65_535 + credit(rig, reply) - sent

    for _ in range(5):
        size = room()
        rig.client.send_data(reply, b"x" * size)
        sent += size
        rig.until(lambda: room() >= 32_767, "half of the window")
    rig.client.send_data(reply, b"", end=True)
    rig.client.wait_for(reply)
    assert [len(note) for note in rig.notes] == [sent]
    # No more than was read.
    assert credit(rig, reply) <= sent


def test_the_credit_of_the_connection_waits_for_no_one(serve):
    """What one stream does not read must not stop the others."""
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/gate":
            gate.enter()
        start_response("200 OK", [])
        return [b"%d" % len(environ["wsgi.input"].read())]

    rig = serve(app, limits={"connection_window_size": 65_535})
    gate = rig.gate()
    reply = post(rig, path=b"/gate", body=b"x" * 60_000)
    gate.wait_inside()
    rig.client.barrier()
    assert sum(increment for stream_id, increment in rig.client.updates if stream_id == 0) >= 32_767
    other = post(rig, body=b"x" * 30_000, end=True)
    rig.client.wait_for(other)
    assert (other.body, reply.over) == (b"30000", False)


# -- 100 (Continue) ----------------------------------------------------------------------------------------------------


def test_100_continue_comes_with_the_first_read_and_not_before(serve):
    def app(environ, start_response):
        gate.enter()
        rig.note(environ["wsgi.input"].read(2))
        rig.note(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b"done"]

    rig = serve(app)
    gate = rig.gate()
    reply = post(rig, EXPECT)
    gate.wait_inside()
    rig.client.barrier()
    assert reply.interim == []
    gate.open()
    rig.until(lambda: reply.interim, "100 (Continue)")
    rig.client.send_data(reply, b"hel")
    rig.client.send_data(reply, b"lo", end=True)
    rig.client.wait_for(reply)
    assert (reply.interim, reply.status, reply.body) == ([CONTINUE], 200, b"done")
    assert rig.notes == [b"he", b"llo"]


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b"100-CONTINUE"])
def test_the_expectation_in_any_case(served, value):
    """RFC 9110 section 10.1.1."""
    rig = served(reading(None))
    reply = post(rig, (b"expect", value))
    rig.until(lambda: reply.interim, "100 (Continue)")
    rig.client.send_data(reply, b"x", end=True)
    rig.client.wait_for(reply)
    assert (reply.interim, reply.status) == ([CONTINUE], 200)


def test_the_expectation_is_in_the_environ(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [environ["HTTP_EXPECT"].encode()]

    assert serve(app).request(EXPECT, body=b"x").body == b"100-continue"


def test_no_100_continue_without_a_read(serve):
    """RFC 9110 section 10.1.1: a final status alone spares the client its body."""
    def app(environ, start_response):
        start_response("401 Unauthorized", [])
        return [b"no"]

    rig = serve(app)
    reply = post(rig, EXPECT)
    rig.client.wait_for(reply)
    assert (reply.interim, reply.status, reply.body) == ([], 401, b"no")


def test_no_100_continue_without_an_expectation(served):
    rig = served(reading(None))
    reply = post(rig)
    rig.client.barrier()
    rig.client.send_data(reply, b"x", end=True)
    rig.client.wait_for(reply)
    assert (reply.interim, reply.status) == ([], 200)


def test_no_100_continue_where_the_body_is_there(serve):
    """A client that did not wait for it needs none."""
    def app(environ, start_response):
        gate.enter()
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    rig = serve(app)
    gate = rig.gate()
    reply = post(rig, EXPECT, body=b"hello", end=True)
    gate.wait_inside()
    rig.client.barrier()
    gate.open()
    rig.client.wait_for(reply)
    assert (reply.interim, reply.body) == ([], b"hello")


def test_no_100_continue_behind_the_head(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"head "
        yield environ["wsgi.input"].read()

    rig = serve(app)
    reply = post(rig, EXPECT)
    rig.until(lambda: reply.body == b"head ", "the first piece")
    rig.client.send_data(reply, b"body", end=True)
    rig.client.wait_for(reply)
    assert (reply.interim, reply.body) == ([], b"head body")


def test_early_hints_are_no_100_continue(serve):
    """They do not release the client: its body comes only when it is asked for."""
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a>")])
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]

    rig = serve(app)
    reply = post(rig, EXPECT)
    rig.until(lambda: CONTINUE in reply.interim, "100 (Continue)")
    rig.client.send_data(reply, b"hello", end=True)
    rig.client.wait_for(reply)
    assert [section[0][1] for section in reply.interim] == [b"103", b"100"]
    assert reply.body == b"hello"


# -- bodies that are not read ------------------------------------------------------------------------------------------


def test_a_response_without_the_body(serve):
    """RFC 9113 section 8.1: the response, complete; then RST_STREAM(NO_ERROR) for a client that goes on sending."""
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        return [b"unread"]

    rig = serve(app)
    # Enough for the application to be called before the body is complete.
    reply = post(rig, (b"content-length", b"1000000"), body=b"x" * 40_000)
    rig.client.wait_for(reply)
    assert (reply.status, reply.body, reply.ended) == (200, b"unread", True)
    rig.until(lambda: reply.reset is not None, "RST_STREAM")
    assert reply.reset == ErrorCode.NO_ERROR
    rig.client.send_data(reply, b"x" * 10_000)
    rig.client.assert_alive()


def test_a_body_whose_end_comes_behind_the_response(serve):
    """Then nothing needs to be reset."""
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"unread"]

    rig = serve(app)
    reply = post(rig, body=b"x" * 1_000)
    rig.client.wait_for(reply)
    rig.client.send_data(reply, b"x" * 1_000, end=True)
    rig.client.assert_alive()
    assert (reply.body, reply.ended, reply.reset) == (b"unread", True, None)


def test_reading_on_behind_the_end_of_the_response(serve):
    """What came before may be read; nothing more will come, and no one waits for it."""
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        yield b"ok"
        rig.note(environ["wsgi.input"].read(5))
        try:
            environ["wsgi.input"].read()
        except StreamAborted as error:
            rig.note(error.code)

    rig = serve(app)
    reply = post(rig, body=b"hello")
    rig.client.wait_for(reply)
    rig.wait_idle()
    assert (reply.body, reply.ended) == (b"ok", True)
    assert rig.notes == [b"hello", ErrorCode.NO_ERROR]


def test_input_outlives_no_request(serve):
    """Of a request whose application has returned, a thread of the application's own reads nothing more, and soon."""
    kept = []

    def app(environ, start_response):
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [])
        return [b"x"]

    rig = serve(app)
    reply = post(rig)
    rig.client.wait_for(reply)
    rig.wait_idle()
    with pytest.raises(OSError, match="stream 1"):
        kept[0].read()


# -- clients that break off or break the rules -------------------------------------------------------------------------


def test_a_reset_while_the_application_reads(served):
    errors = []

    def app(environ, start_response):
        file = environ["wsgi.input"]
        app.rig.note(file.read(5))
        try:
            file.read()
        except OSError as error:
            errors.append(error)
            raise

    rig = served(app)
    reply = post(rig, body=b"hello, ")
    rig.wait_notes(1)
    rig.client.send(rst_stream(reply.stream_id, 5))
    rig.wait_idle()
    assert isinstance(errors[0], StreamAborted)
    assert (errors[0].stream_id, errors[0].code) == (reply.stream_id, 5)
    assert (reply.head, rig.lines("ERROR"), rig.lines("WARNING")) == (None, [], [])
    rig.client.assert_alive()


def test_a_connection_that_closes_while_the_application_reads(served):
    def app(environ, start_response):
        app.rig.note(environ["wsgi.input"].read(5))
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            app.rig.note(type(error))
            raise

    rig = served(app)
    post(rig, body=b"hello, ")
    rig.wait_notes(1)
    rig.client.leave()
    rig.wait_idle()
    assert rig.notes == [b"hello", StreamAborted]
    assert rig.lines("ERROR") == []


def test_what_came_before_the_reset_can_be_read(serve):
    def app(environ, start_response):
        gate.enter()
        rig.note(environ["wsgi.input"].read(5))
        for _ in range(2):
            with pytest.raises(StreamAborted):
                environ["wsgi.input"].read(1)
        rig.note("done")
        start_response("200 OK", [])
        return []

    rig = serve(app)
    gate = rig.gate()
    reply = post(rig, body=b"hello")
    gate.wait_inside()
    rig.client.send(rst_stream(reply.stream_id))
    rig.client.barrier()
    gate.open()
    rig.wait_idle()
    assert rig.notes == [b"hello", "done"]


@pytest.mark.parametrize("pieces", [[b"123", b"456"], [b"1234567"]], ids=["pieces", "at once"])
def test_a_body_that_is_longer_than_its_content_length(served, pieces):
    """RFC 9113 section 8.1.1: malformed; the application must not take it for whole."""
    rig = served(reading(None))
    reply = post(rig, (b"content-length", b"5"))
    for piece in pieces:
        rig.client.send_data(reply, piece)
    rig.client.wait_for(reply)
    rig.wait_idle()
    assert (reply.head, reply.reset, rig.notes) == (None, ErrorCode.PROTOCOL_ERROR, [])
    rig.client.assert_alive()


def test_a_body_that_is_shorter_than_its_content_length(served):
    rig = served(reading(None))
    reply = post(rig, (b"content-length", b"5"))
    rig.client.send_data(reply, b"123", end=True)
    rig.client.wait_for(reply)
    rig.wait_idle()
    assert (reply.head, reply.reset, rig.notes) == (None, ErrorCode.PROTOCOL_ERROR, [])


def test_a_client_that_stops_sending(served):
    """Nothing comes for as long as Gunicorn's `timeout` says: the stream is reset, and the thread is free again."""
    rig = served(reading(None), limits={"stream_timeout": 0.05}, threads=1)
    reply = post(rig, body=b"hello")
    rig.client.wait_for(reply)
    rig.wait_idle()
    assert (reply.head, reply.reset, rig.notes) == (None, ErrorCode.CANCEL, [])
    assert rig.lines("ERROR") == []
    assert rig.request(body=b"hello").body == b"[5]"


# -- trailers ----------------------------------------------------------------------------------------------------------


def test_trailers(serve):
    """From when the end of the body was read; before that the list is empty."""
    def app(environ, start_response):
        trailers = environ["gunicorn.http2.trailers"]
        rig.note(list(trailers))
        rig.note(environ["wsgi.input"].read(5))
        rig.note(list(trailers))
        rig.note(environ["wsgi.input"].read())
        rig.note(list(trailers))
        start_response("200 OK", [])
        return []

    rig = serve(app)
    reply = rig.request(body=b"hello", trailers=[(b"x-sum", b"1"), (b"x-latin", b"\xe9"), (b"x-sum", b"2")])
    assert reply.status == 200
    assert rig.notes == [[], b"hello", [], b"", [("x-sum", "1"), ("x-latin", "\xe9"), ("x-sum", "2")]]


def test_trailers_do_not_come_twice(serve):
    """However often the end of the body is read."""
    def app(environ, start_response):
        for _ in range(3):
            environ["wsgi.input"].read()
        rig.note(environ["gunicorn.http2.trailers"])
        start_response("200 OK", [])
        return []

    rig = serve(app)
    rig.request(body=b"hello", trailers=[(b"x-sum", b"1")])
    assert rig.notes == [[("x-sum", "1")]]


def test_trailers_that_come_while_the_application_reads(served):
    def app(environ, start_response):
        app.rig.note(environ["wsgi.input"].read(5))
        app.rig.note(environ["wsgi.input"].read())
        app.rig.note(environ["gunicorn.http2.trailers"])
        start_response("200 OK", [])
        return []

    rig = served(app)
    reply = post(rig, body=b"hello")
    rig.wait_notes(1)
    rig.client.send(rig.client.headers(reply.stream_id, [(b"x-sum", b"1")]))
    rig.client.wait_for(reply)
    rig.wait_idle()
    assert rig.notes == [b"hello", b"", [("x-sum", "1")]]


def test_trailers_have_no_say_in_what_came_before(serve):
    """RFC 9110 section 6.5.1: none that frames, routes or authenticates; and none gets into the environ."""
    def app(environ, start_response):
        environ["wsgi.input"].read()
        rig.note(environ["gunicorn.http2.trailers"])
        rig.note([key for key in environ if "SUM" in key or "AUTH" in key])
        start_response("200 OK", [])
        return []

    rig = serve(app)
    rig.request(body=b"x", trailers=[(b"authorization", b"1"), (b"content-length", b"9"), (b"x-sum", b"1"),
                                     (b"host", b"evil"), (b"set-cookie", b"a"), (b"x_under", b"2")])
    assert ("x-sum", "1") in rig.notes[0]
    assert {name for name, _ in rig.notes[0]} <= {"x-sum", "x_under"}
    assert rig.notes[1] == []


@pytest.mark.parametrize("trailers", [[(b":path", b"/")], [(b"X-Upper", b"1")], [(b"connection", b"close")],
                                      [(b"x-a", b"a\0b")]], ids=str)
def test_trailers_that_are_malformed(served, trailers):
    rig = served(reading(None))
    reply = rig.request(body=b"x", trailers=trailers)
    assert (reply.head, reply.reset, rig.notes) == (None, ErrorCode.PROTOCOL_ERROR, [])


def test_trailers_are_a_requests_own(serve):
    seen = []

    def app(environ, start_response):
        environ["wsgi.input"].read()
        seen.append(list(environ["gunicorn.http2.trailers"]))
        environ["gunicorn.http2.trailers"].append("spoilt")
        start_response("200 OK", [])
        return []

    rig = serve(app)
    for trailers in ([(b"x-sum", b"1")], None, [(b"x-sum", b"2")], None):
        rig.request(body=b"x", trailers=trailers)
    assert seen == [[("x-sum", "1")], [], [("x-sum", "2")], []]


# -- any body, however it is cut and read ------------------------------------------------------------------------------

pieces = st.lists(st.one_of(st.sampled_from([b"", b"\n", b"a\nb", b"x" * 2_000]), st.binary(max_size=40)), max_size=8)
size = st.one_of(st.none(), st.integers(-1, 50), st.just(5_000))
calls = st.lists(st.tuples(st.sampled_from(["read", "readline", "readlines"]), size), max_size=8)


@pytest.fixture(scope="module")
def echo():
    """A function that sends a body in pieces, and returns what an application has read of it."""
    results = []

    def app(environ, start_response):
        file = environ["wsgi.input"]
        for name, size in todo:
            results.append(getattr(file, name)(size))
        results.append(file.read())
        start_response("200 OK", [])
        return []

    rig = Rig(app, loglevel="error", accesslog=None)
    rig.connect()
    todo = []

    def echo(pieces, calls):
        results.clear()
        todo[:] = calls
        reply = post(rig)
        for piece in pieces:
            rig.client.send_data(reply, piece)
        rig.client.send_data(reply, b"", end=True)
        rig.client.wait_for(reply)
        rig.wait_idle()
        return list(results)

    yield echo
    rig.close()


@given(pieces, calls)
@settings(max_examples=60, deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
def test_any_body_reads_as_a_file(echo, pieces, calls):
    reference = io.BytesIO(b"".join(pieces))
    assert echo(pieces, calls) == [*(getattr(reference, name)(size) for name, size in calls), reference.read()]
