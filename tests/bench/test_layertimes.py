"""Which layer code belongs to, and where its time goes."""

import select
import socket
import ssl
import sys
import threading
from queue import SimpleQueue

import pytest

from bench import layers
from bench.layertimes import HookCost, Times, calibrate, timer

WORK = """
def outer(rounds, inner):
    for _ in range(rounds):
        inner()

def spend(steps):
    for number in range(steps):
        number += 1
"""


@pytest.mark.parametrize(("module", "layer"), [
    ("hpack.table", "HPACK"),
    ("gunicorn_h2.protocol.codec_fast", "HPACK"),
    ("gunicorn_h2.protocol.frames", "framing"),
    ("gunicorn_h2.protocol.connection", "core"),
    ("gunicorn_h2.protocol.h2_engine", "h2 library"),
    ("h2.connection", "h2 library"),
    ("gunicorn_h2.drivers.threads", "driver"),
    ("gunicorn_h2.apps.wsgi", "WSGI and ASGI"),
    ("gunicorn.http.wsgi", "Gunicorn"),
    ("ssl", "TLS"),
    ("bench.callcount", "application"),
    ("enum", "standard library"),
    ("", "standard library"),
])
def test_the_longest_name_decides(module, layer):
    assert layers.layer_of(module) == layer
    assert layer in layers.LAYERS


@pytest.mark.parametrize(("function", "module"), [
    (socket.socket().recv, "_socket"),
    (select.select, "select"),
    (SimpleQueue().get, "_queue"),
    (threading.Lock().acquire, "_thread"),
    (ssl.MemoryBIO().read, "_ssl"),
    (b"".join, None),
    (len, None),
    (dict.fromkeys, None),
])
def test_functions_that_may_wait_have_a_layer_of_their_own(function, module):
    assert layers.waiting_module(function) == module


def module_named(name):
    """Return the functions of `WORK` as if a module of that name had them."""
    namespace = {"__name__": name}
    exec(compile(WORK, name, "exec"), namespace)
    return namespace


def timed(function):
    """Call a function under the timer; return the microseconds by layer as they were measured."""
    times = Times()
    sys.setprofile(timer(times))
    function()
    sys.setprofile(None)
    return times.microseconds()


def test_time_goes_to_the_layer_that_runs():
    """One layer does three times as much as the other, and the one that calls both does little."""
    hpack, core, driver = map(module_named, ("hpack.table", "gunicorn_h2.protocol.x", "gunicorn_h2.drivers.x"))

    def both():
        core["spend"](500)
        hpack["spend"](1500)

    spent = timed(lambda: driver["outer"](200, both))
    assert 2 < spent["HPACK"] / spent["core"] < 4.5
    assert spent["driver"] < spent["core"]


def test_waiting_takes_no_time():
    lock = threading.Lock()
    with lock:
        spent = timed(lambda: lock.acquire(timeout=0.2))
    assert 0 < spent["hand-over between threads"] < 50_000


def test_the_cost_of_the_hook_is_subtracted():
    times = Times(HookCost(slice=100.0, thread_slice=1000.0))
    sys.setprofile(timer(times))
    sys.setprofile(None)
    (bucket,) = times.threads[0].values()
    bucket.nanoseconds, bucket.slices, bucket.thread_slices = 10_000, 20, 3
    assert times.microseconds() == {"standard library": 5.0}


def test_calibration_finds_a_cost():
    cost = calibrate()
    assert 0 < cost.slice < 100_000
    assert 0 <= cost.thread_slice < 100_000
    assert sys.getprofile() is None
