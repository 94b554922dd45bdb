"""Streams run side by side, and nothing a client does slowly costs a pool thread."""

import contextlib
import socket
import time

import pytest

from tests.support.checks import prove_all_free
from tests.support.h2client import CANCEL, HEADERS, PREFACE, H2Client, open_tcp, raw_frame

compat = pytest.mark.compat


@compat
def test_streams_of_one_connection_run_side_by_side(shared, tls, key):
    """Ten requests on one connection are answered only when all ten are inside the application."""
    server = shared("wsgi", tls=tls, threads=16)
    with H2Client.connect(server) as client:
        streams = [client.request("GET", f"/barrier?n=10&key={key}") for _ in range(10)]
        assert [client.response(stream).status for stream in streams] == [200] * 10


@pytest.mark.alone
def test_ten_half_seconds_take_half_a_second(shared):
    server = shared("flask", threads=16)
    with H2Client.connect(server) as client:
        client.get("/sleep?s=0")
        begun = time.monotonic()
        streams = [client.request("GET", "/sleep?s=0.5") for _ in range(10)]
        assert [client.response(stream).status for stream in streams] == [200] * 10
        assert time.monotonic() - begun < 1.5


@compat
def test_more_requests_than_threads_do_not_stop_the_connection(wsgi, gate, worker):
    """With every thread taken, PING is answered and a waiting stream can be reset; then the rest is served."""
    if not worker.has_threads:
        pytest.skip("a worker without threads to run out of")
    with H2Client.connect(wsgi) as client:
        inside = [client.request("GET", gate.path("/gate")) for _ in range(4)]
        gate.wait_inside(4)
        waiting = [client.request("GET", "/hello") for _ in range(20)]
        client.ping()
        assert not any(stream.done for stream in waiting)
        client.reset(waiting[7])
        client.ping()
        gate.release()
        del waiting[7]
        assert [client.response(stream).status for stream in inside + waiting] == [200] * 23


def test_a_body_arrives_while_every_thread_is_taken(wsgi, gate):
    with H2Client.connect(wsgi) as client:
        inside = [client.request("GET", gate.path("/gate")) for _ in range(4)]
        gate.wait_inside(4)
        upload = client.request("POST", "/count", body=b"x" * 60_000)
        client.ping()
        gate.release()
        assert client.response(upload).text == '{"length": 60000}'
        assert all(client.response(stream).status == 200 for stream in inside)


def test_a_shut_window_stops_only_its_own_stream(wsgi):
    with H2Client.connect(wsgi, auto_window=False) as client:
        client.grant(10_000_000)
        shut = client.request("GET", "/bytes?n=1000000")
        client.wait_for(lambda: shut.received == 65_535, "a window full of data")
        for _ in range(10):
            assert client.get("/hello").status == 200
        assert (shut.received, shut.done) == (65_535, False)
        client.grant(1_000_000, shut)
        assert client.response(shut).received == 1_000_000


@pytest.mark.timeout(90)
@pytest.mark.alone
def test_two_hundred_idle_connections(wsgi):
    """A fresh request is answered at once, and every pool thread is free."""
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(H2Client.connect(wsgi)).wait_settings()
        begun = time.monotonic()
        with H2Client.connect(wsgi) as client:
            assert client.get("/hello").status == 200
        assert time.monotonic() - begun < 2
        prove_all_free(wsgi, 4)


CLIENT_HELLO_START = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 20


@pytest.mark.parametrize("sent", [b"", b"\x16", CLIENT_HELLO_START], ids=["nothing", "one-byte", "half-a-hello"])
def test_unfinished_handshakes_cost_no_thread(wsgi_tls, sent):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(open_tcp(wsgi_tls)).sendall(sent)
        prove_all_free(wsgi_tls, 4)


@pytest.mark.parametrize("sent", [b"", PREFACE[:1], PREFACE[:23], PREFACE, PREFACE + raw_frame(4, length=6)],
                         ids=["nothing", "one-byte", "half", "no-settings", "half-settings"])
def test_unfinished_prefaces_cost_no_thread(wsgi, sent):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(H2Client.connect(wsgi, preface=False)).send_raw(sent)
        prove_all_free(wsgi, 4)


