"""The pool of threads."""

import threading

import pytest

from gunicorn_h2.drivers.pool import RequestPool

TIMEOUT = 10


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
