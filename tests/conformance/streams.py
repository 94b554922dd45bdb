"""Streams, their states, flow control and errors: RFC 9113 section 5."""

from hyperframe.frame import DataFrame, PingFrame

from tests.support.h2client import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    raw_frame,
)

from .rules import NARROW, Rules, connection_error, served, stream_error, tolerated

rules = Rules("RFC 9113")
ONE = b"\0\0\0\1"


def reset_by_server(client, path="/count"):
    """Open a stream and have the server reset it."""
    client.send_raw(client.start(path) + raw_frame(WINDOW_UPDATE, 0, client.last_id, bytes(4)))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    return client.last_id


def reset_by_client(client):
    """Open a stream and reset it."""
    return client.start() + raw_frame(RST_STREAM, 0, client.last_id, CANCEL.to_bytes(4, "big"))


# -- states ------------------------------------------------------------------------------------------------------------

rules.table("5.1", connection_error(PROTOCOL_ERROR), {
    "idle: DATA": lambda c: raw_frame(DATA, 0, 3, b"x"),
    "idle: RST_STREAM": lambda c: raw_frame(RST_STREAM, 0, 3, bytes(4)),
    "idle: WINDOW_UPDATE": lambda c: raw_frame(WINDOW_UPDATE, 0, 3, ONE),
    "idle: CONTINUATION": lambda c: raw_frame(CONTINUATION, END_HEADERS, 3, b"\x82"),
    "idle: PUSH_PROMISE": lambda c: raw_frame(PUSH_PROMISE, END_HEADERS, 3, b"\0\0\0\2\x82"),
    "idle, of the server's: HEADERS": lambda c: c.header_frames(2, c.fields(), end_stream=True),
    "idle, of the server's: DATA": lambda c: raw_frame(DATA, 0, 2, b"x"),
    "idle, of the server's: RST_STREAM": lambda c: raw_frame(RST_STREAM, 0, 2, bytes(4)),
    "idle, of the server's: WINDOW_UPDATE": lambda c: raw_frame(WINDOW_UPDATE, 0, 2, ONE),
})
rules.table("5.1", tolerated, {
    "idle: PRIORITY": lambda c: raw_frame(PRIORITY, 0, 3, bytes(5)),
    "idle, of the server's: PRIORITY": lambda c: raw_frame(PRIORITY, 0, 2, bytes(5)),
    "closed: PRIORITY": lambda c: raw_frame(PRIORITY, 0, 1, bytes(5)),
    "closed: WINDOW_UPDATE": lambda c: raw_frame(WINDOW_UPDATE, 0, 1, ONE),
    "closed: RST_STREAM": lambda c: raw_frame(RST_STREAM, 0, 1, bytes(4)),
    "closed, because it was skipped: WINDOW_UPDATE, RST_STREAM, PRIORITY": lambda c: skip(c, 9) + raw_frame(
        WINDOW_UPDATE, 0, 5, ONE) + raw_frame(RST_STREAM, 0, 5, bytes(4)) + raw_frame(PRIORITY, 0, 5, bytes(5)),
    "closed by the client's reset: PRIORITY": lambda c: reset_by_client(c) + raw_frame(
        PRIORITY, 0, c.last_id, bytes(5)),
    "closed by the client's reset: WINDOW_UPDATE": lambda c: reset_by_client(c) + raw_frame(
        WINDOW_UPDATE, 0, c.last_id, ONE),
})




rules.table("5.1", stream_error(STREAM_CLOSED), {
    "half-closed (remote): DATA": lambda c: raw_frame(DATA, 0, c.pending().stream_id, b"x"),
    "half-closed (remote): empty DATA": lambda c: raw_frame(DATA, 0, c.pending().stream_id),
    "half-closed (remote): DATA that ends the stream": lambda c: raw_frame(DATA, 1, c.pending().stream_id, b"x"),
    "half-closed (remote): HEADERS": lambda c: c.header_frames(c.pending().stream_id, [("x-a", "1")], end_stream=True),
    "half-closed (remote): HEADERS and CONTINUATION": lambda c: raw_frame(
        HEADERS, END_STREAM, c.pending().stream_id, b"\x82") + raw_frame(CONTINUATION, END_HEADERS, c.last_id, b"\x84"),
}, **NARROW)


