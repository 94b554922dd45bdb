"""Trailers of requests and responses, and calls of gRPC, through the proxies that can carry them.

HAProxy carries both kinds of trailers over HTTP/2. nginx, by its gRPC module, carries those of responses; a client that
sends trailers itself is a protocol error to it (1.22).
"""

import json
from pathlib import Path

import pytest

from tests.support.h2client import DATA, END_STREAM, H2Client, raw_frame
from tests.support.tools import require_module, run

from .conftest import run_haproxy, run_nginx
from .test_smuggling import connect

PROXIES = ("haproxy", "nginx", "none")


@pytest.fixture(scope="module")
def features(servers, kind):
    """A worker with the application that has all features."""
    is_asgi = kind.worker_class.endswith("ASGIWorker")
    return servers(kind, f"tests.apps.features:{'asgi' if is_asgi else 'wsgi'}")


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request, features, tmp_path_factory):
    """The name of a proxy that speaks HTTP/2 to the worker and to clients, or of none, and its socket."""
    folder = tmp_path_factory.mktemp("p")
    if request.param == "none":
        yield request.param, features.socket_path
    elif request.param == "haproxy":
        with run_haproxy(folder, features):
            yield request.param, f"{folder}/h2-h2"
    else:
        with run_nginx(folder, features, features):
            yield request.param, f"{folder}/h2-h2"


@pytest.fixture
def client(proxy):
    """A client of the proxy's."""
    client = H2Client(connect(proxy[1]), scheme="http")
    client.send_preface()
    with client:
        yield client


def moments(features):
    """When the application can give its trailers; one without Content-Length, and one with it."""
    return ("announced", "unannounced") if features.app.endswith("asgi") else ("before", "last")


def test_trailers_of_responses(features, client):
    for when in moments(features):
        for length in ("", "&length"):
            stream = client.get(f"/trailers?when={when}{length}", [("te", "trailers")])
            assert (stream.status, stream.text, stream.ended) == (200, "one\ntwo\n", True)
            assert dict(stream.trailers) == {"x-checksum": "abc", "x-latin": "caf\xe9"}


def test_curl_sees_them(proxy, features):
    """A client that no one here wrote."""
    when = moments(features)[-1]
    done = run("curl", "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", proxy[1], "--include",
               f"http://localhost/trailers?when={when}", encoding="latin-1")
    head, _, rest = done.stdout.partition("\n\n")
    assert "x-checksum" not in head
    assert rest.startswith("one\ntwo\n")
    assert "x-checksum: abc\n" in rest


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_trailers_of_requests(proxy, client, size):
    if proxy[0] == "nginx":
        pytest.skip("nginx takes no trailers of requests")
    stream = client.request("POST", "/request", [("te", "trailers")], end=False)
    client.send_body(stream, b"x" * size, end=False)
    client.send_raw(client.header_frames(stream.stream_id, [("x-checksum", "abc"), ("x-other", "1")], end_stream=True))
    answer = json.loads(client.response(stream).text)
    assert answer["length"] == size
    trailers = [[name.lower(), value] for name, value in answer["trailers"]]
    assert trailers == [["x-checksum", "abc"], ["x-other", "1"]]
    assert "x-checksum" not in answer["fields"]


@pytest.mark.parametrize("proxy", ["haproxy"], indirect=True)
def test_nghttp_sends_them(proxy, tmp_path):
    """As `test_trailers_of_requests`, by a client that no one here wrote."""
    body = tmp_path / "body"
    body.write_bytes(b"x" * 100_000)
    port = Path(proxy[1]).with_name("port").read_text()
    done = run("nghttp", f"--data={body}", "--trailer=X-Checksum: abc", "--trailer=x-other: 1",
               f"http://127.0.0.1:{port}/request")
    answer = json.loads(done.stdout)
    assert answer["length"] == 100_000
    assert [[name.lower(), value] for name, value in answer["trailers"]] == [["x-checksum", "abc"], ["x-other", "1"]]


def test_a_request_without_trailers(client):
    """The end of its body is an empty frame."""
    stream = client.request("POST", "/request", end=False)
    client.send_raw(raw_frame(DATA, 0, stream.stream_id, b"body") + raw_frame(DATA, END_STREAM, stream.stream_id))
    answer = json.loads(client.response(stream).text)
    assert (answer["length"], answer["trailers"]) == (4, [])


def test_calls_of_grpc(proxy):
    """Their status is a trailer."""
    grpc = require_module("grpc")
    with grpc.insecure_channel(f"unix:{proxy[1]}", [("grpc.default_authority", "localhost")]) as channel:
        upper = channel.unary_unary("/tests.Service/Upper")
        for message in (b"hello", b"x" * 300_000):
            answer, call = upper.with_call(message, timeout=20)
            assert answer == message.upper()
            assert call.code() is grpc.StatusCode.OK
            assert dict(call.trailing_metadata())["x-length"] == str(len(message))
