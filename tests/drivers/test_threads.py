"""The threaded driver: real sockets, a real selector in a thread of its own, requests in a pool."""

import contextlib
import math
import socket
import ssl
import struct
import threading
import time
from queue import SimpleQueue

import pytest
from hyperframe.frame import SettingsFrame

from gunicorn_h2.drivers.channel import StreamAborted
from gunicorn_h2.drivers.connection import Http2Connection
from gunicorn_h2.drivers.negotiation import Terms, adequate_cipher
from gunicorn_h2.drivers.slow_lane import LONG_TURN
from gunicorn_h2.drivers.transport import TlsSession, Transport
from gunicorn_h2.protocol.errors import ErrorCode, InvalidResponse
from gunicorn_h2.protocol.headers import ResponseHead
from gunicorn_h2.protocol.opening import Cleartext
from tests.support.h2client import PREFACE, H2Client, raw_frame

from .rig import (
    LOCAL_ADDRESS,
    PEER,
    TIMEOUT,
    Counter,
    Probe,
    Remembering,
    echo,
    grow_window,
    hello,
    read_all,
    released,
    wait_until,
)

# -- serving ---------------------------------------------------------------------------------------------------------


def test_requests_are_answered(run, tls):
    rig = run(Probe(hello))
    client = rig.client(tls)
    for number in range(20):
        assert client.get(f"/{number}").text == f"/{number}"
    assert rig.requests == 20


def test_streams_of_a_connection_run_side_by_side(run, tls):
    barrier = threading.Barrier(8)

    def meet(channel):
        barrier.wait(TIMEOUT)
        hello(channel)

    client = run(Probe(meet), threads=8).client(tls)
    streams = [client.request(path=f"/{number}") for number in range(8)]
    assert [client.response(stream).text for stream in streams] == [f"/{number}" for number in range(8)]


def test_more_requests_than_threads_wait_without_stopping_the_connection(run, tls):
    with released(threading.Event()) as gate:
        def wait(channel):
            gate.wait(TIMEOUT)
            hello(channel)

        rig = run(Probe(wait), threads=2)
        client, other = rig.client(tls), rig.client(tls)
        streams = [client.request(path="/x") for _ in range(20)]
        client.ping()
        other.ping()
        client.reset(streams[7])
        client.ping()
        gate.set()
        assert [client.response(stream).text for stream in streams if stream is not streams[7]] == ["/x"] * 19


def test_bodies_of_any_size_go_both_ways(run, tls):
    client = run(Probe(echo)).client(tls)
    for size in (0, 1, 16_384, 65_535, 65_536, 1_000_000):
        body = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert client.post("/", body).body == body


def test_a_response_may_leave_after_its_application_has_returned(run):
    """More than the client's window and less than the high mark: the rest waits without a thread."""
    probe = Probe(lambda channel: channel.respond(ResponseHead(200, []), bytes(100_000), True))
    client = run(probe, threads=1).client(auto_window=False)
    first = client.request()
    assert probe.result() is None
    client.wait_for(lambda: first.received == 65_535, "the first window")
    client.ping()
    client.grant(100_000)
    client.grant(100_000, first)
    assert client.response(first).received == 100_000
    client.ping()


def test_many_connections(run, tls):
    rig = run(Probe(hello), threads=2)
    clients = [rig.client(tls) for _ in range(30)]
    streams = [(client, client.request(path=f"/{number}")) for number, client in enumerate(clients)]
    assert [client.response(stream).text for client, stream in streams] == [f"/{number}" for number in range(30)]


def test_trailers_and_interim_responses(run, tls):
    def serve(channel):
        channel.send_interim(ResponseHead(103, [(b"link", b"</x>")]))
        channel.respond(ResponseHead(200, []), b"body", False)
        channel.send_interim(ResponseHead(103, [(b"link", b"</late>")]))
        channel.send_trailers([(b"x-sum", b"1")])
        return channel.trailers

    probe = Probe(serve)
    stream = run(probe).client(tls).get("/")
    assert (stream.text, stream.trailers, len(stream.informational)) == ("body", [("x-sum", "1")], 1)
    assert probe.result() is None


