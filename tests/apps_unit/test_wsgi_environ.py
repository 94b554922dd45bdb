"""The environ of a request: each key by name, what Gunicorn's policy makes of it, and that it is the request's own."""

import ssl
import threading

import pytest
from gunicorn import SERVER_SOFTWARE
from gunicorn.http.wsgi import FileWrapper

from tests.protocol.peer import HAS_PRIORITY, priority

from .wsgi_rig import PEER, PROXY, SERVER, UNIX, keeping, since_27

pytestmark = pytest.mark.compat

# In HPACK's octets: entries 2, 6 and 4 of the static table.
GET = bytes([0x82, 0x86, 0x84])
CGI_ALWAYS = {"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "RAW_URI", "SERVER_NAME", "SERVER_PORT",
              "SERVER_PROTOCOL", "SERVER_SOFTWARE", "REMOTE_ADDR", "REMOTE_PORT"}
WSGI_ALWAYS = {"wsgi.version", "wsgi.url_scheme", "wsgi.input", "wsgi.errors", "wsgi.multithread",
               "wsgi.multiprocess", "wsgi.run_once", "wsgi.file_wrapper", "wsgi.input_terminated", "wsgi.early_hints"}
GUNICORN_ALWAYS = {"gunicorn.socket", *(f"gunicorn.http2.{name}" for name in (
    "stream_id", "stream", "trailers", "send_trailers", "priority_weight", "priority_depends_on", "urgency",
    "incremental"))}


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


@pytest.fixture
def environ_of(serve):
    """A function that returns the environ of a request, made with these fields and pseudo-header fields."""
    def environ_of(*fields, settings=None, connection=None, **request):
        environs = []
        rig = serve(keeping(environs), **(connection or {}), **(settings or {}))
        assert rig.request(*fields, **request).status == 200
        return environs[0]
    return environ_of


@pytest.fixture
def status_of(serve):
    """A function that returns the status of a request that may not reach the application."""
    def status_of(*fields, settings=None, connection=None, **request):
        return serve(keeping([]), **(connection or {}), **(settings or {})).request(*fields, **request).status
    return status_of


def http_keys(environ):
    """The part that stands for the client's fields."""
    return {key: value for key, value in environ.items() if key.startswith("HTTP_")}


# -- every key ---------------------------------------------------------------------------------------------------------


def test_the_keys_of_a_plain_request(environ_of):
    environ = environ_of()
    assert type(environ) is dict
    assert set(environ) == CGI_ALWAYS | WSGI_ALWAYS | GUNICORN_ALWAYS | {"HTTP_HOST"}
    assert {key: environ[key] for key in CGI_ALWAYS} == {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/", "QUERY_STRING": "", "RAW_URI": "/",
        "SERVER_NAME": SERVER[0], "SERVER_PORT": str(SERVER[1]), "SERVER_PROTOCOL": "HTTP/2.0",
        "SERVER_SOFTWARE": SERVER_SOFTWARE, "REMOTE_ADDR": PEER[0], "REMOTE_PORT": str(PEER[1])}
    assert environ["HTTP_HOST"] == "example.org"


def test_the_keys_that_pep_3333_adds(environ_of):
    environ = environ_of()
    assert (environ["wsgi.version"], environ["wsgi.url_scheme"]) == ((1, 0), "http")
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (True, False, False)
    assert (environ["wsgi.file_wrapper"], environ["wsgi.input_terminated"]) == (FileWrapper, True)
    assert all(callable(getattr(environ["wsgi.input"], name)) for name in ("read", "readline", "readlines", "__iter__"))
    assert all(callable(getattr(environ["wsgi.errors"], name)) for name in ("write", "writelines", "flush"))
    assert callable(environ["wsgi.early_hints"])


def test_the_keys_of_http2(environ_of):
    environ = environ_of()
    assert {key: environ[f"gunicorn.http2.{key}"] for key in (
        "stream_id", "trailers", "priority_weight", "priority_depends_on", "urgency", "incremental")} == {
        "stream_id": 1, "trailers": [], "priority_weight": 16, "priority_depends_on": 0, "urgency": 3,
        "incremental": False}
    assert callable(environ["gunicorn.http2.send_trailers"])


def test_more_workers_are_more_processes(environ_of):
    assert environ_of(settings={"workers": 2})["wsgi.multiprocess"] is True


