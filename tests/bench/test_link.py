"""The delaying proxy: a line's arithmetic, and octets through real sockets."""

import hashlib
import random
import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from bench.link import QUEUE_SECONDS, Line, Link, delayed

FAST = Link(round_trip=0.05, rate=1e9)


def test_octets_arrive_half_a_round_trip_after_they_were_put_on_the_line():
    line = Line(Link(round_trip=0.05, rate=1000.0))
    assert line.transmit(100, now=10.0) == pytest.approx(10.0 + 0.1 + 0.025)


def test_octets_wait_for_those_before_them():
    line = Line(Link(round_trip=0.05, rate=1000.0))
    line.transmit(100, now=10.0)
    assert line.transmit(50, now=10.0) == pytest.approx(10.0 + 0.15 + 0.025)
    assert line.transmit(50, now=20.0) == pytest.approx(20.0 + 0.05 + 0.025)


def test_a_full_queue_takes_nothing():
    line = Line(Link(round_trip=0.05, rate=1000.0))
    assert line.accepts_at() <= 10.0
    line.transmit(100, now=10.0)
    assert line.accepts_at() == pytest.approx(10.1 - QUEUE_SECONDS)


@pytest.fixture
def echo():
    """The port of a server that sends back what it gets and closes when its client has closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_echo, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def serve_echo(listener):
    """Serve one connection after another in threads of their own until the listener is shut down."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=send_back, args=(connection,), daemon=True).start()


def send_back(connection):
    """Send back what comes until its end, or until no one is there any more."""
    with connection, suppress(OSError):
        while data := connection.recv(65536):
            connection.sendall(data)


def connect(port):
    """Return a connection that waits ten seconds at most."""
    return closing(socket.create_connection(("127.0.0.1", port), timeout=10))


def read_all(sock):
    """Return everything up to the end."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_round_trip_takes_its_time(echo):
    with delayed(echo, FAST) as port, connect(port) as client:
        for _ in range(3):
            started = time.monotonic()
            client.sendall(b"?")
            assert client.recv(1) == b"?"
            assert time.monotonic() - started >= 0.05


def test_octets_come_whole_and_in_order_and_so_does_the_end(echo):
    data = random.Random(1).randbytes(3_000_000)
    with delayed(echo, FAST) as port, connect(port) as client:
        writer = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        writer.start()
        received = read_all(client)
        writer.join()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


def test_the_rate_is_that_of_the_link(echo):
    """One direction limits: an echo fills both lines side by side."""
    link, size = Link(round_trip=0.02, rate=2e6), 500_000
    with delayed(echo, link) as port, connect(port) as client:
        started = time.monotonic()
        client.sendall(bytes(size))
        client.shutdown(socket.SHUT_WR)
        assert len(read_all(client)) == size
        assert time.monotonic() - started >= size / link.rate + link.round_trip


def test_connections_share_the_line(echo):
    link, size = Link(round_trip=0.0, rate=2e6), 200_000
    with delayed(echo, link) as port, connect(port) as one, connect(port) as other:
        started = time.monotonic()
        for client in (one, other):
            client.sendall(bytes(size))
            client.shutdown(socket.SHUT_WR)
        assert [len(read_all(client)) for client in (one, other)] == [size, size]
        assert time.monotonic() - started >= 2 * size / link.rate


def test_a_reader_that_does_not_read_stops_the_sender(echo):
    """What is under way is bounded: the sender blocks instead of filling memory."""
    with delayed(echo, FAST) as port, connect(port) as client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sendall(bytes(200_000_000))


def test_a_server_that_is_not_there_closes_the_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with delayed(unused.getsockname()[1], FAST) as port, connect(port) as client:
            assert client.recv(1) == b""


def test_a_client_that_breaks_off_harms_no_other(echo):
    with delayed(echo, FAST) as port, connect(port) as steady:
        with connect(port) as broken:
            broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            broken.sendall(b"x" * 1000)
        steady.sendall(b"?")
        assert steady.recv(1) == b"?"


def test_the_end_of_the_block_ends_everything(echo):
    with delayed(echo, FAST) as port:
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        client.sendall(b"?")
        assert client.recv(1) == b"?"
    with closing(client):
        assert read_all(client) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
