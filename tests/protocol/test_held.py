"""Requests that are held until their bodies have arrived: no application sees them before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, RequestReceived, RequestRefused, StreamReset, TrailersReceived
from gunicorn_h2.protocol.windows import WindowBudget

from .peer import Peer, data, fields, goaway, raw, rst_stream

BUFFER = 65_535
PIECE = 16_000


def declared(length, *extra):
    """The fields of a request whose body has a length."""
    return fields((b"content-length", b"%d" % length), *extra, method=b"POST")


def post(peer, length, *extra):
    """Begin a request with a body of this length; return the stream's identifier."""
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, declared(length, *extra), end=False))
    return stream_id


def send(peer, stream_id, octets, end=False):
    """Send a part of a body."""
    for position in range(0, octets, PIECE):
        size = min(PIECE, octets - position)
        peer.send(data(stream_id, bytes(size), end and position + size == octets))


def told(peer):
    """What the driver has been told: of each request its body with its end, in the order of its parts."""
    bodies = {}
    for event in peer.events:
        if isinstance(event, (RequestReceived, DataReceived)):
            part = event.body if isinstance(event, RequestReceived) else event.data
            bodies.setdefault(event.stream.stream_id, []).append((len(part), event.end_stream))
    return bodies


def held_octets(peer):
    """What the bodies that are held take of the worker's budget."""
    return peer.budget.taken


@pytest.fixture
def peer(engine, cut):
    """A connection whose part of the worker's budget is known."""
    return with_budget(engine, cut, 2**20)


def with_budget(engine, cut, octets, others=0, **config):
    """A connection to a worker of which others hold so many octets."""
    peer = Peer(engine, cut, setup=False, **config)
    peer.budget = WindowBudget(octets)
    peer.budget.take(others)
    peer.core = ServerConnection(peer.config, peer.now, peer.budget)
    peer.setup()
    return peer


# -- bodies that fit ---------------------------------------------------------------------------------------------------


def test_the_first_part_of_a_body_may_come_with_its_request(peer):
    """In one read, before the driver has taken an event."""
    stream_id = peer.next_id()
    peer.send(peer.headers(stream_id, declared(10), end=False), data(stream_id, b"first"))
    assert told(peer) == {}
    peer.send(data(stream_id, b"other", end=True))
    assert told(peer) == {stream_id: [(10, True)]}
    assert held_octets(peer) == 0


@pytest.mark.parametrize("sent", [[b"1234"], [b"12", b"34"], [b"1", b"", b"234", b""], [b"1", b"2", b"3", b"4"]])
def test_a_request_is_told_of_when_its_body_is_complete(peer, sent):
    post(peer, 4)
    for piece in sent[:-1]:
        peer.send(data(1, piece))
    assert peer.events == []
    peer.send(data(1, sent[-1], end=True))
    request, = peer.events
    assert (request.stream.stream_id, request.end_stream, request.body) == (1, True, b"1234")
    assert held_octets(peer) == 0
    peer.respond(request.stream, b"thanks")
    assert peer.answers[1].body == b"thanks"


def test_padding_is_no_part_of_a_body(peer):
    post(peer, 4)
    for octet in b"123":
        peer.send(data(1, bytes([octet]), padding=200))
    peer.send(data(1, b"4", end=True, padding=9))
    request, = peer.events
    assert request.body == b"1234"


def test_a_body_that_padding_makes_larger_than_its_window(peer):
    """Credit for padding comes back at once, so the body is held to its end."""
    post(peer, 1_000)
    for _ in range(999):
        peer.send(data(1, b"x", padding=250))
    assert peer.events == []
    peer.send(data(1, b"x", end=True))
    assert told(peer) == {1: [(1_000, True)]}