def test_the_socket_is_the_connections(environ_of):
    sock = environ_of()["gunicorn.socket"]
    assert sock.fileno() >= 0
    assert callable(sock.getpeername)


def test_stream_ids(serve):
    environs = []
    rig = serve(keeping(environs))
    for _ in range(4):
        rig.request()
    assert [environ["gunicorn.http2.stream_id"] for environ in environs] == [1, 3, 5, 7]


# -- the client's fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value", "key", "text"), [
    (b"accept", b"*/*", "HTTP_ACCEPT", "*/*"),
    (b"x-a-b-c", b"1", "HTTP_X_A_B_C", "1"),
    (b"x--y", b"1", "HTTP_X__Y", "1"),
    (b"x-empty", b"", "HTTP_X_EMPTY", ""),
    (b"x-latin", b"caf\xe9\xff", "HTTP_X_LATIN", "caf\xe9\xff"),
    (b"x-utf", "ž".encode(), "HTTP_X_UTF", "\xc5\xbe"),
    (b"x-inner", b"a  b\tc", "HTTP_X_INNER", "a  b\tc"),
    (b"x!#$%&'*+.^`|~", b"1", "HTTP_X!#$%&'*+.^`|~", "1"),
    (b"123", b"4", "HTTP_123", "4"),
    (b"te", b"trailers", "HTTP_TE", "trailers"),
    (b"version", b"7", "HTTP_VERSION", "7"),
    (b"proxy", b"http://evil/", "HTTP_PROXY", "http://evil/"),
    (b"authorization", b"Basic dXNlcg==", "HTTP_AUTHORIZATION", "Basic dXNlcg=="),
    (b"x-" + b"n" * 100, b"1", "HTTP_X_" + "N" * 100, "1"),
    (b"priority", b"u=1", "HTTP_PRIORITY", "u=1"),
])
def test_a_field(environ_of, name, value, key, text):
    assert http_keys(environ_of((name, value))) == {"HTTP_HOST": "example.org", key: text}


def test_repeated_fields_are_one_list(environ_of):
    environ = environ_of((b"x-many", b"1"), (b"x-other", b"x"), (b"x-many", b""), (b"accept", b"a"), (b"x-many", b"3"))
    assert environ["HTTP_X_MANY"] == "1,,3"
    assert environ["HTTP_ACCEPT"] == "a"


@pytest.mark.parametrize("crumbs", [[b"a=1"], [b"a=1", b"b=2"], [b"a=1; b=2", b"c=3"], [b"a=\xe9", b"", b"c"]])
def test_cookie_crumbs_are_one_cookie(environ_of, crumbs):
    """RFC 9113 section 8.2.3."""
    between = [field for crumb in crumbs for field in ((b"cookie", crumb), (b"x-between", b"1"))]
    assert environ_of(*between)["HTTP_COOKIE"] == b"; ".join(crumbs).decode("latin-1")


def test_content_type_and_length_have_keys_of_their_own(environ_of):
    environ = environ_of((b"content-type", b"text/x"), (b"content-length", b"5"), body=b"12345", method=b"POST")
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "5")
    assert set(http_keys(environ)) == {"HTTP_HOST"}


def test_no_content_type_and_no_length(environ_of):
    assert {"CONTENT_TYPE", "CONTENT_LENGTH"}.isdisjoint(environ_of(body=b"12345", method=b"POST"))


@pytest.mark.parametrize("length", [b"0", b"00"])
def test_a_content_length_of_nothing(environ_of, length):
    assert environ_of((b"content-length", length))["CONTENT_LENGTH"] == length.decode()


@pytest.mark.parametrize(("section", "host"), [
    ([(b":authority", b"example.org:8443")], "example.org:8443"),
    ([(b":authority", b"EXAMPLE.org"), (b"host", b"example.ORG")], "EXAMPLE.org"),
    ([(b"host", b"example.org")], "example.org"),
    ([(b":authority", b"[::1]:80")], "[::1]:80"),
    ([(b":authority", b"")], None),
    ([], None),
])
def test_the_authority_is_the_host(environ_of, section, host):
    """RFC 9113 section 8.3.1."""
    pseudo = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
    assert environ_of(section=pseudo + section).get("HTTP_HOST") == host


