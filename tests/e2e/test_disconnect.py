"""Clients that break off: the application learns of it by the documented exception, and no thread stays busy."""

import pytest

from tests.support.checks import assert_aborted, prove_all_free, records, wait_idle
from tests.support.h2client import CANCEL, INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR, H2Client

compat = pytest.mark.compat


@pytest.fixture(autouse=True)
def no_thread_left_busy(wsgi):
    """After each test every application call has ended and every pool thread is free."""
    yield
    wait_idle(wsgi)
    prove_all_free(wsgi, 4)


def break_off(client, stream, how):
    """Reset the stream, or drop the connection."""
    if how == "reset":
        client.reset(stream, CANCEL)
    else:
        client.close()


HOW = pytest.mark.parametrize("how", ["reset", "disconnect"])


@compat
@HOW
def test_while_the_application_reads(wsgi, key, how):
    """The application has read everything and waits for more."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        stream = client.request("POST", f"/count?key={key}&size=1000", end=False)
        client.send_body(stream, b"x" * 60_000, end=False)
        client.wait_for(lambda: client.room(stream) > 30_000, "credit for what was read")
        break_off(client, stream, how)
        (record,) = records(wsgi, key)
        assert_aborted(record, stream, CANCEL if how == "reset" else None)


@HOW
def test_before_the_application_reads(wsgi, gate, key, how):
    """The reset comes first; the read fails although bytes had arrived."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", gate.path("/gate-read", key=key), body=b"x" * 10, end=False)
        gate.wait_inside()
        break_off(client, stream, how)
        with H2Client.connect(wsgi) as other:
            other.get("/hello")
        if how == "reset":
            client.ping()
        gate.release()
        (record,) = records(wsgi, key)
        assert_aborted(record, stream)


@compat
@HOW
def test_while_the_application_waits_for_the_window(wsgi, key, how):
    """Its response is of a type that is not stored."""
    with H2Client.connect(wsgi, auto_window=False) as client:
        stream = client.request("GET", f"/bytes?n=10000000&key={key}&type=text/event-stream")
        client.wait_for(lambda: stream.received == 65_535, "a window full of data")
        break_off(client, stream, how)
        (record,) = records(wsgi, key)
        assert_aborted(record, stream, CANCEL if how == "reset" else None)


@HOW
def test_before_the_application_writes(wsgi, gate, key, how):
    with H2Client.connect(wsgi) as client:
        stream = client.request("GET", gate.path("/gate-write", key=key, n=10_000_000))
        gate.wait_inside()
        break_off(client, stream, how)
        with H2Client.connect(wsgi) as other:
            other.get("/hello")
        if how == "reset":
            client.ping()
        gate.release()
        (record,) = records(wsgi, key)
        assert_aborted(record, stream)


@HOW
def test_an_iterable_is_closed_once(wsgi, key, how):
    """The application has no write() that could raise, but its iterable is closed."""
    with H2Client.connect(wsgi, auto_window=False) as client:
        stream = client.request("GET", f"/yield?n=10000000&key={key}")
        client.wait_for(lambda: stream.received == 65_535, "a window full of data")
        break_off(client, stream, how)
        assert records(wsgi, key) == ["close"]


def test_a_reset_of_a_waiting_request(wsgi, gate, key, worker):
    """A request that is reset before a thread was free for it."""
    if not worker.has_threads:
        pytest.skip("a worker without threads to run out of")
    with H2Client.connect(wsgi) as client:
        inside = [client.request("GET", gate.path("/gate")) for _ in range(4)]
        gate.wait_inside(4)
        waiting = client.request("POST", f"/count?key={key}", end=False)
        client.reset(waiting)
        client.ping()
        gate.release()
        assert all(client.response(stream).status == 200 for stream in inside)
        assert client.get("/hello").status == 200


def test_a_disconnect_with_many_streams(wsgi):
    """Fifty requests in every state, then the client is gone."""
    with H2Client.connect(wsgi, auto_window=False) as client:
        for number in range(50):
            if number % 2:
                client.request("GET", "/bytes?n=100000")
            else:
                # Of these, every other one is not held until its body is complete.
                headers = [("content-length", "100")] if number % 4 else []
                client.request("POST", "/count", headers, body=b"x", end=False)
        client.ping()


