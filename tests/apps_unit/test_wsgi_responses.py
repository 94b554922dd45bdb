"""Responses: heads, bodies and their lengths, as PEP 3333 and RFC 9113 want them."""

import io
import time
import weakref
from email.utils import parsedate_to_datetime

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from gunicorn_h2.protocol.errors import ErrorCode
from tests.protocol.peer import HEADER_TABLE_SIZE

from .wsgi_rig import QUIET, Result, answering, since_27

pytestmark = pytest.mark.compat


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


def type_name(value):
    """The type's name, for a test's identifier: no object has the same representation in every process."""
    return type(value).__name__


def frames_of(rig, reply):
    """The frames of one stream, as (type, END_STREAM, octets of data)."""
    return [(type(frame), "END_STREAM" in frame.flags, len(getattr(frame, "data", b"")) * isinstance(frame, DataFrame))
            for frame in rig.client.frames if frame.stream_id == reply.stream_id]


# -- status ------------------------------------------------------------------------------------------------------------


class Text(str):
    """A str of a framework's own."""


@pytest.mark.parametrize("status", ["200 OK", "200", "200 ", "404 Not Found", "299 Our Own", "599 x", "999 x",
                                    "418 I'm a teapot", "200 caf\xe9", "203 a\tb", Text("201 Created")])
def test_a_status(serve, status):
    reply = serve(answering(b"x", status=status)).request()
    assert (reply.status, reply.body, reply.ended) == (int(status[:3]), b"x", True)
    assert reply.head[0] == (b":status", status[:3].encode())


@pytest.mark.parametrize("status", [
    "", "abc", "20", "200OK", "2000", "-200 x", "+20 x", None, 200, ("200", "OK"), *(
        pytest.param(status, marks=since_27) for status in (
            b"200 OK", "200  \n", "200 a\r\nx-injected: b", " 200 OK", "٢٠٠ OK", "200 ž", "200\xa0OK"))])
def test_a_status_that_is_none(serve, status):
    rig = serve(answering(b"never", status=status))
    assert rig.request().status == 500
    rig.expect_errors()


@pytest.mark.parametrize("status", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "199 x", "000 x",
                                    "099 x"])
def test_a_status_of_no_final_response(serve, status):
    """An application that could send an interim response in place of its own would never end the request."""
    rig = serve(answering(status=status, headers=[("Upgrade", "websocket"), ("Connection", "upgrade")]))
    reply = rig.request()
    assert (reply.status, reply.interim) == (500, [])
    rig.expect_errors()


# -- fields ------------------------------------------------------------------------------------------------------------


def test_fields_go_out_in_their_order(serve):
    headers = [("Set-Cookie", "b=2"), ("X-Mixed-Case", "Kept As It Is"), ("Set-Cookie", "a=1; Path=/"),
               ("x-empty", ""), ("X-Latin", "caf\xe9"), ("X-Padded", " \t a b\t "), ("X!#$%&'*+.^_`|~9", "1"),
               (Text("X-Text"), Text("t"))]
    reply = serve(answering(b"x", headers=headers)).request()
    assert reply.own_fields == [
        (b"set-cookie", b"b=2"), (b"x-mixed-case", b"Kept As It Is"), (b"set-cookie", b"a=1; Path=/"),
        (b"x-empty", b""), (b"x-latin", b"caf\xe9"), (b"x-padded", b"a b"), (b"x!#$%&'*+.^_`|~9", b"1"),
        (b"x-text", b"t")]


@pytest.mark.parametrize("header", [
    ("X-Bad", "a\r\nX-Injected: 1"), ("X-Bad", "a\nb"), ("X-Bad", "a\rb"), ("X-Bad", "a\0b"), ("X-Bad", "a\x7fb"),
    ("X-Bad", "ž"), ("X-Bad\r\nX-Injected", "1"), ("X Bad", "1"), ("X-Bad:", "1"), ("", "1"), ("X-Bäd", "1"),
    ("X-Bad\0", "1"), (":status", "200"), (b"X-Bad", "1"), ("X-Bad", b"1"), ("X-Bad", None), ("X-Bad", 5), (None, "1"),
    ("X-Bad",), ("X-Bad", "1", "2"), "X-Bad: 1",
])
def test_a_field_that_must_not_go_out(serve, header):
    rig = serve(answering(b"never", headers=[("X-Good", "1"), header]))
    reply = rig.request()
    assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert reply.own_fields == [(b"content-type", b"text/plain"), (b"content-length", b"26")]
    rig.expect_errors()
    rig.client.assert_alive()


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "TE",
                                  "Trailers", "Proxy-Authenticate", "Proxy-Authorization", "connection", "UPGRADE"])
