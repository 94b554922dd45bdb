"""Counting and logging the connections that the server ends: what an attack does to the log, and what statsd hears."""

import pytest

from gunicorn_h2.drivers.closings import Closings, Tally

from .rig import Log


class Clock:
    """A clock that the test moves."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return Log()


def test_the_first_of_a_second_have_a_line_each_and_the_others_one_together(log, clock):
    closings = Closings(log, clock=clock)
    for number in range(8):
        closings.warn("enhance_your_calm", "closed %d", number)
    closings.warn("protocol_error", "closed %d", 8)
    assert log.warnings == [f"closed {number}" for number in range(5)]
    closings.report()
    assert len(log.warnings) == 5
    clock.now += 1
    closings.report()
    assert log.warnings[5:] == ["4 more connections closed: 3 enhance_your_calm, 1 protocol_error"]
    closings.report()
    closings.warn("protocol_error", "closed %d", 9)
    assert log.warnings[6:] == ["closed 9"]
    assert closings.counts == {"enhance_your_calm": 8, "protocol_error": 2}


def test_the_summary_comes_before_the_first_line_of_the_next_second(log, clock):
    closings = Closings(log, clock=clock)
    for number in range(6):
        closings.warn("enhance_your_calm", "closed %d", number)
    clock.now += 1.5
    closings.warn("enhance_your_calm", "closed %d", 6)
    assert log.warnings[5:] == ["1 more connections closed: 1 enhance_your_calm", "closed 6"]


def test_what_is_only_counted_has_no_line(log, clock):
    closings = Closings(log, clock=clock)
    closings.count("made_room")
    clock.now += 1
    closings.report()
    assert closings.counts == {"made_room": 1}
    assert log.warnings == []


def test_information_comes_once_a_second(log, clock):
    closings = Closings(log, clock=clock)
    for number in range(3):
        closings.inform("%d make room", number)
    clock.now += 1
    closings.inform("%d make room", 3)
    assert log.infos == ["0 make room", "3 make room"]


def test_statsd_hears_of_what_is_new_since_the_last_report(log, clock):
    told = []
    closings = Closings(log, lambda name, count: told.append((name, count)), clock)
    closings.report()
    for _ in range(7):
        closings.count("handshake_failed")
    closings.warn("enhance_your_calm", "closed")
    closings.report()
    closings.report()
    closings.count("handshake_failed")
    closings.report()
    assert told == [
        ("gunicorn.h2.closed.handshake_failed", 7), ("gunicorn.h2.closed.enhance_your_calm", 1),
        ("gunicorn.h2.closed.handshake_failed", 1),
    ]


def test_streams_have_a_tally_of_their_own(log, clock):
    """Its lines and its sum do not take the place of those of connections."""
    told = []
    closings = Closings(log, lambda name, count: told.append((name, count)), clock)
    assert type(closings.resets) is Tally
    for number in range(7):
        closings.resets.warn("read_rate", "reset %d", number)
        closings.warn("protocol_error", "closed %d", number)
    assert log.warnings == [f"{what} {number}" for number in range(5) for what in ("reset", "closed")]
    closings.resets.count("too_many_streams")
    clock.now += 1
    closings.report()
    assert log.warnings[10:] == ["2 more connections closed: 2 protocol_error", "2 more streams reset: 2 read_rate"]
    assert closings.counts == {"protocol_error": 7}
    assert closings.resets.counts == {"read_rate": 7, "too_many_streams": 1}
    assert told == [
        ("gunicorn.h2.closed.protocol_error", 7), ("gunicorn.h2.reset.read_rate", 7),
        ("gunicorn.h2.reset.too_many_streams", 1),
    ]
