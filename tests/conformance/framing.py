"""Frames, their size, and field blocks: RFC 9113 section 4."""

from hyperframe.frame import HeadersFrame

from tests.protocol.hpack_blocks import literal
from tests.support.h2client import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    raw_frame,
)

from .rules import NARROW, Rules, connection_error, served, tolerated

rules = Rules("RFC 9113")
RESERVED = 2**31


rules.table("4.1", tolerated, {
    "an unknown type on the connection": lambda c: raw_frame(0xFA, 0xFF, 0, b"x" * 100),
    "an unknown type on an idle stream": lambda c: raw_frame(0xFA, 0, 33),
    "an unknown type on an open stream": lambda c: c.start() + raw_frame(0xFA, 0, c.last_id),
    "an unknown type on a closed stream": lambda c: raw_frame(0xFA, 0, 1),
    "flags that PING does not have": lambda c: raw_frame(PING, 0xFE, 0, bytes(8)),
    "flags that SETTINGS does not have": lambda c: raw_frame(SETTINGS, 0xFE),
    "flags that WINDOW_UPDATE does not have": lambda c: raw_frame(WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"),
    "flags that PRIORITY does not have": lambda c: raw_frame(PRIORITY, 0xFF, 9, bytes(5)),
    "flags that RST_STREAM does not have": lambda c: c.start() + raw_frame(RST_STREAM, 0xFF, c.last_id, b"\0\0\0\x08"),
    "the reserved bit on the connection": lambda c: raw_frame(PING, 0, RESERVED, bytes(8)),
})
rules.table("4.1", connection_error(NO_ERROR), {
    "flags that GOAWAY does not have": lambda c: raw_frame(GOAWAY, 0xFF, RESERVED, bytes(8)),
})
rules.table("4.1", served, {
    "the reserved bit on a stream": lambda c: c.start() + raw_frame(DATA, END_STREAM, c.last_id | RESERVED, b"x"),
    "flags that DATA does not have": lambda c: c.start() + raw_frame(DATA, 0xF6 | END_STREAM, c.last_id, b"x"),
    "the reserved bit on HEADERS and CONTINUATION": lambda c: raw_frame(
        HEADERS, END_STREAM, c.open().stream_id | RESERVED) + raw_frame(
        CONTINUATION, END_HEADERS, c.last_id | RESERVED, c.request_block()),
    "flags that CONTINUATION does not have": lambda c: raw_frame(HEADERS, END_STREAM, c.open().stream_id) + raw_frame(
        CONTINUATION, 0xFB | END_HEADERS, c.last_id, c.request_block()),
    "flags that HEADERS does not have": lambda c: raw_frame(
        HEADERS, 0xD2 | END_HEADERS | END_STREAM, c.open().stream_id, c.request_block()),
})


@rules.rule("4.1", "the server leaves reserved bits and flags unset, and keeps to the frame size")
def sent_frames(client):
    octets = []
    take_frame = client._take_frame
    client._take_frame = lambda data: (octets.append(bytes(data)), take_frame(data))[1]
    client.send_raw(raw_frame(PING, 0, 0, bytes(8)) + raw_frame(SETTINGS))
    assert client.get("/bytes?n=60000").received == 60_000
    flags = {DATA: END_STREAM, HEADERS: END_STREAM | END_HEADERS, PING: 1, SETTINGS: 1}
    for frame in octets:
        assert frame[4] & ~flags.get(frame[3], 0) == 0
        assert frame[5] < 0x80
        assert int.from_bytes(frame[:3], "big") <= 16_384
    assert {DATA, HEADERS, PING, SETTINGS} <= {frame[3] for frame in octets}


@rules.rule("4.2", "a frame of 16 384 octets is taken")
def largest_frame(client):
    stream = client.post("/count", b"x" * 16_384)
    assert stream.text == '{"length": 16384}'


rules.table("4.2", tolerated, {
    "an unknown type of 16 384 octets": lambda c: raw_frame(0xFA, 0, 0, bytes(16_384)),
})
rules.table("4.2", connection_error(FRAME_SIZE_ERROR), {
    "DATA of 16 385 octets": lambda c: c.start() + raw_frame(DATA, 0, c.last_id, bytes(16_385)),
    "SETTINGS of 16 386 octets": lambda c: raw_frame(SETTINGS, 0, 0, bytes(16_386)),
    "PING of 16 385 octets": lambda c: raw_frame(PING, 0, 0, bytes(16_385)),
    "GOAWAY of 16 385 octets": lambda c: raw_frame(GOAWAY, 0, 0, bytes(16_385)),
    "WINDOW_UPDATE of 16 385 octets": lambda c: raw_frame(WINDOW_UPDATE, 0, 0, bytes(16_385)),
    "PRIORITY of 16 385 octets": lambda c: raw_frame(PRIORITY, 0, 9, bytes(16_385)),
    "RST_STREAM of 16 385 octets": lambda c: raw_frame(RST_STREAM, 0, 1, bytes(16_385)),
    "an unknown type of 16 385 octets": lambda c: raw_frame(0xFA, 0, 0, bytes(16_385)),
    "a length of 2^24-1, before its payload": lambda c: raw_frame(DATA, 0, 1, length=2**24 - 1),
    "PING of 7 octets": lambda c: raw_frame(PING, 0, 0, bytes(7)),
    "RST_STREAM of 3 octets": lambda c: c.start() + raw_frame(RST_STREAM, 0, c.last_id, bytes(3)),
    "WINDOW_UPDATE of 3 octets on the connection": lambda c: raw_frame(WINDOW_UPDATE, 0, 0, bytes(3)),
    "GOAWAY of 7 octets": lambda c: raw_frame(GOAWAY, 0, 0, bytes(7)),
    "DATA without its pad length": lambda c: c.start() + raw_frame(DATA, 8, c.last_id),
})
rules.table("4.2", connection_error(FRAME_SIZE_ERROR, 1), {
    "HEADERS of 16 385 octets": lambda c: raw_frame(HEADERS, 5, 3, bytes(16_385)),
    "CONTINUATION of 16 385 octets": lambda c: raw_frame(HEADERS, 1, 3) + raw_frame(CONTINUATION, 4, 3, bytes(16_385)),
    "HEADERS without its pad length": lambda c: raw_frame(HEADERS, END_HEADERS | 8, 3),
    "HEADERS too short for its priority": lambda c: raw_frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 3, bytes(4)),
})


