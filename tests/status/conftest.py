"""Fixtures for the tests of the status: a process that seems to be a worker, with what workers have reported."""

import json
import os
import time
from types import SimpleNamespace

import pytest

from gunicorn_h2.drivers.histogram import QUEUE_BOUNDS, Histogram
from gunicorn_h2.workers import reports
from gunicorn_h2.workers.board import Board, birth

COUNTERS = {
    "connections/h2": 3, "connections/h1": 2, "requests/h2": 1234, "requests/h1": 5, "refused": 1, "cpu": 1.25,
    "octets/received": 99, "octets/sent": 2**40,
    "resets_received/cancel": 4, "resets_sent/refused_stream": 2,
    "goaways_received/no_error": 1, "goaways_sent/no_error": 6,
    "closed/enhance_your_calm": 1, "limits/read_timeout": 2, "budgets/too_many_control_frames": 1,
}
GAUGES = {
    "connections/h2": 2, "connections/h1": 1, "connections/negotiating": 0, "streams": 7, "orphaned": 0,
    "blocked/streams": 3, "blocked/connections": 1, "octets/buffered": 10, "octets/spooled": 16384, "octets/windows": 0,
    "queued": 1, "threads/all": 8, "threads/busy": 5, "threads/waiting": 2, "memory": 30_000_000,
}


@pytest.fixture
def serving(monkeypatch):
    """This process is one of two workers; the other has ended. The configuration is that of the result's `cfg`."""
    board, owners = Board(slots=4), [SimpleWorker() for _ in range(2)]
    times = Histogram(QUEUE_BOUNDS)
    for seconds in (0.0002, 0.003, 0.004, 20.0):
        times.observe(seconds)
    for owner, pid in zip(owners, (0, os.getpid()), strict=True):
        board.take(owner).write(json.dumps({
            "pid": pid, "born": birth(pid), "age": 1, "kind": "ThreadWorker", "began": time.time() - 60,
            "time": time.monotonic(), "wait": 0.001,
            "own": {"requests": 600, "received": 5, "sent": 7, "cpu": 0.5},
            "counters": {**COUNTERS, **times.counters("queue")}, "gauges": GAUGES if pid else {},
        }).encode())
    current = SimpleNamespace(board=board, cfg=SimpleNamespace(forwarded_allow_ips=["127.0.0.1"]), owners=owners)
    monkeypatch.setattr(reports, "_current", current)
    return current


class SimpleWorker:
    """A worker as a board knows it."""

    pid = os.getpid()
