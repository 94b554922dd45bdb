"""Header blocks, CONTINUATION and HPACK (RFC 9113 sections 4.3 and 6.10, RFC 7541)."""

import pytest
from hpack import Encoder

from gunicorn_h2.protocol.errors import Budget, ErrorCode
from gunicorn_h2.protocol.events import RequestReceived, RequestRefused, TrailersReceived

from .peer import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    data,
    fields,
    ping,
    priority,
    raw,
    rst_stream,
    window_update,
)

BOMB = b"\x82\x87\x84\x41\x01a"


def pieces(peer, stream_id, section, size):
    """A header block as HEADERS and CONTINUATION frames of `size` octets."""
    block = peer.encoder.encode(section)
    fragments = [block[start:start + size] for start in range(0, len(block), size)]
    last = len(fragments) - 1
    return [raw(CONTINUATION if number else HEADERS,
                END_HEADERS * (number == last) | END_STREAM * (not number), stream_id, fragment)
            for number, fragment in enumerate(fragments)]


def test_a_block_may_come_in_pieces(peer):
    section = fields((b"x-long", b"0123456789" * 5))
    frames = pieces(peer, 1, section, 12)
    assert len(frames) > 3
    peer.send(*frames)
    request, = peer.of(RequestReceived)
    assert request.end_stream
    assert request.stream.head.fields == [(b"x-long", b"0123456789" * 5)]


def test_pieces_may_be_empty(peer):
    block = peer.encoder.encode(fields())
    peer.send(raw(HEADERS, END_STREAM, 1), raw(CONTINUATION, 0, 1), raw(CONTINUATION, 0, 1, block),
              raw(CONTINUATION, END_HEADERS, 1))
    assert len(peer.of(RequestReceived)) == 1


def test_padding_is_not_part_of_the_block(peer):
    peer.send(peer.headers(1, flags=PADDED | END_HEADERS, before=b"\x04", after=bytes(4)))
    assert len(peer.of(RequestReceived)) == 1


@pytest.mark.parametrize("frame", [
    ping(), data(1, b"x"), window_update(0, 1), rst_stream(1), priority(1), raw(0xFA), raw(HEADERS, 4, 3, b"\x82"),
    raw(HEADERS, 4, 1, b"\x82"), raw(CONTINUATION, 4, 3, b"\x82"), raw(CONTINUATION, 4, 0, b"\x82")])
def test_nothing_may_come_between_the_pieces(peer, frame):
    peer.send(raw(HEADERS, 0, 1, b"\x82"), frame).assert_goaway(ErrorCode.PROTOCOL_ERROR, 0)


def test_a_block_that_ended_has_no_continuation(peer):
    peer.send(peer.headers(1), raw(CONTINUATION, END_HEADERS, 1)).assert_goaway(ErrorCode.PROTOCOL_ERROR, 1)


HPACK_ERRORS = {
    "index 0": b"\x80",
    "an index beyond the table": b"\xff\xff\x03",
    "a name's index beyond the table": b"\x7f\x7f\x01x",
    "an integer without its end": b"\xff",
    "an endless integer": b"\xff" + b"\xff" * 20,
    "a literal cut off": b"\x40\x0aabc",
    "a literal without a value": b"\x40\x01a",
    "a wrong Huffman code": b"\x40\x84\xff\xff\xff\xff\x01x",
    "Huffman padding of zeros": b"\x00\x01a\x81\x18\x0a"[:4] + b"\x81\x00",
    "a table size beyond the limit": b"\x3f\xe2\x1f\x82",
    "a table size update behind a field": b"\x82\x20",
}


@pytest.mark.parametrize("name", HPACK_ERRORS)
def test_an_hpack_error_is_a_compression_error(peer, name):
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1, HPACK_ERRORS[name]), ping())
    peer.assert_goaway(ErrorCode.COMPRESSION_ERROR)
    assert peer.pings == []


def test_an_hpack_error_in_trailers_is_a_compression_error(peer):
    peer.open(end=False)
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80")).assert_goaway(ErrorCode.COMPRESSION_ERROR, 1)


def test_up_to_two_table_size_updates_are_normal(peer):
    """RFC 7541 section 4.2: the smallest size since the last block, then the current one."""
    encoder = Encoder()
    for stream_id in (1, 3, 5):
        encoder.header_table_size = 0
        encoder.header_table_size = 4096
        block = encoder.encode(fields((b"x-indexed", b"again")))
        assert block[:4] == b"\x20\x3f\xe1\x1f"
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, stream_id, block))
    assert [request.stream.head.fields for request in peer.of(RequestReceived)] == [[(b"x-indexed", b"again")]] * 3


def test_the_table_is_shared_by_all_blocks(peer):
    """Those of requests that are refused, and trailers, count too."""
    peer.send(peer.headers(1, [(b":method", b"GET"), (b"x-first", b"1")]))
    assert peer.refused == [1]
    peer.send(peer.headers(3, fields((b"x-second", b"2")), end=False), peer.headers(3, [(b"x-third", b"3")]))
    section = fields((b"x-first", b"1"), (b"x-second", b"2"), (b"x-third", b"3"))
    peer.send(peer.headers(5, section))
    assert peer.of(RequestReceived)[-1].stream.head.fields == section[4:]


