"""Streams that limits end while their connections go on: counted and logged, on each driver."""

import threading

import pytest

from tests.support.h2client import CANCEL, ENHANCE_YOUR_CALM, NO_ERROR, REFUSED_STREAM, raw_frame

from .every_driver import DRIVERS, LARGE, AnyDriver
from .rig import TIMEOUT, wait_until

TIME = 0.3
"""Seconds that streams may go without progress."""


@pytest.fixture(params=DRIVERS)
def serve(request, certs):
    """A function that runs each driver."""
    drivers = []

    def serve(**config):
        drivers.append(AnyDriver(request.param, certs, stream_buffer_size=2 * LARGE, **config))
        drivers[-1].is_green = request.param in ("gevent", "eventlet")
        return drivers[-1]

    yield serve
    for driver in drivers:
        driver.close()


def wait_counted(driver, limit, line=None):
    """The limit has been counted, once, with a line in the log if one is expected."""
    wait_until(lambda: driver.driver.closings.resets.counts)
    assert driver.driver.closings.resets.counts == {limit: 1}
    assert len(driver.log.warnings) == (line is not None)
    if line is not None:
        (warning,) = driver.log.warnings
        assert warning.startswith("HTTP/2 stream 1 of ")
        assert warning.endswith(f" was reset: {line}")
    assert not driver.driver.closings.counts


def dribble(client, stream):
    """Send a body an octet at a time, until there is an answer."""
    while not stream.done:
        client.send_body(stream, b"x", end=False)
        client.ping()
        threading.Event().wait(0.02)


def test_a_client_that_stops_reading(serve):
    driver = serve(stream_timeout=TIME)
    client = driver.client(auto_window=False)
    assert client.get("/large").reset == CANCEL
    wait_counted(driver, "read_timeout", "the client stopped reading")
    assert not client.holder.connection.is_reading
    assert client.get("/hello").status == 200


def test_a_client_that_reads_too_slowly(serve):
    driver = serve(stream_timeout=TIME, min_read_rate=1_000_000)
    client = driver.client(auto_window=False)
    stream = client.request("GET", "/large")
    client.grant(100_000)
    while not stream.done:
        client.grant(1, stream)
        client.ping()
        threading.Event().wait(0.02)
    assert stream.reset == CANCEL
    wait_counted(driver, "read_rate", "the client reads too slowly")
    assert not client.holder.connection.is_reading
    assert client.get("/hello").status == 200


def test_a_body_that_comes_too_slowly_is_answered(serve):
    """The log has a line about the request that is refused, which is that of any other."""
    driver = serve(stream_timeout=TIME, min_body_rate=1_000_000, request_buffer_size=1_000)
    client = driver.client()
    stream = client.request("POST", "/read", [("content-length", "1000")], end=False)
    dribble(client, stream)
    assert stream.status == 408
    wait_counted(driver, "body_rate")
    assert client.get("/hello").status == 200


def test_a_body_that_comes_too_slowly_when_the_response_has_begun(serve):
    driver = serve(stream_timeout=TIME, min_body_rate=1_000_000, request_buffer_size=0)
    client = driver.client()
    stream = client.request("POST", "/begin", [("content-length", "1000")], end=False)
    assert client.wait_headers(stream).status == 200
    assert client.response(stream).reset == CANCEL
    wait_counted(driver, "body_rate", "the client sends its body too slowly")
    assert client.get("/hello").status == 200


def test_a_body_that_comes_too_slowly_for_an_application_that_reads_it(serve):
    """However few octets it has taken, of which the driver returns no credit yet."""
    driver = serve(stream_timeout=TIME, min_body_rate=1_000_000, request_buffer_size=0)
    if driver.is_green:
        pytest.skip("here applications on greenlets cannot wait for their clients")
    client = driver.client()
    stream = client.request("POST", "/read", [("content-length", "100")], end=False)
    dribble(client, stream)
    assert stream.status == 408
    wait_counted(driver, "body_rate")
    assert driver.routes.result().args


def test_a_body_of_no_declared_length_that_stops(serve):
    """The application waits for it."""
    driver = serve(stream_timeout=TIME)
    if driver.is_green:
        pytest.skip("here applications on greenlets cannot wait for their clients")
    client = driver.client()
    stream = client.request("POST", "/read", end=False)
    assert client.response(stream).reset == CANCEL
    wait_counted(driver, "body_timeout", "the client stopped sending")
    assert driver.routes.result().args
    assert client.get("/hello").status == 200


