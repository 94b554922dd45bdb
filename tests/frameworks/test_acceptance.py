"""What people do with a web framework, on each of them: over HTTP/2 and HTTP/1.1, with TLS and without."""

import gzip
import hashlib
import json
import re

import pytest

from tests.apps import suite
from tests.e2e.conftest import TRANSPORTS, http_client
from tests.frameworks.conftest import works
from tests.support.h2client import CANCEL, H2Client, pattern, pattern_digest
from tests.support.tools import curl

compat = pytest.mark.compat
MIB = 1 << 20
SIZE = {True: 64 * MIB, False: 8 * MIB}
"""Of a large body, over HTTP/2 and over HTTP/1.1, which is Gunicorn's own code."""
PLAIN = {"Accept-Encoding": "identity"}


# -- routes ------------------------------------------------------------------------------------------------------------


def test_hello(http):
    response = http.get("/", headers=PLAIN)
    assert (response.status_code, response.text) == (200, "Hello, world!\n")
    assert response.headers["content-length"] == "14"
    head = http.head("/", headers=PLAIN)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "14")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_json(http, method):
    value = {"číslo": 1, "list": [None, True, 1.5, "ž"]} if method != "GET" else None
    answer = http.request(method, "/json", params={"q": ["a b", "č"]}, json=value).json()
    assert answer == {"method": method, "sent": value, "query": {"q": ["a b", "č"]}, "text": suite.CZECH}


def test_form_and_files(http):
    data = b"".join(pattern(200_000))
    answer = http.post("/form", data={"name": "Åsa"}, files={"a": ("a.bin", data), "b": ("b.txt", b"text")}).json()
    assert answer["fields"] == {"name": "Åsa"}
    assert answer["files"] == {"a": hashlib.sha256(data).hexdigest(), "b": hashlib.sha256(b"text").hexdigest()}


def test_responses_without_a_body(http):
    response = http.get("/nothing")
    assert (response.status_code, response.content) == (204, b"")
    assert http.get("/unchanged").text == "tagged\n"
    response = http.get("/unchanged", headers={"If-None-Match": '"v1"'})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"v1"')


def test_redirect(http):
    response = http.get("/redirect")
    assert (response.status_code, response.headers["location"]) == (302, "/json?from=redirect")
    assert http.get("/redirect", follow_redirects=True).json()["query"] == {"from": ["redirect"]}


def test_large_headers_both_ways(http):
    response = http.get("/large-headers", headers={"X-Large": "x" * 6000})
    assert response.json() == {"received": 6000}
    assert response.headers["x-large-19"] == "19" * 500


# -- errors ------------------------------------------------------------------------------------------------------------


def test_not_found_handler(http):
    response = http.get("/no/such/page")
    assert (response.status_code, response.json()) == (404, {"error": "not found", "path": "/no/such/page"})


def test_method_not_allowed(http):
    response = http.delete("/text")
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


def test_error_handler(http, transport):
    response = http.get("/boom")
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    if transport.http2:
        assert http.get("/").status_code == 200


# -- what extensions and middleware do ---------------------------------------------------------------------------------


