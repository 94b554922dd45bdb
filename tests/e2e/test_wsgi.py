"""The WSGI contract over HTTP/2, route by route of the plain WSGI application."""

import json

import pytest

from tests.support import h1client
from tests.support.checks import prove_all_free, records
from tests.support.h2client import (
    INTERNAL_ERROR,
    NO_ERROR,
    PATTERN,
    H2Client,
    pattern,
    pattern_digest,
)

compat = pytest.mark.compat
BODY = b"first line\nsecond\n\nlast without end"


# -- wsgi.input --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("calls", [
    "read:", "read:5,read:100,read:1", "read:0,read:", "read:-1,read:-1",
    "readline:,readline:,readline:,readline:,readline:", "readline:3,readline:0,readline:100,readline:",
    "readlines:", "readlines:,readlines:", "readlines:0", "iter:",
    "next:,next:,read:", "read:3,readline:,iter:,read:", "read:1000000",
], ids=lambda calls: calls.replace(":,", ","))
def test_reading_the_body(h2, wsgi, calls):
    """Each sequence of calls returns what it returns over HTTP/1.1, and what a file would return."""
    path = f"/calls?calls={calls}"
    answer = json.loads(h2.post(path, BODY).body)
    assert answer == json.loads(h1client.exchange(wsgi, h1client.request_bytes(wsgi, "POST", path, body=BODY)).body)
    assert "".join(line for lines in answer for line in lines if line != "<end>") == \
        (BODY.decode() if calls != "readline:3,readline:0,readline:100,readline:" else "first line\nsecond\n")


def test_readlines_with_a_hint(h2):
    """The hint may be obeyed or ignored; no line is lost or cut."""
    first, rest = json.loads(h2.post("/calls?calls=readlines:12,readlines:", BODY).body)
    assert first + rest == BODY.decode().splitlines(keepends=True)


def test_a_request_without_a_body(h2):
    assert json.loads(h2.post("/read", b"").body)["length"] == 0
    assert json.loads(h2.get("/read").body) == {"length": 0, "pieces": [0], "text": "", "again": 0}


@pytest.mark.parametrize("size", [1, 1000, 65_536, 10_000_000])
def test_reading_in_pieces(h2, size):
    """Every read but the last returns as many bytes as were asked for."""
    length = 100 if size == 1 else 200_000
    answer = json.loads(h2.post(f"/read?size={size}", PATTERN[:1] * length).body)
    assert answer["length"] == length
    assert set(answer["pieces"][:-1]) <= {size}


def test_the_application_runs_while_the_body_arrives(h2):
    """Each line is sent only after the one before has come back."""
    stream = h2.request("POST", "/echo", end=False)
    for number in range(5):
        line = b"line %d\n" % number
        h2.send_raw(h2.data_frame(stream.stream_id, line))
        h2.wait_for(lambda line=line: stream.body.endswith(line), "the line's echo")
    h2.send_raw(h2.data_frame(stream.stream_id, b"", end_stream=True))
    assert h2.response(stream).text == "".join(f"line {number}\n" for number in range(5))


def test_a_body_in_many_tiny_frames(h2):
    stream = h2.request("POST", "/read", end=False)
    h2.send_raw(b"".join(h2.data_frame(stream.stream_id, b"x") for _ in range(500)))
    h2.send_raw(h2.data_frame(stream.stream_id, b"", end_stream=True))
    assert json.loads(h2.response(stream).body)["length"] == 500


def test_a_padded_body(h2):
    """Padding counts against the window, never as body, and is given back."""
    stream = h2.request("POST", "/count", end=False)
    for _ in range(40):
        h2.wait_for(lambda: h2.room(stream) >= 10_000, "room")
        h2.send_raw(raw_padded(stream.stream_id, b"x" * 9_744, 255))
        stream.window -= 10_000
        h2.send_window -= 10_000
    h2.send_raw(h2.data_frame(stream.stream_id, b"", end_stream=True))
    assert h2.response(stream).text == '{"length": 389760}'


def raw_padded(stream_id, data, padding):
    """Return the bytes of a DATA frame with padding."""
    payload = bytes([padding]) + data + bytes(padding)
    return len(payload).to_bytes(3, "big") + b"\x00\x08" + stream_id.to_bytes(4, "big") + payload


