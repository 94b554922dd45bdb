"""A fixed pool of threads behind one queue."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

__all__ = ["RequestPool"]

_T = TypeVar("_T")


class RequestPool(Executor):
    """Threads that run requests: HTTP/2's by `run`, HTTP/1's by the `Executor` interface.

    The threads are daemons: one that an application never returns to must not outlive the
    worker's graceful timeout.
    """

    def __init__(self, threads: int) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"gunicorn_h2-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, call: Callable[..., object], *arguments: Any) -> None:
        """Have a thread call `call(*arguments)`, which should not raise."""
        self._queue.put((call, arguments))

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """See `concurrent.futures.Executor.submit`."""
        future: Future[_T] = Future()
        self.run(_fulfil, future, fn, args, kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let every thread end behind the work that is queued."""
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while True:
            task = self._queue.get()
            if task is None:
                return
            call, arguments = task
            try:
                call(*arguments)
            except Exception:  # The top of a thread: it has more requests to serve.
                threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
            # The last request must not be kept alive by an idle thread.
            del task, call, arguments


def _fulfil(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:  # A future carries whatever its call raised, SystemExit included.
        future.set_exception(error)
    else:
        future.set_result(result)
