"""Histograms of times, and the sampling of how long requests wait to begin."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

__all__ = ["QUEUE_BOUNDS", "ROUND_TRIP_BOUNDS", "Histogram", "QueueProbe"]

QUEUE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROUND_TRIP_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Histogram:
    """How many times were how long, in seconds."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        """The upper bounds of all buckets but the last, which has none; ascending."""
        self.counts = [0] * (len(bounds) + 1)
        """The times in each bucket: greater than the bound before, and not greater than its own."""
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Add a time."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def counters(self, name: str) -> dict[str, float]:
        """The histogram as counters by name: the times in each bucket by its upper bound, and the sum of all."""
        bounds = [f"{bound:g}" for bound in self.bounds]
        return {f"{name}/{bound}": count for bound, count in zip([*bounds, "+Inf"], self.counts, strict=True)} | {
            f"{name}/sum": round(self.sum, 6)
        }


class QueueProbe:
    """Measures how long a request that came now would wait to begin, by calls that wait in its place.

    One waits at a time. So the requests themselves need no clock.
    """

    __slots__ = ("histogram", "_clock", "_latest", "_since")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.histogram = Histogram(QUEUE_BOUNDS)
        self._clock = clock
        self._since: float | None = None
        self._latest = 0.0

    def start(self, late: float, run: Callable[[Callable[[], None]], object]) -> None:
        """Have `run(call)` queue a call as it queues requests; does nothing while one waits.

        `late` are the seconds for which it could have been queued already, but its thread was busy.
        """
        if not self.is_waiting:
            self._since = self._clock() - late
            run(self._end)

    @property
    def is_waiting(self) -> bool:
        """Whether a call of the probe's waits where requests do."""
        return self._since is not None

    def note(self, seconds: float) -> None:
        """Note a wait that is known otherwise."""
        self._latest = seconds
        self.histogram.observe(seconds)

    def _end(self) -> None:
        since, self._since = self._since, None
        assert since is not None
        self.note(self._clock() - since)

    def wait(self) -> float:
        """The latest wait in seconds, which may not be over."""
        since = self._since
        return self._latest if since is None else max(self._latest, self._clock() - since)
