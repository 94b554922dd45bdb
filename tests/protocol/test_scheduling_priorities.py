"""The order of frames under priorities: RFC 9218 sections 8 and 10, and the weights of RFC 7540 section 5.3.2."""

from collections import Counter

import pytest
from hyperframe.frame import DataFrame
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import RequestHead, ResponseHead
from gunicorn_h2.protocol.priority import Priority
from gunicorn_h2.protocol.scheduler import Scheduler
from gunicorn_h2.protocol.stream import State, Stream

from .peer import INITIAL_WINDOW_SIZE, fields, priority, raw, settings, window_update

FRAME = 16_384
LARGE = 100 * FRAME
NO_RFC7540_PRIORITIES = 0x9


@pytest.fixture
def client(connect):
    """A client whose windows never shut; the server's output is taken when the test asks for it."""
    peer = connect([(INITIAL_WINDOW_SIZE, 2**30)])
    peer.send(window_update(0, 2**30))
    return peer


def open_stream(peer, *extra):
    """Open a request, and take nothing of the output."""
    stream_id = peer.next_id()
    peer.core.receive_data(peer.headers(stream_id, fields(*extra)), peer.now)
    return peer.core.streams[stream_id]


def begin(peer, value=None, size=LARGE, extra=()):
    """Open a request with this `priority` field, and queue its response without sending any of it."""
    stream = open_stream(peer, *([(b"priority", value)] if value is not None else []))
    peer.core.send_headers(stream, ResponseHead(200, extra), False)
    peer.core.send_data(stream, bytes(size), True)
    return stream


def sent(peer, frames):
    """The streams of the next frames, of so many at least."""
    found = []
    while len(found) < frames:
        peer.octets = peer.core.data_to_send(peer.now)
        peer._parse()
        found += [frame.stream_id for frame in peer.take(DataFrame)]
    return found


def test_the_most_urgent_stream_overtakes_those_that_are_sending(client):
    begin(client, b"u=7")
    begin(client, b"u=6, i")
    assert set(sent(client, 10)) == {1 + 2}
    begin(client, b"u=0", 5 * FRAME)
    assert sent(client, 8)[:6] == [5] * 5 + [3]


def test_what_is_not_incremental_goes_one_after_another(client):
    for _ in range(3):
        begin(client, b"u=3", 4 * FRAME)
    assert sent(client, 12) == [1] * 4 + [3] * 4 + [5] * 4


def test_an_earlier_request_comes_first_however_late_its_response(client):
    early = open_stream(client, (b"priority", b"u=2"))
    begin(client, b"u=2", 4 * FRAME)
    begin(client, b"u=2", 4 * FRAME)
    client.core.send_response(early, ResponseHead(200, ()), bytes(2 * FRAME))
    assert sent(client, 10) == [1] * 2 + [3] * 4 + [5] * 4


