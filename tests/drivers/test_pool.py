"""The pool of threads."""

import os
import platform
import subprocess
import sys
import threading

import pytest

from gunicorn_h2.drivers import pool as pool_module
from gunicorn_h2.drivers.pool import RequestPool

from .rig import TIMEOUT, Log, wait_until


@pytest.fixture
def pool():
    """A pool of three threads."""
    pool = RequestPool(3)
    yield pool
    pool.shutdown()


def test_calls_run_side_by_side(pool):
    barrier = threading.Barrier(4)
    for _ in range(3):
        pool.run(barrier.wait, TIMEOUT)
    barrier.wait(TIMEOUT)


def test_calls_run_in_order_in_one_thread():
    pool, seen = RequestPool(1), []
    for number in range(100):
        pool.run(seen.append, number)
    pool.shutdown()
    assert seen == list(range(100))


def test_a_future_has_the_result(pool):
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert pool.submit(dict, a=1).result(TIMEOUT) == {"a": 1}
    assert list(pool.map(str, range(5))) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_future_has_what_was_raised(pool, kind):
    def fail():
        raise kind("why")

    assert isinstance(pool.submit(fail).exception(TIMEOUT), kind)
    assert pool.submit(int).result(TIMEOUT) == 0


def test_a_future_that_is_cancelled_does_not_run():
    pool, gate, seen = RequestPool(1), threading.Event(), []
    pool.run(gate.wait, TIMEOUT)
    future = pool.submit(seen.append, 1)
    assert future.cancel()
    gate.set()
    pool.shutdown()
    assert seen == []


def test_shutdown_lets_queued_work_end():
    pool, seen = RequestPool(2), []
    for number in range(50):
        pool.run(seen.append, number)
    pool.shutdown(wait=True)
    assert sorted(seen) == list(range(50))


def test_shutdown_may_leave_a_call_behind():
    pool, gate = RequestPool(1), threading.Event()
    pool.run(gate.wait, TIMEOUT)
    pool.shutdown(wait=False)
    gate.set()


def test_threads_are_daemons():
    pool, found = RequestPool(1), []
    pool.run(lambda: found.append(threading.current_thread().daemon))
    pool.shutdown()
    assert found == [True]


def test_an_idle_thread_keeps_nothing_alive():
    import gc
    import weakref

    class Thing:
        pass

    pool, thing = RequestPool(1), Thing()
    ref = weakref.ref(thing)
    pool.submit(id, thing).result(TIMEOUT)
    pool.submit(int).result(TIMEOUT)
    del thing
    gc.collect()
    assert ref() is None
    pool.shutdown()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_raises_costs_no_thread(capsys):
    pool = RequestPool(1)
    pool.run(divmod, 1, 0)
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    pool.shutdown()


# -- threads that wait for clients -------------------------------------------------------------------------------------


class Clients:
    """Slow clients: calls that wait for them, until they are let go."""

    def __init__(self, pool):
        self.pool, self.waiting, self.go, self.busy = pool, threading.Semaphore(0), threading.Event(), threading.Event()
        self.gone_on = threading.Semaphore(0)

    def wait_for_one(self):
        """A call that waits for its client, and then is busy until all are told to end."""
        if not self.pool.begin_wait():
            self.pool.stand_aside()
        self.waiting.release()
        assert self.go.wait(TIMEOUT)
        self.pool.end_wait()
        self.gone_on.release()
        assert self.busy.wait(TIMEOUT)

    def add(self, count):
        """Have so many calls wait."""
        for _ in range(count):
            self.pool.run(self.wait_for_one)
            assert self.waiting.acquire(timeout=TIMEOUT)

    def leave(self):
        """Let all go."""
        self.go.set()
        self.busy.set()


