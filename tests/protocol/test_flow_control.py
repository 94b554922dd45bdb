"""Flow control in both directions (RFC 9113 sections 5.2 and 6.9)."""

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, StreamWritable
from gunicorn_h2.protocol.headers import ResponseHead

from .peer import INITIAL_WINDOW_SIZE, PREFACE, data, rst_stream, settings, settings_ack, window_update

FLOW = ErrorCode.FLOW_CONTROL_ERROR


def sizes(peer):
    """The sizes of the DATA frames that came."""
    return [len(frame.data) for frame in peer.take(DataFrame)]


# -- sending ---------------------------------------------------------------------------------------------------------


def test_a_response_stops_at_the_streams_window(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10)])
    stream = peer.open()
    peer.respond(stream, b"0123456789abcdef", finish=False)
    assert (sizes(peer), stream.queued) == ([10], 6)
    peer.send(window_update(1, 4))
    assert (sizes(peer), peer.answers[1].ended) == ([4], False)
    peer.send(window_update(1, 100))
    assert (sizes(peer), peer.answers[1].ended) == ([2], True)
    assert peer.answers[1].body == b"0123456789abcdef"


def test_a_window_of_nothing_lets_the_head_pass(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    peer.respond(peer.open(), b"body")
    assert [type(frame) for frame in peer.take()] == [HeadersFrame]
    peer.send(settings((INITIAL_WINDOW_SIZE, 2)))
    assert sizes(peer) == [2]
    peer.send(settings((INITIAL_WINDOW_SIZE, 4)))
    assert (sizes(peer), peer.answers[1].ended) == ([2], True)


def test_an_exact_window_ends_the_stream_without_an_empty_frame(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 4)])
    peer.respond(peer.open(), b"body")
    assert (sizes(peer), peer.answers[1].ended) == ([4], True)


def test_a_response_stops_at_the_connections_window(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    stream = peer.open()
    peer.respond(stream, bytes(100_000), finish=False)
    assert (sum(sizes(peer)), stream.queued) == (65_535, 34_465)
    peer.send(window_update(0, 34_465))
    assert (sum(sizes(peer)), peer.answers[1].ended) == (34_465, True)


def test_the_ends_of_streams_need_no_window(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    streams = [peer.open() for _ in range(4)]
    for stream in streams[1:]:
        peer.respond(stream, b"x", end=False, finish=False)
    peer.respond(streams[0], bytes(100_000), finish=False)
    for stream in streams[1:3]:
        peer.core.send_data(stream, b"", True)
    peer.core.send_trailers(streams[3], [(b"x-trailer", b"1")])
    peer.collect()
    assert [peer.answers[number].ended for number in (1, 3, 5, 7)] == [False, True, True, True]
    peer.send(window_update(0, 100_000))
    assert peer.answers[1].ended


def test_ends_that_were_waiting_their_turn_pass_a_shut_window(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)], stream_buffer_size=1_000_000)
    streams = [peer.open() for _ in range(4)]
    for stream in streams:
        peer.core.send_headers(stream, ResponseHead(200, []), False)
    peer.core.send_data(streams[0], bytes(40_000), True)
    peer.core.send_data(streams[1], bytes(40_000), True)
    peer.core.send_data(streams[2], b"", True)
    peer.core.send_data(streams[3], b"x" * 40_000, True)
    peer.core.reset(streams[3], ErrorCode.INTERNAL_ERROR)
    peer.collect()
    assert [peer.answers[number].ended for number in (1, 3, 5)] == [False, False, True]
    peer.send(window_update(0, 40_000))
    assert [len(peer.answers[number].body) for number in (1, 3)] == [40_000, 40_000]


def test_a_stream_without_a_window_does_not_stop_the_others(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10)])
    first, second = peer.open(), peer.open()
    peer.respond(first, bytes(50), finish=False)
    peer.respond(second, b"through")
    assert peer.answers[3].ended


