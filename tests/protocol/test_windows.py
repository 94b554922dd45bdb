"""Receive windows that grow with what applications read and the round trip, within budgets; and the PINGs for that."""

import math
from collections import Counter, deque

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol.connection import ServerConnection
from gunicorn_h2.protocol.events import DataReceived
from gunicorn_h2.protocol.windows import WindowBudget

from .peer import PREFACE, Peer, data, ping, rst_stream, settings, settings_ack

INITIAL = 65_535
MAX = 16_777_216
MAX_31 = 2**31 - 1
FRAME = 16_384
MEASURE = b"distance"


@pytest.fixture
def connect(engine):
    """A function that makes a connection; frames are delivered whole, for there are thousands of them."""
    def connect(budget=None, **config):
        peer = Peer(engine, **config)
        if budget is not None:
            peer.core = ServerConnection(peer.config, peer.now, budget)
            peer.setup()
        return peer
    return connect


class Path:
    """A client that uploads over a path with a round-trip time, as fast as its credit and the path's rate allow.

    It answers PINGs at once, behind what it has put on the path before, or not at all.
    """

    def __init__(self, peer, round_trip, rate=math.inf, answers_pings=True):
        self.peer, self.round_trip, self.rate, self.answers_pings = peer, round_trip, rate, answers_pings
        self.credit = {0: peer.config.connection_window_size}
        self.up, self.down, self.free_at = deque(), deque(), peer.now
        self.pings, self.pending, self.wakes, self.sent, self.unread = 0, 0, 0, Counter(), Counter()
        peer.collect().take()

    def upload(self, *streams, seconds, read=lambda octets: octets):
        """Send on all streams in turn for so long. `read` says how much of what has come an application takes."""
        for stream in streams:
            self.credit.setdefault(stream.stream_id, self.peer.config.initial_window_size)
        until = self.peer.now + seconds
        while self.peer.now < until:
            self._hear()
            self._deliver()
            for stream in streams:
                taken = read(self.unread[stream])
                self.unread[stream] -= taken
                self.peer.core.acknowledge(stream, taken, self.peer.now)
            self.peer.core.handle_timeout(self.peer.now)
            self._collect()
            self._send(streams)
            self.peer.now = min(until, *self._next_events(streams))
        return self

    def finish(self, stream):
        """End an upload when all of it has arrived, and have it answered."""
        self.upload(seconds=self.round_trip * 2)
        self.peer.send(data(stream.stream_id, end=True))
        self.peer.respond(stream, b"thanks", finish=False)

    def _next_events(self, streams):
        yield from (queue[0][0] for queue in (self.up, self.down) if queue)
        yield self.peer.core.next_deadline() or math.inf
        if any(min(self.credit[0], self.credit[stream.stream_id]) > 0 for stream in streams):
            yield self.free_at

    def _hear(self):
        while self.down and self.down[0][0] <= self.peer.now:
            frame = self.down.popleft()[1]
            if isinstance(frame, WindowUpdateFrame):
                self.credit[frame.stream_id] += frame.window_increment
            elif self.answers_pings:
                self.pending -= frame.opaque_data == MEASURE
                due = max(self.free_at, self.peer.now) + self.round_trip / 2
                self.up.append((due, ping(frame.opaque_data, ack=True)))

    def _deliver(self):
        while self.up and self.up[0][0] <= self.peer.now:
            self.peer.send(self.up.popleft()[1])
        for event in self.peer.take_events():
            if isinstance(event, DataReceived):
                self.unread[event.stream] += len(event.data)

    def _collect(self):
        for frame in self.peer.collect().take():
            if isinstance(frame, PingFrame) and frame.opaque_data == MEASURE:
                self.pings += 1
                self.pending += 1
                assert self.pending == 1, "two PINGs are out"
            elif isinstance(frame, PingFrame):
                self.wakes += 1
            if isinstance(frame, (PingFrame, WindowUpdateFrame)):
                self.down.append((self.peer.now + self.round_trip / 2, frame))

    def _send(self, streams):
        sent = True
        while sent and self.free_at <= self.peer.now:
            sent = False
            for stream in streams:
                size = min(self.credit[0], self.credit[stream.stream_id], FRAME)
                if size > 0:
                    sent = True
                    self.send_frame(stream, size)

    def send_frame(self, stream, size):
        """Put a DATA frame on the path, whatever the credit."""
        self.free_at = max(self.free_at, self.peer.now) + size / self.rate
        self.credit[0] -= size
        self.credit[stream.stream_id] -= size
        self.up.append((self.free_at + self.round_trip / 2, data(stream.stream_id, bytes(size))))
        self.sent[stream] += size


