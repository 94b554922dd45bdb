"""Each type of frame, and error codes: RFC 9113 sections 6 and 7."""

from hyperframe.frame import DataFrame, PingFrame, PushPromiseFrame, SettingsFrame

from tests.protocol.peer import settings
from tests.support.gate import Gate
from tests.support.h2client import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    raw_frame,
)

from .rules import NARROW, Rules, connection_error, served, stream_error, tolerated

rules = Rules("RFC 9113")
LARGEST = b"\x7f\xff\xff\xff"
NEARLY_ALL = b"\x7f\xff\xff\0"
ONE = b"\0\0\0\1"


# -- DATA --------------------------------------------------------------------------------------------------------------

rules.table("6.1", connection_error(PROTOCOL_ERROR), {
    "DATA on stream 0": lambda c: raw_frame(DATA, 0, 0, b"x"),
    "padding as long as the payload": lambda c: c.start() + raw_frame(DATA, PADDED, c.last_id, b"\x05four"),
    "padding longer than the payload": lambda c: c.start() + raw_frame(DATA, PADDED, c.last_id, b"\xfffour"),
})
rules.table("6.1", stream_error(STREAM_CLOSED), {
    "DATA where the stream is not open": lambda c: raw_frame(DATA, 0, c.pending().stream_id, b"x"),
}, **NARROW)


@rules.rule("6.1", "padding is no content, whatever it is")
def padding(client):
    client.send_raw(client.start() + raw_frame(DATA, PADDED, client.last_id, b"\x03abc\0\0\0")
                    + raw_frame(DATA, PADDED, client.last_id, b"\0")
                    + raw_frame(DATA, PADDED | END_STREAM, client.last_id, b"\x02de\xff\xff"))
    assert client.response(client.last).text == '{"length": 5}'


@rules.rule("6.1", "padding counts for flow control")
def padding_is_counted(client):
    client.send_raw(client.start() + raw_frame(DATA, PADDED, client.last_id, b"\xff" + bytes(255)) * 100)
    client.wait_for(lambda: client.last.window > client.peer_initial_window, "credit for the padding")
    client.send_raw(client.data_frame(client.last_id, b"x", True))
    assert client.response(client.last).text == '{"length": 1}'


# -- HEADERS -----------------------------------------------------------------------------------------------------------

rules.table("6.2", connection_error(PROTOCOL_ERROR, 1), {
    "HEADERS on stream 0": lambda c: raw_frame(HEADERS, 5, 0, b"\x82\x84\x87"),
    "padding as long as the payload": lambda c: raw_frame(HEADERS, 5 | PADDED, 3, b"\x04\x82\x84\x87"),
    "padding longer than what is left behind a priority": lambda c: raw_frame(
        HEADERS, 5 | PADDED | PRIORITY_FLAG, 3, b"\xff" + bytes(5) + b"\x82\x84\x87"),
    "CONTINUATION of another stream": lambda c: raw_frame(HEADERS, 1, 3, b"\x82") + raw_frame(CONTINUATION, 4, 5),
    "another type before CONTINUATION": lambda c: raw_frame(HEADERS, 1, 3, b"\x82") + raw_frame(PING, 0, 0, bytes(8)),
})
rules.table("6.2", served, {
    "padding": lambda c: raw_frame(
        HEADERS, 5 | PADDED, c.open().stream_id, b"\x04" + c.request_block() + b"\0\xff\0\xff"),
    "padding and a priority": lambda c: raw_frame(
        HEADERS, 5 | PADDED | PRIORITY_FLAG, c.open().stream_id, b"\x02" + bytes(5) + c.request_block() + b"\0\0"),
    "END_STREAM on HEADERS that CONTINUATION follows": lambda c: raw_frame(HEADERS, 1, c.open().stream_id)
    + raw_frame(CONTINUATION, END_HEADERS, c.last_id, c.request_block()),
})


# -- PRIORITY and RST_STREAM -------------------------------------------------------------------------------------------

