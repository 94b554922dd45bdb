"""What a worker reports, and how the reports of several, one after another and side by side, add up."""

import json
import os
import threading
import time

import pytest
from gunicorn.config import Config

from gunicorn_h2.drivers.histogram import QUEUE_BOUNDS
from gunicorn_h2.status.figures import NotServing, figures
from gunicorn_h2.workers import reports
from gunicorn_h2.workers.board import Board
from gunicorn_h2.workers.reports import Reporter
from tests.drivers.every_driver import AnyDriver
from tests.drivers.rig import TIMEOUT
from tests.support.h2client import CANCEL

INITIAL_WINDOW_SIZE = 4


class Log:
    """Gunicorn's logger with statsd."""

    def __init__(self):
        self.increments, self.errors = [], []

    def error(self, text, *arguments):
        """Keep an error."""
        self.errors.append(text % arguments)

    def increment(self, name, value):
        """Keep an increment."""
        self.increments.append((name, value))

    def take(self):
        """Return what statsd was told, by name, and forget it."""
        told, self.increments = dict(self.increments), []
        return told


class StandInWorker:
    """What a reporter asks of a worker."""

    def __init__(self, driver, log):
        self.cfg, self.log, self.admission, self.pid = Config(), log, driver.admission, "[booting]"
        self.age, self.nr, self.http2_requests, self.http1_connections, self.open_connections = 1, 0, 0, 0, 0


@pytest.fixture(autouse=True)
def no_worker():
    """This process is no worker, before and after a test."""
    before = reports._current
    reports._current = None
    yield
    reports._current = before


@pytest.fixture
def any_driver(certs):
    """A driver with clients."""
    rig = AnyDriver("threads", certs)
    yield rig
    rig.close()


@pytest.fixture
def board():
    return Board(slots=4)


@pytest.fixture
def make(any_driver, board):
    """A function that makes a worker with its reporter and its slot."""
    workers = []

    def make(log=None):
        worker = StandInWorker(any_driver.driver, log)
        workers.append(worker)
        worker.slot = board.take(worker)
        worker.reporter = Reporter(worker, board, worker.slot)
        return worker

    return make


def report(worker, any_driver):
    """Have a worker report, as soon as it may."""
    worker.reporter._next = 0.0
    any_driver.call(lambda: worker.reporter.report(any_driver.driver))


def test_a_process_that_is_no_worker():
    with pytest.raises(NotServing, match="not a worker of gunicorn_h2"):
        figures()


def test_a_worker_that_has_not_reported(make):
    make()
    found = figures()
    assert (found["workers"], found["gauges"]) == ([], {})
    assert found["counters"]["closed"] == {}


def test_what_clients_do_is_told(any_driver, make):
    worker = make()
    client = any_driver.client()
    client.get("/")
    client.reset(client.request(path="/work"), CANCEL)
    client.ping()
    worker.nr, worker.http2_requests, worker.http1_connections, worker.open_connections = 5, 2, 3, 4
    report(worker, any_driver)
    found = figures()
    counters = found["counters"]
    assert counters["requests"] == {"h2": 2, "h1": 3}
    assert counters["connections"] == {"h2": 1, "h1": 3}
    assert counters["resets_received"] == {"cancel": 1}
    assert counters["octets"]["received"] > 0 < counters["octets"]["sent"]
    assert found["gauges"]["connections"] == {"h2": 1, "h1": 3, "negotiating": 0}
    (told,) = found["workers"]
    assert (told["pid"], told["requests"], told["responsive"]) == (os.getpid(), 5, True)
    assert told["gauges"] == found["gauges"]
    assert found["gauges"]["memory"] > 1_000_000
    any_driver.routes.release()
    assert found["master"] == os.getpid()
    assert json.loads(json.dumps(found)) == found


def test_the_counters_of_a_worker_stay_when_another_follows(any_driver, board, make):
    worker = make()
    any_driver.client().get("/")
    worker.nr = worker.http2_requests = 10
    report(worker, any_driver)
    worker.reporter.close()
    found = figures()
    assert found["workers"] == []
    assert found["gauges"] == {}
    assert found["counters"]["requests"] == {"h2": 10, "h1": 0}
    slot = worker.slot
    worker.pid = gone()
    second = make()
    assert second.slot is slot
    assert figures()["counters"]["requests"] == {"h2": 10, "h1": 0}
    second.nr = second.http2_requests = 3
    report(second, any_driver)
    assert figures()["counters"]["requests"] == {"h2": 13, "h1": 0}
    assert figures()["workers"][0]["requests"] == 3


