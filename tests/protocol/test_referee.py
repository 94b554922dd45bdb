"""The referee of `http2_engine = h2`: it objects where the core does not, and nowhere else."""

import gc
import tracemalloc

import pytest
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame

from gunicorn_h2.protocol import connection
from gunicorn_h2.protocol import frames as wire
from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.engine import make_engine
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated, RequestReceived
from gunicorn_h2.protocol.guard import Guard
from gunicorn_h2.protocol.outbox import Outbox, OutputBudget
from gunicorn_h2.protocol.receiver import Receiver
from gunicorn_h2.protocol.upgrade import SWITCHING_PROTOCOLS

from .hpack_blocks import literal
from .peer import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Peer,
    data,
    fields,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

HEAD = [(b":status", b"200")]
TOO_MUCH = 65_536


class Game:
    """A referee without a core: a test says what the core let pass, and what it put into the outbox.

    The server's SETTINGS are out, and acknowledged.
    """

    def __init__(self, acknowledged=True, upgrade=None, **config):
        config = ConnectionConfig(engine="h2", **config)
        self.outbox = Outbox(config, Guard(config, 0.0), [], OutputBudget())
        self.codec, self.referee = make_engine(config, self.outbox)
        self.encoder, self.blocks = Encoder(), {}
        if upgrade is not None:
            self.outbox.put(SWITCHING_PROTOCOLS)
            self.referee.receive_upgrade(upgrade)
        self.put(wire.settings([(MAX_CONCURRENT_STREAMS, config.max_concurrent_streams),
                                (INITIAL_WINDOW_SIZE, config.initial_window_size)]))
        if acknowledged:
            self.receive(settings_ack())

    def receive(self, *frames):
        """The core let these frames pass, and acknowledged what is to be."""
        for frame in frames:
            if frame[3] in (SETTINGS, PING) and not frame[4] & ACK:
                self.outbox.put(raw(frame[3], ACK, 0, frame[9:] if frame[3] == PING else b""))
            self.decode(frame)
            self.referee.receive(frame)

    def decode(self, frame):
        """Have the codec decode a request's block, as the core does."""
        if frame in self.blocks:
            self.codec.decode(self.blocks[frame])

    def request(self, stream_id, *extra, end=True, section=None, before=b"", flags=END_HEADERS):
        """A HEADERS frame."""
        block = self.encoder.encode(fields(*extra) if section is None else section)
        frame = raw(HEADERS, flags | END_STREAM * end, stream_id, before + block)
        self.blocks[frame] = block
        return frame

    def put(self, *frames):
        """The core puts frames into the outbox, and they are written."""
        for frame in frames:
            self.outbox.put(frame)
        self.referee.validate_output()
        self.outbox.take()

    def response(self, stream_id, section=HEAD, end=False):
        """A HEADERS frame whose block the codec has encoded."""
        return raw(HEADERS, END_HEADERS | END_STREAM * end, stream_id, self.codec.encode(section))


@pytest.fixture
def game():
    """A connection with the default configuration."""
    return Game()


def last(*steps):
    """What is left to do when the steps before it are done."""
    return steps[-1]


# -- frames of the peer's that the core should not have let pass -------------------------------------------------------

