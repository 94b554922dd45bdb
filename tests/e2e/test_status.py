"""The status of real servers with two workers: its figures are what clients have done, whatever becomes of workers."""

import functools
import http.client
import json
import os
import re
import signal
import socket
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.h2client import CANCEL, H2Client
from tests.support.kinds import KINDS, kind_param, make_server
from tests.support.load import Load
from tests.support.tools import require_tool, run

INITIAL_WINDOW_SIZE = 4
TIMEOUT = 30
SETTINGS = {"workers": 2, "keepalive": 60, "http2_drain_timeout": 5}
"""A handshake that a reload meets has so long, even on a busy machine."""


PARAMS = {kind: kind_param(kind, *(() if kind == "thread" else (pytest.mark.thorough,)))
          for kind in KINDS if kind != "asyncio"}


@pytest.fixture(params=[param for kind, param in PARAMS.items() if kind != "eventlet"])
def make(request, tmp_path, certs):
    """A function that makes a server of two workers of each class."""
    servers = []

    def make(**settings):
        servers.append(make_server(request.param, tmp_path, certs, "tests.apps.status_app:{}", **SETTINGS | settings))
        return servers[-1]

    yield make
    for server in servers:
        if server.launched:
            server.stop()


@pytest.fixture
def server(make):
    """The server, started."""
    return make().start()


