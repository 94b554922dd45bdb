"""The minimum rate of request bodies: clients that send too slowly, and those that only seem to."""

import pytest

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, RequestReceived, RequestRefused, StreamReset
from gunicorn_h2.protocol.headers import ResponseHead

from .peer import data, fields, rst_stream

CANCEL = ErrorCode.CANCEL
PATIENCE = 30
RATE = 240


@pytest.fixture(params=[65_535, 0], ids=["held", "running"])
def buffer(request):
    """The buffer for bodies: whether the application is called only when the body is there."""
    return request.param


@pytest.fixture
def peer(connect, buffer):
    """A connection with the default rate."""
    return connect(request_buffer_size=buffer)


def post(peer, length=60_000, *extra):
    """Begin a request with a body of this length; return the stream's identifier."""
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, fields((b"content-length", b"%d" % length), *extra, method=b"POST"), end=False))
    return stream_id


def read(peer):
    """Have the applications read all that has come."""
    for event in peer.of(DataReceived):
        peer.core.acknowledge(event.stream, len(event.data), peer.now)
    peer.events = [event for event in peer.events if not isinstance(event, DataReceived)]
    peer.collect()


def trickle(peer, streams, seconds, octets=1, every=1.0):
    """Send so many octets on each of the streams again and again; applications read them at once."""
    until = peer.now + seconds
    while peer.now < until:
        peer.wait(min(every, until - peer.now))
        peer.send(*[data(stream_id, bytes(octets)) for stream_id in streams if stream_id in peer.core.streams])
        read(peer)


def statuses(peer):
    """The status of each answer, by stream."""
    return {stream_id: answer.status for stream_id, answer in peer.answers.items() if answer.head is not None}


# -- too slow ----------------------------------------------------------------------------------------------------------


def test_a_body_that_stalls_is_answered_408(peer):
    post(peer)
    peer.wait(PATIENCE - 1)
    assert statuses(peer) == {}
    peer.wait(1.1)
    assert statuses(peer) == {1: 408}
    assert peer.answers[1].ended
    assert [(event.stream_id, event.status, event.head.method) for event in peer.of(RequestRefused)] == [
        (1, 408, b"POST")]
    peer.wait(1)
    # The client need not send the rest (RFC 9113 section 8.1).
    assert peer.resets == [(1, ErrorCode.NO_ERROR)]
    peer.assert_alive()


def test_an_application_that_waits_is_told(connect):
    peer = connect(request_buffer_size=0)
    post(peer)
    peer.wait(PATIENCE + 1)
    assert peer.aborted == [(1, CANCEL)]
    peer.wait(1)
    assert peer.core.orphaned_calls == 1
    stream = peer.of(RequestReceived)[0].stream
    peer.respond(stream, b"too late")
    assert (peer.answers[1].body, peer.core.orphaned_calls) == (b"", 0)
    peer.assert_alive()


def test_no_application_hears_of_a_body_that_stalls_before_it_is_complete(connect):
    peer = connect()
    post(peer)
    peer.send(data(1, b"part"))
    peer.wait(PATIENCE + 2)
    assert (statuses(peer), peer.core.orphaned_calls) == ({1: 408}, 0)
    assert peer.of(RequestReceived) == peer.of(StreamReset) == []


def test_a_response_that_has_begun_is_broken_off(connect):
    peer = connect(request_buffer_size=0)
    post(peer)
    stream = peer.of(RequestReceived)[0].stream
    peer.respond(stream, b"so far", end=False, finish=False)
    peer.wait(PATIENCE + 1)
    assert (peer.resets, peer.aborted) == ([(1, CANCEL)], [(1, CANCEL)])
    assert peer.of(RequestRefused) == []
    assert not peer.answers[1].ended


def test_interim_responses_are_no_answer(connect):
    peer = connect(request_buffer_size=0)
    post(peer)
    peer.core.send_headers(peer.of(RequestReceived)[0].stream, ResponseHead(103, []), False)
    peer.wait(PATIENCE + 1)
    assert statuses(peer) == {1: 408}