@pytest.mark.parametrize("value", ["websocket", "upgrade"])
def test_fields_of_one_hop_are_dropped(serve, name, value):
    """RFC 9113 section 8.2.2 and PEP 3333: an application has no say in them, and need not know of HTTP/2."""
    reply = serve(answering(b"x", headers=[("X-A", "1"), (name, value)])).request()
    assert (reply.status, reply.body, reply.own_fields) == (200, b"x", [(b"x-a", b"1")])


def test_server_and_date_are_gunicorns(serve):
    """Gunicorn takes them for the server's business, and so does HTTP/1."""
    reply = serve(answering(headers=[("Server", "mine"), ("Date", "yesterday"), ("X-A", "1")])).request()
    assert reply.field(b"server") == b"gunicorn"
    assert reply.field(b"date").endswith(b" GMT")
    assert reply.own_fields == [(b"x-a", b"1")]


def test_the_date_is_that_of_the_response(serve):
    """However it is kept: through the end of a second."""
    rig = serve(answering())
    dates = set()
    while len(dates) < 2:
        began = int(time.time())
        dates.add(date := parsedate_to_datetime(rig.request().field(b"date").decode()).timestamp())
        assert began <= date <= time.time()


@pytest.mark.parametrize("make", [list, tuple, iter, lambda headers: [list(header) for header in headers],
                                  lambda headers: (header for header in headers)],
                         ids=["list", "tuple", "iterator", "lists", "generator"])
def test_headers_may_be_any_iterable_of_pairs(serve, make):
    """Gunicorn is more generous here than PEP 3333."""
    def app(environ, start_response):
        start_response("200 OK", make([("X-A", "1"), ("X-B", "2")]))
        return []

    assert serve(app).request().own_fields == [(b"x-a", b"1"), (b"x-b", b"2")]


def test_what_becomes_of_the_list_of_headers_is_the_applications_business(serve):
    def app(environ, start_response):
        headers = [("X-A", "1")]
        start_response("200 OK", headers)
        headers.append(("X-B", "2"))
        headers[0] = ("X-C", "3")
        yield b"one"
        headers.clear()
        yield b"two"

    assert serve(app).request().own_fields == [(b"x-a", b"1")]


def test_one_list_of_headers_for_all_responses(serve):
    """What was made of it for one response must not be taken for the next, which has another value in it."""
    headers = [["X-Number", "0"], ("X-Same", "1"), ("Content-Length", "1")]

    def app(environ, start_response):
        headers[0][1] = environ["QUERY_STRING"]
        headers[2] = ("Content-Length", str(len(environ["QUERY_STRING"])))
        start_response("200 OK", headers)
        return [environ["QUERY_STRING"].encode()]

    rig = serve(app)
    for number in (b"1", b"1", b"22", b"22", b"1", b"333"):
        reply = rig.request(path=b"/?" + number)
        assert reply.body == number
        assert reply.own_fields == [(b"x-number", number), (b"x-same", b"1"), (b"content-length", b"%d" % len(number))]
    assert headers == [["X-Number", "333"], ("X-Same", "1"), ("Content-Length", "3")]


def test_the_same_fields_in_another_order_or_case_or_status(serve):
    answers = [("200 OK", [("A", "1"), ("B", "2")]), ("200 OK", [("B", "2"), ("A", "1")]),
               ("404 Not Found", [("A", "1"), ("B", "2")]), ("200 OK", [("a", "1"), ("b", "2")]),
               ("200 OK", [("A", "1B"), ("", "2")][:1]), ("200 OK", [("A", "1"), ("B", "2"), ("B", "2")])]

    def app(environ, start_response):
        start_response(*answers[int(environ["QUERY_STRING"])])
        return []

    rig = serve(app)
    for _ in range(3):
        for number, (status, headers) in enumerate(answers):
            reply = rig.request(path=b"/?%d" % number)
            assert reply.status == int(status[:3])
            assert reply.own_fields == [(name.lower().encode(), value.encode()) for name, value in headers]