def test_streams_beyond_the_limit(serve):
    driver = serve(max_concurrent_streams=1)
    client = driver.client()
    work = client.request("GET", "/work")
    assert driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    assert client.get("/hello").reset == REFUSED_STREAM
    wait_counted(driver, "too_many_streams")
    driver.routes.release()
    assert client.response(work).status == 200


@pytest.mark.parametrize(("fields", "limit"), [
    ([("x", str(number)) for number in range(101)], "too_many_fields"), ([("x", "y" * 5_000)], "headers_too_large"),
])
def test_header_sections_beyond_the_limit(serve, fields, limit):
    driver = serve(max_header_list_size=5_000)
    client = driver.client()
    assert client.get("/hello", fields).status == 431
    wait_counted(driver, limit)
    assert client.get("/hello").status == 200


def test_trailers_beyond_the_limit(serve):
    driver = serve(max_header_list_size=5_000)
    client = driver.client()
    stream = client.request("POST", "/work", [("te", "trailers")], end=False)
    assert driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    client.send_raw(client.header_frames(stream.stream_id, [("x", "y" * 6_000)], end_stream=True))
    assert client.response(stream).reset == ENHANCE_YOUR_CALM
    wait_counted(driver, "trailers_too_large", "too many or too large trailers")


def test_connections_that_have_had_their_requests(serve):
    """They end without an error, and are counted."""
    driver = serve(max_requests_per_connection=3)
    client = driver.client()
    for _ in range(3):
        assert client.get("/hello").status == 200
    assert client.wait_goaway(2) == (5, NO_ERROR)
    client.wait_closed()
    wait_until(lambda: driver.driver.closings.counts)
    assert driver.driver.closings.counts == {"max_requests": 1}
    assert driver.log.warnings == []


def test_connections_of_an_age(serve):
    driver = serve(max_connection_age=TIME)
    client = driver.client()
    assert client.wait_goaway(2) == (0, NO_ERROR)
    client.wait_closed()
    wait_until(lambda: driver.driver.closings.counts)
    assert driver.driver.closings.counts == {"max_age": 1}


def test_connections_that_begin_together_do_not_retire_together(serve):
    """Each has a jitter of its own, of a tenth of the age at most."""
    age = 100_000
    driver = serve(max_connection_age=age, idle_timeout=10 * age, keepalive_interval=0)
    connections = [driver.client().holder.connection for _ in range(20)]
    left = driver.call(lambda: [connection.core.next_deadline() - connection.now() for connection in connections])
    # The connections were opened within TIMEOUT, which is nothing to these ages.
    assert 0.9 * age - TIMEOUT <= min(left)
    assert max(left) <= 1.1 * age
    assert max(left) - min(left) > 0.02 * age


def test_clients_that_have_vanished(serve):
    """They are not reset but gone; the application is told, and the log."""
    driver = serve(keepalive_interval=TIME, keepalive_timeout=TIME)
    client = driver.client(auto_ping=False)
    client.request("GET", "/work")
    assert driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    assert client.wait_goaway() == (1, NO_ERROR)
    client.wait_closed()
    wait_until(lambda: driver.driver.closings.counts)
    assert driver.driver.closings.counts == {"keepalive_timeout": 1}
    (warning,) = driver.log.warnings
    assert warning.startswith("HTTP/2 connection from ")
    assert warning.endswith(" closed: the client does not answer PINGs")
    assert not driver.driver.closings.resets.counts
    driver.routes.release()
    assert driver.routes.result().args


def test_what_a_client_does_itself_is_counted_nowhere(serve):
    """It cancels, or makes a mistake that is no limit's business."""
    driver = serve()
    client = driver.client()
    stream = client.request("GET", "/work")
    assert driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    client.reset(stream)
    stream = client.request("POST", "/work", end=False)
    client.send_raw(raw_frame(8, 0, stream.stream_id, bytes(4)))
    assert client.response(stream).reset == 1
    client.ping()
    assert not driver.driver.closings.resets.counts
    assert driver.log.warnings == []
