"""Timing the layers of a request in a real worker, by a profile hook in each of its threads.

At every call and return, the time since the last one goes to the layer that was running. C functions that may wait
(for a peer, a thread, the interpreter lock) are measured by the processor time of their thread; all else by the clock,
which costs a tenth of that to read. The hook's own time is left out; what it cannot see of itself, the way into it and
out of it, is found by `calibrate` and subtracted for each event. What remains is good for shares, not for times.

A conf file has `from bench.layertimes import post_fork`, and the application is `bench.layertimes:app`, which answers
/hello, and /times with the figures so far.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from bench.callcount import ProfileFunction
from bench.callcount import app as hello
from bench.layers import OTHER, layer_of, waiting_module

CALIBRATION_CALLS = 2_000
CALIBRATIONS = 50
PREEMPTED_NS = 200_000
"""Python code does not run for so long without a call: something else had the core or the interpreter lock."""


@dataclass
class Bucket:
    """Nanoseconds of a layer, and the slices of time they were added up from, by the clock and by the thread's."""

    nanoseconds: int = 0
    slices: int = 0
    thread_slices: int = 0


@dataclass(frozen=True)
class HookCost:
    """Nanoseconds that a slice seems to take in which nothing happens."""

    slice: float = 0.0
    thread_slice: float = 0.0


@dataclass
class Times:
    """What all threads have spent, each in a table of its own, by layer."""

    cost: HookCost = field(default_factory=HookCost)
    threads: list[dict[str, Bucket]] = field(default_factory=list)

    def microseconds(self) -> dict[str, float]:
        """Return the sum by layer, less what the hook costs."""
        total: dict[str, float] = {}
        for table in list(self.threads):
            for layer, bucket in list(table.items()):
                hook = bucket.slices * self.cost.slice + bucket.thread_slices * self.cost.thread_slice
                total[layer] = total.get(layer, 0.0) + (bucket.nanoseconds - hook) / 1e3
        return total

    def nanoseconds(self) -> int:
        """Return the sum of everything as it was measured."""
        return sum(bucket.nanoseconds for table in self.threads for bucket in table.values())


_times = Times()


def post_fork(server: object, worker: object) -> None:
    """Gunicorn's hook: time from here on, in this thread and in all that are still to be started."""
    _times.cost = calibrate()
    threading.setprofile(_begin_thread)
    sys.setprofile(timer(_times))


def app(environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], Any]) -> Iterable[bytes]:
    """Answer "Hello world!"; microseconds by layer for /times."""
    if environ["PATH_INFO"] != "/times":
        return hello(environ, start_response)
    body = json.dumps(_times.microseconds()).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def calibrate() -> HookCost:
    """Find what the hook cannot see of itself: calls that do nothing, with and without it."""
    by_clock = _extra(_empty) / 2
    return HookCost(by_clock, max(0.0, _extra(os.getppid) - by_clock))


def _extra(function: Callable[[], object]) -> float:
    """Return by how many nanoseconds a call of a function, and the return from it, seem longer under the hook.

    The shortest of several trials each way is the one that nothing disturbed.
    """
    plain = min(_repeat(function) for _ in range(CALIBRATIONS))
    timed = min(_repeat_timed(function) for _ in range(CALIBRATIONS))
    return max(0.0, (timed - plain) / CALIBRATION_CALLS)


def _repeat(function: Callable[[], object]) -> int:
    started = time.perf_counter_ns()
    for _ in range(CALIBRATION_CALLS):
        function()
    return time.perf_counter_ns() - started


def _repeat_timed(function: Callable[[], object]) -> int:
    times = Times()
    sys.setprofile(timer(times))
    for _ in range(CALIBRATION_CALLS):
        function()
    sys.setprofile(None)
    return times.nanoseconds()


def _empty() -> None:
    pass


def _begin_thread(frame: FrameType, event: str, argument: Any) -> None:
    profile = timer(_times)
    sys.setprofile(profile)
    profile(frame, event, argument)


def timer(times: Times) -> ProfileFunction:
    """Return a profile function for one thread, which adds to a table of its own in `times`."""
    table: dict[str, Bucket] = {}
    times.threads.append(table)
    buckets: dict[str, Bucket] = {}
    waiting_buckets: dict[tuple[type, str], Bucket | None] = {}
    clock, thread_clock = time.perf_counter_ns, time.thread_time_ns
    current, waiting, last = table.setdefault(OTHER, Bucket()), False, clock()

    def bucket_of(frame: FrameType | None) -> Bucket:
        if frame is None:
            return table[OTHER]
        module = frame.f_globals.get("__name__", "")
        bucket = buckets.get(module)
        if bucket is None:
            bucket = buckets[module] = table.setdefault(layer_of(module), Bucket())
        return bucket

    def waiting_bucket_of(function: Any) -> Bucket | None:
        key = type(function.__self__), function.__qualname__
        if key not in waiting_buckets:
            module = waiting_module(function)
            waiting_buckets[key] = None if module is None else table.setdefault(layer_of(module), Bucket())
        return waiting_buckets[key]

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal current, waiting, last
        if waiting:
            current.nanoseconds += thread_clock() - last
            current.thread_slices += 1
        elif (slice_time := clock() - last) < PREEMPTED_NS:
            current.nanoseconds += slice_time
            current.slices += 1
        # What runs next. It is read from the frames and not from a stack: greenlets switch in between.
        found = waiting_bucket_of(argument) if event == "c_call" else None
        waiting = found is not None
        current = found or bucket_of(frame.f_back if event == "return" else frame)
        last = thread_clock() if waiting else clock()

    return profile
