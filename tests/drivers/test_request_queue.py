"""The order of requests that wait for a thread."""

import threading
from contextlib import nullcontext, suppress
from queue import SimpleQueue
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.drivers import leadership
from gunicorn_h2.drivers.pool import RequestPool
from gunicorn_h2.drivers.request_queue import RequestQueue
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.priority import Priority
from tests.support.h2client import raw_frame

from .every_driver import Occupied
from .rig import TIMEOUT, Probe, hello, released, wait_until

PRIORITY_UPDATE = 0x10


class Connection:
    """A connection whose requests may be given other priorities, and whose client may be known to read."""

    def __init__(self, is_reading=False):
        self.priority_changes = 0
        self.is_reading = is_reading


def request(connection, urgency=3):
    """A request of a connection."""
    return connection, SimpleNamespace(stream=SimpleNamespace(current_priority=Priority(urgency)))


def put(queue, *requests):
    """Queue requests, numbered from 0."""
    queue.put((each, number) for number, each in enumerate(requests))


def take_all(queue):
    """Take all that is in a queue."""
    taken = []
    with suppress(KeyError):
        while True:
            taken.append(queue.take())
    return taken


# -- the queue -------------------------------------------------------------------------------------------------------


def test_the_most_urgent_request_of_a_connection_is_first():
    queue, connection = RequestQueue(), Connection()
    put(queue, *(request(connection, urgency) for urgency in (7, 3, 0, 3, 0)))
    assert take_all(queue) == [2, 4, 1, 3, 0]


def test_connections_take_turns():
    queue, many, few = RequestQueue(), Connection(), Connection()
    put(queue, *[request(many)] * 5, *[request(few)] * 2)
    assert take_all(queue) == [0, 5, 1, 6, 2, 3, 4]


def test_what_one_client_calls_urgent_does_not_overtake_another():
    queue, pushy, modest = RequestQueue(), Connection(), Connection()
    put(queue, request(modest, 7), *[request(pushy, 0)] * 3, request(modest, 7))
    assert take_all(queue) == [0, 1, 4, 2, 3]


def test_connections_whose_clients_read_have_four_turns_of_five():
    queue, crowd, readers = RequestQueue(), [Connection() for _ in range(4)], [Connection(True) for _ in range(2)]
    put(queue, *map(request, crowd), *[request(readers[0])] * 4, *[request(readers[1])] * 2)
    assert take_all(queue) == [4, 8, 5, 9, 0, 6, 7, 1, 2, 3]


@pytest.mark.parametrize(("crowd_reads", "most"), [(False, 1), (True, 4)])
def test_a_crowd_of_one_kind_leaves_the_other_its_turns(crowd_reads, most):
    """Whenever a client comes, so many requests of the crowd go first at the most."""
    queue = RequestQueue()
    put(queue, *[request(Connection(crowd_reads)) for _ in range(60)])
    for number in range(8):
        for _ in range(number):
            queue.take()
        queue.put([(request(Connection(not crowd_reads)), "other")])
        assert "other" in [queue.take() for _ in range(most + 1)]


def test_a_client_that_stops_reading_has_its_turn_with_the_others():
    queue, changed, others = RequestQueue(), Connection(True), [Connection() for _ in range(2)]
    put(queue, *[request(changed)] * 2, *map(request, others))
    changed.is_reading = False
    assert take_all(queue) == [0, 2, 3, 1]


def test_a_connection_that_comes_again_has_its_turn_behind_the_others():
    queue, first, second = RequestQueue(), Connection(), Connection()
    put(queue, request(first), request(second), request(second))
    assert queue.take() == 0
    queue.put([(request(first), "again")])
    assert take_all(queue) == [1, "again", 2]


def test_another_priority_takes_effect_while_a_request_waits():
    queue, connection = RequestQueue(), Connection()
    requests = [request(connection) for _ in range(3)]
    put(queue, *requests)
    requests[2][1].stream.current_priority = Priority(1)
    connection.priority_changes += 1
    assert take_all(queue) == [2, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=30), st.integers(0, 30))
