"""Our own codec beside the hpack library and RFC 7541's examples: the same fields, the same table, the same errors."""

import sys
import tracemalloc

import hpack
import pytest
from hpack import HPACKError, OversizedHeaderListError
from hypothesis import example, given
from hypothesis import strategies as st

from gunicorn_h2.protocol.codec_fast import FastCodec
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode

from .effort import examples
from .hpack_blocks import dynamic_table, integer, literal, size_update, string

COMPRESSION, CALM = ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM
STATUS_200 = [(b":status", b"200")]


# -- the examples of the RFC -------------------------------------------------------------------------------------------

GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
NO_CACHE = (b"cache-control", b"no-cache")
CUSTOM = (b"custom-key", b"custom-value")
GET_SECURE = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"), GET[3], CUSTOM]
PRIVATE, LOCATION = (b"cache-control", b"private"), (b"location", b"https://www.example.com")
DATE_21, DATE_22 = ((b"date", b"Mon, 21 Oct 2013 20:13:2%d GMT" % second) for second in (1, 2))
GZIP = (b"content-encoding", b"gzip")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
OK, FOUND, NOT_MODIFIED = ((b":status", status) for status in (b"200", b"302", b"307"))

REQUESTS = [
    (GET, [GET[3]], 57),
    ([*GET, NO_CACHE], [NO_CACHE, GET[3]], 110),
    (GET_SECURE, [CUSTOM, NO_CACHE, GET[3]], 164),
]
RESPONSES = [
    ([FOUND, PRIVATE, DATE_21, LOCATION], [LOCATION, DATE_21, PRIVATE, FOUND], 222),
    ([NOT_MODIFIED, PRIVATE, DATE_21, LOCATION], [NOT_MODIFIED, LOCATION, DATE_21, PRIVATE], 222),
    ([OK, PRIVATE, DATE_22, LOCATION, GZIP, COOKIE], [COOKIE, GZIP, DATE_22], 215),
]

