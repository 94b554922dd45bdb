"""Command-line clients: curl, nghttp and h2load."""

import json
import re

import pytest

from tests.support.h2client import pattern, pattern_digest
from tests.support.tools import curl, run

compat = pytest.mark.compat


@compat
@pytest.mark.parametrize("option", ["--http2", "--http2-prior-knowledge"])
def test_curl_over_tls(shared, option):
    done = curl(shared("flask", threads=16), "/health", option, "--write-out", " %{http_version} %{http_code}")
    assert done.stdout == '{"status":"ok"}\n 2 200'


@compat
def test_curl_with_prior_knowledge(shared):
    server = shared("flask", tls=False, threads=16)
    done = curl(server, "/health", "--http2-prior-knowledge", "--write-out", " %{http_version} %{http_code}")
    assert done.stdout == '{"status":"ok"}\n 2 200'


@compat
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_curl_with_http1_on_the_same_port(shared, tls):
    server = shared("flask", tls=tls, threads=16)
    done = curl(server, "/health", "--http1.1", "--write-out", " %{http_version} %{http_code}")
    assert done.stdout == '{"status":"ok"}\n 1.1 200'


def test_curl_with_http10(shared):
    done = curl(shared("flask", threads=16), "/health", "--http1.0", "--include")
    assert done.stdout.startswith("HTTP/1.0 200")


def test_curl_without_alpn_gets_http1(shared):
    server = shared("flask", threads=16)
    done = curl(server, "/health", "--no-alpn", "--write-out", " %{http_version} %{http_code}")
    assert done.stdout == '{"status":"ok"}\n 1.1 200'


def test_parallel_transfers_of_curl_run_side_by_side(shared, key):
    server = shared("flask", threads=16)
    url = f"{server.url}/barrier?n=10&key={key}"
    done = curl(server, f"/barrier?n=10&key={key}", "--http2", "--parallel", "--parallel-max", "10", *[url] * 9)
    answers = re.findall(r'"thread":"([^"]+)"', done.stdout)
    assert len(set(answers)) == 10


def test_curl_waits_for_100_continue(shared, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(b"".join(pattern(100_000)))
    done = curl(shared("flask", threads=16), "/upload", "--http2", "--header", "Expect: 100-continue",
                "--expect100-timeout", "30", "--data-binary", f"@{file}", "--dump-header", "-")
    assert done.stdout.startswith("HTTP/2 100")
    assert json.loads(done.stdout.splitlines()[-1]) == {"length": 100_000, "sha256": pattern_digest(100_000)}


def test_curl_head(shared):
    done = curl(shared("flask", threads=16), "/text", "--http2", "--head")
    assert done.stdout.startswith("HTTP/2 200")
    assert "content-length: 22000" in done.stdout


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_nghttp_sees_one_headers_and_one_data_frame(shared, tls):
    server = shared("wsgi", tls=tls, threads=4)
    done = run("nghttp", "--verbose", "--no-dep", f"{server.url}/hello")
    frames = re.findall(r"recv (\w+) frame <length=\d+, flags=(0x\w\w), stream_id=[1-9]", done.stdout)
    assert frames == [("HEADERS", "0x04"), ("DATA", "0x01")]


def test_nghttp_sees_settings_once_and_first(shared):
    server = shared("wsgi", threads=4)
    done = run("nghttp", "--verbose", f"{server.url}/hello")
    received = re.findall(r"recv (\w+) frame <length=(\d+), flags=(0x\w\w)", done.stdout)
    assert received[0][0] == "SETTINGS"
    assert [frame for frame in received if frame[0] == "SETTINGS" and frame[2] == "0x00"] == received[:1]
    assert "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):100" in done.stdout
    assert "SETTINGS_MAX_HEADER_LIST_SIZE(0x06):65536" in done.stdout


def test_nghttp_multiplexes(shared, key):
    server = shared("flask", threads=16)
    done = run("nghttp", "--multiply=10", f"{server.url}/barrier?n=10&key={key}")
    assert done.stdout.count('"thread"') == 10


@compat
@pytest.mark.parametrize("threads", [1, 4])
def test_a_client_that_keeps_to_the_limit_is_never_refused(boot, threads):
    """nghttp opens a stream as soon as another one has ended, 400 in all, never more than the limit at a time."""
    server = boot("wsgi", threads=threads)
    done = run("nghttp", "--verbose", "--null-out", "--multiply=400", "--timeout=30", f"{server.url}/hello")
    assert re.findall(r"recv (?:RST_STREAM|GOAWAY).*\n.*", done.stdout) == []
    assert len(re.findall(r":status: 200", done.stdout)) == 400


def test_nghttp_uploads(shared, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(b"".join(pattern(1_000_000)))
    done = run("nghttp", f"--data={file}", f"{shared('flask', threads=16).url}/upload")
    assert json.loads(done.stdout) == {"length": 1_000_000, "sha256": pattern_digest(1_000_000)}


def test_nghttp_with_padding_and_continuation(shared):
    """HEADERS padded and split, as RFC 9113 section 6 allows."""
    done = run("nghttp", "--padding=100", "--continuation", f"{shared('wsgi', threads=4).url}/hello")
    assert done.stdout == "Hello, world!\n"


def test_nghttp_with_a_small_header_table(shared):
    done = run("nghttp", "--header-table-size=0", "--encoder-header-table-size=0", "--multiply=3",
               f"{shared('wsgi', threads=4).url}/hello")
    assert done.stdout == "Hello, world!\n" * 3


def h2load(server, path, *args):
    """Run h2load and return (succeeded, 2xx) counts."""
    done = run("h2load", *args, server.url + path)
    (succeeded,) = re.findall(r"(\d+) succeeded, 0 failed, 0 errored, 0 timeout", done.stdout) or [done.stdout]
    (good,) = re.findall(r"status codes: (\d+) 2xx", done.stdout)
    return int(succeeded), int(good)


@compat
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_h2load(shared, tls):
    server = shared("wsgi", tls=tls, threads=4)
    assert h2load(server, "/hello", "-n", 2000, "-c", 10, "-m", 10) == (2000, 2000)


def test_h2load_with_bodies(shared, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(b"x" * 10_000)
    server = shared("wsgi", threads=4)
    assert h2load(server, "/count", "-n", 500, "-c", 4, "-m", 20, "-d", file) == (500, 500)


def test_h2load_with_small_windows(shared):
    """Windows of 1 KiB (2^10 - 1) on stream and connection."""
    server = shared("wsgi", threads=4)
    assert h2load(server, "/bytes?n=20000", "-n", 100, "-c", 2, "-m", 10, "-w", 10, "-W", 10) == (100, 100)


def test_h2load_with_http1(shared):
    server = shared("wsgi", threads=4)
    assert h2load(server, "/hello", "-n", 200, "-c", 4, "--h1") == (200, 200)
