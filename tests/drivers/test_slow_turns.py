"""The slow lane on each driver: what is expensive waits for its turn, and others have theirs in between."""

import contextlib
import ssl
import time
from functools import partial
from itertools import count

import pytest
from hyperframe.frame import PingFrame

from gunicorn_h2.drivers.slow_lane import Paced

from .every_driver import DRIVERS, AnyDriver, Occupied
from .rig import TIMEOUT, wait_until

TURN = 0.006
"""Seconds: longer than a round serves the lane for, so that there is one such turn in each."""


def work():
    """Use the processor for a turn."""
    until = time.thread_time() + TURN
    while time.thread_time() < until:
        pass


class Lane(AnyDriver):
    """A driver that serves connections which have been there for long, so that rounds are short."""

    def shorten_rounds(self):
        """Let the lane have a few milliseconds of the next rounds."""
        self.driver.slow_lane.served_at = time.monotonic() + TIMEOUT

    def is_slow(self, client):
        """Whether the connection's next turn is in the lane."""
        holder = client.holder
        return self.call(lambda: holder.slow if hasattr(holder, "slow") else holder._slow)

    def quick_client(self):
        """A connection whose last turn was short, which a busy machine may have to be asked for again."""
        client = self.client()
        wait_until(lambda: client.ping() or not self.is_slow(client))
        return client

    def burden(self, client, then=lambda: None):
        """Make each turn of a connection expensive; at the end of each, `then()` is called."""
        connection = client.holder.connection
        handle = connection.handle_readable

        def handle_readable():
            handle()
            work()
            then()

        self.call(setattr, connection, "handle_readable", handle_readable)

    def expensive_client(self, then=lambda: None):
        """A connection whose turns are expensive, and its next one is in the lane."""
        client = self.client()
        self.burden(client)
        client.ping()
        self.call(delattr, client.holder.connection, "handle_readable")
        self.burden(client, then)
        assert self.is_slow(client)
        return client

    def served(self, number):
        """The paths of so many requests in the order of their service."""
        return [self.routes.begun.get(timeout=TIMEOUT).decode() for _ in range(number)]


@pytest.fixture(params=DRIVERS)
def lane(request, certs):
    """Each driver; applications are called in the order in which requests are read."""
    options = {"threads": 1} if request.param == "threads" else {}
    lane = Lane(request.param, certs, **options)
    yield lane
    lane.close()


def test_others_have_their_turns_between_those_of_expensive_connections(lane):
    """All expensive ones are ready at once; in the turn of each, a request arrives on another connection."""
    quick = [lane.quick_client() for _ in range(5)]
    asked = iter(range(5))

    def ask():
        number = next(asked, None)
        if number is not None:
            quick[number].request(path=f"/quick{number}")

    expensive = [lane.expensive_client(ask) for _ in range(5)]
    with Occupied(lane):
        for number, client in enumerate(expensive):
            client.request(path=f"/expensive{number}")
        lane.shorten_rounds()
    served = lane.served(10)
    turns = [path for path in served if path.startswith("/expensive")]
    assert sorted(turns) == [f"/expensive{number}" for number in range(5)]
    for number, turn in enumerate(turns[2:]):
        # It arrives in one expensive turn; at most one more comes before it.
        assert served.index(f"/quick{number}") < served.index(turn), served


def test_expensive_connections_share_the_lane(lane):
    """One that always has something more to read lets the others have their turns."""
    others = [lane.expensive_client() for _ in range(3)]
    more = count(1)
    greedy = lane.expensive_client(lambda: greedy.request(path=f"/greedy{next(more)}"))
    with Occupied(lane):
        greedy.request(path="/greedy0")
        for number, client in enumerate(others):
            client.request(path=f"/other{number}")
        lane.shorten_rounds()
    served = []
    while len([path for path in served if path.startswith("/other")]) < 3:
        served += lane.served(1)
    assert "/greedy1" not in served[:4], served
    lane.call(delattr, greedy.holder.connection, "handle_readable")


def test_a_connection_whose_turn_was_short_is_out_of_the_lane(lane):
    client = lane.expensive_client()
    client.ping()
    assert lane.is_slow(client)
    lane.call(delattr, client.holder.connection, "handle_readable")
    # As many PINGs as that may take would cost the client its connection.
    wait_until(lambda: client.get("/hello").status == 200 and not lane.is_slow(client))