@rules.rule("5.1", "half-closed (remote): WINDOW_UPDATE, PRIORITY", **NARROW)
def half_closed_remote_goes_on(client):
    stream = client.pending()
    client.send_raw(raw_frame(PRIORITY, 0, stream.stream_id, bytes(5)))
    client.grant(1000, stream)
    assert client.response(stream).received == 1000


@rules.rule("5.1", "half-closed (remote): RST_STREAM", **NARROW)
def half_closed_remote_is_reset(client):
    stream = client.pending()
    client.reset(stream)
    client.grant(1000, stream)
    client.assert_serves()
    assert (stream.received, stream.done, client.resets()) == (100, False, [])


@rules.rule("5.1", "half-closed (local): DATA, WINDOW_UPDATE, PRIORITY and the end")
def half_closed_local(client):
    stream = client.answered()
    client.send_raw(raw_frame(DATA, 0, stream.stream_id, b"x") + raw_frame(WINDOW_UPDATE, 0, stream.stream_id, ONE)
                    + raw_frame(PRIORITY, 0, stream.stream_id, bytes(5))
                    + raw_frame(DATA, END_STREAM, stream.stream_id, b"x"))
    client.assert_serves()
    assert all(code == 0 for _, code in client.resets())


@rules.rule("5.1", "half-closed (local): trailers")
def half_closed_local_trailers(client):
    stream = client.answered()
    client.send_raw(client.data_frame(stream.stream_id, b"x")
                    + client.header_frames(stream.stream_id, [("x-a", "1")], end_stream=True))
    client.assert_serves()
    assert all(code == 0 for _, code in client.resets())


@rules.rule("5.1", "half-closed (local): RST_STREAM")
def half_closed_local_is_reset(client):
    client.reset(client.answered())
    tolerated(client)


rules.table("5.1", connection_error(STREAM_CLOSED), {
    "closed: DATA": lambda c: raw_frame(DATA, 0, 1, b"x"),
    "closed: HEADERS": lambda c: c.header_frames(1, c.fields(), end_stream=True),
    "closed by the client's reset: DATA": lambda c: reset_by_client(c) + raw_frame(DATA, 0, c.last_id, b"x"),
    "closed by the client's reset: HEADERS": lambda c: reset_by_client(c) + c.header_frames(
        c.last_id, [("x-a", "1")], end_stream=True),
})


@rules.rule("5.1", "closed by the server's reset: frames that crossed it")
def frames_that_crossed(client):
    stream_id = reset_by_server(client)
    client.send_raw(raw_frame(DATA, 0, stream_id, b"x") + raw_frame(WINDOW_UPDATE, 0, stream_id, ONE)
                    + raw_frame(PRIORITY, 0, stream_id, bytes(5))
                    + client.header_frames(stream_id, [("x-a", "1")], end_stream=True)
                    + raw_frame(RST_STREAM, 0, stream_id, bytes(4)))
    client.assert_serves()
    assert client.resets() == [(stream_id, PROTOCOL_ERROR)]


@rules.rule("5.1", "closed by the server's reset: DATA counts for the connection's window")
def data_that_crossed(client):
    stream_id = reset_by_server(client)
    sent, limit = 0, client.send_window * 2
    while sent < limit:
        client.wait_for(lambda: client.send_window >= 16_384, "credit of the connection")
        client.send_raw(raw_frame(DATA, 0, stream_id, bytes(16_384)))
        client.send_window -= 16_384
        sent += 16_384
    client.assert_serves()


# -- identifiers and concurrency ---------------------------------------------------------------------------------------

