"""The engines' own cleverness: caches of header blocks, table sizes. None of it may be seen from outside."""

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.events import RequestReceived

from .peer import END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, HEADERS, fields, raw, settings

names = st.sampled_from([b"x-a", b"x-b", b"content-type", b"etag", b"set-cookie", b"accept", b"location"])
values = st.sampled_from([b"", b"1", b"text/html", b"v" * 300, b"w" * 4_200])
some_fields = st.lists(st.tuples(names, values), max_size=5)


def block_of(frames):
    """The header block in an engine's frames."""
    block = b""
    while frames:
        length = int.from_bytes(frames[:3], "big")
        block, frames = block + frames[9:9 + length], frames[9 + length:]
    return block


def opened(engine, *stream_ids):
    """An engine with streams to answer on."""
    made = engine(65_536)
    made.receive_frame(settings())
    for stream_id in stream_ids:
        made.receive_headers(stream_id, fields(), True)
    return made


@given(st.lists(st.tuples(some_fields, st.booleans()), max_size=12), st.lists(st.integers(0, 8_192), max_size=12))
def test_blocks_are_decoded_as_without_a_cache(engine, sections, sizes):
    made, plain, encoder = engine(65_536), Decoder(), Encoder()
    for number, (section, again) in enumerate(sections):
        if number < len(sizes) and sizes[number] <= 4_096:
            encoder.header_table_size = sizes[number]
        block = encoder.encode(section)
        expected = [tuple(field) for field in plain.decode(block, raw=True)]
        assert [tuple(field) for field in made.decode_headers(block)] == expected == section
        if again and not block[:1] > b"\x1f" and block == encoder.encode(section):
            plain.decode(block, raw=True)
            assert [tuple(field) for field in made.decode_headers(block)] == section


@given(st.lists(st.tuples(some_fields, st.integers(1, 3)), max_size=10),
       st.lists(st.lists(st.sampled_from([0, 40, 100, 4_096, 10_000, 2**32 - 1]), max_size=3), max_size=10))
def test_sections_are_encoded_as_any_client_can_read(engine, sections, sizes):
    decoder = Decoder(max_header_list_size=2**20)
    made = opened(engine, *range(1, 2 * 40, 2))
    stream_id = 1
    for number, (section, repeats) in enumerate(sections):
        for size in sizes[number] if number < len(sizes) else ():
            made.receive_frame(settings((HEADER_TABLE_SIZE, size)))
            # The client's limit for our encoder; a decoder checks that the table was shrunk to it.
            decoder.max_allowed_table_size = size
        for _ in range(repeats):
            section = [(b":status", b"200"), *section[:5]] if section[:1] != [(b":status", b"200")] else section
            block = block_of(made.send_headers(stream_id, section, True))
            assert [tuple(field) for field in decoder.decode(block, raw=True)] == section
            stream_id += 2


def test_a_repeated_section_is_encoded_alike(engine):
    made = opened(engine, 1, 3, 5)
    section = [(b":status", b"200"), (b"x-a", b"1")]
    first, second, third = (block_of(made.send_headers(stream_id, section, True)) for stream_id in (1, 3, 5))
    assert first != second == third
    assert len(second) == 2


@pytest.mark.parametrize("sizes", [[0], [0, 0], [0, 4_096], [100, 0, 50, 200], [200, 100], [2**32 - 1], [4_096, 0]])
def test_the_clients_table_size_is_announced_as_the_rfc_says(engine, sizes):
    """RFC 7541 section 4.2: at most two updates, the smallest and the last; none where nothing changed."""
    made = opened(engine, 1, 3)
    for size in sizes:
        made.receive_frame(settings((HEADER_TABLE_SIZE, size)))
    block = block_of(made.send_headers(1, [(b":status", b"200")], True))
    updates, decoder = 0, Decoder()
    while block[updates_end(block, updates)] & 0xE0 == 0x20:
        updates += 1
    assert updates == (2 if min(sizes) < sizes[-1] and min(sizes) < 4_096 else 1)
    decoder.max_allowed_table_size = max(sizes)
    assert list(decoder.decode(block, raw=True)) == [(b":status", b"200")]
    assert decoder.header_table_size == min(sizes[-1], 65_536)
    assert len(block_of(made.send_headers(3, [(b":status", b"200")], True))) == 1


