"""The first octets of a connection in the clear: prior knowledge, an upgrade, or HTTP/1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.opening import Cleartext, Opening
from gunicorn_h2.protocol.upgrade_reader import RequestLimits

from .peer import PREFACE

HTTP1 = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (b"GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
           b"HTTP2-Settings: AAMAAABk\r\n\r\n")
LIMITS = RequestLimits(line=100, fields=10, field_size=100)
PRIOR_KNOWLEDGE, UPGRADES, BOTH = Cleartext(True), Cleartext(False, LIMITS), Cleartext(True, LIMITS)


def fed(cleartext, *pieces):
    """Feed pieces to an opening until it has decided; return it, and how many it took."""
    opening = Opening(cleartext)
    for count, piece in enumerate(pieces, 1):
        if opening.feed(piece):
            return opening, count
    return opening, None


def octets(data):
    """One octet at a time."""
    return [data[number:number + 1] for number in range(len(data))]


def upgraded(opening):
    """Whether HTTP/2 begins, and with which request."""
    return opening.http2, opening.upgrade and opening.upgrade.head.path


@pytest.mark.parametrize("cleartext", [PRIOR_KNOWLEDGE, BOTH], ids=["prior-knowledge", "both"])
@pytest.mark.parametrize("rest", [b"", b"\0\0\0\4\0\0\0\0\0"], ids=["alone", "with-settings"])
def test_the_preface(cleartext, rest):
    opening, _ = fed(cleartext, PREFACE + rest)
    assert (upgraded(opening), opening.data) == ((True, None), PREFACE + rest)


@pytest.mark.parametrize("cleartext", [PRIOR_KNOWLEDGE, BOTH], ids=["prior-knowledge", "both"])
def test_the_preface_octet_by_octet(cleartext):
    opening, count = fed(cleartext, *octets(PREFACE))
    assert (opening.http2, count, opening.data) == (True, len(PREFACE), PREFACE)


@pytest.mark.parametrize("line", [
    b"GET / HTTP/1.1\r\n", b"PROPFIND /a?b HTTP/1.0\r\n", b"PRI * HTTP/1.1\r\n", b"GET / HTTP/3.0\n",
    b"P-R!I /caf\xc3\xa9 HTTP/1.1\r\n",
], ids=repr)
def test_a_request_line_is_http1s(line):
    """However it is cut, and with nothing behind it; no octet is lost."""
    for pieces in ([line], octets(line)):
        opening, count = fed(PRIOR_KNOWLEDGE, *pieces, b"never")
        assert (opening.http2, count, opening.data) == (False, len(pieces), line)


@pytest.mark.parametrize("line", [b"\r\nGET / HTTP/1.1\r\n", b"\n", b"PROXY UNKNOWN\r\n"], ids=repr)
def test_what_may_precede_a_request_line_is_http1s(line):
    opening, count = fed(PRIOR_KNOWLEDGE, line, b"never")
    assert (opening.http2, count, opening.data) == (False, 1, line)


@pytest.mark.parametrize("data", [
    b"\0", b"P\0", b"GET /\x01 HTTP/1.1\r\n",
    b"\x16\x03\x01\x02\0", b" GET / HTTP/1.1\r\n", b"{}", b"hello\r\n", b"GET /\r\n", b"GET  / HTTP/1.1\r\n",
    b"GET / x HTTP/1.1\r\n", b"INVALID CONNECTION PREFACE\r\n\r\n", b"GET / HTTP/1.1 \r\n", b"GET / HTTP/11\r\n",
], ids=repr)
@pytest.mark.parametrize("cleartext", [PRIOR_KNOWLEDGE, BOTH], ids=["prior-knowledge", "both"])
def test_what_is_no_protocol_is_a_wrong_preface(cleartext, data):
    """HTTP/2 ends it with an error of its own (RFC 9113 section 3.4)."""
    for pieces in ([data], octets(data)):
        opening, _ = fed(cleartext, *pieces, b"never")
        assert (upgraded(opening), data.startswith(opening.data)) == ((True, None), True)


@pytest.mark.parametrize("same", range(1, len(PREFACE)))
def test_what_begins_like_the_preface(same):
    """It may be a method until the first line is complete; nothing of it is lost, however late it differs."""
    data = PREFACE[:same] + b"?"
    opening, count = fed(PRIOR_KNOWLEDGE, *octets(data), b"\r\n")
    assert (opening.http2, count) == (True, same + (1 if same >= 16 else 2))
    assert opening.data == data + b"\r\n" * (same < 16)


@pytest.mark.parametrize(("data", "http2"), [
    (b"", False), (HTTP1[:-1], False), (UPGRADE[:-1], False), (b"PRI", True), (PREFACE[:-1], True), (b"GET / HT", True),
])
def test_the_end_of_the_connection_decides(data, http2):
    opening, count = fed(BOTH, *[data] * bool(data), b"")
    assert (upgraded(opening), count, opening.data) == ((http2, None), 1 + bool(data), data)


def test_a_line_without_an_end_is_left_to_http1():
    opening, count = fed(PRIOR_KNOWLEDGE, *[b"x" * 1000] * 12)
    assert (opening.http2, count, len(opening.data)) == (False, 9, 9000)


@given(st.binary(max_size=40) | st.from_regex(rb"[A-Z]{1,4} /?[a-z ]{0,3} HTTP/[0-3][.][01]\r\n", fullmatch=True),
       st.integers(1, 40))
def test_pieces_do_not_matter(data, size):
    """However the octets are cut, the decision is the same; and without one, there is one at the end."""
    decided = set()
    for pieces in ([data], [data[start:start + size] for start in range(0, len(data), size)]):
        opening, count = fed(PRIOR_KNOWLEDGE, *filter(None, pieces), b"")
        assert count is not None
        assert data.startswith(opening.data)
        decided.add(opening.http2)
    assert len(decided) == 1


@pytest.mark.parametrize("cleartext", [UPGRADES, BOTH], ids=["upgrade", "both"])
def test_an_upgrade(cleartext):
    opening, _ = fed(cleartext, UPGRADE)
    assert (upgraded(opening), opening.data) == ((True, b"/up"), b"")


@pytest.mark.parametrize("cleartext", [UPGRADES, BOTH], ids=["upgrade", "both"])
def test_an_upgrade_octet_by_octet(cleartext):
    opening, count = fed(cleartext, *octets(UPGRADE))
    assert (upgraded(opening), count) == ((True, b"/up"), len(UPGRADE))


def test_what_follows_an_upgrade_is_kept():
    opening, _ = fed(UPGRADES, UPGRADE + PREFACE)
    assert (upgraded(opening), opening.data) == ((True, b"/up"), PREFACE)


def test_prior_knowledge_alone_takes_no_upgrade():
    opening, count = fed(PRIOR_KNOWLEDGE, UPGRADE, b"never")
    assert (upgraded(opening), count, opening.data) == ((False, None), 1, UPGRADE)


def test_a_method_that_begins_like_the_preface():
    """PROPFIND shares two letters with it, and may be anything then."""
    opening, count = fed(BOTH, b"P", b"R", b"OPFIND / HTTP/1.1\r\n", b"\r\n")
    assert (opening.http2, count, opening.data) == (False, 4, b"PROPFIND / HTTP/1.1\r\n\r\n")


def test_http1_with_all_its_octets():
    opening, count = fed(BOTH, HTTP1[:10], HTTP1[10:], b"never")
    assert (upgraded(opening), count, opening.data) == ((False, None), 2, HTTP1)


def test_a_head_without_an_end():
    opening, count = fed(UPGRADES, *[b"x" * 400] * 5)
    assert (opening.http2, count, len(opening.data)) == (False, 3, 1200)


def test_the_preface_is_nothing_special_with_upgrades_alone():
    opening, _ = fed(UPGRADES, PREFACE)
    assert (opening.http2, opening.upgrade, opening.data) == (False, None, PREFACE)