def test_request_trailers_reach_the_application(run):
    def serve(channel):
        body = read_all(channel)
        channel.respond(ResponseHead(200, []), b"", True)
        return body, channel.trailers

    probe = Probe(serve)
    client = run(probe).client()
    stream = client.request("POST", body=b"body", end=False)
    client.send_raw(client.header_frames(stream.stream_id, [("x-sum", "1")], end_stream=True))
    client.response(stream)
    assert probe.result() == (b"body", [(b"x-sum", b"1")])


def test_an_expectation_is_answered_when_the_body_is_read(run):
    client = run(Probe(echo)).client()
    stream = client.request("POST", "/", [("expect", "100-continue")], end=False)
    client.wait_for(lambda: stream.informational, "100")
    client.send_body(stream, b"body")
    assert (client.response(stream).text, len(stream.informational)) == ("body", 1)


@pytest.mark.parametrize("fields", [[(b"x-a", b"1\r\n2")], [(b"Upper", b"1")]])
def test_an_invalid_response_is_not_sent(run, fields):
    def serve(channel):
        with pytest.raises(InvalidResponse):
            channel.respond(ResponseHead(200, fields), b"x", False)
        channel.respond(ResponseHead(500, []), b"", True)

    assert run(Probe(serve)).client().get("/").status == 500


def test_invalid_trailers_are_not_sent(run):
    def serve(channel):
        channel.respond(ResponseHead(200, []), b"x", False)
        with pytest.raises(InvalidResponse):
            channel.send_trailers([(b"x-a", b"1\n")])
        channel.send_trailers([(b"x-a", b"1")])

    stream = run(Probe(serve)).client().get("/")
    assert (stream.text, stream.trailers) == ("x", [("x-a", "1")])



class _LaboriousTransport(Transport):
    """Each read of 64 octets takes as long as a turn may."""

    def __init__(self, sock):
        super().__init__(sock)
        self.full_read, self.reads = 64, 0

    def receive(self):
        """See `Transport.receive`."""
        self.reads += 1
        until = time.monotonic() + LONG_TURN
        while time.monotonic() < until:
            pass
        return super().receive()


class _BrokenTransport(Transport):
    """The first read finds what the client has sent, the next that the connection is broken."""

    def receive(self):
        """See `Transport.receive`."""
        octets = super().receive()
        if octets is None:
            raise ConnectionResetError
        return octets


def connect_by_hand(rig, kind):
    """Make a connection over this kind of transport that the driver does not watch; return it, and the client's end."""
    ours, theirs = rig.socketpair()
    return Http2Connection(kind(ours), PEER, LOCAL_ADDRESS, rig.driver), theirs


def test_a_turn_ends_when_it_has_taken_long(run):
    rig = run(Probe(hello))
    connection, theirs = connect_by_hand(rig, _LaboriousTransport)
    transport = connection.transport
    ping = raw_frame(0x6, 0, 0, b"ping ...")
    theirs.sendall(PREFACE + raw_frame(0x4) + ping * 30)
    for reads in range(2, 10, 2):
        rig.call(connection.handle_readable)
        assert transport.reads == reads
    rig.call(connection.handle_readable)
    transport.close()
    answers = b""
    while octets := theirs.recv(4096):
        answers += octets
    assert answers.count(b"ping ...") == 30


# -- waiting for the client ------------------------------------------------------------------------------------------


def pour(channel, total=2_000_000, size=1_000):
    """Send much in small pieces."""
    channel.respond(ResponseHead(200, []), b"", False)
    for sent in range(0, total, size):
        channel.sent = sent
        channel.send(bytes(size), False)
    channel.send(b"", True)
    return total


def test_writes_wait_at_the_high_mark_and_go_on_at_the_low_one(run, tls):
    probe = Probe(pour)
    client = run(probe, stream_buffer_size=50_000).client(tls, auto_window=False)
    stream = client.request()
    channel = probe.channel()
    client.wait_for(lambda: stream.received == 65_535, "the first window")
    for _ in range(3):
        client.ping()
    assert channel.sent <= 65_535 + 50_000 + 1_000
    client.auto_window = True
    client.grant(65_535)
    client.grant(65_535, stream)
    assert client.response(stream).received == 2_000_000
    assert probe.result() == 2_000_000


