"""The green driver's interface to gevent or eventlet, and how a greenlet waits.

Everything belongs to one thread: nothing here is safe to call from another one.
"""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from greenlet import getcurrent, greenlet

__all__ = ["Library", "Signal", "Waiter", "Watch"]


class Watch(ABC):
    """A socket and a deadline that the hub watches.

    It watches until `unwatch`, so that one more wait costs no system call: the hub calls `notify` as long as the
    socket is ready.
    """

    def __init__(self, notify: Callable[[], object]) -> None:
        """`notify` is called in the hub when something has happened, and must not wait."""
        self.readable = False
        """Whether the socket was found readable; the reader resets it, and likewise the two below."""
        self.writable = False
        self.expired = False
        """Whether the deadline, or an earlier one, has passed."""
        self._notify = notify
        self._alarm: float | None = None
        self._watches_writes: bool | None = None
        """None while the socket is not watched."""

    def expect(self, wants_write: bool, deadline: float | None) -> None:
        """Watch until the socket is readable, or writable if `wants_write`, and for the deadline."""
        if wants_write is not self._watches_writes:
            self._watches_writes = wants_write
            self._watch(wants_write)
        # An alarm that fires too early costs less than moving it each time.
        if deadline is not None and (self._alarm is None or deadline < self._alarm):
            self._alarm = deadline
            self._set_alarm(max(deadline - time.monotonic(), 0.0))

    def expect_only(self, reads: bool, writes: bool) -> None:
        """Watch until the socket is readable, if it `reads`, or writable, if it `writes`; instead of `expect`."""
        self.unwatch()
        if reads:
            self.expect(writes, None)
        elif writes:
            self._watches_writes = True
            self._watch_writes()

    def unwatch(self) -> None:
        """Stop watching the socket until `expect`; call it before the socket is closed or handed over. Idempotent."""
        if self._watches_writes is not None:
            self._watches_writes = None
            self._unwatch()

    def close(self) -> None:
        """Release the hub's resources."""
        self.unwatch()
        self._close()

    def _on_readable(self) -> None:
        self.readable = True
        self._notify()

    def _on_writable(self) -> None:
        self.writable = True
        self._notify()

    def _on_alarm(self) -> None:
        self._alarm = None
        self.expired = True
        self._notify()

    @abstractmethod
    def _watch(self, wants_write: bool) -> None:
        """Have the hub call `_on_readable`, and `_on_writable` if and only if `wants_write`."""

    @abstractmethod
    def _watch_writes(self) -> None:
        """Have the hub call `_on_writable` alone."""

    @abstractmethod
    def _unwatch(self) -> None:
        """Have the hub call neither."""

    @abstractmethod
    def _set_alarm(self, seconds: float) -> None:
        """Have the hub call `_on_alarm` in `seconds`, and not at the time set before."""

    @abstractmethod
    def _close(self) -> None:
        """Release the hub's watchers."""


class Library(NamedTuple):
    """gevent or eventlet."""

    make_watch: Callable[[int, Callable[[], object]], Watch]
    """`make_watch(fd, notify)` makes the watch of a file descriptor."""

    spawn: Callable[..., object]
    """`spawn(call, *arguments)` starts a greenlet, in the hub's next round."""

    kill: Callable[[Any], object]
    """Raises GreenletExit in a greenlet."""

    call_soon: Callable[[Callable[[], object]], object]
    """Has the hub call it in its next round."""

    call_after_poll: Callable[[Callable[[], object]], object]
    """Has the hub call it when it has looked at the sockets once more."""

    is_waited_for: Callable[[Sequence[socket.socket]], bool]
    """Whether newcomers wait at one of the listening sockets, for all that can be seen; does not wait itself."""

    switch_to_hub: Callable[[], object]
    """Lets others run until a call in the hub switches back."""

    def make_waiter(self, fd: int) -> Waiter:
        """Make the waiter of a file descriptor."""
        return Waiter(self, fd)


class Signal:
    """A signal that one greenlet waits for and others send."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._waiting: greenlet | None = None
        self._sent = False
        self._pending = False

    def wait(self) -> None:
        """Wait for the signal; return at once if it was sent since the last wait. May return spuriously."""
        if not self._sent:
            self._waiting = getcurrent()
            try:
                self._library.switch_to_hub()
            finally:
                self._waiting = None
        self._sent = False

    def send(self) -> None:
        """End the wait soon, behind all greenlets that are ready to run now."""
        if not self._pending:
            self._pending = True
            self._library.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._pending = False
        self.send_from_hub()

    def send_from_hub(self) -> bool:
        """End the wait now; called in the hub. Returns False if no greenlet waits."""
        if self._waiting is None:
            self._sent = True
            return False
        self._waiting.switch()
        return True


class Waiter:
    """Lets a greenlet wait for a file descriptor, for `wake`, or for a deadline.

    `readable` and `writable` are the results of the last wait, which may end spuriously.
    """

    def __init__(self, library: Library, fd: int) -> None:
        self.readable = False
        self.writable = False
        self._signal = Signal(library)
        self._watch = library.make_watch(fd, self._on_event)

    def wait(self, wants_write: bool, deadline: float | None) -> None:
        """Wait until the socket is readable, or writable if `wants_write`, or for `wake`, or the deadline."""
        watch = self._watch
        watch.expect(wants_write, deadline)
        self._signal.wait()
        self.readable, watch.readable = watch.readable, False
        self.writable, watch.writable = watch.writable, False

    def wake(self) -> None:
        """End the wait soon, behind all greenlets that are ready to run now."""
        self._signal.send()

    def unwatch(self) -> None:
        """See `Watch.unwatch`."""
        self._watch.unwatch()

    def close(self) -> None:
        """Release the hub's resources."""
        self._watch.close()

    def _on_event(self) -> None:
        if not self._signal.send_from_hub():
            # The greenlet waits for something else, perhaps a log's lock. The hub must not spin meanwhile.
            self._watch.unwatch()