@pytest.mark.parametrize("length", [0, 1, PIECE, BUFFER - 1, BUFFER])
def test_the_largest_body_that_is_held_needs_no_more_credit(peer, length):
    post(peer, length)
    send(peer, 1, length)
    assert peer.events == []
    assert held_octets(peer) == length
    assert [update for update in peer.updates if update[0]] == []
    peer.send(data(1, b"", end=True))
    assert told(peer) == {1: [(length, True)]}
    assert held_octets(peer) == 0


def test_requests_are_told_of_in_the_order_in_which_they_are_complete(peer):
    first, second = post(peer, 2), post(peer, 2)
    peer.send(data(first, b"a"), data(second, b"c"), data(second, b"d", end=True), data(first, b"b", end=True))
    assert [(event.stream.stream_id, event.body) for event in peer.events] == [(second, b"cd"), (first, b"ab")]


def test_a_body_in_parts_that_arrive_together_comes_whole(engine):
    peer = Peer(engine)
    peer.send(peer.headers(1, declared(4), end=False), data(1, b"12"), peer.headers(3), data(1, b"34", end=True))
    assert [(event.stream.stream_id, event.end_stream, event.body) for event in peer.events] == [
        (1, True, b"1234"), (3, True, b"")]


def test_trailers_release_a_request(peer):
    post(peer, 4)
    peer.send(data(1, b"1234"))
    assert peer.events == []
    peer.send(peer.headers(1, [(b"x-checksum", b"1")]))
    request, body, trailers = peer.events
    assert (request.end_stream, request.body) == (False, b"")
    assert (body.data, body.end_stream) == (b"1234", False)
    assert isinstance(trailers, TrailersReceived)
    assert trailers.fields == [(b"x-checksum", b"1")]
    peer.respond(request.stream, b"x")
    assert (peer.answers[1].body, peer.core.streams, peer.core.orphaned_calls) == (b"x", {}, 0)


def test_trailers_without_a_body(peer):
    post(peer, 0)
    peer.send(peer.headers(1, [(b"x-checksum", b"1")]))
    assert [type(event) for event in peer.events] == [RequestReceived, TrailersReceived]