def test_one_stream_that_waits_does_not_stop_another(run):
    probe = Probe(lambda channel: pour(channel) if channel.stream.head.path == b"/pour" else hello(channel))
    client = run(probe).client(auto_window=False, settings={0x4: 10})
    stream = client.request(path="/pour")
    client.wait_for(lambda: stream.received == 10, "the first window")
    assert client.get("/other").text == "/other"
    client.reset(stream)
    client.ping()


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_write_that_waits_is_aborted(run, tls, how):
    probe = Probe(pour)
    client = run(probe).client(tls, auto_window=False)
    stream = client.request()
    client.wait_for(lambda: stream.received == 65_535, "the first window")
    if how == "reset":
        client.reset(stream, ErrorCode.INTERNAL_ERROR)
        client.ping()
    else:
        client.close()
    error = probe.result()
    assert isinstance(error, StreamAborted)
    assert (error.stream_id, error.code) == (1, ErrorCode.INTERNAL_ERROR if how == "reset" else ErrorCode.CANCEL)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_read_that_waits_is_aborted(run, tls, how):
    probe = Probe(read_all)
    client = run(probe).client(tls)
    stream = client.request("POST", body=b"the beginning", end=False)
    probe.channel()
    client.ping()
    if how == "reset":
        client.reset(stream)
        client.ping()
    else:
        client.close()
    assert probe.result().code == ErrorCode.CANCEL


def test_a_read_does_not_wait_for_ever(run):
    probe = Probe(read_all)
    client = run(probe, stream_timeout=0.2).client()
    stream = client.request("POST", body=b"the beginning", end=False)
    assert client.response(stream).reset == ErrorCode.CANCEL
    assert probe.result().code == ErrorCode.CANCEL


def test_a_write_does_not_wait_for_ever(run):
    probe = Probe(pour)
    client = run(probe, stream_timeout=0.2).client(auto_window=False)
    assert client.response(client.request()).reset == ErrorCode.CANCEL
    assert probe.result().code == ErrorCode.CANCEL


def test_a_client_whose_socket_is_full_is_closed(run, tls):
    probe = Probe(lambda channel: pour(channel, 50_000_000, 100_000))
    rig = run(probe, stream_timeout=0.3)
    client = rig.client(tls, settings={0x4: 2**31 - 1})
    client.wait_settings()
    client.grant(2**31 - 1 - 65_535)
    client.request()
    assert isinstance(probe.result(), StreamAborted)
    rig.closes.wait_for(1)


def test_a_slow_reader_gets_everything(run):
    probe = Probe(lambda channel: pour(channel, 1_000_000))
    client = run(probe, stream_timeout=5).client(auto_window=False, settings={0x4: 10_000})
    stream = client.request()
    while not stream.done:
        seen = stream.received
        client.grant(10_000)
        client.grant(10_000, stream)
        client.wait_for(lambda seen=seen: stream.received > seen or stream.done, "more")
    assert stream.received == 1_000_000


def test_a_window_that_becomes_small_while_an_application_reads(run):
    """Of the window that a client has before it knows the settings, less is left than nothing: it waits for credit."""
    probe = Probe(read_all)
    client = run(probe, initial_window_size=1_000).client(auto_settings=False)
    stream = client.request("POST", body=bytes(10_000), end=False)
    channel = probe.channel()
    client.ping()
    wait_until(lambda: channel.starving_since < math.inf and not channel._body)
    client.send_frame(SettingsFrame(0, flags=["ACK"]))
    client.send_body(stream, b"the end")
    assert probe.result() == bytes(10_000) + b"the end"