def test_credit_comes_back_as_the_application_reads(h2, gate):
    """No credit for the stream while nothing is read; a body larger than the window gets through once it is."""
    stream = h2.request("POST", gate.path("/gate-read"), end=False)
    gate.wait_inside()
    h2.send_body(stream, b"x" * 65_535, end=False)
    h2.ping()
    assert h2.room(stream) < 32_768
    gate.release()
    h2.send_body(stream, b"x" * 200_000)
    assert h2.response(stream).text == '{"length": 265535}'


def test_100_continue(h2):
    """The interim response comes when the application reads."""
    stream = h2.request("POST", "/count", [("expect", "100-continue"), ("content-length", "5")], end=False)
    h2.wait_for(lambda: stream.informational, "100 Continue")
    assert dict(stream.informational[0])[":status"] == "100"
    h2.send_body(stream, b"12345")
    assert (h2.response(stream).status, stream.text) == (200, '{"length": 5}')
    assert len(stream.informational) == 1


def test_no_100_continue_if_the_body_is_not_read(h2):
    stream = h2.request("POST", "/unread", [("expect", "100-continue"), ("content-length", "5")], end=False)
    h2.response(stream)
    assert (stream.status, stream.text, stream.informational) == (200, "unread\n", [])


@compat
def test_an_unread_body_does_not_lose_the_response(h2, wsgi):
    """The whole response, then RST_STREAM(NO_ERROR) (RFC 9113 section 8.1); the connection goes on."""
    stream = h2.request("POST", "/unread", [("content-length", "1000000")], end=False)
    # Enough for the application to be called before the body is complete.
    h2.send_body(stream, b"x" * 40_000, end=False)
    h2.wait_for(lambda: stream.ended and stream.reset is not None, "the response and RST_STREAM")
    assert (stream.status, stream.text, stream.reset) == (200, "unread\n", NO_ERROR)
    assert h2.get("/hello").status == 200


# -- responses ---------------------------------------------------------------------------------------------------------

@compat
def test_a_small_response_is_one_headers_and_one_data_frame(h2):
    h2.frames.clear()
    stream = h2.get("/hello")
    kinds = [(type(frame).__name__, sorted(frame.flags)) for frame in h2.frames if frame.stream_id == stream.stream_id]
    assert kinds == [("HeadersFrame", ["END_HEADERS"]), ("DataFrame", ["END_STREAM"])]


@pytest.mark.parametrize(("path", "body"), [
    ("/hello", b"Hello, world!\n"),
    ("/write", b"written 1\nwritten 2\niterated\n"),
    ("/empty", b""),
    ("/empty-strings", b"ab"),
    ("/late-start", b"late start\n"),
    ("/file?n=100000", b"".join(pattern(100_000))),
    ("/file?n=100000&skip=300", b"".join(pattern(100_000))[300:]),
    ("/file?n=0", b""),
    ("/file?n=100000&length=500", b"".join(pattern(500))),
    ("/file-like?key=file_like_body", b"like a file\n" * 1000),
    ("/content-length?announced=50&sent=50", b"x" * 50),
    ("/content-length?announced=50&sent=100", b"x" * 50),
    ("/content-length?announced=0&sent=0", b""),
    ("/bytes?n=300000&length=1", b"".join(pattern(300_000))),
])
@compat
def test_bodies(h2, wsgi, path, body):
    """The body is right, and so it is over HTTP/1.1."""
    stream = h2.get(path)
    assert (stream.status, stream.reset) == (200, None)
    assert stream.body == body
    # Gunicorn's own sendfile on gevent logs this for /file, in the clear.
    wsgi.expect("Invalid argument")
    assert h1client.exchange(wsgi, h1client.request_bytes(wsgi, path=path)).body == body


def test_the_written_pieces_leave_one_by_one(h2, gate):
    """What was yielded before the application waits is with the client while it waits."""
    stream = h2.request("GET", gate.path("/gate-stream"))
    gate.wait_inside()
    h2.wait_for(lambda: stream.body == b"before\n", "the first piece")
    assert not stream.done
    gate.release()
    assert h2.response(stream).text == "before\nafter\n"


