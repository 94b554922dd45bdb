"""The raw client and the floor server, against each other and against a real worker."""

import socket
import threading
from dataclasses import replace

import pytest

from bench.apps.content import HELLO, LARGE, MEDIUM, document, received
from bench.client import ClientError, Connection
from bench.running import NotAvailable, free_port, serve
from bench.servers import GUNICORN, SERVERS

BY_NAME = {server.name: server for server in SERVERS}


@pytest.fixture(scope="module", params=["thread-h2", "asgi-h2"])
def application(request, bench_certificate):
    """A real worker with the plain application, one for each interface."""
    with serve(BY_NAME[request.param], "plain", bench_certificate, core=None) as running:
        yield running


@pytest.fixture
def connection(application):
    """A connection to it."""
    with Connection(application.port) as connection:
        yield connection


@pytest.mark.parametrize(("path", "body"), [("/hello", HELLO), ("/hello/any?thing=1", HELLO), ("/100k", MEDIUM),
                                            ("/10m", LARGE), ("/stream", LARGE), ("/sleep", HELLO)])
def test_every_path_of_the_application(connection, path, body):
    response = connection.fetch(path)
    assert response.status == 200
    assert response.body == body
    assert response.size == len(body)


@pytest.mark.parametrize("size", [12, 1024, 3_000_000])
def test_an_upload_is_received_whole(connection, size):
    response = connection.fetch("/upload", "POST", document(size))
    assert (response.status, response.body) == (200, received(size))
    assert len(document(size)) == size


def test_streams_that_stay_open_can_be_ended_later(connection):
    streams = [connection.request("/upload", "POST", end=False) for _ in range(20)]
    connection.ping()
    for stream in streams:
        connection.send(stream, b"!", end=True)
    assert [connection.response(stream).body for stream in streams] == [received(1)] * 20


def test_an_upload_for_a_time(connection):
    octets, seconds, response = connection.upload_for("/upload", 0.2)
    assert response.body == received(octets)
    assert octets > 0
    assert seconds >= 0.2


def test_a_download_for_a_time(connection):
    octets, seconds = connection.download_for("/endless", 1.0)
    assert octets > 0
    assert seconds >= 1.0


def test_the_floor_answers_hello_whatever_is_asked(bench_certificate):
    with serve(BY_NAME["floor"], "plain", bench_certificate, core=None) as floor, Connection(floor.port) as connection:
        streams = [connection.request("/anything") for _ in range(100)]
        assert [bytes(connection.response(stream).body) for stream in streams] == [HELLO] * 100


def test_a_port_where_no_one_listens():
    with pytest.raises(ClientError, match="no TLS connection"):
        Connection(free_port())


def test_a_server_that_speaks_something_else():
    """It takes the connection and says nothing that TLS could be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_plainly, args=(listener,))
        thread.start()
        with pytest.raises(ClientError, match="no TLS connection"):
            Connection(listener.getsockname()[1])
        thread.join()


def answer_plainly(listener):
    """Answer one connection by HTTP/1.1 without TLS."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_server_that_chooses_http1(bench_certificate):
    server = replace(BY_NAME["builtin-gthread"], commands=(GUNICORN + " -k gthread --http-protocols h1",))
    with pytest.raises(NotAvailable, match="h2 was offered"), serve(server, "plain", bench_certificate, core=None):
        pass
