"""Bodies that have credit and stand still: PINGs pass the turn to read on, where a client's tasks take turns."""

import math
from collections import Counter, deque

import pytest
from hyperframe.frame import DataFrame, PingFrame, WindowUpdateFrame

from gunicorn_h2.protocol.events import DataReceived, RequestReceived

from .peer import Peer, data, ping, rst_stream

INITIAL = 65_535


@pytest.fixture
def connect(engine):
    """A function that makes a connection; frames are delivered whole, for there are thousands of them."""
    def connect(**config):
        return Peer(engine, **{"control_budget": 10, **config})
    return connect


# -- httpcore, and a server with a few threads -----------------------------------------------------------------------


class Httpcore:
    """Uploads as httpcore makes them: a task for each, and one lock for reading.

    A task without credit waits for the lock, reads until something has come, and only then looks at its credit; it
    does not look when it gets the lock. A task that waits for its response does.
    """

    def __init__(self, peer, sizes, threads, round_trip=0.001, notices_pings=True):
        self.peer, self.round_trip, self.notices_pings = peer, round_trip, notices_pings
        self.server = Server(peer, threads)
        self.up, self.down, self.inbox, self.lock = deque(), deque(), [], deque()
        self.credit = {0: peer.config.connection_window_size}
        self.left, self.responded, self.done, self.pings, self.pending, self.most_pending = {}, set(), set(), 0, 0, 0
        for size in sizes:
            stream = peer.open(method=b"POST", end=False)
            self.left[stream.stream_id] = size
            self.credit[stream.stream_id] = peer.config.initial_window_size
        for stream_id in self.left:
            self.go_on(stream_id)

    def run(self, seconds):
        """Go on until every task is done, or for so long; return how long it took."""
        began = self.peer.now
        while len(self.done) < len(self.left) and self.peer.now < began + seconds:
            self.exchange()
            while self.take_turn():
                pass
            due = [queue[0][0] for queue in (self.up, self.down) if queue]
            self.peer.now = min(*due, self.peer.core.next_deadline() or math.inf, began + seconds)
        return self.peer.now - began

    def exchange(self):
        """Let what is due arrive, and the server act."""
        while self.up and self.up[0][0] <= self.peer.now:
            self.peer.send(self.up.popleft()[1])
            self.server.act()
        self.peer.core.handle_timeout(self.peer.now)
        for frame in self.peer.collect().take():
            if isinstance(frame, PingFrame):
                self.pings += 1
                self.pending += 1
                self.most_pending = max(self.most_pending, self.pending)
            self.down.append((self.peer.now + self.round_trip / 2, frame))
        while self.down and self.down[0][0] <= self.peer.now:
            frame = self.down.popleft()[1]
            if not isinstance(frame, PingFrame) or self.notices_pings:
                self.inbox.append(frame)

    def send(self, octets):
        """Put octets on their way."""
        self.up.append((self.peer.now + self.round_trip / 2, octets))

    def take_turn(self):
        """Let the task go on that has the lock; return whether it could."""
        if not self.lock:
            return False
        stream_id = self.lock[0]
        if stream_id in self.responded and not self.left[stream_id]:
            self.done.add(self.lock.popleft())
            return True
        if not self.inbox:
            return False
        self.lock.popleft()
        for frame in self.inbox:
            self.note(frame)
        self.inbox = []
        self.go_on(stream_id)
        return True

    def note(self, frame):
        """Take note of what has come, for whichever task."""
        if isinstance(frame, WindowUpdateFrame):
            self.credit[frame.stream_id] += frame.window_increment
        elif isinstance(frame, DataFrame):
            self.responded.add(frame.stream_id)
        elif isinstance(frame, PingFrame):
            self.pending -= 1
            self.send(ping(frame.opaque_data, ack=True))

    def go_on(self, stream_id):
        """Send as much as there is credit for; then wait for the lock."""
        while self.left[stream_id]:
            size = min(self.left[stream_id], self.credit[0], self.credit[stream_id], 16_384)
            if not size:
                break
            self.credit[0] -= size
            self.credit[stream_id] -= size
            self.left[stream_id] -= size
            self.send(data(stream_id, bytes(size), end=not self.left[stream_id]))
        self.lock.append(stream_id)


class Server:
    """Runs so many applications at a time; each reads all of its body, and answers."""

    def __init__(self, peer, threads):
        self.peer, self.threads = peer, threads
        self.streams, self.unread, self.complete = [], Counter(), set()

    def act(self):
        """Do what can be done now."""
        for event in self.peer.take_events():
            if isinstance(event, RequestReceived):
                self.streams.append(event.stream)
                if event.end_stream:
                    self.complete.add(event.stream)
            elif isinstance(event, DataReceived):
                self.unread[event.stream] += len(event.data)
                if event.end_stream:
                    self.complete.add(event.stream)
        for stream in self.streams[:self.threads]:
            self.peer.core.acknowledge(stream, self.unread.pop(stream, 0), self.peer.now)
            if stream in self.complete:
                self.peer.respond(stream, b"thanks", finish=False)
                self.streams.remove(stream)


