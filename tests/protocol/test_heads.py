"""Request heads by header block: a short cut that nobody notices, on each codec."""

import pytest

from gunicorn_h2.protocol.codec_fast import FastCodec
from gunicorn_h2.protocol.codec_hpack import HpackCodec
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.headers import MalformedRequest, parse_request
from gunicorn_h2.protocol.heads import HeadCache

from .hpack_blocks import integer, literal, string
from .peer import END_HEADERS, END_STREAM, HEADERS, raw

WARM = b"\x82\x87\x84\xbf\xbe"


@pytest.fixture(params=[FastCodec, HpackCodec], ids=["fast", "hpack"])
def heads(request):
    """A cache over each codec."""
    return HeadCache(request.param(0))


def parsed(heads, block):
    """The head of a block that is not known yet."""
    return heads.find(block) or heads.parse(heads.decode(block))


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
            cache.keep(numbered(number), cache.parse(cache.decode(numbered(number))))

    for cache in caches:
        fill(cache)
    assert sum(len(cache.known) for cache in caches) <= HeadCache.total <= 16_384 + 4 * 200
    assert 0 < len(caches[-1].known) <= 4
    for cache in caches[:-1]:
        cache.close()
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
    head = parsed(heads, block)
    assert block not in heads.known
    heads.keep(block, head)
    assert heads.known == {block: head}


@pytest.mark.parametrize("block", [
    literal(0x40, b"x", b"1"), b"\x20\x82\x87\x84", b"\x82\x87\x84" + literal(0x40, b"x", b"1" * 5_000)])
def test_a_block_that_changes_the_table_ends_what_was_known(heads, block):
    head = parsed(heads, numbered(1))
    heads.keep(numbered(1), head)
    heads.decode(block)
    assert heads.known == {}
    heads.keep(block, head)
    assert heads.known == {}


def test_what_is_known_is_bounded(heads):
    """In number, and in octets."""
    for size in (5, 1_000, 3_000):
        heads.close()
        for number in range(300):
            block = numbered(number, size)
            heads.keep(block, parsed(heads, block))
            assert len(heads.known) <= 128
            assert sum(map(len, heads.known)) <= 16_384
        assert (numbered(0, size) in heads.known) == (size < 2_000)


def test_a_full_cache_makes_room_for_what_has_found_none_for_long(heads):
    for number in range(128 + 512):
        heads.keep(numbered(number), parsed(heads, numbered(number)))
    assert list(heads.known) == [numbered(639)]


# -- heads that differ in the path -------------------------------------------------------------------------------------


OTHERS = [(b"user-agent", b"x"), (b"cookie", b"a=b"), (b"priority", b"u=1, i"), (b"content-length", b"5"),
          (b"expect", b"100-continue")]


def section_of(path, *others, method=b"POST"):
    """A request's fields."""
    return [(b":method", method), (b":scheme", b"https"), (b":path", path), (b":authority", b"a.example"), *others]


def block_of(path, *others, **pseudo):
    """The block of a request; it leaves the table alone."""
    return b"".join(literal(0, name, value) for name, value in section_of(path, *others, **pseudo))


def test_a_connection_serves_requests_that_differ_in_their_path(connect):
    """The limit on their section still applies to each of them."""
    peer = connect(max_header_list_size=260)
    for number, path in enumerate([b"/first", b"/second", b"/third", b"/" + b"x" * 100]):
        block = b"\x82\x87" + b"\x04" + string(path) + literal(0, b":authority", b"a.example") + literal(0, b"x", b"y")
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number, block))
    first, *others = [event.stream.head for event in peer.of(RequestReceived)]
    assert [head.path for head in (first, *others)] == [b"/first", b"/second", b"/third"]
    assert [head.sibling for head in others] == [first, first]
    assert peer.answers[7].status == 431


def contents(head):
    """All that a head says."""
    return (head.method, head.scheme, head.authority, head.path, head.fields, head.content_length,
            head.expects_continue, head.list_size, head.priority, head.is_acceptable)


