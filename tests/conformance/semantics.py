"""HTTP's messages: RFC 9113 section 8."""

import json

from tests.protocol.hpack_blocks import literal
from tests.support.h2client import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PADDED,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    raw_frame,
)

from .rules import NARROW, Rules, answer, connection_error, malformed, served, stream_error

rules = Rules("RFC 9113")
GOOD = {b":method": b"GET", b":scheme": b"https", b":authority": b"localhost", b":path": b"/hello"}


def with_(*fields, **pseudo):
    """A request with other values of pseudo-header fields (None: without), and further fields."""
    changed = {**GOOD, **{f":{name}".encode(): value for name, value in pseudo.items()}}
    return [*((name, value) for name, value in changed.items() if value is not None), *fields]


def requests(sections):
    """What sends each of these sections as a request."""
    return {name: lambda c, section=section: c.literal(section) for name, section in sections.items()}


def trailers(client, section, end_stream=True):
    """A request with a body and trailers."""
    start = client.start() + client.data_frame(client.last_id, b"12345")
    return start + client.header_frames(client.last_id, section, end_stream=end_stream)


# -- 8.1: messages -----------------------------------------------------------------------------------------------------

rules.table("8.1", stream_error(PROTOCOL_ERROR), {
    "trailers without END_STREAM": lambda c: trailers(c, [("x-a", "1")], end_stream=False),
    "a pseudo-header field in trailers": lambda c: trailers(c, [(":path", "/x")]),
    "a pseudo-header field of responses in trailers": lambda c: trailers(c, [(":status", "200")]),
})


@rules.rule("8.1", "trailers end a request")
def request_trailers(client):
    client.send_raw(trailers(client, [("x-checksum", "1")]))
    assert client.response(client.last).text == '{"length": 5}'


rules.table("8.1", served, {
    "trailers behind no body": lambda c: c.start() + c.header_frames(c.last_id, [("x-a", "1")], end_stream=True),
    "trailers in several frames": lambda c: c.start() + raw_frame(HEADERS, END_STREAM, c.last_id) + raw_frame(
        CONTINUATION, END_HEADERS, c.last_id, literal(0, b"x-a", b"1")),
    "END_STREAM on an empty DATA frame": lambda c: c.start() + c.data_frame(c.last_id, b"12345")
    + c.data_frame(c.last_id, b"", True),
})


@rules.rule("8.1", "an interim response precedes the final one, and does not end the stream")
def interim(client):
    stream = client.get("/informational")
    assert [dict(fields)[":status"] for fields in stream.informational] == ["103"]
    assert (stream.status, stream.ended) == (200, True)


@rules.rule("8.1", "a response that is complete before its request ends with RST_STREAM(NO_ERROR)")
def early_response(client):
    stream = client.answered()
    client.wait_for(lambda: stream.reset is not None, "RST_STREAM")
    client.assert_serves()
    assert (stream.status, stream.text, client.resets()) == (200, "unread\n", [(stream.stream_id, NO_ERROR)])


@rules.rule("8.1", "the frames of a response are HEADERS, DATA and the end, of one stream")
def response_frames(client):
    stream = client.get("/bytes?n=40000")
    frames = [frame for frame in client.frames if frame.stream_id == stream.stream_id]
    kinds = [(frame.type, "END_STREAM" in frame.flags) for frame in frames]
    assert kinds[0] == (HEADERS, False)
    assert {kind for kind, _ in kinds[1:]} == {DATA}
    assert [end for _, end in kinds].index(True) == len(kinds) - 1


