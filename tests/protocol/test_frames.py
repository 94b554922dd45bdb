"""Frames on the wire (RFC 9113 sections 4 and 6): formats, sizes, and each type's errors with its own code."""

from itertools import pairwise

import pytest
from hyperframe import frame as hyper
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.guard import Guard
from gunicorn_h2.protocol.reader import FrameReader

from .peer import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

PROTOCOL, FLOW, SIZE, CLOSED = (
    ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED)

# Stream 1 is open, 3 is idle.
CONNECTION_ERRORS = {
    "DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "DATA on an idle stream": (data(3, b"x"), PROTOCOL),
    "DATA on a stream of ours": (data(2, b"x"), PROTOCOL),
    "DATA padded by more than there is": (raw(DATA, PADDED, 1, b"\x05four"), PROTOCOL),
    "DATA padded without a pad length": (raw(DATA, PADDED, 1), SIZE),
    "HEADERS on stream 0": (raw(HEADERS, END_HEADERS, 0, b"\x82"), PROTOCOL),
    "HEADERS on a stream of ours": (raw(HEADERS, END_HEADERS, 2, b"\x82"), PROTOCOL),
    "HEADERS padded by more than there is": (raw(HEADERS, END_HEADERS | PADDED, 3, b"\x05four"), PROTOCOL),
    "HEADERS padded without a pad length": (raw(HEADERS, END_HEADERS | PADDED, 3), SIZE),
    "HEADERS too short for its priority": (raw(HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"four"), SIZE),
    "PRIORITY on stream 0": (priority(0), PROTOCOL),
    "PRIORITY of a broken length on an idle stream": (raw(PRIORITY, 0, 3, b"four"), SIZE),
    "RST_STREAM on stream 0": (rst_stream(0), PROTOCOL),
    "RST_STREAM on an idle stream": (rst_stream(3), PROTOCOL),
    "RST_STREAM too short": (raw(RST_STREAM, 0, 1, b"abc"), SIZE),
    "RST_STREAM too long": (raw(RST_STREAM, 0, 1, b"abcde"), SIZE),
    "SETTINGS on a stream": (raw(SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of a broken length": (raw(SETTINGS, 0, 0, b"12345"), SIZE),
    "SETTINGS ACK with a payload": (raw(SETTINGS, ACK, 0, b"123456"), SIZE),
    "SETTINGS ACK without SETTINGS": (settings_ack(), PROTOCOL),
    "ENABLE_PUSH of 2": (settings((ENABLE_PUSH, 2)), PROTOCOL),
    "ENABLE_CONNECT_PROTOCOL of 2": (settings((ENABLE_CONNECT_PROTOCOL, 2)), PROTOCOL),
    "INITIAL_WINDOW_SIZE of 2^31": (settings((INITIAL_WINDOW_SIZE, 2**31)), FLOW),
    "MAX_FRAME_SIZE of 16383": (settings((MAX_FRAME_SIZE, 16_383)), PROTOCOL),
    "MAX_FRAME_SIZE of 2^24": (settings((MAX_FRAME_SIZE, 2**24)), PROTOCOL),
    "a wrong value before a right one": (settings((ENABLE_PUSH, 9), (ENABLE_PUSH, 0)), PROTOCOL),
    "PUSH_PROMISE": (raw(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82"), PROTOCOL),
    "PING on a stream": (raw(PING, 0, 1, b"12345678"), PROTOCOL),
    "PING too short": (raw(PING, 0, 0, b"1234567"), SIZE),
    "PING too long": (raw(PING, 0, 0, b"123456789"), SIZE),
    "GOAWAY on a stream": (raw(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY too short": (raw(GOAWAY, 0, 0, bytes(7)), SIZE),
    "WINDOW_UPDATE on an idle stream": (window_update(3, 1), PROTOCOL),
    "WINDOW_UPDATE of 0 on the connection": (window_update(0, 0), PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1 on the connection": (window_update(0, 2**31 - 65_535), FLOW),
    "WINDOW_UPDATE too short": (raw(WINDOW_UPDATE, 0, 0, b"abc"), SIZE),
    "WINDOW_UPDATE too long": (raw(WINDOW_UPDATE, 0, 1, b"abcde"), SIZE),
    "CONTINUATION without HEADERS": (raw(CONTINUATION, END_HEADERS, 1, b"\x82"), PROTOCOL),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_connection_errors(peer, name):
    frame, code = CONNECTION_ERRORS[name]
    peer.open(end=False)
    peer.send(frame, ping()).assert_goaway(code, 1)
    assert peer.aborted == [(1, code)]
    assert peer.pings == []


STREAM_ERRORS = {
    "PRIORITY of a broken length": (raw(PRIORITY, 0, 1, b"four"), SIZE),
    "PRIORITY on itself": (priority(1, depends_on=1), PROTOCOL),
    "WINDOW_UPDATE of 0": (window_update(1, 0), PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1": (window_update(1, 2**31 - 65_535), FLOW),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_stream_errors(peer, name):
    frame, code = STREAM_ERRORS[name]
    peer.open(end=False)
    peer.send(frame)
    assert peer.resets == [(1, code)]
    assert peer.aborted == [(1, code)]
    peer.assert_alive()


@pytest.mark.parametrize("stream_id", [1, 2])
def test_a_stream_error_on_a_closed_stream_never_resets_one_of_ours(peer, stream_id):
    for _ in range(2):
        peer.respond(peer.open(), b"x")
    peer.take()
    peer.send(raw(PRIORITY, 0, stream_id, b"four"))
    if stream_id == 1:
        assert peer.resets == [(1, SIZE)]
    else:
        peer.assert_goaway(SIZE)


IGNORED = {
    "an unknown type": raw(0xFA, 0xFF, 1, b"payload"),
    "an unknown type on an idle stream": raw(0xFA, 0, 33, b""),
    "unknown flags on PING": raw(PING, 0xFE, 0, b"12345678"),
    "unknown flags on DATA": raw(DATA, 0xF6, 1, b"payload"),
    "an unknown setting": settings((0xFEFE, 2**32 - 1)),
    "a setting twice": settings((HEADER_TABLE_SIZE, 1), (HEADER_TABLE_SIZE, 4096)),
    "limits on what we do not do": settings((MAX_CONCURRENT_STREAMS, 0), (MAX_HEADER_LIST_SIZE, 0), (ENABLE_PUSH, 0)),
    "an unknown code of RST_STREAM": rst_stream(1, 0xFFFF_FFFF),
    "an unsolicited PING ACK": ping(b"whatever", ack=True),
    "PRIORITY on an idle stream": priority(7),
    "PRIORITY of an idle stream of ours": priority(2, depends_on=7),
    "the reserved bit of a stream identifier": raw(DATA, 0, 1 | 2**31, b"x"),
    "the reserved bit of WINDOW_UPDATE": window_update(1, 1 | 2**31),
    "the reserved bit of WINDOW_UPDATE on the connection": window_update(0, 1 | 2**31),
    "an empty HEADERS payload's padding": raw(DATA, PADDED, 1, b"\0"),
}


@pytest.mark.parametrize("name", IGNORED)
def test_ignored(peer, name):
    peer.open(end=False)
    peer.send(IGNORED[name])
    assert (peer.resets, peer.goaways) == ([], [])
    peer.assert_alive()


def test_ping_is_answered_with_its_payload(peer):
    peer.send(ping(b"\0\1\2\3\4\5\6\7"), ping(b"octets.."))
    assert peer.pings == [(True, b"\0\1\2\3\4\5\6\7"), (True, b"octets..")]


def test_settings_are_acknowledged_in_order_with_ping(peer):
    peer.send(ping(), settings((INITIAL_WINDOW_SIZE, 3)), settings(), ping())
    assert [type(frame) for frame in peer.frames] == [
        hyper.PingFrame, hyper.SettingsFrame, hyper.SettingsFrame, hyper.PingFrame]


def test_priority_reaches_the_stream(peer):
    peer.send(priority(1, 7, 9))
    stream = peer.open(end=False)
    assert (stream.depends_on, stream.weight) == (0, 16)
    peer.send(priority(1, depends_on=5 | 2**31, weight=200))
    assert (stream.depends_on, stream.weight) == (5, 201)


def test_priority_in_headers_reaches_the_stream(peer):
    frame = peer.headers(1, flags=END_HEADERS | HAS_PRIORITY | PADDED, before=b"\x03\x80\0\0\x05\xc8", after=bytes(3))
    stream = peer.send(frame).events[0].stream
    assert (stream.depends_on, stream.weight) == (5, 201)


def test_headers_that_depend_on_themselves_are_reset(peer):
    peer.send(peer.headers(1, flags=END_HEADERS | HAS_PRIORITY, before=b"\0\0\0\x01\0"))
    assert (peer.resets, peer.refused) == ([(1, PROTOCOL)], [1])
    peer.assert_alive()


def test_a_goaway_of_the_clients_ends_the_connection_after_its_streams(peer):
    stream = peer.open()
    peer.send(goaway(0, 11))
    assert peer.goaways == []
    peer.respond(stream, b"still served")
    assert peer.answers[1].body == b"still served"
    peer.assert_goaway(ErrorCode.NO_ERROR, 1)


def test_a_goaway_of_an_idle_client_ends_the_connection(peer):
    peer.send(goaway()).assert_goaway(ErrorCode.NO_ERROR, 0)


# -- sizes (section 4.2) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, CONTINUATION, 0xFA])
def test_a_frame_beyond_our_limit_is_refused_by_its_header_alone(peer, kind):
    peer.send(raw(kind, 0, 1, length=16_385)).assert_goaway(SIZE)


def test_the_largest_frame_is_accepted(connect):
    peer = connect(max_frame_size=20_000, initial_window_size=30_000)
    peer.open(end=False)
    peer.send(data(1, bytes(20_000)))
    peer.assert_alive()
    peer.send(data(1, length := bytes(20_001))).assert_goaway(SIZE)
    assert len(length) == 20_001


def test_our_frames_keep_to_the_clients_limit(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 100_000), (MAX_FRAME_SIZE, 17_000)])
    peer.respond(peer.open(), bytes(50_000))
    assert [len(frame.data) for frame in peer.take(hyper.DataFrame)] == [17_000, 17_000, 16_000]


def test_a_limit_that_shrinks_counts_at_once(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0), (MAX_FRAME_SIZE, 30_000)])
    peer.respond(peer.open(), bytes(40_000))
    peer.send(settings((MAX_FRAME_SIZE, 16_384)), window_update(1, 40_000))
    assert [len(frame.data) for frame in peer.take(hyper.DataFrame)] == [16_384, 16_384, 40_000 - 2 * 16_384]


# -- parsing and formatting ------------------------------------------------------------------------------------------

stream_ids = st.integers(0, 2**31 - 1)
wire_frames = st.tuples(st.integers(0, 255), st.integers(0, 255), stream_ids, st.binary(max_size=60))


def cuts(octets, positions):
    """Cut octets at positions."""
    edges = [0, *sorted({position % (len(octets) + 1) for position in positions}), len(octets)]
    return [octets[start:stop] for start, stop in pairwise(edges)]


class Sink:
    """Keeps what a reader finds, and shows itself to be the reader's referee."""

    def __init__(self):
        self.found, self.octets = [], b""

    def receive_headers(self, stream_id, end_stream, block, dependency):
        """Note a header block."""
        self.found.append((HEADERS, end_stream, stream_id, block, dependency))

    def receive_data(self, stream_id, end_stream, data, length):
        """Note data."""
        self.found.append((DATA, end_stream, stream_id, data, length))

    def receive_control_frame(self, kind, flags, stream_id, payload):
        """Note any other frame."""
        self.found.append((kind, flags, stream_id, payload))

    def receive(self, octets):
        """Note a frame as it came."""
        self.octets += octets


def as_found(kind, flags, stream_id, payload):
    """What a reader makes of a frame that is neither padded nor in parts."""
    if kind == HEADERS:
        return kind, bool(flags & END_STREAM), stream_id, payload, None
    if kind == DATA:
        return kind, bool(flags & END_STREAM), stream_id, payload, len(payload)
    return kind, flags, stream_id, payload


plain_frames = wire_frames.filter(lambda frame: frame[0] != CONTINUATION).map(
    lambda frame: (frame[0], frame[1] & END_STREAM | END_HEADERS, *frame[2:]) if frame[0] <= HEADERS else frame)


@given(st.lists(plain_frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=20))
def test_the_reader_finds_every_frame_however_it_is_cut(sent, positions):
    sent = [(SETTINGS, 0, 0, b""), *sent]
    octets = b"".join(frames.frame(*frame) for frame in sent)
    reader, sink = FrameReader(16_384, 10.0, Guard(ConnectionConfig(), 0.0)), Sink()
    for piece in cuts(PREFACE + octets, positions):
        reader.read(piece, sink, sink, 0.0)
    assert sink.found == [as_found(*frame) for frame in sent]
    assert sink.octets == octets


@given(stream_ids, st.integers(1, 2**31 - 1), st.sampled_from(ErrorCode), st.binary(min_size=8, max_size=8),
       st.lists(st.tuples(st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)), max_size=9))
def test_what_is_written_is_read_by_another_library(stream_id, word, code, payload, pairs):
    def parse(octets):
        frame, length = hyper.Frame.parse_frame_header(memoryview(octets[:9]))
        frame.parse_body(memoryview(octets[9:]))
        assert length == len(octets) - 9
        return frame

    opened = stream_id | 1
    assert parse(frames.goaway(stream_id, code)).last_stream_id == stream_id
    assert parse(frames.goaway(stream_id, code)).error_code == code
    assert parse(frames.ping(payload, ACK)).opaque_data == payload
    assert parse(frames.window_update(opened, word)).window_increment == word
    assert parse(frames.rst_stream(opened, code)).error_code == code
    assert parse(frames.settings(pairs)).settings == dict(pairs)


@given(st.lists(st.tuples(st.integers(0, 8) | st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)), max_size=9))
def test_settings_round_trip_or_fail_with_a_code(pairs):
    limits = {ENABLE_PUSH: range(2), INITIAL_WINDOW_SIZE: range(2**31), MAX_FRAME_SIZE: range(2**14, 2**24),
              ENABLE_CONNECT_PROTOCOL: range(2)}
    octets = frames.settings(pairs)[9:]
    if all(value in limits.get(identifier, (value,)) for identifier, value in pairs):
        assert frames.parse_settings(octets) == pairs
    else:
        with pytest.raises(ConnectionFailure):
            frames.parse_settings(octets)


@given(st.binary(max_size=50), st.integers(0, 255))
def test_padding_round_trip(payload, padding):
    octets = data(1, payload, padding=padding)[9:]
    assert frames.unpadded(octets, PADDED) == payload
    assert frames.unpadded(octets, 0) == octets