def updates_end(block, count):
    """The position behind a number of table size updates."""
    position = 0
    for _ in range(count):
        continued = block[position] & 0x1F == 0x1F
        position += 1
        while continued:
            continued = block[position] >= 0x80
            position += 1
    return position


def test_a_huge_table_is_not_filled(engine, connect):
    """The client's limit of 4 GiB is no reason to remember 4 GiB of what it asked for."""
    peer = connect([(HEADER_TABLE_SIZE, 2**32 - 1)])
    peer.decoder.max_allowed_table_size = 2**32 - 1
    for number in range(100):
        peer.respond(peer.open(), b"x", [(b"x-answer", b"%04d" % number * 1_000)])
    assert sum(len(name) + len(value) + 32 for name, value in peer.decoder.header_table.dynamic_entries) <= 65_536
    assert peer.answers[199].head[1] == (b"x-answer", b"0099" * 1_000)


def test_the_cache_of_blocks_is_bounded(engine):
    made = engine(65_536)
    for _ in range(2):
        for number in range(200):
            block = b"\x10\x03x-a\x03%03d" % number
            assert [tuple(field) for field in made.decode_headers(block)] == [(b"x-a", b"%03d" % number)]


def test_a_failed_block_is_an_error_each_time(engine):
    made = engine(65_536)
    for _ in range(2):
        with pytest.raises(ConnectionFailure) as caught:
            made.decode_headers(b"\x80")
        assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_what_only_the_engine_knows_to_be_wrong_has_its_code(engine):
    """The core refuses these before; an engine is not to be trusted less for it."""
    for frame, code in ((raw(0x4, 0, 0, b"12345"), ErrorCode.FRAME_SIZE_ERROR),
                        (settings((0x8, 2)), ErrorCode.PROTOCOL_ERROR)):
        with pytest.raises(ConnectionFailure) as caught:
            opened(engine, 1).receive_frame(frame)
        assert caught.value.code is code


def test_values_that_seldom_repeat_do_not_fill_the_table(connect):
    peer = connect()
    for number in range(10):
        peer.respond(peer.open(), b"x", [(b"etag", b"%d" % number), (b"content-length", b"1"), (b"x-a", b"1")])
    assert list(peer.decoder.header_table.dynamic_entries) == [(b"x-a", b"1")]


def test_setting_8_of_a_wrong_value_is_refused(peer):
    """SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441) is 0 or 1."""
    peer.send(settings((0x8, 2))).assert_goaway(ErrorCode.PROTOCOL_ERROR)


def test_a_block_is_served_from_the_cache_while_the_table_is_the_same(peer):
    block = b"\x82\x87\x84\x41\x0bexample.org\x40\x03x-a\x011"
    warm = b"\x82\x87\x84\xbf\xbe"
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1, block))
    for stream_id in (3, 5):
        peer.send(raw(HEADERS, END_HEADERS | END_STREAM, stream_id, warm))
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 7, b"\x82\x87\x84\xbf\x40\x03x-b\x012"))
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 9, warm))
    served = [event.stream.head for event in peer.of(RequestReceived)]
    assert [head.fields for head in served[:4]] == [[(b"x-a", b"1")]] * 3 + [[(b"x-b", b"2")]]
    assert {head.authority for head in served[:4]} == {b"example.org"}
    # The same octets mean something else now that the table has moved on.
    assert (served[4].authority, served[4].fields) == (b"", [(b"x-a", b"1"), (b"x-b", b"2")])