def test_requests_that_wait_for_a_thread_do_not_starve_one_that_reads(run):
    probe = Probe(echo)
    client = run(probe, threads=1, connection_window_size=65_535).client()
    client.wait_settings()
    first = client.request("POST", end=False)
    probe.channel()
    waiting = [client.request("POST", end=False) for _ in range(2)]
    for stream, size in zip(waiting, (40_000, 25_535), strict=True):
        client.send_body(stream, bytes(size), end=False)
    client.wait_for(lambda: client.room(first) > 0, "room for the stream that is read", timeout=1)


def test_windows_grow_from_the_workers_budget_until_the_calls_have_returned(run):
    with released(threading.Event()) as returned:
        def read(channel):
            try:
                return read_all(channel)
            finally:
                returned.wait(TIMEOUT)

        probe = Probe(read)
        rig = run(probe)
        budget, clients = rig.driver.window_budget, [rig.client(auto_ping=False) for _ in range(2)]
        taken = [0]
        for client in clients:
            client.wait_settings()
            grow_window(client, client.request("POST", end=False))
            taken.append(budget.taken)
            client.close()
        wait_until(lambda: not rig.driver._registered)
        assert taken == sorted({*taken, budget.taken})
        returned.set()
        assert {type(probe.result()) for _ in range(2)} == {StreamAborted}
        wait_until(lambda: rig.call(lambda: budget.taken) == 0)


# -- how connections begin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.1\r\n", b"\r\n"])
def test_http1_is_handed_over(run, octets):
    rig = run(Probe(hello))
    rig.connect().sendall(octets)
    sock, data = rig.handed_over.get(timeout=TIMEOUT)
    assert data == octets
    assert isinstance(sock, socket.socket)


@pytest.mark.parametrize("octets", [b"\x16\x03\x01", b"P\0", b"EHLO localhost\r\n"])
def test_other_protocols_are_ended_by_http2(run, octets):
    rig = run(Probe(hello))
    client = H2Client(rig.connect())
    client.send_raw(octets)
    assert client.wait_goaway() == (0, ErrorCode.PROTOCOL_ERROR)
    assert rig.handed_over.empty()


def test_a_client_that_says_nothing_is_handed_over_when_it_leaves(run):
    rig = run(Probe(hello))
    rig.connect().shutdown(socket.SHUT_WR)
    assert rig.handed_over.get(timeout=TIMEOUT)[1] == b""


def test_a_preface_may_come_in_pieces(run):
    rig = run(Probe(hello))
    sock = rig.connect()
    client = H2Client(sock)
    for octet in PREFACE:
        client.send_raw(bytes([octet]))
        rig.call(lambda: None)
    client.send_raw(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    assert client.get("/x").text == "/x"


def test_alpn_of_http1_is_handed_over(run, certs):
    rig = run(Probe(hello))
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    theirs = certs.client_context(("http/1.1",)).wrap_socket(theirs, server_hostname="localhost")
    sock, data = rig.handed_over.get(timeout=TIMEOUT)
    assert (sock.selected_alpn_protocol(), data) == ("http/1.1", b"")
    sock.setblocking(True)
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert sock.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    theirs.close()


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01"])
def test_a_handshake_has_a_deadline(run, octets):
    rig = run(Probe(hello), handshake_timeout=0.1)
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    theirs.sendall(octets)
    assert theirs.recv(100) == b""
    rig.closes.wait_for(1)
    assert rig.client(True).get("/x").text == "/x"


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100])
def test_a_handshake_that_is_none_ends_the_connection(run, octets):
    rig = run(Probe(hello))
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    theirs.sendall(octets)
    rig.closes.wait_for(1)
    with contextlib.suppress(ConnectionResetError):
        while theirs.recv(100):
            pass
    assert "to a TLS port" in rig.log.infos[0]


def test_a_client_that_leaves_during_the_handshake(run):
    rig = run(Probe(hello))
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    theirs.close()
    rig.closes.wait_for(1)


def test_a_client_that_was_gone_before_it_was_accepted(run, tls):
    """A TCP reset right after the connection: wrapping or reading such a socket fails."""
    rig = run(Probe(hello))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            gone = socket.create_connection(listener.getsockname())
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted, _ = listener.accept()
            gone.close()
            rig.serve(accepted, tls)
    rig.closes.wait_for(3)


