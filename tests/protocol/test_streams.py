"""Stream states, identifiers and concurrency (RFC 9113 sections 5.1, 5.1.1 and 5.1.2)."""

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, RequestReceived
from gunicorn_h2.protocol.headers import ResponseHead

from .peer import (
    INITIAL_WINDOW_SIZE,
    PREFACE,
    PRIORITY,
    data,
    fields,
    priority,
    raw,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

CLOSED, PROTOCOL, REFUSED, CANCEL = (
    ErrorCode.STREAM_CLOSED, ErrorCode.PROTOCOL_ERROR, ErrorCode.REFUSED_STREAM, ErrorCode.CANCEL)


# -- half-closed (remote) --------------------------------------------------------------------------------------------


def test_data_after_the_end_resets_the_stream(peer):
    peer.open()
    peer.send(data(1, b"late"))
    assert (peer.resets, peer.aborted) == ([(1, CLOSED)], [(1, CLOSED)])
    peer.assert_alive()


def test_headers_after_the_end_reset_the_stream(peer):
    peer.open()
    peer.send(peer.headers(1, [(b"x-late", b"1")]))
    assert (peer.resets, peer.aborted) == ([(1, CLOSED)], [(1, CLOSED)])
    assert peer.open((b"x-late", b"1")).head.fields == [(b"x-late", b"1")]


def test_control_frames_are_welcome_after_the_end(peer):
    stream = peer.open()
    peer.send(window_update(1, 10), priority(1))
    peer.respond(stream, b"x")
    assert peer.answers[1].body == b"x"


def test_the_end_of_a_body_may_come_alone(peer):
    peer.open(end=False)
    peer.send(data(1, b"body"), data(1, end=True))
    assert [(event.data, event.end_stream) for event in peer.of(DataReceived)] == [(b"body", False), (b"", True)]


# -- half-closed (local): the response is out ------------------------------------------------------------------------


def test_what_comes_of_a_body_behind_the_response_is_dropped(peer):
    stream = peer.open(end=False)
    peer.respond(stream, b"early", finish=False)
    peer.send(window_update(1, 5), priority(1), data(1, b"rest"), data(1, b"of it", end=True))
    assert peer.of(DataReceived) == []
    peer.core.finish(stream, peer.now)
    assert (peer.collect().resets, peer.core.streams) == ([], {})
    peer.assert_alive()


@pytest.mark.parametrize(("updates", "code"), [
    ([0], ErrorCode.PROTOCOL_ERROR), ([2**31 - 1], ErrorCode.FLOW_CONTROL_ERROR),
    ([2**30, 2**30], ErrorCode.FLOW_CONTROL_ERROR)], ids=["zero", "too-large", "too-large-together"])
@pytest.mark.parametrize("in_one_step", [True, False])
def test_errors_of_the_window_are_errors_behind_the_response(peer, updates, code, in_one_step):
    stream = peer.open(end=False)
    peer.respond(stream, b"early", end=in_one_step)
    if not in_one_step:
        peer.core.send_data(stream, b"", True)
        peer.collect()
    peer.send(*[window_update(1, increment) for increment in updates])
    assert (peer.resets, peer.answers[1].ended) == ([(1, code)], True)
    peer.assert_alive()


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_window_may_be_filled_up_to_the_largest_behind_the_response(peer, in_one_step):
    """The response has made room in it; SETTINGS do not change it any more (section 6.9.2)."""
    stream = peer.open(end=False)
    peer.respond(stream, b"early", end=in_one_step)
    if not in_one_step:
        peer.core.send_data(stream, b"", True)
        peer.collect()
    peer.send(window_update(1, 2**31 - 1 - 65_535 + len(b"early")), settings((INITIAL_WINDOW_SIZE, 100_000)))
    peer.assert_alive()
    peer.send(window_update(1, 1))
    assert peer.resets == [(1, ErrorCode.FLOW_CONTROL_ERROR)]


@pytest.mark.parametrize(("extra", "sent", "rest"), [
    ([(b"content-length", b"100000")], 10, 99_990), ([], 10, 2**30), ([(b"content-length", b"%d" % 2**40)], 0, 2**30)])
@pytest.mark.parametrize("in_one_step", [True, False])
def test_credit_for_the_rest_of_a_body_comes_before_the_end(connect, extra, sent, rest, in_one_step):
    """There are clients that read nothing more once they have the response, and would wait for it for ever."""
    peer = connect(request_buffer_size=0)
    stream = peer.open(*extra, end=False, method=b"POST")
    peer.send(data(1, bytes(sent)))
    peer.respond(stream, b"early", end=in_one_step)
    if not in_one_step:
        peer.core.send_data(stream, b"", True)
        peer.collect()
    assert peer.updates == [(0, rest), (1, rest)]
    last, = (number for number, frame in enumerate(peer.frames) if "END_STREAM" in frame.flags)
    assert last == len(peer.frames) - 1
    for _ in range(6):
        peer.send(data(1, bytes(16_000)))
    credit = 65_535 + sum(increment for stream_id, increment in peer.updates if not stream_id)
    assert credit - sent - 6 * 16_000 >= peer.config.connection_window_size // 2 - 983_041
    peer.assert_alive()


def test_credit_stays_within_what_a_window_may_hold(peer):
    for _ in range(5):
        peer.respond(peer.open(end=False), b"early")
    assert sum(increment for stream_id, increment in peer.updates if not stream_id) <= 2**31 - 1 - 65_535
    peer.assert_alive()


def test_credit_leaves_room_for_our_settings(connect):
    """Their acknowledgement moves the window by their size (section 6.9.2)."""
    peer = connect(setup=False, initial_window_size=2**31 - 1)
    peer.send(PREFACE, settings())
    peer.respond(peer.open(end=False), b"early", finish=False)
    granted = sum(increment for stream_id, increment in peer.updates if stream_id)
    assert 65_535 + granted + (2**31 - 1 - 65_535) <= 2**31 - 1
    peer.send(settings_ack())
    peer.assert_alive()


def test_trailers_may_come_after_the_response(peer):
    stream = peer.open(end=False)
    peer.respond(stream, b"early", finish=False)
    peer.send(peer.headers(1, [(b"x-trailer", b"1")]))
    assert peer.core.streams == {}
    peer.assert_alive()


# -- closed ----------------------------------------------------------------------------------------------------------


def closed_stream(peer):
    """Serve a request on stream 1."""
    peer.respond(peer.open(), b"x")
    peer.take()


def test_data_on_a_closed_stream_is_a_connection_error(peer):
    closed_stream(peer)
    peer.send(data(1, b"x")).assert_goaway(CLOSED, 1)


def test_headers_on_a_closed_stream_are_a_connection_error(peer):
    closed_stream(peer)
    peer.send(peer.headers(1)).assert_goaway(CLOSED, 1)


def test_an_identifier_that_was_passed_over_is_not_to_be_used(peer):
    peer.send(peer.headers(5))
    peer.send(peer.headers(3)).assert_goaway(ErrorCode.PROTOCOL_ERROR, 5)


def test_every_identifier_that_was_passed_over_is_remembered(peer):
    peer.send(peer.headers(5), peer.headers(11))
    peer.send(peer.headers(3)).assert_goaway(ErrorCode.PROTOCOL_ERROR, 11)


def test_data_on_an_identifier_that_was_passed_over_is_an_error(peer):
    peer.send(peer.headers(5))
    peer.send(data(3, b"x")).assert_goaway(CLOSED, 5)


def test_frames_that_may_be_late_are_ignored_on_a_closed_stream(peer):
    closed_stream(peer)
    peer.send(window_update(1, 1), window_update(1, 0), rst_stream(1), priority(1))
    assert peer.resets == []
    peer.assert_alive()


def test_of_the_errors_of_a_stream_the_first_is_reported(peer):
    """Section 5.4.2: one RST_STREAM for a stream."""
    peer.open(end=False)
    peer.send(window_update(1, 0), window_update(1, 0), raw(PRIORITY, 0, 1, b"four"), priority(1, depends_on=1))
    assert peer.resets == [(1, ErrorCode.PROTOCOL_ERROR)]
    peer.assert_alive()


def test_data_after_the_clients_own_reset_is_a_connection_error(peer):
    peer.open(end=False)
    peer.send(rst_stream(1), data(1, b"x")).assert_goaway(CLOSED, 1)


# -- reset by us: what was on its way is ignored ---------------------------------------------------------------------


def reset_stream(peer):
    """Have the application reset stream 1."""
    stream = peer.open(end=False)
    peer.core.reset(stream, ErrorCode.INTERNAL_ERROR)
    assert peer.collect().resets == [(1, ErrorCode.INTERNAL_ERROR)]
    peer.core.reset(stream, ErrorCode.INTERNAL_ERROR)
    peer.core.finish(stream, peer.now)
    peer.take()
    peer.take_events()


def test_late_frames_are_ignored(peer):
    reset_stream(peer)
    peer.send(data(1, b"late"), window_update(1, 1), window_update(1, 0), rst_stream(1), priority(1),
              peer.headers(1, [(b"x-late", b"indexed")]))
    assert (peer.resets, peer.goaways, peer.events) == ([], [], [])
    # The table of the header block that was ignored is kept in step.
    assert peer.open((b"x-late", b"indexed")).head.fields == [(b"x-late", b"indexed")]


def test_late_data_gives_the_connections_credit_back(connect):
    peer = connect(connection_window_size=65_535)
    reset_stream(peer)
    for _ in range(20):
        peer.send(data(1, bytes(16_000), padding=10))
    assert sum(increment for stream_id, increment in peer.updates if not stream_id) >= 19 * 16_011 - 65_535 // 2
    assert [stream_id for stream_id, _ in peer.updates if stream_id] == []
    peer.assert_alive()


def test_late_data_of_many_small_frames_costs_few_answers(peer):
    reset_stream(peer)
    peer.send(data(1, b"x") * 2_000)
    assert len(peer.frames) <= 1
    peer.assert_alive()


def test_only_so_many_resets_are_remembered(connect):
    peer = connect(reset_budget=10_000)
    for number in range(600):
        peer.send(peer.headers(2 * number + 1, [(b":method", b"GET")]))
    peer.take()
    peer.send(data(1199, b"late"))
    peer.assert_alive()
    peer.send(data(1, b"very late")).assert_goaway(CLOSED)


def test_a_reset_ends_both_directions(peer):
    stream = peer.open(end=False)
    peer.respond(stream, bytes(200_000), finish=False)
    peer.send(rst_stream(1, 5))
    assert (peer.aborted, stream.queued) == ([(1, 5)], 0)
    peer.take()
    for act in (lambda: peer.core.send_headers(stream, ResponseHead(200, []), True),
                lambda: peer.core.send_data(stream, b"x", True),
                lambda: peer.core.send_trailers(stream, []), lambda: peer.core.reset(stream, CANCEL)):
        act()
        assert peer.collect().frames == []
    peer.assert_alive()


# -- concurrency -----------------------------------------------------------------------------------------------------


def test_streams_beyond_the_limit_are_refused(connect):
    peer = connect(max_concurrent_streams=2)
    first, second = peer.open(), peer.open()
    assert peer.open((b"x-indexed", b"1")) is None
    assert (peer.resets, peer.refused) == ([(5, REFUSED)], [5])
    peer.send(data(5, b"on its way"), window_update(5, 1))
    peer.respond(first, b"x")
    assert peer.open((b"x-indexed", b"1")) is not None
    peer.respond(second, b"x")
    peer.assert_alive()


def test_the_limit_holds_before_it_is_acknowledged(connect):
    peer = connect(setup=False, max_concurrent_streams=1)
    peer.send(PREFACE, settings(), peer.headers(1), peer.headers(3))
    assert peer.resets == [(3, REFUSED)]


def test_streams_refused_before_the_acknowledgement_are_not_held_against_the_client(connect):
    peer = connect(setup=False, max_concurrent_streams=1, reset_budget=10)
    peer.send(PREFACE, settings(), *[peer.headers(2 * number + 1) for number in range(100)], settings_ack())
    assert len(peer.resets) == 99
    peer.assert_alive()


def reset_by_the_client(peer, stream):
    peer.send(rst_stream(stream.stream_id))


def reset_by_an_error_of_the_client(peer, stream):
    peer.send(window_update(stream.stream_id, 0))


def reset_by_the_application(peer, stream):
    peer.core.reset(stream, CANCEL)
    peer.collect()


@pytest.mark.parametrize("reset", [reset_by_the_client, reset_by_an_error_of_the_client, reset_by_the_application])
def test_a_reset_stream_counts_until_its_call_has_returned(connect, reset):
    """A reset does not stop an application, so it must not make room for the next one (rapid reset)."""
    peer = connect(max_concurrent_streams=2)
    streams = [peer.open(), peer.open()]
    for stream in streams:
        reset(peer, stream)
    peer.take()
    assert peer.core.orphaned_calls == 2
    assert peer.open() is None
    assert peer.resets == [(5, REFUSED)]
    peer.core.finish(streams[0], peer.now)
    peer.core.finish(streams[0], peer.now)
    assert peer.core.orphaned_calls == 1
    assert peer.open() is not None
    assert peer.open() is None


def test_a_complete_response_makes_room_before_its_call_has_returned(connect):
    """To the client the stream is closed, and it may open the next one (RFC 9113 section 5.1.2)."""
    peer = connect(max_concurrent_streams=2)
    waiting = peer.open()
    for _ in range(10):
        stream = peer.open()
        assert stream is not None
        peer.respond(stream, b"done", finish=False)
    assert peer.open() is not None
    assert peer.open() is None
    peer.respond(waiting, b"done", finish=False)
    assert peer.open() is not None


def test_a_reset_after_the_response_is_complete_counts_once(connect):
    """The rest of a body that nobody reads is declined by a reset; the call may still be at work."""
    peer = connect(max_concurrent_streams=1)
    stream = peer.open(end=False)
    peer.respond(stream, b"early", finish=False)
    peer.wait(1)
    assert peer.resets == [(1, ErrorCode.NO_ERROR)]
    assert peer.open() is None
    peer.core.finish(stream, peer.now)
    assert peer.open() is not None


def test_a_reset_after_the_call_has_returned_does_not_count(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], max_concurrent_streams=1)
    peer.respond(peer.open(), b"x")
    peer.send(rst_stream(1))
    assert peer.open() is not None


