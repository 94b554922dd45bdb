"""Connections whose clients do not read: what leaves the memory, when, and what is freed by whatever ends a stream."""

import threading

import pytest

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.spool import BLOCK_SIZE
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.headers import ResponseHead
from tests.support.h2client import PATTERN

from .rig import Probe, wait_until

HEAD = ResponseHead(200, [])
SIZE = 20 * len(PATTERN)
SPOOL = {"worker_spool_size": 1 << 26, "stream_buffer_size": 10_000}
WINDOW = 65_535


def whole(channel):
    """Answer with a large body in one piece."""
    channel.respond(HEAD, PATTERN * 20, True)
    return "returned"


def pieces(channel):
    """Answer with the same in pieces of 1 000 octets and of 20 000."""
    channel.respond(HEAD, b"", False)
    data, position = memoryview(PATTERN * 20), 0
    while position < SIZE:
        size = 1_000 if position % 7 else 20_000
        channel.send(bytes(data[position:position + size]), False)
        position += size
    channel.send(b"", True)
    return "returned"


@pytest.fixture(params=[whole, pieces])
def stalled(request, run):
    """A rig whose only client has asked for a large response and reads the first window; the application is back."""
    probe = Probe(request.param)
    rig = run(probe, **SPOOL)
    client = rig.client(auto_window=False)
    stream = client.request()
    client.wait_for(lambda: stream.received == WINDOW, "what the window allows")
    assert probe.result() == "returned"
    return rig, client, stream


def test_what_was_spooled_arrives(stalled):
    rig, client, stream = stalled
    assert rig.driver.spool.octets > SIZE - WINDOW - 10_000 - 2 * 65_536
    client.auto_window = True
    client.grant(WINDOW)
    client.grant(WINDOW, stream)
    client.response(stream)
    assert (stream.body, stream.ended) == (PATTERN * 20, True)
    assert rig.driver.spool.octets == 0


@pytest.mark.parametrize("way", ["reset", "leave", "shutdown"])
def test_the_disk_is_free_when_no_one_needs_it(stalled, way):
    rig, client, stream = stalled
    if way == "reset":
        client.reset(stream)
        client.ping()
    elif way == "leave":
        client.close()
    else:
        rig.stop()
    wait_until(lambda: rig.driver.spool.octets == 0)


@pytest.mark.parametrize("make", [whole, pieces])
def test_the_client_stalls_for_too_long(run, make):
    rig = run(Probe(make), stream_timeout=0.3, **SPOOL)
    client = rig.client(auto_window=False)
    assert client.response(client.request()).reset == ErrorCode.CANCEL
    wait_until(lambda: rig.driver.spool.octets == 0)


def test_a_reset_while_the_application_writes_to_the_file(run, monkeypatch):
    """What it has written by then has no stream to go to."""
    rig = run(probe := Probe(whole), **SPOOL)
    store, writing, may_write = rig.driver.spool.store, threading.Event(), threading.Event()

    def store_late(data):
        writing.set()
        may_write.wait()
        return store(data)

    monkeypatch.setattr(rig.driver.spool, "store", store_late)
    client = rig.client(auto_window=False)
    stream = client.request()
    assert writing.wait(10)
    client.reset(stream)
    client.ping()
    may_write.set()
    probe.result()
    wait_until(lambda: rig.driver.spool.octets == 0)


def test_an_event_stream_waits_for_its_client(run):
    """It fills neither the file nor a thread's time; when the client reads again, it goes on where it was."""
    paused = threading.Event()

    def events(channel):
        channel.respond(HEAD, b"", False)
        for _ in range(10):
            channel.send(b"event", False)
            paused.wait(0.05)
        channel.send(b"", True)
        return "returned"

    probe = Probe(events)
    rig = run(probe, **SPOOL)
    client = rig.client(auto_window=False, settings={0x4: 0})
    stream = client.request()
    client.wait_headers(stream)
    channel = probe.channel()
    wait_until(lambda: channel.stream.drains)
    assert channel.stream.queued <= 15
    paused.set()
    client.grant(100, stream)
    client.response(stream)
    assert (stream.text, probe.result()) == ("event" * 10, "returned")


def test_an_event_stream_ends_with_its_client(run):
    def events(channel):
        channel.respond(HEAD, b"", False)
        while True:
            channel.send(b"event", False)
            threading.Event().wait(0.02)

    rig = run(probe := Probe(events), **SPOOL)
    client = rig.client(auto_window=False, settings={0x4: 0})
    stream = client.request()
    channel = probe.channel()
    wait_until(lambda: channel.stream.drains)
    client.reset(stream)
    assert isinstance(probe.result(), StreamAborted)


# -- the worker's memory -----------------------------------------------------------------------------------------------


def small(channel):
    """Answer with what a stream's buffer takes; no application waits."""
    channel.respond(HEAD, PATTERN[:50_000], True)


