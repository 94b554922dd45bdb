"""The guard (RFC 9113 section 10.5): each flood ends the connection, no honest client does."""

import pytest

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.errors import ConnectionFailure, ErrorCode
from gunicorn_h2.protocol.events import RequestReceived
from gunicorn_h2.protocol.guard import Guard, TokenBucket

from .peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PREFACE,
    data,
    goaway,
    ping,
    priority,
    raw,
    rst_stream,
    settings,
    window_update,
)

CALM = ErrorCode.ENHANCE_YOUR_CALM
CONTROL, RESETS = 50, 20


@pytest.fixture
def guarded(connect):
    """A connection with small budgets and a stream that is open."""
    peer = connect(control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=10)
    peer.open(end=False)
    peer.take()
    return peer


def assert_flood(peer, make, most):
    """Frames are served up to `most` of them, then the connection ends."""
    sent = 0
    while sent <= most and not peer.core.closed:
        peer.send(make(sent))
        sent += 1
    assert most - 5 <= sent <= most + 1, sent
    peer.assert_goaway(CALM)


CONTROL_FLOODS = {
    "PING": lambda _: ping(),
    "PING ACK": lambda _: ping(ack=True),
    "SETTINGS": lambda _: settings(),
    "SETTINGS that move every window": lambda number: settings((INITIAL_WINDOW_SIZE, number)),
    "PRIORITY": lambda number: priority(2 * number + 101),
    "WINDOW_UPDATE of the connection": lambda _: window_update(0, 1),
    "WINDOW_UPDATE of a stream": lambda _: window_update(1, 1),
    "an unknown type": lambda number: raw(0x20 + number, 0, 0, b"?"),
    "empty DATA": lambda _: data(1),
    "DATA of padding alone": lambda _: data(1, padding=9),
    "GOAWAY of a client that stays": lambda _: goaway(),
}


@pytest.mark.parametrize("name", CONTROL_FLOODS)
def test_floods_of_control_frames(guarded, name):
    assert_flood(guarded, CONTROL_FLOODS[name], CONTROL)


def test_a_flood_of_resets(guarded):
    """Rapid reset (CVE-2023-44487): each request is open for a moment only, and its application returns at once."""
    def request_and_reset(number):
        stream = guarded.open()
        if stream is not None:
            guarded.core.finish(stream, guarded.now)
        return rst_stream(stream.stream_id) if stream is not None else b""

    assert_flood(guarded, request_and_reset, RESETS)


PROVOKED = {
    "a malformed request": lambda peer: peer.headers(peer.next_id(), [(b":method", b"GET")]),
    "an answer of ours": lambda peer: peer.headers(peer.next_id(), [(b":method", b"CONNECT"), (b":authority", b"a")]),
    "PRIORITY of a broken length": lambda peer: raw(0x2, 0, 1, b"four"),
    "WINDOW_UPDATE of 0": lambda peer: peer.headers(stream_id := peer.next_id()) + window_update(stream_id, 0),
    "DATA behind the end": lambda peer: peer.headers(stream_id := peer.next_id()) + data(stream_id, b"x"),
    "a window that overflows": lambda peer: (
        peer.headers(stream_id := peer.next_id()) + window_update(stream_id, 2**31 - 1)),
}


@pytest.mark.parametrize("name", PROVOKED)
def test_floods_of_resets_provoked_from_us(connect, name):
    """Made you reset (CVE-2025-8671)."""
    peer = connect(control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=1_000)
    peer.open(end=False)
    peer.take()
    assert_flood(peer, lambda _: PROVOKED[name](peer), RESETS)


def test_a_flood_of_streams_beyond_the_limit(guarded):
    for _ in range(9):
        guarded.open(end=False)
    guarded.take()
    assert_flood(guarded, lambda _: guarded.headers(guarded.next_id()), RESETS)


def test_a_flood_of_streams_beyond_a_limit_that_is_never_acknowledged(connect):
    peer = connect(setup=False, control_budget=CONTROL, reset_budget=RESETS, max_concurrent_streams=1)
    peer.send(PREFACE, settings(), peer.headers(peer.next_id()))
    peer.take()
    assert_flood(peer, lambda _: peer.headers(peer.next_id()), CONTROL + 3)


def test_a_flood_of_headers_on_a_stream_that_we_reset(guarded):
    guarded.core.reset(guarded.core.streams[1], ErrorCode.CANCEL)
    guarded.collect().take()
    assert_flood(guarded, lambda _: guarded.headers(1, [(b"x-late", b"1")]), CONTROL)


def test_a_flood_of_streams_behind_the_final_goaway(guarded):
    guarded.core.shutdown(guarded.now)
    guarded.wait(guarded.config.drain_timeout)
    guarded.send(ping(b"shutdown", ack=True))
    guarded.take()
    assert_flood(guarded, lambda _: guarded.headers(guarded.next_id()), CONTROL)