rules.table("8.1.1", stream_error(PROTOCOL_ERROR), {
    "a body shorter than content-length": lambda c: c.start(headers=[("content-length", "5")])
    + c.data_frame(c.last_id, b"1234", True),
    "a body longer than content-length": lambda c: c.start(headers=[("content-length", "5")])
    + c.data_frame(c.last_id, b"123456"),
    "a body longer than content-length, in two frames": lambda c: c.start(headers=[("content-length", "5")])
    + c.data_frame(c.last_id, b"123") + c.data_frame(c.last_id, b"456", True),
    "a body longer than a content-length of 0": lambda c: c.start(headers=[("content-length", "0")])
    + c.data_frame(c.last_id, b"1", True),
    "no body for a content-length of 5": lambda c: c.start(headers=[("content-length", "5")], end=True),
    "trailers before content-length is reached": lambda c: c.start(headers=[("content-length", "5")])
    + c.data_frame(c.last_id, b"123") + c.header_frames(c.last_id, [("x-a", "1")], end_stream=True),
})
rules.table("8.1.1", malformed, requests({
    **{f"a content-length of {value!r}": with_((b"content-length", value)) for value in (
        b"a", b"-1", b"+5", b"5.0", b"0x5", b"", b"5 5", b"5, 6", b"\xb25")},
    "two of content-length that differ": with_((b"content-length", b"5"), (b"content-length", b"6")),
}))
rules.table("8.1.1", served, {
    "padding, which content-length does not count": lambda c: c.start(headers=[("content-length", "5")]) + raw_frame(
        DATA, PADDED | END_STREAM, c.last_id, b"\x0312345" + bytes(3)),
    "a body as long as content-length": lambda c: c.start(headers=[("content-length", "5")])
    + c.data_frame(c.last_id, b"123") + c.data_frame(c.last_id, b"45", True),
    "a content-length of 0 without a body": lambda c: c.start(headers=[("content-length", "0")], end=True),
})


@rules.rule("8.1.1", "responses of 204 and 304 have no content")
def statuses_without_content(client):
    for status in ("204 No Content", "304 Not Modified"):
        stream = client.get(f"/status?status={status.replace(' ', '%20')}")
        assert (stream.status, stream.received, stream.ended) == (int(status[:3]), 0, True)


@rules.rule("8.1.1", "a response to HEAD has no content")
def head_has_no_content(client):
    stream = client.response(client.request("HEAD", "/hello"))
    assert (stream.status, stream.header("content-length"), stream.chunks, stream.ended) == (200, "14", 0, True)


@rules.rule("8.1.1", "the application does not learn of a malformed request")
def malformed_is_not_served(client):
    before = json.loads(client.get("/records?key=malformed").text)
    client.send_raw(client.literal(with_((b"X-Upper", b"1"), path=b"/closing?key=malformed")))
    client.wait_for(lambda: client.last.done, "the refusal")
    assert json.loads(client.get("/records?key=malformed").text) == before == []


# -- 8.2: fields -------------------------------------------------------------------------------------------------------

