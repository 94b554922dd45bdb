"""Every feature on every worker that can have it, with clients that no one here wrote: curl, nghttp, gRPC.

Where a client must send what none of these would (a wrong HTTP2-Settings), the octets are written out.
"""

import base64
import hashlib
import json
import re

import pytest

from tests.apps.features import hint
from tests.support.h1client import exchange, read_response, request_bytes
from tests.support.h2client import PREFACE, open_tcp
from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import Server, stop_all
from tests.support.tools import curl, require_module, run

KINDS = {**WSGI_KINDS, **ASGI_KINDS}
UPGRADE = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")]
compat = pytest.mark.compat


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Each worker class that can run here."""
    return request.param


@pytest.fixture(scope="module")
def servers(kind, certs, tmp_path_factory):
    """A function that returns a running server with the given options, booted when it is first asked for."""
    running, app = {}, f"tests.apps.features:{'asgi' if kind in ASGI_KINDS else 'wsgi'}"

    def get(tls=True, **options):
        key = (tls, repr(sorted(options.items())))
        if key not in running:
            directory = tmp_path_factory.mktemp("features")
            running[key] = Server(directory, KINDS[kind], certs, app, tls=tls, **options).start()
        return running[key]

    yield get
    stop_all(running.values())


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def server(servers, request):
    """The application's server, with TLS and without."""
    return servers(tls=request.param)


@pytest.fixture
def clear(servers):
    """A server without TLS that takes upgrades and prior knowledge."""
    return servers(tls=False)


@pytest.fixture
def body(tmp_path):
    """A function that returns a file with as many octets as asked for, and their digest."""
    def body(size):
        file = tmp_path / str(size)
        octets = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        file.write_bytes(octets)
        return file, hashlib.sha256(octets).hexdigest()
    return body


def http2(server):
    """The option that makes curl speak HTTP/2 with a server from the start."""
    return "--http2" if server.tls else "--http2-prior-knowledge"


def nghttp(server, path, *options):
    """Run nghttp; return what it tells of the frames."""
    return run("nghttp", "--verbose", *options, server.url + path, encoding="latin-1").stdout


def sections(server, path, *options):
    """Ask curl for the header sections of an answer: (status, its Link fields) of each, and the last body."""
    done = curl(server, path, "--include", *options)
    *heads, answer = done.stdout.replace("\r\n", "\n").split("\n\n", done.stdout.count("HTTP/"))
    return [(int(head.split()[1]), re.findall(r"(?im)^link: (.*)$", head)) for head in heads], answer


# -- early hints (RFC 8297) --------------------------------------------------------------------------------------------


@compat
@pytest.mark.parametrize("count", [0, 1, 3])
def test_curl_sees_early_hints(server, count):
    found, answer = sections(server, f"/hints?n={count}", http2(server))
    assert found == [(103, [hint(number)]) for number in range(count)] + [(200, [])]
    assert answer == "hello\n"


def test_early_hints_in_every_form(server, kind):
    """ASGI has the standard's, and the more general one that Gunicorn has for HTTP/1; WSGI has one alone."""
    for form in ("early_hint", "informational") if kind in ASGI_KINDS else ("callable",):
        found, _ = sections(server, f"/hints?n=2&form={form}", http2(server))
        assert found == [(103, [hint(0)]), (103, [hint(1)]), (200, [])]


def test_nghttp_sees_early_hints(server):
    output = nghttp(server, "/hints?n=2", "--no-dep")
    assert re.findall(r"recv \(stream_id=\d+\) (:status|link): (.*)", output) == [
        (":status", "103"), ("link", hint(0)), (":status", "103"), ("link", hint(1)), (":status", "200")]
    assert re.findall(r"recv \(stream_id=\d+\) x-number: (.*)", output) == ["0", "1"]


@compat
def test_early_hints_on_http1(server):
    found, answer = sections(server, "/hints?n=2", "--http1.1")
    assert found == [(103, [hint(0)]), (103, [hint(1)]), (200, [])]
    assert answer == "hello\n"