def test_a_host_that_differs_reaches_no_application(serve):
    environs = []
    rig = serve(keeping(environs))
    assert rig.request((b"host", b"other.example")).reset == 1
    assert environs == []
    rig.client.assert_alive()


# -- path and method ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw_path", "path", "query"), [
    (b"/", "/", ""),
    (b"/a/b?c=d", "/a/b", "c=d"),
    (b"/?", "/", ""),
    (b"/a?b?c", "/a", "b?c"),
    (b"/a%20b?q=%20+", "/a b", "q=%20+"),
    (b"/%C3%A9", "/\xc3\xa9", ""),
    (b"/%ff%00%2F%25", "/\xff\x00/%", ""),
    (b"/%e2%82%AC", "/\xe2\x82\xac", ""),
    (b"/%", "/%", ""),
    (b"/%zz%4", "/%zz%4", ""),
    (b"//double//a/../b/./c//", "//double//a/../b/./c//", ""),
    (b"/a;v=1/b,c:d@e!$&'()*+~", "/a;v=1/b,c:d@e!$&'()*+~", ""),
    (b"/[a]|{b}^`\"<>\\?[]={}", "/[a]|{b}^`\"<>\\", "[]={}"),
    (b"/http://example.org/", "/http://example.org/", ""),
])
def test_the_path(environ_of, raw_path, path, query):
    environ = environ_of(path=raw_path)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["SCRIPT_NAME"]) == (path, query, "")
    assert environ["RAW_URI"] == raw_path.decode()


@pytest.mark.parametrize("connection", [{}, UNIX, {"peer": PROXY}])
@pytest.mark.parametrize("fields", [[], [(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"priority", b"u=1, i")],
                                    [(b"script-name", b"/a")], [(b"content-type", b"a/b")]])
def test_requests_that_differ_in_the_path_differ_in_nothing_else(serve, fields, connection):
    """What one of them is served leaves no trace in the next one's environ."""
    def environs_of(*paths):
        environs = []
        rig = serve(keeping(environs), **connection)
        for path in paths:
            assert rig.request(*fields, path=path, method=b"PATCH").status == 200
        return [{key: value for key, value in environ.items()
                 if isinstance(value, (str, tuple, bool, int)) and key != "gunicorn.http2.stream_id"}
                for environ in environs]

    paths = [b"/a/first?q=1", b"/a/%C3%A9", b"/a?", b"/a/first?q=1"]
    assert environs_of(*paths) == [environs_of(path)[0] for path in paths]


def test_the_path_of_options(environ_of):
    environ = environ_of(method=b"OPTIONS", path=b"*")
    assert (environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["RAW_URI"]) == ("OPTIONS", "*", "*")


@pytest.mark.parametrize(("method", "settings", "known"), [
    (b"GET", {}, "GET"), (b"DELETE", {}, "DELETE"), (b"PROPFIND", {}, "PROPFIND"), (b"M-SEARCH", {}, "M-SEARCH"),
    (b"get", {"casefold_http_method": True}, "GET"), (b"Patch", {"casefold_http_method": True}, "PATCH"),
])
def test_the_method(environ_of, method, settings, known):
    assert environ_of(method=method, settings=settings)["REQUEST_METHOD"] == known