BAD_NAMES = {
    "an empty name": b"", "a name with an upper-case letter": b"x-Upper", "a name with a space": b"x a",
    "a name with NUL": b"x\0a", "a name with DEL": b"x\x7fa", "a name with an octet beyond ASCII": b"x\xe9",
    "a name with a colon": b"x:a", "a name with CR": b"x\ra", "a name with LF": b"x\na", "a name with HTAB": b"x\ta",
    "a name that is no token": b"x(a)",
}
BAD_VALUES = {
    "a value with NUL": b"1\x002", "a value with CR": b"1\r2", "a value with LF": b"1\n2",
    "a value with CRLF": b"1\r\n2",
    "a value that begins with a space": b" 1", "a value that begins with HTAB": b"\t1",
    "a value that ends with a space": b"1 ", "a value that ends with HTAB": b"1\t", "a value that is a space": b" ",
    "a value that ends with LF": b"1\n", "a value with DEL": b"1\x7f2", "a value with ESC": b"1\x1b2",
}
rules.table("8.2.1", malformed, requests({
    **{name: with_((octets, b"1")) for name, octets in BAD_NAMES.items()},
    **{name: with_((b"x-a", octets)) for name, octets in BAD_VALUES.items()},
}))
rules.table("8.2.1", stream_error(PROTOCOL_ERROR), {
    "an upper-case name in trailers": lambda c: trailers(c, [("X-A", "1")]),
    "a value with LF in trailers": lambda c: trailers(c, [("x-a", "1\n2")]),
})
rules.table("8.2.1", served, requests({
    "every character of a name": with_((b"!#$%&'*+-.^`|~09az", b"1")),
    "a value of octets beyond ASCII": with_((b"x-a", b"caf\xe9 \x80\xff")),
    "a value with inner white space": with_((b"x-a", b"a b\tc")),
    "an empty value": with_((b"x-a", b"")),
}))
rules.table("8.2.2", malformed, requests({
    **{f"the field {name.decode()}": with_((name, b"close")) for name in (
        b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")},
    "TE of gzip": with_((b"te", b"gzip")),
    "TE of trailers and more": with_((b"te", b"trailers, gzip")),
    "TE twice": with_((b"te", b"trailers"), (b"te", b"gzip")),
}))
rules.table("8.2.2", stream_error(PROTOCOL_ERROR), {
    "the field connection in trailers": lambda c: trailers(c, [("connection", "close")]),
})
rules.table("8.2.2", served, requests({"TE of trailers": with_((b"te", b"trailers"))}))


@rules.rule("8.2", "the names of response fields are in lower case")
def lower_case(client):
    stream = client.get("/headers")
    assert all(name == name.lower() for name, _ in stream.headers)
    assert stream.header("x-mixed-case") == "Kept As It Is"


@rules.rule("8.2.2", "responses have no connection-specific fields")
def no_connection_fields(client):
    names = {name for name, _ in client.get("/headers").headers}
    assert not names & {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te"}


def environ(client, *fields, **pseudo):
    """The environ of a request with these fields."""
    client.send_raw(client.literal(with_(*fields, path=b"/environ", **pseudo)))
    return json.loads(client.response(client.last).text)


@rules.rule("8.2.3", "the pieces of a cookie are joined")
def cookies(client):
    pieces = [(b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d; e=f"), (b"cookie", b"g=h")]
    assert environ(client, *pieces)["HTTP_COOKIE"] == "a=b; c=d; e=f; g=h"


# -- 8.3: control data -------------------------------------------------------------------------------------------------

rules.table("8.3", malformed, requests({
    "an unknown pseudo-header field": [*with_(), (b":unknown", b"1")],
    "a pseudo-header field without a name": [*with_(), (b":", b"1")],
    "a pseudo-header field of responses": [*with_(), (b":status", b"200")],
    ":protocol with GET": with_(protocol=b"websocket"),
    "a pseudo-header field behind others": [*with_(path=None), (b"x-a", b"1"), (b":path", b"/hello")],
    "pseudo-header fields behind all others": [(b"x-a", b"1"), *with_()],
    **{f"{name.decode()} twice": [*with_(), (name, value)] for name, value in GOOD.items()},
    **{f"{name.decode()} in upper case": [(name.upper() if name == key else key, value) for key, value in GOOD.items()]
       for name in GOOD},
}))
rules.table("8.3.1", malformed, requests({
    "no :method": with_(method=None), "no :scheme": with_(scheme=None), "no :path": with_(path=None),
    "no pseudo-header field": [(b"host", b"localhost")],
    "an empty :method": with_(method=b""), "an empty :scheme": with_(scheme=b""), "an empty :path": with_(path=b""),
    ":path without a slash": with_(path=b"hello"), ":path of * for GET": with_(path=b"*"),
    ":path of an absolute URI": with_(path=b"https://localhost/hello"),
    ":path with a fragment": with_(path=b"/hello#a"),
    ":path with an octet beyond ASCII": with_(path=b"/caf\xe9"),
    ":method that is no token": with_(method=b"GE(T)"), ":scheme that is none": with_(scheme=b"1http"),
    "userinfo in :authority": with_(authority=b"user:password@localhost"),
    "Host that differs from :authority": with_((b"host", b"example.org")),
    "Host beside an empty :authority": with_((b"host", b"localhost"), authority=b""),
    "Host twice": with_((b"host", b"localhost"), (b"host", b"localhost")),
}))
rules.table("8.3.1", answer(400), requests({
    "a scheme that is not served": with_(scheme=b"ftp"), "another one": with_(scheme=b"coap+tcp"),
}))
rules.table("8.3.1", served, requests({
    "the scheme http": with_(scheme=b"http"), "the scheme https": with_(scheme=b"https"),
    "the scheme in upper case": with_(scheme=b"HTTPS"),
    "Host that equals :authority when normalized": with_((b"host", b"LOCALHOST")),
    "Host without :authority": with_((b"host", b"localhost"), authority=None),
    "neither Host nor :authority": with_(authority=None),
}))


@rules.rule("8.3.1", ":authority names the target")
def authority(client):
    assert environ(client, (b"host", b"Example.Org"), authority=b"example.org")["HTTP_HOST"] == "example.org"
    assert environ(client, (b"host", b"example.net"), authority=None)["HTTP_HOST"] == "example.net"


@rules.rule("8.3.1", "the version is 2.0, and * is the path of OPTIONS alone")
def version(client):
    assert environ(client)["SERVER_PROTOCOL"] in ("HTTP/2.0", "HTTP/2")
    client.send_raw(client.literal(with_(method=b"OPTIONS", path=b"*")))
    stream = client.response(client.last)
    assert (stream.status, stream.reset) == (404, None)


@rules.rule("8.3.2", "every response has :status, first and alone")
def status(client):
    client.send_raw(client.start("/informational", "GET", end=True))
    stream = client.response(client.last)
    for fields in (*stream.informational, stream.headers):
        assert [name for name, _ in fields if name.startswith(":")] == [":status"]
        assert fields[0][0] == ":status"
    trailer = client.get("/hello")
    assert trailer.trailers is None


# -- 8.4 to 8.8 --------------------------------------------------------------------------------------------------------

rules.table("8.4", connection_error(PROTOCOL_ERROR), {
    "PUSH_PROMISE": lambda c: c.start() + raw_frame(PUSH_PROMISE, END_HEADERS, c.last_id, b"\0\0\0\2\x82"),
})
rules.table("8.4.1", connection_error(PROTOCOL_ERROR), {
    "PUSH_PROMISE of a client's": lambda c: raw_frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\5" + c.request_block()),
})
rules.table("8.5", malformed, requests({
    "CONNECT with :scheme": with_(method=b"CONNECT", path=None),
    "CONNECT with :path": with_(method=b"CONNECT", scheme=None),
    "CONNECT without :authority": with_(method=b"CONNECT", scheme=None, path=None, authority=None),
    "CONNECT with userinfo": with_(method=b"CONNECT", scheme=None, path=None, authority=b"a@localhost:1"),
}))
rules.table("8.5", answer(501), requests({
    "CONNECT, of which the server makes no tunnel": with_(
        method=b"CONNECT", scheme=None, path=None, authority=b"localhost:1"),
}))


@rules.rule("8.6", "101 is not sent")
def no_101(client):
    stream = client.get("/status?status=101%20Switching%20Protocols")
    assert all(dict(fields)[":status"] != "101" for fields in [*stream.informational, stream.headers or []] if fields)
    client.assert_serves()


@rules.rule("8.7", "a stream of which the application has seen anything is not refused", **NARROW)
def refused_means_not_processed(client):
    streams = [client.pending() for _ in range(10)]
    client.send_raw(b"".join(client.start() for _ in range(5)))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    assert [stream.reset for stream in streams] == [None] * 10
    assert {code for _, code in client.resets()} == {REFUSED_STREAM}


@rules.rule("8.7", "GOAWAY covers every stream that the application has seen")
def goaway_covers(client):
    client.next_stream_id = 101
    client.send_raw(client.start() + client.data_frame(101, b"x") + raw_frame(DATA, 0, 0, b"x"))
    connection_error(PROTOCOL_ERROR, 101)(client)
