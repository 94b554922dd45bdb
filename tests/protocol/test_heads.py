"""Request heads by header block: a short cut that nobody notices, on each codec."""

import pytest

from gunicorn_h2.protocol.codec_fast import FastCodec
from gunicorn_h2.protocol.codec_hpack import HpackCodec
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.heads import HeadCache

from .hpack_blocks import literal
from .peer import END_HEADERS, END_STREAM, HEADERS, raw

WARM = b"\x82\x87\x84\xbf\xbe"


@pytest.fixture(params=[FastCodec, HpackCodec], ids=["fast", "hpack"])
def heads(request):
    """A cache over each codec."""
    return HeadCache(request.param(0))


def numbered(number, size=5):
    """A request's block that is like no other and leaves the table alone."""
    return b"\x82\x87\x84" + literal(0, b"x", b"%0*d" % (size, number))


def test_a_block_means_the_same_while_the_table_does(peer):
    def send(stream_id, block):
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, stream_id, block))

    send(1, b"\x82\x87\x84\x41\x0bexample.org\x40\x03x-a\x011")
    for stream_id in (3, 5):
        send(stream_id, WARM)
    send(7, b"\x82\x87\x84\xbf\x40\x03x-b\x012")
    send(9, WARM)
    served = [event.stream.head for event in peer.of(RequestReceived)]
    assert [head.fields for head in served[:4]] == [[(b"x-a", b"1")]] * 3 + [[(b"x-b", b"2")]]
    assert {head.authority for head in served[:4]} == {b"example.org"}
    # The same octets mean something else now that the table has moved on.
    assert (served[4].authority, served[4].fields) == (b"", [(b"x-a", b"1"), (b"x-b", b"2")])


def test_a_refused_block_is_refused_each_time(peer):
    for stream_id in (1, 3, 5):
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, stream_id, b"\x82\x87\x84" + literal(0, b"X", b"1")))
    assert peer.refused == [1, 3, 5]


def test_the_heads_of_all_connections_are_bounded(monkeypatch):
    """Beyond the bound each connection keeps a few, and those that end make room."""
    monkeypatch.setattr(HeadCache, "total", 0)
    caches = [HeadCache(FastCodec(0)) for _ in range(200)]

    def fill(cache):
        for number in range(100):
            cache.keep(numbered(number), cache.decode_head(numbered(number)))

    for cache in caches:
        fill(cache)
    assert HeadCache.total == sum(len(cache.known) for cache in caches) <= 16_384 + 4 * 200
    assert 0 < len(caches[-1].known) <= 4
    for cache in caches[:-1]:
        cache.clear()
    fill(caches[-1])
    assert len(caches[-1].known) > 50


def test_a_connection_that_ends_forgets_its_heads(peer):
    before = HeadCache.total
    peer.open()
    peer.open()
    assert HeadCache.total > before
    peer.core.receive_eof()
    assert HeadCache.total <= before


def test_requests_of_one_block_share_a_head(heads):
    block = numbered(1)
    head = heads.decode_head(block)
    assert block not in heads.known
    heads.keep(block, head)
    assert heads.known == {block: head}


@pytest.mark.parametrize("block", [
    literal(0x40, b"x", b"1"), b"\x20\x82\x87\x84", b"\x82\x87\x84" + literal(0x40, b"x", b"1" * 5_000)])
def test_a_block_that_changes_the_table_ends_what_was_known(heads, block):
    head = heads.decode_head(numbered(1))
    heads.keep(numbered(1), head)
    heads.decode(block)
    assert heads.known == {}
    heads.keep(block, head)
    assert heads.known == {}


def test_what_is_known_is_bounded(heads):
    """In number, and in octets."""
    for size in (5, 1_000, 3_000):
        for number in range(300):
            block = numbered(number, size)
            heads.keep(block, heads.decode_head(block))
            assert len(heads.known) <= 128
            assert sum(map(len, heads.known)) <= 16_384
            assert (block in heads.known) == (size < 2_000)
