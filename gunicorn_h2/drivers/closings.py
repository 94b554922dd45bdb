"""The connections and streams that the server itself has ended: counted by reason, and logged a few a second.

An attack ends thousands of them. Each is counted; the first few of a second have a line of their own in the log, and
the others share one that says how many there were.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .log import Log, Throttle

__all__ = ["REPORT_SECONDS", "Closings", "Tally"]

REPORT_SECONDS = 1.0
"""How often a driver calls `report`, about."""
_LINES = 5


class Tally:
    """What has been ended of one kind; used by the thread that owns the connections."""

    def __init__(
        self,
        counter: str,
        kind: str,
        log: Log,
        increment: Callable[[str, int], Any] | None,
        clock: Callable[[], float],
    ) -> None:
        """`counter` is the last part but one of a counter's name, `kind` says in the log what has been ended.

        `increment(name, count)` adds to a counter elsewhere, such as statsd; `clock` returns seconds.
        """
        self.counts: Counter[str] = Counter()
        """Those ended so far, by reason."""
        self._log = log
        self._counter = counter
        self._kind = kind
        self._increment = increment
        self._clock = clock
        self._unreported: Counter[str] = Counter()
        self._suppressed: Counter[str] = Counter()
        self._lines = 0
        self._next_second = 0.0

    def count(self, reason: str) -> None:
        """Count one, without a line in the log."""
        self.counts[reason] += 1
        if self._increment is not None:
            self._unreported[reason] += 1

    def warn(self, reason: str, message: str, *arguments: object) -> None:
        """Count one and log it, now or among others in the next summary."""
        self.count(reason)
        if self._may_log(reason):
            self._log.warning(message, *arguments)

    def report(self) -> None:
        """Log what has not been logged if its second is over, and pass the counters on; call it about once a second."""
        if self._suppressed and self._clock() >= self._next_second:
            self._summarize()
        if self._increment is not None and self._unreported:
            unreported, self._unreported = self._unreported, Counter()
            for reason, count in unreported.items():
                self._increment(f"gunicorn.h2.{self._counter}.{reason}", count)

    def _may_log(self, reason: str) -> bool:
        now = self._clock()
        if now >= self._next_second:
            if self._suppressed:
                self._summarize()
            self._next_second = now + REPORT_SECONDS
            self._lines = 0
        self._lines += 1
        if self._lines <= _LINES:
            return True
        self._suppressed[reason] += 1
        return False

    def _summarize(self) -> None:
        suppressed, self._suppressed = self._suppressed, Counter()
        reasons = ", ".join(f"{count} {reason}" for reason, count in suppressed.most_common())
        self._log.warning("%d more %s: %s", suppressed.total(), self._kind, reasons)


class Closings(Tally):
    """The connections that a worker has ended. A reason is the name of an error code in lower case, or a driver's."""

    def __init__(
        self,
        log: Log,
        increment: Callable[[str, int], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See `Tally`."""
        super().__init__("closed", "connections closed", log, increment, clock)
        self.resets = Tally("reset", "streams reset", log, increment, clock)
        """Streams that limits have ended while their connections went on, by the name of a `StreamLimit`."""
        self.budgets = Tally("budget", "budgets exceeded", log, increment, clock)
        """The connections that have ended with ENHANCE_YOUR_CALM, by what there was too much of."""
        self._information = Throttle(REPORT_SECONDS)

    def report(self) -> None:
        """See `Tally.report`; reports streams and budgets as well."""
        super().report()
        self.resets.report()
        self.budgets.report()

    def inform(self, message: str, *arguments: object) -> None:
        """Log something that is not a connection, at info level and at most once a second."""
        if self._information.admit(self._clock()) is not None:
            self._log.info(message, *arguments)
