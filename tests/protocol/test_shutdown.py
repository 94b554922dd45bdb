"""The graceful end (RFC 9113 section 6.8): two GOAWAYs, a PING between, nothing lost."""

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import ConnectionTerminated, RequestReceived

from .peer import (
    INITIAL_WINDOW_SIZE,
    PREFACE,
    data,
    goaway,
    ping,
    priority,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

MAX = 2**31 - 1
NO_ERROR = ErrorCode.NO_ERROR
SHUTDOWN = b"shutdown"


def test_an_idle_connection_says_goaway_at_once(connect):
    peer = connect(idle_timeout=100)
    peer.wait(50)
    peer.core.shutdown(peer.now)
    assert [type(frame) for frame in peer.collect().frames] == [PingFrame, GoAwayFrame]
    assert (peer.pings, peer.goaways) == ([(False, SHUTDOWN)], [(MAX, NO_ERROR)])
    assert not peer.core.closed
    peer.send(ping(SHUTDOWN, ack=True))
    assert peer.goaways == [(MAX, NO_ERROR), (0, NO_ERROR)]
    assert (peer.core.closed, peer.terminated) == (True, NO_ERROR)


def test_the_final_goaway_does_not_wait_for_ever(connect):
    peer = connect(drain_timeout=2)
    peer.core.shutdown(peer.now)
    peer.wait(1.9)
    assert peer.goaways == []
    peer.wait(2)
    assert len(peer.goaways) == 1
    peer.wait(0.2)
    assert peer.goaways == [(MAX, NO_ERROR), (0, NO_ERROR)]
    assert peer.core.closed


def test_a_busy_connection_waits_a_little_for_a_quiet_moment(connect):
    peer = connect(drain_timeout=2)
    first = peer.open()
    peer.core.shutdown(peer.now)
    peer.core.shutdown(peer.now)
    assert peer.collect().goaways == []
    second = peer.open()
    peer.respond(first, b"x")
    assert peer.goaways == []
    peer.respond(second, b"x")
    assert peer.goaways == [(MAX, NO_ERROR)]


def test_a_connection_that_stays_busy_is_told_all_the_same(connect):
    peer = connect(drain_timeout=2)
    stream = peer.open()
    peer.core.shutdown(peer.now)
    peer.wait(2.1)
    assert peer.goaways == [(MAX, NO_ERROR)]
    peer.send(ping(SHUTDOWN, ack=True))
    assert peer.goaways[1:] == [(1, NO_ERROR)]
    assert not peer.core.closed
    peer.wait(1_000)
    peer.respond(stream, b"served")
    assert peer.answers[1].body == b"served"
    assert (peer.core.closed, len(peer.goaways), peer.terminated) == (True, 2, NO_ERROR)


def shut_down(peer):
    """Bring a connection with a running stream behind its final GOAWAY; return the stream."""
    stream = peer.open()
    peer.core.shutdown(peer.now)
    peer.wait(peer.config.drain_timeout)
    peer.send(ping(SHUTDOWN, ack=True))
    assert len(peer.goaways) == 2
    peer.take()
    return stream


def first_goaway(peer):
    """Bring a connection without streams behind its first GOAWAY."""
    peer.core.shutdown(peer.now)
    peer.wait(peer.config.drain_timeout)
    assert len(peer.goaways) == 1


def test_streams_that_cross_the_first_goaway_are_served(peer):
    first_goaway(peer)
    stream = peer.open()
    peer.send(ping(SHUTDOWN, ack=True))
    assert peer.goaways == [(MAX, NO_ERROR), (1, NO_ERROR)]
    peer.respond(stream, b"served")
    assert (peer.answers[1].body, peer.core.closed) == (b"served", True)


def test_another_ping_ack_is_not_taken_for_ours(peer):
    first_goaway(peer)
    peer.send(ping(b"whatever", ack=True))
    assert len(peer.goaways) == 1


def test_streams_beyond_the_final_goaway_are_ignored(peer):
    stream = shut_down(peer)
    late = [(b":method", b"GET"), (b"x-indexed", b"1")]
    peer.send(peer.headers(3, late, end=False), data(3, b"late"), window_update(3, 10), window_update(3, 0),
              priority(3, 1), rst_stream(3), peer.headers(5), rst_stream(7), data(9, b"late", end=True))
    assert (peer.frames, peer.of(RequestReceived)[1:]) == ([], [])
    # The table is kept in step, and streams before the last one go on.
    peer.respond(stream, b"served")
    assert peer.answers[1].body == b"served"
    assert peer.core.closed


def test_trailers_of_an_accepted_stream_are_decoded_with_what_was_ignored(peer):
    stream = peer.open(end=False)
    peer.core.shutdown(peer.now)
    peer.wait(peer.config.drain_timeout)
    indexed = [(b"x-indexed", b"1")]
    peer.send(ping(SHUTDOWN, ack=True), peer.headers(3, indexed), peer.headers(1, indexed))
    assert peer.events[-1].fields == [(b"x-indexed", b"1")]
    peer.respond(stream, b"x")
    assert peer.core.closed


def test_ignored_data_gives_its_credit_back(connect):
    peer = connect(connection_window_size=65_535)
    shut_down(peer)
    for _ in range(10):
        peer.send(data(3, bytes(16_000)))
    assert not peer.core.closed
    assert peer.updates


def test_a_request_in_the_octets_behind_the_last_ack_is_not_served(peer):
    """The acknowledgement ends a connection without streams; what follows it in the same read is too late."""
    first_goaway(peer)
    peer.send(ping(SHUTDOWN, ack=True), peer.headers(1))
    assert peer.of(RequestReceived) == []
    assert isinstance(peer.events[-1], ConnectionTerminated)
    assert peer.goaways[-1] == (0, NO_ERROR)


def test_an_open_body_is_declined_before_the_end(peer):
    stream = peer.open(end=False)
    peer.core.shutdown(peer.now)
    peer.respond(stream, b"early").wait(0.2)
    assert peer.resets == [(1, NO_ERROR)]
    assert peer.goaways == [(MAX, NO_ERROR)]


def test_a_stalled_stream_does_not_hold_the_end_up(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_timeout=10)
    stream = shut_down(peer)
    peer.respond(stream, b"never read", finish=False)
    peer.wait(11)
    assert peer.resets == [(1, ErrorCode.CANCEL)]
    assert peer.core.closed


def test_a_shutdown_during_the_setup_waits_for_it(connect):
    peer = connect(setup=False)
    peer.collect()
    peer.core.shutdown(peer.now)
    assert peer.collect().goaways == []
    peer.send(PREFACE, settings(), settings_ack(), peer.headers(1))
    assert peer.goaways == []
    peer.respond(peer.of(RequestReceived)[0].stream, b"served")
    assert peer.goaways == [(MAX, NO_ERROR)]
    peer.send(ping(SHUTDOWN, ack=True))
    assert peer.goaways[1:] == [(1, NO_ERROR)]
    assert peer.answers[1].body == b"served"


def test_a_shutdown_after_the_end_changes_nothing(peer):
    peer.send(goaway())
    peer.core.shutdown(peer.now)
    assert peer.collect().goaways == [(0, NO_ERROR)]


def test_a_client_that_goes_away_during_the_shutdown(peer):
    stream = shut_down(peer)
    peer.send(goaway())
    assert not peer.core.closed
    peer.respond(stream, b"x")
    assert (peer.core.closed, peer.goaways) == (True, [])


@pytest.mark.parametrize("code", [ErrorCode.INTERNAL_ERROR, ErrorCode.INADEQUATE_SECURITY])
def test_a_driver_may_end_it_at_once(peer, code):
    peer.open()
    peer.core.fail(code, "for the log")
    peer.collect().assert_goaway(code, 1)
    assert peer.aborted == [(1, code)]
    assert peer.goaways == [(1, code)]


def test_nothing_about_us_goes_to_the_peer(peer):
    peer.core.fail(ErrorCode.INTERNAL_ERROR, "secret")
    assert b"secret" not in peer.collect().written