def test_requests_that_are_put_back_have_the_turns_that_they_had(wanted, number):
    """Those that came earlier than all others, too."""
    queues, connections = [RequestQueue() for _ in range(2)], [Connection(index == 4) for index in range(5)]
    requests = [request(connections[index], urgency) for index, urgency in wanted]
    for queue in queues:
        put(queue, *requests)
    taken = [queues[0].take() for _ in range(min(number, len(wanted)))]
    queues[0].put_back([(requests[index], index) for index in taken])
    # The turns of those that read are counted on.
    mine, expected = take_all(queues[0]), take_all(queues[1])
    for is_reader in (False, True):
        assert [index for index in mine if (wanted[index][0] == 4) is is_reader] == [
            index for index in expected if (wanted[index][0] == 4) is is_reader
        ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=30))
def test_each_request_is_taken_once(wanted):
    queue, connections = RequestQueue(), [Connection() for _ in range(4)]
    put(queue, *(request(connections[number], urgency) for number, urgency in wanted))
    taken = take_all(queue)
    assert sorted(taken) == list(range(len(wanted)))
    for number in range(4):
        mine = [index for index in taken if wanted[index][0] == number]
        assert mine == sorted(mine, key=lambda index: (wanted[index][1], index))


# -- the driver ------------------------------------------------------------------------------------------------------


@pytest.fixture
def gate():
    """An event that is set at the end, whatever happens."""
    with released(threading.Event()) as event:
        yield event


class OneAtATime:
    """An application that notes what it serves, and waits at the gate with the first request."""

    def __init__(self, gate):
        self._gate, self.seen, self.begun = gate, [], threading.Event()

    def __call__(self, channel):
        """Serve one request."""
        path = channel.stream.head.path.decode()
        self.seen.append(path)
        if path == "/first":
            self.begun.set()
            assert self._gate.wait(TIMEOUT)
        hello(channel)


@pytest.fixture
def busy(run, gate):
    """A driver whose only thread is busy until the gate opens, its application and a client."""
    application = OneAtATime(gate)
    rig = run(Probe(application), threads=1)
    rig.call_main(lambda: setattr(rig, "alone", True))
    client = rig.client()
    client.request(path="/first")
    assert application.begun.wait(TIMEOUT)
    return rig, application, client


def test_waiting_requests_start_in_the_order_of_their_urgency(busy, gate):
    rig, application, client = busy
    values = ("u=7", "u=3", "u=0", "", "u=5, i")
    streams = [client.request(path=f"/{number}", headers=[("priority", value)] if value else ())
               for number, value in enumerate(values)]  # fmt: skip
    wait_until(lambda: len(rig.pool.tasks) == len(values))
    gate.set()
    assert [client.response(stream).status for stream in streams] == [200] * len(values)
    assert application.seen == ["/first", "/2", "/1", "/3", "/4", "/0"]


def test_a_priority_update_overtakes_while_requests_wait(busy, gate):
    rig, application, client = busy
    streams = [client.request(path=f"/{number}") for number in range(3)]
    client.send_raw(raw_frame(PRIORITY_UPDATE, 0, 0, streams[2].stream_id.to_bytes(4, "big") + b"u=1"))
    client.ping()
    wait_until(lambda: len(rig.pool.tasks) == 3)
    gate.set()
    assert [client.response(stream).status for stream in streams] == [200] * 3
    assert application.seen == ["/first", "/2", "/0", "/1"]


def test_other_connections_do_not_wait_for_a_crowd_of_requests(busy, gate):
    rig, application, client = busy
    crowd = [client.request(path=f"/crowd{number}") for number in range(50)]
    wait_until(lambda: len(rig.pool.tasks) == 50)
    other = rig.client()
    alone = other.request(path="/alone")
    wait_until(lambda: len(rig.pool.tasks) == 51)
    gate.set()
    assert other.response(alone).status == 200
    assert [client.response(stream).status for stream in crowd] == [200] * 50
    # The crowd's client has read a response by then.
    assert application.seen.index("/alone") <= 2 + 4