@pytest.mark.parametrize(("threads", "round_trip", "seconds"), [
    (1, 0.001, 30), (16, 0.001, 2), (100, 0.001, 2), (16, 0.05, 10), (100, 0.05, 10)])
@pytest.mark.uncovered
def test_a_hundred_uploads_by_httpcore(connect, threads, round_trip, seconds):
    peer = connect()
    client = Httpcore(peer, [200_000] * 100, threads, round_trip)
    assert client.run(100) < seconds
    assert client.pings < 200 * 100
    assert client.most_pending <= 9, "eight, and one for the round trip"
    peer.assert_alive()


def test_uploads_of_many_sizes_through_small_windows(connect):
    peer = connect(initial_window_size=20_000, connection_window_size=65_535)
    assert Httpcore(peer, [(number * 7919) % 150_000 for number in range(1, 60)], 3).run(60) < 60


def test_windows_that_do_not_grow_are_no_obstacle(connect):
    assert Httpcore(connect(max_window_size=0), [200_000] * 100, 16).run(60) < 60


def test_without_pings_these_uploads_would_stall(connect):
    """What the tests above are about is there."""
    assert Httpcore(connect(), [200_000] * 100, 16, notices_pings=False).run(1_000) == 1_000


# -- when there is a PING, and when not ------------------------------------------------------------------------------


@pytest.fixture
def open_uploads(connect):
    """A function that makes a connection with uploads whose windows were used up and are open again.

    Their clients have answered the PING for the round trip, after so many seconds.
    """
    def open_uploads(count=2, round_trip=0.0, **config):
        peer = connect(stream_timeout=10**6, connection_window_size=2**24, **config)
        streams = [peer.open(method=b"POST", end=False) for _ in range(count)]
        exhaust(peer, streams[0])
        peer.now += round_trip
        assert answer(peer) == 1
        for stream in streams[1:]:
            exhaust(peer, stream)
        assert answer(peer) == 0
        return peer, streams
    return open_uploads


def send(peer, stream, octets, end=False):
    """Send data, and have the application take it."""
    for position in range(0, octets, 16_000):
        size = min(16_000, octets - position)
        peer.send(data(stream.stream_id, bytes(size), end and position + size == octets))
    peer.core.acknowledge(stream, octets, peer.now)
    peer.collect()


def exhaust(peer, stream):
    """Use a stream's credit up; then have the application take all of it."""
    send(peer, stream, stream.receive_window.available)


def answer(peer):
    """Answer the PINGs that have come, each by itself; return how many there were."""
    pings = [payload for acknowledges, payload in peer.pings if not acknowledges]
    peer.take()
    for payload in pings:
        peer.now += 0.0001
        peer.core.receive_data(ping(payload, ack=True), peer.now)
    peer.collect()
    return len(pings)


def answer_all(peer, seconds=2):
    """For so long, answer every PING; return how many there were."""
    count, until = 0, peer.now + seconds
    while peer.now < until:
        count += answer(peer)
        if not peer.pings:
            peer.wait(0.001)
    return count


def test_bodies_that_stand_still_where_their_credit_ended_bring_a_ping(open_uploads):
    peer, _ = open_uploads()
    peer.wait(0.009)
    assert peer.pings == []
    peer.wait(0.012)
    assert len(peer.pings) >= 1
    peer.assert_alive()


def test_two_round_trips_are_waited_for(open_uploads):
    peer, _ = open_uploads(round_trip=0.2)
    # One of them has elapsed since the first stream was given its credit.
    peer.wait(0.2)
    assert peer.pings == []
    peer.wait(0.15)
    assert peer.pings != []


def test_not_before_the_round_trip_is_known(connect):
    peer = connect()
    for _ in range(2):
        exhaust(peer, peer.open(method=b"POST", end=False))
    assert len(peer.pings) == 1
    peer.wait(20)
    assert len(peer.pings) == 1
    answer(peer)
    peer.wait(0.05)
    assert len(peer.pings) == 0


@pytest.mark.parametrize("count", [1, 2, 20])
def test_every_task_of_the_client_has_a_turn_or_two_and_no_more(open_uploads, count):
    peer, _ = open_uploads(count)
    assert count < answer_all(peer) <= 2 * count + 10
    peer.wait(100)
    assert peer.pings == []


def test_answers_that_come_together_are_one_turn(open_uploads):
    """Then the client has read the PINGs together: one task has had its turn."""
    peer, _ = open_uploads(5, round_trip=0.05)
    count = 0
    for _ in range(50):
        peer.wait(0.05)
        pings = [payload for _, payload in peer.pings]
        peer.take()
        peer.send(*[ping(payload, ack=True) for payload in pings])
        count += len(pings)
    assert count > 5 * 8


def test_on_a_long_path_a_few_are_under_way_at_a_time(open_uploads):
    peer, _ = open_uploads(50, round_trip=1.0)
    peer.wait(5)
    assert len(peer.pings) == 8
    answer(peer)
    assert 1 <= len(peer.pings) <= 8


