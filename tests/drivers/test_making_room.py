"""Who goes when a worker is full: the one idle longest, then those that wait for their clients, and no one else."""

import pytest

from gunicorn_h2.drivers.channel import StreamAborted
from tests.support.h2client import BIG_WINDOW, NO_ERROR, PROTOCOL_ERROR, SETTINGS, raw_frame

from .every_driver import DRIVERS, HEAD, LARGE, AnyDriver
from .rig import TIMEOUT, wait_until

LATER = 100
"""Seconds after which everything has been idle or stalled for long."""


class Crowd(AnyDriver):
    """A driver whose clock, as far as the room for others is concerned, is the test's."""

    def __init__(self, kind, certs):
        # Responses wait in memory, applications for nothing.
        super().__init__(kind, certs, stream_buffer_size=2 * LARGE)
        self.is_green = kind in ("gevent", "eventlet")
        self.real_now, self.now = self.driver._now, 0.0
        self.driver._now = lambda: self.now

    def use(self, client):
        """Make a request; return when the connection's idle time has begun, before that of any later one's."""
        assert client.get("/hello").status == 200
        assert self.routes.result() is None
        return self.outlast(client)

    def outlast(self, client):
        """Wait until an idle time that began now would be another than a connection's, which is returned."""
        since = self.call(lambda: client.holder.connection.idle_since)
        wait_until(lambda: self.call(self.real_now) > since + 0.005)
        return since

    def begin_work(self, client):
        """Make a request that is worked on."""
        stream = client.request("GET", "/work")
        assert self.routes.begun.get(timeout=TIMEOUT) == b"/work"
        return stream

    def begin_upload(self, client):
        """Make a request whose body does not come; the application waits for it."""
        # Here greenlets wait as threads do: one that waits for its client would keep the hub from all others.
        client.request("POST", "/read", [("content-length", "10")] if self.is_green else [], end=False)
        client.ping()
        if not self.is_green:
            assert self.routes.begun.get(timeout=TIMEOUT) == b"/read"

    def make_room(self, count, now):
        """Have so many go; return how many have gone."""
        self.now = now
        return self.call(self.driver.make_room, count)

    def wait_left(self, *clients):
        """Wait until only the connections of these clients are left; they are served."""
        left = {client.holder for client in clients}
        wait_until(lambda: self.holders() == left)
        for client in clients:
            client.ping()
            assert not client.goaways


@pytest.fixture(params=DRIVERS)
def crowd(request, certs):
    """Each driver."""
    crowd = Crowd(request.param, certs)
    yield crowd
    crowd.close()


def test_the_connection_that_has_been_idle_longest_goes_first(crowd, tls):
    """Not the oldest one."""
    one, two, three = (crowd.client(tls) for _ in range(3))
    since = crowd.use(two)
    for client in (one, three):
        crowd.use(client)
    assert crowd.make_room(3, since + 0.35) == 0
    assert crowd.make_room(3, since + 0.501) == 1
    assert two.wait_goaway() == (1, NO_ERROR)
    two.wait_closed()
    crowd.wait_left(one, three)
    assert crowd.make_room(1, since + LATER) == 1
    assert one.wait_goaway() == (1, NO_ERROR)
    one.wait_closed()
    crowd.wait_left(three)
    assert crowd.use(three) > since
    assert crowd.log.infos[0] == "worker_connections is nearly reached: 1 connections make room"


def test_a_connection_that_has_had_no_request_is_idle(crowd):
    unused = crowd.client()
    crowd.outlast(unused)
    used = crowd.client()
    since = crowd.use(used)
    assert crowd.make_room(1, since + LATER) == 1
    assert unused.wait_goaway() == (0, NO_ERROR)
    crowd.wait_left(used)


def test_connections_that_end_anyway_make_room(crowd):
    ending, one, two = (crowd.client() for _ in range(3))
    since = crowd.use(one)
    crowd.use(two)
    ending.send_raw(raw_frame(SETTINGS, 0, 1))
    assert ending.wait_goaway() == (0, PROTOCOL_ERROR)
    assert crowd.make_room(1, since + LATER) == 0
    assert crowd.make_room(2, since + 2 * LATER) == 1
    assert one.wait_goaway() == (1, NO_ERROR)
    ending.close()
    crowd.wait_left(two)


def test_connections_are_looked_at_ten_times_a_second(crowd):
    one, two = crowd.client(), crowd.client()
    since = crowd.use(one)
    crowd.use(two)
    assert crowd.make_room(1, since + LATER) == 1
    one.wait_closed()
    crowd.wait_left(two)
    assert crowd.make_room(1, since + LATER + 0.09) == 0
    assert crowd.make_room(1, since + LATER + 0.11) == 1
    two.wait_closed()


