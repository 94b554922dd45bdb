"""The worker for ASGI applications: the specification over HTTP/2, and what Gunicorn's own code goes on doing."""

import base64
import json
import os
import signal
import socket
import ssl
import struct
import time
from contextlib import ExitStack

import pytest

from tests.support.h1client import exchange, request_bytes
from tests.support.h2client import (
    CANCEL,
    INTERNAL_ERROR,
    NO_ERROR,
    PATTERN,
    PREFACE,
    PRIORITY_FLAG,
    H2Client,
    open_socket,
    open_tcp,
    pattern,
    pattern_digest,
    raw_frame,
)
from tests.support.load import Load
from tests.support.server import BOOT_TIMEOUT, Server, WorkerKind, stop_all
from tests.support.tools import curl, require_module, require_tool, run

ASGI = WorkerKind("gunicorn_h2.ASGIWorker", ("--threads", "1"), {"asgi": "tests.apps.asgi_app:app"})
MIB = 1 << 20


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request):
    """Each event loop."""
    require_module(request.param)
    return request.param


@pytest.fixture(scope="module")
def servers(loop, certs, tmp_path_factory):
    """A function that returns a running server with the given options, booted when it is first asked for."""
    running = {}

    def get(**options):
        key = repr(sorted(options.items()))
        if key not in running:
            directory = tmp_path_factory.mktemp("asgi")
            running[key] = Server(directory, ASGI, certs, "asgi", asgi_loop=loop, threads=1, **options).start()
            running[key].expect("DeliberateError")
        return running[key]

    yield get
    stop_all(running.values())


@pytest.fixture
def boot(loop, certs, tmp_path_factory):
    """A function that boots a server for one test."""
    with ExitStack() as stack:
        def boot(**options):
            options = {"asgi_loop": loop, "threads": 1, **options}
            server = Server(tmp_path_factory.mktemp("asgi"), ASGI, certs, "asgi", **options).start()
            stack.callback(server.stop)
            return server
        yield boot


@pytest.fixture
def server(servers):
    """A server with TLS."""
    return servers(tls=True)


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def either(servers, request):
    """A server with TLS, and one without."""
    return servers(tls=request.param)


@pytest.fixture
def h2(server):
    """A raw HTTP/2 connection over TLS."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        yield client


def records(server, key, count=1):
    """Return what the application has recorded, once there are ``count`` entries."""
    with H2Client.connect(server) as client:
        found = json.loads(client.get(f"/records?key={key}&n={count}").body)
    assert len(found) >= count, found
    return found


def wait_no_tasks(server):
    """Wait until as few tasks are left as a server at rest has."""
    with H2Client.connect(server) as client:
        # The lifespan, Gunicorn's main loop, the acceptor.
        assert json.loads(client.get("/tasks?n=3").body) <= 3


# -- what is spoken ----------------------------------------------------------------------------------------------------


def test_the_loop(h2, loop):
    assert json.loads(h2.get("/loop").body).split(".")[0] == loop


@pytest.mark.covered
def test_http2_and_http1_on_one_port(either):
    with H2Client.connect(either) as client:
        answer = client.get("/hello")
        assert (answer.status, answer.text) == (200, "Hello world!")
    answer = exchange(either, request_bytes(either, path="/hello"))
    assert (answer.status, answer.text) == (200, "Hello world!")


def test_large_bodies_over_http1(either):
    """Under TLS, by a transport of ours to a protocol of Gunicorn's."""
    body = b"".join(pattern(MIB))
    answer = exchange(either, request_bytes(either, "POST", "/count", body=body))
    assert json.loads(answer.body)["sha256"] == pattern_digest(MIB)
    answer = exchange(either, request_bytes(either, path=f"/bytes?n={4 * MIB}"))
    assert len(answer.body) == 4 * MIB


def test_a_slow_reader_over_http1(either):
    """The application waits for it, others do not."""
    with open_socket(either, alpn=("http/1.1",)) as sock:
        sock.sendall(request_bytes(either, path=f"/bytes?n={32 * MIB}&key=slow{either.tls}"))
        assert sock.recv(12) == b"HTTP/1.1 200"
        assert exchange(either, request_bytes(either, path="/hello")).status == 200
        with H2Client.connect(either) as client:
            assert json.loads(client.get(f"/records?key=slow{either.tls}&n=0").body) == []