rules.table("5.1.1", connection_error(PROTOCOL_ERROR), {
    "an even identifier": lambda c: c.header_frames(4, c.fields(), end_stream=True),
    "the identifier 0": lambda c: c.header_frames(0, c.fields(), end_stream=True),
})
rules.table("5.1.1", connection_error(PROTOCOL_ERROR, 9), {
    "an identifier that was skipped": lambda c: c.header_frames(9, c.fields(path="/hello"), end_stream=True)
    + c.header_frames(5, c.fields(path="/hello"), end_stream=True),
    "an even identifier below": lambda c: c.header_frames(9, c.fields(path="/hello"), end_stream=True)
    + c.header_frames(6, c.fields(path="/hello"), end_stream=True),
})
rules.table("5.1.1", connection_error(STREAM_CLOSED), {
    "an identifier that was used": lambda c: c.header_frames(1, c.fields(path="/hello"), end_stream=True),
    "DATA on an identifier that was skipped": lambda c: skip(c, 9) + raw_frame(DATA, 0, 5, b"x"),
})


def skip(client, stream_id):
    """Open a stream, skipping those below."""
    client.next_stream_id = stream_id
    return client.start()


@rules.rule("5.1.1", "identifiers may be skipped, up to the largest")
def skipped(client):
    for stream_id in (99, 2**31 - 3, 2**31 - 1):
        client.next_stream_id = stream_id
        assert client.get("/hello").status == 200


@rules.rule("5.1.2", "a stream beyond the limit is refused, and those within it go on")
def too_many_streams(client):
    limit = client.peer_settings[3]
    client.send_raw(b"".join(client.start() for _ in range(limit + 1)))
    refused = client.last
    client.wait_for(lambda: refused.reset is not None, "RST_STREAM")
    client.send_raw(b"".join(client.data_frame(3 + 2 * n, b"x", True) for n in range(limit)))
    assert {client.response(client.streams[3 + 2 * n]).status for n in range(limit)} == {200}
    assert (client.resets(), refused.status) == ([(refused.stream_id, REFUSED_STREAM)], None)
    client.assert_serves()


@rules.rule("5.1.2", "streams that are half closed count", **NARROW)
def half_closed_streams_count(client):
    limit = client.peer_settings[3]
    for _ in range(limit):
        client.pending()
    client.send_raw(client.start())
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    assert client.last.reset == REFUSED_STREAM


# -- flow control ------------------------------------------------------------------------------------------------------

@rules.rule("5.2.1", "a stream's window is kept to", auto_window=False, settings={4: 1000})
def stream_window(client):
    stream = client.request("GET", "/bytes?n=5000")
    for granted in (1, 2999, 1000):
        client.wait_for(lambda: stream.received == client.initial_window, "what the window allows")
        client.ping()
        assert stream.received == client.initial_window
        client.initial_window += granted
        client.grant(granted, stream)
    assert client.response(stream).received == 5000


@rules.rule("5.2.1", "the connection's window is kept to", auto_window=False, settings={4: 2**31 - 1})
def connection_window(client):
    stream, window = client.request("GET", "/bytes?n=100000"), 65_535 - len("Hello, world!\n")
    client.wait_for(lambda: stream.received >= window, "what the window allows")
    client.ping()
    assert stream.received == window
    client.grant(100_000)
    assert client.response(stream).received == 100_000


@rules.rule("5.2.1", "nothing but DATA is subject to flow control", auto_window=False)
def headers_need_no_window(client):
    client.send_settings({4: 0})
    stream = client.wait_headers(client.request("GET", "/hello"))
    client.send_settings({1: 100})
    client.ping()
    assert (stream.status, stream.received, stream.done) == (200, 0, False)


@rules.rule("5.2.2", "frames are read while responses wait for a window", **NARROW)
def frames_are_read(client):
    streams = [client.pending() for _ in range(3)]
    client.ping()
    for stream in reversed(streams):
        client.grant(1000, stream)
        assert client.response(stream).received == 1000


# -- priority ----------------------------------------------------------------------------------------------------------

@rules.rule("5.3.2", "priority in HEADERS is accepted")
def priority_in_headers(client):
    stream = client.open()
    client.send_raw(raw_frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, stream.stream_id,
                              b"\x80\0\0\x01\xff" + client.request_block()))
    served(client)