P, F, S = ErrorCode.PROTOCOL_ERROR, ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.STREAM_CLOSED
WRONG_FRAMES = {
    "DATA on an idle stream": (lambda game: [data(1, b"x")], P),
    "DATA on an idle stream between others": (lambda game: [game.request(1), data(3, b"x")], P),
    "DATA on stream 0": (lambda game: [data(0, b"x")], P),
    "DATA after END_STREAM": (lambda game: [game.request(1), data(1, b"x")], S),
    "DATA on a closed stream": (lambda game: last(
        game.receive(game.request(1)), game.put(game.response(1, end=True)), [data(1, b"x")]), S),
    "DATA on a stream passed over": (lambda game: [game.request(3), data(1, b"x")], S),
    "DATA on a stream that the peer reset":
        (lambda game: [game.request(1, end=False), rst_stream(1), data(1, b"x")], S),
    "padding longer than the frame": (lambda game: [game.request(1, end=False), raw(DATA, PADDED, 1, b"\x05x")], P),
    "padding without its length":
        (lambda game: [game.request(1, end=False), raw(DATA, PADDED, 1)], ErrorCode.FRAME_SIZE_ERROR),
    "HEADERS after END_STREAM": (lambda game: [game.request(1), game.request(1, section=[(b"x", b"1")])], S),
    "HEADERS on a closed stream":
        (lambda game: last(game.receive(game.request(1)), game.put(game.response(1, end=True)),
                           [game.request(1, section=[(b"x", b"1")])]), S),
    "HEADERS on a stream passed over": (lambda game: [game.request(3), game.request(1)], P),
    "HEADERS on an even stream": (lambda game: [game.request(2)], P),
    "HEADERS on stream 0": (lambda game: [game.request(0)], P),
    "HEADERS too short for their priority":
        (lambda game: [raw(HEADERS, HAS_PRIORITY | END_HEADERS, 1, b"123")], ErrorCode.FRAME_SIZE_ERROR),
    "a stream that depends on itself":
        (lambda game: [game.request(1, flags=END_HEADERS | HAS_PRIORITY, before=b"\0\0\0\1\0")], P),
    "trailers without END_STREAM":
        (lambda game: [game.request(1, end=False), game.request(1, section=[(b"x", b"1")], end=False)], P),
    "trailers twice":
        (lambda game: [game.request(1, end=False), *[game.request(1, section=[(b"x", b"1")]) for _ in range(2)]], S),
    "a pseudo-header field in the trailers":
        (lambda game: [game.request(1, end=False), game.request(1, section=[(b":path", b"/")])], P),
    "more body than content-length":
        (lambda game: [game.request(1, (b"content-length", b"3"), end=False), data(1, b"four")], P),
    "less body than content-length":
        (lambda game: [game.request(1, (b"content-length", b"3"), end=False), data(1, b"12", end=True)], P),
    "a content-length that is no number": (lambda game: [game.request(1, (b"content-length", b"-1"))], P),
    "content-lengths that differ":
        (lambda game: [game.request(1, (b"content-length", b"1"), (b"content-length", b"2"))], P),
    "more than the stream's window":
        (lambda game: [game.request(1, end=False), *[data(1, bytes(16_384))] * 4], F),
    "more than the connection's window":
        (lambda game: [game.request(1, end=False), game.request(3, end=False), *[data(1, bytes(16_000))] * 4,
                       *[data(3, bytes(16_000))] * 4], F),
    "a frame that is too long":
        (lambda game: [game.request(1, end=False), data(1, bytes(16_385))], ErrorCode.FRAME_SIZE_ERROR),
    "a name in upper case": (lambda game: [game.request(1, (b"X-Upper", b"1"))], P),
    "a name without a letter": (lambda game: [game.request(1, (b"", b"1"))], P),
    "a connection field": (lambda game: [game.request(1, (b"connection", b"close"))], P),
    "a te that is not trailers": (lambda game: [game.request(1, (b"te", b"gzip"))], P),
    "a line break in a value": (lambda game: [game.request(1, (b"x", b"1\r\n2"))], P),
    "white space around a value": (lambda game: [game.request(1, (b"x", b" 1"))], P),
    "no path": (lambda game: [game.request(1, section=fields(path=None))], P),
    "an empty path": (lambda game: [game.request(1, section=fields(path=b""))], P),
    "no method": (lambda game: [game.request(1, section=fields(method=None))], P),
    "a status in a request": (lambda game: [game.request(1, section=[*HEAD, *fields()], end=False)], P),
    "a pseudo-header field twice": (lambda game: [game.request(1, section=[(b":path", b"/"), *fields()])], P),
    "a pseudo-header field behind others": (lambda game: [game.request(1, (b"x", b"1"), (b":scheme", b"https"))], P),
    "a host twice": (lambda game: [game.request(1, (b"host", b"a"), (b"host", b"b"), section=[
        *fields(authority=None), (b"host", b"a"), (b"host", b"b")])], P),
    "WINDOW_UPDATE on an idle stream": (lambda game: [window_update(1, 1)], P),
    "WINDOW_UPDATE on an even stream": (lambda game: [game.request(3), window_update(2, 1)], P),
    "WINDOW_UPDATE of 0": (lambda game: [window_update(0, 0)], P),
    "WINDOW_UPDATE beyond the connection's largest window": (lambda game: [window_update(0, 2**31 - 1)], F),
    "WINDOW_UPDATE beyond a stream's largest window":
        (lambda game: [game.request(1), window_update(1, 2**31 - 1)], F),
    "SETTINGS beyond a stream's largest window":
        (lambda game: [game.request(1), window_update(1, 2**31 - 65_536), settings((INITIAL_WINDOW_SIZE, 65_536))], F),
    "SETTINGS of a wrong value": (lambda game: [settings((ENABLE_PUSH, 2))], P),
    "SETTINGS of frames that are too small": (lambda game: [settings((MAX_FRAME_SIZE, 100))], P),
    "SETTINGS of a broken length": (lambda game: [raw(SETTINGS, 0, 0, b"12345")], ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (lambda game: [raw(SETTINGS, 0, 1)], P),
    "PING of a broken length": (lambda game: [raw(PING, 0, 0, b"1234567")], ErrorCode.FRAME_SIZE_ERROR),
    "PING on a stream": (lambda game: [raw(PING, 0, 1, bytes(8))], P),
    "RST_STREAM of a broken length":
        (lambda game: [game.request(1), raw(RST_STREAM, 0, 1, b"123")], ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM before any request": (lambda game: [rst_stream(1)], P),
    "PRIORITY of a broken length": (lambda game: [raw(PRIORITY, 0, 1, b"1234")], ErrorCode.FRAME_SIZE_ERROR),
    "PRIORITY of a stream on itself": (lambda game: [priority(1, 1)], P),
    "PUSH_PROMISE": (lambda game: [game.request(1), raw(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82")], P),
    "CONTINUATION of nothing": (lambda game: [game.request(1), raw(CONTINUATION, END_HEADERS, 1, b"\x82")], P),
    "octets behind the frame": (lambda game: [raw(HEADERS, END_HEADERS, 1, b"\x82\x87\x84") + b"\x90"], P),
    "a header block that ends on another stream":
        (lambda game: [raw(HEADERS, 0, 1, b"\x82") + raw(CONTINUATION, END_HEADERS, 3, b"\x84")], P),
}


@pytest.mark.parametrize("name", WRONG_FRAMES)
def test_a_wrong_frame_is_objected_to(game, name):
    make, code = WRONG_FRAMES[name]
    with pytest.raises(ConnectionFailure) as caught:
        game.receive(*make(game))
    assert caught.value.code is code
    assert caught.value.reason.startswith("h2: ")
    assert len(caught.value.reason) > len("h2: ")


def test_more_streams_than_announced_are_objected_to():
    game = Game(max_concurrent_streams=2)
    game.receive(game.request(1), game.request(3))
    with pytest.raises(ConnectionFailure, match="TooManyStreams") as caught:
        game.receive(game.request(5))
    assert caught.value.code is ErrorCode.PROTOCOL_ERROR


def test_a_header_block_that_the_core_did_not_decode_is_noticed(game):
    """The tables of both ends would part."""
    with pytest.raises(ConnectionFailure, match="not decoded") as caught:
        game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode(fields((b"x-a", b"1")))))
    assert caught.value.code is ErrorCode.INTERNAL_ERROR


def test_a_header_block_that_the_core_knew_needs_no_decoding(game):
    block = b"\x82\x87\x84\x41\x01a"
    game.codec.decode(block)
    game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x87\x84\xbe"))
    game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 3, b"\x82\x87\x84\xbe"))
    changes = game.codec.changes
    for number in range(300):
        game.codec.decode(b"\x82\x00\x01x\x03%03d" % number)
    game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 5, b"\x82\x87\x84\xbe"))
    assert game.codec.changes == changes


