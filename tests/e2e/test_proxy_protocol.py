"""The PROXY protocol on whole workers: what applications, limits and logs learn of the client, as over HTTP/1."""

import http.client
import ipaddress
import json
import socket
import ssl
import struct
from contextlib import ExitStack

import gunicorn
import pytest

from tests.support.h1client import H1Response
from tests.support.h2client import H2Client, open_tcp
from tests.support.kinds import ASGI_KINDS, KINDS, make_server
from tests.support.server import Server, WorkerKind

V2 = b"\r\n\r\n\0\r\nQUIT\n\x21"
TLVS = b"\xea\0\x0d\x01vpce-1234567\4\0\0"
HEADERS = {
    "v1-4": b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n",
    "v1-6": b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n",
    "v2-4": (V2 + b"\x11" + struct.pack(">H", 12 + len(TLVS)) + socket.inet_aton("203.0.113.7")
             + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 51_234, 443) + TLVS),
    "v2-6": (V2 + b"\x21\0\x24" + socket.inet_pton(socket.AF_INET6, "2001:db8::7")
             + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack(">HH", 51_234, 443)),
}
V1 = HEADERS["v1-4"]
NEIGHBOUR = V1.replace(b"203.0.113.7", b"203.0.113.8")
# They tell no address, some in spite of addresses or a TLV, which mean nothing then.
SILENT = {
    "local": V2[:-1] + b"\x20\0\0\0",
    "local-with-addresses": V2[:-1] + b"\x20\x11" + HEADERS["v2-4"][14:],
    "unspec": V2 + b"\0\0\3\4\0\0",
    "unspec-stream": V2 + b"\1\0\0",
    "unknown": b"PROXY UNKNOWN\r\n",
    "unknown-with-addresses": V1.replace(b"TCP4", b"UNKNOWN"),
}
TOLD = ("PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT", "REMOTE_ADDR", "REMOTE_PORT")
LIMIT = 3
BROKEN = (ConnectionError, ssl.SSLError)
# Before, Gunicorn's own ASGI worker does not serve HTTP/1 behind a PROXY header.
ASGI_READS_IT = gunicorn.version_info >= (26, 2)


def cases(kinds):
    """Parameters of worker classes, with and without TLS; one of them is quick."""
    return [pytest.param((name, tls), id=f"{name}-{'tls' if tls else 'clear'}",
                         marks=[] if name == "thread" and tls else [pytest.mark.thorough])
            for name in kinds for tls in (True, False)]


@pytest.fixture(scope="module")
def start(certs, tmp_path_factory):
    """A function that returns a running server of a worker class; those with the same settings are shared."""
    running = {}
    with ExitStack() as stack:
        def start(name, tls, **options):
            key = (name, tls, *options.items())
            if key not in running:
                options = {"proxy_protocol": "auto", "keepalive": 60, **options}
                server = make_server(name, tmp_path_factory.mktemp("server"), certs, "tests.apps.{}_app:app", tls=tls,
                                     **options)
                stack.callback(server.stop)
                running[key] = server.start()
                server.is_asgi = name in ASGI_KINDS or name == "asyncio"
            return running[key]

        yield start


@pytest.fixture(scope="module", params=cases(KINDS))
def server(request, start):
    """Each worker class, with TLS and without."""
    return start(*request.param, http2_max_connections_per_ip=LIMIT)


@pytest.fixture(scope="module")
def gunicorns(certs, tmp_path_factory):
    """Gunicorn's own worker, over HTTP/1."""
    server = Server(tmp_path_factory.mktemp("server"), WorkerKind("gthread"), certs, tls=False, proxy_protocol="auto",
                    http2_cleartext="off").start()
    server.is_asgi = False
    yield server
    server.stop()


def connect(server, header, alpn=("h2",)):
    """Connect as a proxy does: the header comes before TLS."""
    sock = open_tcp(server)
    sock.sendall(header)
    return server.certs.client_context(alpn).wrap_socket(sock, server_hostname="localhost") if server.tls else sock


def connect_http2(server, header):
    """Connect as a proxy does; return the client."""
    client = H2Client(connect(server, header), server.authority, server.scheme)
    client.send_preface()
    return client


def over_http2(server, header):
    """What the application learns of the last of two requests over HTTP/2."""
    with connect_http2(server, header) as client:
        client.get(path_of(server))
        stream = client.get(path_of(server))
        assert stream.status == 200
        return json.loads(stream.body)


