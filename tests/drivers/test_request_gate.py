"""A crowd of requests on each driver: connections take turns, and each has its most urgent request served first."""

import pytest

from .every_driver import DRIVERS, AnyDriver, Occupied
from .rig import TIMEOUT

CROWD, EACH = 6, 90
"""Connections, and the requests of each: more at once than begin in the order in which they come."""
EARLIER = 130
"""Requests, of which the last ones are held back."""
FIRST = 200
"""Of all requests, the many that may begin before one that came last: those of a millisecond, and a few turns."""


@pytest.fixture(params=DRIVERS)
def driver(request, certs):
    """Each driver."""
    options = {"threads": 1} if request.param == "threads" else {}
    driver = AnyDriver(request.param, certs, max_concurrent_streams=EARLIER + 5, **options)
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