rules.table("6.3", connection_error(PROTOCOL_ERROR), {
    "PRIORITY on stream 0": lambda c: raw_frame(PRIORITY, 0, 0, bytes(5)),
})
rules.table("6.3", stream_error(FRAME_SIZE_ERROR), {
    f"PRIORITY of {size} octets": lambda c, size=size: c.start() + raw_frame(PRIORITY, 0, c.last_id, bytes(size))
    for size in (0, 4, 6)
})
rules.table("6.3", connection_error(FRAME_SIZE_ERROR), {
    "PRIORITY of 4 octets on an idle stream, which cannot be reset": lambda c: raw_frame(PRIORITY, 0, 9, bytes(4)),
})
rules.table("6.3", served, {
    "PRIORITY before its stream": lambda c: raw_frame(PRIORITY, 0, 3, bytes(5)) + c.start("/hello", "GET", end=True),
})
rules.table("6.4", connection_error(PROTOCOL_ERROR), {
    "RST_STREAM on stream 0": lambda c: raw_frame(RST_STREAM, 0, 0, bytes(4)),
    "RST_STREAM on an idle stream": lambda c: raw_frame(RST_STREAM, 0, 3, bytes(4)),
})
rules.table("6.4", connection_error(FRAME_SIZE_ERROR), {
    f"RST_STREAM of {size} octets": lambda c, size=size: c.start() + raw_frame(RST_STREAM, 0, c.last_id, bytes(size))
    for size in (0, 3, 5)
})
rules.table("6.4", connection_error(FRAME_SIZE_ERROR), {
    "RST_STREAM of 3 octets on a closed stream": lambda c: raw_frame(RST_STREAM, 0, 1, bytes(3)),
})


@rules.rule("6.4", "nothing is sent on a stream that the client has reset", **NARROW)
def nothing_on_a_reset_stream(client):
    stream = client.pending()
    client.reset(stream)
    client.grant(1000, stream)
    client.assert_serves()
    assert (stream.received, stream.ended, stream.reset) == (100, False, None)


# -- SETTINGS ----------------------------------------------------------------------------------------------------------

rules.table("6.5", connection_error(FRAME_SIZE_ERROR), {
    "an acknowledgement with a payload": lambda c: raw_frame(SETTINGS, ACK, 0, bytes(6)),
    "SETTINGS of 3 octets": lambda c: raw_frame(SETTINGS, 0, 0, bytes(3)),
    "SETTINGS of 7 octets": lambda c: raw_frame(SETTINGS, 0, 0, bytes(7)),
})
rules.table("6.5", connection_error(PROTOCOL_ERROR), {
    "SETTINGS on a stream": lambda c: c.start() + raw_frame(SETTINGS, 0, c.last_id),
    "SETTINGS on an idle stream": lambda c: raw_frame(SETTINGS, 0, 33),
    "an acknowledgement on a stream": lambda c: raw_frame(SETTINGS, ACK, 1),
})
rules.table("6.5", tolerated, {
    "SETTINGS without settings": lambda c: raw_frame(SETTINGS),
    "the same setting over and over": lambda c: settings(*[(4, 65_535)] * 30),
    "every setting": lambda c: settings((1, 4096), (2, 0), (3, 0), (4, 65_535), (5, 16_384), (6, 65_536)),
})


@rules.rule("6.5", "of a setting that repeats, the last value counts", **NARROW)
def last_value(client):
    client.send_raw(settings((4, 5000), (4, 7), (4, 50)))
    stream = client.request("GET", "/bytes?n=1000")
    client.wait_for(lambda: stream.received >= 50, "what the window allows")
    client.ping()
    assert stream.received == 50


rules.table("6.5.2", connection_error(PROTOCOL_ERROR), {
    "ENABLE_PUSH of 2": lambda c: settings((2, 2)),
    "ENABLE_PUSH of 2^32-1": lambda c: settings((2, 2**32 - 1)),
    "MAX_FRAME_SIZE of 16 383": lambda c: settings((5, 16_383)),
    "MAX_FRAME_SIZE of 2^24": lambda c: settings((5, 2**24)),
    "MAX_FRAME_SIZE of 0": lambda c: settings((5, 0)),
})
rules.table("6.5.2", connection_error(FLOW_CONTROL_ERROR), {
    "INITIAL_WINDOW_SIZE of 2^31": lambda c: settings((4, 2**31)),
    "INITIAL_WINDOW_SIZE of 2^32-1": lambda c: settings((4, 2**32 - 1)),
})
rules.table("6.5.2", tolerated, {
    "MAX_CONCURRENT_STREAMS of 0": lambda c: settings((3, 0)),
    "MAX_HEADER_LIST_SIZE of 0": lambda c: settings((6, 0)),
    "ENABLE_PUSH of 1": lambda c: settings((2, 1)),
    "MAX_FRAME_SIZE of 2^24-1": lambda c: settings((5, 2**24 - 1)),
    "a setting of an unknown identifier": lambda c: settings((0xFEFE, 2**32 - 1), (0, 1)),
})