# The responses are for a table of 256 octets, which the first block of ours has to ask for.
EXAMPLES = {
    "C.2.1": ([(b"custom-key", b"custom-header")], "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
              [(b"custom-key", b"custom-header")], 55),
    "C.2.2": ([(b":path", b"/sample/path")], "040c 2f73 616d 706c 652f 7061 7468", [], 0),
    "C.2.3": ([(b"password", b"secret")], "1008 7061 7373 776f 7264 0673 6563 7265 74", [], 0),
    "C.2.4": ([(b":method", b"GET")], "82", [], 0),
}
SEQUENCES = {
    "C.3": (b"", REQUESTS, [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]),
    "C.4": (b"", REQUESTS, [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]),
    "C.5": (size_update(256), RESPONSES, [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120"
        "474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738"
        "666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33"
        "3630 303b 2076 6572 7369 6f6e 3d31",
    ]),
    "C.6": (size_update(256), RESPONSES, [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718"
        "63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7"
        "b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]),
}


def size_of(entries):
    """The size of a table or section: name, value and 32 octets an entry (RFC 7541 section 4.1)."""
    return sum(len(name) + len(value) + 32 for name, value in entries)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_representations_of_the_rfc(name):
    section, block, table, size = EXAMPLES[name]
    codec = FastCodec(0)
    assert codec.decode(bytes.fromhex(block)) == section
    assert dynamic_table(codec) == table
    assert size_of(table) == size


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_sequences_of_the_rfc(name):
    update, expected, blocks = SEQUENCES[name]
    codec = FastCodec(0)
    codec.decode(update)
    for (section, table, size), block in zip(expected, blocks, strict=True):
        assert codec.decode(bytes.fromhex(block)) == section
        assert dynamic_table(codec) == table
        assert size_of(table) == size


# -- beside the hpack library ------------------------------------------------------------------------------------------


class Pair:
    """Our decoder and hpack's, shown the same blocks."""

    def __init__(self, limit=2**22):
        self.fast = FastCodec(limit)
        self.hpack = hpack.Decoder(limit)

    def decode(self, block):
        """Return the section, or the error code, on which the two agree."""
        ours, theirs = self.decode_fast(block), self.decode_hpack(block)
        assert ours == theirs, block
        if isinstance(ours, list):
            assert dynamic_table(self.fast) == list(self.hpack.header_table.dynamic_entries)
        return ours

    def decode_fast(self, block):
        """Our section or error code."""
        try:
            return self.fast.decode(block)
        except ConnectionFailure as failure:
            return failure.code

    def decode_hpack(self, block):
        """The section of hpack, or the error code for its exception."""
        try:
            return [tuple(field) for field in self.hpack.decode(block, raw=True)]
        except OversizedHeaderListError:
            return CALM
        except HPACKError:
            return COMPRESSION


texts = st.one_of(
    st.sampled_from([b"", b"GET", b"/", b"gzip, deflate", b"x-a", b"cookie", b":path", b"content-type", b":status"]),
    st.binary(max_size=40), st.text("abcxyz019-/=", max_size=60).map(str.encode),
    st.sampled_from([126, 127, 128, 255, 300, 2_000, 4_063, 4_064, 4_100]).map(lambda size: b"v" * size))
fields = st.tuples(texts, texts, st.booleans())
blocks_of_an_encoder = st.lists(st.tuples(
    st.lists(fields, max_size=8), st.booleans(), st.lists(st.sampled_from([0, 32, 40, 150, 1_000, 4_096]), max_size=2),
), max_size=30)


@given(blocks_of_an_encoder)
@examples(60)
def test_what_hpack_encodes_is_decoded_alike(blocks):
    pair, encoder = Pair(), hpack.Encoder()
    for section, huffman, sizes in blocks:
        for size in sizes:
            # hpack forgets to announce a size that is set twice.
            if size != encoder.header_table_size:
                encoder.header_table_size = size
        assert pair.decode(encoder.encode(section, huffman)) == [(name, value) for name, value, _ in section]


indexes = st.one_of(st.integers(0, 70), st.integers(0, 300))
padded_integers = st.builds(
    lambda first, bits, zeros: bytes((first | 2**bits - 1,)) + b"\x80" * zeros + b"\0",
    st.sampled_from([0x80, 0x40, 0x00, 0x20]), st.sampled_from([7, 6, 5, 4]), st.integers(0, 6))
strings = st.one_of(st.builds(string, texts, st.booleans()), st.binary(max_size=6).map(
    lambda code: bytes((0x80 | len(code),)) + code))
representations = st.one_of(
    indexes.map(lambda index: integer(0x80, 7, index)), st.integers(62, 66).map(lambda index: integer(0x80, 7, index)),
    st.builds(lambda first, name, value: bytes((first,)) + name + value, st.sampled_from([0x40, 0x40, 0x00, 0x10]),
              strings, strings),
    st.builds(lambda first, index, value: integer(*first, index) + value,
              st.sampled_from([(0x40, 6), (0x00, 4), (0x10, 4)]), indexes, strings),
    st.builds(lambda fill: fill * 70, st.sampled_from([b"\x40\0\0", b"\x41\0", b"\x82", b"\xbe"])),
    padded_integers)
updates = st.lists(st.one_of(st.integers(0, 200), st.integers(4_000, 4_100)).map(size_update), max_size=2).map(b"".join)
written_blocks = st.builds(lambda update, parts, cut: (update + b"".join(parts))[:cut], updates,
                           st.lists(st.one_of(representations, representations, updates), max_size=8),
                           st.one_of(st.none(), st.none(), st.integers(0, 100)))


@given(st.lists(written_blocks, max_size=12))
@examples(150)
def test_blocks_of_any_representations_are_decoded_alike_or_refused_alike(blocks):
    pair = Pair()
    for block in blocks:
        if not isinstance(pair.decode(block), list):
            break


@given(st.lists(st.binary(max_size=80), max_size=6))
@examples(150)
@example([b"\x3f\xe1\x1f\x82"])
def test_octets_of_any_kind_are_decoded_alike_or_refused_alike(blocks):
    pair = Pair()
    for block in blocks:
        if not isinstance(pair.decode(block), list):
            break


@pytest.mark.parametrize("huffman", [False, True])
def test_every_cut_of_a_block_is_decoded_alike_or_refused_alike(huffman):
    encoder = hpack.Encoder()
    encoder.header_table_size = 1_000
    section = [*GET_SECURE, COOKIE, (b"x-long", b"v" * 300), (b"authorization", b"secret", True)]
    block = encoder.encode(section, huffman)
    outcomes = [Pair().decode(block[:cut]) for cut in range(len(block) + 1)]
    whole = [outcome for outcome in outcomes if isinstance(outcome, list)]
    # A block may end behind its update and behind each field, and nowhere else.
    assert whole == [[], *([field[:2] for field in section[:count]] for count in range(len(section) + 1))]
    assert set(map(str, outcomes)) - set(map(str, whole)) == {str(COMPRESSION)}


# A block around an integer whose prefix is full: what comes before the rest of the integer, and behind it.
INTEGERS = {
    "an index": (b"\xff", b""),
    "the index of a name": (b"\x7f", b"\1v"),
    "the index of a name, not indexed": (b"\x0f", b"\1v"),
    "the index of a name, never indexed": (b"\x1f", b"\1v"),
    "a table size": (b"\x3f", b"\x82"),
    "the length of a name": (b"\x40\x7f", b"n" * 127 + b"\1v"),
    "the length of a value": (b"\x41\x7f", b"v" * 127),
    "the length of a Huffman code": (b"\x41\xff", string(b"0" * 203, huffman=True)[2:]),
}


@pytest.mark.parametrize("zeros", range(8))
@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_followed_for_five_octets(name, zeros):
    """RFC 7541 section 5.1: a value of 32 bits takes no more, but any value can be made longer with zeros."""
    before, behind = INTEGERS[name]
    pair = Pair()
    pair.decode(literal(0x40, b"", b"") * 70)
    outcome = pair.decode(before + b"\x80" * zeros + b"\0" + behind)
    assert isinstance(outcome, list) if zeros < 5 else outcome == COMPRESSION


def assert_cut(blocks, limit):
    """A section beyond the limit is cut, and the rest of its block has the same effect; wrong blocks are wrong.

    The only difference: strings behind the limit that do not enter the table are not decoded, and may be wrong.
    """
    limited, unlimited = Pair(), Pair()
    limited.fast = FastCodec(2**22, limit)
    ours = []
    for block in blocks:
        ours, whole = limited.decode_fast(block), unlimited.decode_fast(block)
        if not isinstance(whole, list):
            assert ours == whole or (isinstance(ours, list) and len(ours) == limit + 1)
            return ours
        assert ours == whole[: limit + 1]
        assert dynamic_table(limited.fast) == dynamic_table(unlimited.fast)
    return ours


@given(st.lists(written_blocks, max_size=12), st.integers(0, 6))
@examples(150)
def test_a_limit_of_the_fields_leaves_the_table_as_it_would_be(blocks, limit):
    assert_cut(blocks, limit)


BEYOND = b"\x82" * 9 + b"\x01\x01a"


@pytest.mark.parametrize("behind", [
    b"", b"\x82" * 200, b"\x40\x01a\x01b", b"\x41\x01b\x41\x01c\xbe\xbf",
    b"\x00\x01n\x01v\x10\x01n\x01v", b"\x00\x7f\x01" + b"n" * 128 + b"\0",
    b"\x40\0\0" * 70 + b"\x7f\x00\x01a\x0f\x01\x01a\xff\x00\xfe",
    literal(0x40, b"n" * 200, b"v" * 200, huffman=True)])
def test_what_is_behind_the_limit_has_its_effect_on_the_table(behind):
    assert assert_cut([BEYOND + behind, b"\x82"], 3) == [(b":method", b"GET")]


@pytest.mark.parametrize("behind", [
    b"\x20", b"\x80", b"\xbe", b"\x82\xc0", b"\xff", b"\xff\x00", b"\x7e", b"\x0f\x70\0", b"\x01\x05a", b"\x41\x05a",
    b"\x0f", b"\x40", b"\x00\x01", b"\x41\x82\xff\xff"])
def test_what_is_behind_the_limit_may_be_wrong(behind):
    assert assert_cut([BEYOND + behind], 3) == COMPRESSION


def test_a_string_behind_the_limit_that_is_not_inserted_is_not_decoded():
    """It may be wrong: nobody will see it."""
    wrong = b"\x01\x82\xff\xff"
    codec = FastCodec(2**22, 3)
    assert len(codec.decode(BEYOND + wrong)) == 4
    with pytest.raises(ConnectionFailure):
        codec.decode(wrong)


def test_what_is_broken_behind_the_limit_is_broken():
    """The only difference: hpack says that a list is too large before it reads on, we when we have read it."""
    block = b"\x82\x82\x80"
    pair = Pair(limit=50)
    assert (pair.decode_fast(block), pair.decode_hpack(block)) == (COMPRESSION, CALM)


@given(st.lists(st.tuples(st.lists(fields.map(lambda field: field[:2]), max_size=8),
                          st.sampled_from([None, None, 0, 100, 4_096, 65_536])), max_size=12))
def test_what_we_encode_is_decoded_by_hpack(blocks):
    codec, decoder = FastCodec(0), hpack.Decoder(2**22)
    for section, size in blocks:
        if size is not None:
            codec.set_peer_table_size(size)
            decoder.max_allowed_table_size = size
        assert [tuple(field) for field in decoder.decode(codec.encode(section), raw=True)] == section
        assert not decoder.header_table.dynamic_entries


# -- what is encoded, to the octet -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "block"), [
    ((b":status", b"200"), b"\x88"),
    ((b":status", b"500"), b"\x8e"),
    ((b":status", b"201"), b"\x08\x03201"),
    ((b"server", b"gunicorn"), b"\x0f\x27\x08gunicorn"),
    ((b"accept-encoding", b"gzip, deflate"), b"\x90"),
    ((b"vary", b""), b"\xbb"),
    ((b"age", b"0"), b"\x0f\x06\x010"),
    ((b"cookie", b"a=1"), b"\x1f\x11\x03a=1"),
    ((b"set-cookie", b"a=1"), b"\x1f\x28\x03a=1"),
    ((b"x-a", b"1"), b"\x00\x03x-a\x011"),
    ((b"x-a", b""), b"\x00\x03x-a\x00"),
    ((b"x-a", b"v" * 126), b"\x00\x03x-a\x7e" + b"v" * 126),
    ((b"x-a", b"v" * 127), b"\x00\x03x-a\x7f\x00" + b"v" * 127),
    ((b"x-a", b"v" * 254), b"\x00\x03x-a\x7f\x7f" + b"v" * 254),
    ((b"x-a", b"v" * 255), b"\x00\x03x-a\x7f\x80\x01" + b"v" * 255),
])
def test_a_field_has_one_encoding(field, block):
    for _ in range(3):
        assert FastCodec(0).encode([field]) == block
        assert FastCodec(0).encode([(b":status", b"204"), field, field]) == b"\x89" + block * 2