def test_a_list_beyond_the_limit_is_answered_431(connect):
    peer = connect(max_header_list_size=2_000)
    assert peer.open((b"x-large", b"v" * 1_900)) is None
    assert (peer.answers[1].status, peer.answers[1].ended, peer.refused) == (431, True, [1])
    (refusal,) = peer.of(RequestRefused)
    assert (refusal.status, refusal.head.path, refusal.head.fields) == (431, b"/", [(b"x-large", b"v" * 1_900)])
    peer.assert_alive()
    assert peer.open((b"x-small", b"v")) is not None


def test_a_list_of_exactly_the_limit_is_accepted(connect):
    section = fields((b"x-large", b""))
    size = sum(len(name) + len(value) + 32 for name, value in section)
    peer = connect(max_header_list_size=size + 500)
    assert peer.open((b"x-large", b"v" * 500)) is not None
    assert peer.open((b"x-large", b"v" * 501)) is None


def test_a_431_asks_for_no_body(connect):
    peer = connect(max_header_list_size=2_000)
    peer.open((b"x-large", b"v" * 1_900), end=False, method=b"POST")
    peer.wait(0.2)
    assert (peer.answers[1].status, peer.resets) == (431, [(1, ErrorCode.NO_ERROR)])
    peer.send(data(1, b"late"))
    peer.assert_alive()


def test_a_list_that_explodes_ends_the_connection(connect):
    """A few octets that name a large entry of the table many times (an HPACK bomb)."""
    peer = connect(max_header_list_size=4_000)
    peer.open((b"x-large", b"v" * 3_000))
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 3, BOMB + b"\xbf" * 1_000))
    peer.assert_goaway(ErrorCode.ENHANCE_YOUR_CALM, budget=Budget.HEADER_LIST_TOO_LARGE)


def test_without_a_limit_large_lists_pass(connect):
    peer = connect(max_header_list_size=0, max_header_fields=300)
    section = fields(*[(b"x-%d" % number, b"v" * 1_000) for number in range(200)])
    peer.send(*pieces(peer, 1, section, 16_384))
    assert len(peer.of(RequestReceived)[0].stream.head.fields) == 200


# -- the number of fields --------------------------------------------------------------------------------------------


def numbered(count):
    """So many fields."""
    return [(b"x-%d" % number, b"v") for number in range(count)]


def test_as_many_fields_as_the_limit_are_accepted(connect):
    """The host is one of them (`:authority`), and all cookies are one (RFC 9113 section 8.2.3)."""
    peer = connect(max_header_fields=10)
    cookies = [(b"cookie", b"c%d=1" % number) for number in range(50)]
    assert peer.open(*numbered(8), *cookies) is not None
    assert peer.open(*numbered(9), *cookies) is None
    assert peer.open(*numbered(9)) is not None
    assert peer.open(*numbered(8), (b"host", b"example.org"), *cookies) is not None
    assert peer.open(*numbered(10), authority=None) is not None
    assert peer.open(*numbered(10)) is None
    assert [(refusal.status, refusal.reason) for refusal in peer.of(RequestRefused)] == [
        (431, "too many header fields")] * 2
    peer.assert_alive()


def test_a_refusal_shows_the_first_fields(connect):
    """For the log."""
    peer = connect(max_header_fields=10)
    peer.open(*numbered(20), path=b"/logged")
    (refusal,) = peer.of(RequestRefused)
    assert refusal.head.path == b"/logged"
    assert refusal.head.fields == numbered(6)


def test_too_many_cookies_are_too_many_fields(connect):
    peer = connect(max_header_fields=10)
    assert peer.open(*[(b"cookie", b"c%d=1" % number) for number in range(300)]) is None
    assert peer.answers[1].status == 431


def test_a_malformed_request_with_too_many_fields_is_malformed(connect):
    peer = connect(max_header_fields=10)
    peer.open((b"X-Upper", b"1"), *numbered(20))
    assert peer.resets == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_the_table_is_in_step_after_too_many_fields(connect):
    peer = connect(max_header_fields=10)
    assert peer.open(*numbered(400)) is None
    # The newest fields are named by their indexes now.
    request = peer.open(*numbered(400)[-9:])
    assert request.head.fields == numbered(400)[-9:]


@pytest.mark.parametrize("trailers", [numbered(11), [(b"x-large", b"v" * 3_000)]], ids=["many", "large"])
def test_trailers_have_the_same_limits(connect, trailers):
    peer = connect(max_header_fields=10, max_header_list_size=2_000)
    peer.open(end=False)
    peer.send(peer.headers(1, trailers))
    assert peer.resets == [(1, ErrorCode.ENHANCE_YOUR_CALM)]
    peer.assert_alive()


def test_trailers_at_the_limit_are_accepted(connect):
    peer = connect(max_header_fields=10)
    peer.open(end=False)
    peer.send(peer.headers(1, numbered(10)))
    assert peer.of(TrailersReceived)[0].fields == numbered(10)
