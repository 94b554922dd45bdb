"""Leader and followers: which thread does the I/O and runs requests, with a real driver over sockets."""

import subprocess
import sys
import threading
import time

import pytest

from gunicorn_h2.drivers import leadership
from gunicorn_h2.drivers.leadership import Leadership
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.protocol.headers import ResponseHead

from .rig import TIMEOUT, Probe, hello, read_all, released, wait_until

INITIAL_WINDOW_SIZE = 0x4
"""RFC 9113 section 6.5.2."""
LONGER_THAN_QUICK = 0.002
"""Seconds an application waits to be found slow."""


def leader(rig):
    """The thread that does the I/O."""
    return rig.call(threading.current_thread)


def pool_leads(rig):
    """Whether a thread of the pool does the I/O."""
    return leader(rig) is not rig.thread


class Threads:
    """An application that notes the thread that runs it, then serves."""

    def __init__(self, serve=hello):
        self._serve, self.seen = serve, []

    def __call__(self, connection, channel):
        """Serve one request."""
        self.seen.append(threading.current_thread())
        self._serve(channel)
        channel.finish()


@pytest.fixture
def gate():
    """An event that is set at the end, whatever happens."""
    with released(threading.Event()) as event:
        yield event


@pytest.fixture
def long_pause(monkeypatch):
    """Once the main thread has taken over it leads to the end of the test, however slow the machine is."""
    monkeypatch.setattr(leadership, "_MIN_PAUSE", 3600.0)
    monkeypatch.setattr(leadership, "_MAX_PAUSE", 3600.0)


# -- quick requests --------------------------------------------------------------------------------------------------


def test_quick_requests_run_in_the_thread_that_reads_them(run, tls):
    application = Threads()
    rig = run(application)
    client = rig.client(tls)

    def in_leader():
        application.seen.clear()
        streams = [client.request(path=f"/{number}") for number in range(20)]
        assert [client.response(stream).text for stream in streams] == [f"/{number}" for number in range(20)]
        return set(application.seen) == {leader(rig)} != {rig.thread}

    # A machine that is busy with other things makes them slow for a moment.
    wait_until(in_leader)


def test_a_response_beyond_the_buffer_is_sent_by_the_leader(run, tls):
    """It has to be sent before the application may go on; nobody else would send it."""
    application = Threads(lambda channel: channel.respond(ResponseHead(200, []), bytes(100_000), True))
    rig = run(application, stream_buffer_size=10_000)
    client = rig.client(tls, settings={INITIAL_WINDOW_SIZE: 1_000_000})
    client.grant(10_000_000)

    def by_leader():
        before = leader(rig)
        assert client.get("/").received == 100_000
        return application.seen[-1] is before is leader(rig)

    wait_until(by_leader)


def test_pieces_of_a_response_leave_at_once(run, gate):
    def serve(channel):
        channel.respond(ResponseHead(200, []), b"first", False)
        assert gate.wait(TIMEOUT)
        channel.send(b"", True)

    rig = run(Threads(serve))
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    stream = client.request()
    client.wait_for(lambda: stream.received == 5, "the first piece")
    gate.set()
    assert client.response(stream).text == "first"


def test_a_reply_of_the_leader_leaves_at_once(run, gate, monkeypatch):
    """It may do something else before it waits for the client."""
    monkeypatch.setattr(leadership, "_PATIENCE", TIMEOUT)

    def serve(channel):
        channel.respond(ResponseHead(200, []), b"", False)
        channel.send(channel.read(), False)
        assert gate.wait(TIMEOUT)
        channel.send(b"", True)

    application = Threads(serve)
    rig = run(application)
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    stream = client.open()
    client.send_raw(client.header_frames(stream.stream_id, client.fields("POST"))
                    + client.data_frame(stream.stream_id, b"reply"))
    client.wait_for(lambda: stream.received == 5, "the reply")
    gate.set()
    assert client.response(stream).text == "reply"
    assert application.seen == [leader(rig)] != [rig.thread]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_application_that_raises_costs_no_thread(run):
    def serve(channel):
        hello(channel)
        if channel.stream.head.path == b"/boom":
            raise RuntimeError("boom")

    rig = run(Threads(serve), threads=1)
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    assert client.get("/boom").status == 200
    assert client.get("/after").status == 200


# -- requests that are not --------------------------------------------------------------------------------------