def count_queued(rig):
    """The octets in memory, and in the file."""
    return rig.driver.output_budget.used, rig.driver.spool.octets


def test_the_memory_of_a_worker_is_bounded(run):
    """Each connection moves its own; those below the bound stay where they are."""
    rig = run(Probe(small), worker_spool_size=1 << 26, worker_buffer_size=500_000)
    clients = [rig.client(auto_window=False, settings={0x4: 0}) for _ in range(4)]
    streams = [[client.request() for _ in range(10)] for client in clients]
    wait_until(lambda: sum(count_queued(rig)) >= 40 * 50_000 and count_queued(rig)[0] <= 500_000)
    for client, asked in zip(clients, streams, strict=True):
        for stream in asked:
            client.grant(50_000, stream)
        client.grant(1_000_000)
        assert [client.response(stream).body for stream in asked] == [PATTERN[:50_000]] * 10
    wait_until(lambda: count_queued(rig) == (0, 0))


def test_a_socket_that_nobody_reads(run, tls):
    """No window is shut: the kernel takes no more."""
    rig = run(Probe(small), worker_spool_size=1 << 26, worker_buffer_size=100_000)
    client = rig.client(tls, settings={0x4: 2**31 - 1})
    client.wait_settings()
    client.grant(2**31 - 1 - WINDOW)
    streams = [client.request() for _ in range(90)]
    wait_until(lambda: rig.driver.spool.octets > 0)
    wait_until(lambda: count_queued(rig)[0] <= 100_000)
    assert [client.response(stream).body for stream in streams] == [PATTERN[:50_000]] * 90
    wait_until(lambda: count_queued(rig) == (0, 0))


@pytest.mark.parametrize("short", [False, True])
def test_what_a_socket_does_not_take_is_in_memory_as_well(run, tls, short):
    """The shorter the memory is, the less is taken out of the queues at a time."""
    rig = run(Probe(small), worker_buffer_size=1 << 24)
    client = rig.client(tls, settings={0x4: 2**31 - 1})
    client.wait_settings()
    client.grant(2**31 - 1 - WINDOW)
    budget, others = rig.driver.output_budget, 1 << 25 if short else 0
    budget.used = others
    for _ in range(90):
        client.request()

    def in_memory():
        (connection,) = [holder.connection for holder in rig.driver._holders()]
        queued = sum(stream.queued for stream in connection.core.streams.values())
        assert not short or len(connection._unsent) <= 82_000
        return len(connection._unsent), budget.used - others - queued - len(connection._unsent)

    def is_in_memory():
        unsent, missing = rig.call(in_memory)
        return unsent > 0 == missing

    wait_until(lambda: rig.requests == 90)
    wait_until(is_in_memory)
    client.close()
    wait_until(lambda: budget.used == others)


def test_a_full_file_leaves_the_rest_in_memory(run):
    rig = run(Probe(small), worker_spool_size=10 * BLOCK_SIZE, worker_buffer_size=10_000)
    client = rig.client(auto_window=False, settings={0x4: 0})
    streams = [client.request() for _ in range(10)]
    wait_until(lambda: sum(count_queued(rig)) >= 10 * 50_000 and count_queued(rig)[1] >= 8 * BLOCK_SIZE)
    client.ping()
    client.grant(1_000_000)
    for stream in streams:
        client.grant(50_000, stream)
    assert [client.response(stream).body for stream in streams] == [PATTERN[:50_000]] * 10
    wait_until(lambda: count_queued(rig) == (0, 0))


def test_responses_do_not_gather_in_front_of_a_busy_leader(run):
    """Threads that have made too many of them wait for it."""
    go = threading.Event()

    def late(channel):
        go.wait(10)
        channel.respond(HEAD, PATTERN[:50_000], True)

    rig = run(Probe(late), threads=4, max_concurrent_streams=200)
    client = rig.client(settings={0x4: 100_000})
    client.wait_settings()
    client.grant(2**30)
    streams = [client.request() for _ in range(150)]
    wait_until(lambda: rig.requests == 150)
    wait_until(lambda: not rig.driver._leadership.delegated)
    with rig.driver.lock:
        go.set()
        wait_until(lambda: len(rig.driver._commands) > 64)
        threading.Event().wait(0.05)
        assert len(rig.driver._commands) <= 64 + 4
    assert [client.response(stream).body for stream in streams] == [PATTERN[:50_000]] * 150


@pytest.mark.parametrize("make", [whole, pieces])
def test_a_short_memory_is_noticed_at_once(run, make):
    """The thread acts for its connection itself, and need not wait to know that the client has stalled."""
    rig = run(probe := Probe(make), worker_buffer_size=100_000, **SPOOL)
    client = rig.client(auto_window=False, settings={0x4: 0})
    stream = client.request()
    assert probe.result() == "returned"
    client.ping()
    assert rig.driver.output_budget.used <= 100_000
    client.grant(SIZE)
    client.grant(SIZE, stream)
    assert client.response(stream).body == PATTERN * 20
