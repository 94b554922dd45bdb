"""How many calls a request takes in a real worker under load: the cost that no other process can change.

A failure is a request that has become more expensive. Lower the limit with every step that makes it cheaper.
"""

import pytest

from bench import callcount
from bench.layers import LAYERS
from bench.running import certificate
from bench.servers import SERVERS
from tests.support.tools import require_tool

PYTHON_CALLS = {"thread-fast": 60, "gevent-fast": 60, "asgi-fast": 40, "thread-h2": 350}
"""At most, for a hello request over 10 connections of 10 streams, by server of the benchmark (16 threads)."""
ATTEMPTS = 8
"""The fewer requests arrive together, as on a busy machine, the more calls each takes. The fewest calls count."""


@pytest.fixture(scope="module", params=PYTHON_CALLS)
def name(request):
    """The server of the benchmark."""
    return request.param


@pytest.fixture(scope="module")
def calls(name):
    """The calls of a request."""
    require_tool("h2load")
    (server,) = [server for server in SERVERS if server.name == name]
    attempts = []
    with certificate() as files:
        while len(attempts) < ATTEMPTS and not any(calls.python <= PYTHON_CALLS[name] for calls in attempts):
            attempts.append(callcount.measure(server, files))
    return min(attempts, key=lambda calls: calls.python)


def test_python_calls_of_a_request(name, calls):
    busiest = "\n".join(f"{each.python:6.1f} {each.module} {each.name}" for each in calls.functions[:20])
    assert calls.python <= PYTHON_CALLS[name], f"{calls.python:.1f} Python calls a request\n{busiest}"


def test_every_request_is_counted_once_in_the_application(calls):
    """The hook sees every thread and loses nothing: the application is called once a request, and once to report."""
    applications = {("bench.callcount", "app"), ("bench.callcount", "asgi_app")}
    (application,) = [each for each in calls.functions if (each.module, each.name.split(",")[0]) in applications]
    assert application.python == pytest.approx(1.0, abs=0.001)


def test_the_layers_add_up(calls):
    layers = calls.by_layer()
    assert set(layers) <= set(LAYERS)
    assert sum(python for python, _ in layers.values()) == pytest.approx(calls.python)
    assert sum(c for _, c in layers.values()) == pytest.approx(calls.c)
