"""What HTTP asks of requests and responses (RFC 9110), over HTTP/2, with every worker class.

The client is curl or Node, and where they would not send what is to be sent, one of these tests.
"""

import email.utils
import json
import os
import ssl
import time
from pathlib import Path

import pytest
import trustme

from tests.support.h2client import H2Client, open_tcp
from tests.support.kinds import KINDS, make_server
from tests.support.server import stop_all
from tests.support.tools import curl, run

SIZES = {"empty": 0, "small": 1_000, "large": 3_000_000}
"""Files by name: a large one is read by the connection, piece by piece."""
METHODS = Path(__file__).parents[1] / "support" / "methods.js"
DATE_TOLERANCE = 2
SERVED_BY = {"gunicorn", "gunicorn/asgi"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The folder of the files that the application sends."""
    folder = tmp_path_factory.mktemp("files")
    for name, size in SIZES.items():
        (folder / name).write_bytes(os.urandom(size))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def servers(request, certs, files, tmp_path_factory):
    """A function that returns a running server of a worker class, booted when it is first asked for."""
    running = {}

    def get(tls=True, **options):
        key = (tls, repr(options))
        if key not in running:
            running[key] = make_server(request.param, tmp_path_factory.mktemp("semantics"), certs,
                                       "tests.apps.semantics:{}", tls=tls, env={"FILES": str(files)}, **options).start()
            running[key].expect("deliberate")
        return running[key]

    yield get
    stop_all(running.values())


@pytest.fixture(params=[True, False], ids=["tls", "clear"])
def server(servers, request):
    """The application's server, with TLS and without."""
    return servers(tls=request.param)


class Answer:
    """What curl has seen of a response."""

    def __init__(self, server, path, *options):
        version = "--http2" if server.tls else "--http2-prior-knowledge"
        done = curl(server, path, version, "--dump-header", "-", "--output", server.directory / "body", *options)
        line, *fields = done.stdout.strip().splitlines()
        self.version, status = line.split()[:2]
        self.status, self.fields = int(status), {}
        for name, _, value in (field.partition(": ") for field in fields):
            self.fields.setdefault(name, []).append(value)
        body = server.directory / "body"
        self.body = body.read_bytes() if body.exists() else b""
        body.unlink(missing_ok=True)
        assert self.version == "HTTP/2"


def assert_dated(fields):
    """There is one Date, and it is now."""
    (date,) = fields["date"]
    assert date.endswith(" GMT")
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) <= DATE_TOLERANCE


# -- Date and Server (RFC 9110 sections 6.6.1 and 10.2.4) --------------------------------------------------------------


@pytest.mark.parametrize(("path", "status"), [("/hello", 200), ("/stream", 200), ("/file/large", 200), ("/fail", 500)])
def test_every_response_has_a_date_and_a_server(server, path, status):
    answer = Answer(server, path)
    assert answer.status == status
    assert_dated(answer.fields)
    (name,) = answer.fields["server"]
    assert name in SERVED_BY


def test_those_of_the_application(server):
    """Gunicorn keeps them from an ASGI application, and replaces them from a WSGI one, over HTTP/1.1 as well."""
    answer = Answer(server, "/own")
    if server.app.endswith("asgi"):
        assert (answer.fields["date"], answer.fields["server"]) == (["Sun, 06 Nov 1994 08:49:37 GMT"], ["own"])
    else:
        assert_dated(answer.fields)
        assert answer.fields["server"] == ["gunicorn"]


def test_answers_of_the_server_itself_have_a_date(server):
    """The application sees none of these requests."""
    with H2Client.connect(server) as client:
        for status, options in ((400, {"scheme": "ftp"}), (431, {"headers": [(f"x-{n}", "") for n in range(101)]})):
            stream = client.request("GET", "/hello", **options)
            assert client.response(stream).status == status
            assert_dated({"date": [stream.header("date")]})


# -- HEAD (RFC 9110 section 9.3.2) -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "length"), [
    ("/hello", 13), ("/stream", None), *((f"/file/{name}", size) for name, size in SIZES.items()),
    ("/framework/large", SIZES["large"])])
def test_head_has_the_fields_of_get_and_no_content(server, path, length):
    answer, whole = Answer(server, path, "--head"), Answer(server, path)
    assert answer.status == 200
    assert answer.fields.get("content-length") == whole.fields.get("content-length")
    assert answer.fields.get("content-length") == (None if length is None else [str(length)])
    assert set(answer.fields) == set(whole.fields)
    with H2Client.connect(server) as client:
        stream = client.response(client.request("HEAD", path))
        assert (stream.status, stream.received, stream.ended) == (200, 0, True)


# -- files and ranges (RFC 9110 section 14) ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("path", ["/file", "/framework"])
def test_a_file(server, files, path, name):
    answer = Answer(server, f"{path}/{name}")
    assert (answer.status, answer.fields["content-length"]) == (200, [str(SIZES[name])])
    assert answer.body == (files / name).read_bytes()


