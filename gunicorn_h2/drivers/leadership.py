"""Leader and followers: which thread does the I/O of the threaded driver.

A change of threads costs more than a quick request. So, while requests are quick, a thread of the pool leads:
it does the I/O and runs what it has read itself, and no other thread wakes up. The main thread watches it.
When a request blocks or takes long, or requests wait for something other than the processor, so that threads
would share the waiting, the main thread does the I/O and requests go to the pool, one a thread. After a pause
a thread of the pool leads again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from .pool import RequestPool, report_exception
from .request_gate import FEW_REQUESTS
from .request_queue import Request, RequestQueue

__all__ = ["Leadership", "Loop"]

_PATIENCE = 0.005
"""Seconds a request may keep the leader: CPython's switch interval, for which any thread may keep the interpreter."""
_MAX_WAITING = 0.00005
"""Seconds a request may wait on average for something else than the processor: what a change of threads costs."""
_MAX_TAKEN = 0.001
"""Seconds a request may take on average."""
_SLICE = 0.001
"""Seconds the leader runs requests before it looks at the sockets again."""
_LONG_WAIT = 3600.0
_WEIGHT = 0.125
"""Of the latest slice in the averages. What one slice adds is limited: the system may have interrupted the thread."""
_MIN_PAUSE, _MAX_PAUSE = 1.0, 60.0
"""Seconds from the end of a term to the next; doubled after each that fails soon."""
_SHORT_TERM = 10.0
"""Seconds within which a failure is soon."""

_MAIN = 0
_OFFERED = -1


class Loop(Protocol):
    """What the leader does."""

    def poll(self, timeout: float) -> None:
        """Wait `timeout` seconds at most for something to happen, and act on it."""

    def run_commands(self) -> None:
        """Do what applications have submitted; called with the lock held."""

    def wake(self) -> None:
        """Make `poll` return; callable from any thread."""


class _Bell:
    """Wakes the main thread.

    `SimpleQueue.get` cannot be used for that: where a signal comes just before its timeout, it waits for ever (CPython
    3.11).
    """

    def __init__(self) -> None:
        self._silence = threading.Lock()
        """Held while nobody has rung."""
        self._silence.acquire()
        self._interrupts = False

    def ring(self, interrupt: bool = False) -> None:
        """Have `wait` return, and return True for an `interrupt`; callable from any thread and by signal handlers."""
        if interrupt:
            self._interrupts = True
        # It may have been rung already, by another thread at this moment.
        with suppress(RuntimeError):
            self._silence.release()

    def wait(self, timeout: float) -> bool:
        """Wait for so many seconds at most; return whether there was an interrupt."""
        self._silence.acquire(timeout=timeout)
        if self._interrupts:
            self._interrupts = False
            return True
        return False