def test_the_same_header_block_may_mean_something_else_by_now(game):
    game.codec.decode(b"\x82\x87\x84" + literal(0x40, b":authority", b"a"))
    warm = b"\x82\x87\x84\xbe"
    game.codec.decode(warm)
    game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 1, warm))
    game.codec.decode(literal(0x40, b"connection", b"close"))
    with pytest.raises(ConnectionFailure, match="Connection-specific"):
        game.receive(raw(HEADERS, END_HEADERS | END_STREAM, 3, warm))


# -- frames of ours that should not go out -----------------------------------------------------------------------------


# Each is the last frame, stream 1 waits for its response.
WRONG_OUTPUT = {
    "DATA beyond the stream's window": lambda game: last(
        game.receive(settings((INITIAL_WINDOW_SIZE, 3))), game.put(game.response(1)), data(1, b"four")),
    "DATA beyond the connection's window": lambda game: last(
        game.receive(window_update(1, 10)), game.put(game.response(1), *[data(1, bytes(16_384))] * 3),
        data(1, bytes(16_384))),
    "DATA that is too long for a frame": lambda game: last(game.put(game.response(1)), data(1, bytes(16_385))),
    "DATA on an idle stream": lambda game: data(3, b"x"),
    "DATA after END_STREAM": lambda game: last(game.put(game.response(1, end=True)), data(1, b"x")),
    "DATA with padding": lambda game: last(game.put(game.response(1)), data(1, b"x", padding=3)),
    "HEADERS on an idle stream": lambda game: game.response(3),
    "HEADERS after END_STREAM": lambda game: last(game.put(game.response(1, end=True)), game.response(1)),
    "HEADERS with a priority":
        lambda game: raw(HEADERS, END_HEADERS | HAS_PRIORITY, 1, bytes(5) + game.codec.encode(HEAD)),
    "HEADERS without a status": lambda game: game.response(1, [(b"x", b"1")]),
    "trailers without END_STREAM": lambda game: last(game.put(game.response(1)), game.response(1, [(b"x", b"1")])),
    "an interim response that ends the stream": lambda game: game.response(1, [(b":status", b"103")], True),
    "an interim response after the final one": lambda game: last(
        game.put(game.response(1)), game.response(1, [(b":status", b"103")])),
    "a connection field": lambda game: game.response(1, [*HEAD, (b"connection", b"close")]),
    "a field without a name": lambda game: game.response(1, [*HEAD, (b"", b"close")]),
    "a status that comes late": lambda game: game.response(1, [(b"x", b"1"), *HEAD]),
    "a block that was not encoded": lambda game: raw(HEADERS, END_HEADERS, 1, b"\x88"),
    "another block than the one encoded":
        lambda game: last(game.codec.encode(HEAD), raw(HEADERS, END_HEADERS, 1, b"\x89")),
    "CONTINUATION of nothing": lambda game: raw(CONTINUATION, END_HEADERS, 1, game.codec.encode(HEAD)),
    "RST_STREAM on an idle stream": lambda game: rst_stream(3),
    "RST_STREAM on a closed stream": lambda game: last(game.put(game.response(1, end=True)), rst_stream(1)),
    "RST_STREAM twice": lambda game: last(game.put(rst_stream(1)), rst_stream(1)),
    "RST_STREAM of a broken length": lambda game: raw(RST_STREAM, 0, 1, b"123"),
    "WINDOW_UPDATE of 0": lambda game: window_update(0, 0),
    "WINDOW_UPDATE on an idle stream": lambda game: window_update(3, 1),
    "WINDOW_UPDATE on a closed stream": lambda game: last(game.put(game.response(1, end=True)), window_update(1, 1)),
    "WINDOW_UPDATE beyond the largest window": lambda game: window_update(0, 2**31 - 1),
    "SETTINGS of a wrong value": lambda game: settings((MAX_FRAME_SIZE, 1)),
    "SETTINGS of a broken length": lambda game: raw(SETTINGS, 0, 0, b"123"),
    "PING of a broken length": lambda game: raw(PING, 0, 0, b"123"),
    "an ACK of a PING that never came": lambda game: ping(ack=True),
    "an ACK of SETTINGS that never came": lambda game: settings_ack(),
    "PRIORITY": lambda game: priority(1),
    "PUSH_PROMISE": lambda game: raw(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82"),
    "an unknown type": lambda game: raw(0xFA),
    "unknown flags": lambda game: last(game.put(game.response(1)), raw(DATA, 0x40, 1, b"x")),
}


@pytest.mark.parametrize("name", WRONG_OUTPUT)
def test_wrong_output_is_held_back(game, name):
    game.receive(game.request(1))
    wrong = WRONG_OUTPUT[name](game)
    game.outbox.put(ping())
    game.referee.validate_output()
    game.outbox.put(wrong)
    with pytest.raises(ConnectionFailure) as caught:
        game.referee.validate_output()
    assert caught.value.code is ErrorCode.INTERNAL_ERROR
    assert caught.value.reason.startswith("h2: our own frame: ")
    assert game.outbox.take() == ping()


@pytest.mark.parametrize("frame", [ping(), settings()])
def test_an_ack_that_is_missing_is_noticed(game, frame):
    with pytest.raises(ConnectionFailure, match="an ACK of ours is missing") as caught:
        game.referee.receive(frame)
    assert caught.value.code is ErrorCode.INTERNAL_ERROR


@pytest.mark.parametrize(("frame", "answer"), [
    (ping(), ping(b"87654321", ack=True)), (ping(), settings_ack()), (settings(), ping(ack=True)), (ping(), ping())])
def test_an_ack_that_is_wrong_is_noticed(game, frame, answer):
    game.outbox.put(answer)
    with pytest.raises(ConnectionFailure, match="an ACK"):
        game.referee.receive(frame)


# -- what h2 is not asked about ----------------------------------------------------------------------------------------


HONEST_FRAMES = {
    "Host in other letters than the authority":
        lambda game: [game.request(1, section=[*fields(authority=b"a"), (b"host", b"A")])],
    "Host alone": lambda game: [game.request(1, section=[*fields(authority=None), (b"host", b"a")])],
    "neither Host nor authority": lambda game: [game.request(1, section=fields(authority=None))],
    "a reserved bit in WINDOW_UPDATE": lambda game: [window_update(0, 2**31 + 1)],
    "ALTSVC": lambda game: [raw(0xA, 0, 0, b"\x05no")],
    "an unknown type": lambda game: [raw(0xFA, 0xFF, 7, b"?")],
    "a content-length in the trailers": lambda game: [
        game.request(1, (b"content-length", b"1"), end=False), data(1, b"1"),
        game.request(1, section=[(b"content-length", b"none"), (b"content-length", b"3")])],
    "trailers of nothing but padding": lambda game: [
        game.request(1, end=False), raw(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, b"\1\0")],
    "trailers of a stream that depends on itself": lambda game: [
        game.request(1, end=False),
        game.request(1, section=[(b"x", b"1")], flags=END_HEADERS | HAS_PRIORITY, before=b"\0\0\0\1\0")],
    "a client that goes away": lambda game: [goaway(), game.request(1), ping()],
    "late WINDOW_UPDATE": lambda game: last(
        game.receive(game.request(1)), game.put(game.response(1, end=True)), [window_update(1, 5)]),
    "late RST_STREAM": lambda game: last(
        game.receive(game.request(1)), game.put(game.response(1, end=True)), [rst_stream(1)]),
    "a window that nobody fills any more": lambda game: last(
        game.receive(game.request(1, end=False)), game.put(game.response(1, end=True)),
        [window_update(1, 2**31 - 1), data(1, b"x"), data(1, end=True), rst_stream(1)]),
    "frames that crossed our reset": lambda game: last(
        game.receive(game.request(1, (b"content-length", b"1"), end=False)), game.put(rst_stream(1)),
        [data(1, b"too long"), window_update(1, 1), game.request(1, section=[(b"x", b"1")]), rst_stream(1)]),
    "settings that closed streams do not mind": lambda game: last(
        game.receive(game.request(1), window_update(1, 2**31 - 65_536)), game.put(game.response(1, end=True)),
        [settings((INITIAL_WINDOW_SIZE, 65_536))]),
    "settings that streams whose response has ended do not mind": lambda game: last(
        game.receive(game.request(1, end=False), window_update(1, 2**31 - 65_536)),
        game.put(game.response(1, end=True)),
        [settings((INITIAL_WINDOW_SIZE, 65_536)), settings((INITIAL_WINDOW_SIZE, 2**31 - 1)), data(1, end=True)]),
    "frames beyond the final GOAWAY": lambda game: last(
        game.receive(game.request(1)), game.put(goaway(2**31 - 1), goaway(1)),
        [game.request(3, (b"connection", b"close")), data(3, b"x"), data(5, b"x"), window_update(7, 0), rst_stream(9)]),
}


@pytest.mark.parametrize("name", HONEST_FRAMES)
def test_what_h2_is_wrong_about_is_let_pass(game, name):
    game.receive(*HONEST_FRAMES[name](game))
    game.put(ping())


def test_a_failed_frame_closes_its_stream_and_costs_its_window():
    game = Game()
    game.receive(game.request(1, (b"content-length", b"1"), end=False), game.request(3, end=False))
    for _ in range(3):
        game.receive(data(3, bytes(16_384)))
    game.outbox.put(rst_stream(1, 1))
    game.referee.receive_failed(data(1, bytes(16_384 - 1)))
    assert game.outbox.take() == rst_stream(1, 1)
    with pytest.raises(ConnectionFailure, match="FlowControl"):
        game.receive(data(1, b"x"))
    with pytest.raises(ConnectionFailure, match="FlowControl"):
        game.referee.receive_failed(data(1, b"x"))


def test_a_refused_request_is_unknown_to_h2_and_known_to_have_been(game):
    """RST_STREAM for it goes out, and what the client had sent already comes in."""
    for stream_id in range(1, 4_000, 2):
        frame = game.request(stream_id, (b"connection", b"close"), end=False)
        game.decode(frame)
        game.outbox.put(rst_stream(stream_id))
        game.referee.receive_failed(frame)
        game.receive(window_update(stream_id, 1), rst_stream(stream_id))
    game.receive(window_update(1, 1), rst_stream(1), data(3_999, b"x"), game.request(3_999, section=[(b"x", b"1")]))
    game.receive(game.request(4_001))
    with pytest.raises(ConnectionFailure):
        game.receive(window_update(4_003, 1))


@pytest.mark.parametrize("end", [False, True])
def test_an_empty_frame_needs_no_window(end):
    """Section 6.9.2: our SETTINGS take the window below zero, and the body may end there (section 6.9.1)."""
    game = Game(acknowledged=False, initial_window_size=5)
    game.receive(game.request(1, end=False), data(1, b"123456"), settings_ack(), data(1, end=end))
    if not end:
        game.put(window_update(1, 1))
    with pytest.raises(ConnectionFailure) as caught:
        game.receive(data(1, b"x"))
    assert caught.value.code is (ErrorCode.STREAM_CLOSED if end else ErrorCode.FLOW_CONTROL_ERROR)


def test_an_upgraded_connection_begins_with_stream_1():
    game = Game(upgrade=settings((INITIAL_WINDOW_SIZE, 3), (0xFFFF, 1))[9:])
    game.receive(settings())
    game.put(game.response(1), data(1, b"one"))
    game.outbox.put(data(1, b"!"))
    with pytest.raises(ConnectionFailure, match="FlowControlError"):
        game.referee.validate_output()


def test_large_frames_may_come_before_the_acknowledgement(connect):
    peer = connect(setup=False, max_frame_size=20_000)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(20_000)))
    peer.assert_alive()


