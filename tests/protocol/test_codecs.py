"""The codec's seam (RFC 7541): what the core relies on, of each codec alike."""

import hpack
import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.codec_fast import FastCodec
from gunicorn_h2.protocol.codec_hpack import HpackCodec
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode

from .hpack_blocks import dynamic_table, integer, literal, size_update

TABLE_SIZE = 4096
names = st.sampled_from([b"x-a", b"x-b", b"content-type", b"etag", b"set-cookie", b"accept", b":status", b"location"])
values = st.sampled_from([b"", b"1", b"200", b"text/html", b"v" * 127, b"w" * 300, b"\x00\xff", b"x" * 4_200])
sections = st.lists(st.tuples(names, values), max_size=6)


@pytest.fixture(params=[FastCodec, HpackCodec], ids=["fast", "hpack"])
def make(request):
    """A function that makes the codec under test."""
    return request.param


@pytest.fixture
def codec(make):
    return make(0)


def refusal(codec, block):
    """The error code with which a block is refused."""
    with pytest.raises(ConnectionFailure) as caught:
        codec.decode(block)
    return caught.value.code


# -- decoding ----------------------------------------------------------------------------------------------------------


BROKEN_BLOCKS = {
    "the index 0": b"\x80",
    "an index beyond the static table": b"\xbe",
    "an index beyond the dynamic table": literal(0x40, b"x-a", b"1") + b"\xbf",
    "an index of two octets beyond the dynamic table": integer(0x80, 7, 190),
    "the largest index": integer(0x80, 7, 2**34),
    "a name beyond the static table": integer(0x40, 6, 62) + b"\0",
    "a name beyond the static table, not indexed": integer(0x00, 4, 62) + b"\0",
    "a name beyond the static table, never indexed": integer(0x10, 4, 62) + b"\0",
    "an integer that never ends": b"\xff" + b"\x80" * 100,
    "an integer of zeros that ends late": b"\x82\xff" + b"\x80" * 5 + b"\0",
    "an integer that is cut off": b"\xff\x80",
    "an index without its second octet": b"\xff",
    "a literal without a name": b"\x40",
    "a literal without a value": b"\x40\x01x",
    "a literal with an indexed name, without a value": b"\x41",
    "a name that is cut off": b"\x40\x03x-",
    "a value that is cut off": b"\x40\x01x\x03no",
    "a length that is cut off": b"\x40\x01x\x7f",
    "a value of 32 GiB": b"\x40\x01x" + integer(0, 7, 2**35 - 1),
    "a size update that is cut off": b"\x3f",
    "a size update beyond the setting": size_update(TABLE_SIZE + 1),
    "a size update of 4 GiB": size_update(2**32 - 1),
    "a size update behind a field": b"\x82" + size_update(0),
    "a size update behind a literal": literal(0, b"x", b"1") + size_update(TABLE_SIZE),
    "a Huffman-coded name with EOS": b"\x40\x84\xff\xff\xff\xff\0",
    "a Huffman-coded value with EOS": b"\x00\x01x\x84\xff\xff\xff\xff",
    "Huffman padding of zeros": b"\x00\x01x\x81\x00",
    "Huffman padding of an octet": b"\x00\x01x\x82\x1f\xff",
}


@pytest.mark.parametrize("name", BROKEN_BLOCKS)
def test_a_broken_block_is_a_compression_error(codec, name):
    assert refusal(codec, BROKEN_BLOCKS[name]) is ErrorCode.COMPRESSION_ERROR


def test_a_broken_block_is_refused_each_time(codec):
    assert {refusal(codec, b"\x82\x80") for _ in range(3)} == {ErrorCode.COMPRESSION_ERROR}


@pytest.mark.parametrize("first", [0x00, 0x10, 0x40], ids=["without indexing", "never indexed", "incremental"])
@pytest.mark.parametrize("huffman", [False, True], ids=["plain", "huffman"])
@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 300, 16_384, 40_000])
def test_literals_of_any_length(codec, first, huffman, size):
    field = (b"n" * size, b"7" * size)
    assert codec.decode(literal(first, *field, huffman) + b"\x82") == [field, (b":method", b"GET")]


@pytest.mark.parametrize("literals", range(3))
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 127, 128, 129, 1_000])
def test_runs_of_indexed_fields_of_any_length(codec, count, literals):
    block = (literal(0, b"x", b"1") * literals + b"\x82" * count) * 2
    assert codec.decode(block) == ([(b"x", b"1")] * literals + [(b":method", b"GET")] * count) * 2


@pytest.mark.parametrize("first", [0x00, 0x10])
def test_what_is_not_indexed_leaves_the_table_alone(codec, first):
    assert codec.decode(literal(first, b"x-a", b"1") * 3) == [(b"x-a", b"1")] * 3
    assert codec.changes == 0
    assert dynamic_table(codec) == []