def test_a_shrinking_setting_takes_windows_below_zero(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 100)])
    stream = peer.open()
    peer.respond(stream, bytes(150), finish=False)
    peer.send(settings((INITIAL_WINDOW_SIZE, 40)))
    assert (sum(sizes(peer)), stream.send_window) == (100, -60)
    peer.send(window_update(1, 60))
    assert sizes(peer) == []
    peer.send(window_update(1, 20))
    assert sizes(peer) == [20]
    peer.send(settings((INITIAL_WINDOW_SIZE, 70)))
    assert (sizes(peer), peer.answers[1].ended) == ([30], True)


@pytest.mark.parametrize("size", [0, 10, 20])
def test_a_window_that_shrinks_while_data_waits_for_its_turn_is_obeyed(connect, size):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000)])
    first, second = peer.open(), peer.open()
    peer.core.send_headers(first, ResponseHead(200, []), False)
    peer.core.send_data(first, bytes(10), False)
    peer.collect()
    for stream in (first, second):
        if stream is second:
            peer.core.send_headers(stream, ResponseHead(200, []), False)
        peer.core.send_data(stream, b"y" * 100, True)
    peer.core.receive_data(settings((INITIAL_WINDOW_SIZE, size)), peer.now)
    peer.collect()
    assert len(peer.answers[1].body) == max(size, 10)
    assert len(peer.answers[3].body) == size
    peer.send(window_update(1, 110), window_update(3, 100))
    assert [peer.answers[number].body for number in (1, 3)] == [bytes(10) + b"y" * 100, b"y" * 100]


def test_a_setting_may_not_push_a_window_over_the_limit(peer):
    peer.open()
    peer.send(window_update(1, 2**31 - 1 - 65_535))
    peer.send(settings((INITIAL_WINDOW_SIZE, 65_536))).assert_goaway(FLOW)


def test_windows_may_be_as_large_as_allowed(peer):
    peer.open()
    peer.send(window_update(1, 2**31 - 1 - 65_535), window_update(0, 2**31 - 1 - 65_535))
    peer.assert_alive()


def test_new_streams_begin_with_the_latest_setting(peer):
    peer.send(settings((INITIAL_WINDOW_SIZE, 3)))
    peer.respond(peer.open(), b"body")
    assert sizes(peer) == [3]


def test_an_update_of_a_stream_that_has_nothing_to_send_is_kept(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1)])
    stream = peer.open()
    peer.send(window_update(1, 3))
    peer.respond(stream, b"body")
    assert sizes(peer) == [4]


# -- receiving -------------------------------------------------------------------------------------------------------


def test_data_beyond_the_streams_window_is_an_error(connect):
    peer = connect(initial_window_size=100)
    peer.open(end=False)
    peer.send(data(1, bytes(100)))
    peer.send(data(1, b"x")).assert_goaway(FLOW)


def test_padding_counts_against_the_window(connect):
    peer = connect(initial_window_size=100)
    peer.open(end=False)
    peer.send(data(1, bytes(90), padding=10)).assert_goaway(FLOW)


def test_data_beyond_the_connections_window_is_an_error(connect):
    peer = connect(connection_window_size=65_535, initial_window_size=100_000, max_frame_size=100_000)
    peer.open(end=False)
    peer.send(data(1, bytes(65_536))).assert_goaway(FLOW)


def test_bodies_that_nobody_reads_leave_the_connections_window_to_others(connect):
    peer = connect(connection_window_size=65_535, initial_window_size=60_000)
    updated = set()
    for stream_id in (1, 3, 5):
        peer.open(end=False)
        peer.send(data(stream_id, bytes(15_000)) * 4)
        updated |= {updated_id for updated_id, _ in peer.updates}
    peer.assert_alive()
    assert updated == {0}


def test_data_that_is_discarded_counts_against_the_connections_window(connect):
    peer = connect(connection_window_size=65_535, initial_window_size=100_000, max_frame_size=100_000)
    peer.core.reset(peer.open(end=False), ErrorCode.CANCEL)
    peer.send(data(1, bytes(65_536))).assert_goaway(FLOW)