def test_no_field_is_no_octet():
    assert [FastCodec(0).encode([]) for _ in range(3)] == [b""] * 3


@pytest.mark.parametrize("sizes", [[0], [4_095], [0, 4_096], [8_192, 100, 50, 10_000], [0] * 3])
def test_a_table_that_was_ever_lowered_is_emptied_once(sizes):
    """RFC 7541 section 4.2: the smallest size is due; 0 serves for it, and for all that may follow."""
    codec = FastCodec(0)
    for size in sizes:
        codec.set_peer_table_size(size)
    assert [codec.encode(STATUS_200) for _ in range(3)] == [b"\x20\x88", b"\x88", b"\x88"]
    for size in sizes:
        codec.set_peer_table_size(size)
        assert codec.encode(STATUS_200) == b"\x88"


def test_a_table_that_was_never_lowered_needs_no_update():
    codec = FastCodec(0)
    for size in (4_096, 8_192, 2**32 - 1, 4_096):
        codec.set_peer_table_size(size)
        assert codec.encode(STATUS_200) == b"\x88"


# -- what a peer can make us do ----------------------------------------------------------------------------------------


class CountedBlock(bytes):
    """A block that counts how many octets are copied out of it."""

    copied = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        self.copied += 1 if isinstance(key, int) else len(part)
        return part


