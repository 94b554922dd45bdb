"""A crowd of requests on each driver: connections take turns, and each has its most urgent request served first."""

import pytest
from hyperframe.frame import PingFrame

from .every_driver import DRIVERS, AnyDriver, Occupied
from .rig import TIMEOUT, wait_until

CROWD, EACH = 6, 90
"""Connections, and the requests of each: more at once than begin in the order in which they come."""
EARLIER = 130
"""Requests, of which the last ones are held back."""
SPOOL_SIZE = 1_000_000_000
LARGE_ONES = 10
"""Requests for large responses, of one connection each."""
FIRST = 200
"""Of all requests, the many that may begin before one that came last: those of a millisecond, and a few turns."""


@pytest.fixture(params=DRIVERS)
def driver(request, certs):
    """Each driver."""
    options = {"threads": 1} if request.param == "threads" else {}
    driver = AnyDriver(
        request.param, certs, max_concurrent_streams=EARLIER + 5, worker_spool_size=SPOOL_SIZE, **options)  # fmt: skip
    yield driver
    driver.close()


def test_a_crowd_keeps_no_other_client_waiting(driver):
    crowd, other = [driver.client() for _ in range(CROWD)], driver.client()
    with Occupied(driver):
        streams = [(client, [client.request(path=f"/{number}") for number in range(EACH)]) for client in crowd]
        alone = other.request(path="/alone")
    begun = [driver.routes.begun.get(timeout=TIMEOUT) for _ in range(CROWD * EACH + 1)]
    assert begun.index(b"/alone") < FIRST
    assert other.response(alone).text == "/alone"
    for client, requests in streams:
        assert [client.response(stream).text for stream in requests] == [f"/{number}" for number in range(EACH)]


def test_the_most_urgent_request_of_a_connection_begins_first(driver):
    """Apart from those that begin in the order in which they come."""
    client, values = driver.client(), ("u=7", "u=5", "u=1", "u=3", "u=0, i")
    with Occupied(driver):
        for number in range(EARLIER):
            client.request(path=f"/{number}", headers=[("priority", "u=0")])
        for value in values:
            client.request(path=f"/{value[:3]}", headers=[("priority", value)])
    begun = [driver.routes.begun.get(timeout=TIMEOUT) for _ in range(EARLIER + len(values))]
    assert [path for path in begun if path.startswith(b"/u")] == [b"/u=0", b"/u=1", b"/u=3", b"/u=5", b"/u=7"]


@pytest.mark.parametrize("driver", ["gevent"], indirect=True)
def test_large_responses_for_newcomers_keep_no_client_waiting_that_reads(driver):
    """They are few enough to begin in the order in which they come, but each of them takes long."""
    reader, crowd = driver.client(), [driver.client(auto_window=False) for _ in range(LARGE_ONES)]
    assert reader.response(reader.request(path="/before")).status == 200
    with Occupied(driver):
        for client in crowd:
            client.request(path="/large")
        last = reader.request(path="/reader")
    assert reader.response(last).text == "/reader"
    begun = [driver.routes.begun.get(timeout=TIMEOUT) for _ in range(LARGE_ONES + 2)]
    assert begun.index(b"/reader") < LARGE_ONES / 2
    assert begun.count(b"/large") == LARGE_ONES


@pytest.mark.parametrize("waiting", [True, False], ids=["waiting", "idle"])
def test_many_records_have_one_turn_while_requests_wait(driver, waiting):
    """Turns are rare then: with one record in each, a client that asks again and again would fall ever further back."""
    client, pings = driver.client(tls=True), 5
    if waiting and hasattr(driver.driver, "gate"):
        driver.call(setattr, driver.driver.gate, "waiting", 1)
    elif waiting:
        other = driver.client()
        for _ in range(2):
            other.request(path="/work")
        wait_until(lambda: len(driver.driver._pool.tasks) == 1)
    connection, turns = client.holder.connection, []
    handle = connection.handle_readable
    driver.call(setattr, connection, "handle_readable", lambda: turns.append(1) or handle())
    with Occupied(driver):
        for _ in range(pings):
            client.send_frame(PingFrame(0, opaque_data=b"12345678"))
    client.wait_for(lambda: client.ping_acks.count(b"12345678") == pings, "the answers")
    assert len(turns) == (1 if waiting else pings)
    driver.call(delattr, connection, "handle_readable")
    if waiting and hasattr(driver.driver, "gate"):
        driver.call(setattr, driver.driver.gate, "waiting", 0)