# -- bodies that do not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [BUFFER + 1, 10_000_000])
def test_a_larger_body_is_told_of_when_half_of_the_buffer_is_filled(peer, length):
    """The rest of the window is time for the application to begin, and to return credit."""
    post(peer, length)
    send(peer, 1, BUFFER // 2)
    assert peer.events == []
    peer.send(data(1, b"x"))
    assert told(peer) == {1: [(0, False), (BUFFER // 2 + 1, False)]}
    assert held_octets(peer) == 0
    peer.send(data(1, b"more"))
    assert told(peer)[1][-1] == (4, False)
    peer.core.acknowledge(peer.of(RequestReceived)[0].stream, BUFFER // 2 + 1, peer.now)
    assert [update for update in peer.collect().updates if update[0]] == [(1, BUFFER // 2 + 1)]


def test_a_smaller_buffer(connect):
    peer = connect(request_buffer_size=1_000)
    small, large = post(peer, 1_000), post(peer, 1_001)
    send(peer, small, 999)
    send(peer, large, 499)
    assert peer.events == []
    peer.send(data(large, b"x"))
    assert told(peer) == {large: [(0, False), (500, False)]}
    peer.send(data(small, b"x", end=True))
    assert told(peer)[small] == [(1_000, True)]


@pytest.mark.parametrize("window", [1, 2, 100])
def test_a_smaller_window(connect, window):
    """Whoever holds a body returns no credit for it, and must not wait for more than the window allows."""
    peer = connect(initial_window_size=window)
    post(peer, 1_000)
    send(peer, 1, window)
    size, end = told(peer)[1][1]
    assert 2 * size >= window
    assert not end


def test_a_larger_window(connect):
    peer = connect(initial_window_size=10 * BUFFER, connection_window_size=10 * BUFFER)
    post(peer, BUFFER + 1)
    send(peer, 1, BUFFER // 2)
    assert peer.events == []
    peer.send(data(1, b"x"))
    assert told(peer)[1] == [(0, False), (BUFFER // 2 + 1, False)]


def test_settings_that_shrink_the_window_release_what_it_cannot_hold(engine, cut):
    peer = Peer(engine, cut, setup=False, initial_window_size=10)
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", raw(4))
    post(peer, 100)
    peer.send(data(1, bytes(60)))
    assert peer.events == []
    peer.send(raw(4, 1))
    peer.send(data(1, b""))
    assert told(peer) == {1: [(0, False), (60, False)]}


# -- bodies that nobody waits for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", [
    fields(method=b"POST"),
    declared(100, (b"expect", b"100-continue")),
    declared(100, (b"content-type", b"application/grpc")),
    declared(100, (b"content-type", b"Application/gRPC-web+proto")),
], ids=["no content-length", "expect", "grpc", "grpc-web"])
def test_bodies_that_may_depend_on_an_answer_are_not_held(peer, section):
    peer.send(peer.headers(1, section, end=False))
    assert told(peer) == {1: [(0, False)]}
    peer.send(data(1, b"1"))
    assert told(peer) == {1: [(0, False), (1, False)]}


def test_the_buffer_may_be_off(connect):
    peer = connect(request_buffer_size=0)
    post(peer, 4)
    peer.send(data(1, b"12"))
    assert told(peer) == {1: [(0, False), (2, False)]}


# -- the budget --------------------------------------------------------------------------------------------------------


def test_a_connection_holds_no_more_than_it_leaves_for_others(engine, cut):
    peer = with_budget(engine, cut, 200_000, others=80_000)
    first, second = post(peer, 60_000), post(peer, 60_000)
    send(peer, first, 60_000)
    assert peer.events == []
    peer.send(data(second, b"x"))
    assert told(peer) == {second: [(0, False), (1, False)]}
    assert held_octets(peer) == 80_000 + 60_000


def test_without_a_budget_nothing_is_held_but_bodies_that_have_not_begun(engine, cut):
    peer = with_budget(engine, cut, 0)
    post(peer, 4)
    assert peer.events == []
    peer.send(data(1, b"12"))
    assert told(peer) == {1: [(0, False), (2, False)]}


@pytest.mark.parametrize("end", ["reset", "goaway", "eof", "too long", "408"])
def test_what_is_held_is_given_back(peer, end):
    post(peer, 4)
    peer.send(data(1, b"123"))
    assert held_octets(peer) == 3
    if end == "reset":
        peer.send(rst_stream(1))
    elif end == "goaway":
        peer.send(goaway(), raw(6, 0, 3, bytes(8)))
    elif end == "eof":
        peer.core.receive_eof()
    elif end == "too long":
        peer.send(data(1, b"456"))
    else:
        peer.wait(1_000)
    assert held_octets(peer.collect()) == 0
    assert peer.core.streams == {}


# -- requests that end before they are told of -------------------------------------------------------------------------


def test_no_application_hears_of_a_request_that_is_reset(peer):
    post(peer, 4)
    peer.send(data(1, b"12"), rst_stream(1))
    refused, = peer.events
    assert (refused.stream_id, refused.status, refused.head) == (1, 0, None)
    assert peer.core.orphaned_calls == 0
    peer.send(rst_stream(post(peer, 4)))
    assert [type(event) for event in peer.events] == [RequestRefused] * 2
    peer.assert_alive()


def test_no_application_hears_of_a_request_whose_connection_ends(peer):
    post(peer, 4)
    peer.core.receive_eof()
    assert peer.collect().of(RequestReceived) == peer.aborted == []
    assert peer.refused == [1]


@pytest.mark.parametrize("sent", [[b"12345"], [b"123", b"45"], [b"123"], [b"", b""]])
def test_a_body_of_another_length_is_an_error(connect, sent):
    peer = connect(connection_window_size=65_535)
    post(peer, 4)
    peer.send(*[data(1, piece, end=number == len(sent) - 1) for number, piece in enumerate(sent)])
    assert (peer.resets, peer.refused) == ([(1, ErrorCode.PROTOCOL_ERROR)], [1])
    assert peer.of(RequestReceived) == peer.of(StreamReset) == []
    peer.assert_alive()


def test_requests_that_are_held_count_as_open_streams(connect):
    peer = connect(max_concurrent_streams=2)
    first, second, third = (post(peer, 4) for _ in range(3))
    assert peer.resets == [(third, ErrorCode.REFUSED_STREAM)]
    peer.send(rst_stream(first))
    fourth = post(peer, 4)
    peer.send(data(second, b"1234", end=True), data(fourth, b"1234", end=True))
    assert sorted(told(peer)) == [second, fourth]


def test_a_shutdown_waits_for_requests_that_are_held(connect):
    peer = connect(drain_timeout=1)
    stream_id = post(peer, 4)
    peer.send(data(stream_id, b"12"))
    peer.core.shutdown(peer.now)
    peer.wait(10)
    assert not peer.core.closed
    peer.send(data(stream_id, b"34", end=True))
    peer.respond(peer.of(RequestReceived)[0].stream, b"done")
    assert (peer.answers[stream_id].body, peer.core.closed) == (b"done", True)


# -- whatever comes ----------------------------------------------------------------------------------------------------


@st.composite
def uploads(draw):
    """Bodies in parts, with the order in which the parts of all are sent."""
    bodies = draw(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=6), min_size=1, max_size=5))
    turns = [number for number, parts in enumerate(bodies) for _ in parts]
    return bodies, draw(st.permutations(turns))


@given(uploads(), st.integers(0, 150), st.integers(1, 150), st.sampled_from([None, 1, 7]), st.booleans())
def test_bodies_arrive_intact_however_they_are_held(engine, case, buffer, window, cut, together):
    """Each request is told of once, its body whole and in order, as fast as the windows let it come."""
    bodies, turns = case
    peer = with_budget(engine, cut, 500, request_buffer_size=buffer, initial_window_size=window,
                       small_data_budget=100_000)
    octets, expected, room = [], {}, {}
    for number, parts in enumerate(bodies):
        octets.append(peer.headers(2 * number + 1, declared(sum(parts)), end=False))
        expected[2 * number + 1], room[2 * number + 1] = b"", window
    sent = dict.fromkeys(expected, 0)
    for number in turns:
        stream_id = 2 * number + 1
        size = bodies[number][sent[stream_id]]
        sent[stream_id] += 1
        part = bytes([sent[stream_id]]) * size
        expected[stream_id] += part
        octets += pieces(stream_id, part, sent[stream_id] == len(bodies[number]), window)
    for group in [b"".join(octets)] if together and sum(map(sum, bodies)) <= window else octets:
        peer.send(group)
        acknowledge(peer)
    got = received(peer)
    assert got == expected
    assert peer.budget.taken == 0


def pieces(stream_id, part, end, window):
    """DATA frames of a part; none is larger than half of the window, for which credit comes back."""
    size = max(1, window // 2)
    parts = [part[start:start + size] for start in range(0, len(part), size)] or [b""]
    return [data(stream_id, piece, end and number == len(parts) - 1) for number, piece in enumerate(parts)]


def acknowledge(peer):
    """Have the application read all that it has been told of."""
    for event in peer.take_events():
        peer.seen = [*getattr(peer, "seen", []), event]
        if isinstance(event, DataReceived):
            peer.core.acknowledge(event.stream, len(event.data), peer.now)
    peer.collect()


def received(peer):
    """The bodies by stream; every request comes first, and its end last."""
    got, ended = {}, set()
    for event in getattr(peer, "seen", []):
        stream_id = event.stream.stream_id
        assert stream_id not in ended
        if isinstance(event, RequestReceived):
            assert stream_id not in got
            got[stream_id] = event.body
        else:
            got[stream_id] += event.data
        if event.end_stream:
            ended.add(stream_id)
    assert ended == set(got)
    return got
