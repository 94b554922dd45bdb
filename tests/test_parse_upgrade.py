"""How a worker reads the request that asks for an upgrade: Gunicorn's parser, split input, limits."""

import pytest
from gunicorn.config import Config

from gunicorn_h2.workers.upgrade import MAX_BODY_SIZE, parse_upgrade
from tests.support.h2client import PREFACE

pytestmark = pytest.mark.compat
PEER = ("127.0.0.1", 50_000)
HEAD = (b"%s /path?query HTTP/1.1\r\nHost: example.org\r\nX-One: caf\xe9\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n%s\r\n")


def request(body=b"", *lines, method=b"GET"):
    """The octets of a request that asks for an upgrade."""
    return HEAD % (method, b"".join(line + b"\r\n" for line in lines)) + body


def with_length(body, size=None):
    """A request with a body of a declared size."""
    return request(body, b"Content-Length: %d" % (len(body) if size is None else size), method=b"POST")


def chunked(*chunks):
    """A request with a body in chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return request(body, b"Transfer-Encoding: chunked", method=b"POST")


def parse(data, **settings):
    """Parse what was read so far."""
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return parse_upgrade(cfg, PEER, data)


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
    "chunked": (chunked(b"hel", b"lo", b"x" * 5000), b"hello" + b"x" * 5000),
    "no-chunks": (chunked(), b""),
    "largest": (with_length(b"x" * MAX_BODY_SIZE), b"x" * MAX_BODY_SIZE),
}


@pytest.mark.parametrize(("data", "body"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("rest", [b"", PREFACE, PREFACE * 1000])
def test_a_body_and_what_follows_it(data, body, rest):
    upgrade, left = parse(data + rest)
    assert (upgrade.body, left) == (body, rest)


@pytest.mark.parametrize("data", [BODIES[name][0] for name in ("no-body", "length", "chunked", "no-chunks")])
def test_split_anywhere(data):
    """Every beginning of a request says that more is to come, and only the whole request is one."""
    step = max(1, len(data) // 200)
    assert all(parse(data[:size]) is True for size in {*range(0, len(data), step), *range(len(data) - 8, len(data))})
    assert not isinstance(parse(data), bool)


@pytest.mark.parametrize("data", [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    request().replace(b"HTTP/1.1", b"HTTP/1.0"),
    request().replace(b"Upgrade: h2c", b"Upgrade: h2"),
    request().replace(b"AAMA", b"????"),
    request().replace(b"Host: example.org\r\n", b"Host: a\r\nHost: b\r\n"),
    request().replace(b"GET ", b"GET  "),
    request().replace(b"X-One: ", b"X One: "),
    request(b"", b"Content-Length: x"),
    request(b"", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    request(b"zzz\r\n", b"Transfer-Encoding: chunked"),
    request(b"", b"Expect: 100-continue", b"Content-Length: 5"),
    PREFACE,
], ids=["no-upgrade", "http10", "h2", "settings", "hosts", "request-line", "name", "length", "smuggling", "chunk",
        "expect", "preface"])
def test_left_to_http1(data):
    """Gunicorn's own code answers, also where the request is wrong."""
    assert parse(data) is False


def test_a_declared_body_beyond_the_limit_is_not_waited_for():
    assert parse(with_length(b"", MAX_BODY_SIZE + 1)) is False
    assert parse(with_length(b"", MAX_BODY_SIZE)) is True


def test_a_chunked_body_beyond_the_limit():
    """Neither when it came whole, nor when the rest of it is still to come."""
    data = chunked(*[b"x" * 1000] * 70)
    assert parse(data) is False
    assert parse(data[:68_000]) is False
    assert parse(data[:60_000]) is True


def test_a_head_without_an_end():
    assert parse(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000) is True
    few = {"limit_request_line": 100, "limit_request_fields": 10, "limit_request_field_size": 100}
    assert parse(b"x" * 1000, **few) is True
    assert parse(b"x" * 2000, **few) is False


def test_gunicorns_limits_count():
    assert parse(request(b"", *[b"X-%d: y" % number for number in range(20)]), limit_request_fields=10) is False
    assert parse(request(b"", b"X-Long: " + b"y" * 500), limit_request_field_size=100) is False
    assert parse(request().replace(b"query", b"q" * 500), limit_request_line=100) is False
