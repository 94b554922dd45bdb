"""The connection preface and the first SETTINGS (RFC 9113 sections 3.4 and 6.5)."""

import pytest
from hyperframe.frame import SettingsFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import RequestReceived

from .peer import (
    ENABLE_CONNECT_PROTOCOL,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PREFACE,
    Peer,
    data,
    ping,
    priority,
    raw,
    settings,
    settings_ack,
    window_update,
)


def test_the_first_frame_carries_the_configured_settings_once(connect):
    peer = connect(setup=False, max_concurrent_streams=7, initial_window_size=70_000, max_frame_size=20_000,
                   max_header_list_size=9_000)
    peer.collect()
    peer.send(PREFACE, settings(), settings_ack())
    assert [type(frame) for frame in peer.frames[:1]] == [SettingsFrame]
    announced = [frame.settings for frame in peer.frames if isinstance(frame, SettingsFrame) and not frame.flags]
    assert announced == [{MAX_CONCURRENT_STREAMS: 7, INITIAL_WINDOW_SIZE: 70_000, MAX_FRAME_SIZE: 20_000,
                          MAX_HEADER_LIST_SIZE: 9_000, ENABLE_CONNECT_PROTOCOL: 1}]


def test_the_settings_leave_before_anything_was_received(connect):
    peer = connect(setup=False)
    assert [type(frame) for frame in peer.collect().frames[:1]] == [SettingsFrame]


def test_no_limit_on_the_header_list_is_not_announced(connect):
    peer = connect(setup=False, max_header_list_size=0)
    assert MAX_HEADER_LIST_SIZE not in peer.collect().server_settings


def test_the_connection_window_is_opened_at_once(connect):
    peer = connect(setup=False, connection_window_size=1_000_000)
    assert peer.collect().updates == [(0, 1_000_000 - 65_535)]


def test_the_default_connection_window_needs_no_update(connect):
    peer = connect(setup=False, connection_window_size=65_535)
    assert peer.collect().updates == []


def test_the_clients_settings_are_acknowledged(connect):
    peer = connect(setup=False)
    peer.send(PREFACE, settings((INITIAL_WINDOW_SIZE, 1)))
    assert [frame.flags for frame in peer.take(SettingsFrame)] == [set(), {"ACK"}]
    peer.assert_alive()


def test_a_request_may_follow_the_preface_at_once(connect):
    peer = connect(setup=False)
    peer.send(PREFACE, settings(), peer.headers(1))
    assert [event.stream.stream_id for event in peer.of(RequestReceived)] == [1]


@pytest.mark.parametrize("octets", [
    b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", PREFACE[:-1] + b"x", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nS\n"])
def test_a_wrong_preface_is_a_protocol_error(connect, octets):
    connect(setup=False).send(octets).assert_goaway(ErrorCode.PROTOCOL_ERROR, 0)


@pytest.mark.parametrize("frame", [
    settings_ack(), ping(), window_update(0, 1), priority(1), data(1, b"x"), raw(0xFA, 0, 0, b"unknown")])
def test_the_first_frame_must_be_settings(connect, frame):
    connect(setup=False).send(PREFACE, frame).assert_goaway(ErrorCode.PROTOCOL_ERROR, 0)


def test_nothing_is_understood_after_the_end(connect):
    peer = connect(setup=False).send(b"nonsense that is long enough to be wrong", PREFACE, settings())
    assert len(peer.goaways) == 1
    events = len(peer.events)
    peer.send(ping())
    peer.core.receive_eof()
    peer.core.fail(ErrorCode.INTERNAL_ERROR, "again")
    peer.wait(100)
    assert (len(peer.goaways), len(peer.collect().events)) == (1, events)


def test_a_client_that_goes_away_ends_everything(peer):
    peer.open()
    peer.core.receive_eof()
    peer.collect()
    assert peer.aborted == [(1, ErrorCode.CANCEL)]
    assert peer.terminated == ErrorCode.NO_ERROR
    assert peer.goaways == []
    assert peer.core.next_deadline() is None


def test_the_clients_table_size_does_not_bind_what_we_decode(connect):
    """SETTINGS_HEADER_TABLE_SIZE limits the client's decoder, which is our encoder's peer."""
    peer = connect([(HEADER_TABLE_SIZE, 0)])
    peer.decoder.header_table_size = peer.decoder.max_allowed_table_size = 0
    for _ in range(3):
        peer.respond(peer.open((b"x-indexed", b"1")), b"x", [(b"x-answer", b"1")])
    assert [peer.answers[stream_id].status for stream_id in (1, 3, 5)] == [200] * 3


def test_whole_and_in_pieces_give_the_same_octets(engine):
    def talk(cut):
        peer = Peer(engine, cut, [(INITIAL_WINDOW_SIZE, 5)], request_buffer_size=0)
        stream = peer.open((b"content-length", b"4"), end=False, method=b"POST")
        peer.send(data(1, b"ab", padding=3), ping(), data(1, b"cd", end=True), window_update(1, 100))
        peer.respond(stream, b"hello world")
        peer.send(peer.headers(3, [(b":method", b"GET")]), window_update(0, 0))
        return peer.written, [repr(event) for event in peer.events if not hasattr(event, "stream")], peer.answers[1]

    whole, pieces = talk(None), talk(1)
    assert whole[:2] == pieces[:2]
    assert vars(whole[2]) == vars(pieces[2])