def unread(octets):
    """An application that does not read."""
    return 0


def upload(peer):
    """Open a stream with a body to come."""
    return peer.open(method=b"POST", end=False)


def growth(*streams):
    """How much the streams' windows have grown by, together."""
    return sum(stream.receive_window.size - INITIAL for stream in streams)


def connection_window(peer):
    """The size of the connection's window."""
    return peer.core._inflow.window.size


# -- growth ----------------------------------------------------------------------------------------------------------


def test_an_upload_makes_use_of_a_long_path(connect):
    peer = connect()
    path = Path(peer, 0.05, 25e6).upload(upload(peer), seconds=4)
    assert sum(path.sent.values()) > 0.85 * 4 * 25e6
    assert path.wakes == 0
    peer.assert_alive()


@pytest.mark.parametrize(("round_trip", "rate"), [(0.2, 10e6), (0.01, 50e6), (0.1, 1e6), (0.001, 100e6)])
def test_ten_round_trips_are_enough_to_fill_any_path(connect, round_trip, rate):
    peer = connect()
    stream = upload(peer)
    path = Path(peer, round_trip, rate).upload(stream, seconds=10 * round_trip)
    before = path.sent[stream]
    path.upload(stream, seconds=20 * round_trip)
    assert path.sent[stream] - before > 0.99 * 20 * round_trip * rate


def test_the_window_is_not_larger_than_the_path_needs(connect):
    peer = connect()
    stream = upload(peer)
    Path(peer, 0.05, 10e6).upload(stream, seconds=4)
    assert 2 * 0.05 * 10e6 <= stream.receive_window.size <= 8 * 0.05 * 10e6


def test_a_window_doubles_once_a_round_trip(connect):
    peer = connect()
    stream = upload(peer)
    path, sizes = Path(peer, 0.1), []
    for _ in range(6):
        path.upload(stream, seconds=0.1)
        sizes.append(stream.receive_window.size // INITIAL)
    assert sizes == [1, 2, 4, 8, 16, 32]


def test_several_uploads_share_a_path(connect):
    peer = connect()
    streams = [upload(peer) for _ in range(10)]
    path = Path(peer, 0.05, 25e6).upload(*streams, seconds=3)
    assert sum(path.sent.values()) > 0.8 * 3 * 25e6
    assert path.wakes == 0
    assert min(path.sent.values()) * 2 > max(path.sent.values())


def test_the_connections_window_grows_with_small_bodies_as_well(connect):
    """None of them is long enough for its own window to matter."""
    peer = connect(connection_window_size=100_000, max_concurrent_streams=1_000)
    streams = [upload(peer) for _ in range(200)]
    Path(peer, 0.05).upload(*streams, seconds=0.5, read=unread)
    assert growth(*streams) == 0
    assert connection_window(peer) > 1_000_000


def test_where_a_larger_window_was_needed_the_next_stream_gets_one_at_once(connect):
    peer = connect()
    first = upload(peer)
    path = Path(peer, 0.05, 25e6).upload(first, seconds=2)
    grown = first.receive_window.size
    path.finish(first)
    second = upload(peer)
    path.upload(second, seconds=0.03)
    assert second.receive_window.size == grown


def test_several_next_streams_share_what_was_needed(connect):
    peer = connect()
    path = Path(peer, 0.05, 25e6)
    path.upload(first := upload(peer), seconds=2)
    grown = first.receive_window.size
    streams = [upload(peer) for _ in range(3)]
    path.upload(*streams, seconds=0.04)
    assert [stream.receive_window.size for stream in streams] == [grown // 4] * 3


# -- no growth -------------------------------------------------------------------------------------------------------


def test_a_body_that_nobody_reads_gets_no_more_than_its_window(connect):
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05).upload(stream, seconds=3, read=unread)
    assert (path.sent[stream], stream.receive_window.size) == (INITIAL, INITIAL)


def test_an_application_that_reads_slowly_gets_no_larger_window(connect):
    """Half a window in three round trips."""
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05)
    for _ in range(20):
        path.upload(stream, seconds=0.01, read=lambda octets: min(octets, INITIAL // 2 + 1))
        path.upload(stream, seconds=0.14, read=unread)
    assert path.sent[stream] > 9 * INITIAL
    assert stream.receive_window.size == INITIAL


def test_a_client_that_sends_slowly_gets_no_larger_window(connect):
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05)
    path.credit[1] = -10**6
    for _ in range(50):
        path.send_frame(stream, 16_000)
        path.upload(stream, seconds=0.06)
    assert (path.pings, path.sent[stream]) == (1, 800_000)
    assert stream.receive_window.size == INITIAL


def test_a_client_that_does_not_answer_pings_gets_no_larger_window(connect):
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05, answers_pings=False).upload(stream, seconds=3)
    assert (stream.receive_window.size, path.pings) == (INITIAL, 1)
    assert connection_window(peer) == peer.config.connection_window_size


