"""The environ over HTTP/2 is that of the same request over HTTP/1.1, key by key."""

import gc
import json
import socket

import pytest

from tests.support import h1client
from tests.support.h2client import PROTOCOL_ERROR, H2Client

compat = pytest.mark.compat

# The only differences allowed, each with its reason.
MAY_DIFFER = {
    "SERVER_PROTOCOL",   # HTTP/2.0, not HTTP/1.1
    "REMOTE_PORT",       # another connection
    "wsgi.input",        # a class of our own
    "wsgi.errors",       # another
    "gunicorn.socket",   # whatever stands for the connection
    "wsgi.early_hints",  # a callable of our own
}
ONLY_HTTP2 = ("gunicorn.http2.", "SSL_")
ONLY_HTTP2_KEYS = {"HTTPS"}
ONLY_HTTP1 = {"HTTP_CONNECTION"}


def both(server, method="GET", path="/environ", headers=(), body=b"", h2_headers=None):
    """Make the same request over both protocols and return the two environs, or two statuses if it was refused."""
    reference = h1client.exchange(server, h1client.request_bytes(server, method, path, headers, body))
    with H2Client.connect(server) as client:
        fields = [(_lower(name), value) for name, value in (headers if h2_headers is None else h2_headers)]
        if body:
            fields.append(("content-length", str(len(body))))
        stream = client.response(client.request(method, path, fields, body=body or None))
    if reference.status != 200 or stream.status != 200:
        return stream.status, reference.status
    return json.loads(stream.body), json.loads(reference.body)


def _lower(name):
    return name.lower() if isinstance(name, bytes) else name.lower().encode()


def assert_same(ours, theirs):
    """Compare two environs, key by key."""
    differences = {}
    for key in ours.keys() | theirs.keys():
        only_ours = key not in theirs and (key.startswith(ONLY_HTTP2) or key in ONLY_HTTP2_KEYS)
        only_theirs = key not in ours and key in ONLY_HTTP1
        if ours.get(key) != theirs.get(key) and key not in MAY_DIFFER and not only_ours and not only_theirs:
            differences[key] = (ours.get(key, "missing"), theirs.get(key, "missing"))
    assert differences == {}
    assert MAY_DIFFER & theirs.keys() <= ours.keys()


def compare(server, **request):
    """Make a request over both protocols, compare the environs and return that of HTTP/2."""
    ours, theirs = both(server, **request)
    assert isinstance(ours, dict), f"status {ours}, over HTTP/1.1 {theirs}"
    assert_same(ours, theirs)
    return ours


REQUESTS = {
    "plain": {},
    "query": {"path": "/environ?a=1&b=%20&a=2&empty"},
    "query-mark-only": {"path": "/environ?"},
    "two-question-marks": {"path": "/environ?a=?b"},
    "percent-encoded": {"path": "/environ/%C3%A9%20%2F%25/%e2%82%ac"},
    "dots-and-slashes": {"path": "/environ//a/../b/./c//"},
    "semicolons": {"path": "/environ;v=1/x,y;z"},
    "characters": {"path": "/environ/!$&'()*+,;=:@-._~"},
    "square-brackets": {"path": "/environ/[a]|b?c[]=1|2"},
    "latin-1-value": {"headers": [("X-Latin", b"caf\xe9 \xff")]},
    "utf-8-value": {"headers": [("X-Utf", "žluť".encode())]},
    "empty-value": {"headers": [("X-Empty", "")]},
    "inner-spaces": {"headers": [("X-Spaces", "a  b\tc")]},
    "repeated": {"headers": [("X-Many", "1"), ("X-Other", "x"), ("X-Many", "2"), ("X-Many", "3")]},
    "accept-repeated": {"headers": [("Accept", "text/html"), ("Accept", "text/plain;q=0.5")]},
    "dashes": {"headers": [("X-A-B-C", "1"), ("X--Y", "2")]},
    "symbols-in-names": {"headers": [("X!#$%&'*+.^`|~", "1")]},
    "user-agent": {"headers": [("User-Agent", "tests/1.0 (like nothing)")]},
    "authorization": {"headers": [("Authorization", "Basic dXNlcjpwYXNz")]},
    "cookie": {"headers": [("Cookie", "a=1; b=2")]},
    "content-type-without-body": {"headers": [("Content-Type", "text/plain; charset=utf-8")]},
    "post": {"method": "POST", "body": b"hello", "headers": [("Content-Type", "text/plain")]},
    "put": {"method": "PUT", "body": b"hello"},
    "delete": {"method": "DELETE"},
    "options": {"method": "OPTIONS"},
    "unusual-method": {"method": "PROPFIND", "headers": [("Depth", "1")]},
    "forwarded-https": {"headers": [("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.1, 198.51.100.2")]},
    "forwarded-http": {"headers": [("X-Forwarded-Proto", "http")]},
    "forwarded-ssl": {"headers": [("X-Forwarded-Ssl", "on"), ("X-Forwarded-Protocol", "ssl")]},
    "forwarded-standard": {"headers": [("Forwarded", "for=192.0.2.1;proto=https"), ("Via", "2 proxy")]},
    "early-data": {"headers": [("Early-Data", "1")]},
    "referer-and-range": {"headers": [("Referer", "https://example.org/ž".encode()), ("Range", "bytes=0-1")]},
    "many-fields": {"headers": [(f"X-{number}", str(number)) for number in range(90)]},
    "long-value": {"headers": [("X-Long", "v" * 8000)]},
    "long-path": {"path": "/environ/" + "p" * 4000},
}