class Leadership:
    """Hands the I/O back and forth between the main thread and the pool, under `lock`.

    `requests` are the arguments of `run` for requests that the leader is to run itself; there are some only while
    a thread of the pool leads. None stands for the next one of the queue.
    """

    def __init__(self, pool: RequestPool, loop: Loop, run: Callable[..., object]) -> None:
        self.lock = threading.RLock()
        """Held by whoever acts on a connection."""
        self.thread = _MAIN
        """The identifier of the thread of the pool that leads; no thread's where none does."""
        self.requests: deque[Request | None] = deque()
        self._queue: RequestQueue[Request] = RequestQueue()
        self._pool = pool
        self._loop = loop
        self._run = run
        self._busy_since: float | None = None
        """When the leader began the request that it runs."""
        self._active = False
        """Whether the leader has run requests since the main thread last looked."""
        self._asleep = False
        """Whether the main thread waits without looking at the leader now and then."""
        self._bell = _Bell()
        self._recalled = False
        self._failure: BaseException | None = None
        self._term_began = 0.0
        self._next_term = 0.0
        self._pause = _MIN_PAUSE / 2
        self._taken = self._waiting = 0.0
        """Averages of the term, in seconds for each request."""

    @property
    def delegated(self) -> bool:
        """Whether a thread of the pool leads, or is about to."""
        return self.thread != _MAIN

    @property
    def has_idle_leader(self) -> bool:
        """Whether a thread of the pool leads, and runs no request now."""
        return self.delegated and self._busy_since is None

    @property
    def expected_wait(self) -> float:
        """About how many seconds a request that came now would wait for the leader of the pool."""
        return len(self.requests) * self._taken

    # The main thread

    def serve(self, timeout: float, alone: bool) -> None:
        """Do the I/O, or watch the thread that does, for `timeout` seconds at most; `alone`: in this thread only.

        Raises what a leader's `poll` has raised.
        """
        if alone:
            self.take_back()
        if not self.delegated:
            if alone or time.monotonic() < self._next_term or self._pool.tasks or not self._pool.has_idle_threads:
                self._loop.poll(timeout)
                return
            self._offer()
        self._watch(timeout)

    def interrupt(self) -> None:
        """Make `serve` return soon; callable from any thread and by signal handlers."""
        self._bell.ring(interrupt=True)
        self._loop.wake()

    def take_back(self) -> None:
        """Lead from now on."""
        self._recalled = True
        if self.delegated:
            self._loop.wake()
        while self.delegated:
            if not self._take_over(0.0):
                self._bell.wait(_PATIENCE)
        self._recalled = False

    def end(self) -> None:
        """Lead to the end."""
        self.take_back()
        self._next_term = float("inf")

    def _offer(self) -> None:
        # The main thread takes over where no thread accepts within its patience.
        self._busy_since = time.monotonic()
        self._active = True
        self.thread = _OFFERED
        self._pool.run(self._lead)

    def _watch(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while self.delegated:
            if self._take_over(_PATIENCE):
                break
            left = until - time.monotonic()
            if left <= 0 or self._bell.wait(min(left, _PATIENCE) if self._is_active() else left):
                return
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _is_active(self) -> bool:
        """Whether the leader runs requests, so that it must be watched; if not, it will ring the bell."""
        # The leader looks at these flags in the opposite order.
        self._asleep = True
        if self._active or self._busy_since is not None:
            self._asleep = self._active = False
            return True
        return False

    def _take_over(self, patience: float) -> bool:
        """Lead in place of a thread that has been busy for longer than `patience`."""
        busy_since = self._busy_since
        if busy_since is None or time.monotonic() - busy_since < patience:
            return False
        with self.lock:
            if self._busy_since is None:
                return False
            self._end_term(failed=patience > 0)
        return True

    # The leader

    def start(self, requests: Sequence[Request]) -> None:
        """Have requests run, by the thread that leads if it is one of the pool."""
        if not self.delegated:
            self._pool.run_each(self._run, requests)
        elif len(self.requests) + len(requests) <= FEW_REQUESTS:
            self.requests.extend(requests)
        else:
            self._queue.put((request, request) for request in requests)
            self.requests.extend([None] * len(requests))

    def _lead(self) -> None:
        """The task of a thread of the pool to which the I/O is offered."""
        me = threading.get_ident()
        with self.lock:
            if self.thread != _OFFERED:
                return
            self.thread = me
            self._busy_since = None
            self._term_began = time.monotonic()
            self._taken = self._waiting = 0.0
        try:
            while self.thread == me:
                self._loop.poll(0.0 if self.requests else _LONG_WAIT)
                if self._recalled or (self._pool.tasks and not self._pool.has_idle_threads):
                    self.resign(failed=False)
                elif self.requests:
                    self._run_requests(me)
        except BaseException as error:  # As from `poll` in the main thread: it ends the worker.
            self._failure = error
            self.resign(failed=True)

    def _run_requests(self, me: int) -> None:
        """Run requests until none is left, or for a slice of time; then send the responses."""
        requests, run = self.requests, self._run
        count = len(requests)
        # Reading this clock costs as much as a tenth of a quick request.
        cpu_began = time.thread_time() if self._taken > _MAX_WAITING else None
        began = now = self._busy_since = time.monotonic()
        self._active = True
        if self._asleep:
            self._asleep = False
            self._bell.ring()
        while now - began < _SLICE:
            try:
                request = requests.popleft()
            except IndexError:
                # None is left, or the main thread has taken over, and taken the rest.
                break
            try:
                run(*request or self._queue.take())
            except Exception:  # As in the pool.
                report_exception()
            now = self._busy_since = time.monotonic()
        taken = now - began
        waited = 0.0 if cpu_began is None else taken - (time.thread_time() - cpu_began)
        with self.lock:
            if self.thread != me:
                return
            self._busy_since = None
            self._loop.run_commands()
            count -= len(requests)
            self._taken = _average(self._taken, taken / count, 2 * _MAX_TAKEN)
            self._waiting = _average(self._waiting, waited / count, 0.9 * _MAX_WAITING / _WEIGHT)
            if self._waiting > _MAX_WAITING or self._taken > _MAX_TAKEN:
                self.resign(failed=True)

    def resign(self, failed: bool) -> None:
        """For the leader: let the main thread lead; `failed`: because requests are not quick."""
        with self.lock:
            if self.thread == threading.get_ident():
                self._end_term(failed)
        self._bell.ring()

    def _end_term(self, failed: bool) -> None:
        self.thread = _MAIN
        self._busy_since = None
        now = time.monotonic()
        failed_soon = failed and now - self._term_began < _SHORT_TERM
        self._pause = min(self._pause * 2, _MAX_PAUSE) if failed_soon else _MIN_PAUSE
        self._next_term = now + self._pause
        requests: list[Request] = []
        with suppress(IndexError):
            # One by one: the thread that led may take the next one at this moment.
            while True:
                requests.append(self.requests.popleft() or self._queue.take())
        self._pool.run_each(self._run, requests)
        # There may be commands that the leader would have come to.
        self._loop.wake()


def _average(before: float, latest: float, limit: float) -> float:
    return before + (min(latest, limit) - before) * _WEIGHT