@pytest.mark.parametrize("pairs", [[], [(HEADER_TABLE_SIZE, 0)], [(HEADER_TABLE_SIZE, 100)]], ids=str)
def test_many_different_fields(serve, pairs):
    """More than any cache holds, and larger than any table of HPACK's."""
    def app(environ, start_response):
        number = environ["QUERY_STRING"]
        headers = [(f"X-{number}", "v" * int(number)), ("X-Number", number), ("Set-Cookie", f"a={number}")]
        start_response("200 OK", headers)
        return []

    rig = serve(app, pairs=pairs)
    for number in [*range(200), *range(200)]:
        reply = rig.request(path=b"/?%d" % number)
        assert reply.own_fields == [(b"x-%d" % number, b"v" * number), (b"x-number", b"%d" % number),
                                    (b"set-cookie", b"a=%d" % number)]


# -- bodies ------------------------------------------------------------------------------------------------------------


class Octets(bytes):
    """Bytes of a framework's own."""


class Indexed:
    """An iterable of the old kind."""

    def __getitem__(self, index):
        return [b"a", b"b", b"c"][index]


BODIES = {
    "list": lambda: [b"abc"], "pieces": lambda: [b"a", b"b", b"c"], "tuple": lambda: (b"a", b"bc"),
    "generator": lambda: (piece for piece in (b"a", b"b", b"c")), "iterator": lambda: iter([b"abc"]),
    "empty pieces": lambda: [b"", b"a", b"", b"", b"bc", b""], "a subclass": lambda: [Octets(b"ab"), Octets(b"c")],
    "dict": lambda: {b"a": 1, b"bc": 2}, "map": lambda: map(bytes, [b"ab", b"c"]), "indexed": Indexed,
    "file": lambda: io.BytesIO(b"a\nb\nc".replace(b"\n", b"")), "result": lambda: Result(b"a", b"bc"),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")]], ids=["", "length"])
def test_a_body(serve, kind, headers):
    def app(environ, start_response):
        start_response("200 OK", headers)
        return BODIES[kind]()

    reply = serve(app).request()
    assert (reply.status, reply.body, reply.ended, reply.reset) == (200, b"abc", True, None)


@pytest.mark.parametrize("body", [[], (), iter(()), [b""], [b"", b""], Result(), ""], ids=type_name)
def test_an_empty_body(serve, body):
    def app(environ, start_response):
        start_response("200 OK", [("X-A", "1")])
        return body

    rig = serve(app)
    reply = rig.request()
    assert (reply.status, reply.body, reply.ended, reply.own_fields) == (200, b"", True, [(b"x-a", b"1")])


def test_an_empty_response_is_one_frame(serve):
    rig = serve(answering())
    assert frames_of(rig, rig.request()) == [(HeadersFrame, True, 0)]


def test_a_response_of_known_length_is_two_frames(serve):
    rig = serve(answering(b"hello", headers=[("Content-Length", "5")]))
    assert frames_of(rig, rig.request()) == [(HeadersFrame, False, 0), (DataFrame, True, 5)]


@pytest.mark.parametrize("item", ["text", 5, None, bytearray(b"x"), memoryview(b"x"), [b"x"]], ids=type_name)
@pytest.mark.parametrize("way", ["yield", "write"])
def test_a_piece_that_is_not_bytes(serve, item, way):
    """PEP 3333: bytestrings, and nothing else."""
    def app(environ, start_response):
        write = start_response("200 OK", [])
        if way == "write":
            write(item)
        return [item]

    rig = serve(app)
    assert rig.request().status == 500
    assert "TypeError" in rig.expect_errors()[0]


@pytest.mark.parametrize("result", [None, 5, b"bytes", "text", object()], ids=type_name)
def test_a_result_that_is_no_iterable_of_bytes(serve, result):
    def app(environ, start_response):
        start_response("200 OK", [])
        return result

    rig = serve(app)
    assert rig.request().status == 500
    assert "TypeError" in rig.expect_errors()[0]


def test_pieces_leave_as_they_come(serve):
    """PEP 3333: no block may be delayed until the next one is there."""
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        first.enter()
        yield b"two"
        second.enter()

    rig = serve(app)
    first, second = rig.gate(), rig.gate()
    reply = rig.start()
    first.wait_inside()
    rig.until(lambda: reply.body == b"one", "the first piece")
    first.open()
    second.wait_inside()
    rig.until(lambda: reply.body == b"onetwo", "the second piece")
    assert not reply.ended
    second.open()
    rig.client.wait_for(reply)
    assert (reply.body, reply.reset) == (b"onetwo", None)


def test_the_head_waits_for_the_body(serve):
    """PEP 3333: `start_response` sends nothing; what it was told may still be withdrawn."""
    def app(environ, start_response):
        start_response("200 OK", [])
        gate.enter()
        yield b"x"

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.barrier()
    assert reply.head is None
    gate.open()
    rig.client.wait_for(reply)
    assert (reply.status, reply.body) == (200, b"x")


def test_the_head_waits_for_a_piece_with_octets(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b""
        gate.enter()
        yield b"x"

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.barrier()
    assert reply.head is None


# -- write() -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], [("Content-Length", "12")]], ids=["", "length"])
def test_what_is_written_comes_before_what_is_returned(serve, headers):
    def app(environ, start_response):
        write = start_response("200 OK", headers)
        rig.note(write(b"one "))
        write(b"")
        write(Octets(b"two "))
        return [b"", b"last"]

    rig = serve(app)
    reply = rig.request()
    assert (reply.status, reply.body, reply.ended) == (200, b"one two last", True)
    assert rig.notes == [None]


def test_what_is_written_leaves_at_once(serve):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"one")
        gate.enter()
        return []

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.until(lambda: reply.body == b"one", "what was written")
    assert not reply.ended


def test_writing_from_within_the_iteration(serve):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        yield b"one "
        write(b"two ")
        yield b"three"

    assert serve(app).request().body == b"one two three"


# -- Content-Length ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[b"hello"], [b"he", b"llo"], [b"hello, world"], [b"hell", b"o, ", b"world"],
                                    [b"hello", b"", b", world"]])