@pytest.fixture
def waiting_pool(monkeypatch):
    """A function that makes a pool with slow clients, which go at the end; spare threads end soon."""
    monkeypatch.setattr(pool_module, "_SPARE_SECONDS", 0.05)
    made = []

    def make(threads, max_waiting, log=None):
        pool = RequestPool(threads, max_waiting, log)
        made.append((pool, Clients(pool)))
        return made[-1]

    yield make
    for pool, clients in made:
        clients.leave()
        pool.shutdown()
        assert pool.threads == 0


@pytest.mark.parametrize("threads", [1, 4])
def test_a_thread_that_waits_is_replaced(waiting_pool, threads):
    pool, clients = waiting_pool(threads, 50)
    clients.add(50)
    barrier = threading.Barrier(threads + 1)
    for _ in range(threads):
        pool.run(barrier.wait, TIMEOUT)
    barrier.wait(TIMEOUT)
    assert pool.threads == 50 + threads


def test_while_an_idle_thread_is_left_none_is_started(waiting_pool):
    pool, clients = waiting_pool(4, 50)
    clients.add(3)
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert pool.threads <= 5
    clients.add(1)
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert pool.threads <= 6


def test_no_more_than_the_threads_begin_calls(waiting_pool):
    pool, clients = waiting_pool(2, 50)
    clients.add(10)
    gate, running = threading.Event(), threading.Semaphore(0)

    def run():
        running.release()
        assert gate.wait(TIMEOUT)

    for _ in range(3):
        pool.run(run)
    for _ in range(2):
        assert running.acquire(timeout=TIMEOUT)
    assert not running.acquire(timeout=0.05)
    assert len(pool.tasks) == 1
    gate.set()


def test_the_number_of_threads_returns(waiting_pool):
    pool, clients = waiting_pool(2, 50)
    clients.add(20)
    # One idle thread, or two at work beside those that wait.
    assert pool.threads in (21, 22)
    clients.leave()
    for _ in range(20):
        assert clients.gone_on.acquire(timeout=TIMEOUT)
    wait_until(lambda: pool.threads == 2)
    barrier = threading.Barrier(3)
    for _ in range(2):
        pool.run(barrier.wait, TIMEOUT)
    barrier.wait(TIMEOUT)
    assert pool.threads == 2


def test_a_spare_thread_is_used_again(waiting_pool, monkeypatch):
    monkeypatch.setattr(pool_module, "_SPARE_SECONDS", TIMEOUT)
    pool, clients = waiting_pool(1, 10)
    clients.add(5)
    clients.leave()
    wait_until(lambda: len(pool._spares) == 5)
    before = set(pool._threads)
    again = Clients(pool)
    again.add(5)
    assert pool.submit(divmod, 7, 2).result(TIMEOUT) == (3, 1)
    assert set(pool._threads) == before
    again.leave()


def test_beyond_the_limit_a_thread_that_waits_counts_as_busy(waiting_pool):
    log = Log()
    pool, clients = waiting_pool(2, 3, log)
    clients.add(5)
    future = pool.submit(divmod, 7, 2)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert pool.threads == 5
    warning, = log.warnings
    assert "3 threads" in warning
    assert "http2_max_waiting_threads" in warning
    clients.leave()
    assert future.result(TIMEOUT) == (3, 1)
    wait_until(lambda: pool.threads == 2)
    assert len(log.warnings) == 1


def test_a_thread_beyond_the_limit_stands_aside_when_there_is_room(waiting_pool):
    pool, clients = waiting_pool(2, 3, Log())
    clients.add(3)
    crowd = Clients(pool)
    crowd.add(2)
    future = pool.submit(divmod, 7, 2)
    clients.leave()
    assert future.result(TIMEOUT) == (3, 1)
    crowd.leave()
    wait_until(lambda: pool.threads == 2)
    assert (pool._surplus, pool._waiting, pool._crowd) == (0, set(), {})