@pytest.mark.parametrize(("name", "first", "last"), [
    ("small", 100, 199), ("small", 999, 999), ("large", 0, 0), ("large", 1_000_000, 1_000_099),
    ("large", 1_000_000, 2_999_999)])
@pytest.mark.parametrize("path", ["/file", "/framework"])
def test_a_range_of_a_file(server, files, path, name, first, last):
    """The application seeks, and the connection sends from there, no more than Content-Length says."""
    size, length = SIZES[name], last - first + 1
    answer = Answer(server, f"{path}/{name}", "--range", f"{first}-{last}")
    assert answer.status == 206
    assert answer.fields["content-range"] == [f"bytes {first}-{last}/{size}"]
    assert answer.fields["content-length"] == [str(length)]
    assert answer.body == (files / name).read_bytes()[first:last + 1]


def test_head_of_a_range(server):
    answer = Answer(server, "/file/large", "--head", "--range", "1000000-2999999")
    assert (answer.status, answer.fields["content-length"]) == (206, ["2000000"])


# -- OPTIONS and CONNECT (RFC 9110 sections 9.3.6 and 9.3.7) -----------------------------------------------------------


def test_options_of_the_server(server):
    """Its target is `*`."""
    answer = Answer(server, "/", "--request", "OPTIONS", "--request-target", "*")
    assert (answer.status, answer.body) == (200, b"OPTIONS *\n")


def test_connect_is_refused(server):
    """The server is no proxy; the connection goes on."""
    with H2Client.connect(server) as client:
        stream = client.send_fields([(":method", "CONNECT"), (":authority", "localhost:22")], end_stream=False)
        assert client.wait_headers(stream).status == 501
        assert client.get("/hello").status == 200


def test_both_by_node(server):
    """On one connection, and a request after them."""
    done = run("node", METHODS, server.url, server.certs.ca)
    options, (refused, _), hello = json.loads(done.stdout)
    assert (options, refused, hello) == ([200, "OPTIONS *\n"], 501, [200, "Hello world!\n"])


# -- 421 (RFC 9110 section 15.5.20) ------------------------------------------------------------------------------------

HOOK = """
import ssl


def ssl_context(conf, default_ssl_context_factory):
    context = default_ssl_context_factory()
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    other.load_cert_chain({other!r})
    other.set_alpn_protocols(["h2"])

    def choose(sock, name, initial):
        if name == "other.example":
            sock.context = other

    context.sni_callback = choose
    return context
"""


@pytest.fixture(scope="module")
def checking(servers, tmp_path_factory):
    """A server that checks authorities, with another certificate for another name in SNI."""
    other = tmp_path_factory.mktemp("other") / "other.pem"
    trustme.CA().issue_cert("other.example", "*.other.example").private_key_and_cert_chain_pem.write_to_path(other)
    return servers(http2_check_authority="certificate", code=HOOK.format(other=str(other)))


def connect(server, name):
    """Connect with a name in SNI."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    client = H2Client(context.wrap_socket(open_tcp(server), server_hostname=name))
    client.send_preface()
    return client


@pytest.mark.parametrize(("sni", "covered", "others"), [
    ("localhost", ["localhost", "LOCALHOST:1", "127.0.0.1:443"], ["other.example", "example.org", "[::1]"]),
    (None, ["localhost"], ["other.example"]),
    ("other.example", ["other.example", "www.other.example:443"], ["localhost", "a.b.other.example", "127.0.0.1"]),
])
def test_requests_for_other_hosts(checking, sni, covered, others):
    """The certificate counts that the client was shown."""
    with connect(checking, sni) as client:
        for status, authorities in ((200, covered), (421, others), (200, covered)):
            for authority in authorities:
                stream = client.response(client.request("GET", "/hello", authority=authority))
                assert stream.status == status, authority
        assert_dated({"date": [stream.header("date")]})


def test_a_request_for_another_host_is_logged(checking):
    mark = checking.log_mark()
    with connect(checking, "localhost") as client:
        client.response(client.request("GET", "/secret", authority="example.org"))
    checking.wait_log(r"Invalid request from ip=127.0.0.1: the certificate does not cover the authority", after=mark)
    checking.wait_log(r"ACCESS 127.0.0.1 GET /secret HTTP/2(\.0)? 421", after=mark)


def test_curl_goes_elsewhere(checking):
    """It resolves another name to the same address, and is told that this is not the place."""
    host = f"example.org:{checking.port}"
    done = run("curl", "--silent", "--insecure", "--http2", "--resolve", f"{host}:127.0.0.1", f"https://{host}/hello",
               "--write-out", "%{http_code}")
    assert done.stdout == "421"


def test_without_the_setting_any_host_is_served(server):
    with H2Client.connect(server) as client:
        stream = client.response(client.request("GET", "/hello", authority="example.org"))
    assert stream.status == 200