# -- who asks, and where -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("peer", "address", "port"), [
    (("192.0.2.7", 50_000), "192.0.2.7", "50000"), (("2001:db8::1", 5, 0, 0), "2001:db8::1", "5"),
    ("", "", None), (b"", "", None),
])
def test_the_client(environ_of, peer, address, port):
    environ = environ_of(connection={"peer": peer})
    assert (environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")) == (address, port)


def test_the_server_by_ip_version_6(environ_of):
    environ = environ_of(connection={"server": ("::1", 8000, 0, 0)})
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("::1", "8000")


@pytest.mark.parametrize(("authority", "scheme", "name", "port"), [
    (b"example.org", b"http", "example.org", "80"),
    (b"example.org", b"https", "example.org", "443"),
    (b"example.org:8080", b"https", "example.org", "8080"),
    (b"", b"http", "/run/gunicorn.sock", ""),
])
def test_behind_a_unix_socket_the_host_names_the_server(environ_of, authority, scheme, name, port):
    environ = environ_of(connection=UNIX, authority=authority, scheme=scheme)
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert "REMOTE_PORT" not in environ


def test_behind_a_unix_socket_each_request_has_its_own_server(serve):
    environs = []
    rig = serve(keeping(environs), **UNIX)
    for authority in (b"a.example:1", b"b.example", b"a.example:1", b""):
        rig.request(authority=authority)
    assert [(environ["SERVER_NAME"], environ["SERVER_PORT"]) for environ in environs] == [
        ("a.example", "1"), ("b.example", "80"), ("a.example", "1"), ("/run/gunicorn.sock", "")]


# -- the scheme, and whom to believe -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "connection", "known"), [
    (b"https", {"peer": PROXY}, "https"), (b"HTTPS", {"peer": PROXY}, "https"), (b"http", {"peer": PROXY}, "http"),
    (b"https", {"peer": PEER}, "http"), (b"https", UNIX, "https"),
    (b"https", {"peer": ("::1", 5, 0, 0)}, "https"), (b"https", {"peer": ("not an address", 5)}, "http"),
])
def test_the_scheme_is_the_peers_word_where_it_is_trusted(environ_of, scheme, connection, known):
    assert environ_of(scheme=scheme, connection=connection)["wsgi.url_scheme"] == known


@pytest.mark.parametrize(("allowed", "peer", "known"), [
    ("*", PEER, "https"), ("192.0.2.0/24", PEER, "https"), ("198.51.100.1", PEER, "http"), ("", PROXY, "http"),
])
def test_whom_to_trust_is_a_setting(environ_of, allowed, peer, known):
    settings = {"forwarded_allow_ips": allowed}
    assert environ_of(scheme=b"https", settings=settings, connection={"peer": peer})["wsgi.url_scheme"] == known
    field = (b"x-forwarded-proto", b"https")
    assert environ_of(field, settings=settings, connection={"peer": peer})["wsgi.url_scheme"] == known


@pytest.mark.parametrize(("fields", "known"), [
    ([(b"x-forwarded-proto", b"https")], "https"),
    ([(b"x-forwarded-proto", b"http")], "http"),
    ([(b"x-forwarded-proto", b"HTTPS")], "http"),
    ([(b"x-forwarded-protocol", b"ssl")], "https"),
    ([(b"x-forwarded-ssl", b"on")], "https"),
    ([(b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"on")], "https"),
    ([(b"forwarded", b"proto=https")], "http"),
])
def test_what_a_proxy_says_of_the_scheme(environ_of, fields, known):
    assert environ_of(*fields, connection={"peer": PROXY})["wsgi.url_scheme"] == known
    environ = environ_of(*fields, connection={"peer": PEER})
    assert environ["wsgi.url_scheme"] == "http"
    # Believed or not, the application may look at them.
    assert len(http_keys(environ)) == 1 + len(fields)


def test_a_header_outranks_the_scheme_of_the_request(environ_of):
    environ = environ_of((b"x-forwarded-proto", b"http"), scheme=b"https", connection={"peer": PROXY})
    assert environ["wsgi.url_scheme"] == "http"


def test_a_secure_scheme_header_of_ones_own(environ_of):
    settings = {"secure_scheme_headers": {"X-CLIENT-TLS": "yes"}}
    proxy = {"peer": PROXY}
    assert environ_of((b"x-client-tls", b"yes"), settings=settings, connection=proxy)["wsgi.url_scheme"] == "https"
    assert environ_of((b"x-client-tls", b"no"), settings=settings, connection=proxy)["wsgi.url_scheme"] == "http"
    environ = environ_of((b"x-forwarded-proto", b"https"), settings=settings, connection=proxy)
    assert environ["wsgi.url_scheme"] == "http"


def test_schemes_that_contradict_each_other(status_of):
    fields = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"off")]
    assert status_of(*fields, connection={"peer": PROXY}) == 400
    assert status_of(*fields, connection={"peer": PEER}) == 200


def test_with_a_certificate_the_scheme_is_https(environ_of, certs):
    """Whatever an untrusted client says; a trusted one may say that its own client came without TLS."""
    settings = {"certfile": certs.server_cert, "keyfile": certs.server_key}
    assert environ_of(settings=settings)["wsgi.url_scheme"] == "https"
    assert environ_of(settings=settings, connection={"peer": PROXY})["wsgi.url_scheme"] == "http"
    environ = environ_of((b"x-forwarded-proto", b"http"), settings=settings)
    assert environ["wsgi.url_scheme"] == "https"