def test_many_streams_may_come_before_the_acknowledgement(connect):
    peer = connect(setup=False, max_concurrent_streams=200)
    peer.send(PREFACE, settings(), *[peer.headers(stream_id) for stream_id in range(1, 301, 2)])
    assert len(peer.of(RequestReceived)) == 150
    peer.assert_alive()


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("count", [62, 63, 64, 200])
def test_a_header_block_may_have_many_pieces(connect, count, end):
    """As many CONTINUATIONs as the core allows for the size of the list."""
    peer = connect(max_header_list_size=1_000_000)
    block = peer.encoder.encode(fields((b"x", b"1" * 300)))
    peer.send(raw(HEADERS, END_STREAM * end, 1, block[:1]),
              *[raw(CONTINUATION, 0, 1, block[number:number + 1]) for number in range(1, count)],
              raw(CONTINUATION, END_HEADERS, 1, block[count:]))
    (request,) = peer.of(RequestReceived)
    assert (request.end_stream, request.stream.head.fields) == (end, [(b"x", b"1" * 300)])
    peer.assert_alive()


def test_trailers_of_ours_may_be_empty(connect):
    peer = connect()
    stream = peer.open()
    peer.respond(stream, b"body", end=False, finish=False)
    peer.core.send_trailers(stream, [])
    peer.collect().assert_alive()
    assert (peer.answers[1].trailers, peer.answers[1].ended) == ([], True)