class Stalled:
    """Connections whose streams wait for their clients, each in its way, and some on which a request is worked on."""

    def __init__(self, crowd):
        self.crowd = crowd
        self.working, self.held, self.reading, self.unread, self.mixed = (
            crowd.client(auto_window=False) for _ in range(5))
        self.deaf = crowd.client(settings={4: 2**31 - 1}, auto_window=False)
        self.work = [crowd.begin_work(client) for client in (self.working, self.mixed)]
        # ASGI applications are called with the head; the body of the others is awaited.
        self.held.request("POST", "/read", [("content-length", "10")], end=False)
        self.held.ping()
        for client in (self.reading, self.mixed):
            crowd.begin_upload(client)
        stream = self.unread.request("GET", "/large")
        self.unread.wait_for(lambda: stream.received == 65_535, "a window full of data")
        self.deaf.grant(BIG_WINDOW)
        self.deaf.request("GET", "/large")
        wait_until(lambda: crowd.call(lambda: self.deaf.holder.connection.wants_write))
        self.since = crowd.call(crowd.real_now)

    def wait_left(self, *others):
        """Only those are left whose request is worked on, and these others; the work is done as if nothing were."""
        self.crowd.wait_left(self.working, self.mixed, *others)
        self.crowd.routes.release()
        for stream in self.work:
            assert stream.client.response(stream).text == "/work"


def test_then_connections_go_that_hold_nothing_but_stalled_streams(crowd):
    stalled = Stalled(crowd)
    idle = crowd.client()
    since = crowd.use(idle)
    assert crowd.make_room(1, since + LATER) == 1
    assert idle.wait_goaway() == (1, NO_ERROR)
    idle.wait_closed()
    assert crowd.make_room(10, since + 2 * LATER) == 4
    for client in (stalled.held, stalled.reading, stalled.unread):
        assert client.wait_goaway() == (1, NO_ERROR)
        client.wait_closed()
    stalled.wait_left()
    # The application that waited for the body hears of the end.
    while not crowd.is_green and not isinstance(crowd.routes.result(), StreamAborted):
        pass


def test_no_more_stalled_connections_go_than_are_needed(crowd):
    stalled = Stalled(crowd)
    assert crowd.make_room(1, stalled.since + LATER) == 1
    wait_until(lambda: len(crowd.holders()) == 5)


def test_streams_are_stalled_after_a_second(crowd):
    """Nothing has had to wait for longer than since the first client came."""
    began = crowd.call(crowd.real_now)
    stalled = Stalled(crowd)
    assert crowd.make_room(10, began + 0.99) == 0
    assert len(crowd.holders()) == 6
    stalled.wait_left(stalled.held, stalled.reading, stalled.unread, stalled.deaf)


def test_a_stream_that_sends_is_not_stalled(crowd):
    """Even if its application waits for more of the request meanwhile, as those of gRPC do."""
    if crowd.is_green:
        pytest.skip("here applications on greenlets cannot wait for their clients")
    client = crowd.client()
    crowd.begin_upload(client)
    connection = client.holder.connection
    (stream,) = connection.core.streams.values()
    since = stream.context.starving_since
    wait_until(lambda: crowd.call(crowd.real_now) > since + 0.005)

    def send():
        connection.core.send_headers(stream, HEAD, False)
        connection.core.send_data(stream, b"data", False)
        connection.flush()

    crowd.call(send)
    client.wait_for(lambda: client.streams[1].received == 4, "the data")
    assert crowd.make_room(1, since + 1.001) == 0
    assert crowd.make_room(1, since + LATER) == 1
    assert client.wait_goaway() == (1, NO_ERROR)


def test_negotiations_go_last(crowd):
    """Those that have begun half a second ago; a handshake that nobody goes on with is one."""
    working, reading = crowd.client(), crowd.client()
    crowd.begin_work(working)
    crowd.begin_upload(reading)
    sock = crowd.open()
    since = crowd.call(crowd.real_now)
    wait_until(lambda: crowd.make_room(1, crowd.now + since + LATER))
    reading.wait_closed()
    wait_until(lambda: len(crowd.holders()) == 2)
    assert crowd.make_room(2, crowd.now + LATER) == 1
    assert sock.recv(1) == b""
    assert crowd.driver.closings.counts["handshake_displaced"] == 1
    crowd.wait_left(working)