def test_credit_comes_back_when_the_application_takes_data(peer):
    stream = peer.open(end=False)
    peer.send(data(1, bytes(16_000)), data(1, bytes(16_000)), data(1, bytes(16_000)))
    assert peer.updates == []
    peer.core.acknowledge(stream, 16_000, peer.now)
    assert peer.collect().updates == []
    peer.core.acknowledge(stream, 32_000, peer.now)
    assert peer.collect().updates == [(1, 48_000)]


def test_a_body_of_any_length_passes(connect):
    peer = connect(connection_window_size=70_000)
    stream = peer.open(end=False)
    for _ in range(100):
        peer.send(data(1, bytes(10_000)))
        peer.core.acknowledge(stream, 10_000, peer.now)
    peer.send(data(1, b"", end=True))
    assert sum(len(event.data) for event in peer.of(DataReceived)) == 1_000_000
    peer.assert_alive()


def test_padding_gives_its_credit_back_by_itself(connect):
    peer = connect(connection_window_size=65_535, initial_window_size=65_535)
    stream = peer.open(end=False)
    for _ in range(2_000):
        peer.send(data(1, b"x", padding=200))
    assert len(peer.of(DataReceived)) == 2_000
    peer.core.acknowledge(stream, 2_000, peer.now)
    peer.assert_alive()


def test_no_credit_for_a_stream_whose_body_is_complete(connect):
    peer = connect(connection_window_size=65_535)
    stream = peer.open(end=False)
    peer.send(data(1, bytes(16_000)) * 4, data(1, bytes(1_000), end=True, padding=0))
    peer.core.acknowledge(stream, 65_000, peer.now)
    peer.collect()
    assert {stream_id for stream_id, _ in peer.updates} == {0}


def test_credit_for_an_unread_body_comes_back_at_the_end(connect):
    peer = connect(connection_window_size=65_535)
    for _ in range(10):
        stream = peer.open(end=False)
        peer.send(data(stream.stream_id, bytes(16_000)), data(stream.stream_id, bytes(14_000), end=True))
        peer.core.send_headers(stream, ResponseHead(200, []), True)
        peer.core.finish(stream, peer.now)
        peer.collect()
    peer.assert_alive()


def test_credit_for_data_of_a_finished_request_comes_back_at_once(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], connection_window_size=65_535)
    stream = peer.open(end=False)
    peer.respond(stream, b"waits")
    peer.send(data(1, bytes(16_000)), data(1, bytes(16_000)), data(1, bytes(16_000)))
    assert peer.updates == [(0, 48_000), (1, 48_000)]


def test_a_client_that_reads_when_it_has_sent_everything(connect):
    """It gets the credit for the rest of a body that its application has left unread."""
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], initial_window_size=65_535)
    stream = peer.open(end=False)
    peer.send(data(1, bytes(16_000)) * 4)
    peer.respond(stream, b"waits")
    assert peer.updates[-1] == (1, 64_000)
    for _ in range(10):
        peer.send(data(1, bytes(16_000)) * 4)
    peer.assert_alive()
    peer.send(data(1, b"", end=True), window_update(1, 5))
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"waits", True)


def test_the_end_of_a_body_that_nobody_reads_is_not_told(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    peer.respond(peer.open(end=False), b"waits")
    peer.take_events()
    peer.send(data(1, b"body", end=True))
    assert peer.events == []
    assert peer.send(window_update(1, 10)).answers[1].body == b"waits"


@pytest.mark.parametrize("by_client", [True, False])
def test_credit_for_unread_data_of_a_reset_stream_comes_back(connect, by_client):
    peer = connect(connection_window_size=65_535)
    for _ in range(20):
        stream = peer.open(end=False)
        peer.send(data(stream.stream_id, bytes(16_000)))
        if by_client:
            peer.send(rst_stream(stream.stream_id))
        else:
            peer.core.reset(stream, ErrorCode.INTERNAL_ERROR)
        peer.core.acknowledge(stream, 6_000, peer.now)
        peer.core.finish(stream, peer.now)
        peer.collect()
    assert {stream_id for stream_id, _ in peer.updates} == {0}
    peer.assert_alive()


def test_credit_after_the_end_of_the_connection_is_nothing(peer):
    stream = peer.open(end=False)
    peer.send(data(1, b"x"))
    peer.core.receive_eof()
    peer.core.acknowledge(stream, 1, peer.now)
    peer.core.finish(stream, peer.now)
    assert peer.collect().updates == []


# -- our SETTINGS_INITIAL_WINDOW_SIZE --------------------------------------------------------------------------------


def test_a_larger_window_counts_from_the_acknowledgement(connect):
    peer = connect(setup=False, initial_window_size=100_000, max_frame_size=100_000)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(65_535)), settings_ack())
    peer.send(data(1, bytes(100_000 - 65_535)))
    peer.assert_alive()
    peer.send(data(1, b"x")).assert_goaway(FLOW)


