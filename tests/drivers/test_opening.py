"""The first octets of a connection in the clear: prior knowledge, an upgrade, or HTTP/1."""

import pytest

from gunicorn_h2.drivers.opening import Opening
from gunicorn_h2.protocol.upgrade import validate_upgrade
from tests.support.h2client import PREFACE

HTTP1 = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FIELDS = [(b"host", b"a"), (b"connection", b"upgrade, http2-settings"), (b"upgrade", b"h2c"), (b"http2-settings", b"")]
UPGRADE = validate_upgrade(b"GET", b"/", FIELDS, b"")


def parse(data):
    """Judge as a worker's parser would: a request ends with an empty line, and U is one that asks for an upgrade."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return len(data) < 100
    return (UPGRADE, rest) if head.startswith(b"U") else False


def fed(opening, *pieces):
    """Feed pieces to an opening until it has decided; return it, and how many it took."""
    for count, piece in enumerate(pieces, 1):
        if opening.feed(piece):
            return opening, count
    return opening, None


def octets(data):
    """One octet at a time."""
    return [data[number:number + 1] for number in range(len(data))]


@pytest.mark.parametrize("parser", [None, parse], ids=["prior-knowledge", "both"])
@pytest.mark.parametrize("rest", [b"", b"\0\0\0\4\0\0\0\0\0"], ids=["alone", "with-settings"])
def test_the_preface(parser, rest):
    opening, _ = fed(Opening(True, parser), PREFACE + rest)
    assert (opening.http2, opening.upgrade, opening.data) == (True, None, PREFACE + rest)


@pytest.mark.parametrize("parser", [None, parse], ids=["prior-knowledge", "both"])
def test_the_preface_octet_by_octet(parser):
    opening, count = fed(Opening(True, parser), *octets(PREFACE))
    assert (opening.http2, count, opening.data) == (True, len(PREFACE), PREFACE)


def test_what_cannot_be_the_preface_is_http1_at_once():
    opening, count = fed(Opening(True), b"G", HTTP1[1:])
    assert (opening.http2, count, opening.data) == (False, 1, b"G")


@pytest.mark.parametrize("same", range(1, len(PREFACE)))
def test_what_begins_like_the_preface(same):
    """Nothing of it is lost, however late it differs."""
    data = PREFACE[:same] + b"?"
    opening, count = fed(Opening(True), *octets(data), b"never")
    assert (opening.http2, count, opening.data) == (False, same + 1, data)


@pytest.mark.parametrize("data", [b"", b"PRI", PREFACE[:-1]])
def test_the_end_of_the_connection_decides(data):
    opening = Opening(True, parse)
    assert not data or not opening.feed(data)
    assert opening.feed(b"")
    assert (opening.http2, opening.upgrade, opening.data) == (False, None, data)


def test_an_upgrade():
    opening, _ = fed(Opening(True, parse), b"U\r\n\r\n")
    assert (opening.http2, opening.upgrade, opening.data) == (True, UPGRADE, b"")


def test_an_upgrade_octet_by_octet():
    opening, count = fed(Opening(True, parse), *octets(b"UP\r\n\r\n"))
    assert (opening.http2, opening.upgrade, count) == (True, UPGRADE, 6)


def test_what_follows_an_upgrade_is_kept():
    opening, _ = fed(Opening(False, parse), b"U\r\n\r\n" + PREFACE)
    assert (opening.upgrade, opening.data) == (UPGRADE, PREFACE)


def test_a_method_that_begins_like_the_preface():
    """PROPFIND shares two letters with it, and may be anything then."""
    opening, count = fed(Opening(True, parse), b"P", b"R", b"OPFIND / HTTP/1.1\r\n", b"\r\n")
    assert (opening.http2, count, opening.data) == (False, 4, b"PROPFIND / HTTP/1.1\r\n\r\n")


def test_http1_with_all_its_octets():
    opening, count = fed(Opening(True, parse), HTTP1[:10], HTTP1[10:], b"never")
    assert (opening.http2, opening.upgrade, count, opening.data) == (False, None, 2, HTTP1)


def test_the_parser_gives_up():
    opening, count = fed(Opening(False, parse), *[b"x" * 40] * 5)
    assert (opening.http2, count, len(opening.data)) == (False, 3, 120)


def test_the_preface_is_nothing_special_with_upgrades_alone():
    opening, _ = fed(Opening(False, parse), PREFACE)
    assert (opening.http2, opening.upgrade, opening.data) == (False, None, PREFACE)