@compat
@pytest.mark.parametrize("request_kind", REQUESTS, ids=REQUESTS)
def test_same_environ(wsgi, request_kind):
    compare(wsgi, **REQUESTS[request_kind])


def test_the_usual_keys(wsgi):
    """Some values by name, so that both cannot be wrong alike."""
    environ = compare(wsgi, method="POST", path="/environ/%C3%A9?q=%20", body=b"hello",
                      headers=[("Content-Type", "text/x"), ("X-One", b"\xe9"), ("Cookie", "a=1")])
    assert environ["SERVER_PROTOCOL"] == "HTTP/2.0"
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/environ/\xc3\xa9", "q=%20")
    assert environ["RAW_URI"] == "/environ/%C3%A9?q=%20"
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "5")
    assert (environ["HTTP_X_ONE"], environ["HTTP_COOKIE"]) == ("\xe9", "a=1")
    assert environ["HTTP_HOST"] == f"localhost:{wsgi.port}"
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", str(wsgi.port))
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["wsgi.url_scheme"] == wsgi.scheme
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (True, False, False)
    assert environ["wsgi.input_terminated"] is True
    assert environ["gunicorn.http2.stream_id"] == 1
    assert "HTTP_CONTENT_LENGTH" not in environ


def test_the_garbage_collector_leaves_what_was_loaded_alone(wsgi):
    """Its full collections, for which all clients wait, are five times rarer than where CPython counts to ten."""
    young, middle, old = gc.get_threshold()
    with H2Client.connect(wsgi) as client:
        state = json.loads(client.get("/frozen").text)
    assert state["frozen"] > 10_000
    assert state["thresholds"] == [young, middle, 50 if old == 10 else old]


def test_thresholds_of_the_garbage_collector_that_were_set_stay(boot):
    server = boot("wsgi", code="import gc\ngc.set_threshold(900, 9, 12)")
    with H2Client.connect(server) as client:
        assert json.loads(client.get("/frozen").text)["thresholds"] == [900, 9, 12]


def test_stream_ids(h2):
    ids = [json.loads(h2.get("/environ").body)["gunicorn.http2.stream_id"] for _ in range(3)]
    assert ids == [1, 3, 5]


@compat
@pytest.mark.parametrize("crumbs", [["a=1", "b=2", "c=3"], ["a=1; b=2", "c=3"], ["a=1"], ["a=caf\xe9", "b=2"]])
def test_cookie_crumbs_are_joined(wsgi, crumbs):
    """RFC 9113 section 8.2.3: one Cookie field over HTTP/1.1, crumbs over HTTP/2."""
    environ = compare(wsgi, headers=[("Cookie", "; ".join(crumbs))],
                      h2_headers=[("cookie", crumb.encode("latin-1")) for crumb in crumbs])
    assert environ["HTTP_COOKIE"] == "; ".join(crumbs)


def test_host_is_the_authority(h2):
    """``:authority`` becomes HTTP_HOST; a Host field that says the same changes nothing."""
    environ = json.loads(h2.get("/environ", authority="example.org:8443").body)
    assert environ["HTTP_HOST"] == "example.org:8443"
    environ = json.loads(h2.get("/environ", [("host", "example.org")], authority="example.org").body)
    assert environ["HTTP_HOST"] == "example.org"


def test_host_without_authority(h2):
    """A request converted from HTTP/1.1 may have Host instead."""
    fields = [(":method", "GET"), (":scheme", h2.scheme), (":path", "/environ"), ("host", "example.org")]
    assert json.loads(h2.response(h2.send_fields(fields)).body)["HTTP_HOST"] == "example.org"


def test_host_that_contradicts_the_authority(h2):
    """RFC 9113 section 8.3.1: refused as malformed, or the authority wins; never the Host field."""
    stream = h2.get("/environ", [("host", "evil.example")], authority="example.org")
    assert stream.reset == PROTOCOL_ERROR or stream.status == 400 or \
        json.loads(stream.body)["HTTP_HOST"] == "example.org"


def test_options_asterisk(wsgi):
    """``OPTIONS *`` reaches the application as over HTTP/1.1."""
    ours, theirs = both(wsgi, method="OPTIONS", path="*")
    assert ours == theirs


def test_a_field_named_version_is_only_itself(h2):
    """Nothing but the client's fields makes HTTP_* keys."""
    environ = json.loads(h2.get("/environ").body)
    assert "HTTP_VERSION" not in environ
    assert json.loads(h2.get("/environ", [("version", "7")]).body)["HTTP_VERSION"] == "7"


