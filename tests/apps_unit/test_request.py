"""A stream's head as Gunicorn's request: the same as its HTTP/1 parser makes of the same request."""

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.apps.request import StreamRequest, TrustedPeers, joined_fields, policy_names
from gunicorn_h2.protocol.headers import parse_request

PEER = ("127.0.0.1", 1234)


def config(**settings):
    """Gunicorn's configuration."""
    cfg = Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return cfg


def head_of(*fields, method=b"GET", path=b"/", authority=b"example.org", scheme=b"http"):
    """A request's head, as the core gives it."""
    pseudo = [(b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path)]
    return parse_request([*pseudo, *fields])


def stream_request(cfg, head, peer=PEER):
    """Our request."""
    return StreamRequest(cfg).for_stream(head, peer, 7)


def text_request(cfg, head, peer=PEER):
    """Gunicorn's own, of the same fields."""
    lines = [b"%s %s HTTP/1.1" % (head.method, head.path)]
    lines += [b"%s: %s" % field for field in joined_fields(head)]
    return Request(cfg, IterUnreader([b"\r\n".join(lines) + b"\r\n\r\n"]), peer)


def outcome(make, *arguments):
    """A request's attributes, or what kind of error refused it."""
    try:
        request = make(*arguments)
    except ParseException as error:
        return type(error)
    return (request.method, request.uri, request.path, request.query, request.fragment, request.headers, request.scheme,
            request.peer_addr, request.remote_addr)


REQUESTS = {
    "plain": head_of((b"accept", b"*/*"), (b"x-a", b"1"), (b"x-a", b"2")),
    "a query": head_of(path=b"/a%20b?c=d?e&f=/"),
    "slashes": head_of(path=b"//double//slash"),
    "a colon": head_of(path=b"/a:b"),
    "latin-1": head_of((b"x-latin", b"caf\xe9")),
    "an empty value": head_of((b"x-empty", b"")),
    "an underscore": head_of((b"x_under", b"1"), (b"x-a", b"2")),
    "a scheme from a proxy": head_of((b"x-forwarded-proto", b"https")),
    "schemes that differ": head_of((b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"off")),
    "content-type twice": head_of((b"content-type", b"text/plain"), (b"content-type", b"text/html")),
    "SCRIPT_NAME": head_of((b"script_name", b"/x")),
    "many fields": head_of(*[(b"x-%d" % number, b"1") for number in range(98)]),
    "too many fields": head_of(*[(b"x-%d" % number, b"1") for number in range(101)]),
    "a large field": head_of((b"x-large", b"v" * 8_000)),
    "a field that is too large": head_of((b"x-large", b"v" * 8_190)),
    "a path that is too long": head_of(path=b"/" + b"x" * 4_094),
    "cookies": head_of((b"cookie", b"a=b"), (b"x-a", b"1"), (b"cookie", b"c=d")),
}


@pytest.mark.parametrize("name", [name for name in REQUESTS if "too" not in name or "fields" in name])
@pytest.mark.parametrize("settings", [{}, {"forwarded_allow_ips": "*"}, {"header_map": "refuse"},
                                      {"header_map": "dangerous"}, {"strip_header_spaces": True}], ids=str)
def test_a_request_is_what_gunicorn_makes_of_it(name, settings):
    cfg, head = config(**settings), REQUESTS[name]
    assert outcome(stream_request, cfg, head) == outcome(text_request, cfg, head)


def test_limits_of_gunicorns_hold():
    with pytest.raises(LimitRequestLine):
        stream_request(config(), REQUESTS["a path that is too long"])
    with pytest.raises(LimitRequestHeaders):
        stream_request(config(), REQUESTS["a field that is too large"])
    with pytest.raises(LimitRequestHeaders):
        stream_request(config(limit_request_fields=3), head_of(*[(b"x-a", b"1")] * 3))


def test_limits_may_be_lifted():
    assert stream_request(config(limit_request_line=0), REQUESTS["a path that is too long"]).path[4_000:] == "x" * 95
    with pytest.raises(LimitRequestHeaders):
        # Gunicorn takes 0 for its default here.
        stream_request(config(limit_request_field_size=0), REQUESTS["a field that is too large"])


@pytest.mark.parametrize(("scheme", "peer", "known"), [
    (b"https", PEER, "https"), (b"HTTPS", PEER, "https"), (b"https", ("192.0.2.1", 1), "http"), (b"http", PEER, "http"),
    (b"ftp", PEER, "http")])