def work(block, max_fields=2**30):
    """The calls and the copied octets that decoding a block takes; calls of C functions count."""
    counted, calls = CountedBlock(block), 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event.endswith("call")

    codec = FastCodec(2**30, max_fields)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        codec.decode(counted)
    finally:
        sys.setprofile(before)
    return calls, counted.copied


WORK = {
    "indexed fields": b"\x82" * 60,
    "literals": literal(0, b"x", b"1") * 12,
    "empty literals": b"\x01\0" * 30,
    "one literal, one index": b"\x01\0\x82" * 20,
    "insertions": b"\x41\0" * 30,
    "insertions into a full table": literal(0x40, b"", b"") * 20,
    "insertions of all sizes": b"".join(literal(0x40, b"x", b"v" * size) for size in (0, 3_000, 0, 5_000, 100)),
    "long strings": literal(0x10, b"n" * 3_000, b"v" * 3_000),
    "Huffman-coded literals": literal(0, b"x-a", b"0123456789", huffman=True) * 5,
    "Huffman-coded insertions": literal(0x40, b"x-a", b"0123456789", huffman=True) * 5,
    "indexes of two octets": literal(0x40, b"", b"") * 70 + b"\xff\0" * 70,
}


@pytest.mark.parametrize("max_fields", [2**30, 10])
@pytest.mark.parametrize("name", WORK)
def test_work_is_linear_in_the_octets_received(name, max_fields):
    """Four times the block is four times the work, give or take the filling of the table; never 16 times.

    And no block takes more than a constant for each octet.
    """
    work(WORK[name], max_fields)  # builds what is built once
    (calls, copied), (more_calls, more_copied) = (
        work(WORK[name] * 20, max_fields), work(WORK[name] * 80, max_fields))
    assert more_calls < 6 * calls
    assert more_copied < 6 * max(copied, 100)
    octets = 80 * len(WORK[name])
    assert more_calls < 12 * octets
    assert more_copied < 40 * octets