def test_over_tls_its_facts_are_in_the_environ(serve, certs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.set_alpn_protocols(["h2"])
    environs = []
    rig = serve(keeping(environs), tls=(context, certs.client_context()))
    for _ in range(2):
        assert rig.request().status == 200
    assert environs[0].keys() == environs[1].keys() >= {"HTTPS", "SSL_PROTOCOL", "SSL_CIPHER", "SSL_CLIENT_VERIFY"}
    assert (environs[0]["HTTPS"], environs[0]["SSL_CLIENT_VERIFY"]) == ("on", "NONE")
    assert environs[0]["SSL_PROTOCOL"].startswith("TLSv1.")
    assert isinstance(environs[0]["gunicorn.socket"], ssl.SSLSocket)


# -- names with underscores --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "connection", "seen"), [
    ({}, {}, {"HTTP_X_A": "1"}),
    ({"header_map": "drop"}, {"peer": PROXY}, {"HTTP_X_A": "1"}),
    ({"header_map": "dangerous"}, {}, {"HTTP_X_A": "1,2", "HTTP_X_B": "3"}),
    ({"forwarder_headers": "X_A"}, {"peer": PROXY}, {"HTTP_X_A": "1,2"}),
    ({"forwarder_headers": "*"}, {"peer": PROXY}, {"HTTP_X_A": "1,2", "HTTP_X_B": "3"}),
    ({"forwarder_headers": "X_A,X_B"}, UNIX, {"HTTP_X_A": "1,2", "HTTP_X_B": "3"}),
    ({"forwarder_headers": "X_A"}, {"peer": PEER}, {"HTTP_X_A": "1"}),
])
def test_names_with_underscores(environ_of, settings, connection, seen):
    environ = environ_of((b"x-a", b"1"), (b"x_a", b"2"), (b"x_b", b"3"), settings=settings, connection=connection)
    assert http_keys(environ) == {"HTTP_HOST": "example.org", **seen}


def test_names_with_underscores_may_be_refused(status_of):
    settings = {"header_map": "refuse"}
    assert status_of((b"x_a", b"1"), settings=settings) == 400
    assert status_of((b"x-a", b"1"), settings=settings) == 200
    assert status_of((b"script_name", b""), settings=settings, connection={"peer": PROXY}) == 200


@pytest.mark.parametrize("name", [b"content_type", b"content_length", b"host_", b"wsgi_url_scheme"])
def test_no_field_reaches_a_key_that_is_not_its_own(environ_of, name):
    environ = environ_of((name, b"x"), settings={"header_map": "dangerous"})
    assert environ["HTTP_" + name.decode().upper()] == "x"
    assert {"CONTENT_TYPE", "CONTENT_LENGTH"}.isdisjoint(environ)
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("example.org", "http")


# -- SCRIPT_NAME -------------------------------------------------------------------------------------------------------


def test_a_script_name_from_a_proxy(environ_of):
    environ = environ_of((b"script_name", b"/app"), path=b"/app/a%20b?c", connection={"peer": PROXY})
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["RAW_URI"]) == ("/app", "/a b", "/app/a%20b?c")
    assert environ["HTTP_SCRIPT_NAME"] == "/app"


def test_a_script_name_from_anyone_else(environ_of):
    environ = environ_of((b"script_name", b"/app"), path=b"/app/x")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/app/x")
    assert "HTTP_SCRIPT_NAME" not in environ


@pytest.mark.parametrize(("field", "path", "script_name", "path_info"), [
    ([], b"/app/x", "/app", "/x"), ([], b"/app", "/app", ""),
    ([(b"script_name", b"/app/x")], b"/app/x/y", "/app/x", "/y"),
    ([(b"script_name", b"")], b"/x", "", "/x"),
])
def test_a_script_name_from_the_environment(environ_of, monkeypatch, field, path, script_name, path_info):
    monkeypatch.setenv("SCRIPT_NAME", "/app")
    environ = environ_of(*field, path=path, connection={"peer": PROXY})
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_name, path_info)