@pytest.mark.parametrize("half_open", [True, False])
def test_half_a_frame_and_gone(wsgi, half_open):
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/count", end=False)
        client.send_raw(client.data_frame(stream.stream_id, b"x" * 1000)[:500])
        if half_open:
            client.sock.shutdown(1)
            client.wait_for(lambda: client.closed, "the server's end")


@pytest.mark.parametrize(("announced", "sent"), [(10, 5), (10, 15), (10, 0), (0, 5)])
def test_a_content_length_that_lies(wsgi, key, announced, sent):
    """RFC 9113 section 8.1.1: malformed; the application, if it was called, gets no end of the body."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", f"/count?key={key}", [("content-length", str(announced))], end=False)
        client.send_raw(client.data_frame(stream.stream_id, b"x" * sent, end_stream=True))
        client.response(stream)
        assert stream.reset == PROTOCOL_ERROR or (announced == 0 and stream.status == 200 and stream.reset)
        assert client.get("/hello").status == 200


def test_a_content_length_without_a_body(wsgi):
    with H2Client.connect(wsgi) as client:
        stream = client.send_fields(client.fields("POST", "/count", [("content-length", "10")]), end_stream=True)
        assert client.response(stream).reset == PROTOCOL_ERROR
        assert client.get("/hello").status == 200


@pytest.mark.parametrize("value", ["-1", "+5", "5,5", "5, 6", "abc", "", "0x5", "5 ", "9" * 30])
def test_content_lengths_that_are_none(wsgi, value):
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/count", [("content-length", value)], body=b"12345")
        client.response(stream)
        assert stream.reset == PROTOCOL_ERROR or stream.status == 400, (value, stream.status, stream.reset)
        assert client.get("/hello").status == 200


def test_two_content_lengths(wsgi):
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/count", [("content-length", "5"), ("content-length", "6")], body=b"12345")
        client.response(stream)
        assert stream.reset == PROTOCOL_ERROR or stream.status == 400
        assert client.get("/hello").status == 200


def test_an_upload_broken_off_after_the_response(wsgi):
    """The response is complete; RST_STREAM from either side changes nothing."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/unread", body=b"x" * 100, end=False)
        client.wait_for(lambda: stream.ended, "the response")
        client.reset(stream)
        client.ping()
        assert stream.text == "unread\n"
        assert stream.reset in (None, NO_ERROR)


def test_the_client_stops_reading_a_failing_response(wsgi, key):
    """An error in the application while its output is still waiting for the window."""
    wsgi.expect("DeliberateError: secret")
    with H2Client.connect(wsgi, settings={4: 0}) as client:
        stream = client.request("GET", "/restarted-late?n=30000")
        client.wait_headers(stream)
        client.response(stream)
        assert stream.reset == INTERNAL_ERROR


def test_data_after_the_reset_is_ignored(wsgi, gate):
    """Frames already on their way when we reset a stream are no error (RFC 9113 section 5.1)."""
    with H2Client.connect(wsgi) as client:
        stream = client.request("POST", "/unread", end=False)
        client.wait_for(lambda: stream.reset is not None, "RST_STREAM")
        client.send_raw(client.data_frame(stream.stream_id, b"x" * 10_000))
        client.send_raw(client.data_frame(stream.stream_id, b"x" * 10_000, end_stream=True))
        client.ping()
        assert client.get("/hello").status == 200
        assert client.goaways == []


def test_credit_of_discarded_bodies_comes_back(wsgi):
    """Bodies that no one reads do not use up the connection's window."""
    with H2Client.connect(wsgi) as client:
        client.wait_settings()
        for _ in range(60):
            stream = client.request("POST", "/unread", end=False)
            client.wait_for(lambda: client.send_window >= 60_000, "connection window")
            client.send_raw(b"".join(client.data_frame(stream.stream_id, b"x" * 15_000) for _ in range(4)))
            client.send_window -= 60_000
            client.wait_for(lambda stream=stream: stream.done, "the response")
        assert client.post("/count", b"x" * 200_000).text == '{"length": 200000}'
