"""Whatever the request: its environ is the one that Gunicorn makes of the same request over HTTP/1.1."""

import pytest
from gunicorn.http import errors, wsgi
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.protocol.peer import fields

from .wsgi_rig import PEER, PROXY, SERVER, Rig

pytestmark = pytest.mark.compat

CONNECTIONS = {
    "anyone": (PEER, SERVER), "proxy": (PROXY, SERVER), "unix": ("", "/run/gunicorn.sock"),
    "version 6": (("2001:db8::1", 5, 0, 0), ("::1", 8000, 0, 0)),
}
CONFIGS = {
    "default": {}, "dangerous": {"header_map": "dangerous"}, "refuse": {"header_map": "refuse"},
    "forwarder": {"forwarder_headers": "*", "forwarded_allow_ips": "*"},
    # Gunicorn's parser does not count what `header_map` drops; here it counts, see test_wsgi_environ.py.
    "limits": {"limit_request_line": 64, "limit_request_fields": 6, "limit_request_field_size": 60,
               "header_map": "dangerous"},
}
# Of the protocol, of the connection, or of the call.
MAY_DIFFER = {"SERVER_PROTOCOL", "wsgi.input", "wsgi.errors", "wsgi.early_hints", "wsgi.multithread", "gunicorn.socket"}
REFUSED = "refused"

token = st.text("abcxyz019-_!#$%&'*+.^`|~", min_size=1, max_size=12)
# A field that HTTP/2 has no place for, or an HTTP/1.1 server another use, is not a request that is valid in both.
NOT_IN_BOTH = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host", "content-length",
               "te", "expect", "cookie"}
known = st.sampled_from([
    "accept", "content-type", "x-forwarded-proto", "x-forwarded-ssl", "x-forwarded-protocol", "x-forwarded-for",
    "forwarded", "user-agent", "x-a", "x_a", "x-b", "script_name", "script-name", "path_info", "priority", "version",
    "x-scheme"])
name = st.one_of(known, known, token.filter(lambda name: name not in NOT_IN_BOTH)).map(str.encode)
octets = st.sampled_from([octet for octet in range(0x20, 0x100) if octet != 0x7F] + [0x09])
value = st.one_of(
    st.sampled_from([b"https", b"http", b"on", b"off", b"ssl", b"/a", b"/a/b", b"", b"u=1", b"1, 2"]),
    st.lists(octets, max_size=12).map(lambda value: bytes(value).strip(b" \t")))
cookie = st.tuples(st.just(b"cookie"), value.filter(bool))
singles = st.sampled_from([(b"te", b"trailers"), (b"content-length", b"0"), (b"expect", b"100-continue"),
                           (b"expect", b"200-ok")])
section = st.builds(lambda many, single: many + single, st.lists(st.one_of(st.tuples(name, value), cookie), max_size=8),
                    st.lists(singles, max_size=2, unique_by=lambda field: field[0])).flatmap(st.permutations)
path_octets = [octet for octet in range(0x21, 0x7F) if octet != ord("#")]
segment = st.one_of(st.sampled_from([b"/a", b"/b", b"%20", b"%e9", b"%zz", b"?", b"//", b"/a/b?c=d"]),
                    st.lists(st.sampled_from(path_octets), max_size=5).map(bytes))
path = st.lists(segment, max_size=5).map(lambda parts: b"/" + b"".join(parts))
method = st.one_of(st.sampled_from([b"GET", b"POST", b"OPTIONS", b"PROPFIND", b"M-SEARCH"]),
                   st.text("ABCXYZ019-_!$%&'*+.^`|~", min_size=3, max_size=20).map(str.encode).filter(
                       lambda method: method != b"CONNECT"))
authority = st.sampled_from([b"example.org", b"example.org:8443", b"", b"[2001:db8::1]:80", b"a:b:c"])
request = st.tuples(st.sampled_from([*CONNECTIONS]), method, path, authority, section.map(tuple))


class NoSocket:
    """In the place of HTTP/1.1's socket, to which `create` writes a 100 (Continue)."""

    def send(self, octets):
        """Take octets."""


def reference(cfg, connection, method, path, authority, section):
    """The environ that Gunicorn makes of a request in text, or REFUSED."""
    peer, server = CONNECTIONS[connection]
    crumbs = [value for name, value in section if name == b"cookie"]
    lines = [b"%s %s HTTP/1.1" % (method, path)] + [b"host: " + authority] * bool(authority)
    lines += [b"%s: %s" % field for field in section if field[0] != b"cookie"]
    lines += [b"cookie: " + b"; ".join(crumbs)] * bool(crumbs)
    try:
        request = Request(cfg, IterUnreader([b"\r\n".join(lines) + b"\r\n\r\n"]), peer)
        environ = wsgi.create(request, NoSocket(), peer, server, cfg)[1]
    except errors.ParseException:
        # With two faults in one request it is no matter which of them is named.
        return REFUSED
    return {key: value for key, value in environ.items() if key not in MAY_DIFFER}


@pytest.fixture(scope="module", params=CONFIGS)
def parity(request):
    """A function that compares requests, on connections and with caches that have seen all the others."""
    environs = []

    def app(environ, start_response):
        environs.append({key: value for key, value in environ.items()
                         if key not in MAY_DIFFER and not key.startswith("gunicorn.http2.")})
        environ.clear()
        environ["HTTP_SPOILT"] = environ["SCRIPT_NAME"] = "spoilt"
        start_response("200 OK", [])
        return []

    rig = Rig(app, loglevel="error", accesslog=None, **CONFIGS[request.param])
    clients = {name: rig.connect(peer=peer, server=server) for name, (peer, server) in CONNECTIONS.items()}

    def compare(connection, method, path, authority, section):
        expected = reference(rig.cfg, connection, method, path, authority, section)
        pseudo = {"method": method, "path": path, "authority": authority, "scheme": b"http"}
        environs.clear()
        status = clients[connection].request(section=fields(*section, **pseudo)).status
        assert status == 200 or (400 <= status <= 500 and not environs)
        assert (environs[0] if environs else REFUSED) == expected

    yield compare
    rig.close()


@given(st.lists(request, min_size=1, max_size=3), st.integers(1, 3))
@settings(max_examples=60, deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
def test_an_environ_is_what_it_is_over_http_1(parity, requests, times):
    """Every request comes several times, for what is remembered of the first must do for the others."""
    for request in requests * times:
        parity(*request)