@rules.rule("6.5.2", "the server's own settings are valid, and known to the client from the start")
def own_settings(client):
    assert client.settings_frames == 1
    assert client.peer_settings.get(2, 0) == 0
    assert client.peer_settings[3] == 10
    assert client.peer_settings[4] == 32_768
    assert 16_384 <= client.peer_settings.get(5, 16_384) < 2**24


@rules.rule("6.5.3", "SETTINGS are applied, then acknowledged, each in its turn")
def acknowledged_in_turn(client):
    count = client.settings_acks
    client.send_raw(settings((4, 1)) + settings((4, 2)) + raw_frame(PING, 0, 0, bytes(8)) + settings((4, 3)))
    client.wait_for(lambda: client.settings_acks == count + 3, "the acknowledgements")
    kinds = [type(frame) for frame in client.frames if "ACK" in frame.flags]
    assert kinds[-4:] == [SettingsFrame, SettingsFrame, PingFrame, SettingsFrame]


@rules.rule("6.5.3", "a setting holds from its acknowledgement on", **NARROW)
def applied_before_acknowledged(client):
    stream = client.pending()
    client.send_raw(settings((4, 400)))
    client.wait_for(lambda: stream.received == 400, "what the new window allows")
    position = [type(frame) for frame in client.frames].index(DataFrame)
    assert any(isinstance(frame, SettingsFrame) and "ACK" in frame.flags for frame in client.frames[position:])


# -- PUSH_PROMISE, PING and GOAWAY -------------------------------------------------------------------------------------

rules.table("6.6", connection_error(PROTOCOL_ERROR), {
    "PUSH_PROMISE on an open stream": lambda c: c.start() + raw_frame(PUSH_PROMISE, 4, c.last_id, b"\0\0\0\2\x82"),
    "PUSH_PROMISE on a closed stream": lambda c: raw_frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"),
    "PUSH_PROMISE on stream 0": lambda c: raw_frame(PUSH_PROMISE, 4, 0, b"\0\0\0\2\x82"),
    "PUSH_PROMISE of nothing": lambda c: raw_frame(PUSH_PROMISE, 4, 1),
})


@rules.rule("6.6", "PUSH_PROMISE on a stream that the server has reset")
def push_on_a_reset_stream(client):
    client.send_raw(client.start() + raw_frame(WINDOW_UPDATE, 0, client.last_id, bytes(4)))
    client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
    client.send_raw(raw_frame(PUSH_PROMISE, 4, client.last_id, b"\0\0\0\2\x82"))
    client.wait_closed()
    assert client.goaways == [(client.last_id, PROTOCOL_ERROR)]


@rules.rule("6.6", "nothing is pushed", settings={2: 1})
def nothing_pushed(client):
    assert client.get("/informational").status == 200
    assert not [frame for frame in client.frames if isinstance(frame, PushPromiseFrame)]


@rules.rule("6.7", "PING is answered with its payload")
def ping_is_answered(client):
    client.send_raw(raw_frame(PING, 0, 0, b"\0\xff12345\n") + raw_frame(PING, 0, 0, bytes(8)))
    client.wait_for(lambda: len(client.ping_acks) == 2, "the answers")
    assert client.ping_acks == [b"\0\xff12345\n", bytes(8)]


@rules.rule("6.7", "an acknowledgement is not answered")
def ping_ack_is_not_answered(client):
    client.send_raw(raw_frame(PING, ACK, 0, b"answered"))
    client.ping()
    assert b"answered" not in client.ping_acks + client.pings


@rules.rule("6.7", "PING is answered before data that waits", **NARROW)
def ping_goes_first(client):
    stream = client.pending()
    client.frames.clear()
    client.send_raw(raw_frame(WINDOW_UPDATE, 0, stream.stream_id, b"\0\0\x40\0") + raw_frame(PING, 0, 0, bytes(8)))
    client.response(stream)
    kinds = [type(frame) for frame in client.frames]
    assert kinds.index(PingFrame) < kinds.index(DataFrame)