def test_before_the_acknowledgement_the_default_window_is_the_limit(connect):
    peer = connect(setup=False, initial_window_size=100_000, max_frame_size=100_000)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(65_536))).assert_goaway(FLOW)


def test_a_smaller_window_counts_from_the_acknowledgement(connect):
    peer = connect(setup=False, initial_window_size=100)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(10_000)), settings_ack())
    peer.assert_alive()
    stream = peer.core.streams[1]
    assert stream.receive_window.available == 100 - 10_000
    peer.core.acknowledge(stream, 10_000, peer.now)
    assert peer.collect().updates == [(1, 10_000)]
    peer.send(data(1, bytes(100), end=True))
    peer.assert_alive()


def test_credit_owed_before_the_acknowledgement_comes_back_with_it(connect):
    """A small part of the default window may be more than all of ours, and nothing else would return it."""
    peer = connect(setup=False, initial_window_size=100)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), peer.headers(3, end=False),
              data(1, bytes(10_000)), data(3, bytes(5_000)))
    for stream_id in (1, 3):
        peer.core.acknowledge(peer.core.streams[stream_id], 4_950, peer.now)
    peer.send(data(3, end=True))
    assert [stream_id for stream_id, _ in peer.collect().updates if stream_id] == []
    peer.send(settings_ack())
    # The rest of stream 1's body is unread, and stream 3 needs no more credit.
    assert [update for update in peer.updates if update[0]] == [(1, 4_950)]
    peer.core.acknowledge(peer.core.streams[1], 5_050, peer.now)
    peer.collect().send(data(1, bytes(100), end=True))
    peer.assert_alive()


def test_a_body_may_end_while_its_window_is_below_zero(connect):
    """An empty frame needs no window (section 6.9)."""
    peer = connect(setup=False, initial_window_size=100)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(10_000)), settings_ack(), data(1),
              data(1, end=True))
    assert [event.end_stream for event in peer.of(DataReceived)] == [False, True]
    peer.assert_alive()


def test_no_more_data_while_a_window_is_below_zero(connect):
    peer = connect(setup=False, initial_window_size=100)
    peer.send(PREFACE, settings(), peer.headers(1, end=False), data(1, bytes(10_000)), settings_ack(), data(1, b"x"))
    peer.assert_goaway(FLOW)


# -- the high and the low mark ---------------------------------------------------------------------------------------


def test_writable_comes_once_at_the_low_mark(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_buffer_size=1_000)
    stream = peer.open()
    peer.respond(stream, bytes(1_001), end=False, finish=False)
    peer.send(window_update(1, 500))
    assert (stream.queued, peer.of(StreamWritable)) == (501, [])
    peer.send(window_update(1, 1))
    assert [event.stream for event in peer.of(StreamWritable)] == [stream]
    peer.send(window_update(1, 500))
    assert (stream.queued, len(peer.of(StreamWritable))) == (0, 1)


def test_below_the_high_mark_there_is_nothing_to_tell(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_buffer_size=1_000)
    peer.respond(peer.open(), bytes(1_000), finish=False)
    peer.send(window_update(1, 1_000))
    assert peer.of(StreamWritable) == []
