"""The green driver on each library: real sockets, a real hub in a thread of its own."""

import gc
import socket
import struct
import time
from queue import SimpleQueue

import greenlet
import pytest
from hyperframe.frame import PingFrame

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.protocol.headers import ResponseHead
from tests.support.h2client import CANCEL, PREFACE
from tests.support.tools import require_module

from .every_driver import Occupied
from .green_rig import GreenRig, Hub, held
from .rig import TIMEOUT, Probe, Remembering, grow_window, hello


@pytest.fixture(params=["gevent", "eventlet"])
def hub(request):
    """A running hub of each library."""
    require_module(request.param)
    hub = Hub(request.param)
    yield hub
    hub.close()


@pytest.fixture
def run(hub, certs):
    """A function that runs a driver with an application; at the end it is closed, and its log examined."""
    rigs = []

    def run(application, **options):
        rigs.append(GreenRig(hub, certs, application, **options))
        return rigs[-1]

    yield run
    for rig in rigs:
        rig.close()
    assert [error for rig in rigs for error in rig.log.errors] == []


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


class Waiting:
    """A greenlet that waits, once for each call of `wait`, and what its waiter has found."""

    def __init__(self, hub, sock):
        self.hub, self.found = hub, SimpleQueue()
        self.waiter = hub.call(hub.library.make_waiter, sock.fileno())

    def wait(self, wants_write=False, seconds=None):
        """Begin to wait."""
        self.hub.spawn(self._wait, wants_write, seconds)

    def _wait(self, wants_write, seconds):
        self.waiter.wait(wants_write, None if seconds is None else time.monotonic() + seconds)
        self.found.put((self.waiter.readable, self.waiter.writable))

    def result(self):
        """Whether the socket was readable, and whether writable."""
        return self.found.get(timeout=TIMEOUT)


@pytest.fixture
def waiting(hub, pair):
    """A waiter for one end of the pair."""
    waiting = Waiting(hub, pair[0])
    yield waiting
    hub.call(waiting.waiter.close)


def test_a_wait_ends_when_the_socket_is_readable(waiting, pair):
    for _ in range(3):
        waiting.wait()
        pair[1].send(b"x")
        assert waiting.result() == (True, False)
        pair[0].recv(1)


def test_a_wait_ends_when_the_socket_is_writable_if_that_is_wanted(waiting, pair):
    waiting.wait(wants_write=True)
    assert waiting.result() == (False, True)
    # Between two waits the hub may have found it once more.
    waiting.wait(seconds=0.01)
    waiting.result()
    waiting.wait(seconds=0.01)
    assert waiting.result() == (False, False)


def test_a_wait_ends_at_its_deadline(waiting):
    for seconds in (0.02, 0.01, 0.01, -1.0):
        waiting.wait(seconds=seconds)
        assert waiting.result() == (False, False)


def test_an_earlier_deadline_counts(waiting):
    waiting.wait(seconds=3600)
    waiting.hub.call(waiting.waiter.wake)
    waiting.result()
    waiting.wait(seconds=0.01)
    assert waiting.result() == (False, False)


def test_wake_ends_a_wait_once(waiting):
    waiting.wait()
    for _ in range(3):
        waiting.hub.call(waiting.waiter.wake)
    assert waiting.result() == (False, False)


def test_a_wake_before_the_wait_is_not_lost(waiting):
    waiting.hub.call(waiting.waiter.wake)
    waiting.hub.call(waiting.hub.sleep, 0)
    waiting.wait()
    assert waiting.result() == (False, False)


def test_readiness_while_the_owner_waits_for_something_else_is_not_lost(waiting, pair):
    """The hub must neither spin nor forget."""
    waiting.wait()
    waiting.hub.call(waiting.waiter.wake)
    waiting.result()
    pair[1].send(b"x")
    waiting.hub.call(waiting.hub.sleep, 0.01)
    waiting.wait()
    assert waiting.result() == (True, False)


def test_closing_twice_and_waking_late_do_no_harm(waiting):
    waiting.hub.call(waiting.waiter.wake)
    waiting.hub.call(waiting.waiter.close)
    waiting.hub.call(waiting.waiter.unwatch)
    waiting.hub.call(waiting.hub.sleep, 0)


# -- serving ---------------------------------------------------------------------------------------------------------


