"""Which stream sends next, and how much is gathered at a time."""

from hyperframe.frame import DataFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import RequestHead, ResponseHead
from gunicorn_h2.protocol.outbox import OUTPUT_LIMIT
from gunicorn_h2.protocol.scheduler import Scheduler
from gunicorn_h2.protocol.stream import State, Stream

from .peer import INITIAL_WINDOW_SIZE, ping, window_update


def order(peer):
    """The streams of the DATA frames that came."""
    return [frame.stream_id for frame in peer.take(DataFrame)]


def queue(peer, stream, size, end=True):
    """Have a response in the queue without sending any of it yet."""
    peer.core.send_headers(stream, ResponseHead(200, []), False)
    peer.core.send_data(stream, bytes(size), end)


def test_streams_take_turns_frame_by_frame(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    peer.send(window_update(0, 1_000_000))
    streams = [peer.open() for _ in range(3)]
    for stream, size in zip(streams, (60_000, 20_000, 40_000), strict=True):
        queue(peer, stream, size)
    assert order(peer.collect()) == [1, 3, 5, 1, 3, 5, 1, 5, 1]


def test_a_small_response_passes_large_ones(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 20_000_000))
    *large, small = [peer.open() for _ in range(4)]
    peer.take()
    for stream in large:
        queue(peer, stream, 5_000_000)
    peer.octets = peer.core.data_to_send(peer.now)
    peer._parse()
    assert set(order(peer)) == {1, 3, 5}
    queue(peer, small, 10)
    peer.octets = peer.core.data_to_send(peer.now)
    peer._parse()
    assert 7 in order(peer)[:4]


def test_output_is_gathered_up_to_a_limit(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    stream = peer.open()
    queue(peer, stream, 1_000_000)
    rounds = 0
    while octets := peer.core.data_to_send(peer.now):
        assert len(octets) < OUTPUT_LIMIT + 16_384 + 9
        rounds += 1
    assert rounds >= 1_000_000 // (OUTPUT_LIMIT + 16_384)
    assert stream.queued == 0


def test_less_is_gathered_for_a_driver_that_asks_for_less(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    large, small = peer.open(), peer.open()
    queue(peer, large, 1_000_000)
    assert peer.core.output_limit == OUTPUT_LIMIT
    peer.core.output_limit = 32_768
    assert 32_768 <= len(peer.core.data_to_send(peer.now)) < 32_768 + 16_384 + 9
    peer.core.send_response(small, ResponseHead(200, []), b"urgent")
    assert b"urgent" in peer.core.data_to_send(peer.now)[:16_384 + 200]


def test_a_response_of_several_frames_keeps_to_the_limit_too(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    peer.send(window_update(0, 1_000_000))
    peer.core.output_limit = 32_768
    first, second = peer.open(), peer.open()
    respond(peer, first, 100_000)
    respond(peer, second, 20_000)
    assert order(peer.collect()) == [1, 3] * 2 + [1] * 5


def respond(peer, stream, size):
    """Give the core a whole response."""
    peer.core.send_response(stream, ResponseHead(200, []), bytes(size))


def test_a_response_of_several_frames_goes_out_whole(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    peer.send(window_update(0, 1_000_000))
    respond(peer, peer.open(), 100_000)
    sent = [(len(frame.data), "END_STREAM" in frame.flags) for frame in peer.collect().take(DataFrame)]
    assert sent == [(16_384, False)] * 6 + [(1_696, True)]
    assert peer.core.streams == {}


def test_responses_of_several_frames_share_what_is_gathered_at_a_time(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    peer.send(window_update(0, 1_000_000))
    streams = [peer.open() for _ in range(3)]
    for stream in streams:
        respond(peer, stream, 80_000)
    # The first fits into one gathering; the others take turns.
    assert order(peer.collect()) == [1] * 5 + [3, 5] * 5


def test_a_response_of_several_frames_does_not_overtake_those_that_wait(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)])
    peer.send(window_update(0, 1_000_000))
    first, second = peer.open(), peer.open()
    queue(peer, first, 20_000)
    respond(peer, second, 40_000)
    assert order(peer.collect()) == [1, 3, 1, 3, 3]


def test_answers_to_the_peer_do_not_wait_for_data(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10_000_000)])
    peer.send(window_update(0, 10_000_000))
    queue(peer, peer.open(), 1_000_000)
    peer.core.receive_data(ping(b"quickly!"), peer.now)
    assert b"quickly!" in peer.core.data_to_send(peer.now)[:200]


def make_stream(stream_id):
    return Stream(stream_id, RequestHead(b"GET", b"https", b"", b"/", []), State.HALF_CLOSED_REMOTE, 65_535, 65_535)


def test_a_stream_has_one_turn():
    scheduler, stream = Scheduler(), make_stream(1)
    scheduler.add(stream)
    scheduler.add(stream)
    assert [scheduler.next(), scheduler.next()] == [stream, None]


def test_a_closed_stream_loses_its_turn():
    scheduler, (first, second) = Scheduler(), (make_stream(1), make_stream(3))
    scheduler.add(first)
    scheduler.add(second)
    first.state = State.CLOSED
    assert scheduler.take_all() == [second]
    scheduler.add(second)
    assert [scheduler.next(), scheduler.next()] == [second, None]


def test_nothing_is_left_of_a_stream_that_was_reset(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    stream = peer.open()
    queue(peer, stream, 1_000)
    peer.collect()
    peer.core.reset(stream, ErrorCode.CANCEL)
    peer.send(window_update(1, 1_000))
    assert order(peer) == []
    assert (peer.core.streams, stream.queued) == ({}, 0)
    assert peer.core.next_deadline() == peer.now + peer.config.idle_timeout