def test_a_stream_that_is_not_done_sending_counts(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], max_concurrent_streams=1)
    peer.respond(peer.open(), b"x")
    assert peer.open() is None
    peer.send(window_update(1, 1))
    assert peer.open() is not None


def test_streams_answered_by_the_core_do_not_run(connect):
    peer = connect(max_concurrent_streams=1)
    for _ in range(5):
        assert peer.open(method=b"CONNECT", path=None, scheme=None) is None
    assert peer.open() is not None


# -- a request and its response --------------------------------------------------------------------------------------


def test_requests_are_served_in_any_order(peer):
    streams = [peer.open(path=b"/%d" % number) for number in range(5)]
    for stream in reversed(streams):
        peer.respond(stream, stream.head.path)
    assert [peer.answers[stream.stream_id].body for stream in streams] == [b"/%d" % number for number in range(5)]


def test_a_small_response_is_two_frames(peer):
    peer.respond(peer.open(), b"hello", [(b"content-length", b"5")])
    head, body = peer.frames
    assert isinstance(head, HeadersFrame)
    assert isinstance(body, DataFrame)
    assert (head.flags, body.flags) == ({"END_HEADERS"}, {"END_STREAM"})


def test_an_empty_response_is_one_frame(peer):
    peer.respond(peer.open(), status=204)
    assert [frame.flags for frame in peer.frames] == [{"END_HEADERS", "END_STREAM"}]