@pytest.mark.parametrize("config", [
    {"max_window_size": 0}, {"max_window_size": INITIAL}, {"worker_window_size": 0}, {"worker_window_size": 1},
    {"max_window_size": 100_000, "initial_window_size": 100_000},
])
def test_growth_can_be_forbidden(connect, config):
    peer = connect(**config)
    stream = upload(peer)
    Path(peer, 0.05).upload(stream, seconds=2)
    assert stream.receive_window.size == peer.config.initial_window_size


def test_credit_for_a_body_that_nobody_reads_is_used_up_first(connect):
    """The end of its response has let the client send the rest of it."""
    peer = connect(request_buffer_size=0)
    stream = peer.open((b"content-length", b"3000000"), method=b"POST", end=False)
    read_all(peer, stream, 48_000)
    peer.respond(stream, b"enough", finish=False)
    granted = [update for update in peer.updates if update[1] > 65_535]
    assert granted == [(0, 3_000_000 - 48_000), (1, 3_000_000 - 48_000)]
    peer.take()
    for _ in range(100):
        peer.send(data(1, bytes(16_000)))
    peer.core.acknowledge(stream, 48_000, peer.now)
    assert peer.collect().updates == []
    for _ in range(84):
        peer.send(data(1, bytes(16_000)))
    peer.assert_alive()


# -- limits ----------------------------------------------------------------------------------------------------------


def test_no_window_grows_beyond_the_limit(connect):
    peer = connect()
    stream = upload(peer)
    Path(peer, 0.2).upload(stream, seconds=6)
    assert MAX * 0.95 < stream.receive_window.size <= MAX
    assert connection_window(peer) == MAX


def test_the_connections_window_does_not_shrink_to_the_limit(connect):
    peer = connect(connection_window_size=30_000_000)
    Path(peer, 0.2).upload(upload(peer), seconds=4)
    assert connection_window(peer) == 30_000_000


def test_the_streams_of_a_connection_share_its_limit(connect):
    peer = connect()
    streams = [upload(peer) for _ in range(20)]
    Path(peer, 0.2).upload(*streams, seconds=4)
    assert MAX * 0.9 < growth(*streams) <= MAX - INITIAL
    assert all(stream.receive_window.size > INITIAL for stream in streams)


def test_the_connections_of_a_worker_share_its_limit(connect):
    budget = WindowBudget(10_000_000)
    uploads = []
    for _ in range(5):
        peer = connect(budget)
        uploads.append(stream := upload(peer))
        Path(peer, 0.2).upload(stream, seconds=4)
        assert growth(*uploads) + budget.left == 10_000_000
    assert all(stream.receive_window.size > INITIAL for stream in uploads)