def test_heads_of_ours_may_have_many_pieces(connect):
    peer = connect()
    extra = [(b"x-%d" % number, b"v" * 1_000) for number in range(50)]
    peer.respond(peer.open(), b"body", extra)
    pieces = sum(isinstance(frame, ContinuationFrame) for frame in peer.frames)
    assert pieces > 1
    assert [type(frame).__name__ for frame in peer.frames] == [
        "HeadersFrame", *["ContinuationFrame"] * pieces, "DataFrame"]
    assert peer.answers[1].head[1:] == extra
    peer.assert_alive()


# -- memory ------------------------------------------------------------------------------------------------------------


def grown(act, times):
    """By how many octets memory grows while something is done so many times, having been done as often before."""
    sizes = []
    tracemalloc.start()
    try:
        for start in (0, times):
            for number in range(start, start + times):
                act(number)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes[1] - sizes[0]
    finally:
        tracemalloc.stop()


@pytest.mark.memory
def test_settings_that_nobody_knows_are_not_remembered(game):
    def act(number):
        game.receive(settings(*[(20 + number * 30 + index, 1) for index in range(30)]))
        game.outbox.take()

    assert grown(act, 300) < 10_000


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.memory
def test_streams_that_were_reset_are_not_remembered_for_ever(game, failing):
    def act(number):
        stream_id = 2 * number + 1
        frame = game.request(stream_id)
        game.blocks.clear()
        game.codec.decode(frame[9:])
        if not failing:
            game.receive(frame)
        game.outbox.put(rst_stream(stream_id))
        if failing:
            game.referee.receive_failed(frame)
        game.put()

    assert grown(act, 1_100) < 60_000