def test_the_main_thread_takes_over_from_a_request_that_blocks(run, gate, tls, long_pause):
    def serve(channel):
        if channel.stream.head.path == b"/blocks":
            assert gate.wait(TIMEOUT)
        hello(channel)

    rig = run(Probe(serve))
    wait_until(lambda: pool_leads(rig))
    client, other = rig.client(tls), rig.client(tls)
    blocked = client.request(path="/blocks")
    behind = [client.request(path=f"/{number}") for number in range(3)]
    assert [client.response(stream).text for stream in behind] == ["/0", "/1", "/2"]
    assert other.get("/other").text == "/other"
    assert leader(rig) is rig.thread
    gate.set()
    assert client.response(blocked).text == "/blocks"


def test_requests_read_together_meet_when_the_first_one_waits_for_the_others(run, tls):
    barrier = threading.Barrier(8)

    def meet(channel):
        barrier.wait(TIMEOUT)
        hello(channel)

    rig = run(Probe(meet), threads=8)
    wait_until(lambda: pool_leads(rig))
    client = rig.client(tls)
    streams = [client.request(path="/x") for _ in range(8)]
    assert [client.response(stream).text for stream in streams] == ["/x"] * 8


def test_no_more_requests_than_threads_run_when_the_leader_blocks(run, gate):
    running = []

    def serve(channel):
        running.append(channel)
        assert gate.wait(TIMEOUT)
        hello(channel)

    rig = run(Probe(serve), threads=2)
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    streams = [client.request() for _ in range(5)]
    wait_until(lambda: len(running) == 2)
    client.ping()
    assert len(running) == 2
    gate.set()
    assert {client.response(stream).status for stream in streams} == {200}


@pytest.mark.parametrize("how", ["read", "write"])
def test_a_leader_that_has_to_wait_for_its_client_resigns(run, how, tls, long_pause):
    """At once, not when the main thread loses patience: who else would read what it waits for?"""
    def serve(channel):
        if how == "read":
            return read_all(channel)
        channel.respond(ResponseHead(200, []), bytes(500_000), True)
        return b"written"

    probe = Probe(serve)
    rig = run(probe)
    wait_until(lambda: pool_leads(rig))
    client = rig.client(tls, auto_window=False)
    stream = client.request("POST" if how == "read" else "GET", end=how == "write")
    probe.channel()
    assert leader(rig) is rig.thread
    if how == "read":
        client.send_body(stream, b"body")
    else:
        client.grant(1_000_000)
        client.grant(1_000_000, stream)
        assert client.response(stream).received == 500_000
    assert probe.result() == (b"body" if how == "read" else b"written")


def test_a_reply_is_sent_by_the_thread_that_made_it(run, tls, long_pause):
    """The thread that does the I/O sleeps on until the client answers."""
    senders = []

    def serve(channel):
        transport = channel._owner.transport
        send = transport.send
        transport.send = lambda data: senders.append(threading.current_thread()) or send(data)
        channel.respond(ResponseHead(200, []), b"", False)
        while piece := channel.read():
            channel.send(piece, False)
        channel.send(b"", True)

    application = Threads(serve)
    rig = run(application)
    client = rig.client(tls)
    stream = client.request("POST", end=False)
    client.wait_for(lambda: stream.status == 200, "the response")

    def by_its_maker():
        senders.clear()
        before = stream.received
        client.send_body(stream, b"question", end=False)
        client.wait_for(lambda: stream.received == before + 8, "the reply")
        return senders == application.seen

    # A machine that is busy with other things may keep the other thread from its wait.
    wait_until(by_its_maker)
    client.send_body(stream, b"")
    assert client.response(stream).status == 200


def test_requests_go_to_the_pool_when_they_are_not_quick(run, long_pause):
    """Each is over before the main thread would take over, and yet the threads should share them."""
    rig = run(Probe(lambda channel: threading.Event().wait(LONGER_THAN_QUICK) or hello(channel)))
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    for _ in range(20):
        client.get("/")
    assert leader(rig) is rig.thread


def test_the_pool_leads_again_after_a_pause(run, gate):
    rig = run(Probe(lambda channel: gate.wait(TIMEOUT) and hello(channel)))
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    stream = client.request()
    client.ping()
    assert leader(rig) is rig.thread
    gate.set()
    client.response(stream)
    wait_until(lambda: pool_leads(rig))
    assert client.get("/again").text == "/again"


