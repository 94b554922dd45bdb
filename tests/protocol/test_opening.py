"""The first octets of a connection in the clear: prior knowledge, an upgrade, or HTTP/1."""

import pytest

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


def test_what_cannot_be_the_preface_is_http1_at_once():
    opening, count = fed(PRIOR_KNOWLEDGE, b"G", HTTP1[1:])
    assert (opening.http2, count, opening.data) == (False, 1, b"G")


@pytest.mark.parametrize("same", range(1, len(PREFACE)))
def test_what_begins_like_the_preface(same):
    """Nothing of it is lost, however late it differs."""
    data = PREFACE[:same] + b"?"
    opening, count = fed(PRIOR_KNOWLEDGE, *octets(data), b"never")
    assert (opening.http2, count, opening.data) == (False, same + 1, data)


@pytest.mark.parametrize("data", [b"", b"PRI", PREFACE[:-1], UPGRADE[:-1]])
def test_the_end_of_the_connection_decides(data):
    opening, count = fed(BOTH, *[data] * bool(data), b"")
    assert (upgraded(opening), count, opening.data) == ((False, None), 1 + bool(data), data)


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
