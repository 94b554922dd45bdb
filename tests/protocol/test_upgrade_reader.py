"""How the request that asks for an upgrade is read: split anywhere, strictly, within limits, in linear time."""

import pytest

from gunicorn_h2.protocol.upgrade_reader import (
    MAX_BODY_SIZE,
    MAX_HEAD_SIZE,
    NotAnUpgrade,
    RequestLimits,
    UpgradeReader,
)

from .peer import PREFACE

LIMITS = RequestLimits(line=4094, fields=100, field_size=8190)
HEAD = (b"%s /path?query HTTP/1.1\r\nHost: example.org\r\nX-One:\t caf\xe9 \r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n%s\r\n")
HTTP1 = "left to HTTP/1"


def request(body=b"", *lines, method=b"GET"):
    """The octets of a request that asks for an upgrade."""
    return HEAD % (method, b"".join(line + b"\r\n" for line in lines)) + body


def with_length(body, size=None):
    """A request with a body of a declared size."""
    return request(body, b"Content-Length: %d" % (len(body) if size is None else size), method=b"POST")


def chunks(*pieces):
    """A body in chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def chunked(body):
    """A request with a body that is framed already."""
    return request(body, b"Transfer-Encoding: chunked", method=b"POST")


def parse(*pieces, **limits):
    """Read pieces: the upgrade and what follows it, None where more is to come, or HTTP1."""
    reader, octets, upgrade = UpgradeReader(LIMITS._replace(**limits)), bytearray(), None
    try:
        for piece in pieces:
            octets += piece
            upgrade = reader.read(octets)
    except NotAnUpgrade:
        return HTTP1
    return upgrade and (upgrade, bytes(octets[reader.end:]))


def test_a_request_without_a_body():
    upgrade, rest = parse(request())
    assert rest == b""
    assert upgrade.settings == b"\0\3\0\0\0\x64\0\4\0\0\xff\xff"
    head = upgrade.head
    assert (head.method, head.path, head.authority, head.fields) == (
        b"GET", b"/path?query", b"example.org", [(b"x-one", b"caf\xe9")])


BODIES = {
    "no-body": (request(), b""),
    "length": (with_length(b"hello"), b"hello"),
    "empty": (with_length(b""), b""),
    "zeros": (request(b"hello", b"Content-Length: 0005", method=b"POST"), b"hello"),
    "chunked": (chunked(chunks(b"hel", b"lo", b"x" * 5000)), b"hello" + b"x" * 5000),
    "capitals": (chunked(b"00A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "coding-in-capitals": (request(chunks(b"hello"), b"Transfer-Encoding: Chunked"), b"hello"),
    "no-chunks": (chunked(chunks()), b""),
    "line-feeds": (chunked(chunks(b"\r\n\r\n", b"\n")), b"\r\n\r\n\n"),
    "largest": (with_length(b"x" * MAX_BODY_SIZE), b"x" * MAX_BODY_SIZE),
}


@pytest.mark.parametrize(("data", "body"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("rest", [b"", PREFACE, PREFACE * 1000])
def test_a_body_and_what_follows_it(data, body, rest):
    upgrade, left = parse(data + rest)
    assert (upgrade.body, left) == (body, rest)


@pytest.mark.parametrize("name", sorted({*BODIES} - {"largest"}))
def test_split_anywhere(name):
    """Every beginning of a request says that more is to come, and the same comes of it in whatever pieces."""
    data, body = BODIES[name]
    reader, octets = UpgradeReader(LIMITS), bytearray()
    for octet in data[:-1]:
        octets.append(octet)
        assert reader.read(octets) is None
    octets.append(data[-1])
    upgrade, (whole, _), (thirds, _) = reader.read(octets), parse(data), parse(data[:-5], data[-5:-2], data[-2:])
    assert (reader.end, upgrade.body) == (len(data), body)
    for other in (whole, thirds):
        assert (other.settings, other.section, other.body) == (upgrade.settings, upgrade.section, body)


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /http2-settings HTTP/1.1\r\n\r\n",
    b"\r\n\r\n" + request(),
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request(),
    request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    request().replace(b"HTTP/1.1", b"HTTP/1.2"),
    request().replace(b"HTTP/1.1", b"http/1.1"),
    request().replace(b"Upgrade: h2c", b"Upgrade: h2"),
    request().replace(b"AAMA", b"????"),
    request().replace(b"Host: example.org\r\n", b"Host: a\r\nHost: b\r\n"),
    request().replace(b"GET ", b"GET  "),
    request().replace(b"GET ", b"GET\t"),
    request().replace(b"GET ", b"G,T "),
    request().replace(b"/path", b"/pa\xffth"),
    request().replace(b"/path", b"http://example.org/path"),
    request().replace(b"X-One:", b"X One:"),
    request().replace(b"X-One:", b"X-One :"),
    request().replace(b"X-One:", b"X-One"),
    request().replace(b"X-One:", b":"),
    request().replace(b"X-One:", b" X-One:"),
    request().replace(b"caf", b"c\0f"),
    request().replace(b"caf", b"c\rf"),
    request().replace(b"caf", b"c\nf: "),
    request().replace(b"HTTP2-Settings\r\n", b"HTTP2-Settings, a\nTransfer-Encoding: chunked\r\n"),
    request().replace(b"HTTP2-Settings\r\n", b"HTTP2-Settings\r\r\n\n"),
    request(b"", b"Content-Length: x"),
    request(b"", b"Content-Length: +1"),
    request(b"", b"Content-Length: 1_0"),
    request(b"", b"Content-Length:"),
    request(b"a", b"Content-Length: 1, 1"),
    request(b"a", b"Content-Length: 1", b"Content-Length: 1"),
    request(b"", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    request(chunks(), b"Transfer-Encoding: gzip, chunked"),
    request(chunks(), b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    request(chunks(), b"Transfer-Encoding: identity"),
    request(b"", b"Expect: 100-continue", b"Content-Length: 5"),
    PREFACE,
], ids=["no-upgrade", "only-the-target", "empty-line-first", "proxy", "http10", "http12", "version", "h2", "settings",
        "hosts", "request-line", "tab", "method", "target", "absolute-form", "name", "space-before-colon", "no-colon",
        "no-name", "folded", "nul", "cr", "lf", "lf-in-connection", "cr-cr-lf-lf", "length", "sign", "underscore",
        "empty-length", "list-of-lengths", "lengths", "smuggling", "gzip", "chunked-twice", "identity", "expect",
        "preface"])
def test_left_to_http1(data):
    """HTTP/1 answers, also where the request is wrong."""
    assert parse(data) is HTTP1


@pytest.mark.parametrize("body", [
    b"zzz\r\n", b"\r\n", b"-1\r\n", b"0x1\r\na\r\n", b"1_0\r\n", b" 1\r\na\r\n", b"1 \r\na\r\n",
    b"1;a=b\r\na\r\n0\r\n\r\n", b"1\na\r\n0\r\n\r\n", b"1\r\nab\r\n",
    b"1\r\na\n\n", b"0\r\nX-Trailer: a\r\n\r\n", b"0000000001\r\na", b"1" * 10,
    b"fffffffff\r\n", b"ffffffff\r\n", b"10001\r\n",
])
def test_chunks_that_are_left_to_http1(body):
    """What departs from the plain form, and what is larger than the limit as soon as its size is known."""
    assert parse(chunked(body)) is HTTP1


def test_a_declared_body_beyond_the_limit_is_not_waited_for():
    assert parse(with_length(b"", MAX_BODY_SIZE + 1)) is HTTP1
    assert parse(with_length(b"", MAX_BODY_SIZE)) is None


def test_a_chunked_body_beyond_the_limit():
    """Neither when it came whole, nor when the rest of it is still to come."""
    data = chunked(chunks(*[b"x" * 1000] * 70))
    assert parse(data) is HTTP1
    assert parse(data[:68_000]) is HTTP1
    assert parse(data[:60_000]) is None


def test_small_chunks_count_with_their_framing():
    """What is kept of a body, and the work that it makes, are bounded by the octets received."""
    assert parse(chunked(chunks(*[b"x"] * 10_000)))[0].body == b"x" * 10_000
    assert parse(chunked(chunks(*[b"x"] * 11_000))) is HTTP1


def test_a_head_without_an_end():
    assert parse(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000) is None
    few = {"line": 100, "fields": 10, "field_size": 100}
    assert parse(b"x" * 1000, **few) is None
    assert parse(b"x" * 2000, **few) is HTTP1


def test_no_limit_allows_a_head_without_end():
    large = {"fields": 32_768}
    assert parse(b"x" * MAX_HEAD_SIZE, **large) is None
    assert parse(b"x" * MAX_HEAD_SIZE, b"x", **large) is HTTP1


@pytest.mark.parametrize(("data", "limits"), [
    (request(b"", *[b"X-%d: y" % number for number in range(5)]), {"fields": 10}),
    (request(b"", b"X-Long: " + b"y" * 90), {"field_size": 100}),
    (request(), {"line": len("GET /path?query HTTP/1.1")}),
], ids=["fields", "field-size", "line"])
def test_limits(data, limits):
    assert parse(data, **limits)[0].head.path == b"/path?query"
    ((name, limit),) = limits.items()
    assert parse(data, **{name: limit - 1}) is HTTP1


class Counting(bytearray):
    """Octets that count how many of them were searched or copied."""

    looked_at = 0

    def find(self, wanted, start=0, end=None):
        """As of a bytearray."""
        end = len(self) if end is None else min(end, len(self))
        self.looked_at += end - start
        return super().find(wanted, start, end)

    def __getitem__(self, index):
        part = super().__getitem__(index)
        self.looked_at += len(part)
        return part


def looked_at(*pieces):
    """How much a reader has looked at in the end."""
    reader, octets = UpgradeReader(LIMITS), Counting()
    for piece in pieces:
        octets += piece
        reader.read(octets)
    return octets.looked_at


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000, with_length(b"x" * 20_000)[:-1], chunked(chunks(*[b"x" * 100] * 200)),
    chunked(chunks(b"x" * 20_000)),
], ids=["head", "length", "chunks", "chunk"])
def test_octet_by_octet_costs_no_more_than_a_few_octets_each(data):
    """A client that sends its request in tiny pieces makes no quadratic work."""
    assert looked_at(*[data[number:number + 1] for number in range(len(data))]) < 20 * len(data)