@pytest.mark.memory
def test_streams_that_ended_are_not_remembered_for_ever(game):
    def act(number):
        frame = game.request(2 * number + 1)
        game.receive(frame)
        game.blocks.clear()
        game.put(game.response(2 * number + 1, end=True))

    assert grown(act, 300) < 10_000


BLOCKS = {
    "small": lambda number: b"\x82" + literal(0, b"x", b"%05d" % number),
    "large": lambda number: b"\x82" + literal(0, b"x", b"%05d" % number * 1_000),
    "of many fields": lambda number: b"\x82" * 150 + literal(0, b"x", b"%05d" % number),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.memory
def test_header_blocks_are_not_remembered_for_ever(game, name):
    assert grown(lambda number: game.codec.decode(BLOCKS[name](number)), 150) < 30_000


# -- in the place of work ----------------------------------------------------------------------------------------------


class Careless(Receiver):
    """Takes DATA without a look at its stream, and answers every control frame with the same PING."""

    def receive_data(self, stream_id, end_stream, data, length):
        """See `FrameSink.receive_data`."""

    def receive_control_frame(self, kind, flags, stream_id, payload):
        """See `FrameSink.receive_control_frame`."""
        super().receive_control_frame(kind, flags, stream_id, b"always 1" if kind == PING else payload)


class Overflowing(Outbox):
    """Does not mind the peer's windows."""

    def open_window(self, increment):
        """Open the window much more than that."""
        self.window += increment * 1000


def test_a_core_that_takes_too_much_ends_its_connection(engine, cut, monkeypatch):
    monkeypatch.setattr(connection, "Receiver", Careless)
    peer = Peer(engine, cut)
    peer.open(end=False)
    peer.send(data(1, b"x", end=True), data(1, b"x"))
    if engine == "fast":
        assert not peer.core.closed
    else:
        peer.assert_goaway(ErrorCode.STREAM_CLOSED, 1)
        assert peer.of(ConnectionTerminated)[0].reason == "h2: an error of stream 1"


def test_a_core_that_answers_wrong_ends_its_connection(engine, cut, monkeypatch):
    monkeypatch.setattr(connection, "Receiver", Careless)
    peer = Peer(engine, cut)
    peer.send(ping())
    if engine == "fast":
        assert peer.pings == [(True, b"always 1")]
    else:
        peer.assert_goaway(ErrorCode.INTERNAL_ERROR, 0)
        assert peer.pings == []


def test_a_core_that_sends_too_much_ends_its_connection(engine, cut, monkeypatch):
    monkeypatch.setattr(connection, "Outbox", Overflowing)
    peer = Peer(engine, cut, [(INITIAL_WINDOW_SIZE, 100_000)])
    stream = peer.open()
    peer.send(window_update(0, 1000))
    peer.respond(stream, bytes(80_000))
    sent = sum(len(frame.data) for frame in peer.frames if isinstance(frame, DataFrame))
    if engine == "fast":
        assert sent == 80_000
    else:
        assert sent <= 66_535
        peer.assert_goaway(ErrorCode.INTERNAL_ERROR, 1)
        assert peer.of(ConnectionTerminated)[0].reason.startswith("h2: our own frame: FlowControlError")
