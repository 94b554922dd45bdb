"""A fixed pool of threads behind one queue."""

from __future__ import annotations

import sys
import threading
from _thread import LockType
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

__all__ = ["RequestPool", "report_exception"]

_T = TypeVar("_T")
_Task = tuple[Callable[..., object], tuple[Any, ...]]


class RequestPool(Executor):
    """Threads that run requests: HTTP/2's by `run`, HTTP/1's by the `Executor` interface.

    The threads are daemons, so an application call that never returns does not outlive the worker's graceful
    timeout.
    """

    def __init__(self, threads: int) -> None:
        self.tasks: deque[_Task | None] = deque()
        """Calls that no thread has begun yet."""
        self._idle: list[LockType] = []
        """The locks that idle threads wait for, the latest last."""
        self._waking = False
        """Whether a thread was woken and has not run yet."""
        self._threads = [
            threading.Thread(target=self._work, name=f"gunicorn_h2-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_idle_threads(self) -> bool:
        """Whether a thread waits for something to do."""
        return bool(self._idle)

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a thread call `call(*arguments)`, which should not raise."""
        self.tasks.append((call, arguments))
        if self._idle and not self._waking:
            self._wake()

    def run_each(self, call: Callable[..., object], arguments: Iterable[tuple[Any, ...]]) -> None:
        """Have threads call `call(*arguments)` for each tuple, as `run` does."""
        self.tasks.extend([(call, each) for each in arguments])
        if self._idle and not self._waking:
            self._wake()

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
        """Let every thread end after the queued work."""
        self.tasks.extend([None] * len(self._threads))
        if self._idle:
            self._wake()
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        tasks, wake_up = self.tasks, threading.Lock()
        wake_up.acquire()
        while True:
            try:
                task = tasks.popleft()
            except IndexError:
                task = self._wait(wake_up)
            if task is None:
                # Pass the end on to the next thread.
                if self._idle:
                    self._wake()
                return
            # One thread at a time is woken, and wakes the next. If each request woke one, most of them
            # would find no work, and compete for the interpreter meanwhile.
            if tasks and self._idle and not self._waking:
                self._wake()
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