def test_a_body_is_cut_to_its_content_length(serve, pieces):
    rig = serve(answering(*pieces, headers=[("Content-Length", "5")]))
    reply = rig.request()
    assert (reply.body, reply.ended, reply.reset) == (b"hello", True, None)
    assert reply.field(b"content-length") == b"5"


@pytest.mark.parametrize("length", ["0", " 0 ", "00"])
def test_a_content_length_of_nothing(serve, length):
    reply = serve(answering(b"too much", headers=[("Content-Length", length)])).request()
    assert (reply.status, reply.body, reply.ended) == (200, b"", True)
    assert reply.field(b"content-length") == length.strip().encode()


def test_a_body_that_is_too_short(serve):
    """The client must not take it for complete. What was queued when the stream was reset need not arrive."""
    rig = serve(answering(b"hell", headers=[("Content-Length", "5")]))
    reply = rig.request()
    assert (reply.status, reply.ended, reply.reset) == (200, False, ErrorCode.INTERNAL_ERROR)
    assert b"hell".startswith(reply.body)
    assert "Content-Length" in rig.expect_errors()[0]
    rig.client.assert_alive()


def test_no_body_at_all_where_there_should_be_one(serve):
    rig = serve(answering(headers=[("Content-Length", "5")]))
    reply = rig.request()
    assert (reply.status, reply.field(b"content-length")) == (500, b"26")
    rig.expect_errors()


def test_the_stream_ends_with_the_last_octet(serve):
    """Of a body of known length, before the application has returned; what it does then is its own affair."""
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        yield b"hello"
        gate.enter()
        yield b"more"
        raise ZeroDivisionError

    rig = serve(app)
    gate = rig.gate()
    reply = rig.start()
    gate.wait_inside()
    rig.client.wait_for(reply)
    gate.open()
    rig.wait_idle()
    assert (reply.body, reply.ended, reply.reset) == (b"hello", True, None)
    assert "ZeroDivisionError" in rig.expect_errors()[0]


@pytest.mark.parametrize("length", ["x", "5 5", "0x5", "5.0", "", "-1", "+5", "1_0"])
def test_a_content_length_that_is_no_number_of_octets(serve, length):
    rig = serve(answering(b"a" * 10, headers=[("Content-Length", length)]))
    assert rig.request().status == 500
    rig.expect_errors()


