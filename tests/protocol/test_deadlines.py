"""Deadlines: setup, header blocks, idling, and clients that stop reading."""

import pytest

from gunicorn_h2.protocol.errors import Budget, ErrorCode

from .peer import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    data,
    ping,
    raw,
    rst_stream,
    settings,
    window_update,
)

CALM, CANCEL, NO_ERROR = ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.CANCEL, ErrorCode.NO_ERROR


@pytest.mark.parametrize("sent", [b"", PREFACE[:10], PREFACE, PREFACE + settings((1, 1))[:12]])
def test_the_setup_has_a_deadline(connect, sent):
    peer = connect(setup=False, setup_timeout=5)
    peer.wait(4)
    peer.send(sent)
    peer.wait(0.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(ErrorCode.SETTINGS_TIMEOUT, 0)


def test_the_setup_may_go_without_a_deadline(connect):
    peer = connect(setup=False, setup_timeout=0, idle_timeout=0, max_connection_age=0, keepalive_interval=0)
    peer.wait(10_000)
    peer.setup()
    peer.wait(10_000).assert_alive()


def test_a_header_block_has_a_deadline(connect):
    peer = connect(header_timeout=5, idle_timeout=1_000)
    peer.send(raw(HEADERS, 0, 1, b"\x82"))
    peer.wait(4)
    peer.send(raw(CONTINUATION, 0, 1, b"\x87"))
    peer.wait(0.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(CALM, 0, Budget.HEADER_BLOCK_TOO_SLOW)


def test_a_header_block_in_time_is_no_reason_to_close(connect):
    peer = connect(header_timeout=5, idle_timeout=1_000)
    peer.send(raw(HEADERS, 0, 1, b"\x82\x87\x84"))
    peer.wait(4.9)
    peer.send(raw(CONTINUATION, END_HEADERS, 1))
    peer.wait(100).assert_alive()


def test_header_blocks_may_go_without_a_deadline(connect):
    peer = connect(header_timeout=0, idle_timeout=1_000)
    peer.send(raw(HEADERS, 0, 1, b"\x82\x87\x84"))
    peer.wait(900)
    peer.send(raw(CONTINUATION, END_HEADERS, 1)).assert_alive()


def test_an_idle_connection_is_closed(connect):
    peer = connect(idle_timeout=5)
    peer.wait(3)
    peer.send(ping())
    peer.wait(1.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(NO_ERROR, 0)


def test_a_connection_with_a_stream_is_not_idle(connect):
    peer = connect(idle_timeout=5)
    stream = peer.open()
    peer.wait(100)
    peer.respond(stream, b"x")
    peer.wait(4.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(NO_ERROR, 1)


@pytest.mark.parametrize("how", ["client", "application"])
def test_idling_begins_after_a_reset_too(connect, how):
    peer = connect(idle_timeout=5)
    stream = peer.open()
    peer.wait(100)
    if how == "client":
        peer.send(rst_stream(1))
    else:
        peer.core.reset(stream, CANCEL)
        peer.collect()
    peer.wait(4.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(NO_ERROR)


def test_no_keepalive_closes_after_the_last_response(connect):
    peer = connect(idle_timeout=0, setup_timeout=7)
    first, second = peer.open(), peer.open()
    peer.respond(first, b"x")
    assert not peer.core.closed
    peer.respond(second, b"x").assert_goaway(NO_ERROR, 3)
    assert peer.answers[3].body == b"x"


def test_no_keepalive_leaves_time_for_the_first_request(connect):
    peer = connect(idle_timeout=0, setup_timeout=7)
    peer.wait(6.9)
    assert not peer.core.closed
    peer.wait(0.2).assert_goaway(NO_ERROR, 0)


# -- clients that stop reading ---------------------------------------------------------------------------------------


def stall(peer, body=b"0123456789"):
    """Open a stream whose response does not fit into its window."""
    stream = peer.open()
    peer.respond(stream, body, finish=False)
    return stream


@pytest.mark.parametrize("window", [0, 4])
def test_a_stalled_stream_is_cancelled(connect, window):
    peer = connect([(INITIAL_WINDOW_SIZE, window)], stream_timeout=30)
    stall(peer)
    peer.wait(29.9)
    assert peer.resets == []
    peer.wait(0.2)
    assert (peer.resets, peer.aborted) == ([(1, CANCEL)], [(1, CANCEL)])
    peer.assert_alive()


def test_data_queued_behind_a_shut_window_has_a_deadline(connect):
    """The window was used up exactly; what comes later waits from then on."""
    peer = connect([(INITIAL_WINDOW_SIZE, 10)], stream_timeout=30)
    stream = peer.open()
    peer.respond(stream, b"0123456789", end=False, finish=False)
    peer.wait(100)
    assert peer.resets == []
    peer.core.send_data(stream, b"more", False)
    peer.collect().wait(20)
    peer.core.send_data(stream, b"and more", False)
    peer.collect().wait(9.9)
    assert peer.resets == []
    peer.wait(0.2)
    assert peer.aborted == [(1, CANCEL)]


def test_progress_moves_the_deadline(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1)], stream_timeout=30, min_read_rate=0)
    stall(peer)
    for _ in range(8):
        peer.wait(29)
        peer.send(window_update(1, 1))
    assert peer.resets == []
    peer.wait(31)
    assert peer.resets == [(1, CANCEL)]


def test_an_update_of_another_stream_is_no_progress(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1)], stream_timeout=30)
    stall(peer)
    peer.wait(10)
    stall(peer)
    peer.wait(19)
    peer.send(window_update(3, 1))
    peer.wait(2)
    assert peer.resets == [(1, CANCEL)]
    peer.wait(29)
    assert peer.resets == [(1, CANCEL), (3, CANCEL)]


def test_a_shut_connection_window_stalls_streams(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)], stream_timeout=30)
    stall(peer, bytes(65_535 + 10))
    stall(peer, b"x")
    peer.wait(29)
    assert peer.resets == []
    peer.wait(2)
    assert sorted(peer.resets) == [(1, CANCEL), (3, CANCEL)]
    peer.send(window_update(0, 100))
    peer.respond(peer.open(), b"through")
    assert peer.answers[5].body == b"through"


def test_a_slow_application_is_no_slow_client(connect):
    peer = connect(stream_timeout=30)
    stream = peer.open()
    peer.respond(stream, b"x", end=False, finish=False)
    peer.wait(1_000)
    assert peer.resets == []


def test_a_client_may_be_given_all_the_time_it_wants(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_timeout=0)
    stall(peer)
    peer.wait(100_000)
    peer.core.handle_timeout(peer.now)
    assert peer.collect().resets == []
    assert peer.core.next_deadline() is None


def test_after_the_end_there_are_no_deadlines(connect):
    """Not even that of a header block which never ended."""
    peer = connect(header_timeout=5)
    peer.send(raw(HEADERS, 0, 1, b"\x82"), ping())
    assert peer.core.closed
    assert peer.core.next_deadline() is None
    peer.core.handle_timeout(peer.now + 1_000)
    assert len(peer.collect().goaways) == 1


def test_a_timeout_that_is_early_changes_nothing(peer):
    peer.open(end=False)
    peer.core.handle_timeout(peer.now)
    peer.send(data(1, b"x"))
    peer.assert_alive()