@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at once"])
def test_a_client_that_leaves_keeps_its_place_until_its_last_request_is_over(busy, gate, at_once):
    """Otherwise one that comes again and again could have any number of requests wait, with their bodies."""
    rig, application, client = busy
    leaving = rig.client()
    leaving.ping()
    with Occupied(rig) if at_once else nullcontext():
        for _ in range(3):
            leaving.request("POST", "/gone", body=b"body")
        if not at_once:
            wait_until(lambda: len(rig.pool.tasks) == 3)
        leaving.close()
    wait_until(lambda: len(rig.driver._registered) == 1)
    client.ping()
    assert rig.closes.value == 0
    gate.set()
    rig.closes.wait_for(1)
    assert application.seen == ["/first", *["/gone"] * 3]


def test_a_client_that_reads_does_not_wait_for_a_crowd_of_newcomers(run, gate):
    application = OneAtATime(gate)
    rig = run(Probe(application), threads=1)
    rig.call_main(lambda: setattr(rig, "alone", True))
    reader, crowd = rig.client(), [rig.client() for _ in range(20)]
    assert reader.response(reader.request(path="/before")).status == 200
    crowd[0].request(path="/first")
    assert application.begun.wait(TIMEOUT)
    streams = [(client, client.request(path="/crowd")) for client in crowd]
    wait_until(lambda: len(rig.pool.tasks) == len(crowd))
    streams.append((reader, reader.request(path="/reader")))
    wait_until(lambda: len(rig.pool.tasks) == len(streams))
    gate.set()
    assert [client.response(stream).status for client, stream in streams] == [200] * len(streams)
    assert application.seen[:3] == ["/before", "/first", "/reader"]


def test_a_client_reads_while_it_leaves_nothing_unread(run):
    connections = []

    def serve(connection, channel):
        connections.append(connection)
        channel.respond(ResponseHead(200, ()), bytes(int(channel.stream.head.path[1:])), True)

    rig = run(serve)
    client = rig.client(auto_window=False)
    client.response(client.request(path="/1"))
    (connection,) = connections
    wait_until(lambda: connection.is_reading)
    stream = client.request(path="/100000")
    client.wait_for(lambda: stream.received == 65_534, "what the connection's window allows")
    assert not connection.is_reading
    client.grant(100_000)
    client.grant(100_000, stream)
    client.response(stream)
    wait_until(lambda: connection.is_reading)


class Round:
    """A loop that reads requests in its first round, some before all others, and ends its term in the next one."""

    def __init__(self, few, many):
        self.leadership, self._rounds = None, iter([[few, many], []])

    def poll(self, timeout):
        """Start the requests of the round."""
        for requests in next(self._rounds) or [None]:
            if requests is None:
                self.leadership.resign(failed=False)
            else:
                self.leadership.start(requests)

    def run_commands(self):
        """There are none."""

    def wake(self):
        """Nobody waits."""


@pytest.mark.parametrize("slice_seconds", [TIMEOUT, 1e-9])
def test_a_leader_with_many_requests_serves_connections_in_turn(monkeypatch, slice_seconds):
    """Those that it has taken up before they became many come first; its pool goes on where it has no time."""
    monkeypatch.setattr(leadership, "FEW_REQUESTS", 2)
    monkeypatch.setattr(leadership, "_SLICE", slice_seconds)
    first, crowd, late = Connection(), Connection(), Connection()
    requests = [request(each) for each in (first, first, crowd, crowd, crowd, late)]
    seen = SimpleQueue()
    pool, loop = RequestPool(1), Round(requests[:2], requests[2:])
    loop.leadership = leadership.Leadership(pool, loop, lambda connection, channel: seen.put(connection))
    loop.leadership.serve(TIMEOUT, alone=False)
    served = [seen.get(timeout=TIMEOUT) for _ in requests]
    assert served == [first, first, crowd, late, crowd, crowd]
    loop.leadership.take_back()
    pool.shutdown()
