"""Response data that is not in memory: read when it may be sent, freed when it is not needed; what memory it saves."""

import pytest
from hyperframe.frame import DataFrame
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import StreamWritable
from gunicorn_h2.protocol.headers import RequestHead, ResponseHead
from gunicorn_h2.protocol.outbox import OutputBudget
from gunicorn_h2.protocol.stream import State, Stream

from .peer import INITIAL_WINDOW_SIZE, Peer, rst_stream, window_update

CANCEL, INTERNAL_ERROR = ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR


class Octets:
    """A source that keeps its octets, the sizes of the reads, and whether it was closed; `lost` ones cannot be read."""

    def __init__(self, data, lost=0):
        self.data, self.lost, self.reads, self.closes = bytes(data), lost, [], 0

    def __len__(self):
        return len(self.data)

    def read(self, octets):
        """Take octets."""
        assert 0 < octets <= len(self.data)
        self.reads.append(octets)
        data, self.data = self.data[:octets], self.data[octets:]
        return data[:max(len(data) - self.lost, 0)]

    def close(self):
        """Count."""
        self.closes += 1


def begin(peer, data=b""):
    """Open a stream, and send the head of its response and some data."""
    stream = peer.open()
    peer.respond(stream, data, end=False, finish=False)
    return stream


# -- reading ---------------------------------------------------------------------------------------------------------


def test_a_source_is_read_as_the_window_allows(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 10)])
    stream, source = begin(peer), Octets(b"0123456789abcdef")
    peer.core.send_source(stream, source, True)
    peer.collect()
    assert (source.reads, source.closes, peer.answers[1].body) == ([10], 0, b"0123456789")
    peer.send(window_update(1, 4))
    assert (source.reads, stream.queued, stream.stored) == ([10, 4], 2, 2)
    peer.send(window_update(1, 100))
    assert (source.closes, peer.answers[1].body, peer.answers[1].ended) == (1, b"0123456789abcdef", True)


def test_no_more_than_a_frame_is_read_at_a_time(peer):
    stream, source = begin(peer), Octets(bytes(40_000))
    peer.core.send_source(stream, source, True)
    peer.collect()
    assert source.reads == [16_384, 16_384, 7_232]


def test_the_order_is_that_of_the_calls(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 3)])
    stream = begin(peer, b"01")
    peer.core.send_source(stream, Octets(b"234"), False)
    peer.core.send_data(stream, b"5678", False)
    peer.core.send_source(stream, Octets(b"9"), False)
    peer.core.send_data(stream, b"abc", True)
    for _ in range(20):
        peer.send(window_update(1, 3))
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"0123456789abc", True)


def test_trailers_follow_a_source(peer):
    stream, source = begin(peer), Octets(b"body")
    peer.core.send_source(stream, source, False)
    peer.core.send_trailers(stream, [(b"x-sum", b"1")])
    peer.collect()
    assert (peer.answers[1].body, peer.answers[1].trailers) == (b"body", [(b"x-sum", b"1")])


@pytest.mark.parametrize("lost", [1, 5])
def test_a_source_that_is_incomplete_resets_its_stream(peer, lost):
    stream, source = begin(peer), Octets(b"01234", lost)
    peer.core.send_source(stream, source, True)
    peer.collect()
    assert (peer.resets, peer.aborted, source.closes) == ([(1, INTERNAL_ERROR)], [(1, INTERNAL_ERROR)], 1)
    assert peer.answers[1].body == b""
    peer.assert_alive()


# -- the end ---------------------------------------------------------------------------------------------------------

WAYS = {
    "the client resets": lambda peer, stream: peer.send(rst_stream(1)),
    "we reset": lambda peer, stream: peer.core.reset(stream, CANCEL),
    "the client stalls": lambda peer, stream: peer.wait(31),
    "the connection is gone": lambda peer, stream: peer.core.receive_eof(),
    "the connection fails": lambda peer, stream: peer.core.fail(ErrorCode.PROTOCOL_ERROR, "a test"),
}