# -- the only thread ----------------------------------------------------------------------------------------------


def test_the_only_thread_leaves_the_lead_for_other_work(run):
    """HTTP/1 requests come to the pool by `submit`; with one thread, that is the leader's."""
    rig = run(Probe(hello), threads=1)
    wait_until(lambda: pool_leads(rig))
    future = rig.call(rig.pool.submit, threading.current_thread)
    assert future.result(TIMEOUT) in rig.pool._threads
    assert rig.client().get("/").status == 200


# -- the main thread ----------------------------------------------------------------------------------------------


def test_the_main_thread_leads_after_the_shutdown(run):
    rig = run(Probe(hello), drain_timeout=0.2)
    client = rig.client()
    assert client.get("/").status == 200
    rig.call_main(rig.driver.shutdown)
    assert leader(rig) is rig.thread
    client.wait_closed()


def test_the_main_thread_leads_alone_when_it_is_told_to(run):
    rig = run(Probe(hello))
    wait_until(lambda: pool_leads(rig))
    rig.alone = True
    rig.driver.interrupt()
    wait_until(lambda: not pool_leads(rig))
    assert rig.client().get("/").status == 200


def test_the_lead_is_taken_back_from_a_thread_that_runs_a_request(run, gate):
    rig = run(Probe(lambda channel: gate.wait(TIMEOUT) and hello(channel)), threads=1, drain_timeout=0.2)
    wait_until(lambda: pool_leads(rig))
    client = rig.client()
    streams = [client.request() for _ in range(2)]
    rig.call_main(rig.driver.shutdown)
    gate.set()
    assert [client.response(stream).status for stream in streams] == [200, 200]


class BrokenLoop:
    """A loop whose `poll` raises in a thread of the pool."""

    def __init__(self):
        self.main, self.polls = threading.current_thread(), 0

    def poll(self, timeout):
        """Raise, or count."""
        if threading.current_thread() is not self.main:
            raise OSError("accept failed")
        self.polls += 1

    def run_commands(self):
        """There are none."""

    def wake(self):
        """Nobody waits."""


def test_what_a_leader_fails_with_is_raised_in_the_main_thread():
    pool = RequestPool(1)
    wait_until(lambda: pool.has_idle_threads)
    loop = BrokenLoop()
    leadership = Leadership(pool, loop, hello)
    with pytest.raises(OSError, match="accept failed"):
        leadership.serve(TIMEOUT, alone=False)
    leadership.serve(TIMEOUT, alone=False)
    assert loop.polls == 1
    pool.shutdown()


def test_the_main_thread_leads_when_no_thread_accepts(gate):
    """The idle thread it was offered to may be taken by other work at that moment."""
    class BusyPool(RequestPool):
        has_idle_threads = True

    pool = BusyPool(1)
    pool.run(gate.wait, TIMEOUT)
    wait_until(lambda: not pool.tasks)
    loop = BrokenLoop()
    leadership = Leadership(pool, loop, hello)
    leadership.serve(TIMEOUT, alone=False)
    leadership.serve(TIMEOUT, alone=False)
    assert loop.polls == 1
    gate.set()
    pool.shutdown()
    assert not leadership.delegated


def test_a_leader_that_has_rung_before_the_main_thread_looks_is_watched():
    """The main thread may look for the second time when it has just begun the request that will block it."""
    leadership = Leadership(RequestPool(0), BrokenLoop(), hello)
    leadership.thread = threading.get_ident()
    leadership._busy_since = time.monotonic()
    watcher = threading.Thread(target=leadership.serve, args=(3_600.0, False), daemon=True)
    watcher.start()
    wait_until(lambda: not leadership.delegated)
    watcher.join(TIMEOUT)
    assert not watcher.is_alive()


WAIT = """
import signal, time
from gunicorn_h2.drivers.leadership import _Bell

def handle(signum, frame):
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        pass

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.02)
print(_Bell().wait(0.1))
"""


def test_a_signal_whose_handler_outlasts_the_wait():
    """The main thread waits for milliseconds at a time, and a handler runs for longer on a busy machine."""
    found = subprocess.run([sys.executable, "-c", WAIT], capture_output=True, check=True, timeout=TIMEOUT)
    assert found.stdout == b"False\n"
