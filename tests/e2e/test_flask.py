"""A real Flask application behaves alike over HTTP/2 and HTTP/1.1, with TLS and without."""

import gzip
import hashlib
import json
import threading

import pytest

from tests.e2e.conftest import TRANSPORTS, http_client
from tests.support.h2client import pattern, pattern_digest
from tests.support.tools import curl

MIB = 1024 * 1024
compat = pytest.mark.compat


@compat
def test_hello(http):
    response = http.get("/")
    assert (response.status_code, response.text) == (200, "Hello, world!\n")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "connection" not in response.headers or response.http_version == "HTTP/1.1"


def test_head_has_the_headers_and_no_body(http):
    response = http.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == "14"


def test_health(http):
    assert http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_json_is_echoed(http, method):
    value = {"číslo": 1, "list": [None, True, 1.5, "ž"]}
    answer = http.request(method, "/json", params={"q": ["a b", "č"]}, json=value).json()
    assert answer["method"] == method
    assert answer["sent"] == value
    assert answer["query"] == {"q": ["a b", "č"]}


def test_form_and_files(http):
    data = b"".join(pattern(200_000))
    answer = http.post("/form", data={"name": "Åsa"}, files={"a": ("a.bin", data), "b": ("b.txt", b"text")}).json()
    assert answer["fields"] == {"name": "Åsa"}
    assert answer["files"] == {"a": hashlib.sha256(data).hexdigest(), "b": hashlib.sha256(b"text").hexdigest()}


def test_not_found_handler(http):
    response = http.get("/no/such/page")
    assert (response.status_code, response.json()) == (404, {"error": "not found", "path": "/no/such/page"})


def test_method_not_allowed(http):
    response = http.delete("/health")
    assert response.status_code == 405
    assert "GET" in response.headers["allow"]


@compat
def test_error_handler(http, flask):
    flask.expect("deliberate failure with a secret")
    response = http.get("/boom")
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert http.get("/health").status_code == 200


