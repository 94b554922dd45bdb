"""The queue of what takes long: it has a share of the time, and everyone in it a turn."""

import pytest

from gunicorn_h2.drivers.slow_lane import LONG_TURN, RECENT, Paced, SlowLane

from .test_closings import Clock


class Rig:
    """A lane whose turns take as long as the test says."""

    def __init__(self, seconds):
        self.clock, self.seconds, self.turns = Clock(), seconds, []
        self.lane = SlowLane(self._take_turn, self.clock)

    def _take_turn(self, item):
        self.turns.append(item)
        self.clock.now += self.seconds

    def run(self, requests_wait=False):
        """A round of the owner; return its turns."""
        self.turns.clear()
        self.lane.run(requests_wait)
        return list(self.turns)

    def serve_others(self, seconds=0.0):
        """Others are served."""
        self.clock.now += seconds
        self.lane.served_at = self.clock.now

    def served_others(self):
        """Others were served a moment ago, and none is ready now."""
        self.serve_others()
        self.run()


def test_a_round_takes_no_longer_than_a_slice():
    rig = Rig(1 / 1024)
    rig.served_others()
    for item in range(12):
        rig.lane.queue.append(item)
    assert rig.run() == [0, 1, 2, 3, 4]
    assert rig.run() == [5, 6, 7, 8, 9]
    assert len(rig.lane.queue) == 2
    assert rig.run() == [10, 11]
    assert not rig.lane.queue


def test_rounds_are_longer_where_only_new_connections_are_served():
    rig = Rig(1 / 1024)
    for item in range(300):
        rig.lane.queue.append(item)
    assert rig.run() == list(range(103))
    rig.lane.served_at = rig.clock.now - 1.0
    assert rig.run() == list(range(103, 108))
    rig.clock.now += 2.1
    assert rig.run() == list(range(108, 211))


def test_what_takes_longer_than_a_slice_has_a_turn_all_the_same():
    rig = Rig(0.01)
    rig.served_others()
    rig.lane.queue.append("a")
    rig.lane.queue.append("b")
    assert rig.run() == ["a"]
    rig.lane.queue.append("a")
    assert rig.run() == ["b"]
    assert rig.run() == ["a"]


def test_what_is_added_in_a_round_waits_for_the_next_one():
    rig = Rig(0.0)
    rig.lane = SlowLane(lambda item: rig.turns.append(item) or rig.lane.queue.append(item), rig.clock)
    rig.lane.queue.append("a")
    assert rig.run() == ["a"]
    assert rig.run() == ["a"]


def test_a_queue_that_others_empty_meanwhile():
    rig = Rig(0.0)
    rig.lane = SlowLane(lambda item: rig.turns.append(item) or rig.lane.queue.clear(), rig.clock)
    rig.lane.queue.append("a")
    rig.lane.queue.append("b")
    assert rig.run() == ["a"]


def test_while_others_are_served_there_is_a_short_round_now_and_then():
    rig = Rig(1 / 1024)
    rig.lane.queue.extend(range(20))
    rounds = []
    for _ in range(24):
        rig.serve_others(1 / 1024)
        rounds.append(len(rig.run()))
    # Of the time of a round, and of three milliseconds of the others.
    assert rounds == [2, 0, 0, 0] * 6
    assert rig.run() == list(range(12, 17)), "nothing else is ready"


def test_while_requests_wait_there_is_a_short_round_now_and_then():
    rig = Rig(1 / 1024)
    rig.lane.queue.extend(range(20))
    rig.served_others()
    assert rig.run() == list(range(2, 7))
    assert rig.run(requests_wait=True) == []
    rig.clock.now = rig.lane.due
    assert rig.run(requests_wait=True) == [7, 8]


def test_where_only_newcomers_are_served_their_requests_delay_no_handshake():
    rig = Rig(1 / 1024)
    rig.lane.queue.extend(range(60))
    assert rig.run(requests_wait=True) == list(range(60))


def test_a_connection_leaves_the_lane_with_its_first_short_turn():
    connection = Paced()
    assert connection.slow
    connection.note_slow_turn(LONG_TURN / 2, 1.0)
    assert not connection.slow


def test_a_connection_that_had_a_long_turn_stays_for_a_while():
    connection = Paced()
    connection.note_slow_turn(LONG_TURN * 2, 1.0)
    connection.note_slow_turn(LONG_TURN / 2, 1.09)
    assert connection.slow
    connection.note_slow_turn(LONG_TURN / 2, 1.11)
    assert not connection.slow


class Opened:
    """A lane, and the connections that leave it when they are open."""

    def __init__(self):
        self.clock = Clock()
        self.lane = SlowLane(lambda item: None, self.clock)

    def open(self, number, every=0.001):
        """Open so many connections, one `every` few seconds; return the last."""
        for _ in range(number):
            connection = Paced()
            self.lane.leave(connection)
            self.clock.now += every
        return connection


def test_an_open_connection_leaves_the_lane():
    assert not Opened().open(199).slow


def test_one_of_a_crowd_stays_while_it_is_new():
    opened = Opened()
    connection = opened.open(200)
    assert connection.slow
    connection.note_slow_turn(LONG_TURN / 2, opened.clock.now)
    assert connection.slow
    connection.note_slow_turn(LONG_TURN * 2, opened.clock.now)
    connection.note_slow_turn(LONG_TURN / 2, opened.clock.now + RECENT / 2)
    assert connection.slow
    connection.note_slow_turn(LONG_TURN / 2, opened.clock.now + RECENT)
    assert not connection.slow


def test_a_long_turn_counts_even_at_the_end_of_that_time():
    connection = Paced()
    connection.stay(2.0)
    connection.note_slow_turn(LONG_TURN * 2, 1.99)
    connection.note_slow_turn(LONG_TURN / 2, 2.01)
    assert connection.slow


@pytest.mark.parametrize("crowd", [False, True])
def test_a_lane_is_long_while_many_new_connections_wait(crowd):
    """Others keep no newcomer out, however many they are and whatever they ask for."""
    opened, waiting = Opened(), [Paced() for _ in range(64)]
    opened.lane.queue.extend(waiting[:63])
    assert not opened.lane.is_long
    opened.lane.queue.append(waiting[63])
    assert opened.lane.is_long
    opened.open(200 if crowd else 1)
    opened.lane.leave(waiting[0])
    # One of a crowd is new until it has had a turn.
    assert opened.lane.is_long == crowd
    waiting[0].enter_lane()
    waiting[0].note_slow_turn(LONG_TURN * 2, opened.clock.now)
    assert waiting[0].slow
    assert not opened.lane.is_long


def test_those_that_come_over_a_longer_time_are_no_crowd():
    assert not Opened().open(1000, every=RECENT / 199).slow
    assert Opened().open(1000, every=RECENT / 201).slow