def test_an_inadequate_cipher_is_refused(run, certs):
    rig = run(Probe(hello))
    context = certs.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE+AES+SHA")
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    client = H2Client(context.wrap_socket(theirs, server_hostname="localhost"))
    assert client.wait_goaway() == (0, ErrorCode.INADEQUATE_SECURITY)
    client.close()


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_adequate_ciphers_of_tls_12_are_served(run, certs, cipher):
    rig = run(Probe(hello))
    context = certs.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(cipher + ":" + cipher.replace("ECDSA", "RSA"))
    ours, theirs = rig.socketpair()
    rig.serve(ours, tls=True)
    client = H2Client(context.wrap_socket(theirs, server_hostname="localhost"))
    client.send_preface()
    assert client.get("/x").text == "/x"
    assert adequate_cipher(TlsSession.of(client.sock))
    client.close()


def test_the_settings_go_out_together_with_the_answer_to_what_came_with_the_handshake(run, certs):
    """One write, and one TLS record, for SETTINGS and the ACK of the client's, where those are there already."""
    rig = run(Probe(hello))
    ours, theirs = rig.socketpair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = certs.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    rig.serve(ours, tls=True)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    theirs.sendall(outgoing.read())
    while True:
        incoming.write(theirs.recv(65_536))
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            break
    tls.write(PREFACE + raw_frame(4))
    theirs.sendall(outgoing.read())
    record = b""
    while not record:
        incoming.write(theirs.recv(65_536))
        with contextlib.suppress(ssl.SSLWantReadError):
            record = tls.read(65_536)
    assert record[3:5] == b"\4\0"
    assert record.endswith(raw_frame(4, flags=1))


def test_a_defect_in_what_takes_http1_costs_one_connection(run):
    rig = run(Probe(hello))
    ours, theirs = rig.socketpair()
    terms = Terms(None, Cleartext(prior_knowledge=True), TIMEOUT)
    assert rig.call(rig.driver.negotiate, ours, "a test", None, terms, boom) is None
    theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
    rig.closes.wait_for(1)
    assert rig.client().get("/alive").text == "/alive"
    (message, error), = rig.log.take_errors()
    assert "internal error" in message
    assert "a defect" in error


# -- how they end ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_garbage_collector")
def test_nothing_keeps_a_closed_connection(run, tls):
    """No timer, and no cycle: a busy worker would hold thousands of them until the garbage collector finds them."""
    remembering = Remembering()
    rig = run(remembering)
    for count in range(1, 4):
        client = rig.client(tls)
        assert client.get("/x").text == "/x"
        client.close()
        rig.closes.wait_for(count)
    # Its next call finds the one before over.
    rig.call(len, "")
    assert remembering.alive() == 0


def test_timers_of_closed_connections_do_not_pile_up(run):
    rig = run(Probe(hello))
    for count in range(1, 301):
        with rig.connect() as sock:
            sock.sendall(PREFACE)
        rig.closes.wait_for(count)
    assert len(rig.driver._timers._heap) <= 130


def test_an_idle_connection_is_closed(run, tls):
    rig = run(Probe(hello), idle_timeout=0.1)
    client = rig.client(tls)
    client.get("/")
    assert client.wait_goaway() == (1, ErrorCode.NO_ERROR)
    client.wait_closed()
    client.close()
    rig.closes.wait_for(1)


def test_deadlines_of_many_connections(run):
    rig = run(Probe(hello), idle_timeout=0.5)
    clients = []
    for _ in range(10):
        clients.append(rig.client())
        clients[-1].get("/")
    for client in clients:
        client.wait_closed()
        client.close()
    rig.closes.wait_for(10)


def test_a_client_that_has_said_goaway_and_left_is_sent_nothing_more(run):
    rig = run(Probe(hello))
    connection, theirs = connect_by_hand(rig, Transport)
    theirs.sendall(PREFACE + raw_frame(0x4) + raw_frame(0x7, payload=bytes(8)))
    theirs.shutdown(socket.SHUT_WR)
    rig.call(connection.handle_readable)
    assert connection.closed
    connection.transport.close()
    assert theirs.recv(4096) == b""


