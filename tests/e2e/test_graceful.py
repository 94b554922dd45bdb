"""Replacing workers, masters and connections under load from a client of another kind: every request is answered.

Small requests, uploads and event streams are under way all the time. The client is Node's; ours is in
`test_operations.py`.
"""

import os
import re
import signal
import sys
from pathlib import Path

import gunicorn
import pytest

from gunicorn_h2.workers import leave_own_folders
from tests.support.h2client import NO_ERROR, H2Client
from tests.support.kinds import WSGI_KINDS
from tests.support.node import NodeClient
from tests.support.server import OUTLIVES, REFERENCE_WORKERS, Server, stop_all

KINDS = {**WSGI_KINDS, "asgi": REFERENCE_WORKERS["asgi"]}
SOME = {"hello": 100, "upload": 2, "events": 2}


@pytest.fixture(params=KINDS)
def boot(request, tmp_path, certs):
    """A function that boots a server, for each class; it is stopped at the end."""
    servers = []

    def boot(**settings):
        servers.append(Server(tmp_path, KINDS[request.param], certs, threads=8, accesslog=None, **settings))
        return servers[-1].start()

    yield boot
    stop_all(servers)


@pytest.fixture
def server(boot):
    """A server whose master may be replaced."""
    server = boot(code=OUTLIVES)
    # Of what is cut off at the end of `graceful_timeout`.
    server.expect("SystemExit", "StreamAborted", "SIGKILL", "CancelledError", "InvalidStateError")
    return server


@pytest.mark.timeout(120)
def test_nothing_is_lost(server):
    """Reloads, more workers and fewer, another master, workers that have served their share."""
    with NodeClient(server) as node:
        node.wait_for_more(**SOME)
        for change in (reload, reload, more_workers, fewer_workers, hand_over, retire_workers):
            change(server)
            node.wait_for_more(**SOME)
    assert node.seen["lost"] == []
    assert node.seen["hello"] > 1000
    assert node.seen["sessions"] >= 7


@pytest.mark.timeout(120)
@pytest.mark.parametrize("limit", [{"http2_max_connection_age": 0.2}, {"http2_max_requests_per_connection": 50}],
                         ids=["age", "requests"])
def test_connections_that_retire_lose_nothing(boot, limit):
    """The client opens another one each time; only connections end, not the worker."""
    # A connection that is never idle lasts for as long beyond its limit.
    server = boot(http2_drain_timeout=0.05, **limit)
    worker = server.worker_pid
    with NodeClient(server) as node:
        # An event stream takes 0.4 seconds, and there are two at a time: this takes 0.8 seconds at least.
        node.wait_for(hello=200, upload=3, events=4)
    assert node.seen["lost"] == []
    assert node.seen["sessions"] >= 3
    assert server.worker_pid == worker


def test_packages_are_not_searched_for_modules(monkeypatch):
    """As after SIGUSR2 of `python -m gunicorn`, for which Python puts Gunicorn's folder first."""
    folder = Path(gunicorn.__file__).parent
    monkeypatch.setattr(sys, "path", [str(folder), "", f"{folder.parent}{os.sep}{folder.name}", *sys.path])
    before = list(sys.path)
    leave_own_folders()
    assert sys.path == ["", *before[3:]]


def reload(server):
    """SIGHUP: new workers, and the old ones end."""
    server.reload()


def more_workers(server):
    """SIGTTIN: one worker more."""
    mark = server.log_mark()
    server.signal(signal.SIGTTIN)
    server.wait_log(r"worker \d+ is ready", after=mark)


def fewer_workers(server):
    """SIGTTOU: one worker less, the oldest."""
    mark = server.log_mark()
    server.signal(signal.SIGTTOU)
    server.wait_log(r"Worker exiting", after=mark, timeout=15)


def hand_over(server):
    """SIGUSR2: another master, with workers of its own."""
    server.hand_over()


def retire_workers(server):
    """`max_requests`: a worker that has served its share is replaced."""
    server.reload(max_requests=150)
    mark = server.log_mark()
    for _ in range(4):
        mark = server.wait_log("Autorestarting worker", after=mark, timeout=20).line_number + 1
    assert re.search(r"worker \d+ is ready", server.log)
    server.reload(max_requests=0)


def test_what_does_not_end_in_time(server):
    """An event stream and an upload without end: GOAWAY says that they are processed, and neither seems complete."""
    server.reload(graceful_timeout=1)
    with H2Client.connect(server) as client:
        stream = client.request("GET", "/events?n=1000000&s=0.01")
        upload = client.request("POST", "/count", body=b"the beginning", end=False)
        client.wait_for(lambda: stream.received > 100, "some events")
        server.signal(signal.SIGTERM)
        assert client.wait_goaway(2) == (upload.stream_id, NO_ERROR)
        client.wait_closed()
        assert not stream.ended
        assert upload.status is None