@compat
def test_no_early_hints_on_http10(server):
    found, answer = sections(server, "/hints?n=2", "--http1.0")
    assert found == [(200, [])]
    assert answer == "hello\n"


def test_early_hints_after_the_head_are_an_error(server, kind):
    answer = curl(server, "/hints?n=1&late", http2(server)).stdout
    reason = ("an informational response after http.response.start" if kind in ASGI_KINDS
              else "early hints must come before the response")
    assert answer == f"hello\nlate: {reason}\n"


# -- trailers (RFC 9113 section 8.1) -----------------------------------------------------------------------------------


def moments(kind):
    """When an application can give its trailers."""
    return ["announced", "unannounced"] if kind in ASGI_KINDS else ["before", "started", "between", "last"]


@compat
def test_nghttp_sees_trailers(server, kind):
    for when in moments(kind):
        output = nghttp(server, f"/trailers?when={when}", "--no-dep")
        names = re.findall(r"recv \(stream_id=\d+\) (:status|x-\w+): (.*)", output)
        assert names == [(":status", "200"), ("x-checksum", "abc"), ("x-latin", "caf\xe9")], when
        frames = re.findall(r"recv (HEADERS|DATA) frame <length=\d+, flags=(0x\w\w)", output)
        assert frames[0] == ("HEADERS", "0x04")
        assert frames[-1] == ("HEADERS", "0x05")
        assert {name for name, _ in frames[1:-1]} == {"DATA"}


def test_curl_sees_trailers(server, kind):
    for when in moments(kind):
        done = curl(server, f"/trailers?when={when}", http2(server), "--include", encoding="latin-1")
        head, _, answer = done.stdout.partition("\n\n")
        assert "x-checksum" not in head
        assert answer.startswith("one\ntwo\n")
        assert "x-checksum: abc\n" in answer


def test_trailers_with_a_content_length(server, kind):
    """A client that says `te: trailers` gets them however late they are given."""
    for when in moments(kind):
        output = nghttp(server, f"/trailers?when={when}&length", "--header=te: trailers", "--no-dep")
        assert "content-length: 8" in output
        assert "x-checksum: abc" in output, when


@pytest.mark.parametrize("name", [":status", "content-length", "transfer-encoding", "connection", "Host", "bad name"])
def test_fields_that_are_no_trailers_are_refused(server, name):
    output = nghttp(server, "/forbidden?name=" + name.replace(" ", "%20"), "--no-dep")
    (error,) = re.findall(r"recv \(stream_id=\d+\) x-error: (.*)", output)
    assert error.startswith("InvalidResponse: ")
    assert name.lower() in error


@compat
def test_request_trailers_of_nghttp(server, body):
    for size in (1, 100_000):
        file, digest = body(size)
        done = run("nghttp", f"--data={file}", "--trailer=X-Checksum: abc", "--trailer=x-other: 1",
                   f"{server.url}/request")
        answer = json.loads(done.stdout)
        assert (answer["length"], answer["sha256"]) == (size, digest)
        trailers = [[name.lower(), value] for name, value in answer["trailers"]]
        assert trailers == [["x-checksum", "abc"], ["x-other", "1"]]
        assert not {"x-checksum", "x-other"} & set(answer["fields"])


