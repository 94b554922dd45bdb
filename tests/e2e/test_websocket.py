"""WebSockets over HTTP/2 with real workers: flask-sock as it is, and ASGI; the same applications over HTTP/1.1."""

import re
import signal
import socket
from contextlib import ExitStack, contextmanager

import pytest
from websockets.sync.client import connect

from tests.support.chromium import FLAGS
from tests.support.h2client import NO_ERROR, TIMEOUT, H2Client
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import BOOT_TIMEOUT, Server, stop_all
from tests.support.tools import require_tool, run
from tests.support.websocket import DEFLATE, WebSocketStream

KINDS = {**WSGI_KINDS, **ASGI_KINDS}
CHAT = ("sec-websocket-protocol", "chat")
MEBIBYTE = 1_048_576
GONE = ("BrokenPipeError", "ConnectionResetError", "BlockingIOError", r"OSError: \[Errno 9\]")
"""What an application that sends is told of a client that is gone, and Flask logs; gevent's has the last one first."""
MANY = 1_000
"""WebSockets that are open at a time."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory, certs):
    """A function that returns the running server of a kind, booted when it is first asked for."""
    running = {}

    def get(kind):
        if kind not in running:
            running[kind] = make(kind, tmp_path_factory.mktemp("server"), certs).start()
        return running[kind]

    yield get
    stop_all(running.values())


def make(kind, folder, certs, **settings):
    """A server of a kind, not started."""
    app = f"tests.apps.websocket_app:{'asgi' if kind in ASGI_KINDS else 'app'}"
    return Server(folder, KINDS[kind], certs, app, **settings)


@pytest.fixture(params=KINDS)
def kind(request):
    """Every kind of worker."""
    return request.param


@pytest.fixture
def server(servers, kind):
    """A running server; its log is examined after the test."""
    server = servers(kind)
    yield server
    server.check_log()


@pytest.fixture
def boot(kind, tmp_path, certs):
    """A function that boots a server for one test; it is stopped at the end."""
    booted = []

    def boot(**settings):
        booted.append(make(kind, tmp_path, certs, **settings))
        return booted[0].start()

    yield boot
    stop_all(booted)


@contextmanager
def client_of(server, **options):
    """A connection that has been offered WebSockets."""
    with H2Client.connect(server, **options) as client:
        assert client.wait_settings()[8] == 1
        client.grant(2**30)
        yield client


def ended(client, key):
    """How the socket of `/wait/<key>` has ended, for its application."""
    return client.get(f"/ended/{key}").text


# -- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.compat
def test_an_echo_beside_other_requests(server):
    with client_of(server) as client:
        sockets = [WebSocketStream(client, "/echo", CHAT) for _ in range(3)]
        assert [(socket.stream.status, socket.stream.header("sec-websocket-protocol")) for socket in sockets] == [
            (200, "chat")] * 3
        names = {name for name, _ in sockets[0].stream.headers}
        assert not names & {"upgrade", "connection", "sec-websocket-accept", "content-length"}
        for number, websocket in enumerate(sockets):
            assert websocket.say(f"héllo {number}") == f"héllo {number}"
            assert websocket.say(bytes(range(256))) == bytes(range(256))
        assert client.get("/hello").text == "Hello, world!\n"
        assert [websocket.say("still here") for websocket in sockets] == ["still here"] * 3


@pytest.mark.parametrize("extensions", [(), (("sec-websocket-extensions", DEFLATE),)], ids=["plain", "deflate"])
def test_messages_of_a_mebibyte(server, extensions):
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo", *extensions)
        assert bool(websocket.stream.header("sec-websocket-extensions")) == bool(extensions)
        for message in ("x" * MEBIBYTE, bytes(MEBIBYTE)):
            assert websocket.say(message) == message


def test_both_sides_may_close(server):
    with client_of(server) as client:
        first, second = WebSocketStream(client, "/echo"), WebSocketStream(client, "/echo")
        first.send(first.octets("close"))
        assert first.wait_closed() == (3000, "as you wish")
        second.send(second.close(3001, "enough"))
        assert second.wait_closed() == (3001, "enough")
        for websocket in (first, second):
            websocket.wait_end()
            assert websocket.stream.reset is None
        assert client.get("/hello").status == 200


def test_a_denial(server):
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/denied")
        websocket.wait_end()
        assert (websocket.stream.status, websocket.stream.header("x-why"), websocket.body) == (403, "denied", b"no")
        assert client.get("/hello").status == 200


@pytest.mark.parametrize(("fields", "status"), [({"version": "8"}, 400), ({"protocol": "connect-udp"}, 501)])
def test_what_is_not_supported(server, fields, status):
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo", **fields)
        websocket.wait_end()
        assert websocket.stream.status == status
        server.wait_log(rf"ACCESS \S+ CONNECT /echo HTTP/2.0 {status}")


def test_an_application_that_fails(server):
    server.expect("LookupError")
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo")
        websocket.send(websocket.octets("fail"))
        websocket.wait_end()
        assert websocket.closed in (None, (1011, ""))
        assert client.get("/hello").status == 200


def test_the_same_application_over_http_1(server, kind):
    """By the websockets library, which knows no HTTP/2."""
    with client_of(server) as client:
        assert WebSocketStream(client, "/echo").say("protocol") == "h2"
    context = server.certs.client_context(alpn=("http/1.1",))
    url = f"wss://localhost:{server.port}/echo"
    sock = socket.create_connection((server.host, server.port))
    with connect(url, sock=sock, ssl=context, subprotocols=["chat"], compression=None, max_size=None) as websocket:
        websocket.send("hello")
        assert websocket.recv(TIMEOUT) == "hello"
        if kind not in ASGI_KINDS:
            websocket.send("protocol")
            assert websocket.recv(TIMEOUT) == "http/1"


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "end", "gone"])
def test_a_client_that_leaves_without_a_close(server, kind, how):
    key = f"{kind}-{how}"
    with client_of(server) as client:
        with client_of(server) as other:
            leaving = client if how != "gone" else other
            websocket = WebSocketStream(leaving, f"/wait/{key}")
            assert websocket.receive() == "ready"
            if how == "reset":
                client.reset(websocket.stream)
            elif how == "end":
                client.send_raw(client.data_frame(websocket.stream.stream_id, b"", end_stream=True))
                websocket.wait_end()
        assert ended(client, key) in ("1006", "1005", "CloseReason.NO_STATUS_RCVD")


@pytest.mark.parametrize("number", [
    pytest.param(signal.SIGTERM, marks=pytest.mark.compat), pytest.param(signal.SIGHUP, marks=pytest.mark.thorough),
], ids=lambda number: number.name)
def test_a_shutdown_closes_with_1001(boot, number):
    server = boot()
    mark = server.log_mark()
    with client_of(server) as client:
        sockets = [WebSocketStream(client, "/echo") for _ in range(5)]
        server.signal(number)
        assert [websocket.wait_closed() for websocket in sockets] == [(1001, "")] * 5
        for websocket in sockets:
            websocket.wait_end()
            assert websocket.stream.reset is None
        client.wait_closed()
        assert client.goaways == [(2**31 - 1, NO_ERROR), (sockets[-1].stream.stream_id, NO_ERROR)]
    if number is signal.SIGTERM:
        server.wait_exit()
        return
    server.wait_log("Worker exiting", after=mark)
    server.wait_log(r"worker \d+ is ready", after=mark, timeout=BOOT_TIMEOUT)
    with client_of(server) as client:
        assert WebSocketStream(client, "/echo").say("hello") == "hello"


@pytest.mark.thorough
@pytest.mark.parametrize("limit", [{"http2_max_connection_age": 1}, {"http2_max_requests_per_connection": 1}],
                         ids=["age", "requests"])
def test_a_connection_that_retires_leaves_its_websocket_open(boot, limit):
    """For as long as the client likes; the connection ends with it."""
    server = boot(**limit)
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo")
        assert client.wait_goaway() == (2**31 - 1, NO_ERROR)
        assert client.wait_goaway(2) == (websocket.stream.stream_id, NO_ERROR)
        assert websocket.say("still here") == "still here"
        assert (websocket.closed, websocket.stream.done) == (None, False)
        websocket.send(websocket.close(1000))
        assert websocket.wait_closed() == (1000, "")
        websocket.wait_end()
        client.wait_closed()


@pytest.mark.thorough
def test_a_shutdown_waits_no_longer_than_graceful_timeout(boot):
    """The client does not answer the Close, and its application would wait for ever."""
    server = boot(graceful_timeout=2)
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo")
        server.signal(signal.SIGTERM)
        client.wait_for(lambda: websocket.closed, "a Close")
        client.wait_closed()
    server.expect("was sent SIGKILL")
    server.wait_exit()


@pytest.mark.thorough
def test_an_idle_websocket_outlives_timeout(boot):
    server = boot(timeout=2, keepalive=1)
    with client_of(server) as client:
        websocket = WebSocketStream(client, "/echo")
        with pytest.raises(AssertionError, match="timeout"):
            client.wait_for(lambda: websocket.stream.done or client.goaways, "nothing", 5)
        assert websocket.say("still here") == "still here"


# -- hostile clients -------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_output_that_nobody_reads_is_bounded_and_has_an_end(boot, kind):
    server = boot(timeout=3, keepalive=60)
    server.expect(*GONE)
    with client_of(server, settings={4: 1_000}) as client, client_of(server) as other:
        server.reset_peak()
        before = server.rss()
        client.auto_window = False
        sockets = [WebSocketStream(client, "/flood") for _ in range(20)]
        client.wait_for(lambda: all(websocket.stream.reset for websocket in sockets), "RST_STREAM", 20)
        # 20 of a queue and two buffers, where 200 MB were to be sent.
        assert server.peak_rss() - before < 40_000_000
        assert other.get("/hello").status == 200
    server.wait_log("the client stopped reading")


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["frames", "message"])
def test_floods_leave_other_clients_alone(boot, kind, what):
    """Of frames without payload in DATA frames of 16 KiB, and a message that never ends.

    For ASGI they end the WebSocket; for WSGI framing is the library's, whose limits are the application's.
    """
    server = boot(keepalive=60)
    server.expect(*GONE)
    with client_of(server) as client, client_of(server) as other:
        websocket = WebSocketStream(client, "/echo")
        octets = b"\x82\x80" + bytes(4) if what == "frames" else b""
        begin = b"" if what == "frames" else b"\x02\xff" + (2**40).to_bytes(8, "big") + bytes(4)
        piece = octets * 2_700 if octets else bytes(16_000)
        before = server.rss()
        server.reset_peak()
        websocket.send(begin)
        for _ in range(100 if octets else 1_500):
            if websocket.closed or websocket.stream.done or client.goaways:
                break
            websocket.send(piece, timeout=60)
        if kind in ASGI_KINDS:
            assert websocket.wait_closed(30)[0] == (1008 if octets else 1009)
        else:
            assert (websocket.closed, websocket.stream.done, client.goaways) == (None, False, [])
        assert server.peak_rss() - before < 100_000_000
        assert other.get("/hello").status == 200


# -- limits and crowds -----------------------------------------------------------------------------------------------


def test_open_websockets_leave_threads_for_others(servers, tmp_path, certs):
    server = make("thread", tmp_path, certs, threads=2, http2_max_waiting_threads=20).start()
    with ExitStack() as stack:
        stack.callback(server.stop)
        client = stack.enter_context(client_of(server))
        sockets = [WebSocketStream(client, "/echo") for _ in range(10)]
        assert [websocket.say("x") for websocket in sockets] == ["x"] * 10
        assert client.get("/hello").status == 200
        refused = WebSocketStream(client, "/echo")
        refused.wait_end()
        assert refused.stream.status == 503
        server.wait_log("10 WebSockets are open")
        sockets[0].send(sockets[0].close(1000))
        sockets[0].wait_end()
        # Its thread is about to return.
        while (again := WebSocketStream(client, "/echo")).stream.status == 503:
            pass
        assert again.say("y") == "y"


@pytest.mark.thorough
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["gevent", "asgi"])
def test_a_thousand_open_websockets(boot, kind):
    server = boot(keepalive=60)  # the last connection is idle until the others have their WebSockets
    with ExitStack() as stack:
        clients = [stack.enter_context(client_of(server)) for _ in range(MANY // 50)]
        before = server.rss()
        sockets = [WebSocketStream(client, "/echo") for client in clients for _ in range(50)]
        growth = (server.rss() - before) / MANY
        for number, websocket in enumerate(sockets):
            assert websocket.say(f"message {number}") == f"message {number}"
        assert clients[0].get("/hello").status == 200
        print(f"{kind}: {growth / 1024:.1f} KiB a WebSocket")
        assert growth < 200_000
        for websocket in sockets:
            websocket.send(websocket.close(1000))
        for websocket in sockets:
            assert websocket.wait_closed() == (1000, "")


# -- settings --------------------------------------------------------------------------------------------------------


def test_it_may_be_off(boot):
    server = boot(http2_websocket="off")
    with H2Client.connect(server) as client:
        assert 8 not in client.wait_settings()
        websocket = WebSocketStream(client, "/echo")
        client.response(websocket.stream)
        assert (websocket.stream.status, websocket.stream.reset) == (400, 1)
        assert client.get("/hello").status == 200


# -- Chromium --------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.timeout(120)
def test_chromium_echoes_on_the_connection_of_its_page(kind, server, tmp_path):
    require_tool("chromium")
    mark = server.log_mark()
    page = run("chromium", *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
               f"{server.url}/page?{kind}").stdout
    told = re.search(r"open chat\nhello\nlarge\nsocket of (\d+)\nclosed 3001 true\npage by h2\npage of (\d+)\n", page)
    assert told, page
    assert told[1] == told[2]
    method = "CONNECT" if kind in ASGI_KINDS else "GET"
    server.wait_log(rf"ACCESS \S+ {method} /echo HTTP/2.0 200", after=mark)