def test_a_connection_leaves_to_others_as_much_as_it_takes(connect):
    peer = connect(worker_window_size=1_000_000)
    stream = upload(peer)
    Path(peer, 0.2).upload(stream, seconds=4)
    assert growth(stream) == pytest.approx(500_000, rel=0.01)


@pytest.mark.parametrize("initial", [1, INITIAL, MAX_31 - 1_000, MAX_31])
def test_windows_stay_within_what_the_protocol_allows(connect, initial):
    """Increments are checked by the peer's parser, and by the client here: no window goes beyond 2^31-1."""
    peer = connect(initial_window_size=initial, max_window_size=MAX_31, worker_window_size=2**40,
                   connection_window_size=MAX_31)
    stream = upload(peer)
    for _ in range(50):
        peer.send(data(1, bytes(min(FRAME, stream.receive_window.available))))
        peer.core.acknowledge(stream, FRAME, peer.now)
        peer.collect()
        for _, payload in peer.pings:
            peer.send(ping(payload, ack=True))
        peer.take()
        assert 0 <= stream.receive_window.available <= stream.receive_window.size <= MAX_31
    peer.assert_alive()


def test_our_settings_change_a_window_that_has_grown(connect):
    peer = connect(setup=False, initial_window_size=100_000)
    peer.send(PREFACE, settings(), peer.headers(1, end=False))
    stream = peer.core.streams[1]
    for _ in range(3):
        peer.send(data(1, bytes(16_000)) * 3)
        peer.core.acknowledge(stream, 48_000, peer.now)
        for _, payload in peer.collect().pings:
            peer.send(ping(payload, ack=True))
        peer.take()
    size, available = stream.receive_window.size, stream.receive_window.available
    assert size > INITIAL
    peer.send(settings_ack())
    assert stream.receive_window.size == size + 100_000 - INITIAL
    assert stream.receive_window.available == available + 100_000 - INITIAL


# -- giving back -----------------------------------------------------------------------------------------------------


@pytest.fixture
def grown(connect):
    """A budget, and a connection with a stream whose window has grown from it."""
    budget = WindowBudget(10_000_000)
    peer = connect(budget, idle_timeout=100)
    stream = upload(peer)
    Path(peer, 0.05, 25e6).upload(stream, seconds=1)
    assert budget.left < 10_000_000
    return budget, peer, stream


def test_a_response_that_ends_a_stream_gives_back_within_a_second(grown):
    budget, peer, stream = grown
    peer.send(data(1, end=True))
    peer.respond(stream, b"thanks", finish=False)
    peer.wait(1)
    assert budget.left == 10_000_000
    assert peer.core.next_deadline() > peer.now + 10


def test_a_request_that_has_ended_holds_what_its_application_may_not_have_read(grown):
    budget, peer, _ = grown
    peer.send(data(1, end=True))
    peer.wait(5)
    assert budget.left < 10_000_000


def test_a_reset_stream_gives_back_when_its_call_has_returned(grown):
    budget, peer, stream = grown
    peer.send(rst_stream(1))
    peer.wait(5)
    assert budget.left < 10_000_000
    peer.core.finish(stream, peer.now)
    assert budget.left == 10_000_000


def test_a_connection_that_ends_gives_back_when_its_calls_have_returned(grown):
    budget, peer, stream = grown
    other = upload(peer)
    peer.core.receive_eof()
    assert budget.left < 10_000_000
    peer.core.finish(other, peer.now)
    assert budget.left < 10_000_000
    peer.core.finish(stream, peer.now)
    assert budget.left == 10_000_000


def test_a_connection_that_ends_without_calls_gives_back_at_once(grown):
    budget, peer, stream = grown
    peer.send(data(1, end=True))
    peer.respond(stream, b"thanks", finish=False)
    peer.core.receive_eof()
    assert budget.left == 10_000_000


def test_what_ended_streams_held_is_there_for_the_next_one(connect):
    """Not only after a second."""
    peer = connect(max_window_size=1_000_000)
    path = Path(peer, 0.05, 25e6)
    for _ in range(5):
        stream = upload(peer)
        path.upload(stream, seconds=1)
        assert growth(stream) > 800_000
        path.finish(stream)


