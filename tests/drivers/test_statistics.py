"""What drivers tell of their connections: how many there are now of what, and what there has been."""

import socket

import pytest

from gunicorn_h2.drivers.histogram import Histogram, QueueProbe
from gunicorn_h2.drivers.transport import Transport
from tests.support.h2client import CANCEL, PING, raw_frame

from .asyncio_wire import tcp_pair
from .every_driver import DRIVERS, AnyDriver
from .rig import TIMEOUT

INITIAL_WINDOW_SIZE = 4


@pytest.fixture(params=DRIVERS)
def any_driver(request, certs):
    """A rig of each driver."""
    rig = AnyDriver(request.param, certs)
    yield rig
    rig.close()


def gauges(any_driver):
    """What the driver tells, in its owner's turn."""
    return any_driver.call(any_driver.driver.gauges)


def test_an_idle_driver(any_driver):
    found = gauges(any_driver)
    assert not any(value for name, value in found.items() if not name.startswith("threads/"))
    assert sum(any_driver.driver.round_trips.counts) == 0


def test_connections_and_streams(any_driver):
    first, second = any_driver.client(), any_driver.client(tls=True)
    silent = any_driver.open(tls=True)
    for _ in range(3):
        first.request(path="/work")
    second.request(path="/work")
    for _ in range(4):
        assert any_driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    found = gauges(any_driver)
    assert (found["connections/h2"], found["connections/negotiating"], found["streams"]) == (2, 1, 4)
    assert any_driver.driver.connections_begun == 2
    assert any_driver.rig.requests == 4
    silent.close()
    any_driver.routes.release()
    for _ in range(4):
        assert any_driver.routes.result() is None


def test_streams_that_wait_for_a_window(any_driver):
    client = any_driver.client(settings={INITIAL_WINDOW_SIZE: 1000}, auto_window=False)
    stream = client.request(path="/" + "x" * 4000)
    client.wait_for(lambda: len(stream.body) == 1000, "a window full of data")
    found = gauges(any_driver)
    assert (found["blocked/streams"], found["blocked/connections"], found["streams"]) == (1, 0, 1)
    assert found["octets/buffered"] == 3001
    client.reset(stream, CANCEL)
    client.ping()
    assert gauges(any_driver)["blocked/streams"] == 0
    assert any_driver.driver.counts.resets_received == {"cancel": 1}


def test_a_connection_whose_own_window_is_used_up(any_driver):
    client = any_driver.client(settings={INITIAL_WINDOW_SIZE: 2**20}, auto_window=False)
    streams = [client.request(path="/" + "x" * 9999) for _ in range(7)]
    client.wait_for(lambda: sum(len(stream.body) for stream in streams) == 65_535, "a window full of data")
    for _ in streams:
        assert any_driver.routes.result() is None
    found = gauges(any_driver)
    assert (found["blocked/streams"], found["blocked/connections"]) == (1, 1)
    assert found["octets/buffered"] == 70_000 - 65_535


def test_budgets_by_what_there_was_too_much_of(any_driver):
    client = any_driver.client()
    client.flood(raw_frame(PING, payload=b"12345678") for _ in range(100_000))
    client.wait_closed()
    closings = any_driver.driver.closings
    assert closings.budgets.counts == {"too_many_control_frames": 1}
    assert closings.counts == {"enhance_your_calm": 1}
    assert any_driver.driver.counts.goaways_sent == {"enhance_your_calm": 1}


def test_refused_requests(any_driver):
    client = any_driver.client()
    refused = client.send_fields([(":method", "GET"), (":scheme", "https"), (":path", "no-slash"),
                                  (":authority", "localhost")])
    client.response(refused)
    client.get("/")
    assert (any_driver.driver.counts.refused, any_driver.rig.requests) == (1, 1)


def test_the_queue_is_probed_by_what_waits_in_it(any_driver):
    """The probe counts the time for which it came late. With a thread of the pool in the lead, it is an estimate."""
    probe = QueueProbe()
    any_driver.call(lambda: any_driver.driver.probe_queue(probe, 0.2))
    client = any_driver.client()
    # It waits for no longer than requests that come after it.
    client.get("/")
    client.wait_for(lambda: sum(probe.histogram.counts) or client.ping(), "the end of the probe")
    assert sum(probe.histogram.counts) == 1
    assert probe.wait() >= 0.2 or any_driver.driver.load().get("threads/all")


# -- histograms, probes, round trips -----------------------------------------------------------------------------------


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


def test_buckets_hold_what_is_not_greater_than_their_bounds():
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.0, 0.5, 0.75, 1.0, 2.0, 64.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2]
    assert histogram.counters("wait") == {"wait/0.5": 2, "wait/1": 2, "wait/+Inf": 2, "wait/sum": 68.25}


def test_one_call_waits_at_a_time():
    clock, calls = Clock(), []
    probe = QueueProbe(clock)
    assert probe.wait() == 0
    probe.start(0.25, calls.append)
    clock.now += 1
    probe.start(0.0, calls.append)
    assert len(calls) == 1
    assert probe.wait() == 1.25
    clock.now += 1
    calls.pop()()
    assert (probe.wait(), probe.histogram.sum) == (2.25, 2.25)
    probe.start(0.0, calls.append)
    clock.now += 0.5
    assert probe.wait() == 2.25
    calls.pop()()
    assert (probe.wait(), probe.histogram.sum) == (0.5, 2.75)


def test_the_round_trip_of_tcp():
    ours, theirs = tcp_pair()
    transport = Transport(ours)
    try:
        transport.send(b"ping")
        theirs.recv(4)
        theirs.send(b"pong")
        assert 0 < transport.round_trip() < TIMEOUT
    finally:
        transport.close()
        theirs.close()
    assert transport.round_trip() is None


def test_a_unix_socket_has_none():
    ours, theirs = socket.socketpair()
    transport = Transport(ours)
    assert transport.round_trip() is None
    transport.close()
    theirs.close()