def gone():
    """The number of a process that there is no more."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_worker_that_was_killed_has_counters_but_nothing_now(any_driver, board, make):
    """It could not say goodbye: its slot still says what it had open."""
    worker, other = make(), make()
    any_driver.client().get("/")
    worker.nr = worker.http2_requests = 7
    report(worker, any_driver)
    text = json.loads(worker.slot.read())
    worker.slot.write(json.dumps({**text, "pid": gone()}).encode())
    other.nr = other.http2_requests = 1
    report(other, any_driver)
    found = figures()
    assert found["counters"]["requests"] == {"h2": 8, "h1": 0}
    assert found["gauges"]["connections"]["h2"] == 1
    assert [worker["pid"] for worker in found["workers"]] == [os.getpid()]


def test_a_worker_without_a_slot_reports_to_statsd_alone(any_driver, make):
    log = Log()
    for _ in range(4):
        make()
    fifth = make(log)
    assert fifth.slot is None
    any_driver.client().get("/")
    report(fifth, any_driver)
    fifth.reporter.close()
    assert log.take()["gunicorn.h2.connections.h2"] == 1
    assert figures()["counters"].get("connections") is None


def test_a_worker_that_ends_before_it_has_served(make, board):
    make().reporter.close()
    assert list(board.read()) == []


def test_statsd_hears_what_is_new(any_driver, make):
    log = Log()
    worker = make(log)
    client = any_driver.client()
    client.get("/")
    worker.nr = worker.http2_requests = 2
    report(worker, any_driver)
    told = log.take()
    assert told["gunicorn.h2.requests.h2"] == 2
    assert told["gunicorn.h2.connections.h2"] == 1
    assert told["gunicorn.h2.octets.sent"] == any_driver.driver.counts.octets_sent
    assert all(type(value) is int and value > 0 for value in told.values())
    assert not any(part in name for name in told for part in ("queue", "rtt", "cpu", "closed"))
    report(worker, any_driver)
    assert log.take() == {}
    client.reset(client.request(path="/work"), CANCEL)
    client.ping()
    worker.reporter.close()
    told = log.take()
    assert told["gunicorn.h2.resets_received.cancel"] == 1
    assert "gunicorn.h2.connections.h2" not in told
    any_driver.routes.release()


def test_a_report_a_second(any_driver, make):
    worker = make()
    any_driver.call(lambda: worker.reporter.report(any_driver.driver))
    first = worker.slot.read()
    any_driver.call(lambda: worker.reporter.report(any_driver.driver))
    assert worker.slot.read() == first
    report(worker, any_driver)
    assert worker.slot.read() != first


def test_reports_that_take_long_become_rarer(any_driver, make):
    """A part in 200 of the time, however many connections there are to look at."""
    worker, gauges = make(), any_driver.driver.gauges

    def look_for_long():
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
        return gauges()

    any_driver.driver.gauges = look_for_long
    began = time.monotonic()
    report(worker, any_driver)
    ended = time.monotonic()
    assert began + 200 * 0.02 < worker.reporter._next <= ended + 200 * (ended - began)
    first = worker.slot.read()
    any_driver.call(lambda: worker.reporter.report(any_driver.driver))
    assert worker.slot.read() == first


def test_a_client_that_shuts_its_window(any_driver, make):
    """The octets that wait are those beyond the window that it has announced."""
    worker = make()
    client = any_driver.client(settings={INITIAL_WINDOW_SIZE: 1_000}, auto_window=False)
    stream = client.request(path="/" + "x" * 3_999)
    client.wait_for(lambda: len(stream.body) == 1_000, "a window full of data")
    report(worker, any_driver)
    gauges = figures()["gauges"]
    assert (gauges["streams"], gauges["blocked"]) == (1, {"streams": 1, "connections": 0})
    assert gauges["octets"] == {"buffered": 3_000, "spooled": 0, "windows": 0}
    client.grant(2_500, stream)
    client.wait_for(lambda: len(stream.body) == 3_500, "another window full")
    report(worker, any_driver)
    assert figures()["gauges"]["octets"]["buffered"] == 500


def test_requests_that_wait_for_a_thread(any_driver, make):
    """All threads are busy; so a request would have waited for as long as they are."""
    worker, client = make(), any_driver.client()
    report(worker, any_driver)
    threads = figures()["gauges"]["threads"]["all"]
    for _ in range(threads):
        client.request(path="/work")
    for _ in range(threads):
        assert any_driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    report(worker, any_driver)
    began = time.monotonic()
    client.request(path="/work")
    client.ping()
    threading.Event().wait(0.2)
    report(worker, any_driver)
    waited = time.monotonic() - began
    found = figures()
    assert (found["gauges"]["queued"], found["gauges"]["threads"]["busy"]) == (1, threads)
    assert found["workers"][0]["queue_seconds"] >= 0.2
    any_driver.routes.release()
    for _ in range(threads + 1):
        assert any_driver.routes.result() is None
    client.ping()
    report(worker, any_driver)
    times = figures()["histograms"]["queue_seconds"]
    assert waited <= times["sum"] < waited + TIMEOUT
    assert sum(count for bound, count in zip(times["bounds"], times["counts"], strict=True) if not bound or bound > 0.2)


def test_the_largest_report_fits(any_driver, make):
    """Every counter that there can be, each as large as it can become."""
    worker, driver = make(), any_driver.driver
    for counter in (driver.counts.resets_received, driver.counts.resets_sent, driver.counts.goaways_received,
                    driver.counts.goaways_sent):
        counter.update({f"http_1_1_required_{number:02}": 2**53 for number in range(15)})
    driver.closings.counts.update({f"inadequate_security_{number:02}": 2**53 for number in range(30)})
    driver.closings.resets.counts.update({f"trailers_too_large_{number}": 2**53 for number in range(8)})
    driver.closings.budgets.counts.update({f"too_many_changes_of_the_window_{number}": 2**53 for number in range(14)})
    report(worker, any_driver)
    assert len(worker.slot.read()) < 8_000


def test_a_report_that_does_not_fit_is_an_error_in_the_log_once(any_driver, make):
    worker = make(Log())
    worker.nr = 5
    report(worker, any_driver)
    any_driver.driver.closings.counts.update({f"reason_{number}": 1 for number in range(1_000)})
    worker.nr = 6
    for _ in range(2):
        report(worker, any_driver)
    assert [worker["requests"] for worker in figures()["workers"]] == [5]
    (error,) = worker.log.errors
    assert "not published" in error


def test_a_probe_that_waits_is_no_request(certs, make):
    rig = AnyDriver("gevent", certs)
    worker = make()

    def wait_and_report():
        worker.reporter._probe.start(0.0, rig.driver.runners.run)
        assert len(rig.driver.runners.calls) == 1
        worker.reporter.report(rig.driver)

    rig.call(wait_and_report)
    assert figures()["gauges"]["queued"] == 0
    rig.close()


def test_another_process_with_the_number_of_a_worker_that_was_killed(make, any_driver):
    worker = make()
    report(worker, any_driver)
    assert len(figures()["workers"]) == 1
    told = json.loads(worker.slot.read())
    worker.slot.write(json.dumps({**told, "born": told["born"] + 1}).encode())
    found = figures()
    assert (found["workers"], found["gauges"]) == ([], {})
    assert found["counters"]["cpu"] == told["counters"]["cpu"]


# -- histograms --------------------------------------------------------------------------------------------------------


def test_histograms_add_up(any_driver, make):
    first, second = make(), make()
    for worker in (first, second):
        worker.reporter._probe.note(0.0001)
        worker.reporter._probe.note(0.3)
        worker.reporter._probe.note(99.0)
        report(worker, any_driver)
    queue = figures()["histograms"]["queue_seconds"]
    assert queue["bounds"] == [*QUEUE_BOUNDS, None]
    counts = dict(zip(queue["bounds"], queue["counts"], strict=True))
    # Each report begins a probe, which takes a moment of its own.
    assert counts[None] == 2
    assert counts[0.5] >= 2
    assert counts[0.0005] >= 2
    assert 2 * 99.3 < queue["sum"] < 2 * 99.3 + 10