@pytest.mark.parametrize(("header_map", "accepted"), [("drop", True), ("refuse", False), ("dangerous", True)])
def test_underscores_in_names(shared, header_map, accepted):
    server = shared("wsgi", threads=2, header_map=header_map)
    ours, theirs = both(server, headers=[("X_Under_Score", "1"), ("X-Under-Score", "2")])
    if not accepted:
        assert (ours, theirs) == (400, 400)
        return
    assert_same(ours, theirs)
    assert ours["HTTP_X_UNDER_SCORE"] == ("2" if header_map == "drop" else "1,2")


@compat
@pytest.mark.parametrize("header", ["SCRIPT_NAME", "PATH_INFO"])
def test_forwarder_headers_of_a_trusted_peer(wsgi_tls, header):
    value = "/environ" if header == "SCRIPT_NAME" else "/elsewhere"
    ours, theirs = both(wsgi_tls, path="/environ/environ/x", headers=[(header, value)])
    assert_same(ours, theirs)
    if header == "SCRIPT_NAME":
        assert (ours["SCRIPT_NAME"], ours["PATH_INFO"]) == ("/environ", "/environ/x")


def test_a_script_name_that_does_not_fit(wsgi_tls):
    """Gunicorn refuses it; so do we, with the same status and without closing the connection."""
    wsgi_tls.expect("does not start with SCRIPT_NAME", "ConfigurationProblem")
    ours, theirs = both(wsgi_tls, path="/environ", headers=[("SCRIPT_NAME", "/other")])
    assert ours == theirs
    assert ours >= 400


def test_script_name_from_the_environment(boot):
    server = boot("wsgi", env={"SCRIPT_NAME": "/app"})
    environ = compare(server, path="/app/environ?q=1")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/environ")
    assert environ["RAW_URI"] == "/app/environ?q=1"


@pytest.fixture
def untrusting(shared):
    """A server that trusts no proxy."""
    return shared("wsgi", threads=2, forwarded_allow_ips="192.0.2.1", header_map="drop")


@pytest.mark.parametrize("headers", [
    [("X-Forwarded-Proto", "http")], [("X-Forwarded-Proto", "https")], [("SCRIPT_NAME", "/environ")],
    [("PATH_INFO", "/x")], [("X-Forwarded-For", "192.0.2.7"), ("Forwarded", "for=192.0.2.7")],
], ids=["proto-http", "proto-https", "script-name", "path-info", "for"])
def test_forwarder_headers_of_an_untrusted_peer(untrusting, headers):
    environ = compare(untrusting, path="/environ/environ", headers=headers)
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["SCRIPT_NAME"] == ""


def test_forwarded_proto_of_a_trusted_peer(wsgi_tls):
    assert compare(wsgi_tls, headers=[("X-Forwarded-Proto", "http")])["wsgi.url_scheme"] == "http"
    assert compare(wsgi_tls, headers=[("X-Forwarded-Proto", "https")])["wsgi.url_scheme"] == "https"


def test_contradicting_scheme_headers(wsgi_tls):
    ours, theirs = both(wsgi_tls, headers=[("X-Forwarded-Proto", "https"), ("X-Forwarded-Ssl", "off")])
    assert (ours, theirs) == (400, 400)


def test_scheme_is_that_of_the_transport_unless_the_peer_is_trusted(untrusting, shared):
    """An untrusted client may claim any ``:scheme``; a proxy in front of a cleartext port may tell its own."""
    with H2Client.connect(untrusting) as client:
        stream = client.get("/environ", scheme="http")
        assert stream.reset or json.loads(stream.body)["wsgi.url_scheme"] == "https"
    with H2Client.connect(shared("wsgi", tls=False, threads=4)) as client:
        assert json.loads(client.get("/environ", scheme="https").body)["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize("request_fields", [
    {"headers": [("Content-Type", "a/b"), ("Content-Type", "c/d")]},
    {"headers": [(f"X-{number}", "1") for number in range(120)]},
    {"headers": [("X-Long", "v" * 9000)]},
    {"path": "/environ/" + "p" * 9000},
], ids=["two-content-types", "too-many-fields", "field-too-long", "line-too-long"])
def test_what_gunicorn_refuses_is_refused(wsgi_tls, request_fields):
    """Gunicorn's limits and rules hold alike: an error status over both protocols."""
    ours, theirs = both(wsgi_tls, **request_fields)
    assert isinstance(theirs, int)
    assert isinstance(ours, int)
    assert 400 <= ours < 500


def test_workers_tell_of_multiprocess(boot):
    server = boot("wsgi", workers=2)
    assert compare(server)["wsgi.multiprocess"] is True


def test_ipv6(boot):
    if not socket.has_ipv6 or not has_ipv6_loopback():
        pytest.skip("this machine has no IPv6 loopback address")
    environ = compare(boot("wsgi", tls=False, bind="[::1]:0"))
    assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == ("::1", "::1")


def has_ipv6_loopback():
    """Whether one can listen on ::1."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_unix_socket(boot):
    server = boot("wsgi", tls=False, unix=True)
    environ = compare(server, headers=[("X-Forwarded-Proto", "https")])
    assert environ["REMOTE_ADDR"] == ""
    assert environ["wsgi.url_scheme"] == "https"