@pytest.mark.parametrize("octets", [1, 100, RATE // 2])
def test_a_body_that_trickles_ends(peer, octets):
    """Time is earned at the minimum rate, and spent as it passes."""
    post(peer, 10_000_000)
    lasts = PATIENCE / (1 - octets / RATE)
    trickle(peer, [1], lasts - 2, octets)
    assert statuses(peer) == {}
    trickle(peer, [1], 5, octets)
    assert statuses(peer) == {1: 408}


def test_time_cannot_be_saved_up(peer):
    """A body that came fast at first must go on all the same."""
    post(peer)
    for _ in range(3):
        peer.send(data(1, bytes(10_000)))
        read(peer)
    peer.wait(PATIENCE + 1)
    trickle(peer, [1], PATIENCE + 2)
    assert statuses(peer) == {1: 408}


def test_a_body_that_is_complete_but_does_not_end(peer):
    post(peer, 4)
    peer.send(data(1, b"1234"))
    read(peer)
    peer.wait(2 * PATIENCE + 2)
    assert statuses(peer) == {1: 408}


def test_each_of_many_ends(peer):
    streams = [post(peer, 10_000_000) for _ in range(99)]
    trickle(peer, streams, PATIENCE + 3)
    assert statuses(peer) == dict.fromkeys(streams, 408)
    assert [event.status for event in peer.of(RequestRefused)] == [408] * 99
    peer.assert_alive()


def test_later_ones_have_time_of_their_own(peer):
    first = post(peer)
    peer.wait(20)
    second = post(peer)
    peer.wait(PATIENCE - 20 + 1)
    assert statuses(peer) == {first: 408}
    peer.wait(17)
    assert statuses(peer) == {first: 408}
    peer.wait(4)
    assert statuses(peer) == {first: 408, second: 408}


def test_a_timeout_earns_no_reset(connect):
    """Else a client could pay for resets with requests that never come to anything."""
    peer = connect(reset_budget=2)
    for _ in range(3):
        post(peer)
    peer.wait(PATIENCE + 2)
    assert list(statuses(peer).values()) == [408] * 3
    peer.now += 0.001
    for _ in range(3):
        peer.send(rst_stream(post(peer)))
    assert peer.core.closed


# -- fast enough -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("octets", "every"), [(RATE, 1.0), (20 * RATE, 20.0)])
def test_a_body_that_keeps_the_rate_may_take_for_ever(peer, octets, every):
    post(peer, 10_000_000)
    trickle(peer, [1], 600, octets, every)
    assert (statuses(peer), peer.aborted) == ({}, [])


def test_a_client_that_sends_one_body_after_another(peer):
    """On a slow path, whoever waits for his turn is not slow as long as the path is in use."""
    waiting = [post(peer, 60_000) for _ in range(5)]
    for stream_id in waiting:
        for _ in range(30):
            peer.wait(1)
            peer.send(data(stream_id, bytes(2_000)))
            read(peer)
        peer.send(data(stream_id, b"", end=True))
        read(peer)
    assert statuses(peer) == {}
    assert len(peer.of(RequestReceived)) == 5


def test_one_fast_body_does_not_pay_for_many(peer):
    slow, fast = [post(peer, 10_000_000) for _ in range(50)], post(peer, 10_000_000)
    trickle(peer, [fast], PATIENCE + 3, octets=10 * RATE)
    assert statuses(peer) == dict.fromkeys(slow, 408)
    assert fast in peer.core.streams


def test_an_application_that_does_not_read_is_waited_for(connect):
    """The client has no credit, or what it has sent has not been looked at."""
    peer = connect(request_buffer_size=0)
    shut, behind = post(peer, 10_000_000), post(peer, 10_000_000)
    for _ in range(4):
        peer.send(data(shut, bytes(16_000)))
    peer.send(data(shut, bytes(1_535)), data(behind, bytes(10)))
    peer.wait(10 * PATIENCE)
    assert (statuses(peer), peer.aborted) == ({}, [])
    read(peer)
    peer.wait(PATIENCE - 2)
    assert statuses(peer) == {}
    peer.wait(PATIENCE + 3)
    assert sorted(statuses(peer)) == [shut, behind]


def test_credit_that_has_just_come_back_is_time_to_use_it(connect):
    peer = connect(request_buffer_size=0)
    post(peer, 10_000_000)
    for _ in range(4):
        peer.send(data(1, bytes(16_000)))
    peer.wait(2 * PATIENCE - 0.5)
    read(peer)
    peer.wait(PATIENCE - 1)
    assert statuses(peer) == {}
    peer.wait(2)
    assert statuses(peer) == {1: 408}


def test_a_client_that_waits_to_be_told_to_go_on(connect):
    """RFC 9110 section 10.1.1: the server has not asked for the body yet."""
    peer = connect()
    post(peer, 10_000, (b"expect", b"100-continue"))
    peer.wait(10 * PATIENCE)
    assert statuses(peer) == {}
    peer.core.send_headers(peer.of(RequestReceived)[0].stream, ResponseHead(100, []), False)
    peer.collect().wait(PATIENCE - 1)
    assert statuses(peer) == {}
    peer.wait(PATIENCE + 2)
    assert statuses(peer) == {1: 408}


@pytest.mark.parametrize("section", [
    fields(method=b"POST"),
    fields((b"content-length", b"100"), (b"content-type", b"application/grpc"), method=b"POST"),
], ids=["no content-length", "grpc"])
def test_bodies_that_wait_for_something_themselves_are_not_hurried(peer, section):
    peer.send(peer.headers(1, section, end=False))
    trickle(peer, [1], 20 * PATIENCE, every=100)
    assert (statuses(peer), peer.aborted) == ({}, [])


def test_credit_that_the_driver_keeps_gives_a_client_no_time(connect):
    """Only what the application has not read does."""
    peer = connect(request_buffer_size=0)
    post(peer)
    (request,) = peer.of(RequestReceived)
    peer.send(data(1, bytes(100)))
    request.stream.kept = 99
    peer.wait(PATIENCE + 1)
    assert statuses(peer) == {}
    request.stream.kept = 100
    peer.wait(2 * PATIENCE)
    assert statuses(peer) == {1: 408}


def test_the_rest_of_a_body_that_was_answered_is_not_waited_for(connect):
    peer = connect(request_buffer_size=0)
    post(peer)
    peer.respond(peer.of(RequestReceived)[0].stream, b"enough")
    peer.wait(2 * PATIENCE)
    assert statuses(peer) == {1: 200}


# -- without a limit ---------------------------------------------------------------------------------------------------


def test_without_a_minimum_rate_a_body_may_trickle_but_not_stall(connect):
    peer = connect(min_body_rate=0)
    post(peer)
    trickle(peer, [1], 20 * PATIENCE, every=PATIENCE - 2)
    assert statuses(peer) == {}
    peer.wait(2 * PATIENCE)
    assert statuses(peer) == {1: 408}


def test_without_a_minimum_rate_the_driver_waits_for_an_application(connect):
    """Which alone knows whether it reads."""
    peer = connect(min_body_rate=0, request_buffer_size=0)
    post(peer)
    peer.wait(100 * PATIENCE)
    assert statuses(peer) == {}


def test_without_a_timeout_a_client_may_take_all_the_time_it_wants(connect, buffer):
    peer = connect(stream_timeout=0, request_buffer_size=buffer)
    post(peer)
    peer.wait(100_000)
    assert (statuses(peer), peer.core.next_deadline()) == ({}, None)


# -- work --------------------------------------------------------------------------------------------------------------


def test_a_connection_is_looked_at_once_a_second_at_most(peer):
    """However close to their end the accounts of its uploads are."""
    streams = [post(peer, 10_000_000) for _ in range(10)]
    checks, until = 0, peer.now + PATIENCE
    trickle(peer, streams, PATIENCE, octets=RATE - 40)
    until = peer.now + 60
    while peer.now < until:
        peer.send(*[data(stream_id, b"x" * 16) for stream_id in streams if stream_id in peer.core.streams])
        read(peer)
        deadline = peer.core.next_deadline()
        if deadline is not None and deadline <= peer.now + 0.05:
            checks += 1
        peer.wait(0.05)
    assert checks <= 60 + len(streams)


def test_nothing_is_left_to_wait_for(peer):
    """When no upload is left there is no deadline but those of an idle connection and of an old one."""
    stream_id = post(peer, 4)
    peer.send(data(stream_id, b"1234", end=True))
    began = peer.now
    peer.wait(PATIENCE + 1)
    assert peer.core.next_deadline() == began + peer.config.max_connection_age
    post(peer, 4)
    peer.wait(PATIENCE + 1)
    assert statuses(peer) == {3: 408}