def test_a_call_of_grpc(server):
    grpc = require_module("grpc")
    target = f"localhost:{server.port}"
    with open(server.certs.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(target, credentials) if server.tls else grpc.insecure_channel(target)
    with channel:
        upper = channel.unary_unary("/tests.Service/Upper")
        for message in (b"hello", b"x" * 300_000):
            answer, call = upper.with_call(message, timeout=20)
            assert answer == message.upper()
            assert call.code() is grpc.StatusCode.OK
            assert dict(call.trailing_metadata())["x-length"] == str(len(message))


# -- priorities (RFC 7540 section 5.3, RFC 9218) -----------------------------------------------------------------------


@compat
@pytest.mark.parametrize("weight", [1, 201, 256])
def test_the_weight_of_nghttp(server, weight):
    """It comes in the HEADERS frame."""
    assert json.loads(run("nghttp", "--no-dep", f"--weight={weight}", f"{server.url}/priority").stdout) == [
        weight, 0, 3, False]


def test_the_dependency_of_nghttp(server):
    """nghttp builds a tree of idle streams as Firefox did, and hangs its request below one of them."""
    output = nghttp(server, "/priority", "--weight=42")
    (parent,) = re.findall(r"send HEADERS frame.*\n.*\n.*dep_stream_id=(\d+), weight=42", output) or ["11"]
    (answer,) = re.findall(r"^\[.*\]$", output, re.MULTILINE)
    assert json.loads(answer) == [42, int(parent), 3, False]


@compat
@pytest.mark.parametrize(("field", "expected"), [
    ("u=0", [16, 0, 0, False]), ("u=7, i", [16, 0, 7, True]), ("i", [16, 0, 3, True]),
    ("u=9", [16, 0, 3, False]), ("nonsense;;", [16, 0, 3, False]),
])
def test_the_priority_field(server, field, expected):
    assert json.loads(curl(server, "/priority", http2(server), "--header", f"Priority: {field}").stdout)[2:] == (
        expected[2:])
    assert json.loads(run("nghttp", "--no-dep", f"--header=priority: {field}", f"{server.url}/priority").stdout) == (
        expected)


# -- the upgrade from HTTP/1.1 (RFC 7540 section 3.2) ------------------------------------------------------------------


def asked(done):
    """What the application says of a request made by curl, and the version that was spoken at the end."""
    answer, _, version = done.stdout.rpartition(" ")
    return json.loads(answer), version


@compat
def test_curl_upgrades(clear):
    answer, version = asked(curl(clear, "/request?a=%20b", "--http2", "--write-out", " %{http_version}",
                                 "--header", "X-One: 1"))
    assert version == "2"
    assert (answer["method"], answer["target"], answer["scheme"]) == ("GET", "/request?a=%20b", "http")
    assert answer["host"] == f"127.0.0.1:{clear.port}"
    assert "x-one" in answer["fields"]
    assert not {"connection", "upgrade", "http2-settings"} & set(answer["fields"])


def test_curl_sees_the_101(clear):
    done = curl(clear, "/request", "--http2", "--include")
    assert done.stdout.startswith("HTTP/1.1 101 Switching Protocols\n")
    assert "\nHTTP/2 200" in done.stdout


def test_an_upgraded_connection_goes_on(clear):
    """The second request is stream 3 of the same connection."""
    url = f"{clear.url}/request"
    done = curl(clear, "/request", "--http2", url, url, "--write-out", " %{http_version} %{num_connects}\n")
    assert re.findall(r" ([\d.]+) (\d)\n", done.stdout) == [("2", "1"), ("2", "0"), ("2", "0")]


@compat
def test_nghttp_upgrades(clear):
    output = nghttp(clear, "/request", "--upgrade")
    assert "HTTP Upgrade success" in output
    assert re.findall(r"recv \(stream_id=(\d+)\) :status: (\d+)", output) == [("1", "200")]


def test_nghttp_upgrades_with_a_body(clear, body):
    """It asks for the upgrade by OPTIONS and sends the body on stream 3."""
    file, digest = body(100_000)
    output = nghttp(clear, "/request", "--upgrade", f"--data={file}")
    assert "HTTP Upgrade success" in output
    assert digest in output


@compat
@pytest.mark.parametrize("size", [1, 5000, 65_536])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_curl_upgrades_with_a_body(clear, body, size, chunked):
    """A chunked body and its framing together stay within the limit."""
    size -= 1000 * (chunked and size > 1000)
    file, digest = body(size)
    more = ["--header", "Transfer-Encoding: chunked"] if chunked else []
    answer, version = asked(curl(clear, "/request", "--http2", "--data-binary", f"@{file}", *more,
                                 "--write-out", " %{http_version}"))
    assert (answer["method"], answer["length"], answer["sha256"]) == ("POST", size, digest)
    assert version == "2"
    assert "transfer-encoding" not in answer["fields"]


@compat
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [70_000, 300_000])
def test_a_large_body_is_served_as_http1(clear, body, size, chunked):
    file, digest = body(size)
    more = ["--header", "Transfer-Encoding: chunked"] if chunked else []
    answer, version = asked(curl(clear, "/request", "--http2", "--data-binary", f"@{file}", *more,
                                 "--write-out", " %{http_version}"))
    assert (answer["length"], answer["sha256"], version) == (size, digest, "1.1")