def test_cors_preflight(http):
    response = http.options("/api/items/1", headers={
        "Origin": suite.ORIGIN, "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == suite.ORIGIN
    assert "PUT" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-max-age"] == "600"
    assert "content-type" in response.headers["access-control-allow-headers"].lower()
    answer = http.put("/api/items/1", json={"name": "uno"}, headers={"Origin": suite.ORIGIN})
    assert answer.json() == {"id": 1, "name": "uno"}


@pytest.mark.parametrize(("origin", "allowed"), [(suite.ORIGIN, suite.ORIGIN), ("https://evil.example", None)])
def test_cors_request(http, origin, allowed):
    response = http.get("/api/items", headers={"Origin": origin})
    assert response.json() == suite.ITEMS
    assert response.headers.get("access-control-allow-origin") == allowed


def test_gzip(http):
    with http.stream("GET", "/text", headers={"Accept-Encoding": "gzip"}) as response:
        body = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in response.headers["vary"].lower()
    assert len(body) < 2000
    assert gzip.decompress(body) == suite.TEXT.encode()
    response = http.get("/text", headers=PLAIN)
    assert "content-encoding" not in response.headers
    assert response.text == suite.TEXT


def test_static_files(http):
    response = http.get("/static/hello.txt", headers=PLAIN)
    assert (response.status_code, response.text) == (200, "a static file\n")
    same = {"If-Modified-Since": response.headers["last-modified"], **PLAIN}
    again = http.get("/static/hello.txt", headers=same)
    assert (again.status_code, again.content) == (304, b"")
    assert http.get("/static/none.txt").status_code == 404


def test_cookies(http):
    http.cookies.update({"one": "1", "two": "2", "three": "3"})
    response = http.get("/cookies")
    assert response.json() == {"one": "1", "two": "2", "three": "3"}
    first, second = (value.lower() for value in response.headers.get_list("set-cookie"))
    assert re.match(r"first=1;.*httponly", first)
    assert re.match(r"second=2;.*path=/cookies; samesite=lax", second)


def test_session(http):
    assert http.get("/whoami").json() == {"name": None}
    assert http.post("/login", data={"name": "Žofie"}).json() == {"name": "Žofie"}
    assert http.get("/whoami").json() == {"name": "Žofie"}
    http.post("/logout")
    assert http.get("/whoami").json() == {"name": None}


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_streamed_response(http):
    response = http.get("/stream", headers=PLAIN)
    assert response.text == "".join(suite.lines())
    assert "content-length" not in response.headers


def test_each_event_leaves_when_it_is_yielded(http, server, transport, key):
    """The application yields the next event only after the client has said that it has the one before."""
    with http_client(server, transport.http2) as other, \
            http.stream("GET", f"/events?key={key}&n=4", headers=PLAIN) as response:
        lines = response.iter_lines()
        for number in range(4):
            assert [next(lines), next(lines), next(lines)] == [f"id: {number}", f"data: event {number}", ""]
            assert other.post(f"/events/next?key={key}&number={number + 1}").status_code == 204
        assert list(lines) == []


@compat
def test_upload_and_download(http):
    body = b"".join(pattern(3 * MIB + 17))
    assert http.post("/upload", content=body).json() == {
        "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert http.get(f"/download?n={len(body)}", headers=PLAIN).content == body


def test_a_large_upload_with_curl(server, transport, tmp_path):
    size, file = SIZE[transport.http2], tmp_path / "large"
    with file.open("wb") as out:
        out.writelines(pattern(size))
    done = curl(server, "/upload", transport.curl_option, "--upload-file", str(file), "--header", "Expect:",
                "--write-out", " %{http_version}")
    body, _, version = done.stdout.rpartition(" ")
    assert json.loads(body) == {"length": size, "sha256": pattern_digest(size)}
    assert version == ("2" if transport.http2 else "1.1")


def test_a_large_download_with_curl(server, transport, tmp_path):
    size, file = SIZE[transport.http2], tmp_path / "large"
    done = curl(server, f"/download?n={size}", transport.curl_option, "--output", str(file),
                "--write-out", "%{http_code} %{http_version} %{size_download}")
    assert done.stdout == f"200 {'2' if transport.http2 else '1.1'} {size}"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == pattern_digest(size)


# -- clients that go away ----------------------------------------------------------------------------------------------


@compat
def test_a_client_that_goes_away_ends_the_stream(servers, http2, key):
    server = servers(http2.tls)
    with http_client(server) as http, http.stream("GET", f"/endless?key={key}", headers=PLAIN) as response:
        assert len(next(response.iter_raw())) > 0
    with http_client(server) as http:
        assert http.get(f"/ended?key={key}").status_code == 204


def test_a_reset_ends_the_stream_and_no_other(servers, http2, key):
    server = servers(http2.tls)
    with H2Client.connect(server) as client:
        stream = client.request("GET", f"/endless?key={key}", [("accept-encoding", "identity")])
        client.wait_for(lambda: stream.received > 100_000, "a piece of the stream")
        client.reset(stream, CANCEL)
        assert client.get(f"/ended?key={key}").status == 204


# -- the same on every transport ---------------------------------------------------------------------------------------

PAGES = ["/", "/json?a=1&a=2", "/api/items", "/text", "/nothing", "/unchanged", "/redirect", "/static/hello.txt",
         "/no/such/page", "/stream", "/cookies", "/download?n=100000", "/whoami"]
DIFFERENT = {"date", "expires", "connection", "transfer-encoding", "keep-alive"}


def fields(response):
    """The fields that must be the same. Older versions of Gunicorn let a 204 have a length."""
    different = DIFFERENT | {"content-length"} if response.status_code == 204 else DIFFERENT
    return sorted(field for field in response.headers.multi_items() if field[0] not in different)


@compat
def test_equal_answers_on_every_transport(servers, combination):
    answers = []
    for transport in TRANSPORTS.values():
        if not works(combination, transport):
            continue
        with http_client(servers(transport.tls), transport.http2, headers=PLAIN) as http:
            responses = [http.get(page) for page in PAGES]
        answers.append([(response.status_code, response.content, fields(response)) for response in responses])
    for page, *same in zip(PAGES, *answers, strict=True):
        assert same == [same[0]] * len(answers), page