def test_threads_need_not_be_replaced(waiting_pool):
    pool, clients = waiting_pool(2, 0)
    clients.add(2)
    future = pool.submit(divmod, 7, 2)
    with pytest.raises(TimeoutError):
        future.result(0.05)
    assert pool.threads == 2
    clients.leave()
    assert future.result(TIMEOUT) == (3, 1)


def test_a_thread_of_the_applications_own_is_not_replaced(waiting_pool):
    pool, _ = waiting_pool(1, 10)
    gate = threading.Event()
    pool.run(gate.wait, TIMEOUT)
    assert pool.begin_wait()
    assert pool.threads == 1
    pool.end_wait()
    gate.set()


def test_a_system_that_allows_no_more_threads(waiting_pool, monkeypatch):
    log = Log()
    pool, clients = waiting_pool(1, 10, log)

    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        clients.add(1)
    assert log.warnings == ["Cannot start a thread: can't start new thread"]
    assert pool.threads == 1
    future = pool.submit(divmod, 7, 2)
    clients.leave()
    assert future.result(TIMEOUT) == (3, 1)


def test_requests_that_wait_for_a_thread(waiting_pool):
    pool, _ = waiting_pool(1, 10)
    gate, begun = threading.Event(), threading.Event()
    assert not pool.is_short
    pool.run(lambda: (begun.set(), gate.wait(TIMEOUT)))
    assert begun.wait(TIMEOUT)
    assert not pool.is_short
    future = pool.submit(divmod, 7, 2)
    assert pool.is_short
    gate.set()
    assert future.result(TIMEOUT) == (3, 1)
    assert not pool.is_short


COUNT_HEAPS = """
import re, threading
from gunicorn_h2.drivers.pool import RequestPool

pool, gate, made = RequestPool(3, 20), threading.Event(), threading.Barrier(21)

def wait():
    data = bytes(100_000)
    if not pool.begin_wait():
        pool.stand_aside()
    made.wait(10)
    gate.wait(10)

for _ in range(20):
    pool.run(wait)
made.wait(10)
starts = [int(line.split("-")[0], 16) for line in open("/proc/self/maps") if re.search("rw-p 0+ 00:00 0 *$", line)]
print(sum(start % (1 << 26) == 0 for start in starts))
gate.set()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc has heaps for threads")
@pytest.mark.parametrize("chosen", [{}, {"MALLOC_ARENA_MAX": "16"}], ids=["default", "chosen"])
def test_threads_share_a_heap(chosen):
    """Unless the environment says how many there are to be. All but the first begin at multiples of 64 MiB."""
    env = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    found = subprocess.run([sys.executable, "-c", COUNT_HEAPS], env={**env, **chosen}, capture_output=True, check=True)
    heaps = int(found.stdout)
    assert heaps > 3 if chosen else heaps == 0


def test_shutdown_ends_threads_that_wait_and_spare_ones(waiting_pool, monkeypatch):
    monkeypatch.setattr(pool_module, "_SPARE_SECONDS", TIMEOUT)
    pool, clients = waiting_pool(2, 10)
    clients.add(5)
    clients.leave()
    wait_until(lambda: len(pool._spares) >= 3)
    again = Clients(pool)
    again.add(4)
    pool.shutdown(wait=False)
    again.leave()
    wait_until(lambda: pool.threads == 0)


def test_threads_that_wait_and_go_on_all_the_time(waiting_pool):
    """However waits and calls mix, all calls run, and the count is right at the end."""
    pool, _ = waiting_pool(3, 8)
    done = threading.Semaphore(0)

    def call(number):
        for _ in range(number % 4):
            if not pool.begin_wait():
                pool.stand_aside()
            threading.Event().wait(0.0005)
            pool.end_wait()
        done.release()

    for number in range(2_000):
        pool.run(call, number)
    for _ in range(2_000):
        assert done.acquire(timeout=TIMEOUT)
    wait_until(lambda: pool.threads == 3)
    assert (pool._surplus, pool._resting, pool._waiting, pool._spares) == (0, set(), set(), [])
