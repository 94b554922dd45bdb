"""Field blocks written by hand (RFC 7541 sections 5 and 6), and a look at a decoder's dynamic table from outside."""

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from gunicorn_h2.protocol.errors import ConnectionFailure

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
_STATIC_ENTRIES = 61


def integer(first, bits, value):
    """An integer in the last `bits` of an octet that begins with `first`."""
    largest = 2**bits - 1
    if value < largest:
        return bytes((first | value,))
    octets, value = [first | largest], value - largest
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*octets, value))


def string(text, huffman=False):
    """A string literal."""
    return integer(0x80, 7, len(code := _huffman(text))) + code if huffman else integer(0, 7, len(text)) + text


def literal(first, name, value, huffman=False):
    """A literal with a literal name; `first` says whether it is to be indexed: 0x40, 0x00, or never, 0x10."""
    return bytes((first,)) + string(name, huffman) + string(value, huffman)


def size_update(size):
    """A dynamic table size update."""
    return integer(0x20, 5, size)


def dynamic_table(codec):
    """The entries of a codec's dynamic table, the newest first: what its indexes decode to before one is refused."""
    entries = []
    while True:
        try:
            entries += codec.decode(integer(0x80, 7, _STATIC_ENTRIES + 1 + len(entries)))
        except ConnectionFailure:
            return entries
