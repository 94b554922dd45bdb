"""The doctor's client half, without sockets: against h2's server, and against hostile octets, whole and one by one."""

import h2.config
import h2.connection
import h2.events
import pytest

from gunicorn_h2.doctor.exchange import (
    MAX_OCTETS,
    Answer,
    Goaway,
    Http1Exchange,
    Http2Exchange,
    Request,
    recognize,
)
from gunicorn_h2.protocol import frames
from gunicorn_h2.protocol.errors import ErrorCode

REQUEST = Request("https", "example.org:8443", "/path?x=1")
SETTINGS = frames.settings([(frames.MAX_CONCURRENT_STREAMS, 7), (0xF00, 5), (frames.INITIAL_WINDOW_SIZE, 65_535)])


@pytest.fixture(params=["whole", "by octet"])
def feed(request):
    """A function that gives octets to an exchange until it is done."""

    def feed(exchange, data):
        size = len(data) if request.param == "whole" else 1
        for start in range(0, len(data), size or 1):
            if not exchange.done:
                exchange.receive_data(data[start:start + size])
        return exchange

    return feed


class Server:
    """The h2 library's server, which answers each request by `respond(server, stream_id)`."""

    def __init__(self, respond, upgrade=None):
        self.core = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.respond, self.requests = respond, []
        if upgrade is None:
            self.core.initiate_connection()
        else:
            self.core.initiate_upgrade_connection(upgrade)
            self.respond(self, 1)

    def receive(self, data):
        """Take what the client sends; return what the server sends."""
        for event in self.core.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests.append(dict(event.headers))
                self.respond(self, event.stream_id)
        return self.core.data_to_send()


def answer(server, stream_id, body=b"hello"):
    """Answer 200."""
    server.core.send_headers(stream_id, [(":status", "200"), ("server", "x"), ("via", "a"), ("via", "b")])
    server.core.send_data(stream_id, body, end_stream=True)


def play(exchange, server, feed):
    """Let both talk until the exchange is done or nothing is left to say."""
    while not exchange.done:
        data = server.receive(exchange.data_to_send())
        if not data:
            return exchange
        feed(exchange, data)
    return exchange


def started():
    """An exchange that has sent the preface."""
    exchange = Http2Exchange(REQUEST)
    exchange.start()
    return exchange


# -- HTTP/2 ----------------------------------------------------------------------------------------------------------


def test_a_response(feed):
    server = Server(answer)
    exchange = play(started(), server, feed)
    assert (exchange.answer, exchange.error, exchange.done) == (Answer.HTTP2, None, True)
    assert (exchange.response.status, exchange.response.size, exchange.response.complete) == (200, 5, True)
    assert exchange.response.field(b"via") == b"a, b"
    assert exchange.response.field(b"x") is None
    (request,) = server.requests
    assert request[b":path"] == b"/path?x=1"
    assert request[b":authority"] == b"example.org:8443"


def test_the_request_waits_for_the_servers_settings(feed):
    exchange = started()
    assert exchange.data_to_send().startswith(frames.PREFACE)
    assert not exchange.requested
    feed(exchange, SETTINGS)
    assert exchange.requested
    assert exchange.settings == [(frames.MAX_CONCURRENT_STREAMS, 7), (0xF00, 5), (frames.INITIAL_WINDOW_SIZE, 65_535)]


def test_an_upgraded_connection(feed):
    exchange = Http2Exchange(REQUEST)
    server = Server(answer, upgrade=exchange.start_upgrade())
    play(exchange, server, feed)
    assert (exchange.response.status, exchange.error) == (200, None)


def test_a_response_after_a_graceful_goaway(feed):
    def respond(server, stream_id):
        answer(server, stream_id)
        response = server.core.data_to_send()
        server.receive = lambda _: frames.goaway(1, ErrorCode.NO_ERROR) + response

    server = Server(respond)
    exchange = started()
    feed(exchange, server.receive(exchange.data_to_send()))
    server.receive(exchange.data_to_send())
    feed(exchange, server.receive(b""))
    assert exchange.goaway == Goaway(0, 1, b"")
    assert (exchange.response.status, exchange.error) == (200, None)


@pytest.mark.parametrize("frame", [
    frames.goaway(1, ErrorCode.ENHANCE_YOUR_CALM),
    frames.goaway(0, ErrorCode.NO_ERROR),
    frames.frame(frames.GOAWAY, 0, 0, b"\0\0\0\1\0\0\0\xffdebug"),
])
def test_a_goaway_that_ends_it(feed, frame):
    exchange = feed(started(), SETTINGS + frame)
    assert exchange.done
    assert "GOAWAY" in exchange.error
    assert exchange.goaway.debug_data in (b"", b"debug")


def test_a_reset_stream(feed):
    exchange = feed(started(), SETTINGS + frames.rst_stream(1, ErrorCode.REFUSED_STREAM))
    assert exchange.reset == ErrorCode.REFUSED_STREAM
    assert "RST_STREAM" in exchange.error


