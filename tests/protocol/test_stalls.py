"""Bodies that have credit and stand still: PINGs pass the turn to read on, where a client's tasks take turns."""

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

    def __init__(self, peer, sizes, threads, notices_pings=True):
        self.peer, self.notices_pings = peer, notices_pings
        self.server = Server(peer, threads)
        self.inbox, self.lock = [], deque()
        self.credit = {0: peer.config.connection_window_size}
        self.left, self.responded, self.done, self.pings = {}, set(), set(), 0
        for size in sizes:
            stream = peer.open(method=b"POST", end=False)
            self.left[stream.stream_id] = size
            self.credit[stream.stream_id] = peer.config.initial_window_size
        for stream_id in self.left:
            self.lock.append(stream_id)
            self.go_on(stream_id)
            self.lock.remove(stream_id)

    def run(self, patience):
        """Go on until every task is done or nothing has come for so long; return whether all are done."""
        waited = 0
        while len(self.done) < len(self.left) and waited < patience:
            self.hear()
            if not self.take_turn():
                self.peer.wait(0.001)
                waited += 0.001
            else:
                waited = 0
        return len(self.done) == len(self.left)

    def take_turn(self):
        """Let the task go on that has the lock; return whether it could."""
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
            self.peer.send(ping(frame.opaque_data, ack=True))

    def go_on(self, stream_id):
        """Send as much as there is credit for; then wait for the lock."""
        while self.left[stream_id]:
            size = min(self.left[stream_id], self.credit[0], self.credit[stream_id], 16_384)
            if not size:
                break
            self.credit[0] -= size
            self.credit[stream_id] -= size
            self.left[stream_id] -= size
            self.peer.send(data(stream_id, bytes(size)))
            if not self.left[stream_id]:
                self.peer.send(data(stream_id, end=True))
            self.hear()
        self.lock.append(stream_id)

    def hear(self):
        """Let the server act, and what it sends arrive."""
        self.server.act()
        for frame in self.peer.collect().take():
            is_ping = isinstance(frame, PingFrame)
            self.pings += is_ping
            if not is_ping or self.notices_pings:
                self.inbox.append(frame)


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
            elif isinstance(event, DataReceived):
                self.unread[event.stream] += len(event.data)
                if event.end_stream:
                    self.complete.add(event.stream)
        for stream in self.streams[:self.threads]:
            self.peer.core.acknowledge(stream, self.unread.pop(stream, 0), self.peer.now)
            if stream in self.complete:
                self.peer.respond(stream, b"thanks", finish=False)
                self.streams.remove(stream)


@pytest.mark.parametrize("threads", [1, 16, 100])
def test_a_hundred_uploads_by_httpcore(connect, threads):
    peer = connect()
    client = Httpcore(peer, [200_000] * 100, threads)
    assert client.run(patience=5)
    assert client.pings < 10_000
    peer.assert_alive()


def test_uploads_of_many_sizes_through_small_windows(connect):
    peer = connect(initial_window_size=20_000, connection_window_size=65_535)
    assert Httpcore(peer, [(number * 7919) % 150_000 for number in range(1, 60)], 3).run(patience=5)


def test_windows_that_do_not_grow_are_no_obstacle(connect):
    assert Httpcore(connect(max_window_size=0), [200_000] * 100, 16).run(patience=5)


def test_without_pings_these_uploads_would_stall(connect):
    """What the tests above are about is there."""
    assert not Httpcore(connect(), [200_000] * 100, 16, notices_pings=False).run(patience=15)


# -- when there is a PING, and when not ------------------------------------------------------------------------------


@pytest.fixture
def open_uploads(connect):
    """A function that makes a connection with uploads whose windows were used up and are open again.

    Their clients have answered the PING for the round trip, after so many seconds.
    """
    def open_uploads(count=2, round_trip=0.0, **config):
        peer = connect(stream_timeout=10**6, **config)
        streams = [peer.open(method=b"POST", end=False) for _ in range(count)]
        for stream in streams:
            exhaust(peer, stream)
        peer.now += round_trip
        answer(peer)
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
    """Answer the PING that has come, if any; return whether there was one."""
    pings = [payload for acknowledges, payload in peer.pings if not acknowledges]
    peer.take()
    assert len(pings) <= 1
    for payload in pings:
        peer.send(ping(payload, ack=True))
    return bool(pings)