# -- PINGs for the round trip ----------------------------------------------------------------------------------------


def read_all(peer, stream, octets):
    """Send data on a stream, and have the application take it at once."""
    for position in range(0, octets, 16_000):
        size = min(16_000, octets - position)
        peer.send(data(stream.stream_id, bytes(size)))
        peer.core.acknowledge(stream, size, peer.now)
        peer.collect()


def test_no_ping_without_bodies(connect):
    peer = connect(idle_timeout=1_000)
    for _ in range(20):
        peer.respond(peer.open(), b"hello" * 10_000)
        peer.wait(10)
    assert peer.pings == []


def test_no_ping_for_bodies_that_fit_their_window(connect):
    peer = connect(idle_timeout=1_000)
    for _ in range(10):
        stream = upload(peer)
        read_all(peer, stream, 30_000)
        peer.send(data(stream.stream_id, end=True))
        peer.respond(stream, b"thanks")
        peer.wait(1)
    assert peer.pings == []


def test_the_first_credit_brings_one_ping_and_no_other_before_its_answer(connect):
    peer = connect()
    read_all(peer, upload(peer), 500_000)
    peer.wait(20)
    ((acknowledges, payload),) = peer.pings
    assert not acknowledges
    assert [type(frame) for frame in peer.frames[:2]] == [WindowUpdateFrame, PingFrame]
    peer.send(ping(payload, ack=True))
    peer.assert_alive()


def test_an_upload_is_not_measured_for_ever(connect):
    """A PING for each time that a window grows."""
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05, 5e6).upload(stream, seconds=2)
    pings = path.pings
    assert 2 <= pings <= 15
    path.upload(stream, seconds=5)
    assert path.pings == pings


def test_the_shortest_round_trip_counts(connect):
    """A client that was busy answers late; that makes no path longer."""
    peer = connect()
    stream = upload(peer)
    path = Path(peer, 0.05)
    path.upload(stream, seconds=1)
    shortest = peer.core._inflow._probe.round_trip
    path.round_trip = 0.5
    path.upload(stream, seconds=3)
    assert peer.core._inflow._probe.round_trip == shortest == pytest.approx(0.05)


@pytest.mark.parametrize("payload", [b"shutdown", b"12345678"])
def test_an_answer_to_another_ping_is_none(connect, payload):
    peer = connect()
    read_all(peer, upload(peer), 50_000)
    peer.send(ping(payload, ack=True))
    assert peer.core._inflow._probe.round_trip is None
    peer.assert_alive()


def test_an_answer_without_a_ping_is_ignored(connect):
    peer = connect()
    stream = upload(peer)
    read_all(peer, stream, 50_000)
    ((_, payload),) = peer.pings
    peer.take()
    peer.send(ping(payload, ack=True), ping(payload, ack=True), ping(payload, ack=True))
    read_all(peer, stream, 50_000)
    peer.assert_alive()


def test_answers_cost_the_client_nothing(connect):
    """With the smallest budget that there may be, and no time for it to fill up again."""
    peer = connect(control_budget=10, max_window_size=1_000_000)
    stream = upload(peer)
    for _ in range(40):
        read_all(peer, stream, stream.receive_window.size)
        for acknowledges, payload in peer.pings:
            assert not acknowledges
            peer.send(ping(payload, ack=True))
        peer.take()
    assert not peer.core.closed


def test_no_ping_behind_a_goaway(connect):
    peer = connect(drain_timeout=0.1)
    stream = upload(peer)
    peer.core.shutdown(peer.now)
    peer.wait(0.1)
    assert [type(frame) for frame in peer.take() if isinstance(frame, (PingFrame, GoAwayFrame))] == [
        PingFrame, GoAwayFrame]
    read_all(peer, stream, 500_000)
    peer.wait(0.5)
    assert peer.pings == []


def test_a_shutdown_that_waits_for_its_moment_may_measure(connect):
    peer = connect(drain_timeout=10)
    stream = upload(peer)
    peer.core.shutdown(peer.now)
    read_all(peer, stream, 50_000)
    assert len(peer.pings) == 1