def ask(server, path):
    """Ask by HTTP/1.1, so that requests over HTTP/2 are those of the test alone."""
    connection = http.client.HTTPSConnection(server.host, server.port, context=server.certs.client_context(alpn=()),
                                             timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def figures(server):
    """The figures now; a worker reports once a second."""
    status, body = ask(server, "/status/json")
    assert status == 200, body
    return json.loads(body)


def wait_for(server, condition):
    """Return the first figures that a condition holds for."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        found = figures(server)
        if condition(found):
            return found
        assert time.monotonic() < deadline, found


def requests(found):
    """How many requests there were over HTTP/2."""
    return found["counters"].get("requests", {}).get("h2", 0)


def grown(before, after, path=""):
    """Whether no counter has gone back."""
    for name, value in before.items():
        if isinstance(value, dict):
            grown(value, after[name], f"{path}/{name}")
        else:
            assert after[name] >= value, f"{path}/{name}"


def pids_of(found):
    """The workers that are told of."""
    return {worker["pid"] for worker in found["workers"]}


def work(server, count):
    """Make requests on a connection of their own."""
    with H2Client.connect(server) as client:
        for stream in [client.request("GET", "/hello") for _ in range(count)]:
            assert client.response(stream).status == 200
        return client


@pytest.mark.covered
def test_the_figures_are_what_clients_have_done(server):
    for _ in range(6):
        work(server, 7)
    with H2Client.connect(server) as client:
        client.get("/hello")
        client.reset(client.request("GET", "/hello"), CANCEL)
        client.ping()
        found = wait_for(server, lambda found: requests(found) == 44 and found["gauges"]["connections"]["h2"] == 1)
    counters = found["counters"]
    assert counters["connections"]["h2"] == 7
    assert counters["resets_received"] == {"cancel": 1}
    assert counters["refused"] == 0
    assert counters["octets"]["received"] > 44 * 10
    assert counters["octets"]["sent"] > 44 * 20
    assert counters["requests"]["h1"] <= counters["connections"]["h1"]
    settled = wait_for(server, lambda found: found["gauges"]["connections"]["h2"] == 0)
    assert pids_of(settled) == set(server.worker_pids)
    status, text = ask(server, "/status/metrics")
    assert status == 200
    samples = {(sample.name, sample.labels.get("protocol")): sample.value
               for family in text_string_to_metric_families(text.decode()) for sample in family.samples}
    assert samples["gunicorn_h2_requests_total", "h2"] == 44
    assert samples["gunicorn_h2_workers", None] == 2
    status, page = ask(server, "/status")
    assert (status, page[:15]) == (200, b"<!doctype html>")


@pytest.mark.thorough
def test_a_connection_with_a_window_that_is_shut(server):
    """What waits is what its window does not allow, and its round trip no longer than that of a PING."""
    with H2Client.connect(server, settings={INITIAL_WINDOW_SIZE: 1_000}, auto_window=False) as client:
        stream = client.request("GET", "/bytes?n=20000")
        client.wait_for(lambda: stream.received == 1_000, "a window full of data")
        pings = [timed(client.ping) for _ in range(5)]
        found = wait_for(server, lambda found: found["gauges"]["blocked"]["streams"]
                         and sum(found["histograms"]["round_trip_seconds"]["counts"]))
        assert (found["gauges"]["blocked"], found["gauges"]["streams"]) == ({"streams": 1, "connections": 0}, 1)
        octets = found["gauges"]["octets"]
        assert (octets["buffered"] + octets["spooled"], octets["windows"]) == (19_000, 0)
        trips = found["histograms"]["round_trip_seconds"]
        assert 0 < trips["sum"] <= sum(trips["counts"]) * max(pings)
        client.grant(4_000, stream)
        wait_for(server, lambda found: sum(found["gauges"]["octets"].values()) == 15_000)


def timed(call):
    """How many seconds a call takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


@pytest.mark.thorough
def test_beside_an_applications_own_metrics(tmp_path, certs):
    """One scrape has those of both workers: the application's from PROMETHEUS_MULTIPROC_DIR, ours from memory."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    server = make_server("thread", tmp_path, certs, "tests.apps.metrics_app:app", preload_app=False,
                         env={"PROMETHEUS_MULTIPROC_DIR": str(folder)}, **SETTINGS).start()
    try:
        orders, pids = 0, set()
        while len(pids) < 2:
            with H2Client.connect(server) as client:
                pids.add(client.get("/").text)
            orders += 1
            assert orders < 1_000
        deadline, samples = time.monotonic() + TIMEOUT, {}
        while samples.get("gunicorn_h2_requests_total") != orders:
            assert time.monotonic() < deadline, samples
            status, text = ask(server, "/metrics")
            assert status == 200
            samples = {sample.name: sample.value for family in text_string_to_metric_families(text.decode())
                       for sample in family.samples if sample.labels in ({}, {"protocol": "h2"})}
        assert samples["orders_total"] == orders
        assert samples["gunicorn_h2_workers"] == 2
        # Not even a file of a worker: the application's are theirs.
        assert {path.name for path in folder.iterdir()} == {f"counter_{pid}.db" for pid in pids}
    finally:
        server.stop()


@pytest.mark.thorough
@pytest.mark.parametrize("make", PARAMS.values(), indirect=True)
def test_reloads_and_kills_under_load(server):
    """No counter ever goes back. A reload loses nothing; a worker that is killed, what it had not reported yet."""
    server.expect("was sent SIGKILL")
    with Load(server, clients=4, path="/hello") as load:
        load.wait_answered(50)
        before = wait_for(server, lambda found: requests(found) > 100)
        old = pids_of(before)
        server.reload()
        load.wait_answered(50)
        after = wait_for(server, lambda found: requests(found) > requests(before) and not old & pids_of(found))
        grown(before["counters"], after["counters"])
    answered = load.answered
    assert load.lost == []
    settled = wait_for(server, lambda found: requests(found) >= answered)
    # A request may have been served without its client having seen the answer: it was cut off by a GOAWAY.
    assert requests(settled) <= answered + sum(client.retried for client in load.clients)

    victim, marker = min(pids_of(settled)), server.log_mark()
    os.kill(victim, signal.SIGKILL)
    server.wait_log(r"worker \d+ is ready", after=marker)
    killed = wait_for(server, lambda found: len(pids_of(found)) == 2 and victim not in pids_of(found))
    grown(settled["counters"], killed["counters"])
    assert requests(killed) == requests(settled)
    for _ in range(6):
        work(server, 5)
    last = wait_for(server, lambda found: requests(found) >= requests(settled) + 30)
    assert requests(last) == requests(settled) + 30
    wait_for(server, lambda found: found["gauges"]["connections"]["h2"] == 0)


@pytest.mark.thorough
def test_workers_that_end_of_themselves(make):
    """`max_requests`: each worker serves few requests, and their sums count all the same."""
    server = make(max_requests=20).start()
    for _ in range(15):
        work(server, 5)
    found = wait_for(server, lambda found: requests(found) >= 75)
    assert requests(found) == 75
    server.wait_settled()


@pytest.mark.thorough
def test_with_preload_app(make):
    """The application is loaded before there is a board, and before there is a worker."""
    server = make(preload_app=True).start()
    work(server, 5)
    assert wait_for(server, lambda found: requests(found) == 5)["master"] == server.pid


@pytest.mark.thorough
def test_a_reload_with_which_it_begins_to_be_served(tmp_path, certs):
    """Workers count from their start, whether or not there is an application that shows it."""
    module = tmp_path / "switched.py"
    module.write_text("from tests.apps.wsgi_app import app\n")
    server = make_server("thread", tmp_path, certs, "switched:app", pythonpath=str(tmp_path), **SETTINGS).start()
    try:
        work(server, 5)
        assert ask(server, "/status/json")[0] == 404
        module.write_text("from tests.apps.status_app import wsgi as app\n")
        server.reload()
        work(server, 5)
        assert requests(wait_for(server, lambda found: requests(found) >= 10)) == 10
    finally:
        server.stop()


def test_statsd_hears_the_counters(make):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(TIMEOUT)
        server = make(statsd_host=f"127.0.0.1:{statsd.getsockname()[1]}", statsd_prefix="shop").start()
        work(server, 12)
        heard = {}
        while heard.get("shop.gunicorn.h2.requests.h2", 0) < 12 or not heard.get("shop.gunicorn.h2.octets.sent"):
            name, value = re.fullmatch(r"([^:]+):(-?[\d.]+)\|.*", statsd.recv(4096).decode()).groups()
            heard[name] = heard.get(name, 0) + float(value)
    assert heard["shop.gunicorn.h2.requests.h2"] == 12
    assert heard["shop.gunicorn.h2.connections.h2"] == 1


def test_a_proxy_on_this_machine_opens_it_to_nobody(server):
    """As nginx sends it: the address of its client, behind what the client itself has sent."""
    with H2Client.connect(server) as client:
        assert client.get("/status/json", headers=[("x-forwarded-for", "127.0.0.1, 203.0.113.7")]).status == 403
        assert client.get("/status/json", headers=[("x-forwarded-for", "127.0.0.1")]).status == 200
        assert client.get("/status/json").status == 200


FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", "--virtual-time-budget=6000")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["thread", "asgi"])
def test_the_page_in_chromium(name, certs, tmp_path):
    """It draws the figures, over HTTP/2, within its own policy."""
    require_tool("chromium")
    server = make_server(name, tmp_path, certs, "tests.apps.status_app:{}", **SETTINGS)
    server.start()
    try:
        work(server, 20)
        wait_for(server, lambda found: requests(found) >= 20)
        chromium = functools.partial(run, "chromium", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}")
        done = chromium("--enable-logging=stderr", "--v=0", "--dump-dom", f"{server.url}/status")
        assert "Content Security Policy" not in done.stderr
        text = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", done.stdout, flags=re.S)
        assert ">live<" in text
        assert "<b>2 workers</b>" in text
        for pid in server.worker_pids:
            assert f"<td>{pid}</td>" in text
        assert text.count("<path") >= 8
        assert "NaN" not in text
        assert "undefined" not in text
    finally:
        server.stop()