def test_requests_are_answered(run, tls):
    rig = run(Probe(hello))
    client = rig.client(tls)
    for number in range(20):
        assert client.get(f"/{number}").text == f"/{number}"
    assert rig.requests == 20


def test_streams_of_all_connections_run_side_by_side(run, hub, tls):
    inside = []

    def meet(channel):
        inside.append(channel)
        while len(inside) < 200:
            hub.sleep(0.001)
        hello(channel)

    rig = run(Probe(meet))
    clients = [rig.client(tls) for _ in range(4)]
    streams = [(client, client.request(path="/x")) for client in clients for _ in range(50)]
    assert [client.response(stream).text for client, stream in streams] == ["/x"] * 200


def test_the_greenlets_of_a_busy_moment_are_not_all_kept(run, hub):
    """The next requests find some, and no more than a hundred."""
    before = hub.call(live_greenlets)
    test_streams_of_all_connections_run_side_by_side(run, hub, False)
    kept = hub.call(live_greenlets) - before
    assert 50 < kept < 130


def live_greenlets():
    """How many greenlets there are that have not ended."""
    gc.collect()
    return sum(isinstance(thing, greenlet.greenlet) and not thing.dead for thing in gc.get_objects())


def test_more_than_the_socket_takes_waits_for_the_client(run, tls):
    probe = Probe(lambda channel: channel.respond(ResponseHead(200, []), bytes(1_000_000), True))
    rig = run(probe, stream_buffer_size=2_000_000)
    client = rig.client(tls, {4: 2**31 - 1}, deaf=True)
    client.grant(2**30)
    streams = [client.request() for _ in range(5)]
    for _ in streams:
        assert probe.result() is None
    assert [client.response(stream).received for stream in streams] == [1_000_000] * 5


def test_a_response_in_many_small_pieces_lets_others_run(run):
    """Without that, its client could not even cancel it before the buffer is full."""
    def endless(channel):
        channel.respond(ResponseHead(200, []), b"x", False)
        while True:
            channel.send(b"x", False)

    rig = run(probe := Probe(endless), stream_buffer_size=2**31 - 1)
    client = rig.client(settings={4: 2**31 - 1})
    client.grant(2**30)
    stream = client.request()
    client.wait_for(lambda: stream.received, "the first octet")
    client.reset(stream)
    assert isinstance(probe.result(), StreamAborted)


def test_http1_is_handed_over_with_what_was_read(run):
    rig = run(Probe(hello))
    rig.connect().send(b"GET / HTTP/1.1\r\n")
    sock, data = rig.handed_over.get(timeout=TIMEOUT)
    assert data == b"GET / HTTP/1.1\r\n"
    assert sock.fileno() != -1


def test_http1_by_alpn_is_handed_over(run, certs):
    rig = run(Probe(hello))
    ours, theirs = socket.socketpair()
    theirs.settimeout(TIMEOUT)
    rig.serve(ours, tls=True)
    with certs.client_context(alpn=("http/1.1",)).wrap_socket(theirs, server_hostname="localhost"):
        sock, data = rig.handed_over.get(timeout=TIMEOUT)
    assert data == b""
    assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("sent", [b"", PREFACE[:5]], ids=["nothing", "half"])
def test_negotiation_has_a_deadline(run, tls, sent):
    rig = run(Probe(hello), handshake_timeout=0.05)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(TIMEOUT)
        theirs.send(sent)
        rig.serve(ours, tls)
        assert theirs.recv(1) == b""
    rig.wait_ended()


def test_a_client_that_is_gone_before_tls(run):
    rig = run(Probe(hello))
    with socket.create_server(("127.0.0.1", 0)) as listener, \
            socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rig.serve(server, tls=True)
    rig.wait_ended()
    assert any(" by=client reason=reset " in text for text in rig.log.debugs)


def test_an_idle_connection_is_closed(run, tls):
    rig = run(Probe(hello), idle_timeout=0.05)
    client = rig.client(tls)
    client.get("/")
    client.wait_goaway()
    client.close()
    rig.wait_ended()


