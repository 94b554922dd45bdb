"""A pool of threads behind one queue, in which those that wait for a slow client are replaced.

`threads` threads run requests. One that waits for its client stands aside, and another takes its place, up to a limit
of such threads; beyond it they count as busy. As long as there is an idle thread no other is needed, and to wait costs
two operations on a set. While any thread waits, there is an idle one, or as many are at work as should be. The threads
see to that when they wait and when they take a task, so that the thread that does the I/O never has to start one: it
would wait for the interpreter.

A thread that goes on after its wait makes one too many. The next that has done its task becomes a spare, which takes
the place of another that waits, or ends after a while. So the number of threads returns to `threads`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from _thread import LockType
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, TypeVar

from .log import Log, Throttle
from .request_queue import Request, RequestQueue

__all__ = ["RequestPool", "report_exception"]

_T = TypeVar("_T")
_Task = tuple[Callable[..., object], tuple[Any, ...]]

_SPARE_SECONDS = 2.0
"""How long a spare thread waits for use. To start one takes about 0.1 ms."""
_WARNING_INTERVAL = 60.0
_M_ARENA_MAX = -8
"""The parameter of glibc's mallopt(3)."""


class RequestPool(Executor):
    """Threads that run requests: HTTP/2's by `run`, HTTP/1's by the `Executor` interface.

    The threads are daemons, so an application call that never returns does not outlive the worker's graceful
    timeout.
    """

    def __init__(self, threads: int, max_waiting: int = 0, log: Log | None = None) -> None:
        """At most `max_waiting` threads that wait for clients are replaced; `log` is told where they are more."""
        self.tasks: deque[_Task | None] = deque()
        """Calls that no thread has begun yet; None, which is never taken for good, once the pool ends."""
        self._queue: RequestQueue[_Task] = RequestQueue()
        """Requests that wait for a thread, each of which has a task that runs the next of them."""
        self._idle: list[LockType] = []
        """The locks that idle threads wait for, the latest last."""
        self._waking = False
        """Whether a thread was woken and has not run yet."""
        self._max_waiting = max_waiting
        self._log = log
        self._throttle = Throttle(_WARNING_INTERVAL)
        self._ending = False
        self._lock = threading.Lock()
        """Held to change what follows; `run` needs none of it."""
        self._surplus = -threads
        """The threads at work, idle ones included, beyond the number that there should be; negative: as many lack."""
        self._resting: set[threading.Thread] = set()
        """Threads that wait for clients, but need not stand aside while there is an idle thread."""
        self._waiting: set[threading.Thread] = set()
        """The threads that stand aside."""
        self._crowd: dict[threading.Thread, None] = {}
        """The threads that wait beyond the limit, in order; each stands aside when there is room."""
        self._spares: list[LockType] = []
        """The locks that spare threads wait for."""
        self._threads: set[threading.Thread] = set()
        """The threads that have not ended."""
        self._started = 0
        _share_heap()
        for _ in range(threads):
            self._add_thread()

    @property
    def threads(self) -> int:
        """The number of threads that have not ended."""
        return len(self._threads)

    @property
    def has_idle_threads(self) -> bool:
        """Whether a thread waits for something to do."""
        return bool(self._idle)

    @property
    def is_short(self) -> bool:
        """Whether requests wait for a thread."""
        return bool(self.tasks) and not self._idle

    def load(self) -> dict[str, int]:
        """The numbers of threads: all, those at work, and of these those that wait for their clients."""
        return {
            "threads/all": len(self._threads),
            "threads/busy": max(len(self._threads) - len(self._idle) - len(self._spares), 0),
            "threads/waiting": len(self._waiting) + len(self._resting) + len(self._crowd),
        }

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a thread call `call(*arguments)`, which should not raise."""
        self.tasks.append((call, arguments))
        if self._idle and not self._waking:
            self._wake()

    def run_each(self, call: Callable[..., object], requests: Sequence[Request]) -> None:
        """Have threads call `call(*request)` for each request, as a `RequestQueue` orders them if threads are short."""
        if self.tasks or len(requests) > len(self._idle):
            self._queue.put((request, (call, request)) for request in requests)
            self.tasks.extend([(self._run_next, ())] * len(requests))
        else:
            self.tasks.extend([(call, request) for request in requests])
        if self._idle and not self._waking:
            self._wake()

    def _run_next(self) -> None:
        call, arguments = self._queue.take()
        call(*arguments)

    def _wake(self) -> None:
        self._waking = True
        try:
            self._idle.pop().release()
        except IndexError:
            # Another thread was faster.
            self._waking = False

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """See `concurrent.futures.Executor.submit`."""
        future: Future[_T] = Future()
        self.run(_fulfil, future, fn, args, kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let every thread end after the queued work; may be called by a signal handler."""
        self._ending = True
        self._end_next()
        with suppress(IndexError):
            while True:
                self._spares.pop().release()
        if wait:
            for thread in list(self._threads):
                thread.join()

    def _end_next(self) -> None:
        """Leave the end to the next thread, which leaves it to the one after it."""
        self.tasks.append(None)
        if self._idle:
            self._wake()

    # Threads that wait for clients

    def begin_wait(self) -> bool:
        """Note that this thread waits for a client; return False if it is to `stand_aside` when that lasts."""
        me = threading.current_thread()
        if not self._max_waiting or me not in self._threads:
            return True
        if not self._idle:
            return False
        self._resting.add(me)
        # The last idle thread looks at `_resting` after it has stopped to be idle.
        if not self._idle:
            self._fill_up()
        return True

    def stand_aside(self) -> None:
        """Have another thread take the place of this one, from `begin_wait` to `end_wait`."""
        self._resting.add(threading.current_thread())
        self._fill_up()

    def _fill_up(self) -> None:
        """Have all threads that wait stand aside, as far as the limit allows, and have an idle one."""
        is_full = False
        with self._lock:
            while self._resting and not self._ending:
                thread = self._resting.pop()
                if len(self._waiting) < self._max_waiting:
                    self._waiting.add(thread)
                    self._surplus -= 1
                else:
                    self._crowd[thread] = None
                    is_full = True
        if is_full:
            self._warn()
        if not self._idle:
            self._add_thread()

    def end_wait(self) -> None:
        """Count the thread as one that is at work again; the end of each `begin_wait`."""
        me = threading.current_thread()
        try:
            self._resting.remove(me)
            return
        except KeyError:
            # Another thread may be about to have it stand aside.
            pass
        with self._lock:
            if me not in self._waiting:
                self._crowd.pop(me, None)
                return
            self._waiting.remove(me)
            if self._crowd:
                # It stands aside in place of this one, which counts in place of it.
                other = next(iter(self._crowd))
                del self._crowd[other]
                self._waiting.add(other)
            else:
                self._surplus += 1

    def _add_thread(self) -> None:
        """Put a spare thread to work, or a new one, if one lacks."""
        with self._lock:
            if self._surplus >= 0 or self._ending:
                return
            self._surplus += 1
            if self._spares:
                self._spares.pop().release()
                return
            thread = threading.Thread(target=self._work, name=f"gunicorn_h2-{self._started}", daemon=True)
            self._started += 1
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            # The system allows no more of them. Tasks wait for one of those that there are.
            with self._lock:
                self._surplus -= 1
                self._threads.discard(thread)
            if self._log is not None:
                self._log.warning("Cannot start a thread: %s", error)

    def _warn(self) -> None:
        if self._log is not None and self._throttle.admit(time.monotonic()) is not None:
            self._log.warning(
                "%d threads wait for slow clients; those that wait beyond that keep others from being served"
                " (http2_max_waiting_threads)",
                self._max_waiting,
            )

    def _stay(self, wake_up: LockType) -> bool:
        """For a thread that may be one too many: wait as a spare; return False if it is to end."""
        with self._lock:
            if self._surplus <= 0 or self._ending:
                return True
            self._surplus -= 1
            self._spares.append(wake_up)
        if wake_up.acquire(timeout=_SPARE_SECONDS):
            return True
        try:
            self._spares.remove(wake_up)
        except ValueError:
            # At this moment another thread has put it to work.
            wake_up.acquire()
            return True
        return False

    # The threads

    def _work(self) -> None:
        try:
            self._run_tasks()
        finally:
            self._threads.discard(threading.current_thread())

    def _run_tasks(self) -> None:
        tasks, wake_up = self.tasks, threading.Lock()
        wake_up.acquire()
        while self._surplus <= 0 or self._stay(wake_up):
            try:
                task = tasks.popleft()
            except IndexError:
                task = self._wait(wake_up)
            if task is None:
                self._end_next()
                return
            # One thread at a time is woken, and wakes the next. If each request woke one, most of them
            # would find no work, and compete for the interpreter meanwhile.
            if tasks and self._idle and not self._waking:
                self._wake()
            if (self._surplus < 0 or self._resting) and not self._idle:
                self._fill_up()
            call, arguments = task
            try:
                call(*arguments)
            except Exception:  # The top of a thread: it has more requests to serve.
                report_exception()
            # The last request must not be kept alive by an idle thread.
            del task, call, arguments

    def _wait(self, wake_up: LockType) -> _Task | None:
        """Wait for a task and take it."""
        while True:
            self._idle.append(wake_up)
            # A task that was added before this thread was idle may have woken no one.
            if not (self.tasks and self._withdraw(wake_up)):
                wake_up.acquire()
                self._waking = False
            try:
                return self.tasks.popleft()
            except IndexError:
                # Another thread was faster.
                pass

    def _withdraw(self, wake_up: LockType) -> bool:
        """Leave the idle threads; return False if another thread has removed this one and is waking it."""
        try:
            self._idle.remove(wake_up)
        except ValueError:
            return False
        return True


def _share_heap() -> None:
    """Have all threads allocate from one of glibc's heaps ("arenas"), in place of eight for each core.

    In each of them large bodies and responses leave holes, so that 32 threads would hold several times the memory.
    The thread that has the interpreter seldom waits for another one's allocation. Does nothing where there is no such
    limit, or the environment has set it.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(ImportError, AttributeError, OSError, TypeError):
            # Not every Python has this module.
            import ctypes

            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def report_exception() -> None:
    """Report the exception that is being handled, as if it had ended the thread."""
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _fulfil(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # A future carries whatever its call raised, SystemExit included.
        future.set_exception(error)
    else:
        future.set_result(result)