@pytest.mark.parametrize("end", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("window", [0, 3])
def test_what_is_left_is_closed_at_once(connect, end, window):
    peer = connect([(INITIAL_WINDOW_SIZE, window)], stream_timeout=30)
    stream, sources = begin(peer), [Octets(b"01234"), Octets(b"56789")]
    for source in sources:
        peer.core.send_source(stream, source, False)
    peer.collect()
    end(peer, stream)
    assert [source.closes for source in sources] == [1, 1]
    assert (stream.queued, stream.stored) == (0, 0)


@pytest.mark.parametrize("end", [lambda peer, stream: peer.core.receive_eof(),
                                 lambda peer, stream: peer.core.reset(stream, CANCEL),
                                 lambda peer, stream: peer.core.send_data(stream, b"", True)],
                         ids=["gone", "reset", "ended"])
def test_a_source_that_comes_too_late_is_closed(peer, end):
    stream, source = begin(peer), Octets(b"01234")
    end(peer, stream)
    peer.core.send_source(stream, source, True)
    assert (source.closes, source.reads) == (1, [])


# -- what the application waits for ----------------------------------------------------------------------------------


def test_the_queue_has_a_low_mark_with_sources_as_well(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_buffer_size=1_000)
    stream = begin(peer)
    peer.core.send_source(stream, Octets(bytes(1_001)), False)
    peer.collect().send(window_update(1, 500))
    assert peer.of(StreamWritable) == []
    peer.send(window_update(1, 1))
    assert len(peer.of(StreamWritable)) == 1


def test_an_application_may_wait_for_an_empty_queue(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], stream_buffer_size=1_000)
    stream = begin(peer, b"0123456789")
    peer.core.await_empty(stream)
    peer.send(window_update(1, 9))
    assert peer.of(StreamWritable) == []
    peer.send(window_update(1, 1))
    assert len(peer.of(StreamWritable)) == 1
    peer.core.send_data(stream, b"more", False)
    peer.send(window_update(1, 10))
    assert len(peer.of(StreamWritable)) == 1


def test_an_empty_queue_is_not_waited_for(peer):
    stream = begin(peer, b"0123456789")
    peer.core.await_empty(stream)
    assert not stream.above_high_mark


# -- taking back -----------------------------------------------------------------------------------------------------


def make_stream():
    """A stream of no connection."""
    return Stream(1, RequestHead(b"GET", b"https", b"a", b"/", [], None, False), State.OPEN, 0, 0)


def fill(stream, *pieces):
    """Queue pieces."""
    for piece in pieces:
        stream.queue.append(piece)
        stream.queued += len(piece)
        stream.stored += len(piece) if isinstance(piece, Octets) else 0


def drain(stream, size=7):
    """Take all of a queue."""
    octets = b""
    while stream.queued:
        octets += bytes(stream.take_piece(size) if stream.stored else stream.take(min(size, stream.queued)))
    return octets


@pytest.mark.parametrize("trailers", [None, [(b"x-sum", b"1")]])
def test_what_is_taken_back_may_be_sent_by_a_source(connect, trailers):
    peer = connect([(INITIAL_WINDOW_SIZE, 2)])
    stream = peer.open()
    if trailers:
        peer.core.send_with_trailers(stream, ResponseHead(200, []), b"0123456789", trailers)
        peer.collect()
    else:
        peer.respond(stream, b"0123456789", finish=False)
    pieces, ended = peer.core.withdraw(stream, 3)
    assert (b"".join(pieces), ended, stream.queued) == (b"56789", True, 3)
    peer.send(window_update(1, 100))
    assert (peer.answers[1].body, peer.answers[1].ended) == (b"01234", False)
    peer.core.send_source(stream, Octets(b"".join(pieces)), ended)
    peer.collect()
    assert (peer.answers[1].body, peer.answers[1].trailers, peer.answers[1].ended) == (b"0123456789", trailers, True)


def test_what_little_is_queued_is_not_taken_back():
    stream = make_stream()
    fill(stream, b"012", b"34")
    stream.end_queued = True
    assert (stream.withdraw(5), stream.end_queued) == (([], False), True)


def test_what_is_before_a_source_is_not_taken_back():
    stream, source = make_stream(), Octets(b"345")
    fill(stream, b"012", source, b"67", b"89")
    assert stream.withdraw(0) == ([b"67", b"89"], False)
    assert drain(stream) == b"012345"