rules.table("5.3.2", stream_error(PROTOCOL_ERROR), {
    "PRIORITY of a stream on itself (RFC 7540 section 5.3.1)": lambda c: c.start() + raw_frame(
        PRIORITY, 0, c.last_id, c.last_id.to_bytes(4, "big") + b"\xff"),
    "HEADERS of a stream on itself (RFC 7540 section 5.3.1)": lambda c: raw_frame(
        HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, c.open().stream_id,
        c.last_id.to_bytes(4, "big") + b"\xff" + c.request_block()),
})


# -- errors ------------------------------------------------------------------------------------------------------------

@rules.rule("5.4", "one connection error is reported, the first")
def one_connection_error(client):
    client.send_raw(raw_frame(PING, 0, 1, bytes(8)) + raw_frame(SETTINGS, 0, 0, bytes(5)) + raw_frame(DATA, 0, 0, b"x"))
    connection_error(PROTOCOL_ERROR)(client)


@rules.rule("5.4", "one error of a stream is reported, the first")
def one_stream_error(client):
    client.send_raw(client.start() + raw_frame(WINDOW_UPDATE, 0, client.last_id, bytes(4)) * 3
                    + raw_frame(PRIORITY, 0, client.last_id, client.last_id.to_bytes(4, "big") + b"\0"))
    stream_error(PROTOCOL_ERROR)(client)


@rules.rule("5.4.1", "GOAWAY names the last stream, and nothing is answered behind it")
def goaway_is_last(client):
    client.send_raw(client.start("/hello", "GET", end=True))
    client.response(client.last)
    client.send_raw(client.start() + raw_frame(DATA, 0, 0, b"x") + raw_frame(PING, 0, 0, bytes(8))
                    + client.header_frames(99, client.fields(path="/hello"), end_stream=True))
    connection_error(PROTOCOL_ERROR)(client)
    assert not [frame for frame in client.frames if isinstance(frame, PingFrame)]
    assert 99 not in client.streams


@rules.rule("5.4.2", "other streams go on behind an error of one", **NARROW)
def other_streams_go_on(client):
    stream = client.pending()
    client.send_raw(client.start() + raw_frame(WINDOW_UPDATE, 0, client.last_id, bytes(4)))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    client.grant(1000, stream)
    assert client.response(stream).received == 1000


@rules.rule("5.4.2", "RST_STREAM is not answered with RST_STREAM")
def no_reset_for_a_reset(client):
    client.send_raw(reset_by_client(client) + raw_frame(RST_STREAM, 0, client.last_id, bytes(4)))
    tolerated(client)


@rules.rule("5.4.2", "nothing is sent on a stream behind RST_STREAM", **NARROW)
def nothing_behind_a_reset(client):
    stream = client.pending()
    client.send_raw(raw_frame(WINDOW_UPDATE, 0, stream.stream_id, bytes(4)))
    client.wait_for(lambda: stream.reset is not None, "RST_STREAM")
    client.grant(1000, stream)
    client.assert_serves()
    data = [frame for frame in client.frames if isinstance(frame, DataFrame) and frame.stream_id == stream.stream_id]
    assert sum(len(frame.data) for frame in data) == 100


rules.table("5.5", connection_error(PROTOCOL_ERROR, 1), {
    "a frame of an unknown type inside a field block": lambda c: raw_frame(HEADERS, END_STREAM, 3, b"\x82")
    + raw_frame(0xFA, 0, 3),
})
rules.table("5.5", tolerated, {
    "a setting of an unknown identifier": lambda c: raw_frame(SETTINGS, 0, 0, b"\xfe\xfe\xff\xff\xff\xff"),
    "a frame of an unknown type": lambda c: raw_frame(0xFA, 0xFF, 0, b"x"),
    "an unknown error code": lambda c: c.start() + raw_frame(RST_STREAM, 0, c.last_id, b"\xff\xff\xff\xff"),
})