@pytest.mark.parametrize("end_headers", [True, False], ids=["half-a-frame", "no-end-headers"])
def test_unfinished_headers_cost_no_thread(wsgi, end_headers):
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(H2Client.connect(wsgi))
            block = client.encoder.encode(client.fields(path="/hello"))
            if end_headers:
                client.send_raw(raw_frame(HEADERS, 0x5, 1, block)[:-3])
            else:
                client.send_raw(raw_frame(HEADERS, 0x1, 1, block))
        prove_all_free(wsgi, 4)


def test_responses_that_are_not_read_cost_no_thread(wsgi):
    """With no window at all, twenty responses of 60 000 bytes wait in the server's buffers."""
    with H2Client.connect(wsgi, settings={4: 0}) as client:
        streams = [client.request("GET", "/bytes?n=60000&piece=10000") for _ in range(20)]
        client.wait_for(lambda: all(stream.headers for stream in streams), "all response headers")
        prove_all_free(wsgi, 4)
        client.send_settings({4: 65_535})
        assert [client.response(stream).received for stream in streams] == [60_000] * 20


def test_a_connection_that_is_not_read_costs_no_thread(wsgi):
    """The client grants every window but never reads its socket."""
    with H2Client.connect(wsgi, settings={4: 2**31 - 1}) as client:
        client.grant(2**31 - 1 - 65_535)
        for _ in range(50):
            client.request("GET", "/bytes?n=60000&piece=10000")
        prove_all_free(wsgi, 4)


def test_a_reset_stream_frees_its_thread(wsgi):
    """A thread that waits in write() for a window is let go by RST_STREAM."""
    with H2Client.connect(wsgi, auto_window=False) as client:
        streams = [client.request("GET", "/bytes?n=1000000") for _ in range(4)]
        client.wait_for(lambda: sum(stream.received for stream in streams) == 65_535, "a window full of data")
        for stream in streams:
            client.reset(stream, CANCEL)
        prove_all_free(wsgi, 4)


def expect_hang_up(sock):
    """Wait until the server has closed a socket."""
    with contextlib.suppress(ConnectionError):
        while sock.recv(65_536):
            pass


def test_a_handshake_has_a_deadline(boot):
    server = boot("wsgi", http2_handshake_timeout=1)
    with open_tcp(server) as silent, open_tcp(server) as slow:
        slow.sendall(CLIENT_HELLO_START)
        expect_hang_up(silent)
        expect_hang_up(slow)
    prove_all_free(server, 8)


def test_the_preface_has_a_deadline(boot):
    server = boot("wsgi", http2_handshake_timeout=1)
    with H2Client.connect(server, preface=False) as silent, H2Client.connect(server, preface=False) as slow:
        slow.send_raw(PREFACE[:20])
        silent.wait_closed()
        slow.wait_closed()


def test_headers_have_a_deadline(boot):
    server = boot("wsgi", http2_header_timeout=1, keepalive=30)
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.send_raw(client.header_frames(1, client.fields(), end_headers=False))
        client.wait_closed()
        assert client.goaways


def test_many_connections_with_many_streams(wsgi):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(wsgi)) for _ in range(20)]
        streams = [(client, client.request("GET", f"/bytes?n={n * 1000}")) for n in range(20) for client in clients]
        for number, (client, stream) in enumerate(streams):
            assert client.response(stream).received == number // 20 * 1000


def test_streams_beyond_the_limit_are_refused(boot, gate):
    """The limit is announced; a stream beyond it is refused with REFUSED_STREAM and may be tried again."""
    server = boot("wsgi", http2_max_concurrent_streams=3)
    with H2Client.connect(server) as client:
        assert client.wait_settings()[3] == 3
        inside = [client.request("GET", gate.path("/gate")) for _ in range(3)]
        gate.wait_inside(3)
        beyond = client.response(client.request("GET", "/hello"))
        assert beyond.reset == 7
        gate.release()
        assert [client.response(stream).status for stream in inside] == [200] * 3
        assert client.get("/hello").status == 200


def test_tcp_port_scan_leaves_no_trace(wsgi):
    """Connections opened and closed at once, some of them with a reset."""
    for number in range(50):
        with open_tcp(wsgi) as sock:
            if number % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    prove_all_free(wsgi, 4)