@pytest.mark.parametrize(("octets", "reason"), [
    (frames.frame(frames.HEADERS, 4, 1, b"\x80"), "ProtocolError"),
    (frames.frame(frames.HEADERS, 4, 1, b"\x88\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "ProtocolError"),
    (frames.frame(frames.PING, 0, 0, b"short"), "FrameDataMissingError|FrameError|ProtocolError|InvalidBody"),
    (frames.frame(frames.SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"), "FlowControlError|InvalidSettingsValue"),
    (b"\x00\x40\x01\0\0\0\0\0\1", "a frame of 16385 octets"),
    (frames.frame(frames.HEADERS, 4, 1, b"\x08\x03abc"), ":status is no number"),
    (frames.frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2\x82"), "ProtocolError"),
])
def test_errors_of_the_protocol(feed, octets, reason):
    exchange = feed(started(), SETTINGS + octets)
    assert exchange.done
    assert any(word in exchange.error for word in reason.split("|")), exchange.error


def test_wrong_first_settings(feed):
    exchange = feed(started(), frames.settings([(frames.MAX_FRAME_SIZE, 1)]))
    assert "MAX_FRAME_SIZE" in exchange.error


def test_the_end_before_the_response(feed):
    exchange = feed(started(), SETTINGS)
    exchange.receive_eof()
    assert exchange.done
    assert "closed the connection" in exchange.error


def test_a_response_without_end_is_cut():
    exchange = started()
    server = Server(lambda server, stream_id: server.core.send_headers(stream_id, [(":status", "200")]))
    while not exchange.done:
        data = server.receive(exchange.data_to_send())
        if exchange.response is not None:
            server.core.send_data(1, bytes(10_000))
            data += server.core.data_to_send()
        exchange.receive_data(data)
    assert abs(exchange.response.size - MAX_OCTETS) < 20_000
    assert not exchange.response.complete
    assert frames.rst_stream(1, ErrorCode.CANCEL) in exchange.data_to_send()


def test_frames_without_a_response_are_bounded():
    exchange = started()
    exchange.receive_data(SETTINGS)
    pings = frames.ping(bytes(8)) * 1000
    rounds = 0
    while not exchange.done:
        exchange.receive_data(pings)
        exchange.data_to_send()
        rounds += 1
        assert rounds < 1000
    assert "no end of the response" in exchange.error


# -- what the answer is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("octets", "kind"), [
    (b"", None),
    (b"HTT", None),
    (b"HTTP/", Answer.HTTP1),
    (b"HTTP/1.1 400 Bad Request\r\n", Answer.HTTP1),
    (b"\x15\x03\x01\0\2\2\x46", Answer.TLS),
    (b"\x16\x03", Answer.TLS),
    (SETTINGS[:8], None),
    (SETTINGS[:9], Answer.HTTP2),
    (frames.frame(frames.SETTINGS, frames.ACK, 0, b""), Answer.OTHER),
    (frames.ping(bytes(8)), Answer.OTHER),
    (b"220 mail.example.org ESMTP", Answer.OTHER),
    (b"SSH-2.0-OpenSSH", Answer.OTHER),
    (b"\x01\0\0\4\0\0\0\0\0", Answer.OTHER),
])
def test_recognize(octets, kind):
    assert recognize(octets) is kind


def test_what_is_not_http2_is_kept(feed):
    exchange = feed(started(), b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert (exchange.answer, exchange.done, exchange.error) == (Answer.HTTP1, True, None)
    assert exchange.first_octets.startswith(b"HTTP/")


# -- HTTP/1.1 --------------------------------------------------------------------------------------------------------


def http1(feed, octets):
    """An exchange that has been given an answer."""
    exchange = Http1Exchange(REQUEST)
    exchange.start()
    exchange.data_to_send()
    return feed(exchange, octets)


def test_the_http1_request():
    exchange = Http1Exchange(REQUEST)
    exchange.start(b"AAMAAABk")
    head = exchange.data_to_send()
    assert head.startswith(b"GET /path?x=1 HTTP/1.1\r\nHost: example.org:8443\r\n")
    assert b"\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n" in head
    assert b"\r\nConnection: Upgrade, HTTP2-Settings\r\n" in head
    assert head.endswith(b"\r\n\r\n")
    assert exchange.data_to_send() == b""


def test_an_http1_response_after_interim_ones(feed):
    exchange = http1(feed, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\n"
                           b"HTTP/1.1 404 Not Found\r\nServer: \t y \r\n\r\nbody")
    assert (exchange.response.status, exchange.response.version) == (404, "HTTP/1.1")
    assert exchange.response.field(b"server") == b"y"
    assert exchange.error is None


def test_what_follows_a_101(feed):
    exchange = Http1Exchange(REQUEST)
    exchange.start(b"")
    exchange.receive_data(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + SETTINGS)
    assert (exchange.response.status, exchange.rest) == (101, SETTINGS)


@pytest.mark.parametrize("octets", [
    b"220 mail.example.org ESMTP\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 201 + b"\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000,
    b"\0",
])
def test_malformed_http1(octets):
    exchange = Http1Exchange(REQUEST)
    exchange.start()
    exchange.receive_data(octets)
    assert exchange.done
    assert exchange.error
    assert exchange.response is None


def test_interim_responses_without_end_are_bounded():
    exchange = Http1Exchange(REQUEST)
    exchange.start()
    piece = b"HTTP/1.1 100 Continue\r\n\r\n" * 1000
    for _ in range(MAX_OCTETS // len(piece) + 2):
        if not exchange.done:
            exchange.receive_data(piece)
    assert exchange.done
    assert "no response" in exchange.error


def test_http1_ends_before_the_head(feed):
    exchange = http1(feed, b"HTTP/1.1 200 OK\r\n")
    exchange.receive_eof()
    assert "closed the connection" in exchange.error
