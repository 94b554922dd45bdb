"""Connections that are old, or have had many requests, end gracefully."""

import pytest

from gunicorn_h2.protocol.errors import EndReason, ErrorCode

from .peer import PREFACE, ping

MAX = 2**31 - 1
NO_ERROR = ErrorCode.NO_ERROR
SHUTDOWN = b"shutdown"


def end(peer, last_id):
    """The rest of a graceful shutdown that has begun while nothing is open."""
    assert peer.goaways == [(MAX, NO_ERROR)]
    peer.send(ping(SHUTDOWN, ack=True))
    assert peer.goaways == [(MAX, NO_ERROR), (last_id, NO_ERROR)]
    assert (peer.core.closed, peer.terminated) == (True, NO_ERROR)


def test_an_idle_connection_of_an_age(connect):
    peer = connect(max_connection_age=100, idle_timeout=1000, drain_timeout=1)
    peer.wait(99)
    assert peer.goaways == []
    peer.wait(1)
    end(peer, 0)
    assert peer.core.lifecycle.end_reason is EndReason.MAX_AGE


def test_a_busy_connection_of_an_age(connect):
    """What is open goes on, for however long."""
    peer = connect(max_connection_age=100, drain_timeout=1, keepalive_interval=0)
    stream = peer.open()
    peer.wait(100)
    assert peer.goaways == []
    peer.wait(1)
    assert peer.goaways == [(MAX, NO_ERROR)]
    crossing = peer.open()
    peer.send(ping(SHUTDOWN, ack=True))
    peer.wait(10_000)
    assert peer.goaways == [(MAX, NO_ERROR), (3, NO_ERROR)]
    peer.respond(crossing, b"x")
    assert not peer.core.closed
    peer.respond(stream, b"x")
    assert (peer.core.closed, peer.core.lifecycle.end_reason) == (True, EndReason.MAX_AGE)
    assert peer.answers[1].ended


def test_a_connection_that_has_had_its_requests(connect):
    peer = connect(max_requests_per_connection=3, drain_timeout=1)
    for _ in range(2):
        peer.respond(peer.open())
    assert peer.goaways == []
    last = peer.open()
    assert peer.goaways == []
    peer.respond(last)
    end(peer, 5)
    assert peer.core.lifecycle.end_reason is EndReason.MAX_REQUESTS


def test_requests_beyond_the_limit_that_come_before_the_goaway(connect):
    """They are served: the client could not know."""
    peer = connect(max_requests_per_connection=1, drain_timeout=1)
    streams = [peer.open() for _ in range(5)]
    for stream in streams:
        peer.respond(stream)
    end(peer, 9)
    assert all(peer.answers[stream.stream_id].ended for stream in streams)


def test_identifiers_that_are_skipped_count(connect):
    peer = connect(max_requests_per_connection=50)
    peer.send(peer.headers(99))
    (request,) = peer.events[-1:]
    peer.respond(request.stream)
    end(peer, 99)


def test_there_is_no_limit_of_0(connect):
    peer = connect(max_requests_per_connection=0, max_connection_age=0, idle_timeout=0.0)
    assert peer.core._retires_at == peer.core._retires_behind == float("inf")


@pytest.mark.parametrize("limit", ["max_connection_age", "max_requests_per_connection"])
def test_a_shutdown_that_is_under_way_is_not_a_limits(connect, limit):
    peer = connect(**{limit: 2}, idle_timeout=100, drain_timeout=50)
    peer.core.shutdown(peer.now)
    peer.open()
    peer.wait(3)
    for _ in range(2):
        peer.open()
    assert peer.core.lifecycle.end_reason is EndReason.SHUTDOWN
    assert peer.goaways == []


def test_a_client_that_has_not_begun(connect):
    """It has no request to lose."""
    peer = connect(setup=False, setup_timeout=100, max_connection_age=5, drain_timeout=1)
    peer.send(PREFACE)
    peer.wait(5)
    peer.wait(1)
    assert peer.core.closed