def test_a_response_shorter_than_announced_is_not_passed_off_as_complete(h2, wsgi):
    wsgi.expect("Content-Length")
    stream = h2.get("/content-length?announced=100&sent=50")
    assert stream.reset not in (None, NO_ERROR)
    assert not stream.ended
    assert h2.get("/hello").status == 200


@compat
@pytest.mark.parametrize("path", ["/hello", "/write", "/empty", "/file?n=1000", "/bytes?n=200000&length=1"])
def test_head(h2, wsgi, path):
    """HEAD gives the header fields of GET and no DATA with content."""
    stream = h2.response(h2.request("HEAD", path))
    assert (stream.status, stream.ended, stream.reset) == (200, True, None)
    assert stream.received == 0
    reference = h1client.exchange(wsgi, h1client.request_bytes(wsgi, "HEAD", path), method="HEAD")
    assert stream.header("content-length") == reference.header("content-length")


@compat
@pytest.mark.parametrize(("path", "status", "length"), [
    ("/status?status=204+No+Content", 204, None),
    ("/status?status=204+No+Content&length=4&body=body", 204, None),
    ("/status?status=304+Not+Modified&length=1000", 304, "1000"),
    ("/status?status=304+Not+Modified&body=body", 304, None),
])
def test_statuses_without_a_body(h2, path, status, length):
    stream = h2.get(path)
    assert (stream.status, stream.received, stream.ended, stream.reset) == (status, 0, True, None)
    assert stream.header("content-length") == length


@pytest.mark.parametrize("line", ["200 OK", "200", "200 ", "418 I'm a teapot", "599 Own", "200 caf\xe9"])
def test_status_lines(h2, line):
    stream = h2.get(f"/status?status={line.replace(' ', '+')}&body=b".replace("\xe9", "%E9"))
    assert stream.headers[0] == (":status", line[:3])


@pytest.mark.parametrize("line", ["101+Switching+Protocols", "100+Continue", "103+Early+Hints", "abc", "20", "200OK",
                                  "200+a%0D%0Ab", "", "-200+x"])
def test_status_lines_that_cannot_be_sent(h2, wsgi, line):
    wsgi.expect("ValueError", "AssertionError", "Invalid")
    stream = h2.get(f"/status?status={line}&body=b")
    assert stream.status == 500


def test_response_fields(h2):
    """Lower-case names, latin-1 values, repeated fields kept apart; connection-specific fields are not sent."""
    stream = h2.get("/headers")
    fields = stream.headers
    assert fields[0] == (":status", "200")
    assert [name for name, _ in fields if name != name.lower()] == []
    assert stream.header("x-latin") == "caf\xe9"
    assert [value for name, value in fields if name == "set-cookie"] == ["a=1", "b=2; Path=/"]
    assert stream.header("x-mixed-case") == "Kept As It Is"
    assert stream.header("x-empty") == ""
    assert stream.header("x-spaces") == "padded"
    assert {"connection", "keep-alive", "transfer-encoding"}.isdisjoint(name for name, _ in fields)


def test_response_fields_are_those_of_http1(h2, wsgi):
    fields = sorted(h2.get("/headers").headers[1:])
    reference = h1client.exchange(wsgi, h1client.request_bytes(wsgi, path="/headers")).headers
    expected = [(name.lower(), value) for name, value in reference]
    ours, theirs = ([field for field in some if field[0] not in ("date", "connection", "transfer-encoding")]
                    for some in (fields, sorted(expected)))
    assert ours == theirs


def test_server_and_date(h2):
    stream = h2.get("/hello")
    assert stream.header("server") == "gunicorn"
    assert stream.header("date").endswith(" GMT")


@compat
@pytest.mark.parametrize("kind", ["crlf", "lf", "cr", "nul", "name", "name-crlf", "colon", "unicode", "number"])
def test_response_fields_that_must_not_be_sent(h2, wsgi, kind):
    """500, an entry in the log, and nothing of the bad field on the wire."""
    wsgi.expect("InvalidResponseHeader|InvalidHeader|UnicodeEncodeError|TypeError|x-bad|X-Bad|X Bad|:status")
    mark = wsgi.log_mark()
    stream = h2.get(f"/bad-header?kind={kind}")
    assert stream.status == 500
    assert not any("bad" in name or "injected" in name for name, _ in stream.headers)
    assert b"never" not in stream.body
    wsgi.wait_log(r"ERROR|Traceback", after=mark)