def test_data_begins_it_anew(open_uploads):
    peer, (first, second) = open_uploads()
    turns = answer_all(peer)
    send(peer, first, 10_000)
    assert turns <= answer_all(peer) <= turns + 8
    exhaust(peer, second)
    assert answer_all(peer) > 0


def test_a_client_that_does_not_answer_gets_a_few(open_uploads):
    peer, (first, second) = open_uploads()
    for _ in range(5):
        peer.wait(100)
        send(peer, first, 10_000)
        exhaust(peer, second)
    assert len([payload for _, payload in peer.pings if payload == b"go ahead"]) == 8


def test_the_first_ping_needs_silence(open_uploads):
    """Bodies that share a slow path wait for each other: one of them stands still, the connection does not."""
    peer, (first, _) = open_uploads()
    first.receive_window.grant(10**6)
    for _ in range(100):
        peer.wait(0.008)
        peer.send(data(first.stream_id, b"x"))
    assert peer.pings == []
    peer.wait(0.05)
    assert len(peer.pings) > 0


def test_once_there_was_a_stall_others_do_not_hide_the_next_one(open_uploads):
    peer, (first, second) = open_uploads()
    answer_all(peer)
    first.receive_window.grant(10**6)
    exhaust(peer, second)
    count = 0
    for _ in range(100):
        peer.wait(0.008)
        peer.send(data(first.stream_id, b"x"))
        count += answer(peer)
    assert count > 20


def test_once_there_was_a_stall_there_is_credit_for_the_rest_of_a_body(open_uploads):
    peer, _ = open_uploads(request_buffer_size=0)
    answer_all(peer)
    known = peer.open((b"content-length", b"1000000"), method=b"POST", end=False)
    unknown = peer.open(method=b"POST", end=False)
    for stream in (known, unknown):
        send(peer, stream, 60_000)
    assert known.receive_window.available == 940_000
    assert unknown.receive_window.available < 300_000
    send(peer, known, 900_000)
    assert known.receive_window.size < 1_100_000


def test_bodies_that_flow_bring_none(open_uploads):
    peer, streams = open_uploads()
    for _ in range(300):
        for stream in streams:
            exhaust(peer, stream)
        peer.wait(0.009)
        assert answer(peer) <= 1, "one where a window grows"


def test_a_body_that_stands_still_elsewhere_brings_none(open_uploads):
    """Its client has nothing to send at the moment: its credit ended at another place."""
    peer, streams = open_uploads()
    for _ in range(20):
        for stream in streams:
            send(peer, stream, 500)
        peer.wait(10)
    assert peer.pings == []


def test_where_the_connection_stopped_them_all_bodies_may_stand_still_anywhere(connect):
    peer = connect(connection_window_size=65_535, initial_window_size=200_000, idle_timeout=100)
    first, second = peer.open(method=b"POST", end=False), peer.open(method=b"POST", end=False)
    send(peer, first, 30_000)
    send(peer, second, 35_535)
    answer(peer)
    send(peer, first, 10_000)
    assert answer_all(peer) > 0
    for stream in (first, second):
        send(peer, stream, 100, end=True)
        peer.respond(stream, b"thanks")
    peer.wait(2)
    third = peer.open(method=b"POST", end=False)
    send(peer, third, 500)
    peer.wait(2)
    send(peer, third, 500)
    assert answer_all(peer) == 0, "those that it has stopped are gone"


@pytest.mark.parametrize("end", ["complete", "answered", "reset by the client", "reset"])
def test_bodies_that_have_ended_are_not_waited_for(open_uploads, end):
    peer, streams = open_uploads()
    for stream in streams:
        if end == "complete":
            peer.send(data(stream.stream_id, end=True))
        elif end == "answered":
            peer.respond(stream, b"enough")
        elif end == "reset":
            peer.core.reset(stream, 8)
        else:
            peer.send(rst_stream(stream.stream_id))
    peer.wait(5)
    assert peer.pings == []


def test_bodies_that_nobody_reads_have_no_credit_to_use(open_uploads):
    peer, streams = open_uploads()
    for stream in streams:
        for _ in range(stream.receive_window.available // 16_384 + 1):
            peer.send(data(stream.stream_id, bytes(min(16_384, stream.receive_window.available))))
        assert stream.receive_window.available == 0
    peer.wait(5)
    assert peer.pings == []


def test_no_ping_behind_a_goaway(open_uploads):
    peer, _ = open_uploads(drain_timeout=0.001, idle_timeout=100)
    peer.core.shutdown(peer.now)
    peer.wait(0.001)
    peer.take()
    peer.wait(5)
    assert peer.pings == []


def test_an_answer_that_nobody_waits_for_is_ignored(open_uploads):
    peer, _ = open_uploads()
    peer.send(ping(b"go ahead", ack=True))
    peer.wait(0.05)
    assert len(peer.pings) > 0


def test_nothing_is_left_to_wait_for_at_the_end(open_uploads):
    peer, streams = open_uploads(idle_timeout=50)
    answer_all(peer)
    for stream in streams:
        peer.send(data(stream.stream_id, end=True))
        peer.respond(stream, b"thanks")
    peer.wait(2)
    assert peer.core.next_deadline() > peer.now + 40
