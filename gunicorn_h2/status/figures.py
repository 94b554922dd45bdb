"""The figures of all workers of this master, added up."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from gunicorn_h2.workers import reports
from gunicorn_h2.workers.board import birth, is_alive

__all__ = ["NotServing", "figures"]

HISTOGRAMS = {"queue": "queue_seconds", "rtt": "round_trip_seconds"}
"""Names on the board, and in the figures."""
_BY_REASON = ("resets_received", "resets_sent", "goaways_received", "goaways_sent", "closed", "limits", "budgets")
_UNRESPONSIVE_SECONDS = 5.0
"""A worker that has not reported for so long has something else to do."""


class NotServing(RuntimeError):
    """This process is no worker of gunicorn_h2."""


def figures() -> dict[str, Any]:
    """Return the figures, as docs/status.md describes them; made of strings, numbers, lists and dicts.

    Raises `NotServing` in a process that is no worker of this package's classes.
    """
    reporter = reports.current()
    if reporter is None:
        raise NotServing("this process is not a worker of gunicorn_h2: choose one of its worker classes")
    board = reporter.board
    return {"master": board.master, "time": time.time(), **_sum(map(json.loads, board.read()), time.monotonic())}


def _sum(reports: Iterable[Mapping[str, Any]], now: float) -> dict[str, Any]:
    """Add reports up: the counters of all workers there ever were, and the gauges of those that live."""
    counters: Counter[str] = Counter()
    gauges: Counter[str] = Counter()
    workers = []
    for report in reports:
        counters.update(report["counters"])
        if _is_alive(report):
            gauges.update(report["gauges"])
            workers.append(_worker(report, now))
    workers.sort(key=lambda worker: (worker["began"], worker["pid"]))
    # Each kind of counter is there, even if nothing of it was counted yet.
    nested: dict[str, Any] = {name: {} for name in _BY_REASON} | _nest(counters)
    return {
        "histograms": {title: _histogram(nested.pop(name, {})) for name, title in HISTOGRAMS.items()},
        "counters": nested,
        "gauges": _nest(gauges),
        "workers": workers,
    }


def _is_alive(report: Mapping[str, Any]) -> bool:
    """Whether the worker of a report lives; after one that was killed, another process may have its number."""
    pid = report["pid"]
    return bool(pid) and is_alive(pid) and birth(pid) == report["born"]


def _worker(report: Mapping[str, Any], now: float) -> dict[str, Any]:
    """One worker that lives. Its own counters begin with its own life."""
    reported = max(now - report["time"], 0.0)
    return {
        "pid": report["pid"],
        "number": report["age"],
        "class": report["kind"],
        "began": report["began"],
        "reported": report["time"],
        "reported_seconds_ago": round(reported, 3),
        "responsive": reported < _UNRESPONSIVE_SECONDS,
        "queue_seconds": report["wait"],
        **report["own"],
        "gauges": _nest(report["gauges"]),
    }


def _nest(flat: Mapping[str, float]) -> dict[str, Any]:
    """Make {"a": {"b": 1}, "c": 2} of {"a/b": 1, "c": 2}."""
    nested: dict[str, Any] = defaultdict(dict)
    for name, value in sorted(flat.items()):
        group, _, label = name.partition("/")
        if label:
            nested[group][label] = value
        else:
            nested[group] = value
    return dict(nested)


def _histogram(times: Mapping[str, float]) -> dict[str, Any]:
    """The buckets by their upper bounds, ascending; None is the bound of the last one."""
    bounds = sorted(float(bound) for bound in times if bound != "sum")
    names = {float(bound): bound for bound in times if bound != "sum"}
    return {
        "bounds": [None if bound == math.inf else bound for bound in bounds],
        "counts": [times[names[bound]] for bound in bounds],
        "sum": times.get("sum", 0.0),
    }
