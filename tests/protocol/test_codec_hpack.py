"""What the codec on the hpack library adds to it: table sizes as the RFC has them, and what it remembers."""

import tracemalloc

import pytest
from hpack import Decoder
from hpack.hpack import decode_integer

from gunicorn_h2.protocol.codec_hpack import HpackCodec

STATUS_200 = [(b":status", b"200")]
LARGEST_SETTING = 2**32 - 1


def announced_sizes(block):
    """The table sizes with which a block begins."""
    sizes = []
    while block[0] & 0xE0 == 0x20:
        size, length = decode_integer(block, 5)
        sizes.append(size)
        block = block[length:]
    return sizes


@pytest.mark.parametrize(("sizes", "announced"), [
    ([0], [0]), ([0, 0], [0]), ([0, 4_096], [0, 4_096]), ([100, 0, 50, 200], [0, 200]), ([200, 100], [100]),
    ([LARGEST_SETTING], [65_536]), ([4_096, 0], [0]), ([4_096], []), ([0, LARGEST_SETTING, 8_192], [0, 8_192])])
def test_the_smallest_and_the_last_size_are_announced(sizes, announced):
    """RFC 7541 section 4.2: at most two updates, and none where nothing changed."""
    codec, decoder = HpackCodec(0), Decoder()
    for size in sizes:
        codec.set_peer_table_size(size)
    block = codec.encode(STATUS_200)
    assert announced_sizes(block) == announced
    decoder.max_allowed_table_size = max(sizes)
    assert decoder.decode(block, raw=True) == STATUS_200
    assert codec.encode(STATUS_200) == b"\x88"


def test_a_huge_table_is_not_filled():
    """The client's limit of 4 GiB is no reason to remember 4 GiB of what it asked for."""
    codec, decoder = HpackCodec(0), Decoder()
    decoder.max_allowed_table_size = LARGEST_SETTING
    codec.set_peer_table_size(LARGEST_SETTING)
    for number in range(100):
        field = (b"x-answer", b"%04d" % number * 1_000)
        assert decoder.decode(codec.encode([field]), raw=True) == [field]
    assert len(decoder.header_table.dynamic_entries) == 65_536 // (8 + 4_000 + 32)


def test_values_that_seldom_repeat_do_not_fill_the_table():
    codec, decoder = HpackCodec(0), Decoder()
    for number in range(10):
        section = [(b"etag", b"%d" % number), (b"content-length", b"1"), (b"x-a", b"1")]
        assert decoder.decode(codec.encode(section), raw=True) == section
    assert list(decoder.header_table.dynamic_entries) == [(b"x-a", b"1")]


def test_a_repeated_section_takes_an_octet_a_field():
    codec = HpackCodec(0)
    first, second = (codec.encode([*STATUS_200, (b"x-a", b"1")]) for _ in range(2))
    assert len(first) > len(second) == 2


def kept(codec, sections):
    """How much memory a codec keeps of sections that never come again."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for section in sections:
            codec.encode(section)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.memory
def test_what_is_remembered_is_bounded():
    codec = HpackCodec(0)
    assert kept(codec, ([*STATUS_200, (b"etag", b"%d" % number)] for number in range(2_000))) < 50_000
    assert kept(codec, ([*STATUS_200, (b"etag", b"%d" % number * 5_000)] for number in range(10, 40))) < 100_000
