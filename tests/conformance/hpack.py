"""Header compression: RFC 7541."""

from hyperframe.frame import HeadersFrame

from tests.protocol.hpack_blocks import integer, literal, size_update, string
from tests.support.h2client import COMPRESSION_ERROR, END_HEADERS, END_STREAM, HEADERS, raw_frame

from .rules import Rules, connection_error, served

rules = Rules("RFC 7541")
FIRST_DYNAMIC = 62


def refused(section, blocks):
    """Add rules: each of these blocks is a COMPRESSION_ERROR of the connection, which opens no stream."""
    rules.table(section, connection_error(COMPRESSION_ERROR, 1), {
        name: lambda c, block=block: raw_frame(HEADERS, END_STREAM | END_HEADERS, 3, block)
        for name, block in blocks.items()
    })


def accepted(section, blocks):
    """Add rules: each of these blocks, in front of or behind a request's, is right."""
    rules.table(section, served, {
        name: lambda c, block=block: c.block(block(c.request_block())) for name, block in blocks.items()
    })


def indexed(index):
    """An indexed field."""
    return integer(0x80, 7, index)


refused("2.3.3", {
    "an index beyond both tables": indexed(FIRST_DYNAMIC),
    "an index far beyond both tables": indexed(2**20),
    "a name's index beyond both tables": integer(0x40, 6, FIRST_DYNAMIC) + string(b"1"),
    "a name's index beyond both tables, not indexed": integer(0, 4, FIRST_DYNAMIC) + string(b"1"),
})


@rules.rule("3.2", "fields are decoded in order, and indexed in order")
def order(client):
    client.send_raw(client.block(client.request_block() + literal(0x40, b"x-a", b"1") + literal(0x40, b"x-b", b"2")))
    client.response(client.last)
    client.send_raw(client.block(client.request_block("/environ") + indexed(FIRST_DYNAMIC + 1)
                                 + indexed(FIRST_DYNAMIC)))
    text = client.response(client.last).text
    assert '"HTTP_X_A": "1"' in text
    assert '"HTTP_X_B": "2"' in text


refused("4.2", {
    "a size update behind a field": b"\x82" + size_update(100) + b"\x84\x87",
    "a size update at the end": b"\x82\x84\x87" + size_update(4096),
})
accepted("4.2", {
    "a size update at the beginning": lambda block: size_update(100) + block,
    "two size updates at the beginning": lambda block: size_update(0) + size_update(4096) + block,
})


@rules.rule("4.2", "the smallest of several sizes is signalled, then the last", settings={1: 4096})
def smallest_size(client):
    client.send_settings({1: 0})
    client.send_settings({1: 4096})
    client.get("/hello")
    block = [frame for frame in client.frames if isinstance(frame, HeadersFrame)][-1].data
    assert block.startswith(size_update(0))
    assert block[1] & 0xE0 == 0x20 or not client.decoder.header_table.dynamic_entries


@rules.rule("4.3", "a smaller table drops its oldest entries")
def eviction(client):
    client.send_raw(client.block(client.request_block() + literal(0x40, b"x-a", b"1") + literal(0x40, b"x-b", b"2")))
    client.response(client.last)
    client.send_raw(client.block(size_update(36) + client.request_block() + indexed(FIRST_DYNAMIC)))
    served(client)
    client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS, client.last_id + 2, indexed(FIRST_DYNAMIC + 1)))
    connection_error(COMPRESSION_ERROR)(client)


@rules.rule("4.4", "an entry larger than the table empties it, and is no error")
def too_large_entry(client):
    client.send_raw(client.block(client.request_block() + literal(0x40, b"x-a", b"1")
                                 + literal(0x40, b"x-large", b"v" * 4096)))
    served(client)
    client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS, client.last_id + 2, indexed(FIRST_DYNAMIC)))
    connection_error(COMPRESSION_ERROR)(client)


@rules.rule("4.4", "an entry may take its name from one that it evicts")
def name_of_an_evicted_entry(client):
    client.send_raw(client.block(client.request_block() + literal(0x40, b"x-name", b"v" * 4000)))
    client.response(client.last)
    client.send_raw(client.block(client.request_block() + integer(0x40, 6, FIRST_DYNAMIC) + string(b"w" * 4000)))
    served(client)


refused("5.1", {
    "an integer without end": b"\xff" + b"\x80" * 100 + b"\x01",
    "an integer beyond any index": b"\xff" + b"\xff" * 9 + b"\x7f",
    "an integer that stops short": b"\x82\xff\x80",
    "a string length beyond any": b"\x00\x7f" + b"\xff" * 9 + b"\x7f",
})
refused("5.2", {
    "a string that stops short": b"\x82\x84\x40\x0aab",
    "padding of 8 bits": b"\x00\x01a" + b"\x82\x1f\xff",
    "padding of zeros": b"\x00\x01a" + b"\x81\x18",
    "the EOS symbol": b"\x00\x01a" + b"\x84\xff\xff\xff\xff",
    "EOS behind a character": b"\x00\x01a" + b"\x85\x1f\xff\xff\xff\xff",
    "padding of 8 bits in a name": b"\x00\x82\x1f\xff\x011",
})
accepted("5.2", {
    "Huffman codes": lambda block: block + literal(0, b"x-a", b"www.example.com", huffman=True),
    "an empty string of Huffman codes": lambda block: block + b"\x00\x03x-a\x80",
    "padding of 7 bits": lambda block: block + b"\x00\x03x-a" + b"\x82" + bytes((0b11111000, 0b01111111)),
})
refused("6.1", {"the index 0": indexed(0), "the index 0 behind a field": b"\x82" + indexed(0)})
accepted("6.1", {"an entry of the static table": lambda block: block + indexed(16)})
accepted("6.2.1", {
    "a literal that is indexed, with its own name": lambda block: block + literal(0x40, b"x-a", b"1"),
    "a literal that is indexed, with an indexed name": lambda block: block + integer(0x40, 6, 58) + string(b"1"),
})
accepted("6.2.2", {
    "a literal that is not indexed, with its own name": lambda block: block + literal(0, b"x-a", b"1"),
    "a literal that is not indexed, with an indexed name": lambda block: block + integer(0, 4, 58) + string(b"1"),
})
accepted("6.2.3", {
    "a literal that is never indexed, with its own name": lambda block: block + literal(0x10, b"x-a", b"1"),
    "a literal that is never indexed, with an indexed name": lambda block: block + integer(0x10, 4, 58) + string(b"1"),
})


@rules.rule("6.2.2", "literals that are not to be indexed are not")
def not_indexed(client):
    client.send_raw(client.block(client.request_block() + literal(0, b"x-a", b"1") + literal(0x10, b"x-b", b"1")))
    client.response(client.last)
    client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS, client.last_id + 2, indexed(FIRST_DYNAMIC)))
    connection_error(COMPRESSION_ERROR)(client)


refused("6.3", {
    "a size update of 4 097": size_update(4097) + b"\x82\x84\x87",
    "a size update of 2^30": size_update(2**30) + b"\x82\x84\x87",
})
accepted("6.3", {"a size update of 4 096": lambda block: size_update(4096) + block})
refused("7.4", {"a string longer than its block": b"\x00" + integer(0, 7, 2**20) + b"x" * 100})