def test_what_is_kept_does_not_keep_the_rest_in_memory():
    """A view refers to all of its object."""
    large = bytes(10_000)
    for act in (lambda stream: stream.withdraw(100), lambda stream: stream.store(100, 10_000, Octets)):
        stream = make_stream()
        fill(stream, memoryview(large))
        act(stream)
        assert type(stream.queue[0]) is bytes


def test_the_end_of_a_large_piece_is_copied():
    stream = make_stream()
    fill(stream, bytes(8_000))
    stream.take(6_000)
    assert isinstance(stream.queue[0], memoryview)
    stream.take(1_000)
    assert type(stream.queue[0]) is bytes


def test_what_is_stored_at_a_time_has_a_limit():
    """Small pieces become one source, which ends in the middle of a piece if need be."""
    stream = make_stream()
    fill(stream, b"01", b"23", b"45", b"6789")
    assert stream.store(1, 4, Octets) == 4
    assert [bytes(piece.data if isinstance(piece, Octets) else piece) for piece in stream.queue] == [
        b"0", b"1234", b"5", b"6789"]
    assert drain(stream) == b"0123456789"


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=9)), max_size=8), st.integers(0, 40),
       st.integers(1, 40), st.integers(1, 12), st.integers(1, 9))
def test_a_queue_is_the_same_in_memory_and_out_of_it(pieces, keep, limit, room, size):
    """`store` takes what is behind the first `keep` octets, in their order, `limit` octets and `room` calls at most."""
    stream, calls = make_stream(), []

    def store(data):
        calls.append(bytes(data))
        return Octets(data) if len(calls) <= room else None

    fill(stream, *(Octets(data) if stored else data for stored, data in pieces))
    whole, stored = b"".join(data for _, data in pieces), stream.stored
    taken = stream.store(keep, limit, store)
    assert (stream.queued, stream.stored) == (len(whole), stored + taken)
    assert taken == sum(map(len, calls[:room])) <= limit
    in_memory = sum(len(piece) for piece in stream.queue if not isinstance(piece, Octets))
    assert in_memory == len(whole) - stored - taken
    if len(calls) <= room and taken < limit:
        assert in_memory <= keep
    assert drain(stream, size) == whole


# -- the budget ------------------------------------------------------------------------------------------------------


class Shared:
    """Connections that share a budget."""

    def __init__(self, engine, **config):
        self.budget, self.peers = OutputBudget(1_000), []
        for _ in range(2):
            peer = Peer(engine, setup=False, **config)
            peer.core = ServerConnection(ConnectionConfig(engine=engine, **config), peer.now, None, self.budget)
            peer.setup([(INITIAL_WINDOW_SIZE, 10)])
            self.peers.append(peer)

    def queued(self):
        """What is in memory."""
        return sum(stream.queued - stream.stored for peer in self.peers for stream in peer.core.streams.values())


ACTS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.sampled_from(
    ["send", "source", "credit", "reset", "cancel", "withdraw", "store", "end", "open"]), st.integers(1, 60)),
    max_size=40)


@given(ACTS, st.booleans())
def test_the_budget_is_what_is_in_memory(engine, acts, dies):
    shared = Shared(engine, control_budget=10_000)
    for number, place, act, size in acts:
        peer = shared.peers[number]
        streams = list(peer.core.streams.values())
        if act == "open" or not streams:
            begin(peer, bytes(size))
            continue
        stream = streams[place % len(streams)]
        if act == "send":
            peer.core.send_data(stream, bytes(size), False)
        elif act == "source":
            peer.core.send_source(stream, Octets(bytes(size)), False)
        elif act == "credit":
            peer.send(window_update(stream.stream_id, size))
        elif act == "reset":
            peer.core.reset(stream, CANCEL)
        elif act == "cancel":
            peer.send(rst_stream(stream.stream_id))
        elif act == "withdraw":
            peer.core.withdraw(stream, size)
        elif act == "store":
            peer.core.store_queue(stream, place, size, Octets)
        else:
            peer.core.send_data(stream, b"", True)
        peer.collect()
        assert shared.budget.used == shared.queued()
    for peer in shared.peers:
        if dies:
            peer.core.receive_eof()
        else:
            for stream in list(peer.core.streams.values()):
                peer.core.send_data(stream, b"", True)
            for stream_id in list(peer.core.streams):
                peer.send(window_update(stream_id, 10_000))
    assert shared.budget.used == 0