@pytest.mark.parametrize("lengths", [("5", "6"), ("5", "5")])
def test_two_content_lengths(serve, lengths):
    rig = serve(answering(b"hello", headers=[("Content-Length", length) for length in lengths]))
    rig.allow_errors()
    reply = rig.request()
    assert reply.status == 500 or (lengths == ("5", "5") and reply.all(b"content-length") == [b"5"])


# -- responses without a body ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [[], [b"hello"], [b"he", b"", b"llo"]], ids=["none", "one", "pieces"])
@pytest.mark.parametrize("headers", [[("X-A", "1")], [("X-A", "1"), ("Content-Length", "5")]], ids=["", "length"])
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", "200 OK"), (b"HEAD", "404 Not Found"), (b"GET", "304 x"),
                                                (b"GET", "204 x"), (b"HEAD", "204 x")])
def test_a_response_that_has_no_body(serve, method, status, headers, pieces):
    """RFC 9110: the fields of GET, a length included, but for 204 (section 8.6); no error, for nothing is missing."""
    rig = serve(answering(*pieces, status=status, headers=headers))
    reply = rig.request(method=method)
    assert (reply.status, reply.body, reply.ended, reply.reset) == (int(status[:3]), b"", True, None)
    kept = headers[:1] if status[:3] == "204" else headers
    assert reply.own_fields == [(name.lower().encode(), value.encode()) for name, value in kept]
    assert frames_of(rig, reply)[0][0] is HeadersFrame
    assert sum(octets for _, _, octets in frames_of(rig, reply)) == 0


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_writing_to_a_response_that_has_no_body(serve, method):
    def app(environ, start_response):
        write = start_response("200 OK" if method == b"HEAD" else "304 Not Modified", [("ETag", "x")])
        write(b"body")
        return [b"more"]

    reply = serve(app).request(method=method)
    assert (reply.body, reply.ended, reply.reset, reply.own_fields) == (b"", True, None, [(b"etag", b"x")])


def test_head_is_served_to_the_end(serve):
    """The application may count on being iterated, and closed."""
    result = Result(b"one", b"two")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        return result

    rig = serve(app)
    assert rig.request(method=b"HEAD").field(b"content-length") == b"6"
    assert result.closes == 1


# -- files -------------------------------------------------------------------------------------------------------------


class File(io.BytesIO):
    """A file in memory that counts its closes."""

    closes = 0

    def close(self):
        """Count."""
        self.closes += 1
        super().close()


def sending(file, headers=(), size=8192):
    """An application that sends a file by Gunicorn's wrapper."""
    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return environ["wsgi.file_wrapper"](file, size)
    return app


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_file_in_memory(serve, size):
    file = File(b"0123456789")
    reply = serve(sending(file, size=size)).request()
    assert (reply.body, reply.ended, file.closes) == (b"0123456789", True, 1)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(("headers", "body"), [([], b"456789"), ([("Content-Length", "3")], b"456"),
                                               ([("Content-Length", "6")], b"456789")])
def test_a_file_on_disk(serve, tmp_path, method, headers, body):
    """From where it stands to its end; no `sendfile` past the frames."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file = path.open("rb")
    file.seek(4)
    rig = serve(sending(file, headers=headers))
    reply = rig.request(method=method)
    assert (reply.body, reply.ended, reply.reset) == (b"" if method == b"HEAD" else body, True, None)
    assert file.closed


def test_an_empty_file(serve):
    reply = serve(sending(File(b""))).request()
    assert (reply.status, reply.body, reply.ended) == (200, b"", True)


def test_a_file_that_cannot_be_closed(serve):
    class Readable:
        def read(self, size):
            return pieces.pop() if pieces else b""

    pieces = [b"two", b"one"]
    assert serve(sending(Readable())).request().body == b"onetwo"


@pytest.mark.usefixtures("no_garbage_collector")
def test_nothing_keeps_a_response(serve):
    """No cycle: each request would leave some objects to the garbage collector, which is then called all the time."""
    seen = []

    def app(environ, start_response):
        seen.append(weakref.ref(start_response.__self__))
        start_response("200 OK", [])
        return [b"hello"]

    # Unobserved, for pytest keeps what is logged.
    rig = serve(app, **QUIET)
    assert [rig.request().body for _ in range(3)] == [b"hello"] * 3
    # A thread may still be returning from the last call.
    assert [response() for response in seen[:-1]] == [None, None]