# -- whatever happens ------------------------------------------------------------------------------------------------


LIMIT, TOTAL = 1_000_000, 1_500_000
turns = st.lists(st.tuples(
    st.booleans(),
    st.sampled_from(["open", "send", "send", "send", "read", "read", "read", "pong", "pong", "end", "reset",
                     "return_", "wait"]),
    st.integers(0, 7), st.integers(1, 200_000), st.sampled_from([0.0, 0.001, 0.05, 2.0])), max_size=300)


class Client:
    """Sends what its credit allows and no more, on one of a worker's connections."""

    def __init__(self, engine, budget):
        self.peer = Peer(engine, max_window_size=LIMIT, idle_timeout=10**6, reset_budget=10**6, control_budget=10**6)
        self.peer.core = ServerConnection(self.peer.config, self.peer.now, budget)
        self.peer.setup()
        self.streams, self.credit, self.unread = [], {0: self.peer.config.connection_window_size}, {}

    def act(self, action, which, octets):
        """Do something, on one of the streams where it takes one."""
        peer = self.peer
        if action == "open":
            stream = upload(peer)
            if stream is not None:
                self.streams.append(stream)
                self.credit[stream.stream_id], self.unread[stream] = INITIAL, 0
        elif action == "pong":
            for _, payload in peer.pings:
                peer.send(ping(payload, ack=True))
        elif self.streams and action != "wait":
            getattr(self, action)(self.streams[which % len(self.streams)], octets)
        self.hear()

    def send(self, stream, octets):
        """Send data, as far as there is credit."""
        while octets > 0 and not stream.request_ended:
            size = min(octets, self.credit[0], self.credit[stream.stream_id], FRAME)
            if size <= 0:
                return
            self.credit[0] -= size
            self.credit[stream.stream_id] -= size
            octets -= size
            self.peer.send(data(stream.stream_id, bytes(size)))
            self.unread[stream] += size
            self.hear()

    def read(self, stream, octets):
        """Have the application take some of what it has."""
        taken = min(octets, self.unread[stream])
        self.unread[stream] -= taken
        self.peer.core.acknowledge(stream, taken, self.peer.now)

    def end(self, stream, octets):
        """End the request and the response."""
        if not stream.request_ended:
            self.peer.send(data(stream.stream_id, end=True))
            self.peer.respond(stream, b"thanks", finish=False)
            self.forget(stream)

    def reset(self, stream, octets):
        """Reset the stream; its call goes on."""
        if not stream.request_ended:
            self.peer.send(rst_stream(stream.stream_id))

    def return_(self, stream, octets):
        """The application's call returns, where the stream was reset."""
        if stream.request_ended:
            self.peer.core.finish(stream, self.peer.now)
            self.forget(stream)

    def forget(self, stream):
        """No application has it any more."""
        self.streams.remove(stream)
        del self.unread[stream]

    def hear(self):
        """Take credit."""
        peer = self.peer.collect()
        for frame in peer.take(WindowUpdateFrame):
            if frame.stream_id in self.credit:
                self.credit[frame.stream_id] += frame.window_increment
                assert frame.window_increment > 0
                assert self.credit[frame.stream_id] <= MAX_31
        assert peer.terminated is None, peer.events[-1]


@given(turns)
def test_credit_is_bounded_and_a_client_that_keeps_to_it_never_fails(engine, turns):
    budget = WindowBudget(TOTAL)
    clients = [Client(engine, budget), Client(engine, budget)]
    for second, action, which, octets, seconds in turns:
        clients[second].peer.wait(seconds)
        clients[second].act(action, which, octets)
        held = [growth(*client.streams) for client in clients]
        assert max(held) <= LIMIT - INITIAL
        assert sum(held) <= budget.taken == TOTAL - budget.left <= TOTAL
        assert all(max(client.unread.values(), default=0) <= LIMIT for client in clients)
    for client in clients:
        client.peer.core.receive_eof()
        for stream in client.streams:
            client.peer.core.finish(stream, client.peer.now)
    assert (budget.left, budget.taken) == (TOTAL, 0)
