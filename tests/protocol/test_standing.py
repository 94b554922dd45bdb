"""What a driver asks when places run out or a connection ends: idle or busy, blocked, and how much it has cost."""

import pytest

from gunicorn_h2.protocol.errors import ErrorCode

from .peer import INITIAL_WINDOW_SIZE, data, ping, rst_stream, settings, window_update


def test_idle_since_the_last_stream_has_ended(connect):
    peer = connect(idle_timeout=100)
    stream = peer.open()
    assert peer.core.idle_since is None
    peer.now += 7
    peer.respond(stream, b"x")
    assert peer.core.idle_since == peer.now
    peer.now += 5
    assert peer.core.idle_since == peer.now - 5


def test_idle_from_the_start(connect):
    peer = connect()
    assert peer.core.idle_since == peer.now


def test_a_stream_is_blocked_while_its_window_is_shut(connect):
    peer = connect(settings=[(INITIAL_WINDOW_SIZE, 10)])
    stream = peer.open()
    assert not peer.core.is_blocked(stream, peer.now)
    peer.respond(stream, bytes(20))
    assert peer.core.is_blocked(stream, peer.now)
    assert not peer.core.is_blocked(stream, peer.now - 1)
    peer.now += 1
    assert peer.core.is_blocked(stream, peer.now - 1)
    peer.send(window_update(stream.stream_id, 5))
    assert not peer.core.is_blocked(stream, peer.now - 1)
    assert peer.core.is_blocked(stream, peer.now)


def test_a_request_is_blocked_while_its_body_is_to_come(connect):
    peer = connect(request_buffer_size=65_535)
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, [(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"https"),
                                       (b":authority", b"a"), (b"content-length", b"10")], end=False))
    stream = peer.core.streams[stream_id]
    peer.now += 1
    assert peer.core.is_blocked(stream, peer.now - 1)
    assert not peer.core.is_blocked(stream, peer.now - 1.5)
    peer.send(data(stream_id, bytes(10), end=True))
    assert not peer.core.is_blocked(stream, peer.now)


def test_the_budget_that_is_used(connect):
    peer = connect(control_budget=100)
    assert peer.core.guard.used(peer.now) < 0.05
    peer.send(*[ping()] * 50)
    assert peer.core.guard.used(peer.now) == pytest.approx(0.5, abs=0.05)
    peer.now += 2
    assert peer.core.guard.used(peer.now) == pytest.approx(0.3, abs=0.05)
    peer.now += 100
    assert peer.core.guard.used(peer.now) < 0.05


def test_the_budget_is_used_up_at_the_end(connect):
    peer = connect(control_budget=100)
    peer.send(*[settings()] * 150)
    peer.assert_goaway(ErrorCode.ENHANCE_YOUR_CALM)
    assert peer.core.guard.used(peer.now) > 0.9


def test_requests_that_have_been_answered_whole(connect):
    peer = connect(settings=[(INITIAL_WINDOW_SIZE, 10)])
    answered = lambda: peer.core.guard.answered(len(peer.core.streams))  # noqa: E731
    stream = peer.open()
    assert answered() == 0
    peer.respond(stream, b"x")
    assert answered() == 1
    unread = peer.open()
    peer.respond(unread, bytes(20))
    assert answered() == 1
    peer.send(window_update(unread.stream_id, 10))
    assert answered() == 2
    peer.send(rst_stream(peer.open().stream_id, ErrorCode.CANCEL))
    assert answered() == 2