@pytest.mark.parametrize("path", [b"/", b"/a", b"/a/longer?one=1&two=2", b"/" + b"x" * 3_000])
def test_another_path_makes_another_head(heads, path):
    first = parsed(heads, block_of(b"/first", *OTHERS))
    head = parsed(heads, block_of(path, *OTHERS))
    assert head.sibling is first
    assert contents(head) == contents(parse_request(section_of(path, *OTHERS)))


def test_siblings_have_one_sibling(heads):
    first, second, third = (parsed(heads, block_of(path, *OTHERS)) for path in (b"/1", b"/2", b"/3"))
    assert (first.sibling, second.sibling, third.sibling) == (None, first, first)


@pytest.mark.parametrize("path", [b"", b"a", b"*", b"/ ", b"/\x00", b"/#", b"/\xff", b"http://a.example/"])
def test_a_wrong_path_is_wrong_whatever_came_before(heads, path):
    parsed(heads, block_of(b"/", *OTHERS))
    with pytest.raises(MalformedRequest):
        parsed(heads, block_of(path, *OTHERS))


def test_the_path_of_options_is_allowed_beside_others(heads):
    paths = [parsed(heads, block_of(path, method=b"OPTIONS")).path for path in (b"/", b"*", b"/a", b"*")]
    assert paths == [b"/", b"*", b"/a", b"*"]


def test_two_paths_are_wrong_whatever_came_before(heads):
    for _ in range(2):
        parsed(heads, block_of(b"/"))
        with pytest.raises(MalformedRequest):
            parsed(heads, literal(0, b":path", b"/") + block_of(b"/"))


def test_the_place_of_the_path_counts(heads):
    parsed(heads, block_of(b"/", *OTHERS))
    late = [field for field in section_of(b"/", *OTHERS) if field[0] != b":path"] + [(b":path", b"/")]
    with pytest.raises(MalformedRequest):
        parsed(heads, b"".join(literal(0, *field) for field in late))


def test_other_fields_make_another_head(heads):
    parsed(heads, block_of(b"/", (b"cookie", b"a=b")))
    assert parsed(heads, block_of(b"/", (b"cookie", b"a=c"))).fields == [(b"cookie", b"a=c")]


def test_siblings_are_bounded(heads):
    """In number, in octets, and like all heads in all connections together."""
    before = HeadCache.total
    for number in range(30):
        parsed(heads, block_of(b"/", (b"x-number", b"%d" % number)))
        parsed(heads, block_of(b"/", (b"x-number", b"%d" % number + b"x" * 2_000)))
        assert HeadCache.total - before <= 8
    heads.close()
    assert HeadCache.total == before


def test_no_siblings_are_kept_beyond_the_bound_of_all_connections(heads, monkeypatch):
    monkeypatch.setattr(HeadCache, "total", 16_384)
    parsed(heads, block_of(b"/1"))
    assert parsed(heads, block_of(b"/2")).sibling is None
    assert HeadCache.total == 16_384


def test_a_head_that_another_takes_the_place_of_counts_once(heads):
    before = HeadCache.total
    for path in (b"*", b"/", b"*"):
        parsed(heads, block_of(path, method=b"OPTIONS"))
    assert HeadCache.total == before + 1


# -- blocks that differ in a path that stays out of the table ----------------------------------------------------------


GET_HTTPS, FIELDS = b"\x82\x87", b"\xbf\xbe"
"""Indexed fields: the pseudo-header fields in front of the path, and the entries of the dynamic table."""


def path_of(path, first=0x04):
    """The path as a literal that does not enter the table, its name indexed."""
    return bytes([first, len(path)]) + path


def with_fields(heads, *fields):
    """Have these enter the dynamic table, and a request with them precede others of that kind."""
    parsed(heads, GET_HTTPS + path_of(b"/") + b"".join(literal(0x40, *field) for field in fields))
    parsed(heads, GET_HTTPS + path_of(b"/first") + FIELDS)