@pytest.mark.parametrize("fields", [[], [(b"script_name", b"/other")]])
def test_a_script_name_that_does_not_fit(serve, monkeypatch, fields):
    if not fields:
        monkeypatch.setenv("SCRIPT_NAME", "/other")
    rig = serve(keeping([]), peer=PROXY)
    reply = rig.request(*fields, path=b"/app")
    assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert "does not start with SCRIPT_NAME" in rig.text
    rig.client.assert_alive()


def test_a_script_name_is_of_one_request_only(serve):
    environs = []
    rig = serve(keeping(environs), peer=PROXY)
    for fields in ([(b"script_name", b"/a")], [], [(b"script_name", b"/a/b")], []):
        assert rig.request(*fields, path=b"/a/b/c").status == 200
    assert [environ["SCRIPT_NAME"] for environ in environs] == ["/a", "", "/a/b", ""]
    assert [environ["PATH_INFO"] for environ in environs] == ["/b/c", "/a/b/c", "/c", "/a/b/c"]


# -- what Gunicorn refuses ---------------------------------------------------------------------------------------------

REFUSED = {
    "a long line": (414, b"URI Too Long", {"path": b"/" + b"x" * 4_094}, []),
    "many fields": (431, b"Request Header Fields Too Large", {}, [(b"x-%d" % number, b"") for number in range(100)]),
    "a long field": (431, b"Request Header Fields Too Large", {}, [(b"x-long", b"v" * 8_181)]),
    "a long field of a policy's name": (431, b"Request Header Fields Too Large", {}, [(b"x_y", b"v" * 8_200)]),
    "an expectation": (417, b"Expectation Failed", {}, [(b"expect", b"the unexpected")]),
    "two content types": (400, b"Bad Request", {}, [(b"content-type", b"a/b"), (b"content-type", b"a/b")]),
}