def test_a_request_that_the_core_answers_is_noted_in_a_greenlet_of_its_own(run):
    """Not in the connection's owner, which must not wait for a log."""
    rig = run(Probe(hello))
    client = rig.client()
    stream = client.response(client.send_fields([(":method", "CONNECT"), (":authority", "example.org:443")]))
    current, refusal = rig.refusals.get(timeout=TIMEOUT)
    assert stream.status == refusal.status == 501
    assert current not in rig.owners


@pytest.fixture
def logging(run, hub):
    """A client with a request that waits, `answer` to end that, and a log that waits for `go_on`."""
    with held(hub) as go_on, held(hub) as answer:
        def serve(channel):
            answer()
            hello(channel)

        entries = SimpleQueue()
        rig = run(Probe(serve), idle_timeout=0.05)
        client = rig.client()
        stream, aborted = client.request(path="/x"), client.request()
        client.ping()
        rig.log.debug = lambda text, *_: (entries.put(text), go_on())
        client.reset(aborted, CANCEL)
        assert "reset" in entries.get(timeout=TIMEOUT)
        yield client, stream, answer, go_on


def test_a_socket_that_is_ready_while_a_log_waits_is_read_afterwards(hub, logging):
    """Who acts for the connection waits for the log, and the hub must not spin meanwhile."""
    client, _, _, go_on = logging

    def spent():
        before = hub.call(time.thread_time)
        hub.call(hub.sleep, 0.1)
        return hub.call(time.thread_time) - before

    waiting = spent()
    client.send_frame(PingFrame(0, opaque_data=b"12345678"))
    # The garbage collector may have its turn in one of them.
    assert min(spent() for _ in range(3)) < 3 * waiting
    go_on.let_go()
    client.wait_for(lambda: client.ping_acks[-1] == b"12345678", "the answer to the second PING")


def test_an_answer_while_a_log_waits_is_sent_afterwards(hub, logging):
    client, stream, answer, go_on = logging
    answer.let_go()
    hub.call(hub.sleep, 0.01)
    go_on.let_go()
    # No later than the alarm of the negotiation, which would end any wait.
    assert client.response(stream, TIMEOUT / 2).text == "/x"
    client.wait_goaway()


# -- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_garbage_collector")
def test_nothing_keeps_a_closed_connection(run, tls):
    """No cycle: a busy worker would hold thousands of them until the garbage collector finds them."""
    remembering = Remembering()
    rig = run(remembering)
    for _ in range(3):
        client = rig.client(tls)
        assert client.get("/x").text == "/x"
        client.close()
        rig.wait_ended()
    # The library's own greenlets and timers are through by then.
    rig.client(tls).get("/x")
    assert remembering.alive() <= 2


def test_shutdown_ends_connections_when_their_requests_are_done(run, hub, tls):
    with held(hub) as wait:
        def serve(channel):
            wait()
            hello(channel)

        rig = run(Probe(serve), drain_timeout=0.1)
        busy, idle = rig.client(tls), rig.client(tls)
        idle.ping()
        stream = busy.request(path="/x")
        busy.ping()
        hub.call(rig.driver.shutdown)
        hub.call(rig.driver.shutdown)
        assert idle.wait_goaway(2)[1] == 0
        idle.wait_closed()
        idle.close()
        wait.let_go()
        assert busy.response(stream).text == "/x"
        busy.wait_goaway(2)
        busy.close()
        rig.wait_ended()
        rig.wait_ended()


def test_shutdown_does_not_wait_for_a_client_that_says_nothing(run, hub, tls):
    rig = run(Probe(hello), drain_timeout=0.05)
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(TIMEOUT)
        rig.serve(ours, tls)
        hub.call(rig.driver.shutdown)
        assert theirs.recv(1) == b""
    rig.wait_ended()


def test_a_connection_lasts_until_its_application_calls_have_returned(run, hub):
    """Else a client could start any number of them."""
    with held(hub) as wait:
        probe = Probe(lambda channel: wait())
        rig = run(probe)
        client = rig.client()
        client.request()
        probe.channel()
        client.close()
        hub.call(hub.sleep, 0.01)
        assert rig.ended.empty()
        wait.let_go()
        rig.wait_ended()