def test_an_end_that_comes_late_is_an_empty_frame(peer):
    stream = peer.open()
    peer.respond(stream, b"chunk", end=False, finish=False)
    peer.core.send_data(stream, b"", False)
    assert len(peer.collect().frames) == 2
    peer.core.send_data(stream, b"", True)
    peer.core.send_data(stream, b"ignored behind the end", True)
    assert [(frame.data, frame.flags) for frame in peer.collect().take()[2:]] == [(b"", {"END_STREAM"})]


@pytest.mark.parametrize("body", [b"", b"done"])
def test_a_slow_application_declines_the_rest_a_moment_after_its_response_too(peer, body):
    """Some clients drop a response that the reset arrives with, however long they have waited for it."""
    first, second = peer.open(end=False), peer.open(end=False)
    peer.now += 5
    peer.respond(first, body)
    assert peer.core.next_deadline() > peer.now
    peer.now += 0.05
    peer.respond(second, body)
    assert peer.wait(0.04).resets == []
    assert peer.wait(0.02).resets == [(1, ErrorCode.NO_ERROR)]
    assert peer.wait(0.05).resets == [(1, ErrorCode.NO_ERROR), (3, ErrorCode.NO_ERROR)]


def test_the_unread_rest_of_a_body_is_declined_after_the_response(peer):
    stream = peer.open(end=False)
    peer.send(data(1, b"unread"))
    peer.respond(stream, b"done", finish=False)
    assert peer.resets == []
    peer.core.finish(stream, peer.now)
    assert peer.collect().answers[1].ended
    assert peer.wait(0.2).resets == [(1, ErrorCode.NO_ERROR)]
    peer.send(data(1, b"more of it"))
    peer.assert_alive()