def test_a_turn_in_the_lane_is_not_taken_by_a_connection_that_is_gone(lane):
    """Its client leaves while it waits; so does one that is in the same round."""
    clients = [lane.expensive_client() for _ in range(3)]
    stays = lane.quick_client()
    with Occupied(lane):
        for client in clients:
            client.request(path="/expensive")
            client.close()
    wait_until(lambda: lane.holders() == {stays.holder})
    assert not lane.driver.slow_lane.queue
    assert stays.get("/hello").status == 200


def client_hello(context):
    """What a client sends first."""
    octets = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), octets, server_hostname="localhost").do_handshake()
    return octets.read()


class Asked:
    """Four clients that ask, one in each of the first slow turns; notes how many turns each request waits for."""

    def __init__(self, lane):
        self._lane, self._clients = lane, [lane.quick_client() for _ in range(4)]
        self._asking, self._on_request = iter(self._clients), lane.driver.on_request
        self.turns, self._turns_before = 0, []
        lane.driver.on_request = self._note_request

    def take_turn(self):
        """Be slow, and have a request arrive meanwhile."""
        self.turns += 1
        work()
        client = next(self._asking, None)
        if client is not None:
            client.request(path="/quick")

    def _note_request(self):
        self._turns_before.append(self.turns)
        self._on_request()

    def check(self):
        """Each request has waited for the turn in which it came, and for one more at most."""
        assert self._lane.served(4) == ["/quick"] * 4
        assert all(before <= number + 2 for number, before in enumerate(self._turns_before)), self._turns_before
        self._lane.driver.on_request = self._on_request


def test_handshakes_take_their_turns_in_the_lane(lane, certs):
    asked, wrap = Asked(lane), lane.rig._wrap

    def wrap_slowly(sock):
        asked.take_turn()
        return wrap(sock)

    lane.rig._wrap = wrap_slowly
    hello = client_hello(certs.client_context())
    socks = [lane.open(tls=True) for _ in range(6)]
    with Occupied(lane):
        for sock in socks:
            sock.sendall(hello)
        lane.shorten_rounds()
    asked.check()
    wait_until(lambda: asked.turns == 6)


def test_closings_take_their_turns_in_the_lane(lane):
    """Those of clients that have all left at once."""
    leaving = [lane.quick_client() for _ in range(6)]
    asked = Asked(lane)

    def lose_slowly(error, lose):
        asked.take_turn()
        lose(error)

    for client in leaving:
        connection = client.holder.connection
        lane.call(setattr, connection, "lose", partial(lose_slowly, lose=connection.lose))
    with Occupied(lane):
        for client in leaving:
            client.close()
        lane.shorten_rounds()
    asked.check()
    wait_until(lambda: asked.turns == 6 and len(lane.holders()) == 4)


def test_a_crowd_has_its_first_turns_in_the_lane(lane):
    """Clients that have all connected within a moment; later, their turns are as those of others."""
    asked = Asked(lane)
    lane.call(lambda: [lane.driver.slow_lane.leave(Paced()) for _ in range(200)])
    crowd = [lane.client() for _ in range(6)]
    assert all(lane.is_slow(client) for client in crowd)
    for client in crowd:
        lane.burden(client, asked.take_turn)
    with Occupied(lane):
        for client in crowd:
            client.send_frame(PingFrame(0, opaque_data=b"12345678"))
        lane.shorten_rounds()
    asked.check()
    wait_until(lambda: asked.turns == 6)
    for client in crowd:
        lane.call(delattr, client.holder.connection, "handle_readable")
        lane.call(client.holder.stay, 0.0)
        wait_until(lambda client=client: client.get("/hello").status == 200 and not lane.is_slow(client))


def test_a_client_that_leaves_when_its_connection_has_left_the_lane(lane):
    """As its handshake ends, with a turn there still queued."""
    client = lane.quick_client()
    holder = client.holder

    def leave():
        client.close()
        holder.connection.defer()
        holder.slow = False

    lane.call(leave)
    wait_until(lambda: not lane.holders())