def test_windows_grow_from_the_workers_budget_until_the_calls_have_returned(run, hub):
    with held(hub) as wait:
        def read(channel):
            while not channel.aborted:
                hub.sleep(0.001)
                if channel._body:
                    channel.read()
            wait()

        rig = run(Probe(read))
        budget, clients = rig.driver.window_budget, [rig.client(auto_ping=False) for _ in range(2)]
        taken = [0]
        for client in clients:
            client.wait_settings()
            grow_window(client, client.request("POST", end=False))
            taken.append(budget.taken)
            client.close()
        assert taken == sorted({*taken, budget.taken})
        wait.let_go()
        rig.wait_ended()
        rig.wait_ended()
        assert budget.taken == 0


def test_a_killed_owner_ends_its_requests(run, hub, tls):
    ends = SimpleQueue()

    def serve(channel):
        try:
            while True:
                hub.sleep(1)
        except greenlet.GreenletExit:
            ends.put(channel.aborted)
            raise

    probe = Probe(serve)
    rig = run(probe)
    client = rig.client(tls)
    client.request()
    probe.channel()
    hub.call(hub.library.kill, rig.owners[0])
    assert ends.get(timeout=TIMEOUT) is True
    client.wait_closed()
    rig.wait_ended()


def test_a_defect_costs_one_connection(run, hub):
    """Something that the core cannot take comes from an application."""
    probe = Probe(lambda channel: channel.respond(None, b"", True))
    rig = run(probe)
    client, other = rig.client(), rig.client()
    client.request()
    client.wait_closed()
    rig.wait_ended()
    ((message, _),) = rig.log.errors
    assert "internal error" in message
    rig.log.errors.clear()
    other.ping()


def test_a_reset_reaches_the_application(run, hub):
    def serve(channel):
        while not channel.aborted:
            hub.sleep(0.001)
        return "told"

    probe = Probe(serve)
    client = run(probe).client()
    stream = client.request()
    probe.channel()
    client.reset(stream, CANCEL)
    assert probe.result() == "told"
    client.ping()


def test_a_connection_may_act_before_other_calls_run(run):
    """What an application has submitted is done when `act_now` returns; what it gives to `run` is done some time."""
    results = SimpleQueue()

    def application(connection, channel):
        done = []
        connection.submit(connection, done.append, "submitted")
        connection.act_now(connection)
        results.put(list(done))
        connection.run(lambda: results.put("run"))
        hello(channel)
        channel.finish()

    client = run(application).client()
    assert client.response(client.request(path="/x")).text == "/x"
    assert results.get(timeout=TIMEOUT) == ["submitted"]
    assert results.get(timeout=TIMEOUT) == "run"


def test_large_responses_are_made_in_the_order_of_their_requests(run):
    """Each holds those back that have been about to begin, more than once: they keep their turns."""
    begun = []

    def application(connection, channel):
        begun.append(channel.stream.stream_id)
        connection.act_now(connection)
        hello(channel)
        channel.finish()

    rig = run(application)
    client = rig.client()
    client.ping()
    with Occupied(rig):
        streams = [client.request() for _ in range(50)]
    assert [client.response(stream).status for stream in streams] == [200] * 50
    assert begun == [stream.stream_id for stream in streams]


@pytest.mark.parametrize("slow", [False, True])
def test_a_connection_that_acts_again_and_again_is_queued_once(run, slow):
    """As one does that makes a large response: the slow lane must not look longer than it is."""
    results = SimpleQueue()

    def application(connection, channel):
        (owner,) = rig.driver._owners
        owner.slow = slow
        for _ in range(5):
            connection.submit(connection, int)
            connection.act_now(connection)
        results.put((len(rig.driver.slow_lane.queue), len(rig.driver.runners.calls)))
        hello(channel)
        channel.finish()

    rig = run(application)
    client = rig.client()
    assert client.response(client.request(path="/x")).text == "/x"
    in_the_lane, elsewhere = results.get(timeout=TIMEOUT)
    assert (in_the_lane, elsewhere) == ((1, 1) if slow else (0, 1))
    assert client.ping() is None


def test_a_connection_may_end_while_it_waits_for_a_slow_turn(run, hub):
    rig = run(Probe(hello))
    client = rig.client()
    client.ping()
    owner = next(iter(rig.driver._owners))
    client.close()
    rig.wait_ended()
    hub.call(rig.driver.queue_slow_turn, owner)
    assert rig.client().ping() is None
    assert not rig.driver.slow_lane.queue