def over_http1(server, header):
    """What it learns of the last of two requests over HTTP/1."""
    with connect(server, header, ["http/1.1"]) as sock:
        exchange(sock, path_of(server))
        answer = exchange(sock, path_of(server))
        assert answer.status == 200
        return json.loads(answer.body)


def path_of(server):
    """Where the application tells what it has learnt."""
    return "/scope" if server.is_asgi else "/environ"


def exchange(sock, path, before=b""):
    """Make a request over HTTP/1 and return the response."""
    sock.sendall(before + f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    response = http.client.HTTPResponse(sock)
    response.begin()
    return H1Response(response)


def told(learnt):
    """The part of an environ that the header is about."""
    return {key: learnt.get(key) for key in TOLD}


@pytest.mark.compat
@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_the_application_learns_what_it_does_over_gunicorns_http1(server, gunicorns, header):
    expected = told(over_http1_once(gunicorns, header))
    assert None not in expected.values()
    if server.is_asgi:
        address, port = over_http2(server, header)["client"]
        # Gunicorn writes addresses of IPv6 in full here.
        assert (ipaddress.ip_address(address), str(port)) == (
            ipaddress.ip_address(expected["REMOTE_ADDR"]), expected["REMOTE_PORT"])
        assert over_http2(server, header)["server"] == ["127.0.0.1", server.port]
    else:
        learnt = over_http2(server, header)
        assert told(learnt) == expected
        assert learnt["SERVER_PORT"] == str(server.port)


def over_http1_once(server, header):
    """What the application learns of the first request: Gunicorn's gthread worker forgets the client then."""
    with connect(server, header) as sock:
        return json.loads(exchange(sock, path_of(server)).body)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_http1_on_the_same_port(server, header):
    """Also where it comes before TLS, which Gunicorn's own workers know nothing of, and for each request."""
    if not server.is_asgi:
        assert told(over_http1(server, header)) == told(over_http2(server, header))
    elif ASGI_READS_IT:
        (address, port), (h2_address, h2_port) = (
            over(server, header)["client"] for over in (over_http1, over_http2))
        assert (ipaddress.ip_address(address), port) == (ipaddress.ip_address(h2_address), h2_port)


@pytest.mark.compat
@pytest.mark.parametrize("over", [over_http2, over_http1], ids=["http2", "http1"])
@pytest.mark.parametrize("header", [b"", *SILENT.values()], ids=["none", *SILENT])
def test_connections_of_the_proxys_own(server, over, header):
    if server.is_asgi:
        if over is over_http2 or ASGI_READS_IT or not header:
            assert over(server, header)["client"][0] == "127.0.0.1"
    else:
        learnt = over(server, header)
        assert told(learnt) == {**dict.fromkeys(TOLD), "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": learnt["REMOTE_PORT"]}
        assert learnt["REMOTE_PORT"].isdigit()


SPOOFS = pytest.mark.parametrize("spoof", [NEIGHBOUR, HEADERS["v2-6"]], ids=["v1", "v2"])


@SPOOFS
def test_a_client_cannot_send_another_header(server, spoof):
    """Nor, under TLS, one within the connection."""
    client = H2Client(connect(server, V1), server.authority, server.scheme)
    with client:
        client.send_raw(spoof)
        client.send_preface()
        client.wait_closed()


@SPOOFS
@pytest.mark.parametrize("header", [V1, *SILENT.values()], ids=["v1", *SILENT])
def test_a_client_cannot_send_another_header_over_http1(server, header, spoof):
    """Neither before the first request nor before the next."""
    with connect(server, header, ["http/1.1"]) as sock:
        assert exchange(sock, "/", spoof).status == 400
    if ASGI_READS_IT or not server.is_asgi:
        with connect(server, header, ["http/1.1"]) as sock:
            assert exchange(sock, path_of(server)).status == 200
            assert exchange(sock, "/", spoof).status == 400


def test_the_limit_on_an_addresss_connections_counts_the_clients(server):
    """Those of HTTP/1, too; and each gives its place back."""
    with ExitStack() as stack:
        for _ in range(LIMIT - 1):
            client = stack.enter_context(connect_http2(server, V1))
            assert client.get("/hello").status == 200
        old = stack.enter_context(connect(server, V1, ["http/1.1"]))
        if ASGI_READS_IT or not server.is_asgi:
            assert exchange(old, "/hello").status == 200
        mark = server.log_mark()
        with pytest.raises((OSError, AssertionError)), connect_http2(server, V1) as refused:
            refused.get("/hello")
        server.wait_log("Connection from 203.0.113.7 closed: http2_max_connections_per_ip is reached", after=mark)
        assert over_http2(server, NEIGHBOUR)
        assert over_http2(server, b"")
    for _ in range(LIMIT + 1):
        assert within_the_limit(server)


def within_the_limit(server):
    """Whether the client has a connection again: the worker may have to notice first that others are closed."""
    for _ in range(1000):
        try:
            with connect_http2(server, V1) as client:
                return client.get("/hello").status == 200
        except (OSError, AssertionError):
            continue
    return False


def test_the_logs_name_the_client(server):
    mark = server.log_mark()
    over_http2(server, V1)
    server.wait_log(rf"ACCESS 203\.0\.113\.7 GET {path_of(server)} HTTP/2", after=mark)
    with connect_http2(server, V1) as client:
        assert client.get("/" + "x" * 5000).status == 414
    server.wait_log(r"Invalid request from ip=203\.0\.113\.7: ", after=mark)
    server.wait_log(r"ACCESS 203\.0\.113\.7 GET /xxx\S+ HTTP/2.0 414", after=mark)


@pytest.mark.parametrize("header", [V1, HEADERS["v2-4"]], ids=["v1", "v2"])
@pytest.mark.parametrize("kind", cases(KINDS))
def test_a_proxy_that_is_not_allowed(start, kind, header):
    """Gunicorn's own code answers it if it speaks HTTP/1 without TLS."""
    server = start(*kind, proxy_allow_ips="192.0.2.1")
    mark = server.log_mark()
    if server.tls:
        with pytest.raises(BROKEN):
            connect(server, header).close()
        server.wait_log(r"Invalid PROXY header from 127\.0\.0\.1: the peer is not in proxy_allow_ips", after=mark)
    else:
        with connect(server, header) as sock:
            assert exchange(sock, "/hello").status == (400 if server.is_asgi else 403)
    assert over_http2(server, b"")


@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_headers_are_not_read_unless_they_are_wanted(start, name):
    server = start(name, True, proxy_protocol="off")
    with pytest.raises(BROKEN):
        connect(server, V1).close()
    assert over_http2(server, b"")


@pytest.mark.thorough
@pytest.mark.parametrize("name", KINDS)
def test_one_version_alone(start, name):
    server = start(name, True, proxy_protocol="v2")
    with pytest.raises(BROKEN):
        connect(server, V1).close()
    assert over_http2(server, HEADERS["v2-4"])


@pytest.mark.parametrize("options", [{"http2_cleartext": "off"}, {"forwarded_allow_ips": "192.0.2.1"}],
                         ids=["off", "not-trusted"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "thread" else [pytest.mark.thorough])
                                  for name in KINDS])