def answer_all(peer):
    """Answer PINGs until no other one follows; return how many there were."""
    count = 0
    while answer(peer):
        count += 1
    return count


def test_bodies_that_stand_still_where_their_credit_ended_bring_a_ping(open_uploads):
    peer, _ = open_uploads()
    peer.wait(0.009)
    assert peer.pings == []
    peer.wait(0.002)
    assert len(peer.pings) == 1
    peer.assert_alive()


def test_on_a_long_path_the_round_trip_is_waited_for(open_uploads):
    peer, _ = open_uploads(round_trip=0.2)
    peer.wait(0.4)
    assert peer.pings == []
    peer.wait(0.011)
    assert len(peer.pings) == 1


@pytest.mark.parametrize("count", [1, 2, 20])
def test_every_task_of_the_client_has_a_turn_or_two_and_no_more(open_uploads, count):
    peer, _ = open_uploads(count)
    peer.wait(0.011)
    assert count < answer_all(peer) <= 2 * count + 2
    peer.wait(100)
    assert peer.pings == []


def test_data_begins_it_anew(open_uploads):
    peer, (first, second) = open_uploads()
    peer.wait(0.011)
    turns = answer_all(peer)
    send(peer, first, 10_000)
    peer.wait(1.1)
    assert answer_all(peer) == turns
    exhaust(peer, second)
    peer.wait(0.011)
    assert answer_all(peer) > 0


def test_an_answer_behind_data_brings_no_other_ping_at_once(open_uploads):
    peer, (first, _) = open_uploads()
    peer.wait(0.011)
    ((_, payload),) = peer.pings
    peer.take()
    peer.send(data(first.stream_id, b"more"), ping(payload, ack=True))
    assert peer.pings == []
    peer.wait(0.011)
    assert len(peer.pings) == 1


def test_a_client_that_does_not_answer_gets_no_other_ping(open_uploads):
    peer, (first, second) = open_uploads()
    peer.wait(100)
    send(peer, first, 10_000)
    exhaust(peer, second)
    peer.wait(100)
    assert len(peer.pings) == 1


def test_bodies_that_flow_bring_none(open_uploads):
    peer, streams = open_uploads()
    for _ in range(300):
        for stream in streams:
            exhaust(peer, stream)
        peer.wait(0.009)
        assert len(peer.pings) <= 1, "one where a window grows"
        answer(peer)


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
    answer_all(peer)
    send(peer, first, 10_000)
    peer.wait(0.022)
    assert answer_all(peer) > 0
    for stream in (first, second):
        send(peer, stream, 100, end=True)
        peer.respond(stream, b"thanks")
    peer.wait(2)
    third = peer.open(method=b"POST", end=False)
    send(peer, third, 500)
    peer.wait(2)
    send(peer, third, 500)
    peer.wait(2)
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


def test_bodies_that_nobody_reads_have_no_credit_to_use(connect):
    peer = connect()
    for stream_id in (1, 3):
        peer.open(method=b"POST", end=False)
        peer.send(*[data(stream_id, bytes(16_383))] * 4)
    peer.wait(5)
    assert peer.pings == []


def test_no_ping_behind_a_goaway(open_uploads):
    peer, _ = open_uploads(drain_timeout=0.01, idle_timeout=100)
    peer.core.shutdown(peer.now)
    peer.wait(0.01)
    peer.take()
    peer.wait(5)
    assert peer.pings == []


def test_nothing_is_left_to_wait_for_at_the_end(open_uploads):
    peer, streams = open_uploads(idle_timeout=50)
    peer.wait(0.011)
    answer_all(peer)
    for stream in streams:
        peer.send(data(stream.stream_id, end=True))
        peer.respond(stream, b"thanks")
    peer.wait(2)
    assert peer.core.next_deadline() > peer.now + 40