def test_a_client_that_has_said_goaway_and_stays_hears_the_end(run):
    rig = run(Probe(hello))
    client = rig.client()
    client.send_raw(raw_frame(0x7, payload=bytes(8)))
    assert client.wait_goaway() == (0, ErrorCode.NO_ERROR)
    client.wait_closed()


def test_a_client_that_breaks_the_connection_behind_its_goaway(run):
    rig = run(Probe(hello))
    connection, theirs = connect_by_hand(rig, _BrokenTransport)
    theirs.sendall(PREFACE + raw_frame(0x4) + raw_frame(0x7, payload=bytes(8)))
    rig.call(connection.handle_readable)
    assert connection.closed
    connection.transport.close()


def test_a_client_that_does_not_close_is_not_waited_for(run):
    """It gets a moment to read the end, no more."""
    rig = run(Probe(hello), idle_timeout=0.1)
    client = rig.client()
    client.wait_goaway()
    rig.closes.wait_for(1)


def test_octets_behind_the_end_are_dropped(run, tls):
    rig = run(Probe(hello), idle_timeout=0.1)
    client = rig.client(tls)
    client.wait_goaway()
    with contextlib.suppress(OSError):
        for _ in range(1_000):
            client.send_raw(bytes(10_000))
    client.close()
    rig.closes.wait_for(1)


@pytest.mark.parametrize("sent", [b"", PREFACE[:5], PREFACE, PREFACE + bytes(5)])
def test_a_client_may_leave_at_any_point(run, sent):
    rig = run(Probe(hello))
    sock = rig.connect()
    sock.sendall(sent)
    sock.close()
    if sent:
        rig.closes.wait_for(1)
    else:
        rig.handed_over.get(timeout=TIMEOUT)


def test_an_error_of_the_clients_is_logged(run):
    rig = run(Probe(hello))
    client = rig.client()
    client.send_raw(bytes([0, 0, 1, 6, 0, 0, 0, 0, 0, 0]))
    assert client.wait_goaway() == (0, ErrorCode.FRAME_SIZE_ERROR)
    client.close()
    rig.closes.wait_for(1)
    assert "FRAME_SIZE_ERROR" in rig.log.warnings[0]


def test_a_refused_request_is_logged_for_few(run):
    rig = run(Probe(hello))
    client = rig.client()
    assert client.response(client.send_fields([(":method", "GET")])).reset == ErrorCode.PROTOCOL_ERROR
    assert "refused" in rig.log.debugs[-1]
    assert rig.refusals.empty()


def test_a_request_that_the_core_answers_is_noted_in_a_thread_of_the_pool(run):
    rig = run(Probe(hello), threads=1)
    client = rig.client()
    stream = client.response(client.send_fields([(":method", "CONNECT"), (":authority", "example.org:443")]))
    thread, refusal = rig.refusals.get(timeout=TIMEOUT)
    assert stream.status == refusal.status == 501
    assert thread.name.startswith("gunicorn_h2-")


def test_shutdown_serves_what_has_begun(run, tls):
    with released(threading.Event()) as gate:
        def wait(channel):
            gate.wait(TIMEOUT)
            hello(channel)

        rig = run(Probe(wait), drain_timeout=0.2)
        busy, idle = rig.client(tls), rig.client(tls)
        stream = busy.request(path="/served")
        busy.ping()
        idle.ping()
        rig.call_main(rig.driver.shutdown)
        rig.call_main(rig.driver.shutdown)
        idle.wait_closed()
        idle.close()
        assert busy.wait_goaway() == (2**31 - 1, ErrorCode.NO_ERROR)
        gate.set()
        assert busy.response(stream).text == "/served"
        assert busy.wait_goaway(2) == (1, ErrorCode.NO_ERROR)
        busy.wait_closed()
        busy.close()
        rig.closes.wait_for(2)