def test_an_indexed_name_may_be_evicted_by_its_own_field(codec):
    """RFC 7541 section 4.4."""
    codec.decode(literal(0x40, b"x-name", b"v" * 4_000))
    assert codec.decode(b"\x7e\x7f" + integer(0, 7, 3_900)[1:] + b"w" * 3_900) == [(b"x-name", b"w" * 3_900)]
    assert dynamic_table(codec) == [(b"x-name", b"w" * 3_900)]


@pytest.mark.parametrize(("size", "kept"), [(1_337, True), (1_338, False)])
def test_an_entry_as_large_as_the_table_stays_and_a_larger_one_empties_it(codec, size, kept):
    """RFC 7541 sections 4.4 and C.1.2."""
    codec.decode(b"\x3f\x9a\x0a" + literal(0x40, b"x-a", b"1"))
    large = (b"x-b", b"v" * (size - 35))
    assert codec.decode(literal(0x40, *large)) == [large]
    assert dynamic_table(codec) == ([large] if kept else [])


@pytest.mark.parametrize(("update", "kept"), [
    (size_update(TABLE_SIZE), 3), (size_update(108), 3), (size_update(107), 2), (size_update(36), 1),
    (size_update(35), 0), (size_update(0), 0), (size_update(0) + size_update(TABLE_SIZE), 0),
    (size_update(72) + size_update(TABLE_SIZE), 2)])
def test_a_size_update_evicts_the_oldest(codec, update, kept):
    fields = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]
    codec.decode(b"".join(literal(0x40, *field) for field in fields))
    assert codec.decode(update + b"\x82") == [(b":method", b"GET")]
    assert dynamic_table(codec) == fields[::-1][:kept]


def test_a_block_may_hold_size_updates_alone_or_nothing(codec):
    assert codec.decode(b"") == codec.decode(size_update(10)) == []


def test_a_table_of_as_many_entries_as_fit(codec):
    """128 entries of 32 octets; indexes from 127 take two octets."""
    codec.decode(literal(0x40, b"", b"") * 200)
    assert dynamic_table(codec) == [(b"", b"")] * 128
    codec.decode(b"".join(literal(0x40, b"x", b"%02d" % number) for number in range(100)))
    assert dynamic_table(codec) == [(b"x", b"%02d" % number) for number in range(99, -1, -1)] + [(b"", b"")] * 18


def test_changes_stand_still_while_the_table_does(codec):
    codec.decode(literal(0x40, b"x-a", b"1"))
    before = codec.changes
    for block in (b"\x82\xbe", literal(0, b"x-b", b"2"), literal(0x10, b"x-b", b"2"), b"\x0f\x2f\x013", b""):
        codec.decode(block)
    assert codec.changes == before


@pytest.mark.parametrize("block", [
    literal(0x40, b"x-a", b"1"), literal(0x40, b"x-a", b"1" * 5_000), b"\x7e\x012", size_update(0), size_update(100)])
def test_changes_move_when_the_table_does(codec, block):
    codec.decode(literal(0x40, b"x-a", b"1"))
    before = codec.changes
    codec.decode(block)
    assert codec.changes > before


def test_a_section_of_the_limit_is_decoded_and_a_larger_one_is_not(make):
    """RFC 9113 section 6.5.2: name, value and 32 octets a field."""
    section = [(b"x-a", b"v" * 65), *[(b":method", b"GET")] * 3, (b"x-b", b"")]
    limit = 100 + 3 * 42 + 35
    block = literal(0x40, *section[0]) + b"\x82\x82\x82" + literal(0, *section[4])
    assert make(limit).decode(block) == section
    assert refusal(make(limit - 1), block) is ErrorCode.ENHANCE_YOUR_CALM


def test_a_large_entry_does_not_count_where_it_is_not_used(make):
    codec = make(4_100)
    codec.decode(literal(0x40, b"x-a", b"v" * 4_000))
    assert codec.decode(b"\x82" * 97) == [(b":method", b"GET")] * 97
    assert refusal(codec, b"\x82" * 98) is ErrorCode.ENHANCE_YOUR_CALM


def test_a_block_cannot_expand_beyond_every_measure(codec):
    """A limit of 0 is no invitation: a few thousand octets of indexes would stand for megabytes."""
    codec.decode(literal(0x40, b"x-a", b"v" * 4_000))
    assert len(codec.decode(b"\xbe" * 1_000)) == 1_000
    assert refusal(codec, b"\xbe" * 1_100) is ErrorCode.ENHANCE_YOUR_CALM


# -- encoding ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(sections, st.integers(1, 3)), max_size=10),
       st.lists(st.lists(st.sampled_from([0, 40, 100, TABLE_SIZE, 10_000, 2**32 - 1]), max_size=3), max_size=10))