def test_a_body_that_waits_for_100_continue_is_served_as_http1(clear, body):
    """Nobody waits for the other: the 100 comes at once."""
    file, digest = body(5000)
    done = curl(clear, "/request", "--http2", "--data-binary", f"@{file}", "--header", "Expect: 100-continue",
                "--expect100-timeout", "30", "--max-time", "8", "--write-out", " %{http_version}")
    answer, version = asked(done)
    assert (answer["sha256"], version) == (digest, "1.1")


def encoded(*pairs):
    """The value of HTTP2-Settings for these (identifier, value) pairs."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode()


WRONG_SETTINGS = {
    "no-base64": ["!!!"], "half-a-setting": ["AAMAAA"], "twice": ["AAMAAABk", "AAMAAABk"], "plus": ["AAMAAAB+"],
    "push": [encoded((2, 2))], "connect-protocol": [encoded((8, 2))],
    "window": [encoded((4, 2**31))], "frame-size": [encoded((5, 100))], "none": [],
}


@pytest.mark.parametrize("values", WRONG_SETTINGS.values(), ids=WRONG_SETTINGS.keys())
def test_wrong_settings_are_served_as_http1(clear, values):
    headers = UPGRADE[:2] + [("HTTP2-Settings", value) for value in values]
    answer = exchange(clear, request_bytes(clear, path="/request", headers=headers))
    assert answer.status == 200
    assert json.loads(answer.text)["stream_id"] is None


@pytest.mark.parametrize("headers", [
    [("Connection", "Upgrade"), *UPGRADE[1:]], [("Connection", "HTTP2-Settings"), *UPGRADE[1:]],
    [UPGRADE[0], ("Upgrade", "h2"), UPGRADE[2]], [UPGRADE[0], UPGRADE[2]],
], ids=["settings-not-named", "upgrade-not-named", "h2", "no-upgrade"])
def test_half_an_upgrade_is_served_as_http1(clear, headers):
    answer = exchange(clear, request_bytes(clear, path="/request", headers=headers))
    assert answer.status == 200
    assert json.loads(answer.text)["stream_id"] is None


def test_http10_is_never_upgraded(clear):
    request = request_bytes(clear, path="/request", headers=UPGRADE).replace(b" HTTP/1.1\r", b" HTTP/1.0\r", 1)
    assert exchange(clear, request).status == 200


@pytest.mark.parametrize(("limits", "more"), [
    ({"limit_request_fields": 8}, [(f"X-{number}", "1") for number in range(9)]),
    ({"limit_request_field_size": 200}, [("X-Long", "1" * 200)]),
], ids=["fields", "field-size"])
def test_gunicorns_limits_hold_for_an_upgrade(servers, limits, more):
    """HTTP/1 refuses what is beyond them; what is within is upgraded."""
    server = servers(tls=False, **limits)
    assert exchange(server, request_bytes(server, path="/request", headers=[*UPGRADE, *more])).status == 431
    assert curl(server, "/request", "--http2", "--write-out", "%{http_version}").stdout.endswith("2")


def test_an_upgrade_from_an_old_client_byte_for_byte(clear):
    """The 101 comes first, then frames, whether the client's preface is there already or not."""
    with open_tcp(clear) as sock:
        request = request_bytes(clear, path="/request", headers=UPGRADE)
        for octet in request:
            sock.sendall(bytes([octet]))
        head, _, frames = sock.recv(65_536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols")
        sock.sendall(PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while b'"stream_id"' not in frames:
            piece = sock.recv(65_536)
            assert piece
            frames += piece
        assert frames[3] == 4


@pytest.mark.parametrize("mode", ["both", "upgrade"])
def test_a_connection_that_speaks_http1_is_never_upgraded(servers, mode):
    """Gunicorn, whose own HTTP/2 knows none of our limits, would look for an upgrade in each request of HTTP/1."""
    # Gunicorn's own default has no h2.
    server = servers(tls=False, http2_cleartext=mode, http_protocols="h2,h1", keepalive=60)
    plain, upgrade = (request_bytes(server, path="/request", headers=fields) for fields in ((), UPGRADE))
    odd = request_bytes(server, "POST", "/request", [*UPGRADE, ("Transfer-Encoding", "chunked")])
    for requests in [plain, upgrade, upgrade], [odd + b"1;extension\r\na\r\n0\r\n\r\n", upgrade]:
        with open_tcp(server) as sock:
            for request in requests:
                sock.sendall(request)
                answer = read_response(sock)
                assert answer.status == 200
                assert json.loads(answer.text)["stream_id"] is None


@pytest.mark.thorough
def test_upgrades_after_a_reload(kind, certs, tmp_path):
    """Workers change nothing in the master's configuration, which the next ones begin with."""
    app = f"tests.apps.features:{'asgi' if kind in ASGI_KINDS else 'wsgi'}"
    server = Server(tmp_path, KINDS[kind], certs, app, tls=False, http_protocols="h2,h1").start()
    try:
        server.reload()
        assert curl(server, "/request", "--http2", "--write-out", "%{http_version}").stdout.endswith("2")
    finally:
        server.stop()


@compat
def test_everything_on_one_port(clear):
    """With `both`: prior knowledge, the upgrade and HTTP/1.1."""
    versions = [curl(clear, "/request", option, "--output", "/dev/null", "--write-out", "%{http_version}").stdout
                for option in ("--http2-prior-knowledge", "--http2", "--http1.1")]
    assert versions == ["2", "2", "1.1"]


def test_the_upgrade_alone(servers):
    server = servers(tls=False, http2_cleartext="upgrade")
    versions = [curl(server, "/request", option, "--output", "/dev/null", "--write-out", "%{http_version}").stdout
                for option in ("--http2", "--http1.1")]
    assert versions == ["2", "1.1"]
    done = curl(server, "/request", "--http2-prior-knowledge", check=False)
    assert done.returncode != 0
    assert done.stdout == ""


def test_prior_knowledge_alone_takes_no_upgrade(servers):
    server = servers(tls=False, http2_cleartext="prior-knowledge")
    assert curl(server, "/request", "--http2-prior-knowledge", "--write-out", "%{http_version}").stdout.endswith("2")
    done = curl(server, "/request", "--http2", "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}")
    assert done.stdout == "400 1.1"


def test_peers_that_are_not_trusted_are_never_upgraded(servers, body):
    server = servers(tls=False, forwarded_allow_ips="192.0.2.1")
    file, digest = body(5000)
    for more in ([], ["--data-binary", f"@{file}"]):
        answer, version = asked(curl(server, "/request", "--http2", *more, "--write-out", " %{http_version}"))
        assert (version, answer["stream_id"]) == ("1.1", None)
    assert answer["sha256"] == digest


def test_no_upgrade_under_tls(servers):
    server = servers(tls=True)
    answer = exchange(server, request_bytes(server, path="/request", headers=UPGRADE))
    assert (answer.status, json.loads(answer.text)["stream_id"]) == (200, None)


# -- server push -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--no-push", "--stat"])
def test_nothing_is_pushed(server, option):
    """Whatever nghttp says of ENABLE_PUSH: 0 with --no-push, and 1 by default; a hint is no reason either."""
    output = nghttp(server, "/hints?n=1", option, "--no-dep")
    assert "PUSH_PROMISE" not in output
    (settings,) = re.findall(r"recv SETTINGS frame <length=[1-9].*\n((?: +.*\n)*)", output)
    assert "ENABLE_PUSH" not in settings
    assert re.findall(r"recv \(stream_id=\d+\) :status: (\d+)", output) == ["103", "200"]