def test_the_core_knows_whether_there_is_something_to_store(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 0)])
    stream = begin(peer)
    assert not peer.core.has_storable
    peer.core.send_source(stream, Octets(b"x"), False)
    assert not peer.core.has_storable
    peer.core.send_data(stream, b"x", False)
    assert peer.core.has_storable
    peer.core.has_storable = False
    assert not peer.core.has_storable


# -- the least rate --------------------------------------------------------------------------------------------------


def dribble(peer, stream_ids, octets, times=9):
    """Grant a few octets, three times in each 30 seconds; return the streams that were reset."""
    for _ in range(times):
        peer.wait(9)
        for stream_id in stream_ids:
            if stream_id in peer.core.streams:
                peer.send(window_update(stream_id, octets))
    return [stream_id for stream_id, _ in peer.resets]


def stalled(connect, count=1, size=100_000, **config):
    """Responses that wait for credit."""
    peer = connect([(INITIAL_WINDOW_SIZE, 0)], control_budget=100_000, idle_timeout=1_000, **config)
    for _ in range(count):
        peer.respond(peer.open(), bytes(size), finish=False)
    return peer


@pytest.mark.parametrize(("octets", "slow"), [(1, True), (2_399, True), (2_401, False), (10_000, False)])
def test_a_response_has_a_least_rate(connect, octets, slow):
    """240 octets a second in each 30 seconds."""
    peer = stalled(connect, stream_timeout=30, min_read_rate=240)
    assert dribble(peer, [1], octets) == ([1] if slow else [])
    if slow:
        assert peer.aborted == [(1, CANCEL)]
    peer.assert_alive()


def test_the_rate_is_measured_again_in_each_period(connect):
    peer = stalled(connect, stream_timeout=30, min_read_rate=240)
    peer.send(window_update(1, 50_000))
    assert dribble(peer, [1], 1, 6) == []
    assert dribble(peer, [1], 1, 1) == [1]


def test_responses_of_one_client_share_the_rate(connect):
    """A narrow link is nobody's fault: ten responses at a tenth of the rate each."""
    peer = stalled(connect, count=10, stream_timeout=30, min_read_rate=240)
    assert dribble(peer, range(1, 21, 2), 250) == []


def test_a_quick_response_does_not_hide_a_slow_one(connect):
    peer = stalled(connect, count=2, size=1_000_000, stream_timeout=30, min_read_rate=240)
    for _ in range(9):
        peer.wait(10)
        if 3 in peer.core.streams:
            peer.send(window_update(3, 1))
        peer.send(window_update(1, 50_000), window_update(0, 50_000))
    assert [stream_id for stream_id, _ in peer.resets] == [3]


def test_no_rate_is_asked_of_an_application(connect):
    """A stream that has sent what there was is not measured, however slow that is."""
    peer = connect([(INITIAL_WINDOW_SIZE, 10)], stream_timeout=30, min_read_rate=240)
    stream = begin(peer)
    for _ in range(20):
        peer.core.send_data(stream, bytes(11), False)
        peer.collect().send(window_update(1, 11))
        peer.wait(29)
    assert (peer.resets, stream.queued) == ([], 0)


def test_the_connections_window_is_measured_as_well(connect):
    peer = connect([(INITIAL_WINDOW_SIZE, 1_000_000)], stream_timeout=30, min_read_rate=240)
    peer.respond(peer.open(), bytes(100_000), finish=False)
    for _ in range(4):
        peer.wait(10)
        peer.send(window_update(0, 1))
    assert [stream_id for stream_id, _ in peer.resets] == [1]


def test_what_waits_has_no_rate_before_it_waits(peer):
    """Frames that go out at once leave nothing behind."""
    peer.respond(peer.open(), bytes(60_000))
    assert (peer.core.blocked, peer.core.next_deadline()) == ({}, peer.now + peer.config.idle_timeout)
    assert sum(len(frame.data) for frame in peer.take(DataFrame)) == 60_000
