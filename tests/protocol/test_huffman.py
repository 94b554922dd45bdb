"""Huffman coding (RFC 7541 section 5.2), beside the hpack library's code and a decoder of single bits."""

from itertools import product

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol import huffman

from .effort import examples

CODES = [f"{code:0{length}b}" for code, length in zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)]
EOS = CODES[256]
SYMBOLS = {code: symbol for symbol, code in enumerate(CODES)}
STATES = sorted({code[:length] for code in CODES for length in range(len(code))})

encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


def octets(bits):
    """A string of binary digits as octets."""
    assert len(bits) % 8 == 0
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def decode_bits(data):
    """Decode bit by bit, as section 5.2 says it; None for an error."""
    text, pending = bytearray(), ""
    for bit in "".join(f"{octet:08b}" for octet in data):
        pending += bit
        symbol = SYMBOLS.get(pending)
        if symbol == 256:
            return None
        if symbol is not None:
            text.append(symbol)
            pending = ""
    return bytes(text) if len(pending) < 8 and "0" not in pending else None


def decode(data):
    """What the decoder under test makes of a string; None for an error."""
    try:
        return huffman.decode(data)
    except ValueError:
        return None


@pytest.mark.parametrize(("code", "text"), [
    ("f1e3c2e5f23a6ba0ab90f4ff", b"www.example.com"),
    ("a8eb10649cbf", b"no-cache"),
    ("25a849e95ba97d7f", b"custom-key"),
    ("25a849e95bb8e8b4bf", b"custom-value"),
    ("6402", b"302"),
    ("aec3771a4b", b"private"),
    ("d07abe941054d444a8200595040b8166e082a62d1bff", b"Mon, 21 Oct 2013 20:13:21 GMT"),
    ("9d29ad171863c78f0b97c8e9ae82ae43d3", b"https://www.example.com"),
    ("", b""),
])
def test_the_examples_of_the_rfc(code, text):
    """RFC 7541 appendices C.4 and C.6."""
    assert huffman.decode(bytes.fromhex(code)) == text


@given(st.binary(max_size=200))
def test_every_string_comes_back(text):
    assert huffman.decode(encode(text)) == text


def test_every_pair_of_octets_comes_back():
    for pair in product(range(256), repeat=2):
        assert huffman.decode(encode(bytes(pair))) == bytes(pair)


def test_every_octet_in_every_state():
    """All transitions: an octet behind each beginning of a code, with the padding that may end there."""
    assert len(STATES) == 256
    for pending in STATES:
        # The code of "0" is five zeros; so many of them fill the octets before.
        before = next(CODES[48] * count + pending for count in range(8) if (5 * count + len(pending)) % 8 == 0)
        for octet in range(256):
            data = octets(before) + bytes((octet,))
            assert decode(data) == decode_bits(data), (pending, octet)


@given(st.binary(max_size=12))
@examples(200)
def test_strings_of_any_octets(data):
    assert decode(data) == decode_bits(data)


@pytest.mark.parametrize("length", range(8))
def test_padding_is_ones(length):
    """Each length of padding, and in it each wrong bit."""
    text = next(text for text in (b"0" * count for count in range(1, 9)) if -5 * len(text) % 8 == length)
    bits = CODES[48] * len(text)
    assert huffman.decode(octets(bits + "1" * length)) == text
    for wrong in range(length):
        padding = "1" * wrong + "0" + "1" * (length - wrong - 1)
        data = octets(bits + padding)
        # What is wrong as padding may be right as a symbol, and then its own padding counts.
        assert decode(data) == decode_bits(data) != text


@pytest.mark.parametrize("text", [b"", b"0", b"www", bytes(range(256))])
@pytest.mark.parametrize("octets_too_many", [1, 2, 3, 4, 100])
def test_padding_of_eight_bits_or_more_is_refused(text, octets_too_many):
    with pytest.raises(ValueError, match="padding"):
        huffman.decode(encode(text) + b"\xff" * octets_too_many)


@pytest.mark.parametrize("before", [b"", b"0", b"00", b"000", b"\n", bytes(range(256))])
@pytest.mark.parametrize("after", [b"", b"0", b"\n", b"0" * 100])
def test_eos_is_refused_wherever_it_stands(before, after):
    bits = "".join(CODES[octet] for octet in before) + EOS + "".join(CODES[octet] for octet in after)
    with pytest.raises(ValueError, match="EOS"):
        huffman.decode(octets(bits + "1" * (-len(bits) % 8)))