@pytest.mark.parametrize("kind", [
    pytest.param(kind, marks=since_27) if kind == "two content types" else kind for kind in REFUSED])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_what_a_client_gets_whose_request_is_refused(serve, kind, method):
    status, reason, pseudo, fields = REFUSED[kind]
    environs = []
    rig = serve(keeping(environs))
    reply = rig.request(*fields, method=method, **pseudo)
    body = b"%d %s\n" % (status, reason)
    assert (reply.status, reply.ended, reply.reset) == (status, True, None)
    assert reply.body == (b"" if method == b"HEAD" else body)
    assert reply.own_fields == [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    assert reply.field(b"server") == b"gunicorn"
    assert reply.field(b"date").endswith(b" GMT")
    assert environs == []
    (line,) = rig.lines("WARNING")
    assert line.startswith("Invalid request from ip=")
    assert PEER[0] in line
    assert rig.request().status == 200


def test_what_is_just_within_the_limits(status_of):
    assert status_of(path=b"/" + b"x" * 4_093) == 200
    assert status_of(*[(b"x-%d" % number, b"") for number in range(99)]) == 200
    assert status_of((b"x-long", b"v" * 8_180)) == 200


def test_the_limits_are_settings(status_of):
    assert status_of(path=b"/" + b"x" * 100, settings={"limit_request_line": 100}) == 414
    assert status_of(path=b"/" + b"x" * 8_000, settings={"limit_request_line": 0}) == 200
    assert status_of((b"x-a", b"1"), (b"x-b", b"1"), settings={"limit_request_fields": 2}) == 431
    assert status_of((b"x-a", b"v" * 100), settings={"limit_request_field_size": 100}) == 431


def test_crumbs_count_as_one_field(status_of):
    crumbs = [(b"cookie", b"a=%d" % number) for number in range(200)]
    assert status_of(*crumbs) == 200
    assert status_of(*crumbs, settings={"limit_request_field_size": 100}) == 431


def test_a_dropped_field_counts_against_the_limits(status_of):
    assert status_of(*[(b"x_y", b"")] * 99) == 200
    assert status_of(*[(b"x_y", b"")] * 100) == 431


def test_a_header_list_that_is_too_large(serve):
    """Refused by the core, before Gunicorn's rules are asked (RFC 9113 section 10.5.1)."""
    rig = serve(keeping([]), limits={"max_header_list_size": 1_000})
    reply = rig.request((b"x-a", b"v" * 900))
    assert (reply.status, reply.ended, reply.body) == (431, True, b"")
    assert rig.request().status == 200


def test_connect_is_not_for_applications(serve):
    environs = []
    rig = serve(keeping(environs))
    section = [(b":method", b"CONNECT"), (b":authority", b"example.org:443")]
    assert rig.request(section=section).status == 501
    assert environs == []


# -- priorities --------------------------------------------------------------------------------------------------------


def old_priority(environ):
    """Weight and dependency."""
    return environ["gunicorn.http2.priority_weight"], environ["gunicorn.http2.priority_depends_on"]


def test_the_priority_in_a_headers_frame(serve):
    """RFC 9113 section 5.3.2 deprecates it; RFC 7540 section 6.2 has the layout: dependency, weight less one."""
    environs = []
    client = serve(keeping(environs)).client
    client.request()
    client.request_block(bytes([0x80, 0, 0, 1, 200]) + GET, HAS_PRIORITY)
    client.request_block(GET)
    assert [old_priority(environ) for environ in environs] == [(16, 0), (201, 1), (16, 0)]


def test_a_priority_frame_while_the_pool_is_busy(serve):
    """What is known when the application is called counts."""
    environs = []

    def app(environ, start_response):
        environs.append(dict(environ))
        if environ["PATH_INFO"] == "/gate":
            gate.enter()
        start_response("200 OK", [])
        return []

    rig = serve(app, threads=1)
    gate = rig.gate()
    first = rig.start(path=b"/gate")
    gate.wait_inside()
    second = rig.start()
    rig.client.send(priority(second.stream_id, depends_on=1, weight=99))
    gate.open()
    rig.client.wait_for(first, second)
    assert old_priority(environs[1]) == (100, 1)


@pytest.mark.parametrize(("values", "urgency", "incremental"), [
    ([], 3, False), ([b"u=0"], 0, False), ([b"u=7, i"], 7, True), ([b"i=?1"], 3, True), ([b"u=1", b"i"], 1, True),
    ([b"u=9"], 3, False), ([b"u=1, nonsense("], 3, False), ([b"u=1, u=5"], 5, False), ([b""], 3, False),
])
def test_the_priority_field(environ_of, values, urgency, incremental):
    """RFC 9218 section 4."""
    environ = environ_of(*[(b"priority", value) for value in values])
    assert (environ["gunicorn.http2.urgency"], environ["gunicorn.http2.incremental"]) == (urgency, incremental)


# -- wsgi.errors -------------------------------------------------------------------------------------------------------


def complaining(environ, start_response):
    """An application that writes to its error stream."""
    errors = environ["wsgi.errors"]
    errors.write("written\n")
    errors.writelines(["one\n", "two ž\n"])
    print("printed", file=errors)
    errors.flush()
    start_response("200 OK", [])
    return []


def test_the_error_stream_is_gunicorns(capsys, serve):
    assert serve(complaining).request().status == 200
    error = capsys.readouterr().err
    assert "written\none\ntwo ž\nprinted\n" in error


def test_the_error_stream_is_gunicorns_file(serve, tmp_path):
    log = tmp_path / "error.log"
    rig = serve(complaining, errorlog=str(log))
    assert rig.request().status == 200
    assert "written\none\ntwo ž\nprinted\n" in log.read_text()


def test_the_error_stream_follows_a_rotation(serve, tmp_path):
    """SIGUSR1 has Gunicorn open its files anew; connections and their environs live on."""
    log = tmp_path / "error.log"
    rig = serve(complaining, errorlog=str(log))
    rig.request()
    log.rename(tmp_path / "old.log")
    rig.log.reopen_files()
    rig.request()
    assert [path.read_text().count("written\n") for path in (tmp_path / "old.log", log)] == [1, 1]


def test_threads_may_complain_at_once(capsys, serve):
    together = threading.Barrier(4, timeout=10)

    def app(environ, start_response):
        together.wait()
        environ["wsgi.errors"].write(environ["PATH_INFO"] * 50 + "\n")
        start_response("200 OK", [])
        return []

    rig = serve(app, threads=4)
    replies = [rig.start(path=b"/%d" % number) for number in range(4)]
    rig.client.wait_for(*replies)
    error = capsys.readouterr().err
    assert all(f"/{number}" * 50 in error for number in range(4))