def test_incremental_streams_share_by_octets():
    """Not by frames: one whose frames are half as large has twice as many."""
    scheduler, large, small = Scheduler(), make_stream(1, b"i"), make_stream(3, b"i")
    turns = Counter()
    for _ in range(90):
        scheduler.add(large)
        scheduler.add(small)
        stream = scheduler.next()
        scheduler.charge(stream, FRAME if stream is large else FRAME // 2)
        turns[stream] += 1
    assert turns == {large: 30, small: 60}


def test_both_kinds_share_as_two_streams_do(client):
    begin(client, b"u=3, i", 4 * FRAME)
    begin(client, b"u=3", 4 * FRAME)
    begin(client, b"u=3", 4 * FRAME)
    order = sent(client, 12)
    assert Counter(order[:8]) == {1: 4, 3: 4}
    assert order[8:] == [5] * 4


def test_what_joins_later_gets_no_more_than_its_share(client):
    """Nor less, for what was sent without it."""
    begin(client, b"i")
    begin(client, b"i")
    sent(client, 50)
    begin(client, b"i")
    assert max(Counter(sent(client, 30)[:30]).values()) <= 11


def test_an_endless_urgent_stream_stops_no_other(client):
    begin(client, b"u=0", 300 * FRAME)
    begin(client, b"u=3", 10 * FRAME)
    begin(client, b"u=7", 10 * FRAME)
    order = Counter(sent(client, 256)[:256])
    assert order[1] >= 240
    assert order[3] >= 3 <= order[5]


@pytest.mark.parametrize("how", ["a stated priority", "the setting"])
def test_a_request_without_a_priority_has_the_default_where_others_state_theirs(connect, how):
    peer = connect([(INITIAL_WINDOW_SIZE, 2**30)])
    peer.send(window_update(0, 2**30))
    if how == "the setting":
        peer.send(settings((NO_RFC7540_PRIORITIES, 1)))
    else:
        begin(peer, b"u=7", 4 * FRAME)
    first, second = begin(peer, size=4 * FRAME), begin(peer, size=4 * FRAME)
    assert sent(peer, 8)[:8] == [first.stream_id] * 4 + [second.stream_id] * 4


def test_where_no_priorities_are_stated_streams_share_by_weight(client):
    begin(client)
    begin(client)
    client.core.receive_data(priority(1, weight=149) + priority(3, weight=49), client.now)
    counts = Counter(sent(client, 80)[:80])
    assert counts == {1: 60, 3: 20}


# -- changes while a stream waits --------------------------------------------------------------------------------------


def update(target, value):
    """A PRIORITY_UPDATE frame."""
    return raw(0x10, 0, 0, target.to_bytes(4, "big") + value)


def test_an_update_counts_from_the_next_frame_on(client):
    begin(client, b"u=1")
    begin(client, b"u=5")
    assert set(sent(client, 5)) == {1}
    client.core.receive_data(update(3, b"u=0"), client.now)
    assert set(sent(client, 5)) == {3}
    client.core.receive_data(update(3, b"u=7"), client.now)
    assert set(sent(client, 5)) == {1}


def test_an_update_of_a_stream_that_does_not_wait_is_kept(client):
    stream = open_stream(client, (b"priority", b"u=7"))
    begin(client, b"u=3")
    client.core.receive_data(update(1, b"u=0"), client.now)
    client.core.send_response(stream, ResponseHead(200, ()), bytes(4 * FRAME))
    assert sent(client, 5)[:4] == [1] * 4


@pytest.mark.parametrize("waiting", [1, 90])
def test_a_flood_of_updates_is_charged_by_the_streams_that_wait(connect, waiting):
    """Each puts them in order again."""
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    peer.send(window_update(0, 2**30))
    for _ in range(waiting):
        begin(peer, b"u=3", 10)
    peer.core.receive_data(settings((INITIAL_WINDOW_SIZE, 10)), peer.now)
    peer.core.receive_data(b"".join(update(1, b"u=%d" % (number % 8)) for number in range(200)), peer.now)
    peer.collect()
    if waiting == 1:
        peer.assert_alive()
    else:
        peer.assert_goaway(ErrorCode.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize(("request_value", "response_value", "expected"), [
    (b"u=5, i", b"u=1", Priority(1, True)),
    (b"u=5, i", b"i=?0", Priority(5, False)),
    (b"u=5", b"i", Priority(5, True)),
    (b"u=5", b"u=9, i=1", Priority(5, False)),
    (b"u=5", b"=", Priority(5, False)),
    (None, b"u=1", Priority(1, False)),
])
def test_the_response_may_state_its_own(client, request_value, response_value, expected):
    """What it leaves out, or gets wrong, is the request's (section 8)."""
    stream = begin(client, request_value, extra=[(b"priority", response_value)])
    assert stream.priority == expected
    sent(client, 1)
    assert (b"priority", response_value) in client.answers[1].head


# -- where windows are the bottleneck ----------------------------------------------------------------------------------


@pytest.fixture
def narrow(connect):
    """A client whose stream windows never shut, and whose connection window a first response has used up."""
    peer = connect([(INITIAL_WINDOW_SIZE, 2**30)])
    begin(peer, b"u=7", 65_535)
    assert shares(peer.collect()) == {1: 65_535}
    return peer


def shares(peer):
    """How many octets of data came, by stream."""
    octets = Counter()
    for frame in peer.take(DataFrame):
        octets[frame.stream_id] += len(frame.data)
    return octets


def order(peer):
    """The streams of the DATA frames that came."""
    return [frame.stream_id for frame in peer.take(DataFrame)]


def grant(peer, octets):
    """Open the connection's window; return the octets that this lets go, by stream."""
    return shares(peer.send(window_update(0, octets)))


def test_each_connection_window_goes_to_the_most_urgent_response(connect):
    """One of less urgency had used up those before."""
    peer = connect([(INITIAL_WINDOW_SIZE, 2**30)])
    begin(peer, b"u=7")
    assert shares(peer.collect()) == {1: 65_535}
    begin(peer, b"u=0", 28 * FRAME)
    for _ in range(7):
        assert grant(peer, 4 * FRAME) == {3: 4 * FRAME}
    assert grant(peer, 4 * FRAME) == {1: 4 * FRAME}


def test_a_connection_window_of_any_size_does(narrow):
    begin(narrow, b"u=7")
    begin(narrow, b"u=0")
    for octets in (1, 100, FRAME - 1, FRAME, FRAME + 1, 65_535):
        assert grant(narrow, octets) == {5: octets}


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7, 15, 31])
def test_one_frame_in_32_goes_to_less_urgent_responses_however_small_the_windows(narrow, frames):
    """Looking for a stream while no window is open counts for nothing."""
    begin(narrow, b"u=7")
    begin(narrow, b"u=0")
    windows = 96 // frames
    octets = sum((grant(narrow, frames * FRAME) for _ in range(windows)), Counter())
    assert octets[3] == windows * frames // 32 * FRAME
    assert octets.total() == windows * frames * FRAME


def test_connection_windows_go_to_one_response_after_another(narrow):
    for _ in range(3):
        begin(narrow, b"u=3", 6 * FRAME)
    found = [grant(narrow, 4 * FRAME) for _ in range(5)]
    whole, half = 4 * FRAME, 2 * FRAME
    assert found == [{3: whole}, {3: half, 5: half}, {5: whole}, {7: whole}, {7: half}]


