"""The queue of what takes long: it has a share of the time, and everyone in it a turn."""

from gunicorn_h2.drivers.slow_lane import SlowLane

from .test_closings import Clock


class Rig:
    """A lane whose turns take as long as the test says."""

    def __init__(self, seconds):
        self.clock, self.seconds, self.turns = Clock(), seconds, []
        self.lane = SlowLane(self._take_turn, self.clock)

    def _take_turn(self, item):
        self.turns.append(item)
        self.clock.now += self.seconds

    def run(self):
        """A round of the owner; return its turns."""
        self.turns.clear()
        self.lane.run()
        return list(self.turns)


def test_a_round_takes_no_longer_than_a_slice():
    rig = Rig(1 / 1024)
    rig.lane.served_at = rig.clock.now
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
    rig.lane.served_at = rig.clock.now
    assert rig.run() == list(range(103, 108))
    rig.clock.now += 2.1
    assert rig.run() == list(range(108, 211))


def test_what_takes_longer_than_a_slice_has_a_turn_all_the_same():
    rig = Rig(0.01)
    rig.lane.served_at = rig.clock.now
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