rules.table("6.7", connection_error(PROTOCOL_ERROR), {
    "PING on a stream": lambda c: raw_frame(PING, 0, 1, bytes(8)),
    "an acknowledgement on a stream": lambda c: raw_frame(PING, ACK, 1, bytes(8)),
})
rules.table("6.7", connection_error(FRAME_SIZE_ERROR), {
    f"PING of {size} octets": lambda c, size=size: raw_frame(PING, 0, 0, bytes(size)) for size in (0, 7, 9)
})
rules.table("6.7", connection_error(FRAME_SIZE_ERROR), {
    "an acknowledgement of 6 octets": lambda c: raw_frame(PING, ACK, 0, bytes(6)),
})
rules.table("6.8", connection_error(PROTOCOL_ERROR), {
    "GOAWAY on a stream": lambda c: raw_frame(GOAWAY, 0, 1, bytes(8)),
})
rules.table("6.8", connection_error(NO_ERROR), {
    "GOAWAY of the client's is returned once there is nothing more to do": lambda c: raw_frame(GOAWAY, 0, 0, bytes(8)),
})


@rules.rule("6.8", "a second GOAWAY of the client's changes nothing", **NARROW)
def second_goaway(client):
    stream = client.pending()
    client.send_raw(raw_frame(GOAWAY, 0, 0, bytes(8)) + raw_frame(GOAWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\x01"))
    client.ping()
    client.grant(1000, stream)
    assert client.response(stream).received == 1000
    client.wait_closed()
    assert client.goaways == [(stream.stream_id, NO_ERROR)]


@rules.rule("6.8", "streams go on behind the client's GOAWAY", **NARROW)
def streams_go_on(client):
    stream = client.pending()
    client.send_raw(raw_frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0why"))
    client.ping()
    client.grant(1000, stream)
    assert client.response(stream).received == 1000
    client.wait_closed()
    assert client.goaways == [(stream.stream_id, NO_ERROR)]


def send_above(client):
    """Send frames on a stream above the last GOAWAY's: what they do to the connection counts, and nothing else.

    The dynamic table learns of a field, and the connection's window gets its octets back.
    """
    client.send_raw(client.start(headers=[("x-above", "indexed")]))
    above, sent, limit = client.last, 0, 2 * client.send_window
    while sent < limit:
        client.wait_for(lambda: client.send_window >= 16_384, "credit of the connection")
        client.send_raw(raw_frame(DATA, 0, above.stream_id, bytes(16_384)))
        client.send_window -= 16_384
        sent += 16_384
    client.ping()
    assert (above.status, above.reset) == (None, None)


@rules.rule("6.8", "a graceful shutdown has two GOAWAYs and loses no stream", only="tls", **NARROW)
def graceful_shutdown(client):
    """The worker that served the connection ends; another one serves from then on."""
    stream, upload = client.pending(), client.request("POST", "/count", end=False)
    client.server.reload()
    assert client.wait_goaway() == (2**31 - 1, NO_ERROR)
    client.send_raw(client.start("/hello", "GET", end=True))
    crossing = client.last
    client.wait_goaway(2)
    send_above(client)
    client.send_raw(client.header_frames(upload.stream_id, [("x-above", "indexed")], end_stream=True))
    assert client.response(upload).text == '{"length": 0}'
    client.grant(1000, stream)
    assert client.response(stream).received == 1000
    client.wait_closed()
    last_id, code = client.goaways[-1]
    assert (len(client.goaways), code) == (2, NO_ERROR)
    # The stream that crossed the first GOAWAY is served if the second one names it.
    assert last_id in (upload.stream_id, crossing.stream_id)
    assert crossing.status == (200 if last_id == crossing.stream_id else None)


# -- WINDOW_UPDATE -----------------------------------------------------------------------------------------------------

rules.table("6.9", connection_error(PROTOCOL_ERROR), {
    "an increment of 0 on the connection": lambda c: raw_frame(WINDOW_UPDATE, 0, 0, bytes(4)),
    "an increment of 0 but for the reserved bit": lambda c: raw_frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\0"),
})
rules.table("6.9", stream_error(PROTOCOL_ERROR), {
    "open: an increment of 0": lambda c: c.start() + raw_frame(WINDOW_UPDATE, 0, c.last_id, bytes(4)),
    "half-closed (remote): an increment of 0": lambda c: raw_frame(
        WINDOW_UPDATE, 0, c.pending().stream_id, bytes(4)),
    "half-closed (local): an increment of 0": lambda c: raw_frame(
        WINDOW_UPDATE, 0, c.answered().stream_id, bytes(4)),
}, **NARROW)
rules.table("6.9", connection_error(FRAME_SIZE_ERROR), {
    f"WINDOW_UPDATE of {size} octets on {name}": lambda c, size=size, stream_id=stream_id: raw_frame(
        WINDOW_UPDATE, 0, stream_id, bytes(size))
    for size in (3, 5) for name, stream_id in {"the connection": 0, "a closed stream": 1}.items()
})
rules.table("6.9", tolerated, {
    "closed: an increment of 1": lambda c: raw_frame(WINDOW_UPDATE, 0, 1, ONE),
})


@rules.rule("6.9", "DATA in error counts for the connection's window", **NARROW)
def data_in_error_counts(client):
    sent, limit = 0, client.send_window
    while sent < limit:
        client.wait_for(lambda: client.send_window >= 16_384, "credit of the connection")
        client.send_raw(raw_frame(DATA, 0, client.pending().stream_id, bytes(16_384)))
        client.wait_for(lambda: client.last.reset is not None, "RST_STREAM")
        client.send_window -= 16_384
        sent += 16_384
    client.assert_serves()


rules.table("6.9.1", connection_error(FLOW_CONTROL_ERROR), {
    "the connection's window beyond 2^31-1": lambda c: raw_frame(WINDOW_UPDATE, 0, 0, LARGEST),
    "the connection's window beyond 2^31-1, in two steps": lambda c: raw_frame(
        WINDOW_UPDATE, 0, 0, b"\x40\0\0\0") * 2,
})
rules.table("6.9.1", stream_error(FLOW_CONTROL_ERROR), {
    "open: a window beyond 2^31-1": lambda c: c.start() + raw_frame(WINDOW_UPDATE, 0, c.last_id, LARGEST),
    "half-closed (remote): a window beyond 2^31-1": lambda c: raw_frame(
        WINDOW_UPDATE, 0, c.pending().stream_id, LARGEST) * 2,
    "half-closed (local): a window beyond 2^31-1": lambda c: raw_frame(
        WINDOW_UPDATE, 0, c.answered().stream_id, LARGEST) * 2,
}, **NARROW)


@rules.rule("6.9.1", "DATA beyond a stream's window")
def beyond_the_window(client):
    with Gate() as gate:
        client.send_raw(client.start(gate.path("/gate")))
        gate.wait_inside()
        client.send_raw(client.data_frame(client.last_id, bytes(16_384)) * 2 + client.data_frame(client.last_id, b"x"))
        connection_error(FLOW_CONTROL_ERROR)(client)


@rules.rule("6.9.1", "a window may be as large as 2^31-1")
def largest_window(client):
    stream = client.answered()
    client.grant(2**31 - 1 - client.initial_window + stream.received, stream)
    client.grant(2**31 - 1 - 65_535 + stream.received + len("Hello, world!\n"))
    tolerated(client)


@rules.rule("6.9.1", "the end of a response needs no window", auto_window=False, settings={4: 1000})
def end_needs_no_window(client):
    assert client.get("/yield?n=1000&piece=1000").received == 1000


@rules.rule("6.9.1", "the end of a request needs no window")
def end_of_request_needs_no_window(client):
    client.send_raw(client.start("/count") + raw_frame(DATA, 0, client.last_id, bytes(16_384)) * 2
                    + raw_frame(DATA, END_STREAM, client.last_id))
    assert client.response(client.last).text == '{"length": 32768}'


@rules.rule("6.9.2", "before SETTINGS, a client's window is 65 535", preface=False)
def window_before_settings(client):
    client.peer_initial_window = client.send_window = 65_535
    pieces = b"".join(raw_frame(DATA, 0, 1, bytes(size)) for size in (16_384, 16_384, 16_384, 16_383))
    client.send_preface()
    client.send_raw(client.start() + pieces + raw_frame(DATA, END_STREAM, 1))
    assert client.response(client.last).text == '{"length": 65535}'


@rules.rule("6.9.2", "a window may become negative, and is made up for", auto_window=False, settings={4: 1000})
def negative_window(client):
    stream = client.request("GET", "/bytes?n=3000")
    client.wait_for(lambda: stream.received == 1000, "what the window allows")
    client.send_settings({4: 100})
    client.grant(900, stream)
    client.ping()
    assert stream.received == 1000
    client.grant(1, stream)
    client.wait_for(lambda: stream.received == 1001, "what the window allows")
    client.send_settings({4: 3000})
    assert client.response(stream).received == 3000


rules.table("6.9.2", connection_error(FLOW_CONTROL_ERROR), {
    "SETTINGS that make a stream's window too large": lambda c: c.start() + raw_frame(
        WINDOW_UPDATE, 0, c.last_id, NEARLY_ALL) + settings((4, 2**31 - 1)),
    "half-closed (remote): SETTINGS that make its window too large": lambda c: raw_frame(
        WINDOW_UPDATE, 0, c.pending().stream_id, NEARLY_ALL) + settings((4, 2**31 - 1)),
}, **NARROW)


@rules.rule("6.9.2", "half-closed (local): SETTINGS do not change a window that is not active", **NARROW)
def inactive_window(client):
    stream = client.answered()
    client.send_raw(raw_frame(WINDOW_UPDATE, 0, stream.stream_id, NEARLY_ALL) + settings((4, 2**31 - 1)))
    client.assert_serves()
    assert all(code == NO_ERROR for _, code in client.resets())



@rules.rule("6.9.2", "SETTINGS do not change the connection's window", auto_window=False, settings={4: 2**31 - 1})
def settings_and_connection_window(client):
    client.send_settings({4: 2**31 - 1})
    stream, window = client.request("GET", "/bytes?n=100000"), 65_535 - len("Hello, world!\n")
    client.wait_for(lambda: stream.received >= window, "what the window allows")
    client.send_settings({4: 0})
    client.ping()
    assert stream.received == window


@rules.rule("6.9.3", "DATA sent before a smaller window was known is taken", preface=False)
def smaller_window(client):
    client.send_preface()
    client.send_raw(client.start() + raw_frame(DATA, 0, 1, bytes(16_384)) * 3)
    client.wait_settings()
    assert client.peer_settings[4] < 3 * 16_384
    client.send_raw(raw_frame(DATA, END_STREAM, 1))
    assert client.response(client.last).text == '{"length": 49152}'


# -- CONTINUATION and error codes --------------------------------------------------------------------------------------

rules.table("6.10", connection_error(PROTOCOL_ERROR, 1), {
    "CONTINUATION on stream 0": lambda c: raw_frame(CONTINUATION, END_HEADERS, 0, b"\x82"),
    "CONTINUATION on an idle stream": lambda c: raw_frame(CONTINUATION, END_HEADERS, 3, b"\x82"),
    "CONTINUATION on stream 0 inside a field block": lambda c: raw_frame(HEADERS, 1, 3, b"\x82")
    + raw_frame(CONTINUATION, END_HEADERS, 0, b"\x84"),
    "another type between CONTINUATIONs": lambda c: raw_frame(HEADERS, 1, 3, b"\x82")
    + raw_frame(CONTINUATION, 0, 3, b"\x84") + raw_frame(WINDOW_UPDATE, 0, 0, ONE),
})
rules.table("6.10", connection_error(PROTOCOL_ERROR), {
    "CONTINUATION behind END_HEADERS": lambda c: c.start() + raw_frame(CONTINUATION, END_HEADERS, c.last_id, b"\x82"),
    "CONTINUATION behind CONTINUATION with END_HEADERS": lambda c: raw_frame(HEADERS, 0, c.open().stream_id)
    + raw_frame(CONTINUATION, END_HEADERS, c.last_id, c.request_block()) + raw_frame(CONTINUATION, 4, c.last_id),
    "CONTINUATION behind DATA": lambda c: c.start() + raw_frame(DATA, 0, c.last_id, b"x")
    + raw_frame(CONTINUATION, END_HEADERS, c.last_id, b"\x82"),
})
rules.table("7", tolerated, {
    "RST_STREAM of an unknown code": lambda c: c.start() + raw_frame(RST_STREAM, 0, c.last_id, b"\xff\xff\xff\xff"),
    "RST_STREAM of NO_ERROR": lambda c: c.start() + raw_frame(RST_STREAM, 0, c.last_id, bytes(4)),
})
rules.table("7", connection_error(NO_ERROR), {
    "GOAWAY of an unknown code": lambda c: raw_frame(GOAWAY, 0, 0, b"\0\0\0\0\xff\xff\xff\xff"),
})
