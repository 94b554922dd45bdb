"""What a worker reports once a second: to statsd, if that is on, and on the board, for `gunicorn_h2.status`.

Counters are those of the slot: what its workers before have counted, and what this one has.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from gunicorn_h2.drivers.base import Driver
from gunicorn_h2.drivers.closings import REPORT_SECONDS
from gunicorn_h2.drivers.histogram import QueueProbe

from .board import Board, Slot, birth

__all__ = ["Reporter", "current", "take_slot"]

_EARLY = 0.1
"""Seconds by which a report may come early: callers have timers of their own."""
_LEAST_PAUSE = 200
"""A report may take one in so many seconds: with very many connections there are fewer."""
_NOT_FOR_STATSD = ("closed", "limits", "budgets", "queue", "rtt", "cpu")
"""Counters that have statsd names already, or are not whole numbers."""
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_board: Board | None = None
_current: Reporter | None = None


def take_slot(worker: Any) -> tuple[Board, Slot | None]:
    """For the master: the board, which it makes once, and a slot for a worker that it is about to fork."""
    global _board
    if _board is None:
        _board = Board()
    return _board, _board.take(worker)


def current() -> Reporter | None:
    """The reporter of the worker that this process is; None in the master, and on other servers."""
    return _current


class Reporter:
    """Reports for one worker, in its process."""

    def __init__(self, worker: Any, board: Board, slot: Slot | None) -> None:
        """`worker` is an `Http2Worker`; its driver comes with the first report."""
        global _current
        _current = self
        self.board = board
        self.cfg = worker.cfg
        self._worker = worker
        self._slot = slot
        self._driver: Driver[Any, Any] | None = None
        self._before = _inherited(slot)
        self._began = time.time()
        self._born = birth(os.getpid())
        self._next = 0.0
        self._probe = QueueProbe()
        self._is_too_large = False
        """Whether a report did not fit into the slot."""
        self._increment = getattr(worker.log, "increment", None)
        self._told: Counter[str] = Counter()
        """What statsd has been told."""

    def report(self, driver: Driver[Any, Any], late: float = 0.0) -> None:
        """Report if it is time to; the caller acts for all connections. `late`: see `QueueProbe.start`."""
        began = time.monotonic()
        if began < self._next:
            return
        self._driver = driver
        gauges = driver.gauges()
        # A probe is no request: neither one that still waits, nor the next one.
        gauges["queued"] = max(gauges["queued"] - self._probe.is_waiting, 0)
        driver.probe_queue(self._probe, late)
        counters = self._counters(driver)
        if self._increment is not None:
            self._tell_statsd(counters)
        gauges["connections/h1"] = max(
            self._worker.open_connections - gauges["connections/h2"] - gauges["connections/negotiating"], 0
        )
        gauges["memory"] = _memory()
        self._write(counters, gauges, os.getpid())
        now = time.monotonic()
        self._next = max(began + REPORT_SECONDS - _EARLY, now + (now - began) * _LEAST_PAUSE)

    def close(self) -> None:
        """Report for the last time: what the worker has counted stays."""
        self._worker.admission.closings.report()
        if self._driver is not None:
            counters = self._counters(self._driver)
            if self._increment is not None:
                self._tell_statsd(counters)
            self._write(counters, {}, 0)

    def _counters(self, driver: Driver[Any, Any]) -> dict[str, float]:
        worker, counts, closings = self._worker, driver.counts, driver.closings
        counters: dict[str, float] = {
            "connections/h2": driver.connections_begun,
            "connections/h1": worker.http1_connections,
            "requests/h2": worker.http2_requests,
            "requests/h1": worker.nr - worker.http2_requests,
            "refused": counts.refused,
            "octets/received": counts.octets_received,
            "octets/sent": counts.octets_sent,
            "cpu": round(time.process_time(), 3),
            **driver.round_trips.counters("rtt"),
            **self._probe.histogram.counters("queue"),
        }
        for name, labelled in (
            ("resets_received", counts.resets_received),
            ("resets_sent", counts.resets_sent),
            ("goaways_received", counts.goaways_received),
            ("goaways_sent", counts.goaways_sent),
            ("closed", closings.counts),
            ("limits", closings.resets.counts),
            ("budgets", closings.budgets.counts),
        ):
            for label, count in labelled.items():
                counters[f"{name}/{label}"] = count
        return counters

    def _tell_statsd(self, counters: Mapping[str, float]) -> None:
        assert self._increment is not None
        for name, count in counters.items():
            if count != self._told[name] and not name.startswith(_NOT_FOR_STATSD):
                self._increment(f"gunicorn.h2.{name.replace('/', '.')}", int(count) - self._told[name])
                self._told[name] = int(count)

    def _write(self, counters: dict[str, float], gauges: Mapping[str, float], pid: int) -> None:
        """Write to the slot; `pid` is 0 when the worker ends."""
        if self._slot is None:
            return
        total: Counter[str] = Counter(self._before)
        total.update(counters)
        report = {
            "pid": pid,
            "born": self._born,
            "age": self._worker.age,
            "kind": type(self._worker).__name__,
            "began": self._began,
            "time": time.monotonic(),
            "wait": round(self._probe.wait(), 6),
            "own": {
                "requests": self._worker.nr,
                "received": counters["octets/received"],
                "sent": counters["octets/sent"],
                "cpu": counters["cpu"],
            },
            "counters": total,
            "gauges": gauges,
        }
        try:
            self._slot.write(json.dumps(report, separators=(",", ":")).encode())
        except ValueError as error:
            # The one before stays, and the worker serves on.
            if not self._is_too_large:
                self._is_too_large = True
                self._worker.log.error("The status of this worker is not published: %s", error)


def _inherited(slot: Slot | None) -> dict[str, float]:
    """The counters of a slot's workers before."""
    data = None if slot is None else slot.read()
    if data is None:
        return {}
    counters: dict[str, float] = json.loads(data)["counters"]
    return counters


def _memory() -> int:
    """The octets of the process that are resident; 0 where there is no /proc."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_SIZE
    except OSError:
        return 0