def test_the_rest_is_not_declined_before_the_response_is_out(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 4)])
    stream = peer.open(end=False)
    peer.respond(stream, b"complete", finish=False)
    peer.core.finish(stream, peer.now)
    peer.send(data(1, b"more"))
    assert peer.resets == []
    assert peer.of(DataReceived) == []
    peer.send(window_update(1, 4)).wait(0.2)
    assert [type(frame).__name__ for frame in peer.frames[-2:]] == ["DataFrame", "RstStreamFrame"]
    assert (peer.answers[1].body, peer.answers[1].ended, peer.resets) == (b"complete", True, [(1, 0)])


def test_a_body_that_ends_while_the_response_waits_needs_no_reset(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 4)])
    peer.respond(peer.open(end=False), b"complete")
    peer.send(peer.headers(1, [(b"x-trailer", b"unread")]), window_update(1, 4))
    assert (peer.answers[1].ended, peer.resets) == (True, [])
    peer.assert_alive()


def test_a_client_that_sends_the_rest_soon_needs_no_reset(peer):
    """Some clients lose a response that is followed by a reset in the same read, so it waits a moment."""
    peer.respond(peer.open(end=False), b"early")
    peer.send(data(1, b"the rest", end=True)).wait(0.2)
    assert (peer.resets, peer.core.streams, peer.of(DataReceived)) == ([], {}, [])
    peer.assert_alive()


def test_a_request_carries_its_fields(peer):
    section = fields((b"x-a", b"1"), (b"x-a", b"2"), (b"cookie", b"a=b"), (b"cookie", b"c=d"), method=b"PUT",
                     path=b"/p?q=%20", authority=b"example.org:8443")
    peer.send(peer.headers(1, section, end=False))
    request, = peer.of(RequestReceived)
    assert not request.end_stream
    head = request.stream.head
    assert (head.method, head.scheme, head.authority, head.path) == (
        b"PUT", b"https", b"example.org:8443", b"/p?q=%20")
    assert request.stream.head.fields == section[4:]


@pytest.mark.parametrize("end", [True, False])
def test_a_reset_before_the_response_is_told(peer, end):
    stream = peer.open(end=end)
    peer.core.reset(stream, ErrorCode.INTERNAL_ERROR)
    assert (peer.collect().resets, peer.aborted) == ([(1, ErrorCode.INTERNAL_ERROR)], [])
    peer.assert_alive()