@rules.rule("4.3", "fragments are joined wherever the block is cut")
def fragments(client):
    block, stream = client.request_block(), client.open()
    client.send_raw(raw_frame(HEADERS, END_STREAM, stream.stream_id, block[:1])
                    + raw_frame(CONTINUATION, 0, stream.stream_id)
                    + raw_frame(CONTINUATION, 0, stream.stream_id, block[1:9])
                    + raw_frame(CONTINUATION, END_HEADERS, stream.stream_id, block[9:]))
    served(client)


rules.table("4.3", connection_error(PROTOCOL_ERROR, 1), {
    f"{name} inside a field block": lambda c, frame=frame: raw_frame(HEADERS, END_STREAM, 3, b"\x82") + frame
    for name, frame in {
        "DATA": raw_frame(DATA, 0, 3, b"x"), "HEADERS": raw_frame(HEADERS, END_HEADERS, 3, b"\x84"),
        "PRIORITY": raw_frame(PRIORITY, 0, 3, bytes(5)), "RST_STREAM": raw_frame(RST_STREAM, 0, 3, bytes(4)),
        "SETTINGS": raw_frame(SETTINGS), "PING": raw_frame(PING, 0, 0, bytes(8)),
        "GOAWAY": raw_frame(GOAWAY, 0, 0, bytes(8)), "WINDOW_UPDATE": raw_frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
        "CONTINUATION of another stream": raw_frame(CONTINUATION, END_HEADERS, 5, b"\x84"),
    }.items()
})
rules.table("4.3", connection_error(COMPRESSION_ERROR, 1), {
    "a request that cannot be decoded": lambda c: raw_frame(HEADERS, 5, 3, b"\xff\xff\xff\x7f"),
})
rules.table("4.3", connection_error(COMPRESSION_ERROR), {
    "trailers that cannot be decoded": lambda c: c.start() + raw_frame(HEADERS, 5, c.last_id, b"\x80"),
})


@rules.rule("4.3", "a block on a stream that the server has reset is decoded")
def blocks_of_reset_streams(client):
    client.send_raw(client.start() + raw_frame(WINDOW_UPDATE, 0, client.last_id, bytes(4)))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    client.send_raw(client.header_frames(client.last_id, [("x-trailer", "indexed")], end_stream=True))
    assert client.get("/hello", [("x-trailer", "indexed")]).status == 200


@rules.rule("4.3", "a block of a malformed request is decoded")
def blocks_of_malformed_requests(client):
    client.send_raw(client.start(headers=[("x-malformed", "indexed"), ("connection", "close")], end=True))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    assert client.get("/hello", [("x-malformed", "indexed")]).status == 200


@rules.rule("4.3", "a block of trailers that are in error is decoded", **NARROW)
def blocks_of_wrong_trailers(client):
    stream = client.pending()
    client.send_raw(client.header_frames(stream.stream_id, [("x-late", "indexed")], end_stream=True))
    client.wait_for(lambda: stream.reset is not None, "RST_STREAM")
    assert client.get("/hello", [("x-late", "indexed")]).status == 200


@rules.rule("4.3", "a block on a stream that is refused is decoded")
def blocks_of_refused_streams(client):
    client.send_raw(b"".join(client.start() for _ in range(10)))
    client.send_raw(client.start(headers=[("x-refused", "indexed")]))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    client.send_raw(client.data_frame(3, b"", True))
    client.response(client.streams[3])
    assert client.get("/hello", [("x-refused", "indexed")]).status == 200


def size_updates(frame):
    """The octets with which a field block begins, as far as they are size updates."""
    return [octet for octet in frame.data[:2] if octet & 0xE0 == 0x20]


@rules.rule("4.3.1", "a smaller table begins the next block with its size", settings={1: 4096})
def smaller_table(client):
    client.send_settings({1: 0})
    client.get("/hello")
    first, second = [frame for frame in client.frames if isinstance(frame, HeadersFrame)]
    assert (size_updates(first), size_updates(second)) == ([], [0x20])
    assert len(client.decoder.header_table.dynamic_entries) == 0


@rules.rule("4.3.1", "a block may refer to what another stream's block put into the table")
def shared_table(client):
    client.send_raw(client.block(client.request_block() + literal(0x40, b"x-shared", b"1")))
    client.response(client.last)
    client.send_raw(client.block(client.request_block() + b"\xbe"))
    served(client)