def test_http1_is_kept_alive(either):
    with open_socket(either, alpn=("http/1.1",)) as sock:
        reader = sock.makefile("rb")
        for _ in range(3):
            sock.sendall(request_bytes(either, path="/hello"))
            assert reader.readline().startswith(b"HTTP/1.1 200")
            while reader.readline().strip():
                pass
            assert reader.read(12) == b"Hello world!"


def test_an_http1_client_that_leaves(either):
    """In the middle of its request, and in the middle of the response."""
    for request in (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
                    request_bytes(either, path=f"/bytes?n={32 * MIB}")):
        with open_socket(either, alpn=("http/1.1",)) as sock:
            sock.sendall(request)
    either.expect("ConnectionError")
    wait_no_tasks(either)


@pytest.mark.parametrize("cut", [1, 23, 24, 30])
def test_a_preface_in_two_pieces(servers, cut):
    server = servers(tls=False)
    with H2Client.connect(server, preface=False) as client:
        octets = PREFACE + raw_frame(4)
        client.send_raw(octets[:cut])
        client.send_raw(octets[cut:])
        assert client.get("/hello").status == 200


def test_an_http1_request_that_begins_like_the_preface(servers):
    server = servers(tls=False)
    with open_tcp(server) as sock:
        sock.sendall(b"P")
        sock.sendall(b"OST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"length": 3' in answer


@pytest.mark.covered
def test_prior_knowledge_alone_refuses_http1(servers):
    server = servers(tls=False, http2_cleartext="prior-knowledge")
    assert exchange(server, request_bytes(server, path="/hello")).status == 400
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200


def test_peers_that_are_not_trusted_get_http1(servers):
    server = servers(tls=False, forwarded_allow_ips="192.0.2.1")
    # Gunicorn 25.0 shows it with a traceback.
    server.expect("InvalidHTTPVersion")
    assert exchange(server, request_bytes(server, path="/hello")).status == 200
    with H2Client.connect(server) as client:
        client.wait_closed()
        assert not client.settings_frames


@pytest.mark.covered
def test_a_unix_socket(servers):
    server = servers(tls=False, unix=True)
    with H2Client.connect(server) as client:
        scope = json.loads(client.get("/scope").body)
    assert scope["client"] is None
    assert scope["server"] == [server.socket_path, None]


def test_a_slow_preface_is_not_waited_for(servers):
    server = servers(tls=False, http2_handshake_timeout=0.2, code="http2_handshake_timeout = 0.2")
    with open_tcp(server) as sock:
        sock.sendall(PREFACE[:5])
        assert sock.recv(100) == b""


def test_a_websocket_over_http1(server):
    with open_socket(server, alpn=("http/1.1",)) as sock:
        sock.sendall(b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        reader = sock.makefile("rb")
        assert reader.readline().startswith(b"HTTP/1.1 101")
        while reader.readline().strip():
            pass
        sock.sendall(b"\x81\x85\0\0\0\0hello")
        assert reader.read(7) == b"\x81\x05hello"


# -- the scope ---------------------------------------------------------------------------------------------------------


def test_the_scope(h2, server):
    headers = [("x-one", "1"), ("cookie", "a=1"), ("x-one", "2"), ("cookie", "b=2"), ("x-latin", "é".encode("latin-1"))]
    scope = json.loads(h2.get("/scope/a%C3%A9%20b?x=%20&y", headers).body)
    assert scope["headers"] == [["host", server.authority], ["x-one", "1"], ["x-one", "2"], ["x-latin", "é"],
                                ["cookie", "a=1; b=2"]]
    local = h2.sock.getsockname()
    expected = {
        "type": "http", "http_version": "2", "method": "GET", "scheme": "https", "path": "/scope/aé b",
        "raw_path": "/scope/a%C3%A9%20b", "query_string": "x=%20&y", "root_path": "",
        "asgi": {"version": "3.0", "spec_version": "2.4"}, "state": {"started": "yes"},
        "client": list(local), "server": ["127.0.0.1", server.port],
    }
    assert {key: scope[key] for key in expected} == expected
    assert set(scope) - set(expected) == {"headers", "extensions"}


def test_tls_and_the_clients_certificate(servers, certs):
    server = servers(tls=True, cert_reqs=int(ssl.CERT_OPTIONAL), ca_certs=certs.ca)
    for client_cert in (False, True):
        with H2Client.connect(server, client_cert=client_cert) as client:
            first, second = (json.loads(client.get("/scope").body)["extensions"]["tls"] for _ in range(2))
            assert first == second
            shown = ssl.PEM_cert_to_DER_cert(first["server_cert"])
            assert shown == client.sock.getpeercert(binary_form=True)
            assert (first["tls_version"], first["client_cert_error"]) == (0x0304, None)
            assert first["cipher_suite"] >> 8 == 0x13
            assert bool(first["client_cert_chain"]) == client_cert
            assert str(first["client_cert_name"]).startswith("CN=alice,") == client_cert


def test_there_is_no_tls_extension_without_tls(servers):
    with H2Client.connect(servers(tls=False)) as client:
        assert "tls" not in json.loads(client.get("/scope").body)["extensions"]


def test_the_state_is_copied_for_each_request(h2):
    for _ in range(2):
        assert json.loads(h2.get("/scope").body)["state"] == {"started": "yes"}


@pytest.mark.parametrize(("allowed", "scheme"), [("127.0.0.1", "http"), ("192.0.2.1", "https")])
def test_the_forwarded_scheme(servers, allowed, scheme):
    """A trusted peer is believed, even where it says that its own client has no TLS."""
    with H2Client.connect(servers(tls=True, forwarded_allow_ips=allowed)) as client:
        assert json.loads(client.get("/scope", [("x-forwarded-proto", "http")]).body)["scheme"] == scheme


def test_names_with_underscores_are_dropped_as_gunicorn_does(h2):
    scope = json.loads(h2.get("/scope", [("x_a", "1"), ("x-b", "2")]).body)
    assert [name for name, _ in scope["headers"]] == ["host", "x-b"]


def test_gunicorns_limits(servers):
    server = servers(tls=True, limit_request_fields=10, limit_request_line=100, limit_request_field_size=200)
    with H2Client.connect(server) as client:
        assert client.get("/hello", [(f"x-{n}", "1") for n in range(9)]).status == 200
        assert client.get("/hello", [(f"x-{n}", "1") for n in range(10)]).status == 431
        assert client.get("/hello", [("x", "y" * 300)]).status == 431
        assert client.get("/hello?" + "x" * 100).status == 414


def test_the_root_path(servers):
    server = servers(tls=True, root_path="/base")
    with H2Client.connect(server) as client:
        assert json.loads(client.get("/scope").body)["root_path"] == "/base"


def extensions(answer):
    """The extensions in a scope that was sent as JSON."""
    return json.loads(answer.body)["extensions"]


def test_priorities(h2):
    plain = extensions(h2.get("/scope"))
    assert plain["http.response.priority"] == {"weight": 16, "depends_on": 0, "urgency": 3, "incremental": False}
    asked = extensions(h2.get("/scope", [("priority", "u=1, i")]))
    assert asked["http.response.priority"] == {"weight": 16, "depends_on": 0, "urgency": 1, "incremental": True}
    assert {"http.response.trailers", "http.response.early_hint", "http.request.trailers"} <= set(plain)


def test_a_priority_in_the_headers_frame(h2):
    stream = h2.open()
    block = h2.encoder.encode(h2.fields(path="/scope"))
    payload = struct.pack(">LB", 0, 200) + block
    h2.send_raw(raw_frame(1, 0x5 | PRIORITY_FLAG, stream.stream_id, payload))
    assert extensions(h2.response(stream))["http.response.priority"]["weight"] == 201


# -- receive -----------------------------------------------------------------------------------------------------------


def test_a_body(h2):
    body = PATTERN * 4
    assert h2.post("/echo", body).body == body
    assert json.loads(h2.post("/count", body).body)["sha256"] == pattern_digest(len(body))
    assert json.loads(h2.get("/count").body)["length"] == 0


def test_request_trailers(h2):
    stream = h2.request("POST", "/count", body=b"abc", end=False)
    h2.send_raw(h2.header_frames(stream.stream_id, [("x-checksum", "1")], end_stream=True))
    answer = json.loads(h2.response(stream).body)
    assert (answer["length"], answer["trailers"]) == (3, [["x-checksum", "1"]])


def test_expect_continue(h2):
    stream = h2.request("POST", "/count", [("expect", "100-continue")], end=False)
    h2.wait_for(lambda: stream.informational, "100 Continue")
    h2.send_body(stream, b"abc")
    assert json.loads(h2.response(stream).body)["length"] == 3
    assert [dict(fields)[":status"] for fields in stream.informational] == ["100"]


def test_no_continue_where_the_body_is_not_asked_for(h2):
    stream = h2.request("POST", "/unread", [("expect", "100-continue")], end=False)
    assert h2.response(stream).status == 200
    assert not stream.informational


def test_an_unread_body_ends_without_losing_the_response(h2):
    stream = h2.request("POST", "/unread", end=False)
    h2.send_raw(h2.data_frame(stream.stream_id, b"x" * 1000))
    h2.wait_for(lambda: stream.reset is not None, "RST_STREAM")
    assert (stream.status, stream.text, stream.reset) == (200, "Hello world!", NO_ERROR)


@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_disconnect_is_told_and_cancels_nothing(server, gate, how, request):
    key = f"disconnect{how}{id(request)}"
    with H2Client.connect(server) as client:
        stream = client.request("POST", gate.path("/disconnect", key=key), body=b"abc", end=False)
        records(server, key, 1)
        if how == "reset":
            client.reset(stream, CANCEL)
            client.ping()
        client.close()
    assert records(server, key, 3) == ["started", "http.disconnect", "StreamAborted"]
    gate.wait_inside()
    gate.release()
    assert records(server, key, 4)[3] == "finished"
    wait_no_tasks(server)


def test_receive_after_the_response(h2, server):
    h2.get("/after?key=after")
    assert records(server, "after", 2) == ["http.disconnect", "http.disconnect"]


def test_a_body_that_stops_is_not_waited_for(servers):
    # Not 1: Gunicorn's worker tells that it lives once a second.
    server = servers(tls=True, timeout=2)
    with H2Client.connect(server) as client:
        stream = client.request("POST", "/count", body=b"abc", end=False)
        client.wait_for(lambda: stream.reset is not None, "RST_STREAM")
        assert stream.reset == CANCEL
    server.check_log()


# -- send --------------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_response(h2):
    answer = h2.get("/hello")
    assert answer.header("server") == "gunicorn/asgi"
    assert answer.header("date").endswith("GMT")
    assert answer.header("content-type") == "text/plain"


def ask_fields(client, headers, method="GET", **query):
    """Have the application answer with these fields."""
    encoded = base64.b64encode(json.dumps(headers).encode()).decode()
    more = "".join(f"&{name}={value}" for name, value in query.items())
    return client.response(client.request(method, f"/fields?headers={encoded}{more}"))


def test_own_server_and_date_fields(h2):
    answer = ask_fields(h2, [("Server", "mine"), ("Date", "today"), ("Connection", "close"), ("X-Latin", "é")])
    assert (answer.header("server"), answer.header("date"), answer.header("connection")) == ("mine", "today", None)


@pytest.mark.parametrize("header", [("x", "a\r\nb: c"), ("x", "a\0"), ("x y", "a"), ("", "a"), (":status", "200")])
def test_fields_that_must_not_go_out(server, h2, header):
    server.expect("InvalidResponse")
    answer = ask_fields(h2, [header])
    assert (answer.status, answer.text) == (500, "500 Internal Server Error\n")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_responses_without_a_body(h2, method, status):
    answer = ask_fields(h2, [("content-length", "5")], method, status=status, n=5)
    assert (answer.status, answer.received, answer.ended) == (status, 0, True)
    assert answer.header("content-length") == (None if status == 204 else "5")


@pytest.mark.parametrize("declared", [3, 7])
def test_a_small_body_of_another_length_than_declared(server, h2, declared):
    """Nothing has gone out yet, so the client gets to know that the server is at fault."""
    server.expect("RuntimeError: 5 octets")
    assert ask_fields(h2, [("content-length", str(declared))], n=5).status == 500


@pytest.mark.parametrize(("when", "status", "reset"), [
    ("before", 500, None), ("start", 500, None), ("return", 500, None), ("receive", 500, None),
    ("body", 200, INTERNAL_ERROR), ("after", 200, None),
])
def test_errors_of_the_application(server, h2, when, status, reset):
    server.expect("DeliberateError: a secret", "without completing its response")
    answer = h2.get(f"/fail?when={when}")
    assert (answer.status, answer.reset) == (status, reset)
    assert "secret" not in answer.text
    assert h2.get("/hello").status == 200


@pytest.mark.parametrize(("messages", "error"), [
    ("body", ["RuntimeError", "http.response.body before http.response.start"]),
    ("start,start", ["RuntimeError", "http.response.start was sent already"]),
    ("start,body,body", ["RuntimeError", "http.response.body after the last one"]),
    ("start,more,trailers", ["RuntimeError", "http.response.trailers before the last http.response.body"]),
    ("start,hint", ["RuntimeError", "an informational response after http.response.start"]),
    ("switch", ["ValueError", "101 is no status of a final response"]),
    ("upgrade", ["ValueError", "101 is no status of an informational response of HTTP/2"]),
    ("other", ["RuntimeError", "'websocket.accept' is no ASGI message for HTTP"]),
    ("hint,hint,start,more,more,body", "fine"),
])
def test_the_order_of_messages(server, h2, messages, error):
    server.expect("RuntimeError", "ValueError")
    h2.get(f"/order?messages={messages}&key={messages}")
    assert records(server, messages) == [error]
    assert h2.get("/hello").status == 200


def test_a_piece_leaves_when_it_is_sent(h2, gate):
    stream = h2.request("GET", gate.path("/stream-gate"))
    h2.wait_for(lambda: stream.text == "first", "the first piece")
    gate.wait_inside()
    gate.release()
    assert h2.response(stream).text == "firstsecond"


def test_a_small_response_is_one_write(server):
    """The head and the data, in this order, in one TLS record."""
    with H2Client.connect(server) as client:
        client.wait_settings()
        stream = client.request("GET", "/hello")
        client.wait_for(lambda: stream.headers, "the head")
        assert stream.done


def test_a_slow_reader_stops_the_application_and_gets_everything(server):
    with H2Client.connect(server, auto_window=False) as client:
        stream = client.request("GET", f"/bytes?n={MIB}&piece=20000")
        client.wait_for(lambda: stream.received == 65_535, "a window full of data")
        client.grant(MIB)
        client.grant(MIB, stream)
        assert client.response(stream).received == MIB


@pytest.mark.parametrize("how", ["reset", "close"])
def test_sending_to_no_one_raises(server, how):
    key = f"bytes{how}"
    with H2Client.connect(server, auto_window=False) as client:
        stream = client.request("GET", f"/bytes?n={MIB}&key={key}")
        client.wait_for(lambda: stream.received == 65_535, "a window full of data")
        if how == "reset":
            client.reset(stream, CANCEL)
            client.ping()
        client.close()
    assert records(server, key) == [{"error": "StreamAborted", "code": CANCEL}]
    wait_no_tasks(server)


def test_a_background_task_does_not_hold_the_response_back(h2, server, gate):
    assert h2.get(gate.path("/background", key="background")).text == "Hello world!"
    gate.wait_inside()
    gate.release()
    assert records(server, "background") == ["done"]


def test_early_hints(h2):
    answer = h2.get("/hints")
    assert [[value for name, value in fields if name == "link"] for fields in answer.informational] == [
        ["</a.css>; rel=preload", "</b.js>; rel=preload"], ["</c.css>"]]
    assert answer.text == "an informational response after http.response.start"


@pytest.mark.parametrize("query", ["announced", "n=10&announced", "n=10&split&announced", "n=10", "n=0", "n=10&split",
                                   "n=100000", "n=100000&announced"])
def test_response_trailers(h2, query):
    answer = h2.get(f"/trailers?{query}")
    assert (answer.trailers, answer.reset) == ([("checksum", "abc")], None)


def test_response_trailers_in_two_messages(h2):
    for query in ("announced&more", "more&n=5"):
        assert h2.get(f"/trailers?{query}").trailers == [("first", "1"), ("checksum", "abc")]


def test_a_head_request_has_no_trailers(h2):
    answer = h2.response(h2.request("HEAD", "/trailers?n=10&announced"))
    assert (answer.status, answer.trailers, answer.ended) == (200, None, True)


@pytest.mark.parametrize("name", [":status", "content-length", "transfer-encoding", "Set-Cookie"])
def test_fields_forbidden_in_trailers(server, h2, name):
    server.expect("InvalidResponse")
    answer = h2.get(f"/trailers?n=10&split&announced&name={name}")
    assert (answer.status, answer.reset) == (200, INTERNAL_ERROR)


def test_announced_trailers_that_never_come(server, h2):
    server.expect("without completing its response")
    assert h2.get("/trailers?n=10&announced&none").reset == INTERNAL_ERROR


def test_curl_and_nghttp_see_hints_and_trailers(server):
    answer = curl(server, "/hints", "--http2", "--include").stdout
    assert answer.count("HTTP/2 103") == 2
    assert "link: </a.css>" in answer
    assert "checksum: abc" in curl(server, "/trailers?n=5", "--http2", "--include").stdout
    output = run("nghttp", "--verbose", f"{server.url}/trailers?n=5&announced").stdout
    assert "checksum: abc" in output


# -- side by side ------------------------------------------------------------------------------------------------------


@pytest.mark.alone
def test_ten_half_seconds_take_half_a_second(h2):
    begun = time.monotonic()
    streams = [h2.request("GET", "/sleep?s=0.5") for _ in range(10)]
    assert [h2.response(stream).status for stream in streams] == [200] * 10
    assert time.monotonic() - begun < 1.5


def test_a_shut_window_stops_only_its_own_stream(server):
    with H2Client.connect(server, auto_window=False) as client:
        client.grant(10 * MIB)
        shut = client.request("GET", f"/bytes?n={MIB}")
        client.wait_for(lambda: shut.received == 65_535, "a window full of data")
        for _ in range(10):
            assert client.get("/hello").status == 200
        assert not shut.done


def test_h2load(server):
    require_tool("h2load")
    output = run("h2load", "-n", "2000", "-c", "10", "-m", "10", f"{server.url}/hello").stdout
    assert "2000 2xx" in output


@pytest.mark.parametrize("engine", ["fast", "h2"])
def test_the_engine(servers, engine):
    require_tool("h2load")
    server = servers(tls=True, http2_engine=engine)
    server.wait_log(f"engine {engine};")
    output = run("h2load", "-n", "500", "-c", "5", "-m", "10", f"{server.url}/hello").stdout
    assert "500 2xx" in output


@pytest.mark.thorough
@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", ["down", "up", "unread"])
def test_a_quarter_of_a_gibibyte_in_little_memory(boot, what):
    server = boot(tls=True, accesslog=None)
    size = 256 * MIB
    with H2Client.connect(server, settings={4: 4 * MIB}) as client:
        client.keep_frames = False
        client.grant(4 * MIB)
        client.get("/hello")
        before = server.reset_peak()
        if what == "down":
            received = client.response(client.request("GET", f"/bytes?n={size}", sink=len), timeout=90).received
            assert received == size
        elif what == "up":
            answer = client.post("/count", pattern(size))
            assert json.loads(answer.body)["length"] == size
        else:
            stream = client.request("POST", "/sleep?s=0.1", end=False)
            client.send_body(stream, pattern(size), end=False, timeout=5)
            assert client.response(stream).status == 200
        assert server.peak_rss() - before < 32 * MIB


# -- operations --------------------------------------------------------------------------------------------------------


def test_the_access_log(boot):
    server = boot(access_log_format='ACCESS %(h)s "%(r)s" %(s)s %(B)s %({x-a}i)s %({content-type}o)s '
                                    "%({gunicorn.http2.stream_id}e)s %(H)s")
    with H2Client.connect(server) as client:
        client.get("/hello?a=b", [("x-a", "yes")])
    server.wait_log(r'ACCESS 127\.0\.0\.1 "GET /hello\?a=b HTTP/2\.0" 200 12 yes text/plain 1 HTTP/2\.0')


def test_the_hooks(boot):
    server = boot(code="""
def pre_request(worker, req):
    worker.log.info("PRE %s %s", req.method, req.path)
def post_request(worker, req, environ, resp):
    worker.log.info("POST %s %s", resp.status, environ["PATH_INFO"])
""")
    with H2Client.connect(server) as client:
        client.get("/hello")
    server.wait_log("PRE GET /hello")
    server.wait_log("POST 200 /hello")


def test_an_idle_connection_is_closed(boot):
    server = boot(keepalive=1)
    with H2Client.connect(server) as client:
        client.get("/hello")
        assert client.wait_goaway()[1] == NO_ERROR
        client.wait_closed()


@pytest.mark.covered
def test_worker_connections(boot):
    """One more than there is room for waits until there is."""
    server = boot(worker_connections=2, keepalive=30)
    with H2Client.connect(server) as first, H2Client.connect(server) as second:
        assert first.get("/hello").status == second.get("/hello").status == 200
        with open_tcp(server) as third:
            third.settimeout(0.3)
            hello = b"\x16\x03\x01\x00\x05hello"
            third.sendall(hello)
            with pytest.raises(socket.timeout):
                third.recv(1)
            first.close()
            third.settimeout(10)
            # Not TLS: the answer is an alert, or the end.
            assert third.recv(1) in (b"\x15", b"")


@pytest.mark.covered
def test_worker_connections_count_http1_as_well(boot):
    server = boot(tls=False, worker_connections=1, keepalive=30)
    for _ in range(3):
        assert exchange(server, request_bytes(server, path="/hello", headers=[("Connection", "close")])).status == 200
        with H2Client.connect(server) as client:
            assert client.get("/hello").status == 200


@pytest.mark.thorough
@pytest.mark.covered
def test_max_requests(boot):
    """The worker ends with GOAWAY, and nothing is lost; another one takes its place."""
    server = boot(max_requests=20)
    with Load(server, path="/hello") as load:
        load.wait_answered(30)
    assert load.lost == []
    server.wait_log("Autorestarting worker")


@pytest.mark.covered
def test_sigterm_lets_requests_finish(boot, gate):
    server = boot()
    with H2Client.connect(server) as client:
        client.wait_settings()
        stream = client.request("GET", gate.path("/stream-gate"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        assert client.wait_goaway() == (2**31 - 1, NO_ERROR)
        assert client.wait_goaway(2) == (1, NO_ERROR)
        gate.release()
        assert client.response(stream).text == "firstsecond"
        client.wait_closed()
    assert server.wait_exit() == 0
    assert "lifespan is over" in server.log


SIGNAL_THE_FIRST = """
import os, pathlib, signal

def post_worker_init(worker):
    mark = pathlib.Path({!r})
    if not mark.exists():
        mark.touch()
        os.kill(worker.pid, signal.SIGTERM)
"""


def test_sigterm_before_the_event_loop_runs(boot, tmp_path):
    """The worker ends, and another one takes its place."""
    server = boot(code=SIGNAL_THE_FIRST.format(str(tmp_path / "mark")))
    server.wait_log(r"Worker exiting", timeout=BOOT_TIMEOUT)
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200


@pytest.mark.covered
def test_tasks_left_at_the_graceful_timeout_are_cancelled(boot, tmp_path):
    server, file = boot(graceful_timeout=1), tmp_path / "file"
    with H2Client.connect(server) as client:
        client.request("GET", f"/forever?key=forever&file={file}")
        records(server, "forever")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert file.read_text() == "cancelled"


@pytest.mark.timeout(90)
def test_reloads_under_load_lose_nothing(boot):
    server = boot()
    with Load(server, path="/hello") as load:
        for _ in range(3):
            load.wait_answered(20)
            server.reload()
            load.wait_answered(20)
    assert load.lost == []


@pytest.mark.alone
def test_two_hundred_idle_connections(server):
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(H2Client.connect(server)).wait_settings()
        begun = time.monotonic()
        with H2Client.connect(server) as client:
            assert client.get("/hello").status == 200
        assert time.monotonic() - begun < 2


def test_a_broken_peer_is_told_why(server):
    server.expect("PROTOCOL_ERROR")
    with H2Client.connect(server) as client:
        client.wait_settings()
        client.send_raw(raw_frame(5, 0x4, 1, b"\0\0\0\2"))
        assert client.wait_goaway()[1] == 1
        client.wait_closed()


def test_the_environment_reaches_the_application(boot):
    server = boot(env={"ASGI_TEST": "yes"})
    with H2Client.connect(server) as client:
        assert json.loads(client.get("/environ?name=ASGI_TEST").body) == "yes"
    assert os.environ.get("ASGI_TEST") is None
