"""The request of an upgrade, read by the core, is the one that Gunicorn's own HTTP/1 parser reads.

No two parsers may differ in where a request ends or what it says: that is how requests are smuggled.
"""

import re

import pytest
from gunicorn.config import Config
from gunicorn.http import get_parser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gunicorn_h2.protocol.upgrade_reader import NotAnUpgrade, RequestLimits, UpgradeReader
from tests.support.h2client import PREFACE

pytestmark = pytest.mark.compat
LIMITS = RequestLimits(4094, 100, 8190)
LINES = [b"GET /path?query HTTP/1.1", b"Host: example.org", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
         b"HTTP2-Settings: AAMAAABkAAQAAP__"]
DROPPED = {"HOST", "CONNECTION", "UPGRADE", "HTTP2-SETTINGS", "TE", "TRANSFER-ENCODING", "KEEP-ALIVE"}
EXTRA = [b"X-One: 1", b"X-One:\t caf\xe9 \t", b"Content-Length: 5", b"Content-Length: 0005",
         b"Transfer-Encoding: chunked",
         b"Transfer-Encoding: CHUNKED", b"TE: trailers", b"Cookie: a=b; c", b"X: ", b"Content-Length: 0"]
BODIES = [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"00a\r\n0123456789\r\n0\r\n\r\n", b"0\r\n\r\n",
          b"1\r\n\n\r\n0\r\n\r\n"]
NOISE = [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b"\x0b", b"\xff", b";", b",", b"0", b"5", b"_", b"chunked"]

mutations = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.sampled_from([b"", *NOISE])), max_size=3)


def ours(data):
    """What the core makes of a request, and what it leaves; None where that is HTTP/1's."""
    reader = UpgradeReader(LIMITS)
    try:
        upgrade = reader.read(bytearray(data))
    except NotAnUpgrade:
        return None
    if upgrade is None:
        return None
    head = upgrade.head
    return head.method, head.path, head.authority, head.fields, upgrade.body, data[reader.end:]


def gunicorns(data):
    """What Gunicorn's parser makes of it, in the same words."""
    cfg = Config()
    cfg.set("casefold_http_method", False)
    parser = get_parser(cfg, iter([data]), ("127.0.0.1", 50_000))
    request = next(parser)
    body = request.body.read()
    kept = [(name, value) for name, value in request.headers if name not in DROPPED]
    fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in kept]
    hosts = [value.encode("latin-1") for name, value in request.headers if name == "HOST"]
    rest = parser.unreader.buf.getvalue() + b"".join(parser.unreader.iter)
    return request.method.encode(), request.uri.encode("latin-1"), b"".join(hosts), fields, body, rest


def mutated(data, changes):
    """Some octets replaced, removed or inserted."""
    for place, length, new in changes:
        data = data[:place] + new + data[place + length:]
    return data


@settings(max_examples=300, deadline=None)
@example([b"Content-Length: 5"], b"hello", [])
@example([b"Transfer-Encoding: chunked"], BODIES[3], [])
@given(st.lists(st.sampled_from(EXTRA), max_size=3), st.sampled_from(BODIES), mutations)
def test_gunicorns_parser_agrees(extra, body, changes):
    data = mutated(b"\r\n".join([*LINES, *extra, b"", b""]) + body, changes) + PREFACE
    read = ours(data)
    # Its rules for methods and for names with an underscore are applied to the stream later.
    if read is not None and re.fullmatch(rb"[A-Z]{3,20}", read[0]) and not any(b"_" in name for name, _ in read[3]):
        assert gunicorns(data) == read