@pytest.mark.parametrize("path", [
    path_of(b"/"), path_of(b"/a?b=c"), path_of(b"/never", 0x14), path_of(b"/other", 0x05), path_of(b"/x", 0x15),
    b"\x04" + string(b"/coded", huffman=True), b"\x04" + string(b"/" + b"x" * 200),
    b"\x04" + string(b"/" + b"x" * 200, huffman=True), b"\x84", literal(0, b":path", b"/a")])
def test_a_path_is_read_as_in_a_block_that_was_never_seen(heads, path):
    """Huffman-coded or not, whatever says that it stays out of the table, and if it is no short literal."""
    fields = [(b"x-a", b"1"), (b"x-b", b"2")]
    with_fields(heads, *fields)
    section = FastCodec(0).decode(GET_HTTPS + path) + fields
    for _ in range(2):
        assert contents(parsed(heads, GET_HTTPS + path + FIELDS)) == contents(parse_request(section))


def test_the_table_may_have_moved_on(heads):
    with_fields(heads, (b"x-a", b"1"), (b"x-b", b"2"))
    heads.decode(literal(0x40, b"x-c", b"3"))
    assert parsed(heads, GET_HTTPS + path_of(b"/a") + FIELDS).fields == [(b"x-b", b"2"), (b"x-c", b"3")]


def test_a_block_with_a_path_may_change_the_table_each_time(heads):
    for path in (b"/1", b"/2"):
        parsed(heads, GET_HTTPS + path_of(path) + literal(0x40, b"x-a", b"1"))
    assert parsed(heads, GET_HTTPS + path_of(b"/3") + FIELDS).fields == [(b"x-a", b"1")] * 2


def test_an_index_of_two_octets_is_no_path(heads):
    for number in range(100):
        heads.decode(literal(0x40, b"x", b"%d" % number))
    for _ in range(2):
        head = parsed(heads, GET_HTTPS + b"\x84" + integer(0x80, 7, 131) + b"\xbe" * 40)
        assert head.fields == [(b"x", b"30")] + [(b"x", b"99")] * 40


def test_a_path_behind_other_fields_is_wrong_whatever_came_before(heads):
    with_fields(heads, (b"x-a", b"1"), (b"x-b", b"2"))
    with pytest.raises(MalformedRequest):
        parsed(heads, GET_HTTPS + FIELDS + path_of(b"/a"))


@pytest.mark.parametrize("path", [b"", b"a", b"*", b"/ ", b"/\x00", b"/#"])
def test_a_wrong_path_is_wrong_beside_what_is_known(heads, path):
    with_fields(heads, (b"x-a", b"1"), (b"x-b", b"2"))
    with pytest.raises(MalformedRequest):
        parsed(heads, GET_HTTPS + path_of(path) + FIELDS)


@pytest.mark.parametrize("path", [b"\x04", b"\x04\x05/", b"\x04\x81", b"\x04\x81\x00"])
def test_a_path_that_is_cut_off_or_no_text_ends_the_connection(heads, path):
    parsed(heads, GET_HTTPS + path_of(b"/"))
    with pytest.raises(ConnectionFailure) as caught:
        parsed(heads, GET_HTTPS + path)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_head_with_another_path_is_kept_like_others(heads):
    heads.decode(literal(0x40, b"x-a", b"1"))
    for path in (b"/1", b"/2", b"/3"):
        block = GET_HTTPS + path_of(path) + b"\xbe"
        heads.keep(block, parsed(heads, block))
    assert [head.path for head in heads.known.values()] == [b"/1", b"/2", b"/3"]


def test_what_stands_beside_paths_is_bounded(heads):
    """In number and in octets, though the same fields have many encodings."""
    for number in range(30):
        first = [0x10 if number >> bit & 1 else 0 for bit in range(5)]
        parsed(heads, GET_HTTPS + path_of(b"/") + b"".join(literal(each, b"x", b"y") for each in first))
        assert len(heads._rests) <= 8
    for number in range(30):
        parsed(heads, GET_HTTPS + path_of(b"/") + literal(0, b"x-number", b"%d" % number + b"x" * 600))
        assert sum(map(len, heads._rests)) <= 4096
    heads.close()
    assert not heads._rests