def kept(use):
    """How much more memory is in use behind the second call of a function than behind the first, in octets."""
    use(range(100_000, 102_000))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        use(range(102_000, 104_000))
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.memory
def test_what_is_remembered_of_requests_is_bounded():
    """A megabyte of strings comes by, short and long, to be indexed and not."""
    def decode(numbers):
        codec = FastCodec(0)
        for number in numbers:
            for size in (1, 10, 20):
                codec.decode(literal(0x40, b"x-%d" % number, b"%d" % number * size, huffman=True))
            codec.decode(literal(0x00, b"x-a", b"%d" % number * 10, huffman=True))

    assert kept(decode) < 300_000


@pytest.mark.memory
def test_what_is_remembered_of_responses_is_bounded():
    def encode(numbers):
        codec = FastCodec(0)
        for number in numbers:
            for size in (1, 10, 40):
                section = [*STATUS_200, (b"x-%d" % size, b"%d" % number * size), (b"x-b", b"%d" % number)]
                for _ in range(3):
                    codec.encode(section)

    assert kept(encode) < 1_000_000


@pytest.mark.memory
def test_what_is_large_is_not_remembered():
    def decode(numbers):
        for number in numbers[::20]:
            FastCodec(0).decode(literal(0x40, b"%d" % number * 300, b"", huffman=True))

    def encode_fields(numbers):
        for number in numbers[::20]:
            FastCodec(0).encode([(b"x-a", b"%d" % number * 2_000)])

    def encode_sections(numbers):
        for number in numbers[::4]:
            section = [(b"x-a", b"v" * 200)] * 20 + [(b"x-b", b"%d" % number)]
            for _ in range(3):
                FastCodec(0).encode(section)

    for use in (decode, encode_fields, encode_sections):
        assert kept(use) < 150_000, use


def test_a_secret_is_not_remembered():
    value = b"session=%d" % 123_456_789
    before = sys.getrefcount(value)
    for _ in range(3):
        FastCodec(0).encode([*STATUS_200, (b"set-cookie", value)])
    assert sys.getrefcount(value) == before


@pytest.mark.parametrize("name", [b"cookie", b"authorization", b"proxy-authorization"])
def test_a_private_value_is_remembered_by_its_own_connection_alone(name):
    block = literal(0x40, name, b"token=%d" % 987_654_321, huffman=True)
    (first,), (second,) = FastCodec(0).decode(block), FastCodec(0).decode(block)
    assert first == second
    assert first[1] is not second[1]


@pytest.mark.parametrize("kind", [0x00, 0x10])
def test_what_a_client_does_not_index_is_not_remembered(kind):
    block = literal(kind, b"x-%d" % 123_456, b"/%d" % 123_456, huffman=True)
    (first,), (second,) = FastCodec(0).decode(block), FastCodec(0).decode(block)
    assert first == second
    assert first[0] is not second[0]
    assert first[1] is not second[1]


def test_what_is_the_same_for_many_connections_is_held_once():
    block = literal(0x40, b"user-agent", b"curl/8.%d" % 123_456, huffman=True)
    (first,), (second,) = FastCodec(0).decode(block), FastCodec(0).decode(block)
    assert first[0] is second[0]
    assert first[1] is second[1]