# -- start_response, errors and close() --------------------------------------------------------------------------------

def test_start_response_again_before_anything_was_sent(h2):
    stream = h2.get("/restarted")
    assert (stream.status, stream.text) == (503, "second thoughts\n")
    assert (stream.header("x-first"), stream.header("x-second")) == (None, "1")


def assert_server_error(stream):
    """500, complete, and no word of the exception."""
    assert (stream.status, stream.ended, stream.reset) == (500, True, None)
    for word in (b"secret", b"Deliberate", b"Traceback", b"Error("):
        assert word not in stream.body


@compat
@pytest.mark.parametrize("path", ["/fail-early", "/fail-started?key=fail_started", "/started-twice", "/never-started",
                                  "/not-bytes"])
def test_errors_before_the_first_byte(h2, wsgi, path):
    """500 without the exception's text; the connection goes on."""
    wsgi.expect("DeliberateError: secret", "AssertionError", "TypeError", "status_code|start_response")
    assert_server_error(h2.get(path))
    assert h2.get("/hello").status == 200


@compat
@pytest.mark.parametrize("path", ["/fail-late?key=fail_late", "/restarted-late?n=1", "/restarted-late?n=100000"])
def test_errors_after_the_first_byte(h2, wsgi, path):
    """RST_STREAM(INTERNAL_ERROR), never a second status; the connection goes on."""
    wsgi.expect("DeliberateError: secret")
    stream = h2.get(path)
    assert (stream.status, stream.ended, stream.reset) == (200, False, INTERNAL_ERROR)
    assert b"secret" not in stream.body
    assert h2.get("/hello").status == 200


def test_system_exit_in_the_application(h2, wsgi):
    """SystemExit is an error like any other: neither the worker nor the connection goes with it."""
    wsgi.expect("SystemExit: 3")
    stream = h2.get("/exit")
    assert stream.status == 500
    assert h2.get("/hello").status == 200


@compat
@pytest.mark.parametrize(("path", "status"), [
    ("/closing?key=", 200), ("/fail-started?key=", 500), ("/fail-late?key=", 200), ("/yield?n=200000&key=", 200),
    ("/file-like?key=", 200),
])
def test_close_is_called_once(h2, wsgi, key, path, status):
    wsgi.expect("DeliberateError: secret")
    assert h2.get(path + key).status == status
    assert records(wsgi, key) == ["close"]
    prove_all_free(wsgi, 4)
    assert records(wsgi, key) == ["close"]


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_close_is_called_for_responses_without_a_body(h2, wsgi, key, method):
    h2.response(h2.request(method, f"/closing?key={key}"))
    assert records(wsgi, key) == ["close"]


def test_errors_are_logged(h2, wsgi):
    wsgi.expect("DeliberateError: secret")
    mark = wsgi.log_mark()
    h2.get("/fail-early")
    wsgi.wait_log("DeliberateError: secret", after=mark)


def test_digest_of_a_large_response(h2):
    """Eight large responses at once, each whole."""
    streams = [h2.request("GET", "/bytes?n=1000003&piece=7777") for _ in range(8)]
    for stream in streams:
        h2.response(stream)
    expected = b"".join(PATTERN[:min(7777, 1_000_003 - done)] for done in range(0, 1_000_003, 7777))
    assert all(stream.body == expected for stream in streams)


def test_a_long_upload_and_a_long_download_at_once(h2):
    down = h2.request("GET", "/bytes?n=5000000")
    up = h2.request("POST", "/count", body=pattern(5_000_000))
    assert h2.response(up).text == '{"length": 5000000}'
    assert h2.response(down).received == 5_000_000


def test_not_found(h2):
    assert h2.get("/no/such/route").status == 404


def test_hundred_requests_at_once(wsgi):
    with H2Client.connect(wsgi) as client:
        streams = [client.request("GET", "/hello") for _ in range(100)]
        assert [client.response(stream).status for stream in streams] == [200] * 100


def test_pattern_digest_is_that_of_the_application(h2):
    """The client's pattern is the application's."""
    stream = h2.get("/bytes?n=200000")
    assert stream.body == b"".join(pattern(200_000))
    assert len(pattern_digest(10)) == 64