def test_incremental_responses_share_connection_windows_by_octets(narrow):
    """Not by windows: every other one is small."""
    begin(narrow, b"i")
    begin(narrow, b"i")
    octets = Counter({3: 0, 5: 0})
    for number in range(40):
        octets += grant(narrow, FRAME if number % 2 else 1_000)
        assert abs(octets[3] - octets[5]) <= FRAME
    assert octets.total() == 20 * (FRAME + 1_000)


def test_weights_share_connection_windows(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2**30)])
    begin(peer, size=65_535)
    peer.collect()
    begin(peer)
    begin(peer)
    peer.send(priority(3, weight=191), priority(5, weight=63))
    peer.take()
    octets = sum((grant(peer, 2 * FRAME) for _ in range(40)), Counter())
    assert octets == {3: 60 * FRAME, 5: 20 * FRAME}


def test_stream_windows_that_open_together_are_used_by_urgency(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 2 * FRAME)])
    peer.send(window_update(0, 2**30))
    begin(peer, b"u=7")
    begin(peer, b"u=0")
    assert order(peer.collect()) == [3, 3, 1, 1]
    for _ in range(3):
        assert order(peer.send(window_update(1, FRAME), window_update(3, FRAME))) == [3, 1]
    assert order(peer.send(window_update(1, FRAME))) == [1]


def test_a_larger_initial_window_is_used_by_urgency(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    peer.send(window_update(0, 2**30))
    for value in (b"u=7", b"u=3", b"u=0"):
        begin(peer, value)
    assert order(peer.collect()) == []
    assert order(peer.send(settings((INITIAL_WINDOW_SIZE, 2 * FRAME)))) == [5, 5, 3, 3, 1, 1]


def test_what_the_most_urgent_may_not_send_goes_to_the_next(connect):
    """Its own window is shut; once that opens, it comes first again."""
    peer = connect([(INITIAL_WINDOW_SIZE, FRAME)])
    begin(peer, b"u=7")
    begin(peer, b"u=0")
    peer.send(window_update(1, 2**20))
    assert shares(peer) == {1: 65_535 - FRAME, 3: FRAME}
    assert grant(peer, 4 * FRAME) == {1: 4 * FRAME}
    assert order(peer.send(window_update(3, FRAME))) == []
    assert grant(peer, 4 * FRAME) == {3: FRAME, 1: 3 * FRAME}


def test_waiting_for_a_stream_window_earns_no_more_than_a_share(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, FRAME)])
    peer.send(window_update(0, 2**30))
    for _ in range(3):
        begin(peer, b"i")
    assert order(peer.collect()) == [1, 3, 5]
    assert Counter(order(peer.send(window_update(3, 10 * FRAME), window_update(5, 10 * FRAME)))) == {3: 10, 5: 10}
    found = order(peer.send(*(window_update(stream_id, 10 * FRAME) for stream_id in (1, 3, 5))))
    assert max(Counter(found[:9]).values()) <= 4


# -- any order of events -----------------------------------------------------------------------------------------------


def make_stream(stream_id, value):
    fields = [] if value is None else [(b"priority", value)]
    return Stream(stream_id, RequestHead(b"GET", b"https", b"", b"/", fields), State.HALF_CLOSED_REMOTE, 65_535, 65_535)


VALUES = st.sampled_from([None, b"u=0", b"u=3", b"u=3, i", b"u=7", b"u=7, i", b"i"])


EVENTS = st.sampled_from(["add", "next", "next", "end", "update"])


@given(st.lists(VALUES, min_size=1, max_size=12),
       st.lists(st.tuples(EVENTS, st.integers(0, 11), st.integers(0, FRAME)), max_size=200))
def test_each_stream_that_waits_has_one_turn(values, events):
    """None is lost or doubled, and one that is more urgent is passed over in one of 32 turns at most."""
    streams = [make_stream(2 * number + 1, value) for number, value in enumerate(values)]
    scheduler, waiting, passed_over = Scheduler(), set(), 0
    for event, number, octets in events:
        stream = streams[number % len(streams)]
        if event == "add" and stream.state is not State.CLOSED:
            scheduler.add(stream)
            waiting.add(stream)
        elif event == "end":
            stream.state = State.CLOSED
            waiting.discard(stream)
        elif event == "update":
            scheduler.reprioritize(stream, Priority(octets % 8, octets % 2 == 0))
        elif event == "next":
            chosen = scheduler.next()
            assert (chosen in waiting) if waiting else chosen is None
            if chosen is not None:
                urgency = min((each.priority or each.head.priority).urgency for each in waiting)
                passed_over += (chosen.priority or chosen.head.priority).urgency > urgency
                waiting.remove(chosen)
                if scheduler.turns:
                    scheduler.charge(chosen, octets)
    assert passed_over <= len(events) // 32 + 1
    assert set(scheduler.take_all()) == waiting
    assert scheduler.next() is None