def test_sections_are_encoded_as_any_client_can_read(make, sections, sizes):
    codec, decoder = make(0), Decoder(max_header_list_size=2**20)
    for number, (section, repeats) in enumerate(sections):
        for size in sizes[number] if number < len(sizes) else ():
            codec.set_peer_table_size(size)
            # A decoder checks that the encoder shrank its table to the limit.
            decoder.max_allowed_table_size = size
        for _ in range(repeats):
            assert decoder.decode(codec.encode(section), raw=True) == section


@pytest.mark.parametrize("size", [0, 1, 15, 126, 127, 128, 300, 16_384, 40_000])
def test_encoded_strings_of_any_length(codec, size):
    fields = [(b"n" * size, b"v" * size), (b"server", b"%" * size), (b"set-cookie", b"<" * size)]
    assert Decoder(2**20).decode(codec.encode(fields), raw=True) == fields


def test_a_repeated_section_takes_an_octet_a_field_or_encodes_alike(codec):
    section = [(b":status", b"404"), (b"x-a", b"1"), (b"content-length", b"9")]
    _, second, third = (codec.encode(section) for _ in range(3))
    assert second == third
    assert second[:1] == b"\x8d"


def test_many_sections_in_turns(codec):
    """More than any cache holds, twice each."""
    decoder = Decoder()
    for number in [*range(2_000), *range(2_000)]:
        section = [(b":status", b"200"), (b"etag", b"%d" % number)]
        assert decoder.decode(codec.encode(section), raw=True) == section


def test_a_field_is_encoded_the_same_whatever_kind_of_sequence_holds_it(make):
    section = [(b":status", b"200"), (b"x-a", b"1")]
    assert make(0).encode(section) == make(0).encode(tuple(section))


@pytest.mark.parametrize("field", [
    (b"authorization", b"Basic cGFzc3dvcmQ="), (b"proxy-authorization", b"Bearer x"), (b"set-cookie", b"session=1"),
    (b"set-cookie", b"session=" + b"0" * 100), (b"cookie", b"a=1")])
def test_secrets_are_never_indexed(codec, field):
    """RFC 7541 section 7.1.3: nor may an intermediary put them into a table of its own."""
    decoder = Decoder()
    for _ in range(3):
        (decoded,) = decoder.decode(codec.encode([field]), raw=True)
        assert isinstance(decoded, hpack.NeverIndexedHeaderTuple)
        assert decoded == field
    assert not decoder.header_table.dynamic_entries


def test_a_long_cookie_is_no_secret(codec):
    (decoded,) = Decoder().decode(codec.encode([(b"cookie", b"session=0123456789abcdef")]), raw=True)
    assert not isinstance(decoded, hpack.NeverIndexedHeaderTuple)


@pytest.mark.parametrize("cycles", [1, 20])
def test_size_updates_come_once(codec, cycles):
    codec.set_peer_table_size(100)
    first, decoder = codec.encode([(b":status", b"200")]), Decoder()
    decoder.max_allowed_table_size = 100
    assert first[0] & 0xE0 == 0x20
    assert decoder.decode(first, raw=True) == [(b":status", b"200")]
    for _ in range(cycles):
        assert codec.encode([(b":status", b"200")]) == b"\x88"


def test_an_unchanged_table_of_the_peer_needs_no_update(codec):
    codec.set_peer_table_size(TABLE_SIZE)
    assert codec.encode([(b":status", b"200")]) == b"\x88"


def test_a_larger_table_of_the_peer_needs_no_update_at_once(make):
    codec, decoder = make(0), Decoder()
    codec.set_peer_table_size(8_192)
    decoder.max_allowed_table_size = 8_192
    assert decoder.decode(codec.encode([(b":status", b"200")]), raw=True) == [(b":status", b"200")]


# -- both directions ---------------------------------------------------------------------------------------------------


@given(st.lists(sections, max_size=8))
def test_one_codec_reads_what_another_writes(sections):
    """Through all pairs of codecs: the octets differ, the fields do not."""
    for writer in (FastCodec(0), HpackCodec(0)):
        readers = FastCodec(0), HpackCodec(0)
        for section in sections:
            block = writer.encode(section)
            assert [reader.decode(block) for reader in readers] == [section, section]
        assert dynamic_table(readers[0]) == dynamic_table(readers[1])


@given(st.lists(st.tuples(sections, st.booleans(), st.sampled_from([None, 0, 100, 1_000, TABLE_SIZE])), max_size=12))
def test_a_client_of_changing_habits_is_followed(make, sections):
    codec, encoder, decoder = make(0), Encoder(), Decoder(2**22)
    for section, huffman, size in sections:
        if size not in (None, encoder.header_table_size):
            encoder.header_table_size = size
        block = encoder.encode(section, huffman)
        before = codec.changes
        assert codec.decode(block) == decoder.decode(block, raw=True) == section
        assert dynamic_table(codec) == list(decoder.header_table.dynamic_entries)
        if codec.changes == before:
            assert codec.decode(block) == section