def test_running_requests_bound_a_flood_of_resets_before_any_budget(connect):
    peer = connect(reset_budget=1_000_000, max_concurrent_streams=3)
    for _ in range(50):
        stream = peer.open()
        if stream is not None:
            peer.send(rst_stream(stream.stream_id))
    assert len(peer.of(RequestReceived)) == 3


# -- header blocks ---------------------------------------------------------------------------------------------------


def until_closed(peer, frame):
    """Send a frame again and again, a hundred times at most; return how often."""
    sent = 0
    while sent < 100 and not peer.core.closed:
        peer.send(frame)
        sent += 1
    return sent


def test_a_flood_of_continuations(peer):
    """CVE-2024-27983 and its kin; empty frames too."""
    peer.send(raw(HEADERS, 0, 1, b"\x82"))
    sent = until_closed(peer, raw(CONTINUATION, 0, 1))
    assert sent < 25
    peer.assert_goaway(CALM, 0)


def test_a_block_larger_than_any_list_could_need(connect):
    peer = connect(max_header_list_size=8_192)
    assert not peer.send(raw(HEADERS, 0, 1, b"\x82" * 16_000)).core.closed
    peer.send(raw(CONTINUATION, 0, 1, b"\x82" * 16_000)).assert_goaway(CALM, 0)


def test_a_block_without_a_limit_of_the_list_has_one(connect):
    peer = connect(max_header_list_size=0)
    peer.send(raw(HEADERS, 0, 1, b"\x82" * 16_000))
    assert until_closed(peer, raw(CONTINUATION, 0, 1, b"\x82" * 16_000)) > 60
    peer.assert_goaway(CALM, 0)


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\x00", b"\x3f\x80\x00"])
def test_a_flood_of_table_size_updates(peer, update):
    peer.send(raw(HEADERS, END_HEADERS | END_STREAM, 1, update * 3 + b"\x82")).assert_goaway(CALM, 0)


@pytest.mark.parametrize("block", [b"\x20\x3f\xe1\x1f", b"\x3f", b"\x3f\xff\xff", b"\x20"])
def test_two_updates_are_no_flood(block):
    Guard(ConnectionConfig(), 0.0).charge_size_updates(block)


def test_settings_with_many_values(peer):
    many = [(HEADER_TABLE_SIZE, 4096)] * 33
    peer.send(settings(*many[:32])).assert_alive()
    peer.send(settings(*many)).assert_goaway(CALM)


# -- honest clients --------------------------------------------------------------------------------------------------


def test_a_client_may_send_four_control_frames_a_request(guarded):
    for _ in range(20 * CONTROL):
        stream = guarded.open()
        guarded.send(priority(stream.stream_id), window_update(stream.stream_id, 10), window_update(0, 10), ping())
        guarded.respond(stream, b"x")
    guarded.assert_alive()


def test_a_client_may_update_its_windows_for_each_kib(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2_048)], control_budget=CONTROL)
    stream = peer.open()
    peer.respond(stream, bytes(1_000_000), finish=False)
    while stream.queued:
        peer.send(window_update(1, 2_048), window_update(0, 2_048))
    assert len(peer.answers[1].body) == 1_000_000
    peer.assert_alive()


def test_budgets_fill_up_again(guarded):
    for _ in range(50):
        guarded.send(*[ping()] * (CONTROL // 2))
        guarded.now += 10.0
    guarded.assert_alive()


def test_a_browser_may_cancel_now_and_then(guarded):
    for _ in range(10 * RESETS):
        stream = guarded.open()
        guarded.send(rst_stream(stream.stream_id))
        guarded.core.finish(stream, guarded.now)
        guarded.now += 2.0
    guarded.assert_alive()


def test_uploads_are_no_control_frames(guarded):
    stream = guarded.core.streams[1]
    for _ in range(20 * CONTROL):
        guarded.send(data(1, b"x"))
        guarded.core.acknowledge(stream, 1, guarded.now)
    guarded.send(raw(DATA, END_STREAM | PADDED, 1, b"\0"))
    guarded.assert_alive()


# -- the budget itself -----------------------------------------------------------------------------------------------


def test_a_budget_is_a_token_bucket():
    budget = TokenBucket(4, 8.0, 100.0)
    assert [budget.spend(100.0) for _ in range(5)] == [True] * 4 + [False]
    assert [budget.spend(101.0), budget.spend(102.0), budget.spend(102.0)] == [False, True, False]
    assert [budget.spend(1_000.0) for _ in range(5)] == [True] * 4 + [False]
    assert [budget.spend(1_000.0, earned) for earned in (2.5, 0, 0)] == [True, True, False]
    assert [budget.spend(1_000.0, earned) for earned in (100, 0, 0, 0, 0)] == [True] * 4 + [False]


def test_a_budget_survives_a_clock_that_stands_still():
    budget = TokenBucket(1, 1.0, 5.0)
    assert [budget.spend(5.0), budget.spend(5.0)] == [True, False]


def test_a_failure_says_what_and_why():
    failure = ConnectionFailure(CALM, "too much")
    assert (str(failure), failure.code, failure.reason) == ("ENHANCE_YOUR_CALM: too much", CALM, "too much")