def test_where_only_http1_is_served(start, name, options):
    """Gunicorn's own code reads the header there; for WSGI, it refuses UNKNOWN."""
    server = start(name, False, **options)
    if server.is_asgi and not ASGI_READS_IT:
        pytest.skip("Gunicorn's own ASGI worker does not read the header")
    silent = [SILENT["local"], SILENT["unspec-stream"]]
    for header in (V1, HEADERS["v2-4"], *silent):
        learnt = over_http1(server, header)
        address = learnt["client"][0] if server.is_asgi else learnt["REMOTE_ADDR"]
        assert address == ("127.0.0.1" if header in silent else "203.0.113.7")
    if not server.is_asgi:
        with connect(server, SILENT["unknown"]) as sock:
            assert exchange(sock, "/").status == 400


@pytest.mark.thorough
@pytest.mark.parametrize("kind", cases(KINDS))
def test_an_unknown_client_where_only_version_1_is_read(start, kind):
    server = start(*kind, proxy_protocol="v1")
    if server.is_asgi:
        if ASGI_READS_IT:
            assert over_http1(server, SILENT["unknown"])["client"][0] == "127.0.0.1"
    else:
        assert over_http1(server, SILENT["unknown"])["REMOTE_ADDR"] == "127.0.0.1"
    with connect(server, SILENT["unknown"], ["http/1.1"]) as sock:
        assert exchange(sock, "/", V1).status == 400