def test_the_scheme_is_believed_where_the_peer_is_trusted(scheme, peer, known):
    assert stream_request(config(), head_of(scheme=scheme), peer).scheme == known


def test_a_method_may_be_folded():
    head = head_of(method=b"get")
    assert stream_request(config(), head).method == "get"
    assert stream_request(config(casefold_http_method=True), head).method == "GET"


def test_what_a_request_knows_of_http2():
    request = stream_request(config(), REQUESTS["plain"])
    assert (request.version, request.req_number, request.should_close()) == ((2, 0), 7, False)
    assert request.headers[0] == ("HOST", "example.org")
    request.set_body_reader()


def test_one_blank_request_serves_many():
    blank = StreamRequest(config())
    first = blank.for_stream(REQUESTS["plain"], PEER, 1)
    second = blank.for_stream(REQUESTS["a query"], ("10.0.0.1", 1), 3)
    assert (first.req_number, first.path, first.peer_addr) == (1, "/", PEER)
    assert (second.req_number, second.path, second.peer_addr) == (3, "/a%20b", ("10.0.0.1", 1))


def test_fields_with_their_host_first_and_cookies_joined():
    head = REQUESTS["cookies"]
    assert joined_fields(head) == [(b"host", b"example.org"), (b"x-a", b"1"), (b"cookie", b"a=b; c=d")]
    assert joined_fields(head_of((b"cookie", b"a=b"), (b"x-a", b"1"))) == [
        (b"host", b"example.org"), (b"cookie", b"a=b"), (b"x-a", b"1")]
    assert joined_fields(head_of(authority=b"")) == []


@given(st.lists(st.binary(min_size=1, max_size=5).filter(lambda crumb: not set(crumb) & set(b"\r\n\0\t "))
                .filter(lambda crumb: all(octet > 32 and octet != 127 for octet in crumb)), max_size=5))
def test_crumbs_are_joined_as_the_rfc_says(crumbs):
    fields = dict(joined_fields(head_of(*[(b"cookie", crumb) for crumb in crumbs])))
    assert fields.get(b"cookie", b"") == b"; ".join(crumbs)


def test_the_policys_names_are_gunicorns():
    assert policy_names(config()) >= {b"expect", b"x-forwarded-proto", b"x-forwarded-ssl"}


def test_many_names_are_no_leak():
    cfg = config()
    for number in range(3_000):
        name = b"x-name-%d" % number
        assert stream_request(cfg, head_of((name, b"1"))).headers[1] == (name.decode().upper(), "1")


# -- trust -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "peer", "trusted"), [
    ("10.0.0.0/8,::1", ("10.1.2.3", 1), True), ("10.0.0.0/8,::1", ("11.1.2.3", 1), False),
    ("10.0.0.0/8,::1", ("::1", 1, 0, 0), True), ("10.0.0.0/8", ("::1", 1, 0, 0), False),
    ("*", ("11.1.2.3", 1), True), ("", ("127.0.0.1", 1), False), ("", "", True), ("", b"", True), ("", None, True)])
def test_trusted_peers(setting, peer, trusted):
    peers = TrustedPeers(config(forwarded_allow_ips=setting))
    assert [peer in peers for _ in range(2)] == [trusted] * 2


class CountingConfig:
    """A configuration that counts how often it is asked whom it trusts."""

    forwarded_allow_ips = ("127.0.0.1",)

    def __init__(self):
        self.asked = 0

    def forwarded_allow_networks(self):
        """What each decision begins with."""
        self.asked += 1
        return []


def test_a_peer_is_judged_once():
    cfg = CountingConfig()
    peers = TrustedPeers(cfg)
    for port in range(100):
        assert ("192.0.2.1", port) not in peers
    assert cfg.asked == 1


def test_verdicts_take_no_more_memory_than_they_may():
    peers = TrustedPeers(config(forwarded_allow_ips="2001:db8::/33"))
    addresses = [f"2001:db8:{number:x}::1" for number in range(0x7F00, 0x8500)]
    verdicts = [(address, 1, 0, 0) in peers for address in addresses]
    assert verdicts == [True] * 0x100 + [False] * 0x500
    assert len(peers._verdicts) <= 1024
    assert [(address, 1, 0, 0) in peers for address in addresses] == verdicts