def test_cors_preflight(http):
    response = http.options("/api/items/1", headers={
        "Origin": "https://example.org", "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://example.org"
    assert "PUT" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-max-age"] == "600"
    assert response.headers["access-control-allow-headers"] == "content-type"


@pytest.mark.parametrize(("origin", "allowed"), [("https://example.org", "https://example.org"),
                                                 ("https://evil.example", None)])
def test_cors_request(http, origin, allowed):
    response = http.get("/api/items", headers={"Origin": origin})
    assert response.json()[2] == {"id": 3, "name": "três"}
    assert response.headers.get("access-control-allow-origin") == allowed


def test_gzip(http):
    with http.stream("GET", "/text", headers={"Accept-Encoding": "gzip"}) as response:
        body = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in response.headers["vary"].lower()
    assert len(body) < 2000
    assert gzip.decompress(body) == b"All work and no play makes Jack a dull boy.\n" * 500


def test_no_gzip_unless_asked_for(http):
    response = http.get("/text", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in response.headers
    assert len(response.content) == 22_000


def test_static_file(http):
    response = http.get("/static/hello.txt")
    assert (response.status_code, response.text) == (200, "a static file\n")
    again = http.get("/static/hello.txt", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_part_of_a_static_file(http):
    response = http.get("/static/style.css", headers={"Range": "bytes=4-9", "Accept-Encoding": "identity"})
    assert (response.status_code, response.text) == (206, "{ colo")


def test_no_content(http):
    response = http.get("/nothing")
    assert (response.status_code, response.content) == (204, b"")
    assert "content-length" not in response.headers


def test_not_modified(http):
    assert http.get("/unchanged").text == "tagged\n"
    response = http.get("/unchanged", headers={"If-None-Match": '"v1"'})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == '"v1"'


def test_redirect(http):
    response = http.get("/redirect")
    assert (response.status_code, response.headers["location"]) == (302, "/json?from=redirect")
    response = http.get("/redirect", follow_redirects=True)
    assert response.json()["query"] == {"from": ["redirect"]}


def test_large_headers_both_ways(http):
    response = http.get("/large-headers", headers={"X-Large": "x" * 6000})
    assert response.json() == {"received": 6000}
    assert response.headers["x-large-19"] == "19" * 500


@compat
def test_session(http):
    assert http.get("/whoami").json() == {"name": None}
    assert http.post("/login", data={"name": "Žofie"}).json() == {"name": "Žofie"}
    assert http.get("/whoami").json() == {"name": "Žofie"}
    http.post("/logout")
    assert http.get("/whoami").json() == {"name": None}


def test_cookies(http):
    http.cookies.update({"one": "1", "two": "2", "three": "3"})
    response = http.get("/cookies")
    assert response.json() == {"one": "1", "two": "2", "three": "3"}
    assert response.headers.get_list("set-cookie") == [
        "first=1; HttpOnly; Path=/", "second=2; Path=/cookies; SameSite=Lax"]


@compat
def test_streamed_response(http):
    response = http.get("/stream")
    assert response.text == "".join(f"line {number}\n" for number in range(10))
    assert "content-length" not in response.headers


def test_each_event_leaves_when_it_is_yielded(http, flask, transport, key):
    """The application yields the next event only after the client has said that it has the one before."""
    with http_client(flask, transport.http2) as other, http.stream("GET", f"/events?key={key}&n=5") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        for number in range(5):
            event = [next(lines), next(lines), next(lines)]
            assert event == [f"id: {number}", f"data: event {number}", ""]
            other.post(f"/events/next?key={key}&number={number + 1}")
        assert list(lines) == []


@compat
def test_upload_and_download(http):
    body = b"".join(pattern(3 * MIB + 17))
    assert http.post("/upload", content=body).json() == {
        "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    response = http.get(f"/download?n={len(body)}")
    assert response.content == body


def test_upload_without_a_length(http):
    answer = http.post("/upload", content=pattern(300_000)).json()
    assert answer == {"length": 300_000, "sha256": pattern_digest(300_000)}


@pytest.mark.thorough
def test_64_mib_up_with_curl(flask, transport, tmp_path):
    file = tmp_path / "64m"
    with file.open("wb") as out:
        out.writelines(pattern(64 * MIB))
    done = curl(flask, "/upload", transport.curl_option, "--upload-file", str(file), "--write-out", " %{http_version}")
    body, _, version = done.stdout.rpartition(" ")
    assert json.loads(body) == {"length": 64 * MIB, "sha256": pattern_digest(64 * MIB)}
    assert version == ("2" if transport.http2 else "1.1")


@pytest.mark.thorough
def test_64_mib_down_with_curl(flask, transport, tmp_path):
    file = tmp_path / "64m"
    done = curl(flask, f"/download?n={64 * MIB}", transport.curl_option, "--output", str(file),
                "--write-out", "%{http_code} %{http_version} %{size_download}")
    assert done.stdout == f"200 {'2' if transport.http2 else '1.1'} {64 * MIB}"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == pattern_digest(64 * MIB)


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_64_mib_down_with_httpx(shared, tls):
    digest = hashlib.sha256()
    with http_client(shared("flask", tls=tls, threads=16)) as http, \
            http.stream("GET", f"/download?n={64 * MIB}") as response:
        for piece in response.iter_raw():
            digest.update(piece)
    assert digest.hexdigest() == pattern_digest(64 * MIB)


def test_prints_and_logs_reach_the_log(http, flask, key):
    assert http.get(f"/print?word={key}").status_code == 204
    for what in ("printed", "INFO tests.flask_app: logged", "app logged", "errors"):
        flask.wait_log(f"{what} {key}")


def test_requests_run_side_by_side(flask, transport, key):
    """Each of eight requests is answered only when all eight are inside the application."""
    answers = []
    with http_client(flask, transport.http2) as http:
        def ask():
            answers.append(http.get(f"/barrier?n=8&key={key}"))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({answer.json()["thread"] for answer in answers}) == 8


PAGES = ["/", "/health", "/json?a=1&a=2", "/api/items", "/text", "/nothing", "/unchanged", "/redirect",
         "/static/hello.txt", "/no/such/page", "/stream", "/cookies", "/download?n=100000"]
HOP_BY_HOP = {"date", "connection", "transfer-encoding"}


@compat
@pytest.mark.parametrize("page", PAGES)
def test_equal_answers_on_every_transport(shared, page):
    answers = {}
    for name, (tls, http2) in TRANSPORTS.items():
        with http_client(shared("flask", tls=tls, threads=16), http2) as http:
            response = http.get(page)
        fields = sorted((key, value) for key, value in response.headers.multi_items() if key not in HOP_BY_HOP)
        answers[name] = (response.status_code, fields, response.content)
    assert answers["h2-tls"] == answers["h1-tls"]
    assert answers["h2-clear"] == answers["h1-clear"]
    assert answers["h2-tls"] == answers["h2-clear"]