def test_connections_that_come_after_the_shutdown_are_served_and_closed(run):
    rig = run(Probe(hello), drain_timeout=0.2)
    rig.call_main(rig.driver.shutdown)
    client = rig.client()
    stream = client.request(path="/late")
    assert client.response(stream).text == "/late"
    assert client.wait_goaway(2) == (1, ErrorCode.NO_ERROR)
    client.wait_closed()


def test_close_ends_everything_at_once(run):
    probe = Probe(read_all)
    rig = run(probe)
    client = rig.client()
    client.request("POST", end=False)
    probe.channel()
    rig.connect()
    rig.stop()
    assert rig.closes.value == 2
    client.wait_closed()
    assert isinstance(probe.result(), StreamAborted)


def test_an_application_that_outlives_the_driver_disturbs_no_one(run):
    """Its last words must not be written to a file descriptor that belongs to someone else by then."""
    with released(threading.Event()) as gate:
        def outlive(channel):
            gate.wait(TIMEOUT)

        probe = Probe(outlive)
        rig = run(probe)
        client = rig.client()
        client.request()
        channel = probe.channel()
        rig.stop()
        ends = [sock for _ in range(4) for sock in socket.socketpair()]
        gate.set()
        assert probe.result() is None
        channel.reset(ErrorCode.CANCEL)
        for sock in ends:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
        for sock in ends:
            sock.close()


# -- defects ---------------------------------------------------------------------------------------------------------


def boom(*_):
    """A defect."""
    raise RuntimeError("a defect")


def test_a_defect_in_a_command_costs_one_connection(run):
    connections = SimpleQueue()
    probe = Probe(hello)

    def application(connection, channel):
        connections.put(connection)
        probe(connection, channel)

    rig = run(application)
    broken, other = rig.client(), rig.client()
    broken.get("/")
    connection = connections.get(timeout=TIMEOUT)
    connection.submit(connection, boom)
    connection.submit(connection, boom)
    broken.wait_closed()
    assert other.get("/alive").text == "/alive"
    assert len(rig.log.take_errors()) >= 1
    assert rig.closes.value == 1


def test_an_application_that_is_called_back_may_submit_more(run):
    """As one does that ends a response because another one was aborted: all commands have run when that returns."""
    connections, done = SimpleQueue(), []

    def application(connection, channel):
        connections.put(connection)
        hello(channel)
        channel.finish()

    rig = run(application)
    rig.call_main(setattr, rig, "alone", True)
    client = rig.client()
    client.get("/")
    connection = connections.get(timeout=TIMEOUT)

    def gather():
        connection.submit(connection, connection.submit_last, connection, done.append, "called back")
        connection.submit(connection, done.append, "before")

    rig.call(gather)
    wait_until(lambda: len(done) == 2)
    assert done == ["before", "called back"]
    client.ping()


def test_a_defect_in_what_a_connection_does_costs_one_connection(run):
    count = Counter()

    def on_request():
        count.add()
        if count.value == 1:
            boom()

    rig = run(Probe(hello), on_request=on_request)
    broken, other = rig.client(), rig.client()
    broken.request()
    broken.wait_closed()
    assert other.get("/alive").text == "/alive"
    (message, error), = rig.log.take_errors()
    assert "internal error" in message
    assert "a defect" in error


# -- wake-ups --------------------------------------------------------------------------------------------------------


def test_no_wake_up_is_lost(run):
    """Many threads hand in commands, each alone at times: the loop, which would sleep for long, runs them all."""
    connections = SimpleQueue()
    probe = Probe(hello)

    def application(connection, channel):
        connections.put(connection)
        probe(connection, channel)

    rig = run(application)
    client = rig.client()
    client.get("/")
    connection = connections.get(timeout=TIMEOUT)
    done = Counter()

    def hammer():
        for _ in range(300):
            seen = threading.Event()
            connection.submit(connection, seen.set)
            assert seen.wait(TIMEOUT), "a wake-up was lost"
            for _ in range(5):
                connection.submit(connection, done.add)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    done.wait_for(4 * 300 * 5)
